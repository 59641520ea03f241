package remote

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"postilion/mail/message"
	"postilion/store"
)

// errorKinds are the errors that travel by their number; the order is part of the version.
func errorKinds() []error {
	return []error{
		store.ErrNotFound, store.ErrExists, store.ErrName, store.ErrOverQuota, store.ErrExpunged, store.ErrOtherAccount, store.ErrNotDelivered, store.ErrTooMany,
		store.ErrNoSpace, store.ErrDamaged, store.ErrClosed, context.Canceled, context.DeadlineExceeded, fs.ErrNotExist, fs.ErrPermission, fs.ErrClosed,
	}
}

// farError is an error of the far side: its text and which of errorKinds it is.
type farError struct {
	text  string
	kinds uint32
}

func (e *farError) Error() string { return e.text }

// Is tells the kinds.
func (e *farError) Is(target error) bool {
	for i, kind := range errorKinds() {
		if kind == target {
			return e.kinds&(1<<i) != 0
		}
	}
	return false
}

// spoolFailure is the error for a message that could not be kept while it came in.
func spoolFailure(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", store.ErrNoSpace, err)
	}
	return err
}

func (e *encoder) error(err error) {
	outer := &store.Error{}
	inner := err
	if told, ok := err.(*store.Error); ok && told.Err != nil && told.Operation != "" {
		outer, inner = told, told.Err
	}
	var kinds uint64
	for i, kind := range errorKinds() {
		if errors.Is(inner, kind) {
			kinds |= 1 << i
		}
	}
	e.number(kinds)
	for _, text := range [...]string{inner.Error(), outer.Operation, outer.User, outer.Mailbox} {
		e.text(text[:min(len(text), maxErrorText)], maxErrorText)
	}
}

func (d *decoder) error() error {
	far := &farError{kinds: uint32(d.below(1<<len(errorKinds())-1, "an error's kind"))}
	var texts [4]string
	for i := range texts {
		texts[i] = printable(d.text(maxErrorText, "an error's text"))
	}
	if far.text = texts[0]; far.text == "" {
		far.text = "the far side does not say what failed"
	}
	if texts[1] == "" {
		return far
	}
	return &store.Error{Operation: texts[1], User: texts[2], Mailbox: texts[3], Err: far}
}

// printable keeps a text of the far side from breaking the lines of a log.
func printable(text string) string {
	if !strings.ContainsFunc(text, unprintable) {
		return text
	}
	return strings.Map(func(r rune) rune {
		if unprintable(r) {
			return '?'
		}
		return r
	}, text)
}

func unprintable(r rune) bool { return r < ' ' || r == 0x7f || r == utf8.RuneError }

// earliest and latest are the bounds of dates that can be written with four digits of the year, as seconds.
const (
	earliest = -62135596800
	latest   = 253402300799
	// farthestZone is the largest offset from UTC.
	farthestZone = 24*60*60 - 1
)

// zone remembers the last time zone read, since neighbours mostly share it.
type zone struct {
	offset   int
	location *time.Location
}

func (z *zone) of(offset int) *time.Location {
	if offset == 0 {
		return time.UTC
	}
	if z.location == nil || z.offset != offset {
		z.offset, z.location = offset, time.FixedZone("", offset)
	}
	return z.location
}

func (e *encoder) time(t time.Time) {
	seconds := t.Unix()
	_, offset := t.Zone()
	if seconds < earliest || seconds > latest {
		seconds = min(max(seconds, earliest), latest)
	}
	if offset < -farthestZone || offset > farthestZone {
		offset = 0
	}
	e.signed(seconds)
	e.number(uint64(t.Nanosecond()))
	e.signed(int64(offset))
}

func (d *decoder) time() time.Time {
	seconds, nanoseconds, offset := d.signed(), d.below(999_999_999, "a fraction of a second"), d.signed()
	if seconds < earliest || seconds > latest || offset < -farthestZone || offset > farthestZone {
		d.fail(malformed("a date that cannot be"))
		return time.Time{}
	}
	return time.Unix(seconds, int64(nanoseconds)).In(d.zone.of(int(offset)))
}

// set writes a set of UIDs.
func (e *encoder) set(set store.UIDSet) {
	if len(set) > maxRanges {
		e.fail(fmt.Errorf("%w: a set of %d ranges of UIDs", store.ErrTooMany, len(set)))
		return
	}
	e.number(uint64(len(set)))
	last := store.UID(0)
	for _, r := range set {
		e.number(uint64(r.First - last))
		e.number(uint64(r.Last - r.First))
		last = r.Last
	}
}

// set reads a set of UIDs: rising ranges that neither overlap nor touch and begin at 1 or above.
func (d *decoder) set() store.UIDSet {
	n := d.below(maxRanges, "the number of ranges")
	if n == 0 {
		return nil
	}
	set := make(store.UIDSet, 0, min(n, 1024))
	last := uint64(0)
	for i := range n {
		gap, length := d.number(), d.number()
		first := last + gap
		if d.err != nil {
			return nil
		}
		if gap == 0 || (i > 0 && gap == 1) || gap > 1<<32 || length > 1<<32 || first+length > 1<<32-1 {
			d.fail(malformed("a set of UIDs that is in no order"))
			return nil
		}
		last = first + length
		set = append(set, store.UIDRange{First: store.UID(first), Last: store.UID(last)})
	}
	return set
}

// uids writes a list of UIDs in any order.
func (e *encoder) uids(uids []store.UID) {
	if len(uids) > maxUIDs {
		e.fail(fmt.Errorf("%w: a list of %d UIDs", store.ErrTooMany, len(uids)))
		return
	}
	e.number(uint64(len(uids)))
	last := store.UID(0)
	for _, uid := range uids {
		e.signed(int64(uid) - int64(last))
		last = uid
	}
}

func (d *decoder) uids() []store.UID {
	n := d.below(maxUIDs, "the number of UIDs")
	if n == 0 {
		return nil
	}
	uids := make([]store.UID, 0, min(n, 1024))
	last := int64(0)
	for range n {
		step := d.signed()
		if d.err != nil {
			return nil
		}
		if step > 1<<32 || step < -1<<32 || last+step <= 0 || last+step > 1<<32-1 {
			d.fail(malformed("a UID that cannot be"))
			return nil
		}
		last += step
		uids = append(uids, store.UID(last))
	}
	return uids
}

func (d *decoder) uid() store.UID { return store.UID(d.below(1<<32-1, "a UID")) }

func (d *decoder) modSeq() store.ModSeq {
	return store.ModSeq(d.below(1<<63-1, "a mod-sequence"))
}

const allFlags = store.FlagSeen | store.FlagAnswered | store.FlagFlagged | store.FlagDeleted | store.FlagDraft

func (d *decoder) flags() store.Flags {
	flags := store.Flags(d.octet())
	if flags&^allFlags != 0 {
		d.fail(malformed("flags %#x", flags))
	}
	return flags
}

func (e *encoder) keywords(words []string) {
	if len(words) > maxKeywords {
		e.fail(fmt.Errorf("%w: %d keywords", store.ErrTooMany, len(words)))
		return
	}
	e.number(uint64(len(words)))
	for _, word := range words {
		e.text(word, maxName)
	}
}

func (d *decoder) keywords() []string {
	var words []string
	for range d.below(maxKeywords, "the number of keywords") {
		if words = append(words, d.text(maxName, "a keyword")); d.err != nil {
			return nil
		}
	}
	return words
}

// structure writes a message's parsed form, or that there is none: when it is nil, or too large so that it must be parsed at the other side.
func (e *encoder) structure(m *message.Message) {
	var form []byte
	if m != nil {
		if form = m.AppendBinary(nil); e.structures+len(form) > maxStructures {
			form = nil
		}
	}
	e.structures += len(form)
	e.number(uint64(len(form)))
	e.raw(form)
}

// structure reads what the encoder's structure wrote; nil when there is none.
func (d *decoder) structure() *message.Message {
	form := d.octets(maxStructures-d.structures, "a message's structure")
	if d.structures += len(form); len(form) == 0 {
		return nil
	}
	m, err := message.Decode(form)
	if err == nil && m.Size > maxMessage {
		err = malformed("a structure of a message of %d octets", m.Size)
	}
	if err != nil {
		d.fail(fmt.Errorf("%w: %w", ErrProtocol, err))
		return nil
	}
	return m
}

func (e *encoder) owner(o *store.Owner) {
	e.text(o.User, maxName)
	e.text(o.Home, maxName)
	e.text(o.Location, maxName)
	e.signed(int64(o.UID))
	e.signed(int64(o.GID))
	if len(o.Quota.Rules) > maxRules {
		e.fail(fmt.Errorf("%w: %d quota rules", store.ErrTooMany, len(o.Quota.Rules)))
		return
	}
	e.number(uint64(len(o.Quota.Rules)))
	for _, rule := range o.Quota.Rules {
		e.text(rule.Mailbox, maxName)
		e.signed(rule.Bytes)
		e.signed(rule.Messages)
		e.truth(rule.Relative)
		e.truth(rule.Ignore)
	}
}

func (d *decoder) owner() (o store.Owner) {
	o.User, o.Home, o.Location = d.text(maxName, "a user"), d.text(maxName, "a home"), d.text(maxName, "a location")
	o.UID, o.GID = d.id(), d.id()
	for range d.below(maxRules, "the number of quota rules") {
		o.Quota.Rules = append(o.Quota.Rules, store.QuotaRule{
			Mailbox: d.text(maxName, "a mailbox"), Bytes: d.signed(), Messages: d.signed(), Relative: d.truth(), Ignore: d.truth(),
		})
		if d.err != nil {
			break
		}
	}
	return o
}

// id reads a UID or GID of the system.
func (d *decoder) id() int {
	id := d.signed()
	if id < -1 || id > 1<<32-1 {
		d.fail(malformed("the owner %d", id))
	}
	return int(id)
}

func (e *encoder) target(t *store.Target) {
	e.owner(&t.Owner)
	e.text(t.Mailbox, maxName)
	e.truth(t.Create)
	e.truth(t.SubscribeCreated)
	if len(t.Prefix) > maxPrefix {
		e.fail(fmt.Errorf("%w: trace headers of %d octets", store.ErrTooMany, len(t.Prefix)))
		return
	}
	e.number(uint64(len(t.Prefix)))
	e.raw(t.Prefix)
	e.octet(byte(t.Flags))
	e.keywords(t.Keywords)
}

func (d *decoder) target() (t store.Target) {
	t.Owner, t.Mailbox = d.owner(), d.text(maxName, "a mailbox")
	t.Create, t.SubscribeCreated = d.truth(), d.truth()
	if prefix := d.octets(maxPrefix, "the trace headers"); len(prefix) > 0 {
		t.Prefix = append([]byte(nil), prefix...)
	}
	t.Flags, t.Keywords = d.flags(), d.keywords()
	return t
}

func (e *encoder) status(s *store.Status) {
	for _, n := range [...]uint32{s.Messages, s.Recent, s.Unseen, s.Deleted, uint32(s.UIDNext), s.UIDValidity} {
		e.number(uint64(n))
	}
	e.number(uint64(s.HighestModSeq))
	e.number(uint64(max(s.Size, 0)))
	e.text(s.ID, maxID)
}

func (d *decoder) status() (s store.Status) {
	for _, n := range [...]*uint32{&s.Messages, &s.Recent, &s.Unseen, &s.Deleted, (*uint32)(&s.UIDNext), &s.UIDValidity} {
		*n = uint32(d.below(1<<32-1, "a count"))
	}
	s.HighestModSeq, s.Size, s.ID = d.modSeq(), int64(d.below(1<<62, "the size of a mailbox")), d.objectID(false)
	return s
}

// objectID reads an identifier of RFC 8474: letters, digits, "-" and "_".
func (d *decoder) objectID(empty bool) string {
	id := d.octets(maxID, "an object identifier")
	if (len(id) == 0 && !empty) || !isObjectID(id) {
		d.fail(malformed("the object identifier %q", id))
		return ""
	}
	return string(id)
}

func isObjectID(id []byte) bool {
	for _, b := range id {
		// Below 'a' and '0' the differences wrap and are large.
		if (b|0x20)-'a' >= 26 && b-'0' >= 10 && b != '-' && b != '_' {
			return false
		}
	}
	return true
}

func (e *encoder) listed(l *store.Listed) {
	e.text(l.Name, maxListed)
	e.truth(l.Selectable)
	e.text(l.Use, maxListed)
	e.text(l.ID, maxID)
}

func (d *decoder) listed() (l store.Listed) {
	l.Name, l.Selectable = d.mailboxName(), d.truth()
	l.Use = d.text(maxListed, "a special use")
	if !printableASCII(l.Use) {
		d.fail(malformed("the special use %.40q", l.Use))
	}
	l.ID = d.objectID(!l.Selectable)
	return l
}

// mailboxName reads a name that is shown to clients.
func (d *decoder) mailboxName() string {
	name := d.text(maxListed, "a mailbox name")
	if name == "" || !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		d.fail(malformed("the mailbox name %.40q", name))
	}
	return name
}

func printableASCII(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r >= 0x7f })
}
