// Package matchlist matches names and addresses against the lists of main.cf: words, !exclusions, "/file" with more of the same, and type:table.
// mydestination, relay_domains and mynetworks are such lists.
//
// It decides nothing beyond "is it in the list, by which pattern". It follows postconf(5), the description of "mynetworks" and of
// parent_domain_matches_subdomains.
package matchlist

import (
	"bufio"
	"context"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// Limits: maxPatterns in one list with its files, maxFile octets and maxDepth files within files.
const (
	maxPatterns = 100_000
	maxFile     = 16 << 20
	maxDepth    = 10
)

// Table is what a type:table pattern asks.
type Table interface {
	Lookup(ctx context.Context, key string) (value string, found bool, err error)
}

// Options say how a list is read.
type Options struct {
	// Open returns the table of a type:name pattern.
	Open func(spec string) (Table, error)
	// ParentDomains has a pattern domain.tld match its subdomains too; otherwise .domain.tld does that.
	ParentDomains bool
	// Where is the list's file:line, for messages.
	Where string
}

// List is a read list. It does not change; its methods may be called at the same time.
type List struct {
	name     string
	options  Options
	patterns []pattern
}

type pattern struct {
	text    string
	exclude bool
	table   Table
	prefix  netip.Prefix
	where   string
}

// Match says which pattern decided.
type Match struct {
	Found bool
	// Pattern is as written, Where its file:line.
	Pattern, Where string
}

// New reads the words of the parameter called name. A table that cannot be opened or a file that cannot be read is an error that names both.
func New(name string, words []string, options Options) (*List, error) {
	l := &List{name: name, options: options}
	if err := l.add(words, options.Where, false, 0); err != nil {
		return nil, err
	}
	return l, nil
}

func (l *List) add(words []string, where string, inverted bool, depth int) error {
	for _, word := range words {
		exclude := inverted
		for strings.HasPrefix(word, "!") {
			exclude, word = !exclude, word[1:]
		}
		if word == "" {
			return fmt.Errorf("%s: %s: ! without a pattern", where, l.name)
		}
		if len(l.patterns) >= maxPatterns {
			return fmt.Errorf("%s: %s has more than %d patterns: use a table", where, l.name, maxPatterns)
		}
		p := pattern{text: word, exclude: exclude, where: where}
		switch {
		case word[0] == '/':
			if err := l.addFile(word, where, exclude, depth); err != nil {
				return err
			}
			continue
		case isTable(word):
			table, err := l.options.Open(word)
			if err != nil {
				return fmt.Errorf("%s: %s: %w", where, l.name, err)
			}
			p.table = table
		default:
			prefix, isAddress, err := parseAddress(word)
			if err != nil {
				return fmt.Errorf("%s: %s: %w", where, l.name, err)
			}
			if isAddress {
				p.prefix = prefix
			}
			p.text = strings.ToLower(word)
		}
		l.patterns = append(l.patterns, p)
	}
	return nil
}

// isTable tells type:name from an IPv6 address and from [address]:port forms.
func isTable(word string) bool {
	kind, _, found := strings.Cut(word, ":")
	if !found || kind == "" || strings.HasPrefix(word, "[") {
		return false
	}
	address, _, _ := strings.Cut(word, "/")
	if _, err := netip.ParseAddr(address); err == nil {
		return false
	}
	for _, c := range kind {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

// mappedBits is how many bits come before the IPv4 address in one mapped into IPv6.
const mappedBits = 96

// parseAddress reads 1.2.3.4, 1.2.3.0/24, [2001:db8::]/32 and [::1]. A network with bits set beyond its length is an error, as in Postfix.
func parseAddress(word string) (prefix netip.Prefix, isAddress bool, err error) {
	text := word
	if strings.HasPrefix(text, "[") {
		inner, rest, found := strings.Cut(text[1:], "]")
		if !found {
			return prefix, false, fmt.Errorf("%q has [ without ]", word)
		}
		text = strings.TrimPrefix(inner, "IPv6:") + rest
	}
	address, length, hasLength := strings.Cut(text, "/")
	parsed, err := netip.ParseAddr(address)
	if err != nil {
		return prefix, false, nil
	}
	if !hasLength {
		parsed = parsed.Unmap()
		return netip.PrefixFrom(parsed, parsed.BitLen()), true, nil
	}
	bits, err := strconv.Atoi(length)
	if unmapped := parsed.Unmap(); unmapped != parsed && bits >= mappedBits {
		// [::ffff:127.0.0.0]/104 is 127.0.0.0/8.
		parsed, bits = unmapped, bits-mappedBits
	}
	if err == nil && (bits < 0 || bits > parsed.BitLen()) {
		err = fmt.Errorf("length %s is out of range", length)
	}
	if err != nil {
		return prefix, false, fmt.Errorf("%q: bad net/mask pattern: %w", word, err)
	}
	prefix = netip.PrefixFrom(parsed, bits)
	if prefix.Masked() != prefix {
		return prefix, false, fmt.Errorf("non-null host address bits in %q, perhaps you should use %q instead", word, prefix.Masked())
	}
	return prefix, true, nil
}

func (l *List) addFile(name, where string, inverted bool, depth int) error {
	if depth >= maxDepth {
		return fmt.Errorf("%s: %s: files include each other more than %d deep", where, l.name, maxDepth)
	}
	info, err := os.Stat(name)
	if err != nil {
		return fmt.Errorf("%s: %s: %w", where, l.name, err)
	}
	if info.Size() > maxFile {
		return fmt.Errorf("%s: %s: file %s has more than %d octets", where, l.name, name, maxFile)
	}
	file, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("%s: %s: %w", where, l.name, err)
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for number := 1; lines.Scan(); number++ {
		text := lines.Text()
		if strings.HasPrefix(strings.TrimLeft(text, " \t"), "#") {
			continue
		}
		words := strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' || r == '\r' })
		if err := l.add(words, fmt.Sprintf("%s:%d", name, number), inverted, depth+1); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("%s: %s: file %s: %w", where, l.name, name, err)
	}
	return nil
}

// Empty tells that nothing can match.
func (l *List) Empty() bool { return len(l.patterns) == 0 }

// String matches a text as a whole, in any case of letters; tables are asked for just that.
func (l *List) String(ctx context.Context, text string) (Match, error) {
	return l.match(func(p *pattern) (bool, error) {
		if p.table != nil {
			_, found, err := p.table.Lookup(ctx, strings.ToLower(text))
			return found, err
		}
		return strings.EqualFold(p.text, text), nil
	})
}

// Domain matches a domain or host name, and its parent domains as ParentDomains says.
func (l *List) Domain(ctx context.Context, domain string) (Match, error) {
	domain = strings.ToLower(strings.TrimSuffix(domain, "."))
	return l.match(func(p *pattern) (bool, error) { return l.domainMatches(ctx, p, domain) })
}

func (l *List) domainMatches(ctx context.Context, p *pattern, domain string) (bool, error) {
	if p.table == nil {
		switch {
		case p.text == domain:
			return true, nil
		case l.options.ParentDomains:
			return strings.HasSuffix(domain, "."+p.text), nil
		}
		return strings.HasPrefix(p.text, ".") && strings.HasSuffix(domain, p.text) && len(domain) > len(p.text), nil
	}
	for name := domain; ; {
		if _, found, err := p.table.Lookup(ctx, name); found || err != nil {
			return found, err
		}
		i := strings.IndexByte(strings.TrimPrefix(name, "."), '.')
		if i < 0 {
			return false, nil
		}
		name = strings.TrimPrefix(name, ".")[i:]
		if l.options.ParentDomains {
			name = name[1:]
		}
	}
}

// Host matches a client by its name and address; either may be empty. Addresses match networks and are looked up in tables as text.
func (l *List) Host(ctx context.Context, name string, address netip.Addr) (Match, error) {
	address = address.Unmap()
	return l.match(func(p *pattern) (bool, error) {
		if p.prefix.IsValid() {
			return p.prefix.Contains(address), nil
		}
		if p.table != nil && address.IsValid() {
			if _, found, err := p.table.Lookup(ctx, address.String()); found || err != nil {
				return found, err
			}
		}
		if name == "" || name == "unknown" {
			return false, nil
		}
		return l.domainMatches(ctx, p, strings.ToLower(name))
	})
}

// match tries the patterns in order; the first that matches decides.
func (l *List) match(matches func(p *pattern) (bool, error)) (Match, error) {
	for i := range l.patterns {
		p := &l.patterns[i]
		matched, err := matches(p)
		if err != nil {
			return Match{}, fmt.Errorf("%s: %s: %w", p.where, l.name, err)
		}
		if matched {
			text := p.text
			if p.exclude {
				text = "!" + text
			}
			return Match{Found: !p.exclude, Pattern: text, Where: p.where}, nil
		}
	}
	return Match{}, nil
}
