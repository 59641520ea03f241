package route

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"postilion/table"
)

// lookup asks for an address as mail_addr_find(3) does: whole, without extension, the local part where the domain is ours, and @domain.
// The extension that was left out is returned with the entry.
func (r *Router) lookup(ctx context.Context, m *maps, address string) (entry table.Entry, extension string, found bool, err error) {
	local, domain, hasDomain := split(address)
	base, ext, hasExtension := r.splitExtension(local)
	type try struct {
		key       string
		extension string
		whole     bool
	}
	tries := []try{{strings.ToLower(address), "", true}}
	if hasExtension && hasDomain {
		tries = append(tries, try{strings.ToLower(base + "@" + domain), ext, false})
	}
	ours := !hasDomain || strings.EqualFold(domain, r.myorigin)
	if !ours {
		match, err := r.isLocalDomain(ctx, domain)
		if err != nil {
			return entry, "", false, err
		}
		ours = match.Found
	}
	if ours && hasDomain {
		tries = append(tries, try{strings.ToLower(local), "", false})
		if hasExtension {
			tries = append(tries, try{strings.ToLower(base), ext, false})
		}
	}
	if hasDomain {
		tries = append(tries, try{"@" + strings.ToLower(domain), ext, false})
	}
	for _, t := range tries {
		entry, found, err = m.find(ctx, t.key, t.whole)
		if found || err != nil {
			return entry, t.extension, found, err
		}
	}
	return entry, "", false, nil
}

// Expansion is one final recipient of virtual aliases, with the steps that led there.
type Expansion struct {
	Recipient string
	Trace     []Step
}

// Expand applies virtual_alias_maps until nothing changes. An address without an alias is its own expansion.
func (r *Router) Expand(ctx context.Context, address string) ([]Expansion, error) {
	e := expander{
		router: r, limit: r.view.Int("virtual_alias_expansion_limit"), depth: r.view.Int("virtual_alias_recursion_limit"),
		addressLength: r.view.Int("virtual_alias_address_length_limit"), seen: map[string]bool{},
	}
	if err := e.expand(ctx, r.Rewrite(address), nil, 0); err != nil {
		return nil, fmt.Errorf("%s: %w", address, err)
	}
	return e.found, nil
}

type expander struct {
	router                      *Router
	limit, depth, addressLength int
	found                       []Expansion
	seen                        map[string]bool
}

func (e *expander) expand(ctx context.Context, address string, trace []Step, depth int) error {
	if depth > e.depth {
		return fmt.Errorf("%w: unreasonable virtual_alias_maps map nesting for %s", ErrLoop, address)
	}
	entry, extension, found, err := e.router.lookup(ctx, &e.router.virtualAliases, address)
	if err != nil {
		return err
	}
	if !found {
		return e.keep(address, trace)
	}
	for _, target := range splitList(entry.Value) {
		full := e.router.complete(target, address, extension)
		if e.addressLength > 0 && len(full) > e.addressLength {
			return fmt.Errorf("%w: virtual alias of more than %d octets", ErrLoop, e.addressLength)
		}
		steps := append(slices.Clip(slices.Clone(trace)), Step{What: "virtual_alias_maps", Where: entry.Source, Result: full})
		if strings.EqualFold(full, address) {
			err = e.keep(full, steps)
		} else {
			err = e.expand(ctx, full, steps, depth+1)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (e *expander) keep(address string, trace []Step) error {
	if e.seen[strings.ToLower(address)] {
		return nil
	}
	if len(e.found) >= e.limit {
		return fmt.Errorf("%w: unreasonable virtual_alias_maps map expansion size", ErrLoop)
	}
	e.seen[strings.ToLower(address)] = true
	e.found = append(e.found, Expansion{Recipient: address, Trace: trace})
	return nil
}

// complete makes a full address of a map's right side: @domain takes the local part, an unmatched extension is carried over.
func (r *Router) complete(target, original, extension string) string {
	target = strings.TrimSpace(target)
	if strings.HasPrefix(target, "@") {
		local, _, _ := split(original)
		return r.Rewrite(local + target)
	}
	if extension != "" && r.propagate["virtual"] {
		local, domain, hasDomain := split(target)
		target = local + extension
		if hasDomain {
			target += "@" + domain
		}
	}
	return r.Rewrite(target)
}

// splitList divides addresses at commas and blanks outside quotes.
func splitList(text string) []string {
	var list []string
	quoted := false
	start := 0
	flush := func(end int) {
		if word := strings.TrimSpace(text[start:end]); word != "" {
			list = append(list, word)
		}
	}
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case !quoted && (c == ',' || c == ' ' || c == '\t' || c == '\n'):
			flush(i)
			start = i + 1
		}
	}
	flush(len(text))
	return list
}

// Alias returns what alias_maps has for a local name, and where. Recursion is the local delivery agent's.
func (r *Router) Alias(ctx context.Context, local string) (targets []string, where string, found bool, err error) {
	base, _, has := r.splitExtension(local)
	for i, key := range []string{local, base} {
		if i > 0 && !has {
			break
		}
		entry, found, err := r.aliases.find(ctx, strings.ToLower(key), i == 0)
		if err != nil {
			return nil, "", false, err
		}
		if found {
			return splitList(entry.Value), entry.Source, true, nil
		}
	}
	return nil, "", false, nil
}

// Listing says whether a recipient is listed in the table of its class.
type Listing struct {
	Listed bool
	// Table names the kind of table for the reply: "local recipient table", "virtual alias table", ...
	Table string
	// Class picks the reject code parameter.
	Class Class
	// Where is the entry's or the parameter's position.
	Where string
}

// Listed tells whether the address is known: rewritten or expanded by a table, or in the table of recipients of its class. A class without
// such a table lists everybody.
func (r *Router) Listed(ctx context.Context, address string) (Listing, error) {
	result, err := r.Resolve(ctx, "", address)
	if err != nil {
		return Listing{}, err
	}
	for _, m := range []*maps{&r.canonical, &r.virtualAliases} {
		entry, _, found, err := r.lookup(ctx, m, result.Recipient)
		if err != nil {
			return Listing{}, err
		}
		if found {
			return Listing{Listed: true, Class: result.Class, Where: entry.Source}, nil
		}
	}
	listing := Listing{Listed: true, Class: result.Class}
	var m *maps
	switch result.Class {
	case VirtualAlias:
		return Listing{Table: "virtual alias table", Class: VirtualAlias, Where: r.virtualAliases.where}, nil
	case Local:
		m, listing.Table = &r.localRecipients, "local recipient table"
		if r.isSpecialLocal(result.Local) {
			return listing, nil
		}
	case VirtualMailbox:
		m, listing.Table = &r.virtualMailboxes, "virtual mailbox table"
	case Relay:
		m, listing.Table = &r.relayRecipients, "relay recipient table"
	default:
		return listing, nil
	}
	listing.Where = m.where
	if len(m.tables) == 0 {
		if r.options.Known == nil {
			return listing, nil
		}
		exists, decided, err := r.options.Known(ctx, result)
		listing.Listed = exists || !decided
		return listing, err
	}
	entry, _, found, err := r.lookup(ctx, m, result.Recipient)
	if err != nil {
		return Listing{}, err
	}
	listing.Listed = found
	if found {
		listing.Where = entry.Source
	}
	return listing, nil
}

// isSpecialLocal tells of names that local delivery accepts without a table: postmaster's double, and the sender of probes.
func (r *Router) isSpecialLocal(local string) bool {
	return strings.EqualFold(local, r.view.String("double_bounce_sender"))
}
