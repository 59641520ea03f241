package table

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"postilion/rx"
)

func (t *opened) openPatterns(kind, name string, options *Options) error {
	r, err := t.readRules(kind, name, options, func(r *rules, l LogicalLine) {
		(&patternReader{r: r, options: options, line: l.Number}).rule(l.Text)
	})
	if err != nil {
		return err
	}
	t.finder = ruleTable{r}
	return nil
}

// pattern is the condition of a rule of a regexp or pcre table.
type pattern struct {
	re     *rx.Regexp
	negate bool
	but    *pattern // regexp only: /pattern/!/other/
	result template
}

func (p *pattern) match(key *ruleKey) (string, bool, error) {
	if p.negate || !p.result.references || p.re.NumCapture() == 0 {
		matched, err := p.re.Match(key.text)
		if err != nil || matched == p.negate {
			return "", false, err
		}
		return p.unless(key, nil)
	}
	groups, err := p.re.AppendCaptures(key.groups[:0], key.text)
	if err != nil || groups == nil {
		return "", false, err
	}
	key.groups = groups
	return p.unless(key, groups)
}

func (p *pattern) unless(key *ruleKey, groups []int) (string, bool, error) {
	if p.but != nil {
		matched, err := p.but.re.Match(key.text)
		if err != nil || matched == p.but.negate {
			return "", false, err
		}
	}
	return p.result.expand(key.text, groups), true, nil
}

// template is the right-hand side of a rule: literal parts and group numbers.
type template struct {
	parts      []templatePart
	references bool
}

type templatePart struct {
	literal string
	group   int // 0: literal
}

func (t *template) expand(text []byte, groups []int) string {
	if len(t.parts) == 1 && t.parts[0].group == 0 {
		return t.parts[0].literal
	}
	var out []byte
	for _, part := range t.parts {
		if part.group == 0 {
			out = append(out, part.literal...)
		} else if i := 2 * part.group; i+1 < len(groups) && groups[i+1] >= 0 {
			out = append(out, text[groups[i]:groups[i+1]]...)
		}
	}
	return string(out)
}

// patternReader reads one line of a regexp or pcre table.
type patternReader struct {
	r       *rules
	options *Options
	line    int
}

func (p *patternReader) warn(format string, args ...any) {
	p.r.warn(p.options, p.line, format, args...)
}

func (p *patternReader) perl() bool { return p.r.kind == "pcre" }

func (p *patternReader) rule(line string) {
	if !isAlnum(line[0]) {
		p.matchRule(line)
		return
	}
	if rest, ok := keyword(line, "if"); ok {
		condition, rest, ok := p.pattern(rest)
		if !ok {
			return
		}
		if rest = strings.TrimLeft(rest, blanks); rest != "" {
			p.warn("ignoring extra text after IF statement: \"%s\"", Printable(rest))
			p.warn("do not prepend whitespace to statements between IF and ENDIF")
		}
		if p.compile(condition, 0) {
			p.r.add(ruleIf, condition.pattern, p.line)
		}
		return
	}
	if rest, ok := keyword(line, "endif"); ok {
		if !p.r.endif(p.line) {
			p.warn("ignoring ENDIF without matching IF")
		} else if rest != "" {
			p.warn("ignoring extra text after ENDIF")
		}
		return
	}
	p.warn("ignoring unrecognized request")
}

func (p *patternReader) matchRule(line string) {
	first, rest, ok := p.pattern(line)
	if !ok {
		return
	}
	var second *source
	if !p.perl() && strings.HasPrefix(rest, "!") {
		if second, rest, ok = p.pattern(rest); !ok {
			return
		}
	}
	if rest = strings.TrimLeft(rest, blanks); rest == "" {
		p.warn("no replacement text: using empty string")
	}
	result, highest, ok := p.template(rest)
	if !ok {
		return
	}
	if first.negate && result.references {
		p.warn("$number found in negative match replacement text: skipping this rule")
		return
	}
	first.result = result
	if !p.compile(first, highest) {
		return
	}
	if second != nil {
		if !p.compile(second, 0) {
			return
		}
		first.but = second.pattern
	}
	p.r.add(ruleMatch, first.pattern, p.line)
}

// source is a pattern with the text that it is compiled from.
type source struct {
	*pattern
	text   string
	syntax rx.Syntax
	flags  rx.Flags
}

// pattern reads "!/text/flags" and gives what follows.
func (p *patternReader) pattern(line string) (s *source, rest string, ok bool) {
	line, negate := negations(line)
	if line == "" {
		p.warn("no regexp: skipping this rule")
		return nil, "", false
	}
	delimiter, line := line[0], line[1:]
	end := 0
	for end < len(line) && line[end] != delimiter {
		if line[end] == '\\' {
			end++
		}
		end++
	}
	if end >= len(line) {
		consequence := "skipping"
		if p.perl() {
			consequence = "ignoring"
		}
		p.warn("no closing regexp delimiter \"%c\": %s this rule", delimiter, consequence)
		return nil, "", false
	}
	s = &source{pattern: &pattern{negate: negate}, text: line[:end], syntax: rx.POSIXExtended, flags: rx.FoldCase}
	if p.perl() {
		s.syntax, s.flags = rx.Perl, rx.FoldCase|rx.DotAll
	}
	for rest = line[end+1:]; rest != "" && !isBlank(rest[0]) && (p.perl() || rest[0] != '!'); rest = rest[1:] {
		if !p.flag(s, rest[0]) {
			p.warn("unknown regexp option \"%s\": skipping this rule", Printable(rest[:1]))
			return nil, "", false
		}
	}
	return s, rest, true
}

func (p *patternReader) flag(s *source, letter byte) bool {
	switch letter {
	case 'i':
		s.flags ^= rx.FoldCase
		return true
	case 'm':
		s.flags ^= rx.MultiLine
		return true
	}
	if !p.perl() {
		if letter == 'x' {
			s.syntax ^= rx.POSIXExtended ^ rx.POSIXBasic
		}
		return letter == 'x'
	}
	switch letter {
	case 's':
		s.flags ^= rx.DotAll
	case 'x':
		s.flags ^= rx.Extended
	case 'A':
		s.flags ^= rx.Anchored
	case 'E':
		s.flags ^= rx.DollarEndOnly
	case 'U':
		s.flags ^= rx.Ungreedy
	case 'X':
		p.warn("ignoring obsolete regexp option \"X\"")
	default:
		return false
	}
	return true
}

// compile compiles the pattern and checks that it has the groups that its result names.
func (p *patternReader) compile(s *source, highest int) bool {
	re, err := rx.Compile(s.syntax, s.text, s.flags)
	var bad *rx.Error
	switch {
	case errors.As(err, &bad) && p.perl():
		p.warn("error in regex at offset %d: %s", bad.Offset, bad.Reason)
		return false
	case errors.As(err, &bad):
		p.warn("%s", bad.Reason)
		return false
	case err != nil:
		p.warn("%v", err)
		return false
	}
	if highest > re.NumCapture() {
		p.warn("out of range replacement index \"%d\": skipping this rule", highest)
		return false
	}
	if p.options.Lint != nil {
		for _, w := range rx.Warnings(s.syntax, s.text) {
			p.options.Lint(fmt.Sprintf("%s map %s, line %d: %v", p.r.kind, p.r.name, p.line, w))
		}
	}
	s.re = re
	return true
}

// template reads a result: $1, ${1}, $(1) and $$.
func (p *patternReader) template(text string) (t template, highest int, ok bool) {
	var literal strings.Builder
	flush := func() {
		if literal.Len() > 0 {
			t.parts = append(t.parts, templatePart{literal: literal.String()})
			literal.Reset()
		}
	}
	for i := 0; i < len(text); {
		if text[i] != '$' {
			literal.WriteByte(text[i])
			i++
			continue
		}
		if strings.HasPrefix(text[i:], "$$") {
			literal.WriteByte('$')
			i += 2
			continue
		}
		name, length := macroName(text[i+1:])
		index, numeric := macroIndex(name)
		switch {
		case length < 0:
			p.options.warn("truncated macro reference: \"%s\"", Printable(text))
		case name == "":
			p.options.warn("empty macro name: \"%s\"", Printable(text))
		case !numeric:
			p.warn("non-numeric replacement index \"%s\"", Printable(name))
		case index < 1:
			p.warn("out of range replacement index \"%s\"", name)
		default:
			flush()
			t.parts = append(t.parts, templatePart{group: index})
			t.references = true
			highest = max(highest, index)
			i += 1 + length
			continue
		}
		p.warn("bad replacement syntax: skipping this rule")
		return template{}, 0, false
	}
	flush()
	if len(t.parts) == 0 {
		t.parts = []templatePart{{}}
	}
	return t, highest, true
}

// macroName reads a name after a dollar sign; length -1 means that its brace is not closed.
func macroName(text string) (name string, length int) {
	if text != "" && (text[0] == '{' || text[0] == '(') {
		closing := byte('}')
		if text[0] == '(' {
			closing = ')'
		}
		depth := 0
		for i := range len(text) {
			switch text[i] {
			case text[0]:
				depth++
			case closing:
				if depth--; depth == 0 {
					return text[1:i], i + 1
				}
			}
		}
		return "", -1
	}
	end := 0
	for end < len(text) && (isAlnum(text[end]) || text[end] == '_') {
		end++
	}
	return text[:end], end
}

func macroIndex(name string) (index int, numeric bool) {
	if name == "" || strings.Trim(name, "0123456789") != "" {
		return 0, false
	}
	index, err := strconv.Atoi(name)
	if err != nil {
		return 1 << 30, true
	}
	return index, true
}
