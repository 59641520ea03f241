package remote

import (
	"fmt"
	"slices"
	"sync"

	"postilion/store"
)

// viewKey names a mailbox across handles.
type viewKey struct{ user, location, name string }

func (m *mailbox) key() viewKey {
	return viewKey{m.account.owner.User, m.account.owner.Location, m.name}
}

// recentViews bounds what all contents weigh, and remembers the latest one of each mailbox: for as long as a mailbox shows it, and of a few for longer.
type recentViews struct {
	limit int

	mu     sync.Mutex
	weight int
	latest map[viewKey]*content
	// idle names those of latest that no mailbox shows, the longest idle first.
	idle []viewKey
}

// reserve takes weight before the memory is. What is idle makes room.
func (r *recentViews) reserve(weight int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.weight+weight > r.limit && len(r.idle) > 0 {
		r.forget(r.idle[0])
	}
	if r.weight+weight > r.limit {
		return fmt.Errorf("%w: the open mailboxes would hold more than %d messages", store.ErrTooMany, r.limit)
	}
	r.weight += weight
	return nil
}

func (r *recentViews) unreserve(weight int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.weight -= weight
}

// find returns the latest content of a mailbox, nil when there is none.
func (r *recentViews) find(key viewKey) *content {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.latest[key]
}

// use counts one more mailbox that shows a content. The weight of a new one is reserved already, which its counted tells.
func (r *recentViews) use(key viewKey, c *content) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !c.counted {
		r.weight += c.weight
		c.counted = true
	}
	c.users++
	known := r.latest[key]
	if known != nil && known != c && known.number > c.number {
		return
	}
	r.wake(key)
	if known != nil && known != c && known.users == 0 {
		r.uncount(known)
	}
	if r.latest == nil {
		r.latest = map[viewKey]*content{}
	}
	r.latest[key] = c
}

// release counts one mailbox less.
func (r *recentViews) release(key viewKey, c *content) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c.users--; c.users > 0 {
		return
	}
	if r.latest[key] != c {
		r.uncount(c)
		return
	}
	r.idle = append(r.idle, key)
	if len(r.idle) > idleViews {
		r.forget(r.idle[0])
	}
}

// wake takes a mailbox out of the idle ones.
func (r *recentViews) wake(key viewKey) {
	r.idle = slices.DeleteFunc(r.idle, func(idle viewKey) bool { return idle == key })
}

// forget gives up the content of an idle mailbox.
func (r *recentViews) forget(key viewKey) {
	r.wake(key)
	r.uncount(r.latest[key])
	delete(r.latest, key)
}

func (r *recentViews) uncount(c *content) {
	r.weight -= c.weight
	c.counted = false
}
