package message

import (
	"bytes"
	"iter"
)

// Field is one header field as it stands in a header. Its slices lie in the header's bytes.
type Field struct {
	// Name is the field's name without the white space before the colon; empty for a line without a colon.
	Name []byte
	// Value is everything behind the colon up to the last line end, folds included. Unfold makes one line of it.
	Value []byte
	// Raw is the whole field with all its line ends, the last one too if it is there. It begins at Offset in the header.
	Raw    []byte
	Offset int
}

// Is tells whether the field has this name, without regard to case.
func (f Field) Is(name string) bool {
	return len(f.Name) == len(name) && len(name) > 0 && bytes.EqualFold(f.Name, []byte(name))
}

// Fields goes through the fields of a header up to its empty line. header may hold the body too. Lines that are no fields come as fields
// without a name.
func Fields(header []byte) iter.Seq[Field] {
	return func(yield func(Field) bool) {
		for start := 0; start < len(header); {
			end := fieldEnd(header, start)
			raw := header[start:end]
			if len(trimLineEnd(raw)) == 0 && raw[len(raw)-1] == '\n' {
				return
			}
			f := Field{Raw: raw, Offset: start}
			content := trimLineEnd(raw)
			line := content
			if i := bytes.IndexByte(line, '\n'); i >= 0 {
				line = line[:i]
			}
			if colon := bytes.IndexByte(line, ':'); colon >= 0 {
				f.Name = bytes.TrimRight(line[:colon], " \t")
				f.Value = content[colon+1:]
			} else {
				f.Value = content
			}
			if !yield(f) {
				return
			}
			start = end
		}
	}
}

// fieldEnd returns where the field that begins at start ends: behind the first line end that no white space follows.
func fieldEnd(header []byte, start int) int {
	first := true
	for end := start; ; {
		i := bytes.IndexByte(header[end:], '\n')
		if i < 0 {
			return len(header)
		}
		line := header[end : end+i]
		end += i + 1
		empty := first && (len(line) == 0 || len(line) == 1 && line[0] == '\r')
		first = false
		if empty || end == len(header) || header[end] != ' ' && header[end] != '\t' {
			return end
		}
	}
}

func trimLineEnd(line []byte) []byte {
	if n := len(line); n > 0 && line[n-1] == '\n' {
		line = line[:n-1]
		if n > 1 && line[n-2] == '\r' {
			line = line[:n-2]
		}
	}
	return line
}

// Lookup returns the first field of this name, without regard to case.
func Lookup(header []byte, name string) (Field, bool) {
	for f := range Fields(header) {
		if f.Is(name) {
			return f, true
		}
	}
	return Field{}, false
}

// LookupAll returns all fields of this name in their order.
func LookupAll(header []byte, name string) (fields []Field) {
	for f := range Fields(header) {
		if f.Is(name) {
			fields = append(fields, f)
		}
	}
	return fields
}

// Unfold appends a field's value as one line: line ends that white space follows are taken out and white space at both ends is dropped. What
// is folded keeps the white space that the fold began with (RFC 5322 section 2.2.3).
func Unfold(dst, value []byte) []byte {
	value = bytes.Trim(value, " \t\r\n")
	for len(value) > 0 {
		i := bytes.IndexByte(value, '\n')
		if i < 0 {
			return append(dst, value...)
		}
		line := bytes.TrimSuffix(value[:i], cr)
		dst = append(dst, line...)
		value = value[i+1:]
	}
	return dst
}

// AppendHeaderFields appends what FETCH BODY[HEADER.FIELDS (names)] answers: the fields of these names in their order, as they are folded,
// and an empty line.
func AppendHeaderFields(dst, header []byte, names []string) []byte {
	for f := range Fields(header) {
		if isOneOf(f, names) {
			dst = append(dst, f.Raw...)
		}
	}
	return append(dst, crlf...)
}

// AppendHeaderFieldsNot appends what FETCH BODY[HEADER.FIELDS.NOT (names)] answers: the header without these fields, its empty line only when
// it has one.
func AppendHeaderFieldsNot(dst, header []byte, names []string) []byte {
	end := 0
	for f := range Fields(header) {
		end = f.Offset + len(f.Raw)
		if !isOneOf(f, names) {
			dst = append(dst, f.Raw...)
		}
	}
	if end < len(header) {
		dst = append(dst, crlf...)
	}
	return dst
}

func isOneOf(f Field, names []string) bool {
	for _, name := range names {
		if f.Is(name) {
			return true
		}
	}
	return false
}
