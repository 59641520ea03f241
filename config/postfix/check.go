package postfix

import (
	"errors"
	"fmt"
	"strconv"
)

// Warnings gives what was found while reading: both lines of an overridden entry, lines that were skipped, and so on.
func (c *Config) Warnings() []Diagnostic { return c.diagnostics }

// Check looks at every value that was set and gives all findings, those of Warnings included.
func (c *Config) Check() []Diagnostic {
	found := append([]Diagnostic(nil), c.diagnostics...)
	found = append(found, c.checkValues(c.view, c.main)...)
	for _, s := range c.services {
		found = append(found, c.checkValues(s.view, s.made)...)
	}
	return append(found, c.lint()...)
}

// checkValues checks the assignments of one layer as the view sees them.
func (c *Config) checkValues(v *View, layer *mainFile) []Diagnostic {
	var found []Diagnostic
	for i, e := range layer.entries {
		if layer.last[e.name] != i {
			continue
		}
		p, known := c.Parameter(e.name)
		if !known {
			p = &Parameter{Name: e.name}
		}
		if text := v.defect(p); text != "" {
			found = append(found, Diagnostic{e.pos, Fatal, text})
		}
	}
	return found
}

// defect gives what is wrong with the value of p, or nothing.
func (v *View) defect(p *Parameter) string {
	value, err := v.Expanded(p.Name)
	var macro *MacroError
	if errors.As(err, &macro) {
		return p.Name + ": " + macro.Text
	}
	switch p.Type {
	case BoolType:
		if _, err := parseBool(value); err != nil {
			return fmt.Sprintf("bad boolean configuration: %s = %s: %v", p.Name, value, err)
		}
	case NumberType:
		n, err := strconv.ParseInt(value, 10, 32)
		if err != nil {
			return fmt.Sprintf("bad numerical configuration: %s = %s", p.Name, value)
		}
		return outOfRange(p, n)
	case TimeType:
		d, err := parseTime(value, p.Unit)
		if err != nil {
			return fmt.Sprintf("parameter %s: bad time value or unit: %s: %v", p.Name, value, err)
		}
		return outOfRange(p, int64(d.Seconds()))
	}
	return ""
}

func outOfRange(p *Parameter, n int64) string {
	switch {
	case n < p.Min:
		return fmt.Sprintf("invalid %s parameter value %d < %d", p.Name, n, p.Min)
	case p.Max != 0 && n > p.Max:
		return fmt.Sprintf("invalid %s parameter value %d > %d", p.Name, n, p.Max)
	}
	return ""
}
