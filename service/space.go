package service

import (
	"errors"

	"postilion/kv"
)

// queueSpace tells whether a message of that size can be stored, as smtpd asks at MAIL: more than queue_minfree and one and a half times the size must be free where
// mail is kept, and what the vault itself keeps free besides.
func (t *transport) queueSpace() func(size int64) bool {
	least, stores := int64(t.view.Int("queue_minfree")), t.builder.stores
	return func(size int64) bool { return stores.room(least, size) }
}

// room asks every open vault.
func (s *stores) room(least, size int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, open := range s.vaults {
		if errors.Is(open.db.CheckSpace(), kv.ErrNoSpace) {
			return false
		}
		if free, err := open.db.Free(); err == nil && (free <= least || free/3*2 <= size) {
			return false
		}
	}
	return true
}
