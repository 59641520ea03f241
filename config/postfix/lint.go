package postfix

import (
	"fmt"
	"strings"
)

// lint finds what Postfix takes in silence although it is hardly meant.
func (c *Config) lint() []Diagnostic {
	var found []Diagnostic
	usage, err := c.Usage()
	if err == nil {
		for _, u := range usage.Undefined {
			found = append(found, Diagnostic{u.Pos, Warning, "undefined parameter: " + u.Name + c.suggestion(u.Name)})
		}
		for _, u := range usage.Unused {
			found = append(found, Diagnostic{u.Pos, Warning, fmt.Sprintf("unused parameter: %s=%s%s", u.Name, u.Value, c.suggestion(u.Name))})
		}
	}
	found = append(found, c.lintLayer(c.view, c.main)...)
	for _, s := range c.services {
		found = append(found, c.lintLayer(s.view, s.made)...)
		if s.Type == "inet" && s.Raw[FieldPrivate] == "y" {
			found = append(found, Diagnostic{s.Pos, Warning, fmt.Sprintf("service %s/%s: an inet service cannot be private; write n in the third column", s.Name, s.Type)})
		}
	}
	return found
}

func (c *Config) suggestion(name string) string {
	if near := c.nearest(name); near != "" {
		return " (did you mean " + near + "?)"
	}
	return ""
}

func (c *Config) lintLayer(v *View, layer *mainFile) []Diagnostic {
	var found []Diagnostic
	for i, e := range layer.entries {
		if layer.last[e.name] != i {
			continue
		}
		if at := strings.Index(e.value, " #"); at >= 0 || strings.HasPrefix(e.value, "#") {
			found = append(found, Diagnostic{e.pos, Notice, e.name + `: "#" does not start a comment here: it is part of the value`})
		}
		if p, known := c.Parameter(e.name); known {
			found = append(found, treatment(p, e.pos)...)
		}
		if strings.HasSuffix(e.name, "_restrictions") {
			found = append(found, unreachable(v, e)...)
		}
	}
	return found
}

func treatment(p *Parameter, pos Position) []Diagnostic {
	switch p.Treatment {
	case Refused:
		return []Diagnostic{{pos, Warning, fmt.Sprintf("%s is not supported: %s", p.Name, p.Reason)}}
	case NoMeaning:
		return []Diagnostic{{pos, Notice, fmt.Sprintf("%s has no meaning here: %s", p.Name, p.Reason)}}
	case NotYet:
		if p.Past {
			return nil
		}
		text := p.Name + " is accepted and has no effect in this version"
		if p.Reason != "" {
			text += ": " + p.Reason
		}
		return []Diagnostic{{pos, Notice, text}}
	}
	return nil
}

// unreachable finds restrictions that stand after one that always decides.
func unreachable(v *View, e entry) []Diagnostic {
	words := v.List(e.name)
	for i, word := range words {
		if i+1 == len(words) || i > 0 && strings.EqualFold(words[i-1], "warn_if_reject") {
			continue
		}
		switch strings.ToLower(word) {
		case "permit", "reject", "defer":
			return []Diagnostic{{e.pos, Notice, fmt.Sprintf("%s: everything after %q is unreachable, from %q on", e.name, word, words[i+1])}}
		}
	}
	return nil
}

// nearest gives the known name that differs least from a mistyped one, or nothing when none is close.
func (c *Config) nearest(name string) string {
	best, distance := "", 1+min(3, len(name)/4)
	for _, known := range c.Names() {
		if d := editDistance(name, known, distance); d < distance {
			best, distance = known, d
		}
	}
	return best
}

// editDistance counts the letters to insert, remove or replace; it gives limit as soon as there are that many.
func editDistance(a, b string, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal, least := row[0], i
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := diagonal
			if a[i-1] != b[j-1] {
				cost++
			}
			diagonal = row[j]
			row[j] = min(cost, row[j]+1, row[j-1]+1)
			least = min(least, row[j])
		}
		if least >= limit {
			return limit
		}
	}
	return row[len(b)]
}
