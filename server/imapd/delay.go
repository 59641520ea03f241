package imapd

import (
	"postilion/store"
)

// head is a view without the messages from a UID on: what a client sees that is told of new mail by NOOP and CHECK only (delay-newmail of
// imap_client_workarounds).
type head struct {
	store.View
	next store.UID
}

func (h head) UIDNext() store.UID { return h.next }

func (h head) Len() int {
	n, _ := h.View.Index(h.next)
	return n
}

func (h head) Index(uid store.UID) (int, bool) {
	if uid >= h.next {
		return h.Len(), false
	}
	return h.View.Index(uid)
}

func (h head) ChangedSince(since store.ModSeq) store.UIDSet {
	var set store.UIDSet
	for _, r := range h.View.ChangedSince(since) {
		if r.First < h.next {
			set = set.AddRange(r.First, min(r.Last, h.next-1))
		}
	}
	return set
}

// withoutNew holds new messages back when the present command is not one that tells of them.
func (s *session) withoutNew(now store.View) store.View {
	if !s.opt.DelayNewMail || s.tellsNew || now.UIDNext() <= s.box.view.UIDNext() {
		return now
	}
	return head{now, s.box.view.UIDNext()}
}
