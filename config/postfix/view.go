package postfix

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// View answers for the value of every parameter, for main.cf alone or for one service. It does not change and may be used by many
// goroutines. On a checked configuration the typed accessors cannot fail; on another one they answer with the default.
type View struct {
	config *Config
	layers []*mainFile // first one wins
	scope  string      // service name, for messages
	cache  *sync.Map   // name -> expanded value
}

func newView(c *Config, scope string, layers ...*mainFile) *View {
	return &View{config: c, layers: layers, scope: scope, cache: &sync.Map{}}
}

// With gives a view in which one more parameter is set, as a server does with stress=yes.
func (v *View) With(name, value string) *View {
	top := &mainFile{last: map[string]int{}}
	top.set(entry{name: name, value: value, pos: Position{File: "(set at run time)"}})
	return newView(v.config, v.scope, append([]*mainFile{top}, v.layers...)...)
}

// assigned gives the assignment that counts for name.
func (v *View) assigned(name string) (entry, bool) {
	layers := v.layers
	if ReadOnly(name) {
		layers = layers[len(layers)-1:]
	}
	for _, layer := range layers {
		if e, ok := layer.lookup(name); ok {
			return e, true
		}
	}
	return entry{}, false
}

// text gives the unexpanded value of name: as set, or its default.
func (v *View) text(name string) (string, bool) {
	if e, ok := v.assigned(name); ok {
		return e.value, true
	}
	p, ok := v.config.Parameter(name)
	if !ok {
		return "", false
	}
	if p.Dynamic {
		return v.config.dynamic(v, name), true
	}
	return p.Default, true
}

// Raw gives a value as written, where it was written, and whether it was set at all; the value of a parameter that is not set is its
// unexpanded default.
func (v *View) Raw(name string) (value string, pos Position, set bool) {
	if e, ok := v.assigned(name); ok {
		return e.value, e.pos, true
	}
	value, _ = v.text(name)
	return value, Position{}, false
}

// Where tells where name was set; the zero Position stands for a default.
func (v *View) Where(name string) Position {
	_, pos, _ := v.Raw(name)
	return pos
}

// IsSet tells whether name was set in main.cf, by -o or in master.cf.
func (v *View) IsSet(name string) bool {
	_, ok := v.assigned(name)
	return ok
}

// String gives a value with all $names expanded. The value of a parameter that keeps its $names for the time of use is given as
// written. An unknown name has an empty value.
func (v *View) String(name string) string {
	if kept, ok := v.cache.Load(name); ok {
		return kept.(string)
	}
	value, err := v.Expanded(name)
	if err != nil {
		value = ""
	}
	v.cache.Store(name, value)
	return value
}

// Expanded is String with the error of a malformed expression, a *MacroError.
func (v *View) Expanded(name string) (string, error) {
	text, ok := v.text(name)
	if !ok {
		return "", nil
	}
	if p, known := v.config.Parameter(name); known && p.Raw {
		return text, nil
	}
	value, err := v.Expand(text)
	if err == nil && name == "myorigin" {
		value = originOf(value)
	}
	return value, err
}

// Expand replaces the $names of any text by the values of this view.
func (v *View) Expand(text string) (string, error) {
	return expand(text, v.text)
}

// originOf follows Debian's Postfix: a myorigin that is a path names the file whose first line is the domain.
func originOf(value string) string {
	if !strings.HasPrefix(value, "/") {
		return value
	}
	text, err := os.ReadFile(value)
	if err != nil {
		return value
	}
	line, _, _ := strings.Cut(string(text), "\n")
	if line = trim(line); line == "" {
		return value
	}
	return line
}

// Bool gives a yes/no value.
func (v *View) Bool(name string) bool {
	b, err := parseBool(v.String(name))
	if err != nil {
		b, _ = parseBool(v.fallback(name))
	}
	return b
}

// Int64 gives a number.
func (v *View) Int64(name string) int64 {
	n, err := strconv.ParseInt(v.String(name), 10, 64)
	if err != nil {
		n, _ = strconv.ParseInt(v.fallback(name), 10, 64)
	}
	return n
}

// Int gives a number.
func (v *View) Int(name string) int { return int(v.Int64(name)) }

// Duration gives a time; one written without unit has the unit of the parameter.
func (v *View) Duration(name string) time.Duration {
	unit := byte('s')
	if p, ok := v.config.Parameter(name); ok && p.Unit != 0 {
		unit = p.Unit
	}
	d, err := parseTime(v.String(name), unit)
	if err != nil {
		d, _ = parseTime(v.fallback(name), unit)
	}
	return d
}

// List gives the words of a list, split at commas and white space outside braces. A word in braces keeps them: see Unbrace.
func (v *View) List(name string) []string {
	words, _ := SplitQuoted(v.String(name), ListSeparators)
	return slices.Clip(words)
}

// fallback is the expanded default of name.
func (v *View) fallback(name string) string {
	p, ok := v.config.Parameter(name)
	if !ok {
		return ""
	}
	value, err := v.Expand(p.Default)
	if err != nil {
		return ""
	}
	return value
}

// Level gives compatibility_level. A malformed one, which Check reports, counts as 0.
func (v *View) Level() Level {
	level, err := ParseLevel(v.String("compatibility_level"))
	if err != nil {
		return Level{}
	}
	return level
}
