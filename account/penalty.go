package account

import (
	"context"
	"net/netip"
	"sync"
	"time"
)

const (
	// maxPenalties is how many addresses and accounts are remembered, each.
	maxPenalties = 20_000
	// penaltyMemory is how long a failure counts.
	penaltyMemory = 2 * time.Minute
	// maxPenalty is the longest wait.
	maxPenalty = 15 * time.Second
)

// penalties remember failed logins. An address that failed waits before its next try is looked at, so that guessing over many
// connections is slowed as well. Failures for one account from many addresses lengthen the answer to failures only: its owner is not kept out.
// A nil *penalties never waits.
type penalties struct {
	now func() time.Time

	mu        sync.Mutex
	addresses map[netip.Addr]*failures
	accounts  map[string]*failures
}

type failures struct {
	count int
	last  time.Time
}

func newPenalties(now func() time.Time) *penalties {
	return &penalties{now: now, addresses: map[netip.Addr]*failures{}, accounts: map[string]*failures{}}
}

// penaltyFor doubles from two seconds on: nothing after the first failure's own delay, then 2, 4, 8 and at most 15 seconds.
func penaltyFor(count int) time.Duration {
	if count <= 1 {
		return 0
	}
	return min(time.Second<<min(count-1, 5), maxPenalty)
}

// network is what counts as one address: a host for IPv4, a /64 for IPv6, which one customer has whole.
func network(a netip.Addr) netip.Addr {
	a = a.Unmap()
	if a.Is6() {
		if prefix, err := a.Prefix(64); err == nil {
			return prefix.Addr()
		}
	}
	return a
}

func (p *penalties) wait(ctx context.Context, from netip.Addr) error {
	if p == nil || !from.IsValid() {
		return nil
	}
	p.mu.Lock()
	var d time.Duration
	if f, ok := p.addresses[network(from)]; ok && p.now().Sub(f.last) < penaltyMemory {
		d = penaltyFor(f.count)
	}
	p.mu.Unlock()
	return pause(ctx, d)
}

// failed counts a failure and returns how much longer its answer takes because of other failures for the account.
func (p *penalties) failed(from netip.Addr, name string) time.Duration {
	if p == nil {
		return 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if from.IsValid() {
		count(p, p.addresses, network(from))
	}
	return penaltyFor(count(p, p.accounts, name))
}

func count[K comparable](p *penalties, table map[K]*failures, key K) int {
	now := p.now()
	f, ok := table[key]
	if !ok {
		if len(table) >= maxPenalties {
			evict(table, now)
		}
		f = &failures{}
		table[key] = f
	}
	if now.Sub(f.last) >= penaltyMemory {
		f.count = 0
	}
	f.count++
	f.last = now
	return f.count
}

// evict makes room: everything outdated, else the half that map order happens to give, which an attacker cannot choose.
func evict[K comparable](table map[K]*failures, now time.Time) {
	for key, f := range table {
		if now.Sub(f.last) >= penaltyMemory {
			delete(table, key)
		}
	}
	if len(table) < maxPenalties {
		return
	}
	removed := 0
	for key := range table {
		delete(table, key)
		if removed++; removed >= maxPenalties/2 {
			return
		}
	}
}

func (p *penalties) forget(from netip.Addr) {
	if p == nil || !from.IsValid() {
		return
	}
	p.mu.Lock()
	delete(p.addresses, network(from))
	p.mu.Unlock()
}
