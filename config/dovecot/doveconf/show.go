package doveconf

import (
	"fmt"
	"strings"

	"postilion/config/dovecot"
)

// readable shows the whole configuration in its own grammar.
func (c *command) readable(conf *dovecot.Config) {
	opts := dovecot.ExportOptions{Filter: c.opts.filter, Scope: c.opts.scope, Modules: c.opts.modules}
	if !c.conflicting {
		c.entries(conf.Export(opts), 0)
	}
	for _, b := range conf.ExportBlocks(opts) {
		for i, h := range b.Headers {
			c.line(i, h+" {")
		}
		c.entries(b.Entries, len(b.Headers))
		for i := len(b.Headers) - 1; i >= 0; i-- {
			c.line(i, "}")
		}
	}
}

func (c *command) line(indent int, text string) {
	for range indent {
		c.stdout.WriteString("  ")
	}
	c.stdout.WriteString(text)
	c.stdout.WriteByte('\n')
}

// open is a section whose header was written.
type open struct {
	key    string
	header string
}

// entries shows settings with the sections around them.
func (c *command) entries(entries []dovecot.Entry, indent int) {
	dovecot.SortEntries(entries)
	var stack []open
	for _, e := range entries {
		if e.Machine {
			continue
		}
		want := sectionsOf(e)
		same := 0
		for same < len(stack) && same < len(want) && stack[same] == want[same] {
			same++
		}
		for len(stack) > same {
			stack = stack[:len(stack)-1]
			c.line(indent+len(stack), "}")
		}
		for _, s := range want[same:] {
			c.line(indent+len(stack), s.header+" {")
			stack = append(stack, s)
		}
		c.line(indent+len(stack), e.Name+" = "+c.shown(e.Name, e.Value))
	}
	for len(stack) > 0 {
		stack = stack[:len(stack)-1]
		c.line(indent+len(stack), "}")
	}
}

// sectionsOf pairs the sections around an entry with their keys: a key has a kind and, but for lists, a name for each.
func sectionsOf(e dovecot.Entry) []open {
	parts := strings.Split(strings.TrimSuffix(e.Parent, "/"), "/")
	out := make([]open, len(e.Sections))
	for i, h := range e.Sections {
		out[i] = open{key: strings.Join(parts[:min(2*(i+1), len(parts))], "/"), header: h}
	}
	return out
}

func (c *command) shown(name, value string) string {
	if !c.opts.showSecrets {
		if text, hidden := hideSecrets(name, value); hidden {
			return text
		}
	}
	return quoteValue(value)
}

// needsQuotes tells whether a value would be read differently without quotes.
func needsQuotes(value string) bool {
	if value == "" {
		return false
	}
	first, last := value[0], value[len(value)-1]
	return strings.Contains(value, "#") || first == ' ' || first == '\t' || last == ' ' || last == '\t'
}

var escaper = strings.NewReplacer(`\`, `\\`, `"`, `\"`, `'`, `\'`)

func quoteValue(value string) string {
	if !needsQuotes(value) {
		return value
	}
	return `"` + escaper.Replace(value) + `"`
}

// single shows the settings and sections that were asked for by name. Values are never hidden there.
func (c *command) single(conf *dovecot.Config) {
	opts := dovecot.ExportOptions{Filter: c.opts.filter, Scope: c.opts.scope, ListDefaults: true}
	entries := conf.Export(opts)
	for _, name := range c.opts.names {
		section := false
		for _, e := range entries {
			if e.Key == name && !e.Machine {
				section = false
				if c.opts.hideName {
					c.line(0, e.Value)
				} else {
					fmt.Fprintf(c.stdout, "%s = %s\n", name, e.Value)
				}
				break
			}
			section = section || strings.HasPrefix(e.Key, name+"/")
		}
		if section {
			opts.ListDefaults = false
			c.entries(misnamed(within(conf.Export(opts), name), name), 0)
			opts.ListDefaults = true
		}
	}
}

func within(entries []dovecot.Entry, name string) []dovecot.Entry {
	var out []dovecot.Entry
	for _, e := range entries {
		if e.Key == name || strings.HasPrefix(e.Key, name+"/") {
			out = append(out, e)
		}
	}
	return out
}

// misnamed gives the first inner section that was asked for by its path the headers doveconf gives it: the outer section
// carries the name of the inner one, the inner one none.
func misnamed(entries []dovecot.Entry, name string) []dovecot.Entry {
	if strings.Count(name, "/") < 2 || len(entries) == 0 {
		return entries
	}
	dovecot.SortEntries(entries)
	var first, firstName string
	for i, e := range entries {
		if e.Machine || len(e.Sections) < 2 {
			continue
		}
		outer, _, _ := strings.Cut(e.Sections[0], " ")
		inner, innerName, _ := strings.Cut(e.Sections[1], " ")
		if first == "" {
			first, firstName = e.Parent, innerName
		}
		headers := []string{outer + " " + firstName, e.Sections[1]}
		if e.Parent == first {
			headers[1] = inner
		}
		entries[i].Sections = headers
	}
	return entries
}

// machine shows one setting a line as key=value, for programs.
func (c *command) machine(conf *dovecot.Config) {
	entries := conf.Export(dovecot.ExportOptions{Filter: c.opts.filter, Scope: c.opts.scope, Modules: c.opts.modules, ListDefaults: true})
	for _, e := range entries {
		if len(c.opts.names) > 0 && !c.asked(e.Key) {
			continue
		}
		fmt.Fprintf(c.stdout, "%s=%s\n", e.Key, e.Value)
	}
}

func (c *command) asked(key string) bool {
	for _, name := range c.opts.names {
		if key == name || strings.HasPrefix(key, name+"/") {
			return true
		}
	}
	return false
}
