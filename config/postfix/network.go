package postfix

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
)

const defaultDomain = "localdomain"

// networkFacts are asked of the machine at most once.
type networkFacts struct {
	hostname   sync.Once
	name       string
	interfaces sync.Once
	prefixes   []netip.Prefix
}

// dynamic gives the default of a parameter that depends on the machine.
func (c *Config) dynamic(v *View, name string) string {
	switch name {
	case "myhostname":
		return c.defaultHostname(v)
	case "mydomain":
		return defaultMydomain(v)
	case "mynetworks":
		return c.defaultNetworks(v)
	}
	return ""
}

// settled gives an expanded value without asking for dynamic defaults, which are found out from it: those that are not set are empty.
func (v *View) settled(name string) (string, error) {
	lookup := func(name string) (string, bool) {
		if e, ok := v.assigned(name); ok {
			return e.value, true
		}
		p, ok := v.config.Parameter(name)
		if !ok || p.Dynamic {
			return "", false
		}
		return p.Default, true
	}
	text, _ := lookup(name)
	return expand(text, lookup)
}

func (v *View) settledList(name string) []string {
	value, err := v.settled(name)
	if err != nil {
		return nil
	}
	words, _ := SplitQuoted(value, ListSeparators)
	return words
}

func (c *Config) machineName() string {
	c.network.hostname.Do(func() {
		ask := c.options.Hostname
		if ask == nil {
			ask = os.Hostname
		}
		name, err := ask()
		if err != nil || name == "" {
			name = "localhost"
		}
		c.network.name = name
	})
	return c.network.name
}

// defaultHostname completes a machine name without a dot by mydomain.
func (c *Config) defaultHostname(v *View) string {
	name := c.machineName()
	if strings.Contains(name, ".") {
		return name
	}
	domain := defaultDomain
	if value, err := v.settled("mydomain"); err == nil && value != "" {
		domain = value
	}
	return name + "." + domain
}

// defaultMydomain takes the first label from myhostname, unless what is left were a top-level domain.
func defaultMydomain(v *View) string {
	host, err := v.settled("myhostname")
	if err != nil {
		return defaultDomain
	}
	if _, set := v.assigned("myhostname"); !set {
		host = v.config.defaultHostname(v)
	}
	_, domain, dotted := strings.Cut(host, ".")
	if !dotted || !strings.Contains(domain, ".") {
		return defaultDomain
	}
	return domain
}

func (c *Config) machineAddresses() []netip.Prefix {
	c.network.interfaces.Do(func() {
		ask := c.options.Interfaces
		if ask == nil {
			ask = systemAddresses
		}
		// A machine whose interfaces cannot be listed has only the loopback to trust.
		prefixes, err := ask()
		if err != nil {
			prefixes = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/8"), netip.MustParsePrefix("::1/128")}
		}
		c.network.prefixes = prefixes
	})
	return c.network.prefixes
}

func systemAddresses() ([]netip.Prefix, error) {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("list interface addresses: %w", err)
	}
	var prefixes []netip.Prefix
	for _, a := range addresses {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			prefixes = append(prefixes, p)
		}
	}
	return prefixes, nil
}

// ownAddresses gives the addresses that inet_interfaces and inet_protocols leave, IPv4 first, with the masks of their interfaces.
func (c *Config) ownAddresses(v *View) []netip.Prefix {
	protocols := v.settledList("inet_protocols")
	v4, v6 := false, false
	for _, p := range protocols {
		v4 = v4 || p == "all" || p == "ipv4"
		v6 = v6 || p == "all" || p == "ipv6"
	}
	var own []netip.Prefix
	for _, p := range c.machineAddresses() {
		if p.Addr().Unmap().Is4() && v4 {
			own = append(own, p)
		}
	}
	for _, p := range c.machineAddresses() {
		if !p.Addr().Unmap().Is4() && v6 {
			own = append(own, p)
		}
	}
	return selectInterfaces(own, v.settledList("inet_interfaces"))
}

// selectInterfaces keeps the addresses that inet_interfaces names; names are not looked up here, so a host name keeps them all.
func selectInterfaces(own []netip.Prefix, names []string) []netip.Prefix {
	var kept []netip.Prefix
	for _, name := range names {
		switch name {
		case "all":
			return own
		case "loopback-only", "localhost":
			for _, p := range own {
				if p.Addr().IsLoopback() {
					kept = append(kept, p)
				}
			}
			continue
		}
		address, err := netip.ParseAddr(strings.Trim(name, "[]"))
		if err != nil {
			return own
		}
		for _, p := range own {
			if p.Addr() == address {
				kept = append(kept, p)
			}
		}
	}
	return kept
}

// defaultNetworks gives the networks of mynetworks_style.
func (c *Config) defaultNetworks(v *View) string {
	style, err := v.settled("mynetworks_style")
	if err != nil {
		return ""
	}
	var words []string
	seen := map[netip.Prefix]bool{}
	for _, p := range c.ownAddresses(v) {
		network := networkOf(p, style)
		if seen[network] {
			continue
		}
		seen[network] = true
		if network.Addr().Is4() {
			words = append(words, network.String())
		} else {
			words = append(words, fmt.Sprintf("[%s]/%d", network.Addr(), network.Bits()))
		}
	}
	return strings.Join(words, " ")
}

func networkOf(p netip.Prefix, style string) netip.Prefix {
	address, bits := p.Addr().Unmap(), p.Bits()
	switch style {
	case "host":
		bits = address.BitLen()
	case "class":
		if address.Is4() {
			bits = classBits(address.As4()[0])
		}
	}
	return netip.PrefixFrom(address, bits).Masked()
}

func classBits(first byte) int {
	switch {
	case first < 128:
		return 8
	case first < 192:
		return 16
	case first < 224:
		return 24
	case first < 240:
		return 4
	}
	return 32
}
