package table

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
)

// rules are the lines of a regexp, pcre or cidr table in order: the first rule that applies answers. An if that does
// not hold goes on after its endif.
type rules struct {
	kind string // "regexp", "pcre", "cidr", as warnings have it
	name string
	list []rule
	open []int // ifs not yet closed
}

type ruleKind uint8

const (
	ruleMatch ruleKind = iota
	ruleIf
	ruleEndif
)

type rule struct {
	kind    ruleKind
	matcher matcher
	line    int
	skipTo  int // ruleIf: where to go on when it does not hold
}

// matcher is the condition of a rule, and what it answers.
type matcher interface {
	match(key *ruleKey) (value string, matched bool, err error)
}

// ruleKey is a key prepared once for all rules.
type ruleKey struct {
	text   []byte
	groups []int
	addr   address
}

func (r *rules) evaluate(key *ruleKey) (answer, bool, error) {
	for i := 0; i < len(r.list); {
		rule := &r.list[i]
		i++
		if rule.kind == ruleEndif {
			continue
		}
		value, matched, err := rule.matcher.match(key)
		switch {
		case err != nil:
			return answer{}, false, fmt.Errorf("%s map %s, line %d: %w", r.kind, r.name, rule.line, err)
		case matched && rule.kind == ruleMatch:
			return answer{value: value, path: r.name, line: rule.line}, true, nil
		case !matched && rule.kind == ruleIf:
			i = rule.skipTo
		}
	}
	return answer{}, false, nil
}

func (r *rules) add(kind ruleKind, m matcher, line int) {
	r.list = append(r.list, rule{kind: kind, matcher: m, line: line})
	if kind == ruleIf {
		r.open = append(r.open, len(r.list)-1)
	}
}

// endif closes the innermost if, and says whether there was one.
func (r *rules) endif(line int) bool {
	if len(r.open) == 0 {
		return false
	}
	r.list = append(r.list, rule{kind: ruleEndif, line: line})
	r.list[r.open[len(r.open)-1]].skipTo = len(r.list)
	r.open = r.open[:len(r.open)-1]
	return true
}

// finish leaves ifs without endif open to the end of the table.
func (r *rules) finish(options *Options) {
	for _, i := range r.open {
		r.list[i].skipTo = len(r.list)
	}
	for i := len(r.open) - 1; i >= 0; i-- {
		r.warn(options, r.list[r.open[i]].line, "IF has no matching ENDIF")
	}
	r.open = nil
}

func (r *rules) warn(options *Options, line int, format string, args ...any) {
	options.warn("%s map %s, line %d: %s", r.kind, r.name, line, fmt.Sprintf(format, args...))
}

// readRules reads a rule file, or the rules written in place: "{ {rule}, {rule} }".
func (t *opened) readRules(kind, name string, options *Options, line func(r *rules, l LogicalLine)) (*rules, error) {
	r := &rules{kind: kind, name: name}
	var source io.Reader
	if strings.HasPrefix(name, "{") {
		text, err := inlineRules(kind, name)
		if err != nil {
			return nil, err
		}
		source = strings.NewReader(text)
	} else {
		r.name = options.path(name)
		file, err := t.openSource(r.name, "open")
		if err != nil {
			return nil, err
		}
		defer func(f *os.File) { _ = f.Close() }(file)
		source = file
	}
	err := ReadLines(source, func(l LogicalLine) error {
		if len(r.list) >= MaxEntries {
			return fmt.Errorf("%s: more than %d rules", r.name, MaxEntries)
		}
		l.Text = strings.TrimRight(l.Text, blanks)
		line(r, l)
		return nil
	}, func(text string) {
		options.warn("%s: logical line must not start with whitespace: \"%s\"", r.name, Printable(shorten(text, 30)))
	})
	if err != nil {
		return nil, fmt.Errorf("%s map %s: %w", kind, r.name, err)
	}
	r.finish(options)
	return r, nil
}

// inlineRules makes one line of each braced rule.
func inlineRules(kind, name string) (string, error) {
	body, err := stripBraces(name)
	if err != nil {
		return "", fmt.Errorf("%s map: %w", kind, err)
	}
	var lines strings.Builder
	for _, item := range splitBraced(body) {
		if item[0] != '{' {
			return "", fmt.Errorf("%s map: no '{' at start of text in \"%s\"", kind, item)
		}
		rule, err := stripBraces(item)
		if err != nil {
			return "", fmt.Errorf("%s map: %w", kind, err)
		}
		lines.WriteString(strings.ReplaceAll(rule, "\n", " "))
		lines.WriteByte('\n')
	}
	return lines.String(), nil
}

// keyword says whether line begins with an IF or ENDIF, and gives the rest.
func keyword(line, word string) (rest string, ok bool) {
	if len(line) < len(word) || !strings.EqualFold(line[:len(word)], word) {
		return "", false
	}
	rest = line[len(word):]
	if rest != "" && isAlnum(rest[0]) {
		return "", false
	}
	return strings.TrimLeft(rest, blanks), true
}

func isAlnum(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' || '0' <= c && c <= '9' }

// negations takes leading exclamation marks and white space off; two marks cancel each other.
func negations(s string) (rest string, negate bool) {
	for s != "" && (s[0] == '!' || isBlank(s[0])) {
		if s[0] == '!' {
			negate = !negate
		}
		s = s[1:]
	}
	return s, negate
}

// ruleTable answers from patterns over the key's bytes.
type ruleTable struct{ rules *rules }

func (t ruleTable) find(_ context.Context, key string) (answer, bool, error) {
	return t.rules.evaluate(&ruleKey{text: []byte(key)})
}
