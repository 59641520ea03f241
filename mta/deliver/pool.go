package deliver

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"
)

// poolKey says for whom a connection may be used again.
type poolKey struct {
	nexthop, sender string
}

// connectionPool bounds the connections of an agent and keeps those that are idle for a short while.
type connectionPool struct {
	options *LMTPOptions
	all     chan struct{}

	mutex sync.Mutex
	idle  map[poolKey][]*connection
	hops  map[string]*hopGate
	// sweep closes what was idle too long; nil while nothing is kept.
	sweep    *time.Timer
	closed   bool
	sweeping sync.WaitGroup
}

// hopGate lets in as many as lmtp_destination_concurrency_limit allows.
type hopGate struct {
	slots chan struct{}
	users int
}

func (p *connectionPool) init(options *LMTPOptions) {
	p.options = options
	p.idle, p.hops = map[poolKey][]*connection{}, map[string]*hopGate{}
	if options.Processes > 0 {
		p.all = make(chan struct{}, options.Processes)
	}
}

// enter waits for a place at a next hop, until the context ends. leave gives the place back.
func (p *connectionPool) enter(ctx context.Context, nexthop string) (leave func(), err error) {
	gate := p.gate(nexthop)
	if gate.slots != nil {
		select {
		case gate.slots <- struct{}{}:
		case <-ctx.Done():
			p.ungate(nexthop, gate)
			return nil, ctx.Err()
		}
	}
	if p.all != nil {
		select {
		case p.all <- struct{}{}:
		case <-ctx.Done():
			p.leaveHop(nexthop, gate)
			return nil, ctx.Err()
		}
	}
	return func() {
		if p.all != nil {
			<-p.all
		}
		p.leaveHop(nexthop, gate)
	}, nil
}

func (p *connectionPool) gate(nexthop string) *hopGate {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	gate := p.hops[nexthop]
	if gate == nil {
		gate = &hopGate{}
		if p.options.Concurrency > 0 {
			gate.slots = make(chan struct{}, p.options.Concurrency)
		}
		p.hops[nexthop] = gate
	}
	gate.users++
	return gate
}

func (p *connectionPool) leaveHop(nexthop string, gate *hopGate) {
	if gate.slots != nil {
		<-gate.slots
	}
	p.ungate(nexthop, gate)
}

func (p *connectionPool) ungate(nexthop string, gate *hopGate) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if gate.users--; gate.users == 0 {
		delete(p.hops, nexthop)
	}
}

// take returns a kept connection, nil when there is none.
func (p *connectionPool) take(key poolKey) *connection {
	for {
		p.mutex.Lock()
		list := p.idle[key]
		if len(list) == 0 {
			p.mutex.Unlock()
			return nil
		}
		c := list[len(list)-1]
		if p.idle[key] = list[:len(list)-1]; len(list) == 1 {
			delete(p.idle, key)
		}
		p.mutex.Unlock()
		if p.expired(c, time.Now()) {
			c.quit()
			continue
		}
		return c
	}
}

func (p *connectionPool) expired(c *connection, now time.Time) bool {
	o := p.options
	return now.Sub(c.idleSince) >= o.CacheTime || now.Sub(c.opened) >= o.ReuseTime || o.ReuseCount > 0 && c.used >= o.ReuseCount
}

// put keeps a connection whose last transaction ended in order, or says goodbye on it.
func (p *connectionPool) put(c *connection) {
	c.used++
	c.idleSince = time.Now()
	if !p.keep(c) {
		c.quit()
	}
}

func (p *connectionPool) keep(c *connection) bool {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if p.options.CacheOnly != nil && !slices.Contains(p.options.CacheOnly, strings.TrimPrefix(c.key.nexthop, "inet:")) {
		return false
	}
	if p.closed || p.options.CacheTime <= 0 || p.expired(c, c.idleSince) {
		return false
	}
	p.idle[c.key] = append(p.idle[c.key], c)
	p.arm()
	return true
}

// arm has clean run when the connections that are kept now are old.
func (p *connectionPool) arm() {
	if p.sweep == nil {
		p.sweeping.Add(1)
		p.sweep = time.AfterFunc(p.options.CacheTime, func() {
			defer p.sweeping.Done()
			p.clean()
		})
	}
}

// clean says goodbye on connections that were idle too long.
func (p *connectionPool) clean() {
	now := time.Now()
	var old []*connection
	p.mutex.Lock()
	p.sweep = nil
	for key, list := range p.idle {
		kept := list[:0]
		for _, c := range list {
			if p.closed || p.expired(c, now) {
				old = append(old, c)
			} else {
				kept = append(kept, c)
			}
		}
		if p.idle[key] = kept; len(kept) == 0 {
			delete(p.idle, key)
		}
	}
	if len(p.idle) > 0 {
		p.arm()
	}
	p.mutex.Unlock()
	for _, c := range old {
		c.quit()
	}
}

func (p *connectionPool) close() {
	p.mutex.Lock()
	p.closed = true
	if p.sweep != nil && p.sweep.Stop() {
		p.sweeping.Done()
	}
	p.mutex.Unlock()
	p.clean()
	p.sweeping.Wait()
}
