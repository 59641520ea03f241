package login

import (
	"container/list"
	"net/netip"
)

// crowd is the connections of one network that have not logged in, oldest first.
type crowd struct{ list.List }

// network is what counts as one address: a host of IPv4, a /64 of IPv6, which one customer has whole.
func network(a netip.Addr) netip.Addr {
	a = a.Unmap()
	if a.Is6() {
		if prefix, err := a.Prefix(64); err == nil {
			return prefix.Addr()
		}
	}
	return a
}

// join counts a connection as a stranger of its network. One that has too many loses its oldest.
func (g *Gate) join(c *Conn) {
	key := network(c.Client.Remote.Addr())
	limited := g.opt.MaxPrelogin > 0 && key.IsValid() && !contains(g.opt.Trusted, c.Client.Remote.Addr())
	g.mu.Lock()
	g.known(c)
	var victim *Conn
	if crowd, ok := g.crowds[key]; ok && limited && crowd.Len() >= g.opt.MaxPrelogin {
		victim = crowd.Front().Value.(*Conn)
		g.known(victim)
	}
	g.stand(c, key)
	g.mu.Unlock()
	if victim != nil {
		victim.kick(endCrowd)
	}
}

// await counts a connection whose client's address is not known yet.
func (g *Gate) await(c *Conn) {
	g.mu.Lock()
	g.stand(c, netip.Addr{})
	g.mu.Unlock()
}

// stand puts c among the strangers of a network; mu is held.
func (g *Gate) stand(c *Conn, key netip.Addr) {
	there, ok := g.crowds[key]
	if !ok {
		there = &crowd{}
		g.crowds[key] = there
	}
	c.network, c.place = key, there.PushBack(c)
	g.strangers++
}

// known takes c from the strangers; mu is held.
func (g *Gate) known(c *Conn) {
	if c.place == nil {
		return
	}
	there := g.crowds[c.network]
	there.Remove(c.place)
	c.place = nil
	g.strangers--
	if there.Len() == 0 {
		delete(g.crowds, c.network)
	}
}

// victim takes one out of the strangers to make room, nil when there are none: the oldest of the largest crowd, the older one when two are
// equally large. mu is held.
func (g *Gate) victim() *Conn {
	var chosen *Conn
	size := 0
	for _, there := range g.crowds {
		oldest := there.Front().Value.(*Conn)
		if there.Len() > size || there.Len() == size && oldest.Began.Before(chosen.Began) {
			chosen, size = oldest, there.Len()
		}
	}
	if chosen != nil {
		g.known(chosen)
	}
	return chosen
}

func contains(networks []netip.Prefix, a netip.Addr) bool {
	for _, n := range networks {
		if n.Contains(a) {
			return true
		}
	}
	return false
}
