package policy

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"postilion/mta/route"
	"postilion/resolve"
	"postilion/table"
)

// existence is what the DNS says about a name.
type existence uint8

const (
	exists existence = iota
	missing
	nullMX
	unknownNow
)

// addressed tells whether a name has an address.
func (r *Rules) addressed(ctx context.Context, name string) existence {
	result := missing
	for _, ipv6 := range []bool{false, true} {
		_, err := r.options.Resolver.AddressesOfType(ctx, name, ipv6)
		switch {
		case err == nil:
			return exists
		case errors.Is(err, resolve.ErrTemporary):
			result = unknownNow
		}
	}
	return result
}

// exchanged tells whether a name has mail exchangers.
func (r *Rules) exchanged(ctx context.Context, name string) existence {
	exchangers, err := r.options.Resolver.Exchangers(ctx, name)
	switch {
	case err == nil && len(exchangers) == 1 && exchangers[0].Host == "":
		return nullMX
	case err == nil:
		return exists
	case errors.Is(err, resolve.ErrTemporary):
		return unknownNow
	}
	return missing
}

func rejectUnknownName(e *evaluation, about subject) verdict {
	if about.name[0] == '[' {
		return rejectInvalidLiteral(e, about)
	}
	result := e.rules.addressed(e.ctx, about.name)
	if result != exists {
		switch e.rules.exchanged(e.ctx, about.name) {
		case exists, nullMX:
			result = exists
		case unknownNow:
			result = unknownNow
		}
	}
	switch result {
	case exists:
		return dunno
	case unknownNow:
		return e.deferIfPermit(e.rules.codes.nameLater, 450, "4.7.1", "<%s>: %s rejected: Host not found", about.name, about.class)
	}
	return e.reject(e.rules.codes.unknownName, "4.7.1", "<%s>: %s rejected: Host not found", about.name, about.class)
}

func rejectUnknownDomain(e *evaluation, about subject) verdict {
	resolved, err := e.resolve(about.name)
	if err != nil {
		return e.lookupError(about.name, err)
	}
	domain := resolved.Domain
	if domain == "" || final(resolved.Class) || strings.HasPrefix(domain, "[") {
		return dunno
	}
	status, nullCode, nullStatus := "4.1.2", 556, "4.1.10"
	if about.class == senderClass {
		status, nullCode, nullStatus = "4.1.8", 550, "4.7.27"
	}
	result := e.rules.exchanged(e.ctx, domain)
	if result == missing || result == unknownNow {
		switch a := e.rules.addressed(e.ctx, domain); {
		case a == exists || result == missing:
			result = a
		}
	}
	switch result {
	case exists:
		return dunno
	case nullMX:
		return e.reject(nullCode, nullStatus, "<%s>: %s rejected: Domain %s does not accept mail (nullMX)", about.name, about.class, domain)
	case unknownNow:
		return e.deferIfPermit(e.rules.codes.addressLater, 450, status, "<%s>: %s rejected: Domain not found", about.name, about.class)
	}
	return e.reject(e.rules.codes.unknownAddress, status, "<%s>: %s rejected: Domain not found", about.name, about.class)
}

// accessServers asks a table for the servers of a name: by name, then by address.
func (e *evaluation) accessServers(t table.Table, kind, target string, about subject) verdict {
	domain := target[strings.LastIndexByte(target, '@')+1:]
	if domain == target && (about.class == senderClass || about.class == recipientClass) {
		resolved, err := e.resolve(target)
		if err != nil {
			return e.lookupError(target, err)
		}
		domain = resolved.Domain
	}
	if address, err := literalAddress(domain); err == nil {
		if kind == "ns" {
			return dunno
		}
		return e.accessAddress(t, address, about).verdict
	}
	if domain == "" || domain[0] == '[' || isAddress(domain) {
		return dunno
	}
	servers, err := e.servers(kind, domain)
	if err != nil {
		e.warn("Unable to look up %s host for %s: %v", strings.ToUpper(kind), domain, err)
		return dunno
	}
	for _, server := range servers {
		if address, err := netip.ParseAddr(server); err == nil {
			if f := e.accessAddress(t, address, about); f.ok && f.verdict != dunno {
				return f.verdict
			}
			continue
		}
		if kind != "a" {
			if f := e.accessDomain(t, server, false, about); f.ok && f.verdict != dunno {
				return f.verdict
			}
		}
		addresses, err := e.rules.options.Resolver.Addresses(e.ctx, server)
		if err != nil {
			e.warn("Unable to look up %s host %s for %s %s: %v", strings.ToUpper(kind), server, about.class, about.name, err)
			continue
		}
		for _, address := range addresses {
			if f := e.accessAddress(t, address, about); f.ok && f.verdict != dunno {
				return f.verdict
			}
		}
	}
	return dunno
}

// servers gives the names of a domain's mail exchangers (itself when it has none), name servers (of a parent when it has none), or itself.
func (e *evaluation) servers(kind, domain string) ([]string, error) {
	switch kind {
	case "a":
		return []string{domain}, nil
	case "mx":
		exchangers, err := e.rules.options.Resolver.Exchangers(e.ctx, domain)
		if err != nil {
			if notFound(err) {
				return []string{domain}, nil
			}
			return nil, err
		}
		var hosts []string
		for _, mx := range exchangers {
			if mx.Host != "" {
				hosts = append(hosts, mx.Host)
			}
		}
		return hosts, nil
	}
	for {
		names, err := e.rules.options.Resolver.Nameservers(e.ctx, domain)
		if err == nil || !notFound(err) {
			return names, err
		}
		_, parent, ok := strings.Cut(domain, ".")
		if !ok || parent == "" {
			return nil, err
		}
		domain = parent
	}
}

func notFound(err error) bool {
	return errors.Is(err, resolve.ErrNotFound) || errors.Is(err, resolve.ErrInvalid)
}

// permitMXBackup permits recipients for whose domain this host is a mail exchanger, and whose best ones are in permit_mx_backup_networks.
func permitMXBackup(e *evaluation, about subject) verdict {
	recipient := e.session.Recipient
	if recipient == "" {
		return dunno
	}
	resolved, err := e.resolve(recipient)
	if err != nil {
		return e.lookupError(recipient, err)
	}
	switch {
	case resolved.Class == route.Local:
		return permit
	case resolved.Routed && !e.rules.untrustedRouting:
		return dunno
	case final(resolved.Class) || resolved.Class == route.Relay:
		return permit
	case strings.HasPrefix(resolved.Domain, "["):
		return dunno
	}
	exchangers, err := e.rules.options.Resolver.Exchangers(e.ctx, resolved.Domain)
	if err != nil {
		if notFound(err) {
			return dunno
		}
		return e.deferIfReject(450, "4.4.4", "<%s>: %s rejected: Unable to look up mail exchanger information", recipient, recipientClass)
	}
	slices.SortStableFunc(exchangers, func(a, b resolve.MX) int { return int(a.Preference) - int(b.Preference) })
	ours, err := e.isExchanger(exchangers)
	if err != nil {
		return e.deferIfReject(450, "4.4.4", "<%s>: %s rejected: Unable to look up mail exchanger host", recipient, recipientClass)
	}
	if !ours {
		return dunno
	}
	return e.primaryInNetworks(exchangers, about)
}

// isExchanger tells whether this host is among the exchangers, by name or by address.
func (e *evaluation) isExchanger(exchangers []resolve.MX) (bool, error) {
	myself := e.rules.view.String("myhostname")
	var failed error
	for _, mx := range exchangers {
		if mx.Host == "" {
			continue
		}
		if strings.EqualFold(mx.Host, myself) {
			return true, nil
		}
		if resolved, err := e.rules.router.Resolve(e.ctx, "", "x@"+mx.Host); err == nil && resolved.Class == route.Local {
			return true, nil
		}
		addresses, err := e.rules.options.Resolver.Addresses(e.ctx, mx.Host)
		if err != nil {
			if !notFound(err) {
				failed = err
			}
			continue
		}
		for _, address := range addresses {
			if e.rules.local[address.Unmap()] {
				return true, nil
			}
		}
	}
	return false, failed
}

// primaryInNetworks permits when all addresses of the best exchangers are in the networks.
func (e *evaluation) primaryInNetworks(exchangers []resolve.MX, about subject) verdict {
	networks := e.rules.backupNetworks
	if networks.err != nil {
		return e.lookupError(about.name, networks.err)
	}
	if networks.matches.Empty() {
		return permit
	}
	for _, mx := range exchangers {
		if mx.Preference != exchangers[0].Preference {
			break
		}
		addresses, err := e.rules.options.Resolver.Addresses(e.ctx, mx.Host)
		if err != nil {
			if notFound(err) {
				continue
			}
			return e.deferIfReject(450, "4.4.4", "<%s>: %s rejected: Unable to look up mail exchanger host %s", e.session.Recipient, recipientClass, mx.Host)
		}
		for _, address := range addresses {
			match, err := networks.host(e.ctx, mx.Host, address)
			if err != nil {
				return e.lookupError(about.name, fmt.Errorf("permit_mx_backup_networks: %w", err))
			}
			if match.Found {
				return permit
			}
		}
	}
	return dunno
}
