package dovecot

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// Config is a configuration that was read. It does not change.
type Config struct {
	file     string
	opts     Options
	registry *registry
	layers   []*layer // the first is what holds everywhere
	errors   []Diagnostic
	warnings []Diagnostic
	global   *View
}

// Load reads the configuration in the file as a server does: variables and "<file" values are expanded. Its error is a
// *ConfigError with every mistake, or tells that the file cannot be read.
func Load(file string) (*Config, error) { return LoadWith(Options{File: file}) }

// LoadWith reads a configuration as the options say. When the error is a *ConfigError the Config is given all the same, with what
// could be understood; no server should run by it.
func LoadWith(opts Options) (*Config, error) {
	reg := theRegistry()
	if reg.err != nil {
		return nil, reg.err
	}
	r := newReader(opts, reg)
	r.input = &input{path: opts.File}
	if !opts.DefaultsOnly {
		text, err := opts.readLimited(opts.File)
		if err != nil {
			return nil, fmt.Errorf("open(%s) failed: %s", opts.File, errno(err))
		}
		r.files = 1
		r.readText(text)
	}
	r.finish()
	for _, o := range opts.Overrides {
		r.override(o)
	}
	c := &Config{file: opts.File, opts: opts, registry: reg, layers: r.layers, errors: r.errors, warnings: r.warnings}
	c.global = c.For(Filter{})
	if !opts.DefaultsOnly && len(c.errors) == 0 {
		c.checkValues()
	}
	if len(c.errors) > 0 {
		return c, &ConfigError{File: opts.File, Diagnostics: c.errors}
	}
	return c, nil
}

// finish reports sections that were not closed.
func (r *reader) finish() {
	if len(r.stack) > 1 && !r.failed {
		r.input.line = 0
		open := r.top().pos
		r.fail("", fmt.Sprintf("Missing '}' (section started at %s)", open))
		r.errors[len(r.errors)-1].mail = true
	}
	r.stack = r.stack[:1]
}

// override applies "section/name/setting=value".
func (r *reader) override(text string) {
	r.input = &input{path: "-o " + text}
	path, text, ok := strings.Cut(text, "=")
	if !ok {
		r.fail(path, "an override is written setting=value")
		return
	}
	parts := strings.Split(path, "/")
	for len(parts) > 1 {
		kind, name := parts[0], ""
		parts = parts[1:]
		if isFilter(kind) || !isList(kind) && len(parts) > 1 {
			name, parts = parts[0], parts[1:]
		}
		r.begin(kind, name)
		if len(parts) == 0 {
			r.fail(path, "an override is written setting=value")
			break
		}
	}
	if len(parts) == 1 {
		r.set(line{kind: lineValue, key: parts[0], value: text})
	}
	r.stack = r.stack[:1]
}

// File is the file that was read.
func (c *Config) File() string { return c.file }

// Warnings gives what Dovecot would warn of while reading.
func (c *Config) Warnings() []Diagnostic { return slices.Clone(c.warnings) }

// Errors gives what keeps a server from running by the configuration.
func (c *Config) Errors() []Diagnostic { return slices.Clone(c.errors) }

// defaultProtocols are those of a configuration that names none.
var defaultProtocols = []string{"imap", "pop3", "lmtp"}

// Protocols gives the protocols to serve. Where none is named anywhere they are imap, pop3 and lmtp; an empty or "none" value
// that is written down means none.
func (c *Config) Protocols() []string {
	if !c.global.Set("protocols") {
		return slices.Clone(defaultProtocols)
	}
	return slices.DeleteFunc(c.global.List("protocols"), func(p string) bool { return p == "none" })
}

// matching gives the layers that hold for a connection, the most specific first. Of equals the first written comes first.
func (c *Config) matching(f Filter) []*layer {
	var out []*layer
	for _, l := range c.layers {
		if l.filter.matchesProtocol(f) && l.filter.matchesRest(f) {
			out = append(out, l)
		}
	}
	slices.SortStableFunc(out, func(a, b *layer) int { return compareFilters(a.filter, b.filter) })
	return out
}

// For gives the settings that hold for a connection: the most specific filter wins, in the order local_name, local, remote,
// protocol, everywhere.
func (c *Config) For(f Filter) *View {
	layers := c.matching(f)
	if len(layers) == 1 && c.global != nil {
		return &View{config: c, filter: f, node: c.global.node}
	}
	merged := newNode("", "", Position{})
	merged.children = slices.Clone(c.registry.services.children)
	for _, l := range slices.Backward(layers) {
		merged = merged.overlay(l.root)
	}
	return &View{config: c, filter: f, node: merged}
}

// Conflict tells of a setting that two filters change for the same connection though neither is part of the other; Dovecot refuses
// to serve such a connection. The text is empty when there is none.
func (c *Config) Conflict(f Filter) string {
	layers := c.matching(f)
	changed := map[string]bool{}
	for i, l := range layers {
		apart := i > 0 && !l.filter.covers(layers[i-1].filter)
		names := make([]string, 0, len(l.root.values))
		for name := range l.root.values {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			if apart && changed[name] {
				return fmt.Sprintf("Conflict in setting %s found from filter at %s", name, l.pos)
			}
			changed[name] = true
		}
	}
	return ""
}

// View is the settings that hold for one kind of connection.
type View struct {
	config *Config
	filter Filter
	node   *node
}

// Filter is what the view was asked for.
func (v *View) Filter() Filter { return v.filter }

// section of the view itself: settings outside of all sections.
func (v *View) root() *Section { return &Section{config: v.config, root: v.node, node: v.node} }

// String is the value of a setting: the words written, the contents of a "<file", or the default; "" for an unknown name.
func (v *View) String(name string) string { return v.root().String(name) }

// Bool is the value of a yes/no setting.
func (v *View) Bool(name string) bool { return v.root().Bool(name) }

// Int is the value of a number or port.
func (v *View) Int(name string) int { return v.root().Int(name) }

// Duration is the value of a time interval; 0 usually means without limit.
func (v *View) Duration(name string) time.Duration { return v.root().Duration(name) }

// Size is the value of a size in octets; math.MaxInt64 when it is larger.
func (v *View) Size(name string) int64 { return v.root().Size(name) }

// List is the value split at blanks and commas.
func (v *View) List(name string) []string { return v.root().List(name) }

// Where is the place the value was written at; its File is "" for a default.
func (v *View) Where(name string) Position { return v.root().Where(name) }

// Set tells whether the configuration sets the name, even to its default.
func (v *View) Set(name string) bool { return v.root().Set(name) }

// File is the file a "<file" value names, to be watched and read again; ok is false for other values.
func (v *View) File(name string) (path string, ok bool) { return v.root().File(name) }

// Sections gives the sections of a kind in the order they have to Dovecot: built-in services first, then as written. Sections of
// one name are merged; those without name stay apart.
func (v *View) Sections(kind string) []*Section { return v.root().Sections(kind) }

// Section gives the section of the kind and name.
func (v *View) Section(kind, name string) (*Section, bool) {
	for _, s := range v.Sections(kind) {
		if s.Name() == name {
			return s, true
		}
	}
	return nil, false
}

// Plugin is a setting of plugin { }.
func (v *View) Plugin(name string) (text string, ok bool) {
	for _, s := range v.Sections("plugin") {
		return s.Value(name)
	}
	return "", false
}

// PluginNames gives the names that plugin { } sets, sorted.
func (v *View) PluginNames() []string {
	for _, s := range v.Sections("plugin") {
		return s.Names()
	}
	return nil
}

// Hostname is the name of this host: the setting hostname, else the one of the options, else the system's.
func (v *View) Hostname() string {
	if name := v.String("hostname"); name != "" {
		return name
	}
	if v.config.opts.Hostname != "" {
		return v.config.opts.Hostname
	}
	name, err := os.Hostname()
	if err != nil {
		return "localhost"
	}
	return name
}

// Env gives an environment variable as %{env:NAME} sees it.
func (c *Config) Env(name string) (string, bool) {
	if c.opts.Env != nil {
		return c.opts.Env(name)
	}
	return os.LookupEnv(name)
}

// layersByFilter gives the layers with a filter that is of interest for the asked one, the least specific first.
func (c *Config) layersByFilter(asked Filter) []*layer {
	var out []*layer
	for _, l := range c.layers[1:] {
		if l.filter.subsetOf(asked) {
			out = append(out, l)
		}
	}
	slices.SortStableFunc(out, func(a, b *layer) int { return cmp.Compare(0, compareFilters(a.filter, b.filter)) })
	return out
}
