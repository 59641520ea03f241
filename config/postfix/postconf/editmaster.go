package postconf

import (
	"fmt"
	"slices"
	"strings"

	"postilion/config/postfix"
)

// masterChange is what is to become of the entries that a request matches.
type masterChange struct {
	request
	argument string // as given
	entry    *entry // -Me: the new entry
	value    string // -Fe, -Pe
	field    int    // -Fe: index of the column
}

// editMaster changes, removes or comments out entries, columns or -o settings of master.cf.
func (r *run) editMaster(mode byte) error {
	var changes []*masterChange
	for _, argument := range r.arguments {
		c, err := r.masterChange(mode, argument)
		if err != nil {
			return err
		}
		changes = append(changes, c)
	}
	path := r.dir + "/master.cf"
	return rewrite(path, func(text string) (string, error) { return r.changeMaster(mode, path, text, changes) })
}

func (r *run) masterChange(mode byte, argument string) (*masterChange, error) {
	if strings.Contains(argument, "\n") {
		return nil, fatalf("-%ce, -%cX, or -%c# accept no multi-line input", mode, mode, mode)
	}
	argument = strings.TrimLeft(argument, blanks)
	if strings.HasPrefix(argument, "#") {
		return nil, fatalf("-%ce, -%cX, or -%c# accept no comment input", mode, mode, mode)
	}
	pattern, value, assigned := argument, "", false
	if r.has('e') {
		var err error
		if pattern, value, err = postfix.SplitNameValue(argument); err != nil {
			return nil, fatalf("%v: \"%s\"", err, argument)
		}
	} else if _, _, assigned = strings.Cut(argument, "="); assigned {
		return nil, fatalf("-X or -# requires names without value")
	}
	parts := 3
	if mode == 'M' {
		parts = 2
	}
	q, ok := parseRequest(pattern, parts)
	if !ok || strings.Count(pattern, "/") != parts-1 {
		return nil, fatalf("%s", map[byte]string{
			'M': "-Me, -MX or -M# requires service_name/type",
			'F': "-Fe or -FX requires service_name/type/field_name",
			'P': "-Pe or -PX requires service_name/type/parameter",
		}[mode])
	}
	if mode == 'P' && q.part == "*" {
		return nil, fatalf("-Pe does not accept wild-card parameter name")
	}
	c := &masterChange{request: *q, argument: argument, value: value}
	if !r.has('e') {
		return c, nil
	}
	return c, c.newValue(mode, argument)
}

// newValue checks the value of a change.
func (c *masterChange) newValue(mode byte, argument string) error {
	spaced := strings.ContainsAny(c.value, blanks)
	switch mode {
	case 'M':
		s, err := parseEntry(c.value, argument)
		if err != nil {
			return err
		}
		c.entry = entryOf(s)
	case 'P':
		if spaced {
			return fatalf("-Pe does not accept whitespace in parameter value")
		}
	case 'F':
		if c.part == "*" {
			return fatalf("-Fe does not accept wild-card field name")
		}
		if c.field = slices.Index(postfix.FieldNames(), c.part); c.field < 0 {
			return fatalf("invalid service attribute name: \"%s\"", c.part)
		}
		if c.field != postfix.FieldCommand && spaced {
			return fatalf("-Fe does not accept whitespace in non-command field")
		}
		return checkColumn(c.field, c.value)
	}
	return nil
}

func parseEntry(line, argument string) (*postfix.Service, error) {
	s, err := postfix.ParseService(line, postfix.Position{})
	if err == nil {
		return s, nil
	}
	text := message(err)
	if text == "bad field count" {
		text = fmt.Sprintf("%s: \"%s\"", text, argument)
	}
	return nil, fatalf("%s", text)
}

// checkColumn tries a value in an entry that is otherwise good.
func checkColumn(field int, value string) error {
	columns := []string{"x", "unix", "-", "-", "-", "-", "-", "x"}
	columns[field] = value
	if _, err := postfix.ParseService(strings.Join(columns, " "), postfix.Position{}); err != nil {
		return fatalf("invalid %s field \"%s\" in \"%s\"", postfix.FieldNames()[field], value, value)
	}
	return nil
}

// block is a master.cf entry with the comment lines within and after it, or lines before the first entry.
type block struct {
	lines []string
	text  string // the logical line; empty before the first entry
}

func comment(line string) bool {
	visible := strings.TrimLeft(line, " \t\r\n\v\f")
	return visible == "" || visible[0] == '#'
}

func blocks(text string) []*block {
	current := &block{}
	all := []*block{current}
	for line := range strings.Lines(text) {
		if !comment(line) {
			if !strings.ContainsAny(line[:1], " \t\r\v\f") {
				current = &block{}
				all = append(all, current)
			}
			current.text += strings.TrimRight(line, "\r\n")
		}
		current.lines = append(current.lines, line)
	}
	return all
}

func (r *run) changeMaster(mode byte, path, text string, changes []*masterChange) (string, error) {
	var out strings.Builder
	line := 0
	for _, b := range blocks(text) {
		first := line + 1
		line += len(b.lines)
		fields := strings.Fields(b.text)
		if b.text == "" || len(fields) < 2 {
			if b.text != "" {
				return "", fatalf("file %s: line %d: specify service name and type on the same line", path, first)
			}
			out.WriteString(strings.Join(b.lines, ""))
			continue
		}
		var apply []*masterChange
		for _, c := range changes {
			if matches(c.service, fields[0]) && matches(c.kind, fields[1]) {
				apply = append(apply, c)
			}
		}
		if len(apply) == 0 {
			out.WriteString(strings.Join(b.lines, ""))
			continue
		}
		changed, err := r.changeBlock(mode, path, first, b, apply)
		if err != nil {
			return "", err
		}
		out.WriteString(changed)
	}
	for _, c := range changes {
		switch {
		case c.matched:
		case mode == 'M' && r.has('e'):
			out.WriteString(c.entry.format(true))
		case mode != 'M':
			r.warn("unmatched service_name/type: \"%s\"", c.argument)
		}
	}
	return out.String(), nil
}

// changeBlock gives the new text of one entry; the comments within it come before it when it is laid out anew.
func (r *run) changeBlock(mode byte, path string, first int, b *block, apply []*masterChange) (string, error) {
	var out strings.Builder
	repeated := false
	for _, c := range apply {
		repeated = repeated || c.matched
		c.matched = true
	}
	if r.has('#') && mode == 'M' {
		for _, line := range b.lines {
			if !comment(line) {
				out.WriteByte('#')
			}
			out.WriteString(line)
		}
		return out.String(), nil
	}
	for _, line := range b.lines {
		if comment(line) {
			out.WriteString(line)
		}
	}
	if mode == 'M' {
		if r.has('e') && !repeated {
			out.WriteString(apply[len(apply)-1].entry.format(true))
		}
		return out.String(), nil
	}
	s, err := postfix.ParseService(b.text, postfix.Position{File: path, Line: first})
	if err != nil {
		text := message(err)
		if text == "bad field count" {
			text = fmt.Sprintf("file %s: line %d: %s", path, first, text)
		}
		return "", fatalf("%s", text)
	}
	e := entryOf(s)
	for _, c := range apply {
		if mode == 'F' {
			if err := e.setField(c); err != nil {
				return "", err
			}
			continue
		}
		e.setParameter(c, r.has('e'))
	}
	out.WriteString(e.format(true))
	return out.String(), nil
}

func (e *entry) setField(c *masterChange) error {
	if c.field < len(e.columns) {
		e.columns[c.field] = c.value
		return nil
	}
	s, err := parseEntry("x unix - - - - - "+c.value, c.text)
	if err != nil {
		return err
	}
	e.command, e.arguments = s.Command, s.RawArgs
	return nil
}

// setParameter replaces or removes -o settings, or adds one behind the last option.
func (e *entry) setParameter(c *masterChange, set bool) {
	done := false
	i := 0
	for i < len(e.arguments) && strings.HasPrefix(e.arguments[i], "-") && e.arguments[i] != "--" {
		if e.arguments[i] != "-o" || i+1 == len(e.arguments) {
			i++
			continue
		}
		name, _, _ := strings.Cut(e.arguments[i+1], "=")
		switch {
		case !matches(c.part, name):
			i += 2
		case set:
			e.arguments[i+1] = name + "=" + c.value
			done = true
			i += 2
		default:
			e.arguments = slices.Delete(e.arguments, i, i+2)
		}
	}
	if set && !done {
		e.arguments = slices.Insert(e.arguments, i, "-o", c.part+"="+c.value)
	}
}
