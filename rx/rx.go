// Package rx matches regular expressions over bytes: Perl's as PCRE2 takes them, POSIX extended and basic as the GNU C
// library takes them. Package rx/syntax has the notations and says what is left out.
//
// A match is found by backtracking under a step budget: a pattern that would run for long ends in ErrBudget, never in a
// hang. Once a match has taken many steps, the states that are known to lead nowhere are remembered, so that patterns
// without back-references stay close to linear time. Literals that every match must hold are looked for first, as mail
// tables hold hundreds of patterns of which nearly none match a given line.
//
// Perl patterns give the first match in Perl's order. POSIX patterns give the leftmost longest match, and their groups
// are those of the first path, in the order of writing, that leads to the longest match: what the GNU library gives for
// all but contrived patterns (POSIX itself asks that each group be as long as possible, from the left, which that
// library does not do either).
//
// The package knows nothing of tables, flags in files or substitution.
package rx

import (
	"errors"
	"fmt"
	"sync"

	"postilion/rx/syntax"
)

// Syntax and its values say how a pattern is written.
type Syntax = syntax.Notation

// The notations.
const (
	Perl          = syntax.Perl
	POSIXExtended = syntax.POSIXExtended
	POSIXBasic    = syntax.POSIXBasic
)

// Flags change the meaning of a pattern; see package syntax.
type Flags = syntax.Flags

// The flags of pcre_table(5) and regexp_table(5).
const (
	FoldCase      = syntax.FoldCase
	MultiLine     = syntax.MultiLine
	DotAll        = syntax.DotAll
	Extended      = syntax.Extended
	Anchored      = syntax.Anchored
	DollarEndOnly = syntax.DollarEndOnly
	Ungreedy      = syntax.Ungreedy
)

// Error is what Compile returns for a bad pattern: an offset and a reason.
type Error = syntax.Error

// ErrBudget is returned when a match was given up because it took too many steps or too much memory.
var ErrBudget = errors.New("regular expression match given up: step budget spent")

// DefaultBudget is the number of steps a match may take. A step is one instruction of the pattern or eight bytes of a
// repeated class; the default is worth some tens of milliseconds.
const DefaultBudget = 4_000_000

// Regexp is a compiled pattern. It may be used by any number of goroutines at once.
type Regexp struct {
	pattern  string
	notation Syntax
	names    map[string]int
	captures int
	budget   int
	prog     program
	filter   prefilter
	machines sync.Pool
}

// Compile reads and compiles a pattern. Errors in the pattern are of type *Error.
func Compile(notation Syntax, pattern string, flags Flags) (*Regexp, error) {
	parsed, err := syntax.Parse(notation, pattern, flags)
	if err != nil {
		return nil, err
	}
	re := &Regexp{pattern: pattern, notation: notation, names: parsed.Names, captures: parsed.Captures, budget: DefaultBudget}
	if err := re.prog.compile(parsed, notation != Perl); err != nil {
		return nil, err
	}
	re.filter.derive(parsed)
	return re, nil
}

// WithBudget returns a copy of re whose matches may take the given number of steps.
func (re *Regexp) WithBudget(steps int) *Regexp {
	return &Regexp{
		pattern: re.pattern, notation: re.notation, names: re.names, captures: re.captures, budget: steps,
		prog: re.prog, filter: re.filter,
	}
}

// String returns the pattern as it was given.
func (re *Regexp) String() string { return re.pattern }

// NumCapture returns the number of capturing groups.
func (re *Regexp) NumCapture() int { return re.captures }

// NameIndex returns the number of a named group, 0 when there is none of that name.
func (re *Regexp) NameIndex(name string) int { return re.names[name] }

// Match says whether text holds a match. The error is ErrBudget or nil.
func (re *Regexp) Match(text []byte) (bool, error) {
	if !re.filter.possible(text) {
		return false, nil
	}
	m := re.machine(text)
	m.wantCaptures = re.prog.needCaptures
	m.longest = false
	ok, err := m.search(&re.filter)
	re.release(m)
	return ok, err
}

// Captures returns the offsets of the match and of each group, two numbers each, -1 for a group that took no part.
// It returns nil when there is no match. The error is ErrBudget or nil.
func (re *Regexp) Captures(text []byte) ([]int, error) { return re.AppendCaptures(nil, text) }

// AppendCaptures is Captures that appends to dst, for callers that reuse a slice. Without a match it returns nil.
func (re *Regexp) AppendCaptures(dst []int, text []byte) ([]int, error) {
	if !re.filter.possible(text) {
		return nil, nil
	}
	m := re.machine(text)
	m.wantCaptures = true
	m.longest = re.prog.longest
	ok, err := m.search(&re.filter)
	if ok && err == nil {
		for _, slot := range m.slots[:2*(re.captures+1)] {
			dst = append(dst, int(slot))
		}
	} else {
		dst = nil
	}
	re.release(m)
	return dst, err
}

func (re *Regexp) machine(text []byte) *machine {
	m, ok := re.machines.Get().(*machine)
	if !ok {
		m = &machine{prog: &re.prog, slots: make([]int32, re.prog.slots), best: make([]int32, re.prog.slots), runs: make([]run, re.prog.loops)}
	}
	m.text = text
	m.steps = re.budget
	m.err = nil
	return m
}

// keepStack is the size up to which a machine's memory is kept for the next match.
const keepStack = 4096

func (re *Regexp) release(m *machine) {
	m.text = nil
	if cap(m.stack) > keepStack {
		m.stack = nil
	}
	if cap(m.visited) > keepStack {
		m.visited = nil
	}
	re.machines.Put(m)
}

// maxText bounds the texts that can be searched: offsets are kept in 32 bits.
const maxText = 1 << 30

func errTooLong(n int) error { return fmt.Errorf("text of %d bytes is too long: %w", n, ErrBudget) }

// Warnings tells what a valid pattern most likely does not mean, such as \d in a POSIX expression.
func Warnings(notation Syntax, pattern string) []syntax.Warning {
	return syntax.Warnings(notation, pattern)
}
