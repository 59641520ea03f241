package vault

import (
	"slices"
	"strconv"
	"time"

	"postilion/store"
)

// view is a mailbox at one moment: its counters and, when it is loaded, its entries. It never changes.
type view struct {
	// order counts the changes of the mailbox since it came into memory.
	order       uint64
	uidValidity uint32
	id          uint64
	state       state
	// loaded tells whether what follows is there.
	loaded   bool
	index    index
	keywords []string
	// sets are the combinations of keywords that entries have, by entry.set; number 0 is the empty one.
	sets [][]uint16
	// expunged are the expunges above state.expungedFloor, the oldest first.
	expunged []expunge
}

type expunge struct {
	modSeq store.ModSeq
	uids   store.UIDSet
}

var _ store.View = (*view)(nil)

func mailboxID(id uint64) string { return "M" + strconv.FormatUint(id, 36) }

func emailID(id uint64) string {
	var buffer [16]byte
	return string(strconv.AppendUint(append(buffer[:0], 'E'), id, 36))
}

func (v *view) UIDValidity() uint32         { return v.uidValidity }
func (v *view) UIDNext() store.UID          { return store.UID(v.state.uidNext) }
func (v *view) HighestModSeq() store.ModSeq { return v.state.highestModSeq }
func (v *view) ID() string                  { return mailboxID(v.id) }
func (v *view) FirstRecent() store.UID      { return store.UID(v.state.firstRecent) }
func (v *view) Len() int                    { return v.index.len() }
func (v *view) UID(i int) store.UID         { return v.index.at(i).uid }
func (v *view) Keywords() []string          { return v.keywords }

func (v *view) Index(uid store.UID) (int, bool) { return v.index.find(uid) }

func (v *view) Entry(i int) store.Entry {
	e := v.index.at(i)
	out := store.Entry{
		UID: e.uid, ModSeq: e.modSeq, Flags: e.flags, Size: e.size, EmailID: emailID(e.email),
		InternalDate: date(e.internal, e.zone), SaveDate: time.Unix(e.saved, 0).UTC(),
	}
	if e.set != 0 {
		out.Keywords = v.sets[e.set]
	}
	return out
}

func date(seconds int64, zone int16) time.Time {
	if zone == 0 {
		return time.Unix(seconds, 0).UTC()
	}
	return time.Unix(seconds, 0).In(time.FixedZone("", int(zone)*60))
}

func (v *view) ChangedSince(since store.ModSeq) store.UIDSet {
	if since >= v.state.highestModSeq {
		return nil
	}
	return v.index.changedSince(since)
}

func (v *view) ExpungedSince(since store.ModSeq) store.UIDSet {
	if since >= v.state.highestModSeq {
		return nil
	}
	if since < v.state.expungedFloor {
		return v.absent()
	}
	from, _ := slices.BinarySearchFunc(v.expunged, since+1, func(e expunge, modSeq store.ModSeq) int {
		if e.modSeq < modSeq {
			return -1
		}
		return 1
	})
	var set store.UIDSet
	for _, e := range v.expunged[from:] {
		for _, r := range e.uids {
			set = set.AddRange(r.First, r.Last)
		}
	}
	return set
}

// absent returns every UID below UIDNEXT that is not there.
func (v *view) absent() store.UIDSet {
	var set store.UIDSet
	next := uint64(1)
	gap := func(before uint64) {
		if next < before {
			set = set.AddRange(store.UID(next), store.UID(before-1))
		}
		next = before + 1
	}
	for i := range v.index.len() {
		gap(uint64(v.index.at(i).uid))
	}
	gap(v.state.uidNext)
	return set
}
