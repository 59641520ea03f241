// Package syntax reads regular expressions into one tree, whatever notation they are written in.
//
// Three notations are read: Perl's, as PCRE2 10.42 accepts it (pcre2pattern(3)); POSIX extended and POSIX basic, as
// the GNU C library's regcomp(3) accepts them, with its extensions (\w \W \s \S \b \B \< \> \` \' and
// back-references). Everything is bytes: no character set is assumed, case folding is ASCII, and classes are those of
// the C locale.
//
// Of Perl, what needs recursion or a callback is refused with an error that says so: (?R), (?1), (?&name), callouts and
// backtracking verbs other than (*FAIL). So are \X and Unicode mode.
//
// The package decides nothing about matching; package rx does.
package syntax

import "fmt"

// Notation says in which language a pattern is written.
type Notation uint8

const (
	// Perl is pcre2pattern(3), without recursion and callouts.
	Perl Notation = iota
	// POSIXExtended is regcomp(3) with REG_EXTENDED.
	POSIXExtended
	// POSIXBasic is regcomp(3) without REG_EXTENDED.
	POSIXBasic
)

// Flags change how a pattern is read. The letters are those of pcre_table(5) and regexp_table(5).
type Flags uint16

const (
	// FoldCase (i) makes letters match both cases, ASCII only.
	FoldCase Flags = 1 << iota
	// MultiLine (m) lets ^ and $ match at line ends inside the text. In POSIX notation it is REG_NEWLINE: the dot and
	// negated lists then leave the newline out.
	MultiLine
	// DotAll (s) lets the dot match a newline. Perl only; POSIX always does unless MultiLine is set.
	DotAll
	// Extended (x) ignores white space and comments in the pattern. Perl only.
	Extended
	// Anchored (A) matches at the start of the text only. Perl only.
	Anchored
	// DollarEndOnly (E) keeps $ from matching before a final newline. Perl only; POSIX never does.
	DollarEndOnly
	// Ungreedy (U) swaps greedy and lazy quantifiers. Perl only.
	Ungreedy
)

// Limits of a pattern. Each is reported as an *Error.
const (
	// MaxPattern is the greatest length of a pattern in bytes.
	MaxPattern = 64 << 10
	// MaxNesting is the greatest depth of parentheses (PCRE2's parens nest limit).
	MaxNesting = 250
	// MaxCaptures is the greatest number of capturing groups.
	MaxCaptures    = 1000
	maxPerlRepeat  = 65535
	maxPOSIXRepeat = 32767
)

// Error says what is wrong with a pattern and where.
type Error struct {
	// Offset counts bytes from the start of the pattern.
	Offset int
	// Reason is worded as PCRE2 or regerror(3) word it where they know the error.
	Reason string
}

func (e *Error) Error() string { return fmt.Sprintf("at offset %d: %s", e.Offset, e.Reason) }

// Op is the kind of a Node.
type Op uint8

// The kinds of nodes. Fields of Node that a kind uses are named beside it.
const (
	OpEmpty          Op = iota // matches nothing, successfully
	OpFail                     // never matches
	OpLiteral                  // Text, Fold: these bytes; lower case when Fold is set
	OpSet                      // Set: one byte of the set
	OpConcat                   // Sub in order
	OpAlternate                // Sub, the first that leads to a match
	OpRepeat                   // Sub[0], Min, Max, Mode
	OpCapture                  // Sub[0], Index
	OpAtomic                   // Sub[0], without return into it
	OpLookahead                // Sub[0], Negate
	OpLookbehind               // Sub[0], Negate; each alternative has one width
	OpBackref                  // Index, Fold
	OpConditional              // Sub[0] when group Index has matched (or Sub[2] holds), else Sub[1]
	OpKeep                     // \K
	OpBeginText                // \A
	OpBeginLine                // ^ after a newline, but not after the last byte (Perl)
	OpBeginLineAny             // ^ after any newline (POSIX)
	OpEndText                  // \z
	OpEndTextLine              // \Z, or $: the end, or before a newline that is the last byte
	OpEndLine                  // $ before any newline
	OpBeginSearch              // \G
	OpWordBoundary             // \b
	OpNoWordBoundary           // \B
	OpWordStart                // \<
	OpWordEnd                  // \>
)

// Mode says which repetitions are tried first.
type Mode uint8

const (
	// Greedy tries the greatest number first.
	Greedy Mode = iota
	// Lazy tries the smallest number first.
	Lazy
	// Possessive takes the greatest number and never returns any.
	Possessive
)

// Node is a part of a pattern. A tree of them is never changed after Parse has returned it.
type Node struct {
	Op     Op
	Mode   Mode
	Fold   bool
	Negate bool
	Min    int
	Max    int // -1: without end
	Index  int
	Text   []byte
	Set    *Set
	Sub    []*Node
}

// Pattern is a parsed expression.
type Pattern struct {
	Root *Node
	// Captures is the number of capturing groups.
	Captures int
	// Names gives the number of each named group.
	Names map[string]int
	// Anchored is set when the flags ask for a match at the start only.
	Anchored bool
}

// Parse reads a pattern. Errors are of type *Error.
func Parse(notation Notation, pattern string, flags Flags) (*Pattern, error) {
	if len(pattern) > MaxPattern {
		return nil, &Error{MaxPattern, fmt.Sprintf("regular expression is longer than %d bytes", MaxPattern)}
	}
	if notation == Perl {
		return parsePerl(pattern, flags)
	}
	return parsePOSIX(pattern, flags, notation == POSIXExtended)
}

func literal(b byte, fold bool) *Node {
	if fold {
		if !isLetter(b) {
			fold = false
		} else {
			b |= 0x20
		}
	}
	return &Node{Op: OpLiteral, Text: []byte{b}, Fold: fold}
}

func isLetter(b byte) bool { return 'a' <= b|0x20 && b|0x20 <= 'z' }

// concat joins nodes and melts neighbouring literals into one.
func concat(nodes []*Node) *Node {
	var out []*Node
	for _, n := range nodes {
		if n.Op == OpEmpty {
			continue
		}
		if last := len(out) - 1; n.Op == OpLiteral && last >= 0 && out[last].Op == OpLiteral {
			if joined := joinLiterals(out[last], n); joined != nil {
				out[last] = joined
				continue
			}
		}
		out = append(out, n)
	}
	switch len(out) {
	case 0:
		return &Node{Op: OpEmpty}
	case 1:
		return out[0]
	}
	return &Node{Op: OpConcat, Sub: out}
}

func joinLiterals(a, b *Node) *Node {
	if a.Fold != b.Fold {
		plain := a
		if a.Fold {
			plain = b
		}
		for _, c := range plain.Text {
			if isLetter(c) {
				return nil
			}
		}
	}
	text := make([]byte, 0, len(a.Text)+len(b.Text))
	return &Node{Op: OpLiteral, Fold: a.Fold || b.Fold, Text: append(append(text, a.Text...), b.Text...)}
}

// alternate joins branches; those that are each one byte become a set, which a matcher can repeat cheaply.
func alternate(branches []*Node) *Node {
	if len(branches) == 1 {
		return branches[0]
	}
	set := &Set{}
	for _, n := range branches {
		one, ok := n.SingleByte()
		if !ok {
			return &Node{Op: OpAlternate, Sub: branches}
		}
		set.AddSet(one)
	}
	return &Node{Op: OpSet, Set: set}
}

// SingleByte returns the set of bytes when the node matches exactly one byte and nothing else.
func (n *Node) SingleByte() (*Set, bool) {
	switch {
	case n.Op == OpSet:
		return n.Set, true
	case n.Op == OpLiteral && len(n.Text) == 1:
		set := &Set{}
		set.AddByte(n.Text[0], n.Fold)
		return set, true
	}
	return nil, false
}
