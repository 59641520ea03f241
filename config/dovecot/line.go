package dovecot

import "strings"

type lineKind int

const (
	lineSkip lineKind = iota
	lineContinues
	lineValue
	lineFile
	lineVariable
	lineSectionBegin
	lineSectionEnd
	lineInclude
	lineIncludeTry
	lineMalformed
)

// line is one logical line. For lineMalformed, value says what is wrong.
type line struct {
	kind      lineKind
	key       string
	value     string
	ambiguous bool // a "#" stands directly after a word and starts a comment
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' }

func trimLeft(s string) string { return strings.TrimLeft(s, " \t") }

// lineParser joins continued lines. The zero value is ready.
type lineParser struct {
	joined strings.Builder
}

// parse takes one physical line without its end. A comment or an empty line within a continued one drops what was
// gathered, as it does in Dovecot.
func (p *lineParser) parse(text string) line {
	if i := strings.IndexByte(text, 0); i >= 0 {
		text = text[:i]
	}
	text = trimLeft(text)
	if text == "" || text[0] == '#' {
		p.joined.Reset()
		return line{kind: lineSkip}
	}
	text, ambiguous := cutComment(text)
	text = strings.TrimRight(text, " \t")
	if rest, ok := strings.CutSuffix(text, `\`); ok {
		if rest = strings.TrimRight(rest, " \t"); rest != "" {
			p.joined.WriteString(rest)
			p.joined.WriteByte(' ')
		}
		return line{kind: lineContinues, ambiguous: ambiguous}
	}
	if p.joined.Len() > 0 {
		p.joined.WriteString(text)
		text = p.joined.String()
		p.joined.Reset()
	}
	l := classify(text)
	l.ambiguous = ambiguous
	return l
}

// cutComment drops a comment that follows a value. Within quotes "#" is an ordinary character.
func cutComment(text string) (string, bool) {
	for i := 0; i < len(text); i++ {
		switch c := text[i]; c {
		case '\'', '"':
			i++
			for i < len(text) && text[i] != c {
				if text[i] == '\\' && i+1 < len(text) {
					i++
				}
				i++
			}
		case '#':
			return text[:i], !isBlank(text[i-1])
		}
	}
	return text, false
}

func classify(text string) line {
	end := strings.IndexAny(text, " \t=")
	if end < 0 {
		end = len(text)
	}
	l := line{key: text[:end]}
	rest := trimLeft(text[end:])
	switch {
	case l.key == "!include":
		l.kind, l.value = lineInclude, rest
	case l.key == "!include_try":
		l.kind, l.value = lineIncludeTry, rest
	case strings.HasPrefix(rest, "="):
		if l.key == "" {
			return line{kind: lineMalformed, value: "Missing key name ('=' at the beginning of line)"}
		}
		classifyValue(&l, trimLeft(rest[1:]))
	case l.key == "}" && rest == "":
		l.kind = lineSectionEnd
	default:
		classifySection(&l, rest)
	}
	return l
}

func classifyValue(l *line, value string) {
	if file, ok := strings.CutPrefix(value, "<"); ok {
		l.kind, l.value = lineFile, trimLeft(file)
		return
	}
	if n := len(value); n >= 1 && (value[0] == '"' || value[0] == '\'') && value[n-1] == value[0] {
		l.kind, l.value = lineValue, unescape(value[1:max(n-1, 1)])
		return
	}
	l.kind, l.value = lineValue, value
	if strings.Contains(value, "$") {
		l.kind = lineVariable
	}
}

func classifySection(l *line, rest string) {
	l.kind = lineSectionBegin
	if !strings.HasPrefix(rest, "{") {
		l.value, rest = sectionName(rest)
	}
	switch {
	case !strings.HasPrefix(rest, "{"):
		l.kind, l.value = lineMalformed, "Expecting '{'"
	case rest != "{":
		l.kind, l.value = lineMalformed, "Garbage after '{'"
	}
}

func sectionName(rest string) (name, after string) {
	if quoted, ok := strings.CutPrefix(rest, `"`); ok {
		end := 0
		for end < len(quoted) && quoted[end] != '"' {
			if quoted[end] == '\\' && end+1 < len(quoted) {
				end++
			}
			end++
		}
		if end >= len(quoted) {
			return quoted, ""
		}
		return unescape(quoted[:end]), trimLeft(quoted[end+1:])
	}
	end := strings.IndexAny(rest, " \t")
	if end < 0 {
		return rest, ""
	}
	return rest[:end], trimLeft(rest[end:])
}

// unescape drops the backslash before each escaped character; a last lone one stays.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
