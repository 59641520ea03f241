package dovecot

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Section is one section with the defaults of its kind: a passdb, a service, a listener, a namespace, a mailbox.
type Section struct {
	config *Config
	root   *node // of the view
	node   *node
}

// Kind is the word before the name: "service", "passdb", "namespace", "mailbox", "inet_listener", ...
func (s *Section) Kind() string { return s.node.kind }

// Name is the section's name, "" when it has none. The name of a unix_listener or fifo_listener is its path.
func (s *Section) Name() string { return s.node.name }

// Position is where the section was first written.
func (s *Section) Position() Position { return s.node.pos }

// Value is a setting as it holds; ok is false when it is neither set nor has a default.
func (s *Section) Value(name string) (text string, ok bool) {
	setting := s.setting(name)
	if setting != nil {
		name = setting.Name
	}
	if v, set := s.node.values[name]; set {
		if variable, ok := strings.CutPrefix(v.text, "$"); ok && v.pos.File == builtIn {
			return (&Section{config: s.config, root: s.root, node: s.root}).String(variable), true
		}
		return v.string(), true
	}
	if setting != nil && !setting.null {
		return setting.Default, true
	}
	return "", false
}

func (s *Section) setting(name string) *Setting { return s.config.registry.lookup(s.node.kind, name) }

// written finds the value where it was set.
func (s *Section) written(name string) (value, bool) {
	if setting := s.setting(name); setting != nil {
		name = setting.Name
	}
	v, ok := s.node.values[name]
	return v, ok
}

// String is the value of a setting, or "".
func (s *Section) String(name string) string {
	text, _ := s.Value(name)
	return text
}

// Bool is the value of a yes/no setting.
func (s *Section) Bool(name string) bool {
	v, err := parseBool(s.String(name))
	return err == nil && v
}

// Int is the value of a number, a port or a mode.
func (s *Section) Int(name string) int {
	n, err := parseOctalOrDecimal(s.setting(name), s.String(name))
	if err != nil || n > math.MaxInt {
		return 0
	}
	return int(n)
}

func parseOctalOrDecimal(setting *Setting, text string) (uint64, error) {
	if setting != nil && setting.Type == Octal {
		return parseOctal(text)
	}
	return strconv.ParseUint(text, 10, 64)
}

// Duration is the value of a time interval.
func (s *Section) Duration(name string) time.Duration { return duration(s.String(name)) }

// Size is the value of a size in octets; math.MaxInt64 when it is larger.
func (s *Section) Size(name string) int64 {
	n, err := parseSize(s.String(name))
	switch {
	case err != nil:
		return 0
	case n > math.MaxInt64:
		return math.MaxInt64
	}
	return int64(n)
}

// List is the value split at blanks and commas.
func (s *Section) List(name string) []string {
	return strings.FieldsFunc(s.String(name), func(c rune) bool { return c == ' ' || c == ',' || c == '\t' })
}

// Where is the place the value was written at; its File is "" for a default.
func (s *Section) Where(name string) Position {
	v, _ := s.written(name)
	return v.pos
}

// Set tells whether the configuration sets the name.
func (s *Section) Set(name string) bool {
	v, ok := s.written(name)
	return ok && v.pos.File != builtIn
}

// File is the file a "<file" value names; ok is false for other values.
func (s *Section) File(name string) (path string, ok bool) {
	v, _ := s.written(name)
	return v.path, v.path != ""
}

// Names gives the names that are set, sorted.
func (s *Section) Names() []string {
	names := make([]string, 0, len(s.node.values))
	for name := range s.node.values {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Sections gives the sections of the kind within this one, in order.
func (s *Section) Sections(kind string) []*Section {
	var out []*Section
	for _, n := range s.node.children {
		if n.kind == kind {
			out = append(out, &Section{config: s.config, root: s.root, node: n})
		}
	}
	return out
}
