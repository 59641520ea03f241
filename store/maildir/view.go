package maildir

import (
	"sort"
	"time"

	"postilion/store"
)

// view implements store.View.
type view struct {
	validity uint32
	next     store.UID
	highest  store.ModSeq
	recent   store.UID
	id       string
	messages []*stored
	keywords []string
	// expunged rise by mod-sequence; what was expunged up to floor is forgotten.
	expunged []expunge
	floor    store.ModSeq
}

func (v *view) UIDValidity() uint32             { return v.validity }
func (v *view) UIDNext() store.UID              { return v.next }
func (v *view) HighestModSeq() store.ModSeq     { return v.highest }
func (v *view) ID() string                      { return v.id }
func (v *view) FirstRecent() store.UID          { return v.recent }
func (v *view) Len() int                        { return len(v.messages) }
func (v *view) UID(index int) store.UID         { return v.messages[index].uid }
func (v *view) Index(uid store.UID) (int, bool) { return searchUID(v.messages, uid) }
func (v *view) Keywords() []string              { return v.keywords }

func (v *view) Entry(index int) store.Entry {
	m := v.messages[index]
	return store.Entry{
		UID: m.uid, ModSeq: m.modseq, Flags: m.flags, Keywords: m.keywords, InternalDate: m.date, SaveDate: time.Unix(m.saved, 0),
		Size: m.size, EmailID: m.email,
	}
}

func (v *view) ChangedSince(since store.ModSeq) store.UIDSet {
	var set store.UIDSet
	for _, m := range v.messages {
		if m.modseq > since {
			set = set.Add(m.uid)
		}
	}
	return set
}

func (v *view) ExpungedSince(since store.ModSeq) store.UIDSet {
	var set store.UIDSet
	if since >= v.floor {
		first := sort.Search(len(v.expunged), func(i int) bool { return v.expunged[i].modseq > since })
		for _, e := range v.expunged[first:] {
			if _, there := searchUID(v.messages, e.uid); !there {
				set = set.Add(e.uid)
			}
		}
		return set
	}
	last := store.UID(0)
	for _, m := range v.messages {
		if m.uid > last+1 {
			set = set.AddRange(last+1, m.uid-1)
		}
		last = m.uid
	}
	if v.next > last+1 {
		set = set.AddRange(last+1, v.next-1)
	}
	return set
}

// status counts.
func (v *view) status() store.Status {
	s := store.Status{Messages: uint32(len(v.messages)), UIDNext: v.next, UIDValidity: v.validity, HighestModSeq: v.highest, ID: v.id}
	for _, m := range v.messages {
		s.Size += m.size
		if m.uid >= v.recent {
			s.Recent++
		}
		if m.flags&store.FlagSeen == 0 {
			s.Unseen++
		}
		if m.flags&store.FlagDeleted != 0 {
			s.Deleted++
		}
	}
	return s
}
