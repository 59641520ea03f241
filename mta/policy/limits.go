package policy

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"postilion/config/postfix"
	"postilion/table"
	"postilion/table/matchlist"
)

// Event is what Limits counts.
type Event uint8

// The events. ConnectionCount is how many connections are open; the others are counted per time unit.
const (
	ConnectionCount Event = iota
	ConnectionRate
	MessageRate
	RecipientRate
	AuthRate
	NewTLSRate
	events
)

// maxClients bounds the clients that are remembered at a time. Beyond it the ones whose time unit is over go, then those that have no connection
// open, the longest known first.
const maxClients = 100_000

// Limits counts what clients do, as anvil(8) does: per address, over time units that begin with the client's first event. Its methods may be called
// at the same time.
type Limits struct {
	limits     [events]int
	unit       time.Duration
	exceptions *list
	now        func() time.Time

	mu      sync.Mutex
	clients map[netip.Addr]*clientCount
}

type clientCount struct {
	began  time.Time
	counts [events]int
}

// LimitOptions are what Limits are made of.
type LimitOptions struct {
	// View gives the smtpd_client_*_limit parameters of the service, and anvil_rate_time_unit. Required.
	View *postfix.View
	// Open opens a table of smtpd_client_event_limit_exceptions. Required.
	Open func(spec string) table.Table
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Warn receives why the exceptions could not be read; nil drops it.
	Warn func(text string)
}

// NewLimits reads the limits of one smtpd service. Exceptions that cannot be read are none.
func NewLimits(options LimitOptions) *Limits {
	v := options.View
	l := &Limits{unit: v.Duration("anvil_rate_time_unit"), now: options.Now, clients: map[netip.Addr]*clientCount{}}
	for event, name := range [events]string{
		"smtpd_client_connection_count_limit", "smtpd_client_connection_rate_limit", "smtpd_client_message_rate_limit",
		"smtpd_client_recipient_rate_limit", "smtpd_client_auth_rate_limit", "smtpd_client_new_tls_session_rate_limit",
	} {
		l.limits[event] = v.Int(name)
	}
	if l.now == nil {
		l.now = time.Now
	}
	const parameter = "smtpd_client_event_limit_exceptions"
	parents := false
	for _, word := range v.List("parent_domain_matches_subdomains") {
		parents = parents || word == parameter
	}
	matches, err := matchlist.New(parameter, v.List(parameter), matchlist.Options{
		Open:          func(spec string) (matchlist.Table, error) { return options.Open(spec), nil },
		ParentDomains: parents, Where: v.Where(parameter).String(),
	})
	if err != nil && options.Warn != nil {
		options.Warn(err.Error())
	}
	l.exceptions = &list{matches, err}
	return l
}

// Excepted tells whether a client is in smtpd_client_event_limit_exceptions.
func (l *Limits) Excepted(ctx context.Context, name string, address netip.Addr) bool {
	match, err := l.exceptions.host(ctx, name, address)
	return err == nil && match.Found
}

// Count books an event and returns how many there were in the time unit (or, for ConnectionCount, are open at the moment), and whether that is
// more than allowed. A limit of 0 allows everything. Clients in the exceptions are not counted.
func (l *Limits) Count(event Event, name string, address netip.Addr) (count int, exceeded bool) {
	if event >= events || l.Excepted(context.Background(), name, address) {
		return 0, false
	}
	address = address.Unmap()
	now := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.clients[address]
	if c == nil {
		if len(l.clients) >= maxClients {
			l.makeRoom(now)
		}
		c = &clientCount{began: now}
		l.clients[address] = c
	}
	if now.Sub(c.began) >= l.unit || now.Before(c.began) {
		c.began, c.counts = now, [events]int{ConnectionCount: c.counts[ConnectionCount]}
	}
	c.counts[event]++
	count = c.counts[event]
	return count, l.limits[event] > 0 && count > l.limits[event]
}

// Disconnect takes back a ConnectionCount.
func (l *Limits) Disconnect(_ string, address netip.Addr) {
	address = address.Unmap()
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.clients[address]
	if c == nil || c.counts[ConnectionCount] == 0 {
		return
	}
	c.counts[ConnectionCount]--
	if c.counts[ConnectionCount] == 0 && l.now().Sub(c.began) >= l.unit {
		delete(l.clients, address)
	}
}

// makeRoom forgets clients.
func (l *Limits) makeRoom(now time.Time) {
	for address, c := range l.clients {
		if c.counts[ConnectionCount] == 0 && now.Sub(c.began) >= l.unit {
			delete(l.clients, address)
		}
	}
	for age := l.unit / 2; len(l.clients) >= maxClients*9/10; age /= 2 {
		for address, c := range l.clients {
			if c.counts[ConnectionCount] == 0 && now.Sub(c.began) >= age {
				delete(l.clients, address)
			}
		}
		if age == 0 {
			return
		}
	}
}
