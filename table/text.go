package table

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"
)

// textTable is a table read from a text source: whole in memory.
type textTable struct {
	path    string
	entries map[string]textEntry
	order   []string
}

type textEntry struct {
	value string
	line  int32
}

func (t *textTable) find(_ context.Context, key string) (answer, bool, error) {
	entry, ok := t.entries[key]
	return answer{value: entry.value, path: t.path, line: int(entry.line)}, ok, nil
}

func (t *textTable) each(yield func(key, value string) bool) {
	for _, key := range t.order {
		if !yield(key, t.entries[key].value) {
			return
		}
	}
}

// Record is one entry of a text source.
type Record struct {
	Key, Value string
	// Written is the key before folding.
	Written string
	Line    int
}

// RecordError says why a logical line of a text source is no entry. Its text is what Postfix prints after the place.
type RecordError struct{ Reason string }

func (e *RecordError) Error() string { return e.Reason }

// ignoringLine ends the warnings about lines that are left out.
const ignoringLine = " -- ignoring this line"

// SplitRecord takes "key value" apart. The key may be quoted, and keeps its quotes.
func SplitRecord(line string) (key, value string, err error) {
	i, quoted := 0, false
	for ; i < len(line) && (quoted || !isBlank(line[i])); i++ {
		switch line[i] {
		case '"':
			quoted = !quoted
		case '\\':
			if quoted && i+1 < len(line) {
				i++
			}
		}
	}
	if quoted {
		return "", "", &RecordError{"unbalanced '\"' in '" + Printable(line) + "'" + ignoringLine}
	}
	key, value = line[:i], strings.Trim(line[i:], blanks)
	if key == "" || value == "" {
		return "", "", &RecordError{"expected format: key whitespace value"}
	}
	return key, value, nil
}

// ErrNotUTF8 marks a line that was left out because it is not UTF-8.
var ErrNotUTF8 = errors.New("non-UTF-8 input")

// ReadRecords reads a text source: "key value" lines, or aliases(5) when options say so. Keys are folded as options say.
// Lines that are no entries are told to options.Warn, ending in ignoring; each gets the rest.
func ReadRecords(r io.Reader, path, ignoring string, options *Options, each func(Record) error) error {
	count := 0
	line := func(l LogicalLine) error {
		if !options.NoUTF8 && !utf8.ValidString(l.Text) {
			options.warn("%s, line %d: non-UTF-8 input \"%s\" -- ignoring this line", path, l.Number, Printable(l.Text))
			return nil
		}
		split := SplitRecord
		if options.Aliases {
			split = SplitAlias
		}
		key, value, err := split(strings.TrimRight(l.Text, blanks))
		if err != nil {
			reason := err.Error()
			if !options.Aliases && !strings.HasSuffix(reason, ignoringLine) {
				reason += ignoring
			}
			options.warn("%s, line %d: %s", path, l.Number, reason)
			return nil
		}
		if !options.Aliases && strings.HasSuffix(key, ":") {
			options.warn("%s, line %d: record is in \"key: value\" format; is this an alias file?", path, l.Number)
		}
		written := key
		if !options.NoFold {
			key = foldKey(key, !options.NoUTF8)
		}
		if count++; count > MaxEntries {
			return fmt.Errorf("%s: more than %d entries", path, MaxEntries)
		}
		return each(Record{key, value, written, l.Number})
	}
	return ReadLines(r, line, func(text string) {
		options.warn("%s: logical line must not start with whitespace: \"%s\"", path, Printable(shorten(text, 30)))
	})
}

func shorten(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return text[:most] + "..."
}

// readText reads the source of a table. Of entries with the same key the first counts, the others are told.
func (t *opened) readText(name string, options *Options) error {
	path := options.path(name)
	file, err := t.openSource(path, "open database")
	if err != nil {
		return err
	}
	defer file.Close()
	table := &textTable{path: path, entries: map[string]textEntry{}}
	err = ReadRecords(file, path, ignoringLine, options, func(r Record) error {
		if _, double := table.entries[r.Key]; double {
			options.warn("%s, line %d: duplicate entry: \"%s\"", path, r.Line, Printable(r.Written))
			return nil
		}
		if options.ValuesAreFiles {
			content, err := t.readFiles(r.Value, options)
			if err != nil {
				return fmt.Errorf("%s, line %d: %w", path, r.Line, err)
			}
			r.Value = content
		}
		table.entries[r.Key] = textEntry{r.Value, int32(r.Line)}
		table.order = append(table.order, r.Key)
		return nil
	})
	t.finder = table
	return err
}

func (t *opened) openText(name string, options *Options) error { return t.readText(name, options) }

// readFiles gives the contents of the files named in value, with a newline between them.
func (t *opened) readFiles(value string, options *Options) (string, error) {
	content, stamps, err := ReadFiles(value, options.Directory)
	t.files = append(t.files, stamps...)
	return content, err
}

// maxFileValue bounds a value that is read from files.
const maxFileValue = 16 << 20

// ReadFiles gives the contents of the files that value names, separated by commas or white space.
func ReadFiles(value, directory string) (string, []stamp, error) {
	options := Options{Directory: directory}
	var content strings.Builder
	var stamps []stamp
	for i, name := range strings.FieldsFunc(value, func(r rune) bool { return r == ',' || r < 0x80 && isBlank(byte(r)) }) {
		path := options.path(name)
		if i > 0 {
			content.WriteByte('\n')
		}
		file, err := os.Open(path)
		if err != nil {
			return "", nil, &causedError{fmt.Sprintf("open %s: %s", path, systemText(err)), err}
		}
		info, err := file.Stat()
		if err == nil {
			stamps = append(stamps, stampFrom(path, info))
			_, err = io.Copy(&content, io.LimitReader(file, maxFileValue))
		}
		_ = file.Close()
		if err != nil {
			return "", nil, &causedError{fmt.Sprintf("read %s: %s", path, systemText(err)), err}
		}
		if content.Len() >= maxFileValue {
			return "", nil, fmt.Errorf("%s: a value is longer than %d bytes", path, maxFileValue)
		}
	}
	if len(stamps) == 0 {
		return "", nil, errors.New("empty pathname list: >" + value + "<'")
	}
	return content.String(), stamps, nil
}

// decodeFileValue undoes what an index stores for values that are files.
func decodeFileValue(value string) (string, error) {
	content, err := base64.StdEncoding.DecodeString(value)
	if err != nil {
		return "", fmt.Errorf("malformed BASE64 value: %.30s", value)
	}
	return string(content), nil
}
