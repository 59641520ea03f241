package postconf

import (
	"slices"
	"strings"

	"postilion/config/postfix"
)

// columnGoal is where the columns of a master.cf line begin, if the ones before leave room.
var columnGoal = [...]int{0, 11, 17, 25, 33, 41, 49, 57}

// request is service[/type[/part]] of the command line; "*" matches anything.
type request struct {
	text                string
	service, kind, part string
	matched             bool
}

func matches(pattern, text string) bool { return pattern == "*" || pattern == text }

func (q *request) matchesService(s *postfix.Service) bool {
	return matches(q.service, s.Name) && matches(q.kind, s.Type)
}

// parseRequest splits a request into at most parts parts.
func parseRequest(text string, parts int) (*request, bool) {
	fields := strings.Split(text, "/")
	if len(fields) > parts || slices.Contains(fields, "") {
		return nil, false
	}
	for len(fields) < 3 {
		fields = append(fields, "*")
	}
	return &request{text: text, service: fields[0], kind: fields[1], part: fields[2]}, true
}

var requestForm = map[byte]string{
	'F': "-F option requires service_name[/type[/field]]",
	'P': "-P option requires service_name[/type[/parameter]]",
	'M': "-M option requires service_name[/type]",
}

// showMaster lists entries, fields or parameters of master.cf.
func (r *run) showMaster(mode byte) error {
	if err := r.load(false); err != nil {
		return err
	}
	if err := r.follow(); err != nil {
		return err
	}
	requests := []*request{{service: "*", kind: "*", part: "*", matched: true}}
	if len(r.arguments) > 0 {
		requests = nil
	}
	parts := 3
	if mode == 'M' {
		parts = 2
	}
	for _, text := range r.arguments {
		q, ok := parseRequest(text, parts)
		if !ok {
			return fatalf("%s", requestForm[mode])
		}
		if mode == 'F' && q.part != "*" && !slices.Contains(postfix.FieldNames(), q.part) {
			return fatalf("invalid service attribute name: \"%s\"", q.part)
		}
		requests = append(requests, q)
	}
	for _, q := range requests {
		for _, s := range r.config.Services() {
			if !q.matchesService(s) {
				continue
			}
			if err := r.showService(mode, s, q); err != nil {
				return err
			}
		}
	}
	for _, q := range requests {
		if !q.matched {
			r.warn("unmatched request: \"%s\"", q.text)
		}
	}
	r.flagUnused(false)
	return nil
}

func (r *run) showService(mode byte, s *postfix.Service, q *request) error {
	switch mode {
	case 'M':
		q.matched = true
		entry, err := r.expandedEntry(s)
		if err != nil {
			return err
		}
		_, err = r.stdout.WriteString(entry.format(r.has('f')))
		return err
	case 'F':
		return r.showFields(s, q)
	}
	return r.showParameters(s, q)
}

func (r *run) showFields(s *postfix.Service, q *request) error {
	for i, name := range postfix.FieldNames() {
		if !matches(q.part, name) {
			continue
		}
		q.matched = true
		entry, err := r.expandedEntry(s)
		if err != nil {
			return err
		}
		r.printNamed(s.Name+"/"+s.Type+"/"+name, entry.field(i))
	}
	return nil
}

// showParameters lists the -o settings of a service in order of name; the last one of a name counts.
func (r *run) showParameters(s *postfix.Service, q *request) error {
	values := map[string]string{}
	var names []string
	for _, o := range s.Overrides {
		if _, again := values[o.Name]; !again {
			names = append(names, o.Name)
		}
		values[o.Name] = o.Value
	}
	slices.Sort(names)
	for _, name := range names {
		if !matches(q.part, name) {
			continue
		}
		q.matched = true
		value := values[name]
		if r.has('x') {
			var err error
			if value, err = r.expand(s.View(), value); err != nil {
				return err
			}
		}
		r.printNamed(s.Name+"/"+s.Type+"/"+name, value)
	}
	return nil
}

// entry is a master.cf entry as it is shown or edited.
type entry struct {
	columns   [7]string
	command   string
	arguments []string // an option and its value apart, braces taken off
}

func entryOf(s *postfix.Service) *entry {
	return &entry{columns: s.Raw, command: s.Command, arguments: slices.Clone(s.RawArgs)}
}

// expandedEntry is entryOf with $names in -o values expanded when -x asks for it.
func (r *run) expandedEntry(s *postfix.Service) (*entry, error) {
	e := entryOf(s)
	if !r.has('x') {
		return e, nil
	}
	for i := 0; i+1 < len(e.arguments) && strings.HasPrefix(e.arguments[i], "-") && e.arguments[i] != "--"; i++ {
		if e.arguments[i] != "-o" {
			continue
		}
		i++
		value, err := r.expand(s.View(), e.arguments[i])
		if err != nil {
			return nil, err
		}
		e.arguments[i] = value
	}
	return e, nil
}

func braced(word string) string {
	if strings.ContainsAny(word, blanks) {
		return "{" + word + "}"
	}
	return word
}

// items gives the arguments as they are laid out: an option together with its value. options tells how many of them are options.
func (e *entry) items() (items []string, valued []bool, options int) {
	for i := 0; i < len(e.arguments); i++ {
		word := e.arguments[i]
		if !strings.HasPrefix(word, "-") || word == "--" {
			options = len(items)
			for n, argument := range e.arguments[i:] {
				item := braced(argument)
				// The first argument stands without braces where it reads the same.
				if words, closed := postfix.SplitQuoted(argument, blanks); n == 0 && closed && len(words) == 1 && words[0] == argument && argument[0] != '{' {
					item = argument
				}
				items = append(items, item)
				valued = append(valued, false)
			}
			return items, valued, options
		}
		if word == "-o" && i+1 < len(e.arguments) {
			i++
			items = append(items, "-o "+braced(e.arguments[i]))
			valued = append(valued, true)
			continue
		}
		items = append(items, word)
		valued = append(valued, false)
	}
	return items, valued, len(items)
}

// field gives a column as -F shows it; the command comes with its arguments.
func (e *entry) field(i int) string {
	if i < len(e.columns) {
		return e.columns[i]
	}
	items, _, _ := e.items()
	return strings.Join(append([]string{e.command}, items...), " ")
}

// format lays an entry out in columns. Folded, each -o option has a line of its own.
func (e *entry) format(fold bool) string {
	var b strings.Builder
	column := 0
	put := func(text string) {
		b.WriteString(text)
		column += len(text)
	}
	for i, text := range append(e.columns[:], e.command) {
		if i > 0 {
			put(" ")
			for column < columnGoal[i] {
				put(" ")
			}
		}
		put(text)
	}
	items, valued, options := e.items()
	for i, item := range items {
		switch {
		case i == options && column > columnGoal[len(columnGoal)-1] && options > 0:
			column = lineLimit
		case valued[i]:
			column = lineLimit
		}
		if fold && column+1+len(item) >= lineLimit {
			b.WriteString("\n" + strings.Repeat(" ", indent))
			column = indent
		} else {
			put(" ")
		}
		put(item)
		if valued[i] {
			column = lineLimit
		}
	}
	return b.String() + "\n"
}
