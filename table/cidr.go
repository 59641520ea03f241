package table

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// address is a parsed key.
type address = netip.Addr

// cidrTable answers from address ranges; a key that is no address is not found.
type cidrTable struct {
	rules *rules
	// index gives the first rule of each range, nil when the table has conditions or negations; lengths are the prefix
	// lengths that occur, of IPv4 and of IPv6.
	index   map[netip.Prefix]int32
	lengths [2][]int
}

// indexRules makes long plain lists, such as published block lists, cost one probe for each prefix length.
func (t *cidrTable) indexRules() {
	index := make(map[netip.Prefix]int32, len(t.rules.list))
	seen := [2][129]bool{}
	for i := range t.rules.list {
		c, ok := t.rules.list[i].matcher.(*cidrRange)
		if !ok || t.rules.list[i].kind != ruleMatch || c.negate {
			return
		}
		if _, double := index[c.prefix]; !double {
			index[c.prefix] = int32(i)
		}
		if family := familyOf(c.prefix.Addr()); !seen[family][c.prefix.Bits()] {
			seen[family][c.prefix.Bits()] = true
			t.lengths[family] = append(t.lengths[family], c.prefix.Bits())
		}
	}
	t.index = index
}

func familyOf(addr netip.Addr) int {
	if addr.Is4() {
		return 0
	}
	return 1
}

func (t cidrTable) find(_ context.Context, key string) (answer, bool, error) {
	addr, err := netip.ParseAddr(key)
	if err != nil || addr.Zone() != "" {
		return answer{}, false, nil
	}
	if t.index == nil {
		return t.rules.evaluate(&ruleKey{addr: addr})
	}
	first := int32(len(t.rules.list))
	for _, bits := range t.lengths[familyOf(addr)] {
		prefix, err := addr.Prefix(bits)
		if err != nil {
			continue
		}
		if i, ok := t.index[prefix]; ok && i < first {
			first = i
		}
	}
	if int(first) == len(t.rules.list) {
		return answer{}, false, nil
	}
	rule := &t.rules.list[first]
	return answer{value: rule.matcher.(*cidrRange).value, path: t.rules.name, line: rule.line}, true, nil
}

// cidrRange is the condition of a rule. A range and an address of different families never match, negated or not.
type cidrRange struct {
	prefix netip.Prefix
	negate bool
	value  string
}

func (c *cidrRange) match(key *ruleKey) (string, bool, error) {
	same := c.prefix.Addr().Is4() == key.addr.Is4()
	return c.value, same && c.prefix.Contains(key.addr) != c.negate, nil
}

func (t *opened) openCIDR(name string, options *Options) error {
	r, err := t.readRules("cidr", name, options, func(r *rules, l LogicalLine) {
		if err := cidrRule(r, l); err != nil {
			r.warn(options, l.Number, "%v: skipping this rule", err)
		}
	})
	if err != nil {
		return err
	}
	c := cidrTable{rules: r}
	c.indexRules()
	t.finder = c
	return nil
}

func cidrRule(r *rules, l LogicalLine) error {
	if rest, ok := keyword(l.Text, "if"); ok {
		condition, err := parseRange(rest)
		if err == nil {
			r.add(ruleIf, condition, l.Number)
		}
		return err
	}
	if rest, ok := keyword(l.Text, "endif"); ok {
		switch {
		case rest != "":
			return errors.New("garbage after ENDIF")
		case len(r.open) == 0:
			return errors.New("ENDIF without IF")
		}
		r.endif(l.Number)
		return nil
	}
	text, negate := negations(l.Text)
	end := strings.IndexAny(text, blanks)
	if end < 0 {
		return errors.New("no lookup result")
	}
	c, err := parseRange(text[:end])
	if err != nil {
		return err
	}
	c.negate = c.negate != negate
	c.value = strings.TrimLeft(text[end:], blanks)
	r.add(ruleMatch, c, l.Number)
	return nil
}

// parseRange reads a network/length or an address, in brackets or not, negated or not.
func parseRange(text string) (*cidrRange, error) {
	text, negate := negations(text)
	if text == "" {
		return nil, errors.New("no address pattern")
	}
	bare := text
	if text[0] == '[' {
		end := strings.IndexByte(text, ']')
		if end < 0 {
			return nil, fmt.Errorf("missing ']' character after \"%s\"", Printable(text))
		}
		bare = text[1:end] + text[end+1:]
		if tail := text[end+1:]; tail != "" && tail[0] != '/' {
			return nil, fmt.Errorf("garbage after \"%s\"", Printable(text[:end+1]))
		}
	}
	network, length, slash := strings.Cut(bare, "/")
	addr, err := netip.ParseAddr(network)
	bad := err != nil || addr.Zone() != ""
	if !slash {
		if bad {
			return nil, fmt.Errorf("bad address pattern: \"%s\"", Printable(text))
		}
		return &cidrRange{prefix: netip.PrefixFrom(addr, addr.BitLen()), negate: negate}, nil
	}
	if length == "" || strings.Trim(length, "0123456789") != "" {
		return nil, fmt.Errorf("bad mask value in \"%s\"", Printable(text))
	}
	if bad {
		return nil, fmt.Errorf("bad network value in \"%s\"", Printable(text))
	}
	bits, err := strconv.Atoi(length)
	if err != nil || bits > addr.BitLen() {
		return nil, fmt.Errorf("bad mask length in \"%s\"", Printable(text))
	}
	prefix := netip.PrefixFrom(addr, bits)
	if masked := prefix.Masked(); masked.Addr() != addr {
		return nil, fmt.Errorf("non-null host address bits in \"%s\", perhaps you should use \"%v\" instead", Printable(text), masked)
	}
	return &cidrRange{prefix: prefix, negate: negate}, nil
}
