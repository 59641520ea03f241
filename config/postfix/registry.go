package postfix

import (
	_ "embed"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Type is the type of a parameter's value.
type Type int

// The types of postconf(5).
const (
	StringType Type = iota
	BoolType        // "yes" or "no", in any case
	NumberType      // a decimal integer
	TimeType        // a decimal integer and one of s, m, h, d, w
)

// Treatment tells what this program does with a parameter.
type Treatment int

// The treatments. NotYet is the zero value: a parameter is named as ineffective until something honours it.
const (
	NotYet    Treatment = iota // accepted, without effect in this version
	Honoured                   // a test changes the value and sees the difference
	NoMeaning                  // about Postfix's own processes or files; Reason says why it means nothing here
	Refused                    // not supported on purpose; Reason says why
)

// String gives the word used in parameters.tsv and by check.
func (t Treatment) String() string {
	switch t {
	case Honoured:
		return "honoured"
	case NoMeaning:
		return "no meaning"
	case Refused:
		return "refused"
	}
	return "not yet"
}

// Parameter is what is known about one parameter name.
type Parameter struct {
	Name    string
	Type    Type
	Default string // unexpanded; empty for dynamic ones
	Min     int64  // least value of a number, or seconds of a time
	Max     int64  // greatest value; 0: no limit but that of the type
	Unit    byte   // unit of a time that is written without one
	Kind    string // kind of string, such as "table list"; may be empty
	Raw     bool   // $name in the value is expanded at the time of use, not when the configuration is read
	Dynamic bool   // the default is found out on the machine
	Past    bool   // a name of earlier versions that the default of its successor still looks at; listed only when it is set
	Prefix  string // for a parameter made by a service name: that name
	Treatment
	Reason  string // for NoMeaning and Refused why, for NotYet the consequence
	Meaning string // one line
}

// Registry is a set of parameters by name. It does not change after it is made.
type Registry struct {
	byName map[string]*Parameter
}

//go:embed parameters.tsv
var parametersTSV string

var builtin = sync.OnceValues(func() (*Registry, error) { return ParseRegistry(parametersTSV) })

// Builtin gives the parameters of Postfix 3.7 and our own.
func Builtin() *Registry {
	r, err := builtin()
	if err != nil {
		// The embedded table is checked by a test; a broken one knows no parameter rather than stopping the program here.
		return &Registry{byName: map[string]*Parameter{}}
	}
	return r
}

// ParseRegistry reads a table of parameters: a line each, fields name, type, default, minimum, maximum, unit, kind, flags, treatment,
// reason and meaning separated by tabs; trailing empty fields may be left out. Lines that start with "#" are comments.
func ParseRegistry(table string) (*Registry, error) {
	r := &Registry{byName: map[string]*Parameter{}}
	for n, line := range strings.Split(table, "\n") {
		if line == "" || line[0] == '#' {
			continue
		}
		p, err := parseParameter(line)
		if err != nil {
			return nil, fmt.Errorf("parameter table line %d: %w", n+1, err)
		}
		if r.byName[p.Name] != nil {
			return nil, fmt.Errorf("parameter table line %d: %s is there twice", n+1, p.Name)
		}
		r.byName[p.Name] = p
	}
	return r, nil
}

func parseParameter(line string) (*Parameter, error) {
	const fields = 11
	f := strings.Split(line, "\t")
	if len(f) > fields {
		return nil, fmt.Errorf("%d fields, at most %d are known", len(f), fields)
	}
	f = append(f, make([]string, fields-len(f))...)
	p := &Parameter{Name: f[0], Default: f[2], Kind: f[6], Reason: f[9], Meaning: f[10]}
	switch f[1] {
	case "string":
		p.Type = StringType
	case "bool":
		p.Type = BoolType
	case "number":
		p.Type = NumberType
	case "time":
		p.Type = TimeType
	default:
		return nil, fmt.Errorf("%s: unknown type %q", p.Name, f[1])
	}
	for i, limit := range []*int64{&p.Min, &p.Max} {
		if text := f[3+i]; text != "" {
			n, err := strconv.ParseInt(text, 10, 64)
			if err != nil {
				return nil, fmt.Errorf("%s: limit: %w", p.Name, err)
			}
			*limit = n
		}
	}
	if p.Type == TimeType {
		if _, ok := unitSeconds(f[5]); !ok {
			return nil, fmt.Errorf("%s: unit %q", p.Name, f[5])
		}
		p.Unit = f[5][0]
	}
	for _, flag := range strings.Fields(f[7]) {
		switch flag {
		case "raw":
			p.Raw = true
		case "past":
			p.Past = true
		case "dynamic":
			p.Dynamic = true
		default:
			return nil, fmt.Errorf("%s: unknown flag %q", p.Name, flag)
		}
	}
	switch f[8] {
	case "":
	case "honoured":
		p.Treatment = Honoured
	case "no-meaning":
		p.Treatment = NoMeaning
	case "refused":
		p.Treatment = Refused
	default:
		return nil, fmt.Errorf("%s: unknown treatment %q", p.Name, f[8])
	}
	return p, nil
}

// Lookup gives the parameter of that name.
func (r *Registry) Lookup(name string) (*Parameter, bool) {
	p, ok := r.byName[name]
	return p, ok
}

// Names gives all names in order.
func (r *Registry) Names() []string { return slices.Sorted(maps.Keys(r.byName)) }

// With gives a registry that also holds the given parameters; one of the same name is replaced.
func (r *Registry) With(parameters ...Parameter) *Registry {
	more := &Registry{byName: maps.Clone(r.byName)}
	for _, p := range parameters {
		more.byName[p.Name] = &p
	}
	return more
}
