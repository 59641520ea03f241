package dovecot

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Filter says for which connection settings are asked. Zero fields match only settings outside of such filters. LocalNet
// and RemoteNet are usually single addresses.
type Filter struct {
	Protocol  string // "imap", "pop3", "lmtp", "lda", "sieve", "doveadm", ...
	LocalName string // the name the client asked for by SNI
	LocalNet  netip.Prefix
	RemoteNet netip.Prefix
}

// filterKinds are the sections that are filters.
func isFilter(kind string) bool {
	return kind == "protocol" || kind == "local" || kind == "local_name" || kind == "remote"
}

func (f Filter) isZero() bool { return f == Filter{} }

func (f Filter) hasNetwork() bool {
	return f.LocalName != "" || bits(f.LocalNet) > 0 || bits(f.RemoteNet) > 0
}

// bits is the length of the prefix, 0 for none: a filter for 0.0.0.0/0 is no filter to Dovecot.
func bits(p netip.Prefix) int {
	if !p.IsValid() {
		return 0
	}
	return p.Bits()
}

func (f Filter) matchesProtocol(asked Filter) bool {
	if f.Protocol == "" {
		return true
	}
	if asked.Protocol == "" {
		return false
	}
	if not, ok := strings.CutPrefix(f.Protocol, "!"); ok {
		return asked.Protocol != not
	}
	return asked.Protocol == f.Protocol
}

func (f Filter) matchesRest(asked Filter) bool {
	if f.LocalName != "" && (asked.LocalName == "" || !matchLocalName(f.LocalName, asked.LocalName)) {
		return false
	}
	return matchesNet(f.RemoteNet, asked.RemoteNet) && matchesNet(f.LocalNet, asked.LocalNet)
}

func matchesNet(mask, asked netip.Prefix) bool {
	if bits(mask) == 0 {
		return true
	}
	return bits(asked) > 0 && mask.Contains(asked.Addr().Unmap())
}

// matchLocalName compares a name with the names of a local_name filter, separated by blanks; "*" stands for one label.
func matchLocalName(names, asked string) bool {
	for _, name := range strings.Split(names, " ") {
		if strings.EqualFold(name, asked) {
			return true
		}
		if rest, ok := strings.CutPrefix(name, "*."); ok {
			if _, domain, found := strings.Cut(asked, "."); found && strings.EqualFold(domain, rest) {
				return true
			}
		}
	}
	return false
}

// compareFilters sorts the more specific filter first: by local_name, local, remote, protocol.
func compareFilters(a, b Filter) int {
	present := func(x, y bool) int {
		switch {
		case x && !y:
			return -1
		case y && !x:
			return 1
		}
		return 0
	}
	if c := present(a.LocalName != "", b.LocalName != ""); c != 0 {
		return c
	}
	if c := bits(b.LocalNet) - bits(a.LocalNet); c != 0 {
		return c
	}
	if c := bits(b.RemoteNet) - bits(a.RemoteNet); c != 0 {
		return c
	}
	return present(a.Protocol != "", b.Protocol != "")
}

// covers tells whether all that f narrows is narrowed at least as far by g, both matching the same connection.
func (f Filter) covers(g Filter) bool {
	return bits(f.LocalNet) <= bits(g.LocalNet) && bits(f.RemoteNet) <= bits(g.RemoteNet) &&
		(f.LocalName == "" || g.LocalName != "") && (f.Protocol == "" || g.Protocol != "")
}

// subsetOf tells whether settings of the filter f are of interest for the asked one: only what is asked for is compared.
func (f Filter) subsetOf(asked Filter) bool {
	if asked.Protocol != "" && !f.matchesProtocol(asked) {
		return false
	}
	if asked.LocalName == "" {
		f.LocalName = ""
	}
	if bits(asked.LocalNet) == 0 {
		f.LocalNet = netip.Prefix{}
	}
	if bits(asked.RemoteNet) == 0 {
		f.RemoteNet = netip.Prefix{}
	}
	return f.matchesRest(asked)
}

// narrow adds a filter section to the filters around it.
func (r *reader) narrow(parent Filter, kind, name string) (Filter, error) {
	f := parent
	switch kind {
	case "protocol":
		if parent.Protocol != "" {
			return f, Refuse("Nested protocol { protocol { .. } } block not allowed")
		}
		f.Protocol = name
		return f, nil
	case "local_name":
		if bits(parent.RemoteNet) > 0 {
			return f, errors.New("remote { local_name { .. } } not allowed (use local_name { remote { .. } } instead)")
		}
		if parent.Protocol != "" {
			return f, errors.New("protocol { local_name { .. } } not allowed (use local_name { protocol { .. } } instead)")
		}
		f.LocalName = name
		return f, nil
	case "local":
		if bits(parent.RemoteNet) > 0 {
			return f, errors.New("remote { local { .. } } not allowed (use local { remote { .. } } instead)")
		}
		if parent.LocalName != "" && parent.Protocol == "" {
			return f, errors.New("local_name { local { .. } } not allowed (use local { local_name { .. } } instead)")
		}
	}
	if parent.Protocol != "" {
		return f, fmt.Errorf("protocol { %s { .. } } not allowed (use %s { protocol { .. } } instead)", kind, kind)
	}
	p, err := r.parseNet(name)
	if err != nil {
		return f, err
	}
	outer, target := parent.LocalNet, &f.LocalNet
	if kind == "remote" {
		outer, target = parent.RemoteNet, &f.RemoteNet
	}
	if bits(outer) > bits(p) || bits(outer) > 0 && !outer.Contains(p.Addr()) {
		return f, fmt.Errorf("%s net1 { %s net2 { .. } } requires net2 to be inside net1", kind, kind)
	}
	*target = p
	return f, nil
}

// lookupTimeout bounds the wait for the address of a host named by local or remote.
const lookupTimeout = 30 * time.Second

// parseNet reads an address, a network or a host name.
func (r *reader) parseNet(text string) (netip.Prefix, error) {
	host, mask, hasMask := strings.Cut(text, "/")
	addr, err := netip.ParseAddr(strings.Trim(host, "[]"))
	if err != nil {
		if addr, err = r.lookupHost(host); err != nil {
			return netip.Prefix{}, err
		}
	}
	addr = addr.Unmap()
	if !hasMask {
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	n, err := strconv.Atoi(mask)
	if err != nil || n < 0 || n > addr.BitLen() {
		return netip.Prefix{}, Refuse("Invalid network mask: %s", mask)
	}
	return netip.PrefixFrom(addr, n), nil
}

func (r *reader) lookupHost(host string) (netip.Addr, error) {
	ctx, cancel := context.WithTimeout(context.Background(), lookupTimeout)
	defer cancel()
	lookup := r.opts.LookupHost
	if lookup == nil {
		lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	addrs, err := lookup(ctx, host)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("gethostbyname(%s) failed: %w", host, err)
	}
	if len(addrs) == 0 {
		return netip.Addr{}, fmt.Errorf("gethostbyname(%s) failed: no address", host)
	}
	return addrs[0], nil
}

// ParseNet reads an address, a network or the name of a host, as the sections local and remote take it.
func ParseNet(text string) (netip.Prefix, error) {
	return (&reader{}).parseNet(text)
}
