package dovecot

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Vars gives the value of a %-variable by its name: "u" for %u, "user" for %{user}. What it does not know is looked for under the
// other name of the same variable.
type Vars func(name string) (value string, ok bool)

// VarMap makes Vars of a table.
func VarMap(values map[string]string) Vars {
	return func(name string) (string, bool) {
		v, ok := values[name]
		return v, ok
	}
}

// otherNames pairs the short and the long names that mean the same wherever both exist.
var otherNames = map[string]string{
	"u": "user", "n": "username", "d": "domain", "s": "service", "h": "home", "l": "lip", "r": "rip", "p": "pid", "m": "mech",
	"w": "password", "c": "secured", "k": "cert", "a": "lport", "b": "rport", "i": "uid",
	"user": "u", "username": "n", "domain": "d", "service": "s", "home": "h", "lip": "l", "rip": "r", "pid": "p", "mech": "m",
	"protocol": "s", "local_ip": "l", "remote_ip": "r", "local_port": "a", "remote_port": "b", "mechanism": "m",
	"password": "w", "secured": "c", "cert": "k", "lport": "a", "rport": "b", "uid": "i",
}

func (v Vars) get(name string) (string, bool) {
	if v != nil {
		if text, ok := v(name); ok {
			return text, true
		}
		if other, known := otherNames[name]; known {
			return v(other)
		}
	}
	return "", false
}

// maxExpandDepth bounds %{if} within %{if}.
const maxExpandDepth = 8

var errExpandTooLong = fmt.Errorf("the expanded value is longer than %d octets", MaxExpandLength)

// ErrUnknownVariable is the error of Expand for a variable that Vars does not know.
var ErrUnknownVariable = errors.New("unknown variable")

// Expand replaces the %-variables of a value as Dovecot 2.3 does: %u and %{user}, with modifiers (%Lu lower case, %U upper case, %E
// escaped, %X hexadecimal, %R reversed, %T trimmed, %D as dc=, %M MD5, %H and %N hashes), a width and an offset (%2.3u, %.4u, %-3u,
// %04u), %% for a percent sign, %{env:NAME}, %{hostname}, the hashes %{md5:user} to %{sha3-512:user} with salt, rounds, truncate and
// format, and %{if;LEFT;OP;RIGHT;THEN;ELSE}. The filters of 2.4 (%{user | username | upper}) are done too. The result has at most
// MaxExpandLength octets.
func Expand(text string, vars Vars) (string, error) {
	if !strings.Contains(text, "%") {
		return text, nil
	}
	e := expander{vars: vars}
	return e.expand(text, 0)
}

type expander struct{ vars Vars }

// variable is one parsed %-expression.
type variable struct {
	offset    int
	width     int
	zeros     bool
	hasOffset bool
	modifiers string
	name      string
	long      bool
}

func (e *expander) expand(text string, depth int) (string, error) {
	if depth > maxExpandDepth {
		return "", fmt.Errorf("conditions are nested more than %d deep", maxExpandDepth)
	}
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(text, "%")
		b.WriteString(before)
		if b.Len() > MaxExpandLength {
			return "", errExpandTooLong
		}
		if !found || rest == "" {
			return b.String(), nil
		}
		v, after, err := parseVariable(rest)
		if err != nil {
			return "", err
		}
		text = after
		value, err := e.value(v, depth)
		if err != nil {
			return "", err
		}
		b.WriteString(value)
	}
}

// parseVariable reads what follows a percent sign.
func parseVariable(s string) (v variable, rest string, err error) {
	i := 0
	number := func() int {
		sign, start := 1, i
		if i < len(s) && s[i] == '-' {
			sign = -1
			i++
		}
		n := 0
		digits := i
		for i < len(s) && s[i] >= '0' && s[i] <= '9' {
			n = min(n*10+int(s[i]-'0'), MaxExpandLength)
			i++
		}
		if i == digits {
			i = start
			return 0
		}
		return sign * n
	}
	if i < len(s) && s[i] == '0' {
		v.zeros = true
	}
	n := number()
	if i < len(s) && s[i] == '.' && i+1 < len(s) {
		i++
		v.offset, v.hasOffset, v.zeros = n, true, false
		v.width = number()
	} else {
		v.width = n
	}
	start := i
	for i < len(s) && strings.IndexByte("LUEXRHNMDT", s[i]) >= 0 && i-start < 10 {
		i++
	}
	v.modifiers = s[start:i]
	if i >= len(s) {
		return v, "", fmt.Errorf("a variable ends after %%%s", s)
	}
	if s[i] != '{' {
		v.name = s[i : i+1]
		return v, s[i+1:], nil
	}
	end := closingBrace(s, i)
	if end < 0 {
		return v, "", fmt.Errorf("missing } after %%%s", s)
	}
	v.name, v.long = s[i+1:end], true
	return v, s[end+1:], nil
}

// closingBrace finds the brace that ends what s[at] opens.
func closingBrace(s string, at int) int {
	depth := 0
	for i := at; i < len(s); i++ {
		switch s[i] {
		case '{':
			depth++
		case '}':
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return -1
}

func (e *expander) value(v variable, depth int) (string, error) {
	if v.name == "%" && !v.long {
		return "%", nil
	}
	text, err := e.plain(v, depth)
	if err != nil {
		return "", err
	}
	for i := range len(v.modifiers) {
		text = modify(v.modifiers[i], text, &v)
	}
	return cut(text, v), nil
}

func (e *expander) plain(v variable, depth int) (string, error) {
	if v.long {
		if name, filters, ok := strings.Cut(v.name, "|"); ok {
			return e.filtered(strings.TrimSpace(name), filters)
		}
		v.name = strings.TrimSpace(v.name)
		if rest, ok := strings.CutPrefix(v.name, "if;"); ok {
			return e.condition(rest, depth)
		}
		if kind, arg, ok := strings.Cut(v.name, ":"); ok {
			return e.function(kind, arg)
		}
	}
	if text, ok := e.vars.get(v.name); ok {
		return text, nil
	}
	if v.name == "hostname" {
		if h, err := os.Hostname(); err == nil {
			return h, nil
		}
	}
	if v.long {
		return "", fmt.Errorf("%w %%{%s}", ErrUnknownVariable, v.name)
	}
	return "", fmt.Errorf("%w %%%s", ErrUnknownVariable, v.name)
}

func (e *expander) function(kind, arg string) (string, error) {
	if kind == "env" {
		if text, ok := e.vars.get("env:" + arg); ok {
			return text, nil
		}
		return os.Getenv(arg), nil
	}
	base, _, _ := strings.Cut(kind, ";")
	if _, _, ok := hashOf(base); ok {
		return e.hash(kind, arg)
	}
	if text, ok := e.vars.get(kind + ":" + arg); ok {
		return text, nil
	}
	name, fallback, hasDefault := strings.Cut(arg, ":")
	if text, ok := e.vars.get(kind + ":" + name); ok && text != "" {
		return text, nil
	}
	if hasDefault {
		return fallback, nil
	}
	return "", fmt.Errorf("%w %%{%s:%s}", ErrUnknownVariable, kind, arg)
}

// cut applies offset, width and zero padding.
func cut(text string, v variable) string {
	if v.hasOffset {
		switch {
		case v.offset < 0:
			text = text[max(len(text)+v.offset, 0):]
		case v.offset < len(text):
			text = text[v.offset:]
		default:
			text = ""
		}
	}
	switch {
	case v.width < 0 && !v.hasOffset:
		return text[max(len(text)+v.width, 0):]
	case v.width < 0:
		return text[:max(len(text)+v.width, 0)]
	case v.width == 0:
		return text
	case v.zeros:
		return strings.Repeat("0", max(v.width-len(text), 0)) + text
	}
	return text[:min(v.width, len(text))]
}

// condition decides LEFT;OP;RIGHT;THEN;ELSE. Parts are expanded; "\;" is a semicolon.
func (e *expander) condition(text string, depth int) (string, error) {
	parts := splitCondition(text)
	if len(parts) != 5 {
		return "", fmt.Errorf("%%{if} has %d parts instead of 5", len(parts))
	}
	for i, p := range parts {
		if i == 1 {
			continue
		}
		p, err := e.expand(p, depth+1)
		if err != nil {
			return "", err
		}
		parts[i] = p
	}
	yes, err := compare(parts[0], strings.TrimSpace(parts[1]), parts[2])
	if err != nil {
		return "", err
	}
	if yes {
		return parts[3], nil
	}
	return parts[4], nil
}

func splitCondition(text string) []string {
	var parts []string
	var b strings.Builder
	depth := 0
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case c == '\\' && i+1 < len(text) && (text[i+1] == ';' || text[i+1] == '\\'):
			i++
			b.WriteByte(text[i])
			continue
		case c == '{':
			depth++
		case c == '}':
			depth--
		case c == ';' && depth == 0:
			parts = append(parts, b.String())
			b.Reset()
			continue
		}
		b.WriteByte(c)
	}
	return append(parts, b.String())
}

func compare(left, op, right string) (bool, error) {
	switch op {
	case "eq":
		return left == right, nil
	case "ne":
		return left != right, nil
	case "lt":
		return left < right, nil
	case "le":
		return left <= right, nil
	case "gt":
		return left > right, nil
	case "ge":
		return left >= right, nil
	case "*":
		return matchWildcard(right, left), nil
	case "!*":
		return !matchWildcard(right, left), nil
	case "==", "!=", "<", "<=", ">", ">=":
		l, errL := strconv.ParseInt(left, 10, 64)
		r, errR := strconv.ParseInt(right, 10, 64)
		if errL != nil || errR != nil {
			return false, fmt.Errorf("%%{if}: %q %s %q does not compare numbers", left, op, right)
		}
		return map[string]bool{"==": l == r, "!=": l != r, "<": l < r, "<=": l <= r, ">": l > r, ">=": l >= r}[op], nil
	}
	return false, fmt.Errorf("%%{if}: unsupported comparison %q", op)
}

// matchWildcard compares with a pattern of * and ?.
func matchWildcard(pattern, text string) bool {
	p, t, star, mark := 0, 0, -1, 0
	for t < len(text) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, t
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == text[t]):
			p++
			t++
		case star >= 0:
			mark++
			p, t = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}
