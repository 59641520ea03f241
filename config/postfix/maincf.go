package postfix

import "fmt"

// entry is one assignment as written.
type entry struct {
	name, value string
	pos         Position
}

// mainFile is main.cf as read: the last assignment of each name counts.
type mainFile struct {
	entries     []entry
	last        map[string]int // index into entries
	diagnostics []Diagnostic
}

const byteOrderMark = "\xef\xbb\xbf"

// parseMain reads the text of a main.cf. A defect that stops Postfix is a *SyntaxError.
func parseMain(path string, text []byte) (*mainFile, error) {
	m := &mainFile{last: map[string]int{}}
	if len(text) > MaxFileSize {
		return nil, fmt.Errorf("%s: %w of %d bytes", path, ErrTooLarge, MaxFileSize)
	}
	if rest, marked := cutMark(text); marked {
		m.warn(Notice, Position{path, 1}, "the file starts with a byte order mark, which is skipped here; Postfix would take it as part of the first name")
		text = rest
	}
	lines, err := splitLogical(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	for _, line := range lines {
		pos := Position{path, line.first}
		if isSpace(line.text[0]) {
			m.warn(Warning, pos, "logical line must not start with whitespace: "+quote(shorten(line.text)))
			continue
		}
		name, value, err := SplitNameValue(line.text)
		if err != nil {
			text := fmt.Sprintf("%v: %s", err, quote(line.text))
			if line.last != line.first {
				text += fmt.Sprintf("; the line continues to line %d", line.last)
			}
			return nil, &SyntaxError{Pos: pos, Text: text, Real: fmt.Sprintf("%s, line %d: %v: %s", path, line.first, err, quote(line.text))}
		}
		if i, again := m.last[name]; again && m.entries[i].value != value {
			m.warn(Warning, pos, fmt.Sprintf("overriding earlier entry: %s=%s, written at %s", name, m.entries[i].value, m.entries[i].pos))
		}
		m.last[name] = len(m.entries)
		m.entries = append(m.entries, entry{name, value, pos})
	}
	return m, nil
}

func (m *mainFile) warn(severity Severity, pos Position, text string) {
	m.diagnostics = append(m.diagnostics, Diagnostic{pos, severity, text})
}

func (m *mainFile) lookup(name string) (entry, bool) {
	i, ok := m.last[name]
	if !ok {
		return entry{}, false
	}
	return m.entries[i], true
}

func (m *mainFile) set(e entry) {
	m.last[e.name] = len(m.entries)
	m.entries = append(m.entries, e)
}

func cutMark(text []byte) ([]byte, bool) {
	if len(text) >= len(byteOrderMark) && string(text[:len(byteOrderMark)]) == byteOrderMark {
		return text[len(byteOrderMark):], true
	}
	return text, false
}

// shorten cuts a line for a message.
func shorten(s string) string {
	const limit = 30
	if len(s) > limit {
		return s[:limit] + "..."
	}
	return s
}
