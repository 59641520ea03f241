package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"postilion/mail/message"
	"postilion/store"
)

// mailbox implements store.Mailbox.
type mailbox struct {
	account *account
	client  *Client
	id      uint64
	name    string

	// viewing holds a word while a View is asked for.
	viewing chan struct{}
	// mu guards current, which is the last View, and closed.
	mu      sync.Mutex
	current *view
	closed  bool

	// watching guards the subscribers.
	watching sync.Mutex
	watchers map[uint64]func()
	watched  uint64
}

func newMailbox(a *account, id uint64, name string) *mailbox {
	return &mailbox{account: a, client: a.client, id: id, name: name, viewing: make(chan struct{}, 1)}
}

func (m *mailbox) Name() string { return m.name }

func (m *mailbox) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil
	}
	m.closed = true
	if m.current != nil {
		m.client.recent.release(m.key(), m.current.content)
		m.current = nil
	}
	m.client.link.mu.Lock()
	delete(m.client.mailboxes, m.id)
	m.client.link.queue(kindDrop, m.id, nil)
	m.client.link.mu.Unlock()
	return nil
}

func (m *mailbox) begin(ctx context.Context, op operation) (*call, error) {
	k, err := m.client.begin(ctx, op, m.account.owner.User, m.name)
	if err == nil {
		k.out.number(m.id)
	}
	return k, err
}

// do makes a call about the mailbox: ask writes the request after the mailbox's id, read reads the answer. Either may be nil.
func (m *mailbox) do(ctx context.Context, op operation, ask func(e *encoder), read func(d *decoder) error) (err error) {
	k, err := m.begin(ctx, op)
	defer k.end(&err)
	if err != nil {
		return err
	}
	if ask != nil {
		ask(&k.out)
	}
	if err := k.answer(); err != nil {
		return err
	}
	if read != nil {
		if err := read(&k.in); err != nil {
			return err
		}
	}
	return k.in.finish()
}

func (m *mailbox) Structure(ctx context.Context, uid store.UID) (*message.Message, error) {
	var structure *message.Message
	err := m.do(ctx, opStructure, func(e *encoder) { e.number(uint64(uid)) }, func(d *decoder) error {
		structure = d.structure()
		return nil
	})
	if err != nil || structure != nil {
		return structure, err
	}
	return m.parse(ctx, uid)
}

// parse makes the structure of a message whose structure is too large to travel.
func (m *mailbox) parse(ctx context.Context, uid store.UID) (*message.Message, error) {
	body, err := m.Open(ctx, uid)
	if err != nil {
		return nil, err
	}
	parser := message.NewParser(message.Limits{})
	_, err = io.Copy(parser, io.NewSectionReader(body, 0, body.Size()))
	if err = errors.Join(err, body.Close()); err != nil {
		return nil, &store.Error{Operation: opStructure.String(), User: m.account.owner.User, Mailbox: m.name, Err: err}
	}
	return parser.Finish(), nil
}

func (m *mailbox) Append(ctx context.Context, drafts []store.Draft) (uids []store.UID, err error) {
	if len(drafts) > maxDrafts {
		return nil, fmt.Errorf("%w: %d messages in one step", store.ErrTooMany, len(drafts))
	}
	err = m.do(ctx, opAppend, func(e *encoder) {
		e.number(uint64(len(drafts)))
		for i := range drafts {
			d := &drafts[i]
			e.octet(byte(d.Flags))
			e.keywords(d.Keywords)
			e.time(d.InternalDate)
			e.structure(d.Structure)
			e.content(d.Content)
		}
	}, func(d *decoder) error {
		if uids = d.uids(); len(uids) != len(drafts) {
			d.fail(malformed("%d UIDs for %d messages", len(uids), len(drafts)))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return uids, nil
}

func (m *mailbox) Copy(ctx context.Context, uids store.UIDSet, target store.Mailbox) (store.Copied, error) {
	return m.transfer(ctx, opCopy, uids, target)
}

func (m *mailbox) Move(ctx context.Context, uids store.UIDSet, target store.Mailbox) (store.Copied, error) {
	return m.transfer(ctx, opMove, uids, target)
}

func (m *mailbox) transfer(ctx context.Context, op operation, uids store.UIDSet, target store.Mailbox) (copied store.Copied, err error) {
	t, ok := target.(*mailbox)
	if !ok || t.client != m.client {
		return copied, &store.Error{Operation: op.String(), User: m.account.owner.User, Mailbox: m.name, Err: store.ErrOtherAccount}
	}
	err = m.do(ctx, op, func(e *encoder) {
		e.number(t.id)
		e.set(uids)
	}, func(d *decoder) error {
		copied.UIDValidity = uint32(d.below(1<<32-1, "a UIDVALIDITY"))
		copied.Source, copied.Target = d.uids(), d.uids()
		if len(copied.Source) != len(copied.Target) {
			d.fail(malformed("%d messages became %d", len(copied.Source), len(copied.Target)))
		}
		for _, uid := range copied.Source {
			if !uids.Contains(uid) {
				d.fail(malformed("UID %d, which was not asked for", uid))
			}
		}
		return nil
	})
	if err != nil {
		return store.Copied{}, err
	}
	return copied, nil
}

func (m *mailbox) SetFlags(ctx context.Context, uids store.UIDSet, change store.FlagChange) (changed store.FlagsChanged, err error) {
	err = m.do(ctx, opSetFlags, func(e *encoder) {
		e.set(uids)
		e.number(uint64(change.Operation))
		e.octet(byte(change.Flags))
		e.keywords(change.Keywords)
		if e.truth(change.UnchangedSince != nil); change.UnchangedSince != nil {
			e.number(uint64(min(*change.UnchangedSince, 1<<63-1)))
		}
	}, func(d *decoder) error {
		changed = store.FlagsChanged{Changed: d.set(), Modified: d.set(), ModSeq: d.modSeq()}
		return nil
	})
	if err != nil {
		return store.FlagsChanged{}, err
	}
	return changed, nil
}

func (m *mailbox) Expunge(ctx context.Context, uids store.UIDSet, onlyDeleted bool) (gone store.UIDSet, err error) {
	err = m.do(ctx, opExpunge, func(e *encoder) {
		e.set(uids)
		e.truth(onlyDeleted)
	}, func(d *decoder) error {
		gone = d.set()
		return nil
	})
	if err != nil {
		return nil, err
	}
	return gone, nil
}

func (m *mailbox) TakeRecent(ctx context.Context) (first store.UID, err error) {
	err = m.do(ctx, opTakeRecent, nil, func(d *decoder) error {
		if first = d.uid(); first == 0 {
			d.fail(malformed("the first recent UID is 0"))
		}
		return nil
	})
	return first, err
}

// Subscribe asks the far side to tell of changes when it was not asked yet. When it cannot be asked, the connection is lost or about to be, which
// the subscriber is told of too.
func (m *mailbox) Subscribe(fn func()) (cancel func()) {
	m.watching.Lock()
	m.watched++
	id := m.watched
	if m.watchers == nil {
		m.watchers = map[uint64]func(){}
	}
	m.watchers[id] = fn
	m.watching.Unlock()
	m.client.link.mu.Lock()
	m.client.mailboxes[m.id] = m
	m.client.link.mu.Unlock()
	ctx, done := m.client.timeout()
	defer done()
	if err := m.do(ctx, opWatch, nil, nil); err != nil {
		// Whoever looks at the mailbox next learns why.
		m.tell()
	}
	return func() {
		m.watching.Lock()
		defer m.watching.Unlock()
		delete(m.watchers, id)
	}
}

// tell calls the subscribers.
func (m *mailbox) tell() {
	m.watching.Lock()
	defer m.watching.Unlock()
	for _, fn := range m.watchers {
		fn()
	}
}
