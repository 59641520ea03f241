package dovecot

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// Treatment says what becomes of a setting.
type Treatment int

// The treatments. A setting is NotYet until it is built, and Check names it when a configuration sets it.
const (
	NotYet    Treatment = iota
	Honoured            // it does what Dovecot's manual says
	NoMeaning           // nothing here depends on it; Because says why
	Refused             // it is not done, and Because says why
)

func (t Treatment) String() string {
	switch t {
	case Honoured:
		return "honoured"
	case NoMeaning:
		return "no meaning here"
	case Refused:
		return "refused"
	}
	return "not yet"
}

// Setting describes one setting of a kind of section.
type Setting struct {
	Section   string // kind of section: "" outside of all, else "service", "passdb", "namespace", "mailbox", ...
	Name      string
	Type      Type
	Values    []string // the words an Enum takes
	Default   string   // in the form doveconf prints
	Modules   []string // the parts of Dovecot that read it, as doveconf -m names them; "*": all of them
	Treatment Treatment
	Meaning   string // in one line
	Because   string // the reason, for NoMeaning and Refused

	hidden    bool // shown by doveconf -s only
	null      bool // without default: shown only when set
	variables bool // %-variables are kept for later; doveconf shows it in every named section
}

// A line of settings.tsv is: section ("-": none), name, type with its words, default, modules, treatment, meaning or reason.
//
//go:embed settings.tsv
var settingsTable string

//go:embed services.conf
var servicesText string

// builtIn is the file name in the positions of Dovecot's own services.
const builtIn = "built-in services"

type settingKey struct{ section, name string }

type registry struct {
	settings  []*Setting
	byKey     map[settingKey]*Setting
	bySection map[string][]*Setting
	services  *node
	err       error
}

// theRegistry reads the embedded tables once; they never change.
var theRegistry = sync.OnceValue(func() *registry {
	return newRegistry(settingsTable, servicesText)
})

// newRegistry reads the tables. A mistake in them is kept as err, which Load returns.
func newRegistry(table, services string) *registry {
	r := &registry{byKey: map[settingKey]*Setting{}, bySection: map[string][]*Setting{}, services: newNode("", "", Position{})}
	r.err = r.fill(table, services)
	return r
}

func (r *registry) fill(table, services string) error {
	for i, text := range strings.Split(strings.TrimSuffix(table, "\n"), "\n") {
		if strings.HasPrefix(text, "#") {
			continue
		}
		s, err := parseSetting(text)
		if err != nil {
			return fmt.Errorf("settings.tsv:%d: %w", i+1, err)
		}
		key := settingKey{s.Section, s.Name}
		if r.byKey[key] != nil {
			return fmt.Errorf("settings.tsv:%d: %s stands twice", i+1, s.Name)
		}
		r.settings = append(r.settings, s)
		r.byKey[key] = s
		r.bySection[s.Section] = append(r.bySection[s.Section], s)
	}
	rd := newReader(Options{Unexpanded: true}, r)
	rd.input = &input{path: builtIn}
	for _, text := range strings.Split(services, "\n") {
		rd.input.line++
		rd.readLine(text)
	}
	if len(rd.errors) > 0 {
		return rd.errors[0]
	}
	r.services = rd.layers[0].root
	return nil
}

var typeNames = map[string]Type{
	"string": String, "bool": Bool, "uint": Uint, "octal": Octal, "port": Port, "size": Size, "time": Time, "msecs": Msecs, "enum": Enum,
}

var treatmentNames = map[string]Treatment{"notyet": NotYet, "honoured": Honoured, "nomeaning": NoMeaning, "refused": Refused}

func parseSetting(text string) (*Setting, error) {
	f := strings.Split(text, "\t")
	if len(f) != 7 {
		return nil, fmt.Errorf("%d columns instead of 7", len(f))
	}
	s := &Setting{Section: strings.TrimPrefix(f[0], "-"), Name: f[1], Default: f[3], Modules: strings.Fields(f[4])}
	words := strings.Fields(f[2])
	for len(words) > 0 {
		switch words[0] {
		case "hidden":
			s.hidden = true
		case "null":
			s.null = true
		case "vars":
			s.variables = true
		default:
			t, ok := typeNames[words[0]]
			if !ok {
				return nil, fmt.Errorf("unknown type %q", words[0])
			}
			s.Type, s.Values = t, words[1:]
			words = words[:1]
		}
		words = words[1:]
	}
	treatment, ok := treatmentNames[f[5]]
	if !ok {
		return nil, fmt.Errorf("unknown treatment %q", f[5])
	}
	s.Treatment = treatment
	if treatment == NoMeaning || treatment == Refused {
		s.Because = f[6]
	} else {
		s.Meaning = f[6]
	}
	return s, nil
}

// Settings gives every known setting, in the order of sections and names.
func Settings() []Setting {
	all := theRegistry().settings
	out := make([]Setting, len(all))
	for i, s := range all {
		out[i] = *s
	}
	return out
}

// Lookup finds a setting by the kind of its section ("" outside of all) and its name.
func Lookup(section, name string) (Setting, bool) {
	s := theRegistry().lookup(section, name)
	if s == nil {
		return Setting{}, false
	}
	return *s, true
}

// namespaceAliases are older spellings of names within sections.
var sectionAliases = map[settingKey]string{
	{"namespace", "mail_location"}: "location",
	{"", "doveadm_proxy_port"}:     "doveadm_port",
}

func (r *registry) lookup(section, name string) *Setting {
	if other, ok := sectionAliases[settingKey{section, name}]; ok {
		name = other
	}
	return r.byKey[settingKey{section, name}]
}

// inAnyModule tells whether one of the modules reads the setting.
func (s *Setting) inAnyModule(modules []string) bool {
	for _, m := range s.Modules {
		if m == "*" || slices.Contains(modules, m) {
			return true
		}
	}
	return false
}

// sectionKinds are the sections that may stand in a section of the kind.
var sectionKinds = map[string][]string{
	"":          {"service", "passdb", "userdb", "namespace", "plugin", "dict", "metric", "event_exporter"},
	"service":   {"inet_listener", "unix_listener", "fifo_listener"},
	"namespace": {"mailbox"},
}

// isList tells whether a section of the kind takes settings of any name.
func isList(kind string) bool { return kind == "plugin" || kind == "dict" }
