package postfix

import (
	"fmt"
	"strconv"
	"strings"
)

// MacroError is a malformed or unreasonable $name expression. Text is Postfix's own wording.
type MacroError struct{ Text string }

func (e *MacroError) Error() string { return e.Text }

func macroErrorf(format string, args ...any) error {
	return &MacroError{Text: fmt.Sprintf(format, args...)}
}

// errContext bounds how much of the text after an error is quoted.
const errContext = 20

func excerpt(s string) string {
	if len(s) > errContext {
		return s[:errContext]
	}
	return s
}

// expansion is one run of $name expansion over a value and, recursively, over what its names stand for.
type expansion struct {
	// lookup gives the text that a name stands for, itself not yet expanded.
	lookup func(name string) (text string, ok bool)
	// scan visits every name in both branches of every conditional and evaluates nothing.
	scan  bool
	out   strings.Builder
	depth int
	limit int
	steps *int // expressions still allowed, shared with the operands of comparisons
}

// maxSteps bounds the expressions of one expansion: names that double each other end here, whether or not they yield text.
const maxSteps = 100_000

// expand returns text with every $name replaced, names within the replacement included. An undefined name stands for nothing.
func expand(text string, lookup func(string) (string, bool)) (string, error) {
	if strings.IndexByte(text, '$') < 0 {
		return text, nil
	}
	steps := maxSteps
	e := expansion{lookup: lookup, limit: MaxValueSize, steps: &steps}
	err := e.parse(text)
	return e.out.String(), err
}

// scanNames calls visit for every name that text uses, whatever branch it stands in.
func scanNames(text string, visit func(name string)) error {
	steps := maxSteps
	e := expansion{scan: true, steps: &steps, lookup: func(name string) (string, bool) { visit(name); return "", false }}
	return e.parse(text)
}

func (e *expansion) literal(s string) error {
	if e.scan {
		return nil
	}
	if e.out.Len()+len(s) > e.limit {
		return macroErrorf("expanded value is larger than %d bytes", e.limit)
	}
	e.out.WriteString(s)
	return nil
}

// parse walks over text: literal text, "$$", $name, ${expression} and $(expression).
func (e *expansion) parse(text string) error {
	for rest := text; rest != ""; {
		dollar := strings.IndexByte(rest, '$')
		if dollar < 0 {
			return e.literal(rest)
		}
		if err := e.literal(rest[:dollar]); err != nil {
			return err
		}
		rest = rest[dollar+1:]
		if strings.HasPrefix(rest, "$") {
			if err := e.literal("$"); err != nil {
				return err
			}
			rest = rest[1:]
			continue
		}
		expression, after, ok := cutExpression(rest)
		switch {
		case !ok:
			return macroErrorf("truncated macro reference: %s", quote(text))
		case expression == "":
			return macroErrorf("empty macro name: %s", quote(text))
		}
		if err := e.expression(expression); err != nil {
			return err
		}
		rest = after
	}
	return nil
}

// quote puts s between quotes and escapes nothing, as Postfix's messages do.
func quote(s string) string { return `"` + s + `"` }

// cutExpression cuts what stands after a "$"; ok is false when a brace is not closed.
func cutExpression(s string) (expression, after string, ok bool) {
	if s == "" || (s[0] != '{' && s[0] != '(') {
		n := nameLen(s)
		return s[:n], s[n:], true
	}
	n := balanced(s)
	if n == 0 {
		return "", "", false
	}
	return s[1 : n-1], s[n:], true
}

// balanced gives the length of the group that starts with s[0], a "{" or "(", up to the matching end; 0 when there is none.
func balanced(s string) int {
	open, closing := s[0], byte('}')
	if open == '(' {
		closing = ')'
	}
	level := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case open:
			level++
		case closing:
			if level--; level == 0 {
				return i + 1
			}
		}
	}
	return 0
}

func nameLen(s string) int {
	n := 0
	for n < len(s) && (s[n] == '_' || s[n] >= '0' && s[n] <= '9' || s[n] >= 'a' && s[n] <= 'z' || s[n] >= 'A' && s[n] <= 'Z') {
		n++
	}
	return n
}

// expression evaluates what stands between the braces, or a bare name.
func (e *expansion) expression(raw string) error {
	if e.depth++; e.depth > maxNesting {
		return macroErrorf("unreasonable macro call nesting: %s", quote(raw))
	}
	defer func() { e.depth-- }()
	if *e.steps--; *e.steps < 0 {
		return macroErrorf("more than %d macro calls in one value: %s", maxSteps, quote(raw))
	}
	text := trimLeft(raw)
	if strings.HasPrefix(text, "{") {
		return e.comparison(text)
	}
	n := nameLen(text)
	name, rest := text[:n], trimLeft(text[n:])
	if rest == "" {
		value, ok := e.lookup(name)
		if !ok || value == "" {
			return nil
		}
		return e.parse(value)
	}
	if rest[0] != '?' && rest[0] != ':' {
		return macroErrorf(`attribute name syntax error at: "...%s>>>%s"`, name, excerpt(text[n:]))
	}
	yes, no, err := parseConditional(rest)
	if err != nil {
		return err
	}
	value, ok := e.lookup(name)
	return e.choose(ok && value != "", yes, no)
}

func (e *expansion) choose(condition bool, yes, no string) error {
	if e.scan {
		if err := e.parse(yes); err != nil {
			return err
		}
		return e.parse(no)
	}
	if condition {
		return e.parse(yes)
	}
	return e.parse(no)
}

// parseConditional reads "?text", "?{text}", "?{text}:{text}", ":text" and ":{text}". Without braces the text reaches to the end.
func parseConditional(s string) (yes, no string, err error) {
	operator, rest := s[0], trimLeft(s[1:])
	if operator == ':' {
		no, err = parseElse(rest)
		return "", no, err
	}
	if !strings.HasPrefix(rest, "{") {
		return rest, "", nil
	}
	yes, rest, err = payload(rest)
	if err != nil || rest == "" {
		return yes, "", err
	}
	if rest[0] != ':' {
		return "", "", macroErrorf(`":" expected at: "...%s}>>>%s"`, yes, excerpt(rest))
	}
	no, err = parseElse(trimLeft(rest[1:]))
	return yes, no, err
}

func parseElse(s string) (string, error) {
	if !strings.HasPrefix(s, "{") {
		return s, nil
	}
	text, rest, err := payload(s)
	if err == nil && rest != "" {
		err = macroErrorf(`unexpected input at: "...%s}>>>%s"`, text, excerpt(rest))
	}
	return text, err
}

// payload takes the text between braces and the rest after them, white space skipped.
func payload(s string) (text, rest string, err error) {
	n := balanced(s)
	if n == 0 {
		return "", "", macroErrorf("unbalanced {} in attribute expression: %s", quote(s))
	}
	return s[1 : n-1], trimLeft(s[n:]), nil
}

const operators = "<>!=?+-*/~&|%"

// comparison evaluates "{left} operator {right}", alone or as the condition of "?" and ":".
func (e *expansion) comparison(s string) error {
	left, rest, err := payload(s)
	if err != nil {
		return err
	}
	n := len(rest) - len(strings.TrimLeft(rest, operators))
	operator, after := rest[:n], rest[n:]
	switch operator {
	case "==", "!=", "<", "<=", ">=", ">":
	default:
		return macroErrorf(`"==" or "!="" or "<"" or "<="" or ">="" or ">" expected at: "...%s}>>>%s"`, left, excerpt(rest))
	}
	suffix := after[:nameLen(after)]
	if suffix != "" && suffix != "level" {
		return macroErrorf(`bad operator suffix at: "...%s>>>%s"`, operator, suffix)
	}
	after = after[len(suffix):]
	target := trimLeft(after)
	if !strings.HasPrefix(target, "{") {
		return macroErrorf(`"{expression}" expected at: "...{%s} %s>>>%s"`, left, operator+suffix, excerpt(after))
	}
	right, rest, err := payload(target)
	if err != nil {
		return err
	}
	yes, no := "true", ""
	if rest != "" {
		if rest[0] != '?' && rest[0] != ':' {
			return macroErrorf(`"?" or ":" expected at: "...}>>>%s"`, excerpt(rest))
		}
		if yes, no, err = parseConditional(rest); err != nil {
			return err
		}
	}
	if e.scan {
		for _, part := range [...]string{left, right} {
			if err := e.parse(part); err != nil {
				return err
			}
		}
		return e.choose(false, yes, no)
	}
	condition, err := e.compare(left, operator, suffix, right)
	if err != nil {
		return err
	}
	return e.choose(condition, yes, no)
}

// operand expands one side of a comparison at the depth where it stands.
func (e *expansion) operand(text string) (string, error) {
	side := expansion{lookup: e.lookup, depth: e.depth, limit: e.limit - e.out.Len(), steps: e.steps}
	err := side.parse(text)
	return side.out.String(), err
}

func (e *expansion) compare(left, operator, suffix, right string) (bool, error) {
	a, err := e.operand(left)
	if err != nil {
		return false, err
	}
	b, err := e.operand(right)
	if err != nil {
		return false, err
	}
	order := strings.Compare(a, b)
	switch {
	case suffix == "level":
		m, err := ParseLevel(a)
		if err != nil {
			return false, &MacroError{Text: err.Error()}
		}
		n, err := ParseLevel(b)
		if err != nil {
			return false, &MacroError{Text: err.Error()}
		}
		order = m.Compare(n)
	case allDigits(a) && allDigits(b):
		if order, err = compareNumbers(a, b); err != nil {
			return false, err
		}
	}
	switch operator {
	case "==":
		return order == 0, nil
	case "!=":
		return order != 0, nil
	case "<":
		return order < 0, nil
	case "<=":
		return order <= 0, nil
	case ">=":
		return order >= 0, nil
	default:
		return order > 0, nil
	}
}

func compareNumbers(a, b string) (int, error) {
	var number [2]int64
	for i, text := range [...]string{a, b} {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return 0, macroErrorf("mac_exp_eval: bad conversion: %s", text)
		}
		number[i] = n
	}
	switch {
	case number[0] < number[1]:
		return -1, nil
	case number[0] > number[1]:
		return 1, nil
	}
	return 0, nil
}

func allDigits(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}
