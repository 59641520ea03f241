package vault

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"postilion/store"
)

// The model is a mail store as plain as can be: what the vault answers is compared with it after every step.
type (
	model struct {
		boxes      map[string]*modelBox
		subscribed map[string]bool
		delivered  map[string]bool
	}
	modelBox struct {
		next, recent store.UID
		messages     []modelMessage
	}
	modelMessage struct {
		uid      store.UID
		content  string
		flags    store.Flags
		keywords []string
	}
)

func newModel() *model {
	return &model{boxes: map[string]*modelBox{store.Inbox: {next: 1, recent: 1}}, subscribed: map[string]bool{}, delivered: map[string]bool{}}
}

func (b *modelBox) add(m modelMessage) store.UID {
	m.uid = b.next
	b.next++
	b.messages = append(b.messages, m)
	return m.uid
}

func (b *modelBox) take(set store.UIDSet, want func(m *modelMessage) bool) (taken []modelMessage) {
	b.messages = slices.DeleteFunc(b.messages, func(m modelMessage) bool {
		gone := set.Contains(m.uid) && want(&m)
		if gone {
			taken = append(taken, m)
		}
		return gone
	})
	return taken
}

// brief tells contents apart.
func brief(content []byte) string {
	head, _, _ := bytes.Cut(content, []byte("xx"))
	return fmt.Sprintf("%q, %d octets, %x", head, len(content), crc32.ChecksumIEEE(content))
}

func (b *modelBox) String() string {
	var out strings.Builder
	size, unseen, deleted, recent := 0, 0, 0, 0
	for _, m := range b.messages {
		fmt.Fprintf(&out, "%d %v %v %s\n", m.uid, m.flags, m.keywords, brief([]byte(m.content)))
		size += len(m.content)
		if m.flags&store.FlagSeen == 0 {
			unseen++
		}
		if m.flags&store.FlagDeleted != 0 {
			deleted++
		}
		if m.uid >= b.recent {
			recent++
		}
	}
	fmt.Fprintf(&out, "%d messages, next %d, recent from %d: %d, unseen %d, deleted %d, %d octets\n", len(b.messages), b.next, b.recent, recent, unseen, deleted, size)
	return out.String()
}

// machine drives vault and model side by side.
type machine struct {
	t       *testing.T
	fs      *vfs.MemFS
	store   *opened
	model   *model
	account store.Account
	// handles stay open over several steps, so that changes happen to mailboxes that are loaded and to such that are not.
	handles map[string]store.Mailbox
	number  int
	modSeqs map[string]store.ModSeq
}

func (m *machine) open() {
	m.store = open(m.t, m.fs, "db", Options{ExpungesKept: 3})
	account, err := m.store.Open(context.Background(), store.Owner{User: "alice"})
	if err != nil {
		m.t.Fatal(err)
	}
	m.account, m.handles = account, map[string]store.Mailbox{}
}

func (m *machine) close() {
	for _, handle := range m.handles {
		_ = handle.Close()
	}
	if err := errors.Join(m.account.Close(), m.store.Close()); err != nil {
		m.t.Fatal(err)
	}
}

var modelNames = []string{store.Inbox, "a", "a/b", "a/b/c", "d", "INBOX/x"}

func drawName(r *rapid.T, label string) string { return rapid.SampledFrom(modelNames).Draw(r, label) }

// mailbox returns a handle on a mailbox, nil when model and vault agree that there is none.
func (m *machine) mailbox(r *rapid.T, name string) store.Mailbox {
	if handle := m.handles[name]; handle != nil {
		return handle
	}
	handle, err := m.account.Mailbox(context.Background(), name)
	if m.model.boxes[name] == nil {
		if !errors.Is(err, store.ErrNotFound) {
			r.Fatalf("mailbox %s: %v, should not be there", name, err)
		}
		return nil
	}
	if err != nil {
		r.Fatalf("mailbox %s: %v", name, err)
	}
	m.handles[name] = handle
	return handle
}

func (m *machine) forget(name string) {
	if handle := m.handles[name]; handle != nil {
		_ = handle.Close()
		delete(m.handles, name)
	}
}

func (m *machine) want(r *rapid.T, err error, want error) {
	if !errors.Is(err, want) {
		r.Fatalf("error %v, want %v", err, want)
	}
}

func (m *machine) create(r *rapid.T) {
	name := drawName(r, "name")
	err := m.account.Create(context.Background(), name, "")
	if m.model.boxes[name] != nil {
		m.want(r, err, store.ErrExists)
		return
	}
	m.want(r, err, nil)
	m.model.boxes[name] = &modelBox{next: 1, recent: 1}
}

func (m *machine) delete(r *rapid.T) {
	name := drawName(r, "name")
	err := m.account.Delete(context.Background(), name)
	switch {
	case name == store.Inbox:
		m.want(r, err, store.ErrName)
	case m.model.boxes[name] == nil:
		m.want(r, err, store.ErrNotFound)
	default:
		m.want(r, err, nil)
		delete(m.model.boxes, name)
		m.forget(name)
	}
	delete(m.modSeqs, name)
}

func (m *machine) below(name string) (names []string) {
	for other := range m.model.boxes {
		if strings.HasPrefix(other, name+"/") {
			names = append(names, other)
		}
	}
	return names
}

func (m *machine) rename(r *rapid.T) {
	from, to := drawName(r, "from"), drawName(r, "to")
	err := m.account.Rename(context.Background(), from, to)
	source, below := m.model.boxes[from], m.below(from)
	switch {
	case m.model.boxes[to] != nil || len(m.below(to)) > 0:
		m.want(r, err, store.ErrExists)
	case from == store.Inbox:
		m.want(r, err, nil)
		moved := &modelBox{next: 1, recent: 1}
		for _, message := range source.messages {
			moved.add(message)
		}
		source.messages, m.model.boxes[to] = nil, moved
	case strings.HasPrefix(to, from+"/"):
		m.want(r, err, store.ErrName)
	case source == nil && len(below) == 0:
		m.want(r, err, store.ErrNotFound)
	default:
		m.want(r, err, nil)
		if source != nil {
			below = append(below, from)
		}
		for _, name := range below {
			m.model.boxes[to+name[len(from):]] = m.model.boxes[name]
			delete(m.model.boxes, name)
			m.forget(name)
		}
		m.modSeqs = map[string]store.ModSeq{}
	}
	delete(m.modSeqs, to)
}

func (m *machine) subscribe(r *rapid.T) {
	name, on := drawName(r, "name"), rapid.Bool().Draw(r, "on")
	m.want(r, m.account.Subscribe(context.Background(), name, on), nil)
	delete(m.model.subscribed, name)
	if on {
		m.model.subscribed[name] = true
	}
}

func (m *machine) content(r *rapid.T) string {
	m.number++
	return fmt.Sprintf("Subject: %d\r\n\r\n%s", m.number, strings.Repeat("x", rapid.SampledFrom([]int{0, 10, 2000, chunkSize + 7}).Draw(r, "size")))
}

func (m *machine) deliver(r *rapid.T) {
	content := m.content(r)
	id := fmt.Sprint("id", m.number-rapid.IntRange(0, 3).Draw(r, "again"))
	d := &store.Delivery{ID: id, Content: strings.NewReader(content), AllOrNothing: rapid.Bool().Draw(r, "all or nothing")}
	failed := false
	var names []string
	known := maps(m.model.boxes)
	for i := range rapid.IntRange(1, 3).Draw(r, "targets") {
		name := drawName(r, "target")
		target := store.Target{
			Owner: store.Owner{User: "alice"}, Mailbox: name, Create: rapid.Bool().Draw(r, "create"), SubscribeCreated: rapid.Bool().Draw(r, "subscribe"),
			Prefix: []byte(strings.Repeat(fmt.Sprintf("X-Target: %d\r\n", i), rapid.IntRange(0, 2).Draw(r, "prefix"))), Flags: store.FlagFlagged, Keywords: []string{"delivered"},
		}
		if !known[name] && !target.Create && !m.model.delivered[id+" "+name] {
			failed = true
		} else if !m.model.delivered[id+" "+name] {
			known[name] = true
		}
		d.Targets, names = append(d.Targets, target), append(names, name)
	}
	outcomes, err := m.store.Deliver(context.Background(), d)
	m.want(r, err, nil)
	for i, outcome := range outcomes {
		target, mark := d.Targets[i], id+" "+names[i]
		box := m.model.boxes[names[i]]
		switch {
		case failed && d.AllOrNothing && !m.model.delivered[mark]:
			if outcome.Err == nil || outcome.UID != 0 {
				r.Fatalf("target %d: %+v, another one failed", i, outcome)
			}
		case m.model.delivered[mark]:
			if !outcome.Duplicate || outcome.Err != nil {
				r.Fatalf("target %d: %+v, was delivered before", i, outcome)
			}
		case box == nil && !target.Create:
			m.want(r, outcome.Err, store.ErrNotFound)
		default:
			m.want(r, outcome.Err, nil)
			if box == nil {
				box = &modelBox{next: 1, recent: 1}
				m.model.boxes[names[i]] = box
				if target.SubscribeCreated {
					m.model.subscribed[names[i]] = true
				}
			}
			m.model.delivered[mark] = true
			if uid := box.add(modelMessage{content: string(target.Prefix) + content, flags: target.Flags, keywords: target.Keywords}); uid != outcome.UID {
				r.Fatalf("target %d: UID %d, want %d", i, outcome.UID, uid)
			}
		}
	}
}

func maps(boxes map[string]*modelBox) map[string]bool {
	known := map[string]bool{}
	for name := range boxes {
		known[name] = true
	}
	return known
}

func (m *machine) append(r *rapid.T) {
	name := drawName(r, "name")
	mailbox := m.mailbox(r, name)
	if mailbox == nil {
		return
	}
	var drafts []store.Draft
	var want []store.UID
	for range rapid.IntRange(1, 5).Draw(r, "drafts") {
		content, flags := m.content(r), store.Flags(rapid.IntRange(0, 31).Draw(r, "flags"))
		drafts = append(drafts, store.Draft{Content: strings.NewReader(content), Flags: flags})
		want = append(want, m.model.boxes[name].add(modelMessage{content: content, flags: flags}))
	}
	uids, err := mailbox.Append(context.Background(), drafts)
	m.want(r, err, nil)
	if !slices.Equal(uids, want) {
		r.Fatalf("UIDs %v, want %v", uids, want)
	}
}

func (m *machine) drawSet(r *rapid.T) store.UIDSet {
	first := store.UID(rapid.IntRange(1, 30).Draw(r, "first"))
	set := store.UIDSetRange(first, first+store.UID(rapid.IntRange(0, 9).Draw(r, "length")))
	return set.Add(store.UID(rapid.IntRange(1, 60).Draw(r, "one more")))
}

func (m *machine) flags(r *rapid.T) {
	name := drawName(r, "name")
	mailbox := m.mailbox(r, name)
	if mailbox == nil {
		return
	}
	set := m.drawSet(r)
	change := store.FlagChange{Operation: store.FlagOperation(rapid.IntRange(0, 2).Draw(r, "operation")), Flags: store.Flags(rapid.IntRange(0, 31).Draw(r, "flags"))}
	change.Keywords = rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"k1", "k2", "k3", "k4"}), 0, 3, rapid.ID[string]).Draw(r, "keywords")
	changed, err := mailbox.SetFlags(context.Background(), set, change)
	m.want(r, err, nil)
	var want store.UIDSet
	for i := range m.model.boxes[name].messages {
		message := &m.model.boxes[name].messages[i]
		if !set.Contains(message.uid) {
			continue
		}
		want = want.Add(message.uid)
		message.flags = applyFlags(change.Operation, message.flags, change.Flags)
		keywords := slices.DeleteFunc(slices.Clone(message.keywords), func(k string) bool {
			return change.Operation == store.ReplaceFlags || slices.Contains(change.Keywords, k)
		})
		if change.Operation != store.RemoveFlags {
			keywords = append(keywords, change.Keywords...)
		}
		slices.Sort(keywords)
		message.keywords = keywords
	}
	if changed.Changed.String() != want.String() {
		r.Fatalf("changed %v, want %v", changed.Changed, want)
	}
}

func (m *machine) expunge(r *rapid.T) {
	name := drawName(r, "name")
	mailbox := m.mailbox(r, name)
	if mailbox == nil {
		return
	}
	set, only := m.drawSet(r), rapid.Bool().Draw(r, "only deleted")
	gone, err := mailbox.Expunge(context.Background(), set, only)
	m.want(r, err, nil)
	var want store.UIDSet
	for _, message := range m.model.boxes[name].take(set, func(message *modelMessage) bool { return !only || message.flags&store.FlagDeleted != 0 }) {
		want = want.Add(message.uid)
	}
	if gone.String() != want.String() {
		r.Fatalf("expunged %v, want %v", gone, want)
	}
}

func (m *machine) transfer(r *rapid.T) {
	from, to := drawName(r, "from"), drawName(r, "to")
	source, target := m.mailbox(r, from), m.mailbox(r, to)
	if source == nil || target == nil {
		return
	}
	set := m.drawSet(r)
	var moved []modelMessage
	var copied store.Copied
	var err error
	if rapid.Bool().Draw(r, "move") {
		copied, err = source.Move(context.Background(), set, target)
		moved = m.model.boxes[from].take(set, func(*modelMessage) bool { return true })
	} else {
		copied, err = source.Copy(context.Background(), set, target)
		for _, message := range m.model.boxes[from].messages {
			if set.Contains(message.uid) {
				moved = append(moved, message)
			}
		}
	}
	m.want(r, err, nil)
	var want store.Copied
	for _, message := range moved {
		want.Source = append(want.Source, message.uid)
		want.Target = append(want.Target, m.model.boxes[to].add(message))
	}
	if !slices.Equal(copied.Source, want.Source) || !slices.Equal(copied.Target, want.Target) {
		r.Fatalf("copied %+v, want %+v", copied, want)
	}
}

func (m *machine) recent(r *rapid.T) {
	name := drawName(r, "name")
	mailbox := m.mailbox(r, name)
	if mailbox == nil {
		return
	}
	first, err := mailbox.TakeRecent(context.Background())
	m.want(r, err, nil)
	if box := m.model.boxes[name]; first != box.recent {
		r.Fatalf("recent from %d, want %d", first, box.recent)
	} else {
		box.recent = box.next
	}
}

func (m *machine) reopen(r *rapid.T) {
	after := m.fs
	if rapid.Bool().Draw(r, "power cut") {
		after = crashClone(m.fs, rand.New(rand.NewPCG(rapid.Uint64().Draw(r, "seed"), 1)))
	}
	m.close()
	m.fs = after
	m.open()
	consistent(m.t, m.store.Store)
}

func (m *machine) letGo(r *rapid.T) { m.forget(drawName(r, "name")) }

// compare wants every mailbox to be as the model says, read through a handle that is open or through a new one.
func (m *machine) compare(r *rapid.T) {
	for name, box := range m.model.boxes {
		mailbox, fresh := m.handles[name], false
		if mailbox == nil {
			mailbox, fresh = m.mailbox(r, name), true
		}
		if got, want := m.read(r, mailbox, name), box.String(); got != want {
			r.Fatalf("mailbox %s holds\n%s\nwant\n%s", name, got, want)
		}
		if fresh {
			m.forget(name)
		}
	}
	listed, err := m.account.List(context.Background())
	m.want(r, err, nil)
	selectable := 0
	for _, l := range listed {
		if l.Selectable {
			selectable++
		}
	}
	if selectable != len(m.model.boxes) {
		r.Fatalf("%d mailboxes, want %d", selectable, len(m.model.boxes))
	}
	subscribed, err := m.account.Subscriptions(context.Background())
	m.want(r, err, nil)
	if len(subscribed) != len(m.model.subscribed) || slices.ContainsFunc(subscribed, func(name string) bool { return !m.model.subscribed[name] }) {
		r.Fatalf("subscribed %v, want %v", subscribed, m.model.subscribed)
	}
}

func (m *machine) read(r *rapid.T, mailbox store.Mailbox, name string) string {
	view, err := mailbox.View(context.Background())
	m.want(r, err, nil)
	if view.HighestModSeq() < m.modSeqs[name] {
		r.Fatalf("HIGHESTMODSEQ of %s fell from %d to %d", name, m.modSeqs[name], view.HighestModSeq())
	}
	m.modSeqs[name] = view.HighestModSeq()
	var out bytes.Buffer
	for i := range view.Len() {
		e := view.Entry(i)
		keywords := strings.FieldsFunc(namesFor(view, e), func(c rune) bool { return c == ',' })
		body, err := mailbox.Open(context.Background(), e.UID)
		m.want(r, err, nil)
		content := make([]byte, body.Size())
		_, _ = body.ReadAt(content, 0)
		_ = body.Close()
		fmt.Fprintf(&out, "%d %v %v %s\n", e.UID, e.Flags, keywords, brief(content))
	}
	s, err := m.account.Status(context.Background(), name)
	m.want(r, err, nil)
	fmt.Fprintf(&out, "%d messages, next %d, recent from %d: %d, unseen %d, deleted %d, %d octets\n", s.Messages, s.UIDNext, view.FirstRecent(), s.Recent, s.Unseen, s.Deleted, s.Size)
	gone := view.ExpungedSince(0)
	for uid := range gone.All() {
		if _, there := view.Index(uid); there {
			r.Fatalf("UID %d is there and told as expunged", uid)
		}
	}
	if gone.Count()+uint64(view.Len()) != uint64(view.UIDNext())-1 {
		r.Fatalf("%d present, %v expunged, next %d", view.Len(), gone, view.UIDNext())
	}
	return out.String()
}

func TestAgainstModel(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		m := &machine{t: t, fs: vfs.NewCrashableMem(), model: newModel(), modSeqs: map[string]store.ModSeq{}}
		m.open()
		defer m.close()
		r.Repeat(map[string]func(*rapid.T){
			"": m.compare, "create": m.create, "delete": m.delete, "rename": m.rename, "subscribe": m.subscribe, "deliver": m.deliver, "append": m.append,
			"append more": m.append, "flags": m.flags, "expunge": m.expunge, "transfer": m.transfer, "recent": m.recent, "reopen": m.reopen, "let go": m.letGo,
		})
	})
}
