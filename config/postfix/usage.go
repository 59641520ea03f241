package postfix

import (
	"cmp"
	"fmt"
	"slices"
)

// Reference is a name used, or an assignment made, in main.cf or for a service.
type Reference struct {
	Service *Service // nil: main.cf
	Name    string
	Value   string   // of an assignment
	Pos     Position // of the assignment, or of the value in which the name is used
}

// Usage tells which names that are not Postfix's own are in use.
type Usage struct {
	// User holds the names an administrator made up and uses as $name, as a restriction class, or as a setting of a table; by name,
	// true when main.cf sets it.
	User map[string]bool
	// Undefined are names used as $name that nothing sets.
	Undefined []Reference
	// Unused are assignments to names that nothing uses: mostly mistyped ones.
	Unused []Reference
	// Notes are complaints about malformed expressions and table references, in Postfix's words.
	Notes []string
}

// usageScan works out a Usage.
type usageScan struct {
	c     *Config
	usage *Usage
	local map[*Service]map[string]bool // names valid within a service
}

// Usage follows every $name of every value. The error is a *MacroError, at which Postfix's postconf stops; what was found until
// then is given all the same.
func (c *Config) Usage() (*Usage, error) {
	u := &usageScan{c: c, usage: &Usage{User: map[string]bool{}}, local: map[*Service]map[string]bool{}}
	err := u.all()
	u.unused()
	return u.usage, err
}

func (u *usageScan) all() error {
	if err := u.defaults(); err != nil {
		return err
	}
	if err := u.restrictionClasses(nil, u.c.view); err != nil {
		return err
	}
	if err := u.layer(nil, u.c.view, u.c.main); err != nil {
		return err
	}
	for _, s := range u.c.services {
		if len(s.made.entries) == 0 {
			continue
		}
		u.local[s] = map[string]bool{}
		if err := u.restrictionClasses(s, s.view); err != nil {
			return err
		}
		if err := u.layer(s, s.view, s.made); err != nil {
			return err
		}
	}
	return nil
}

// restrictionClasses makes the names that smtpd_restriction_classes lists valid.
func (u *usageScan) restrictionClasses(s *Service, v *View) error {
	const list = "smtpd_restriction_classes"
	layer := u.c.main
	if s != nil {
		layer = s.made
	}
	e, ok := layer.lookup(list)
	if !ok {
		return nil
	}
	value, err := v.Expand(e.value)
	if err != nil {
		return err
	}
	words, _ := SplitQuoted(value, ListSeparators)
	for _, name := range words {
		u.flag(s, name)
	}
	return nil
}

// defaults scans the defaults of parameters that main.cf does not set.
func (u *usageScan) defaults() error {
	for _, name := range u.c.Names() {
		p, _ := u.c.Parameter(name)
		if p.Raw || p.Default == "" {
			continue
		}
		if _, set := u.c.view.assigned(name); set {
			continue
		}
		err := scanNames(p.Default, func(used string) { u.flag(nil, used) })
		if err != nil {
			return fmt.Errorf("default of %s: %w", name, err)
		}
	}
	return nil
}

// layer scans the assignments of main.cf or of one service.
func (u *usageScan) layer(s *Service, v *View, layer *mainFile) error {
	for i, e := range layer.entries {
		if layer.last[e.name] != i {
			continue
		}
		if p, known := u.c.Parameter(e.name); known && p.Raw || ReadOnly(e.name) {
			continue
		}
		err := scanNames(e.value, func(name string) {
			if !u.flag(s, name) {
				u.usage.Undefined = append(u.usage.Undefined, Reference{Service: s, Name: name, Pos: e.pos})
			}
		})
		if err != nil {
			u.usage.Notes = append(u.usage.Notes, err.Error())
		}
	}
	for i, e := range layer.entries {
		if layer.last[e.name] != i {
			continue
		}
		if p, known := u.c.Parameter(e.name); !known || p.Raw || ReadOnly(e.name) {
			continue
		}
		value, err := v.Expand(e.value)
		if err != nil {
			return err
		}
		u.tables(s, value)
	}
	return nil
}

// flag makes name valid where it is set; it is false when nothing sets it and it is no parameter either.
func (u *usageScan) flag(s *Service, name string) bool {
	if _, known := u.c.Parameter(name); known {
		return true
	}
	if s != nil {
		if _, set := s.made.lookup(name); set {
			u.local[s][name] = true
			return true
		}
	}
	if _, set := u.c.view.assigned(name); set {
		u.usage.User[name] = true
		return true
	}
	return false
}

func (u *usageScan) unused() {
	note := func(s *Service, layer *mainFile) {
		for i, e := range layer.entries {
			if layer.last[e.name] != i || u.usage.User[e.name] {
				continue
			}
			if _, known := u.c.Parameter(e.name); known || s != nil && u.local[s][e.name] {
				continue
			}
			u.usage.Unused = append(u.usage.Unused, Reference{s, e.name, e.value, e.pos})
		}
	}
	note(nil, u.c.main)
	for _, s := range u.c.services {
		note(s, s.made)
	}
}

// Names gives every built-in and service-made parameter name in order.
func (c *Config) Names() []string {
	names := c.registry.Names()
	for name := range c.made {
		if _, ok := c.registry.Lookup(name); !ok {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, cmp.Compare)
	return names
}

// ReadOnly tells whether a parameter is set by the program alone: assigning it has no effect.
func ReadOnly(name string) bool {
	switch name {
	case "process_id", "process_name", "service_name":
		return true
	}
	return false
}
