package route

import (
	"context"
	"strings"

	"postilion/table"
)

// Tables are the tables of one parameter, to be asked for addresses.
type Tables struct{ maps maps }

// Tables opens the tables of a parameter that is not one of the router's own, such as smtpd_sender_login_maps.
func (r *Router) Tables(parameter string) *Tables {
	return &Tables{r.maps(parameter, false)}
}

// Empty tells that the parameter names no table.
func (t *Tables) Empty() bool { return t == nil || len(t.maps.tables) == 0 }

// Find asks for an address: whole, without its extension, the local part where the domain is ours, and @domain.
func (r *Router) Find(ctx context.Context, t *Tables, address string) (table.Entry, bool, error) {
	entry, _, found, err := r.lookup(ctx, &t.maps, address)
	return entry, found, err
}

// Listing says whether a recipient is listed in the table of its class.
type Listing struct {
	Listed bool
	// Table names the kind of table for the reply: "local recipient table", "virtual alias table", ...
	Table string
	// Class picks the reject code parameter.
	Class Class
	// Refusal is what the error or the retry transport has to say of the address, with an enhanced status code in front; Temporary tells which
	// of the two it is.
	Refusal   string
	Temporary bool
	// Where is the entry's or the parameter's position.
	Where string
}

// Listed tells whether the address is known: rewritten or expanded by a table, or in the table of recipients of its class. A class without
// such a table lists everybody.
func (r *Router) Listed(ctx context.Context, address string) (Listing, error) {
	return r.listed(ctx, address, &r.recipientCanonical, &r.canonical, &r.virtualAliases)
}

// ListedSender is Listed for the address of a sender, which sender_canonical_maps may rewrite too.
func (r *Router) ListedSender(ctx context.Context, address string) (Listing, error) {
	return r.listed(ctx, address, &r.recipientCanonical, &r.senderCanonical, &r.canonical, &r.virtualAliases)
}

func (r *Router) listed(ctx context.Context, address string, rewriting ...*maps) (Listing, error) {
	result, err := r.Resolve(ctx, "", address)
	if err != nil {
		return Listing{}, err
	}
	for _, m := range rewriting {
		if len(m.tables) == 0 {
			continue
		}
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
	case VirtualMailbox:
		m, listing.Table = &r.virtualMailboxes, "virtual mailbox table"
	case Relay:
		m, listing.Table = &r.relayRecipients, "relay recipient table"
	}
	if result.Transport == "error" || result.Transport == "retry" {
		return Listing{Class: result.Class, Refusal: result.Nexthop, Temporary: result.Transport == "retry"}, nil
	}
	if m == nil || (result.Class == Local && r.isSpecialLocal(result.Local)) {
		return listing, nil
	}
	return r.listedIn(ctx, m, result, listing)
}

func (r *Router) listedIn(ctx context.Context, m *maps, result *Resolution, listing Listing) (Listing, error) {
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

// isSpecialLocal tells of names that are accepted without a table: the postmaster, and the senders of notices and probes.
func (r *Router) isSpecialLocal(local string) bool {
	return strings.EqualFold(local, "postmaster") || strings.EqualFold(local, "mailer-daemon") || strings.EqualFold(local, r.view.String("double_bounce_sender"))
}
