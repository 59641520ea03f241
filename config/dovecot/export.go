package dovecot

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// Scope says which settings an export holds.
type Scope int

// The scopes of doveconf: all, all with the hidden ones, those that are set, those that differ from their default.
const (
	ScopeAll Scope = iota
	ScopeHidden
	ScopeSet
	ScopeChanged
)

// Entry is one setting of an export.
type Entry struct {
	Key      string   // with the sections before it: "service/imap-login/inet_listener/imap/port"; "/" in names is "\s"
	Sections []string // the sections around it as written: `service imap-login`, `mailbox "Sent Items"`
	Parent   string   // the key of the innermost section, ending in "/"; two sections may be written alike
	Name     string
	Value    string
	Machine  bool // not a setting but the name of a section or a list of names, which only machine-readable output has
}

// Block is what was set under one combination of filters.
type Block struct {
	Headers []string // "remote 10.0.0.0/8", "protocol imap"
	Entries []Entry
}

// ExportOptions chooses what an export holds.
type ExportOptions struct {
	Filter  Filter
	Scope   Scope
	Modules []string // only settings of these parts of Dovecot; none: of all
	// ListDefaults compares the settings of named sections with the defaults of their kind. Without it what is set in a
	// section counts as changed, whatever the default.
	ListDefaults bool
}

type exporter struct {
	registry *registry
	opts     ExportOptions
	expand   bool
	out      []Entry

	// first is what the most specific of several matching filters sets. What a named section takes from the others does
	// not count as set unless the first names the section too, or it is one of Dovecot's own.
	first  *node
	copied bool
}

func (e *exporter) isCopied(c *node) bool {
	if e.first == nil || !isUnique(c.kind) || isList(c.kind) {
		return false
	}
	return e.first.child(c.kind, c.name) == nil && e.registry.services.child(c.kind, c.name) == nil
}

// Export gives the settings that hold for opts.Filter, in the order of Dovecot's own export.
func (c *Config) Export(opts ExportOptions) []Entry {
	layers := c.matching(opts.Filter)
	e := exporter{registry: c.registry, opts: opts, expand: !c.opts.Unexpanded}
	if len(layers) > 1 {
		e.first = layers[0].root
	}
	e.node(c.For(opts.Filter).node, "", nil)
	return e.out
}

// ExportBlocks gives what was set under filters that are of interest for opts.Filter, the least specific first.
func (c *Config) ExportBlocks(opts ExportOptions) []Block {
	var out []Block
	opts.Scope, opts.ListDefaults = ScopeSet, true
	for _, l := range c.layersByFilter(opts.Filter) {
		entries := c.export(l.root, opts)
		if slices.ContainsFunc(entries, func(e Entry) bool { return !e.Machine }) {
			out = append(out, Block{Headers: headers(l.filter), Entries: entries})
		}
	}
	return out
}

func (c *Config) export(n *node, opts ExportOptions) []Entry {
	e := exporter{registry: c.registry, opts: opts, expand: !c.opts.Unexpanded}
	e.node(n, "", nil)
	return e.out
}

// headers writes the filter sections in the order they may be nested.
func headers(f Filter) []string {
	var out []string
	if n := bits(f.LocalNet); n > 0 {
		out = append(out, "local "+prefixText(f.LocalNet.Addr().String(), n, f.LocalNet.Addr().BitLen()))
	}
	if f.LocalName != "" {
		out = append(out, "local_name "+f.LocalName)
	}
	if n := bits(f.RemoteNet); n > 0 {
		out = append(out, "remote "+prefixText(f.RemoteNet.Addr().String(), n, f.RemoteNet.Addr().BitLen()))
	}
	if f.Protocol != "" {
		out = append(out, "protocol "+f.Protocol)
	}
	return out
}

func prefixText(addr string, n, full int) string {
	if n == full {
		return addr
	}
	return addr + "/" + strconv.Itoa(n)
}

// isUnique tells whether sections of the kind are told apart by name; passdb and userdb are a sequence.
func isUnique(kind string) bool { return kind != "" && kind != "passdb" && kind != "userdb" }

func (e *exporter) node(n *node, prefix string, sections []string) {
	if isList(n.kind) {
		for _, name := range sortedNames(n) {
			e.add(prefix, sections, name, e.text(n.values[name]))
		}
		return
	}
	for _, s := range e.registry.bySection[n.kind] {
		if len(e.opts.Modules) > 0 && !s.inAnyModule(e.opts.Modules) {
			continue
		}
		v, set := n.values[s.Name]
		set = set && v.pos.File != builtIn && !e.copied
		text := s.Default
		if _, any := n.values[s.Name]; any {
			text = e.text(v)
		} else if s.null {
			continue
		}
		if e.shows(n, s, text, set) {
			e.add(prefix, sections, s.Name, text)
		}
	}
	for _, kind := range sectionKinds[n.kind] {
		if isList(kind) && !e.wantsList(kind) {
			continue
		}
		e.children(n, kind, prefix, sections)
	}
}

// wantsList tells whether plugin { } or dict { } belongs to the modules asked for.
func (e *exporter) wantsList(kind string) bool {
	if len(e.opts.Modules) == 0 {
		return true
	}
	reader := e.registry.byKey[settingKey{"", "mail_location"}]
	if kind == "dict" {
		reader = e.registry.byKey[settingKey{"", "dict_db_config"}]
	}
	return reader.inAnyModule(e.opts.Modules)
}

func (e *exporter) shows(n *node, s *Setting, text string, set bool) bool {
	switch e.opts.Scope {
	case ScopeHidden:
		return true
	case ScopeAll:
		return !s.hidden
	}
	if e.opts.Scope == ScopeSet && set || s.variables && (e.opts.Scope == ScopeSet || !e.opts.ListDefaults) {
		return true
	}
	if !e.opts.ListDefaults && isUnique(n.kind) {
		return set
	}
	return text != s.Default
}

func (e *exporter) text(v value) string {
	if e.expand {
		return v.string()
	}
	return v.text
}

func (e *exporter) add(prefix string, sections []string, name, text string) {
	e.out = append(e.out, Entry{Key: prefix + name, Sections: sections, Parent: prefix, Name: name, Value: text})
}

func (e *exporter) children(n *node, kind, prefix string, sections []string) {
	var names []string
	at := len(e.out)
	index := 0
	for _, c := range n.children {
		if c.kind != kind {
			continue
		}
		part := strconv.Itoa(index)
		index++
		header := kind
		if c.name != "" && isUnique(kind) && !isList(kind) {
			part = EscapeName(c.name)
			header += " " + quoteName(c.name)
		}
		names = append(names, part)
		inner := prefix + kind + "/"
		if !isList(kind) {
			inner += part + "/"
		}
		if key := nameKey(kind); key != "" && c.name != "" {
			e.out = append(e.out, Entry{Key: inner + key, Parent: inner, Name: key, Value: c.name, Machine: true})
		}
		outer := e.copied
		e.copied = outer || n.kind == "" && e.isCopied(c)
		e.node(c, inner, append(slices.Clip(sections), header))
		e.copied = outer
	}
	if len(names) == 0 || len(e.out) == at && !isList(kind) {
		return
	}
	list := Entry{Key: prefix + kind, Parent: prefix, Name: kind, Value: strings.Join(names, " "), Machine: true}
	if isList(kind) {
		list.Value = ""
	}
	e.out = slices.Insert(e.out, at, list)
}

// nameKey is the setting that holds the name of a section.
func nameKey(kind string) string {
	switch kind {
	case "unix_listener", "fifo_listener":
		return "path"
	case "passdb", "userdb", "plugin", "dict":
		return ""
	case "metric":
		return "metric_name"
	}
	return "name"
}

// EscapeName writes the name of a section as it stands in the key of an Entry.
func EscapeName(name string) string {
	return strings.NewReplacer(`\`, `\\`, "/", `\s`, " ", `\_`).Replace(name)
}

func quoteName(name string) string {
	if !strings.Contains(name, " ") {
		return name
	}
	return `"` + escape(name) + `"`
}

// escape puts a backslash before quotes and backslashes.
func escape(s string) string { return strings.NewReplacer(`\`, `\\`, `"`, `\"`, `'`, `\'`).Replace(s) }

func sortedNames(n *node) []string {
	names := make([]string, 0, len(n.values))
	for name := range n.values {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// SortEntries puts entries into the order of doveconf's readable output: by key, octets above 127 first.
func SortEntries(entries []Entry) {
	slices.SortStableFunc(entries, func(a, b Entry) int {
		for i := 0; i < len(a.Key) && i < len(b.Key); i++ {
			if a.Key[i] != b.Key[i] {
				return cmp.Compare(int8(a.Key[i]), int8(b.Key[i]))
			}
		}
		return cmp.Compare(len(a.Key), len(b.Key))
	})
}
