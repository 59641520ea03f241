package maildir

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"sync"

	"postilion/mail/message"
	"postilion/store"
)

// mailbox implements store.Mailbox.
type mailbox struct {
	account *account
	name    string
	folder  *folder
	closing sync.Once
}

func (m *mailbox) Name() string { return m.name }

func (m *mailbox) Close() error {
	m.closing.Do(func() { m.account.store.release(m.folder) })
	return nil
}

func (m *mailbox) fail(operation string, err error) error {
	return failure(operation, m.account.owner.User, m.name, err)
}

func failure(operation, user, mailbox string, err error) error {
	if err == nil {
		return nil
	}
	return &store.Error{Operation: operation, User: user, Mailbox: mailbox, Err: err}
}

// do runs fn with the folder locked and up to date.
func (m *mailbox) do(ctx context.Context, operation string, fn func(f *folder) error) error {
	end, err := m.account.store.begin(ctx)
	if err != nil {
		return m.fail(operation, err)
	}
	defer end()
	m.folder.mu.Lock()
	defer m.folder.mu.Unlock()
	if err := m.folder.refresh(ctx); err != nil {
		return m.fail(operation, err)
	}
	return m.fail(operation, fn(m.folder))
}

// read runs fn over a message. The folder is read again only when the message is not known or its file is not where it was: a reader needs
// no lock, however busy the folder is.
func (m *mailbox) read(ctx context.Context, uid store.UID, fn func(f *folder) error) error {
	end, err := m.account.store.begin(ctx)
	if err != nil {
		return m.fail("read", err)
	}
	defer end()
	m.folder.mu.Lock()
	defer m.folder.mu.Unlock()
	if f := m.folder; !f.loaded || f.gone || f.find(uid) == nil {
		if err := f.refresh(ctx); err != nil {
			return m.fail("read", err)
		}
	}
	return m.fail("read", fn(m.folder))
}

func (m *mailbox) View(ctx context.Context) (store.View, error) {
	var current *view
	if err := m.do(ctx, "open", func(f *folder) error { current = f.current; return nil }); err != nil {
		return nil, err
	}
	return current, nil
}

func (m *mailbox) Open(ctx context.Context, uid store.UID) (store.Body, error) {
	var opened *body
	err := m.read(ctx, uid, func(f *folder) error {
		err := f.withFile(ctx, uid, func(_ *stored, path string) (err error) {
			opened, err = f.store.disk.openBody(path)
			return err
		})
		if err == nil {
			err = f.correctSize(ctx, uid, opened.size)
		}
		return err
	})
	if err != nil && opened != nil {
		_ = opened.Close()
	}
	if err != nil {
		return nil, err
	}
	return opened, nil
}

// correctSize notes the size of a message that was read, where its file's name or the UID list told another.
func (f *folder) correctSize(ctx context.Context, uid store.UID, size int64) error {
	if m := f.find(uid); m == nil || m.size == size {
		return nil
	}
	return f.update(ctx, func(c *tx) error {
		if m := f.find(uid); m != nil {
			next := *m
			next.size = size
			f.put(&next)
			c.line(messageLine(uid, f.remember(&next)))
			c.touched = true
		}
		return nil
	})
}

// withFile calls fn with the path of a message. When the file is not there any more, the folder is read again: another program
// may have renamed it.
func (f *folder) withFile(ctx context.Context, uid store.UID, fn func(m *stored, path string) error) error {
	for attempt := 0; ; attempt++ {
		m := f.find(uid)
		if m == nil {
			return store.ErrExpunged
		}
		err := fn(m, m.path(f))
		if !errors.Is(err, fs.ErrNotExist) || attempt == 4 {
			return err
		}
		f.curStamp, f.newStamp = dirStamp{}, dirStamp{}
		if err := f.refresh(ctx); err != nil {
			return err
		}
	}
}

func (m *mailbox) Structure(ctx context.Context, uid store.UID) (*message.Message, error) {
	var structure *message.Message
	err := m.read(ctx, uid, func(f *folder) error {
		for _, p := range f.parsed {
			if p.uid == uid {
				structure = p.structure
				return nil
			}
		}
		return f.withFile(ctx, uid, func(_ *stored, path string) error {
			b, err := f.store.disk.openBody(path)
			if err != nil {
				return err
			}
			parser := message.NewParser(message.Limits{})
			_, err = io.Copy(parser, io.NewSectionReader(b, 0, b.size))
			if err = errors.Join(err, b.Close()); err != nil {
				return err
			}
			structure = parser.Finish()
			if len(f.parsed) >= maxParsed {
				f.parsed = slices.Delete(f.parsed, 0, 1)
			}
			f.parsed = append(f.parsed, parsedMessage{uid, structure})
			return nil
		})
	})
	return structure, err
}

func (m *mailbox) Append(ctx context.Context, drafts []store.Draft) ([]store.UID, error) {
	uids := make([]store.UID, 0, len(drafts))
	if len(drafts) == 0 {
		return uids, nil
	}
	end, err := m.account.store.begin(ctx)
	if err != nil {
		return nil, m.fail("append", err)
	}
	defer end()
	files := make([]*draftFile, 0, len(drafts))
	defer func() {
		for _, file := range files {
			_ = m.account.store.disk.files.Remove(file.path)
		}
	}()
	total := int64(0)
	for _, d := range drafts {
		if err := checkKeywords(d.Keywords); err != nil {
			return nil, m.fail("append", err)
		}
		if !m.folder.store.disk.isDir(filepath.Join(m.folder.paths.mail, "cur")) {
			return nil, m.fail("append", store.ErrNotFound)
		}
		file, err := m.folder.write(nil, d.Content, d.InternalDate, "")
		if err != nil {
			return nil, m.fail("append", m.folder.vanished(err))
		}
		files = append(files, file)
		total += file.size
	}
	free, err := m.account.reserve(ctx, m.name, total, int64(len(drafts)))
	if err != nil {
		return nil, m.fail("append", err)
	}
	defer free()
	m.folder.mu.Lock()
	defer m.folder.mu.Unlock()
	err = m.folder.updateKnown(ctx, func(c *tx) error {
		for i, file := range files {
			uid, err := m.folder.place(c, arrival{
				path: file.path, base: file.base, size: file.size, date: file.date, flags: drafts[i].Flags, keywords: drafts[i].Keywords,
			})
			if err != nil {
				return err
			}
			uids = append(uids, uid)
		}
		return nil
	})
	if err != nil {
		return nil, m.fail("append", m.folder.vanished(err))
	}
	return uids, nil
}

func (m *mailbox) SetFlags(ctx context.Context, uids store.UIDSet, change store.FlagChange) (store.FlagsChanged, error) {
	var result store.FlagsChanged
	end, err := m.account.store.begin(ctx)
	if err == nil {
		defer end()
		err = checkKeywords(change.Keywords)
	}
	if err != nil {
		return result, m.fail("set flags", err)
	}
	f := m.folder
	f.mu.Lock()
	defer f.mu.Unlock()
	err = f.withFiles(ctx, uids, func(c *tx, uids store.UIDSet) (missing store.UIDSet, err error) {
		part, missing, err := f.setFlags(c, uids, change)
		for _, r := range part.Changed {
			result.Changed = result.Changed.AddRange(r.First, r.Last)
		}
		for _, r := range part.Modified {
			result.Modified = result.Modified.AddRange(r.First, r.Last)
		}
		result.ModSeq = max(result.ModSeq, part.ModSeq)
		return missing, err
	})
	if err != nil {
		return store.FlagsChanged{}, m.fail("set flags", err)
	}
	return result, nil
}

// withFiles runs fn over messages, and once more, after the folder was read again, over those whose files were not where they should be: another
// program renamed or removed them.
func (f *folder) withFiles(ctx context.Context, uids store.UIDSet, fn func(c *tx, uids store.UIDSet) (missing store.UIDSet, err error)) error {
	if err := f.refresh(ctx); err != nil || !f.holdsAny(uids) {
		return err
	}
	update := f.updateKnown
	for range 5 {
		var missing store.UIDSet
		err := update(ctx, func(c *tx) (err error) {
			missing, err = fn(c, uids)
			return err
		})
		if err != nil || len(missing) == 0 {
			return err
		}
		uids, update = missing, f.update
		f.newStamp, f.curStamp = dirStamp{}, dirStamp{}
	}
	return nil
}

func (f *folder) holdsAny(uids store.UIDSet) bool {
	for range f.among(uids) {
		return true
	}
	return false
}

func (m *mailbox) Expunge(ctx context.Context, uids store.UIDSet, onlyDeleted bool) (store.UIDSet, error) {
	var gone store.UIDSet
	end, err := m.account.store.begin(ctx)
	if err != nil {
		return nil, m.fail("expunge", err)
	}
	defer end()
	f := m.folder
	f.mu.Lock()
	defer f.mu.Unlock()
	err = f.withFiles(ctx, uids, func(c *tx, uids store.UIDSet) (store.UIDSet, error) {
		part, missing, err := f.expunge(c, uids, onlyDeleted)
		for _, r := range part {
			gone = gone.AddRange(r.First, r.Last)
		}
		return missing, err
	})
	if err != nil {
		return nil, m.fail("expunge", err)
	}
	return gone, nil
}

func (m *mailbox) TakeRecent(ctx context.Context) (store.UID, error) {
	var first store.UID
	err := m.do(ctx, "select", func(f *folder) error {
		first = f.recent
		if f.recent == f.next && !slices.ContainsFunc(f.messages, func(m *stored) bool { return m.inNew }) {
			return nil
		}
		return f.update(ctx, func(c *tx) error {
			first = f.recent
			return f.takeRecent(c)
		})
	})
	return first, err
}

func (m *mailbox) Subscribe(fn func()) (cancel func()) {
	f := m.folder
	f.mu.Lock()
	defer f.mu.Unlock()
	f.watched++
	id := f.watched
	if f.watchers == nil {
		f.watchers = map[uint64]func(){}
	}
	f.watchers[id] = fn
	m.account.store.watch(f)
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.watchers, id)
	}
}

func checkKeywords(names []string) error {
	for _, name := range names {
		if err := checkKeyword(name); err != nil {
			return err
		}
	}
	return nil
}
