package postconf

import (
	"strings"

	"postilion/config/postfix"
)

// change is what is to become of one parameter of main.cf.
type change struct {
	name, value string
	found       int
}

// editMain sets, removes or comments out parameters of main.cf.
func (r *run) editMain() error {
	changes, order, err := r.changes()
	if err != nil {
		return err
	}
	path := r.dir + "/main.cf"
	return rewrite(path, func(text string) (string, error) {
		return r.changeMain(path, text, changes, order), nil
	})
}

func (r *run) changes() (map[string]*change, []*change, error) {
	changes := map[string]*change{}
	var order []*change
	for _, argument := range r.arguments {
		if strings.Contains(argument, "\n") {
			return nil, nil, fatalf("-e, -X, or -# accepts no multi-line input")
		}
		text := strings.TrimLeft(argument, " \t\r\v\f")
		if strings.HasPrefix(text, "#") {
			return nil, nil, fatalf("-e, -X, or -# accepts no comment input")
		}
		c := &change{}
		switch {
		case r.has('e'):
			var err error
			if c.name, c.value, err = postfix.SplitNameValue(text); err != nil {
				return nil, nil, fatalf("%v: \"%s\"", err, text)
			}
		case text == "":
			return nil, nil, fatalf("-X or -# requires non-blank parameter names")
		case strings.Contains(text, "="):
			return nil, nil, fatalf("-X or -# requires parameter names without value")
		default:
			c.name = strings.TrimRight(text, " \t\r\v\f")
		}
		if earlier, again := changes[c.name]; again && r.has('e') {
			r.warn("ignoring earlier request: '%s = %s'", earlier.name, earlier.value)
			earlier.value = c.value
			continue
		}
		changes[c.name] = c
		order = append(order, c)
	}
	return changes, order, nil
}

// changeMain gives the new text of main.cf: the first assignment of a changed name is replaced, later ones go away, names that are
// not there are added at the end.
func (r *run) changeMain(path, text string, changes map[string]*change, order []*change) string {
	var out strings.Builder
	var current *change
	for line := range strings.Lines(text) {
		visible := strings.TrimLeft(line, " \t\r\n\v\f")
		switch {
		case visible == "" || visible[0] == '#':
			out.WriteString(line)
			continue
		case len(visible) == len(line):
			current = changes[visible[:nameEnd(visible)]]
			if current == nil {
				break
			}
			if current.found++; current.found == 2 {
				r.warn("%s: multiple entries for \"%s\"", path, current.name)
			}
			if r.has('e') && current.found == 1 {
				out.WriteString(current.name + " = " + current.value + "\n")
			}
		}
		switch {
		case current == nil:
			out.WriteString(line)
		case r.has('#'):
			out.WriteString("#" + line)
		}
	}
	if r.has('e') {
		for _, c := range order {
			if c.found == 0 {
				out.WriteString(c.name + " = " + c.value + "\n")
			}
		}
	}
	return out.String()
}

func nameEnd(s string) int {
	if end := strings.IndexAny(s, blanks+"="); end >= 0 {
		return end
	}
	return len(s)
}
