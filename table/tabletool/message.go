package tabletool

import (
	"bufio"
	"fmt"
	"io"
	"strings"
)

// message takes a mail apart as header_checks(5) and body_checks(5) see it: a header with its continuation lines is one
// text, each line of a body is one. With mime set, the headers of parts and of attached messages are headers too.
type message struct {
	mime   bool
	header func(text string) error
	body   func(text string) error

	boundaries  []string
	pending     string // the header being gathered
	contentType string // of the part whose headers are being read
	depth       int
}

const (
	maxLine       = 1 << 20
	maxBoundaries = 100
)

func (m *message) read(r io.Reader) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	inHeaders := true
	for lines.Scan() {
		line := strings.TrimSuffix(lines.Text(), "\r")
		var err error
		if inHeaders {
			inHeaders, err = m.headerLine(line)
		} else {
			inHeaders, err = m.bodyLine(line)
		}
		if err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read standard input: %w", err)
	}
	return m.flush()
}

func (m *message) flush() error {
	text := m.pending
	m.pending = ""
	if text == "" {
		return nil
	}
	if name, value, _ := strings.Cut(text, ":"); strings.EqualFold(strings.TrimSpace(name), "Content-Type") {
		m.contentType = strings.TrimSpace(value)
	}
	return m.header(text)
}

// headerLine takes one line where headers may stand, and says whether more may follow.
func (m *message) headerLine(line string) (bool, error) {
	if m.pending != "" && line != "" && (line[0] == ' ' || line[0] == '\t') {
		m.pending += "\n" + line
		if len(m.pending) > maxLine {
			return false, fmt.Errorf("a header is longer than %d bytes", maxLine)
		}
		return true, nil
	}
	if err := m.flush(); err != nil {
		return false, err
	}
	if isHeader(line) {
		m.pending = line
		return true, nil
	}
	nested := m.endOfHeaders()
	if line == "" {
		return nested, m.body(line)
	}
	return m.bodyLine(line)
}

// endOfHeaders acts on the content type and says whether the headers of an attached message follow.
func (m *message) endOfHeaders() bool {
	kind, rest, _ := strings.Cut(m.contentType, ";")
	m.contentType = ""
	kind = strings.ToLower(strings.TrimSpace(kind))
	if !m.mime {
		return false
	}
	if strings.HasPrefix(kind, "multipart/") {
		if b := parameter(rest, "boundary"); b != "" && len(m.boundaries) < maxBoundaries {
			m.boundaries = append(m.boundaries, b)
		}
		return false
	}
	m.depth++
	return (kind == "message/rfc822" || kind == "message/global") && m.depth < maxBoundaries
}

func (m *message) bodyLine(line string) (inHeaders bool, err error) {
	if m.mime && strings.HasPrefix(line, "--") {
		for i := len(m.boundaries) - 1; i >= 0; i-- {
			rest, ok := strings.CutPrefix(line[2:], m.boundaries[i])
			if !ok {
				continue
			}
			m.boundaries = m.boundaries[:i+1]
			if strings.HasPrefix(rest, "--") {
				m.boundaries = m.boundaries[:i]
				return false, m.body(line)
			}
			return true, m.body(line)
		}
	}
	return false, m.body(line)
}

// isHeader says whether a line begins with a field name and a colon.
func isHeader(line string) bool {
	name, _, ok := strings.Cut(line, ":")
	name = strings.TrimRight(name, " \t")
	if !ok || name == "" {
		return false
	}
	for i := range len(name) {
		if name[i] <= ' ' || name[i] >= 0x7f {
			return false
		}
	}
	return true
}

// parameter finds a parameter of a content type.
func parameter(text, name string) string {
	for text != "" {
		var item string
		item, text, _ = strings.Cut(text, ";")
		key, value, ok := strings.Cut(item, "=")
		if !ok || !strings.EqualFold(strings.TrimSpace(key), name) {
			continue
		}
		value = strings.TrimSpace(value)
		if strings.HasPrefix(value, `"`) {
			if end := strings.IndexByte(value[1:], '"'); end >= 0 {
				return value[1 : 1+end]
			}
		}
		return value
	}
	return ""
}
