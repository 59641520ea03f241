package syntax

// Width gives the least and the greatest number of bytes that n can match; max is -1 when there is no bound. A
// back-reference counts as 0 to unbounded.
func (n *Node) Width() (least, most int) {
	switch n.Op {
	case OpLiteral:
		return len(n.Text), len(n.Text)
	case OpSet:
		return 1, 1
	case OpBackref:
		return 0, -1
	case OpCapture, OpAtomic:
		return n.Sub[0].Width()
	case OpConcat:
		for _, sub := range n.Sub {
			a, b := sub.Width()
			least = addWidth(least, a)
			most = addWidth(most, b)
		}
		return least, most
	case OpAlternate, OpConditional:
		least, most = n.Sub[0].Width()
		for _, sub := range n.Sub[1:min(len(n.Sub), branches(n))] {
			a, b := sub.Width()
			least = min(least, a)
			if most >= 0 && (b < 0 || b > most) {
				most = b
			}
		}
		return least, most
	case OpRepeat:
		a, b := n.Sub[0].Width()
		least = timesWidth(a, n.Min)
		switch {
		case b == 0 || n.Max == 0:
			return least, 0
		case b < 0 || n.Max < 0:
			return least, -1
		}
		return least, timesWidth(b, n.Max)
	}
	return 0, 0
}

const hugeWidth = 1 << 30

func addWidth(a, b int) int {
	if a < 0 || b < 0 {
		return -1
	}
	return min(a+b, hugeWidth)
}

func timesWidth(a, n int) int {
	if a == 0 || n == 0 {
		return 0
	}
	if a > hugeWidth/n {
		return hugeWidth
	}
	return a * n
}

// branches tells how many of n.Sub are alternatives: the third of a conditional is its assertion.
func branches(n *Node) int {
	if n.Op == OpConditional {
		return 2
	}
	return len(n.Sub)
}

// BeginsAtStart says whether every match begins at the start of the text.
func (n *Node) BeginsAtStart() bool {
	switch n.Op {
	case OpBeginText, OpBeginSearch:
		return true
	case OpConcat:
		for _, sub := range n.Sub {
			if sub.BeginsAtStart() {
				return true
			}
			if _, most := sub.Width(); most != 0 {
				return false
			}
		}
	case OpCapture, OpAtomic:
		return n.Sub[0].BeginsAtStart()
	case OpRepeat:
		return n.Min > 0 && n.Sub[0].BeginsAtStart()
	case OpAlternate:
		for _, sub := range n.Sub {
			if !sub.BeginsAtStart() {
				return false
			}
		}
		return true
	}
	return false
}

// First adds to set the bytes with which a match of n can begin, and says whether n can match without taking a byte.
// When that is so, the set alone does not rule a position out.
func (n *Node) First(set *Set) (nullable bool) {
	switch n.Op {
	case OpLiteral:
		set.AddByte(n.Text[0], n.Fold)
		return false
	case OpSet:
		set.AddSet(n.Set)
		return false
	case OpFail:
		return false
	case OpBackref:
		set.AddSet(negated(&Set{}))
		return true
	case OpCapture, OpAtomic:
		return n.Sub[0].First(set)
	case OpConcat:
		for _, sub := range n.Sub {
			if !sub.First(set) {
				return false
			}
		}
		return true
	case OpAlternate, OpConditional:
		for _, sub := range n.Sub[:branches(n)] {
			if sub.First(set) {
				nullable = true
			}
		}
		return nullable
	case OpRepeat:
		if n.Max == 0 {
			return true
		}
		return n.Sub[0].First(set) || n.Min == 0
	}
	return true
}

// Required gives the longest literal that every match of n must hold, nil when none is known. With fold set the
// literal is in lower case and stands for both cases.
func (n *Node) Required() (text []byte, fold bool) {
	switch n.Op {
	case OpLiteral:
		return n.Text, n.Fold
	case OpCapture, OpAtomic:
		return n.Sub[0].Required()
	case OpRepeat:
		if n.Min > 0 {
			return n.Sub[0].Required()
		}
	case OpConcat:
		for _, sub := range n.Sub {
			if t, f := sub.Required(); len(t) > len(text) {
				text, fold = t, f
			}
		}
	}
	return text, fold
}

// SelfReferences gives the groups that hold a back-reference to, or a condition on, themselves.
func (n *Node) SelfReferences() map[int]bool {
	found := map[int]bool{}
	n.selfReferences(map[int]int{}, found)
	return found
}

func (n *Node) selfReferences(open map[int]int, found map[int]bool) {
	switch n.Op {
	case OpBackref, OpConditional:
		if open[n.Index] > 0 {
			found[n.Index] = true
		}
	case OpCapture:
		open[n.Index]++
		defer func() { open[n.Index]-- }()
	}
	for _, sub := range n.Sub {
		sub.selfReferences(open, found)
	}
}
