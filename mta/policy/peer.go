package policy

import (
	"context"
	"errors"
	"net/netip"

	"postilion/resolve"
)

// Names finds the names of clients as Postfix's smtpd does: a name counts when it leads back to the address.
type Names struct {
	Resolver Resolver
	// Warn receives what Postfix would log; nil drops it.
	Warn func(text string)
}

// LookupClient returns the verified name and the unverified one, "unknown" where there is none, and why.
func (n *Names) LookupClient(ctx context.Context, address netip.Addr) (name, reverse string, nameStatus, reverseStatus NameStatus) {
	const unknown = "unknown"
	names, err := n.Resolver.Names(ctx, address)
	if err != nil || len(names) == 0 {
		status := NameMissing
		if errors.Is(err, resolve.ErrTemporary) {
			status = NameUnknownNow
		}
		return unknown, unknown, status, status
	}
	name = trimDot(names[0])
	if !ValidHostname(name) || isAddress(name) {
		n.warn("client " + address.String() + ": malformed hostname: " + name)
		return unknown, unknown, NameMissing, NameMissing
	}
	addresses, err := n.Resolver.Addresses(ctx, name)
	if err != nil {
		n.warn("hostname " + name + " does not resolve to address " + address.Unmap().String() + ": " + err.Error())
		if errors.Is(err, resolve.ErrTemporary) {
			return unknown, name, NameUnknownNow, NameFound
		}
		return unknown, name, NameForged, NameFound
	}
	for _, a := range addresses {
		if a.Unmap() == address.Unmap() {
			return name, name, NameFound, NameFound
		}
	}
	n.warn("hostname " + name + " does not resolve to address " + address.Unmap().String())
	return unknown, name, NameForged, NameFound
}

func (n *Names) warn(text string) {
	if n.Warn != nil {
		n.Warn(text)
	}
}
