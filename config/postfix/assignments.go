package postfix

// Assignment is one name = value as it stands in main.cf or on the command line.
type Assignment struct {
	Name, Value string
	Pos         Position
}

// Assignments gives the assignments of main.cf in order, overridden ones included, then those of Options.Overrides.
func (c *Config) Assignments() []Assignment {
	all := make([]Assignment, 0, len(c.main.entries))
	for _, e := range c.main.entries {
		all = append(all, Assignment{e.name, e.value, e.pos})
	}
	return all
}
