package maildir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"postilion/store"
)

// account implements store.Account.
type account struct {
	store *Store
	root  *root
	owner store.Owner
}

func (a *account) User() string { return a.owner.User }

func (a *account) Close() error { return nil }

func (a *account) fail(operation, mailbox string, err error) error {
	return failure(operation, a.owner.User, mailbox, err)
}

// do runs fn as one operation.
func (a *account) do(ctx context.Context, operation, mailbox string, fn func() error) error {
	end, err := a.store.begin(ctx)
	if err != nil {
		return a.fail(operation, mailbox, err)
	}
	defer end()
	return a.fail(operation, mailbox, fn())
}

func (a *account) List(ctx context.Context) ([]store.Listed, error) {
	var listed []store.Listed
	err := a.do(ctx, "list", "", func() error {
		names, err := a.root.mailboxes()
		if err != nil {
			return err
		}
		uses, err := a.root.specialUses()
		if err != nil {
			return err
		}
		for _, name := range names {
			id, err := a.root.mailboxID(ctx, name)
			if errors.Is(err, store.ErrNotFound) {
				continue
			}
			if err != nil {
				return err
			}
			listed = append(listed, store.Listed{Name: name, Selectable: true, Use: uses[name], ID: id})
		}
		for _, name := range levels(names) {
			listed = append(listed, store.Listed{Name: name})
		}
		return nil
	})
	return listed, err
}

func (a *account) subscriptionsPath() string {
	return filepath.Join(a.root.location.control, subscriptionsName)
}

func (a *account) Subscriptions(ctx context.Context) ([]string, error) {
	var names []string
	err := a.do(ctx, "read subscriptions", "", func() error {
		text, _, err := a.store.disk.readLimited(a.subscriptionsPath())
		names = parseSubscriptions(text, a.root.location).names
		return err
	})
	return names, err
}

func (a *account) Subscribe(ctx context.Context, name string, subscribed bool) error {
	return a.do(ctx, "subscribe", name, func() error { return a.subscribe(ctx, name, subscribed) })
}

func (a *account) subscribe(ctx context.Context, name string, subscribed bool) error {
	if subscribed {
		if err := a.root.location.checkName(name); err != nil {
			return err
		}
	}
	a.root.names.Lock()
	defer a.root.names.Unlock()
	owner := a.root.ownership()
	lock, err := a.root.disk().lock(ctx, a.subscriptionsPath(), a.store.options.LockTimeout, owner)
	if err != nil {
		return err
	}
	defer lock.unlock()
	text, _, err := a.store.disk.readLimited(a.subscriptionsPath())
	if err != nil {
		return err
	}
	s := parseSubscriptions(text, a.root.location)
	if slices.Contains(s.names, name) == subscribed {
		return nil
	}
	if subscribed {
		s.names = append(s.names, name)
	} else {
		s.names = slices.DeleteFunc(s.names, func(known string) bool { return known == name })
	}
	return a.root.disk().replace(a.subscriptionsPath(), s.format(a.root.location), owner)
}

func (a *account) Create(ctx context.Context, name, use string) error {
	return a.do(ctx, "create", name, func() error { return a.create(ctx, name, use) })
}

func (a *account) create(ctx context.Context, name, use string) error {
	if name == store.Inbox {
		return store.ErrExists
	}
	if err := a.root.location.checkName(name); err != nil {
		return err
	}
	if strings.ContainsAny(use, "\t\n") {
		return fmt.Errorf("special use %q contains a control character", use)
	}
	a.root.names.Lock()
	defer a.root.names.Unlock()
	if a.root.exists(name) {
		return store.ErrExists
	}
	lock, err := a.lockForCreation(ctx, name)
	if err != nil {
		return err
	}
	defer lock.unlock()
	if a.root.exists(name) {
		// Another process was quicker.
		return store.ErrExists
	}
	if use != "" {
		uses, err := a.root.specialUses()
		if err != nil {
			return err
		}
		uses[name] = use
		if err := a.root.writeSpecialUses(uses); err != nil {
			return err
		}
	}
	return a.root.makeFolder(name, true)
}

// lockForCreation makes the mailbox's directory and takes the lock of its UID list, so that two processes do not both give it one.
func (a *account) lockForCreation(ctx context.Context, name string) (held, error) {
	p, owner := a.root.location.paths(name), a.root.ownership()
	for _, dir := range []string{p.mail, p.control} {
		if err := a.store.disk.mkdirAll(dir, owner); err != nil {
			return held{}, err
		}
	}
	return a.store.disk.lock(ctx, filepath.Join(p.control, uidListName), a.store.options.LockTimeout, owner)
}

// checkExisting refuses names that no mailbox can have and those that none has.
func (a *account) checkExisting(name string) error {
	if name != store.Inbox && (a.root.location.checkName(name) != nil || !a.root.exists(name)) {
		return store.ErrNotFound
	}
	return nil
}

func (a *account) Delete(ctx context.Context, name string) error {
	return a.do(ctx, "delete", name, func() error {
		if name == store.Inbox {
			return fmt.Errorf("%w: INBOX cannot be deleted", store.ErrName)
		}
		a.root.names.Lock()
		defer a.root.names.Unlock()
		if err := a.checkExisting(name); err != nil {
			return err
		}
		uses, err := a.root.specialUses()
		if err != nil {
			return err
		}
		p := a.root.location.paths(name)
		f := a.store.acquire(a.root, p)
		defer a.store.release(f)
		f.mu.Lock()
		defer f.mu.Unlock()
		if err := a.root.trash(p); err != nil {
			return err
		}
		a.store.retire(f)
		if _, ok := uses[name]; ok {
			delete(uses, name)
			return a.root.writeSpecialUses(uses)
		}
		return nil
	})
}

// trash takes a mailbox's directories out of sight, cur first, and then removes them. Directories of mailboxes below it stay.
func (r *root) trash(p folderPaths) error {
	bin := filepath.Join(r.location.path, trashPrefix+randomHex(8))
	if !r.location.fs {
		if err := r.disk().rename(p.mail, bin); err != nil {
			return err
		}
	} else {
		if err := r.disk().mkdirAll(bin, r.ownership()); err != nil {
			return err
		}
		for _, part := range []string{"cur", "new", "tmp"} {
			if err := r.disk().rename(filepath.Join(p.mail, part), filepath.Join(bin, part)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	if err := r.disk().syncDir(filepath.Dir(bin)); err != nil {
		return err
	}
	for _, dir := range []string{p.mail, p.control, p.index} {
		if dir == "" || (dir == p.mail && !r.location.fs) {
			continue
		}
		for _, file := range []string{uidListName, keywordsName, journalName, "maildirfolder"} {
			if err := r.disk().remove(filepath.Join(dir, file)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		r.prune(dir)
	}
	return r.disk().removeAll(bin)
}

// prune removes directories that became empty, upward to the root.
func (r *root) prune(dir string) {
	for _, top := range []string{r.location.path, r.location.control, r.location.index} {
		for at := dir; at != top && within(at, top); at = filepath.Dir(at) {
			if r.disk().remove(at) != nil {
				return
			}
		}
	}
}

func (a *account) Status(ctx context.Context, name string) (store.Status, error) {
	var status store.Status
	err := a.do(ctx, "status", name, func() error {
		if err := a.checkExisting(name); err != nil {
			return err
		}
		current, err := a.look(ctx, name)
		if err == nil {
			status = current.status()
		}
		return err
	})
	return status, err
}

// look returns the present view of a mailbox.
func (a *account) look(ctx context.Context, name string) (*view, error) {
	f := a.store.acquire(a.root, a.root.location.paths(name))
	defer a.store.release(f)
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.refresh(ctx); err != nil {
		return nil, err
	}
	return f.current, nil
}

func (a *account) Mailbox(ctx context.Context, name string) (store.Mailbox, error) {
	var m *mailbox
	err := a.do(ctx, "open", name, func() error {
		if err := a.checkExisting(name); err != nil {
			return err
		}
		m = a.handle(name)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return m, nil
}

func (a *account) handle(name string) *mailbox {
	return &mailbox{account: a, name: name, folder: a.store.acquire(a.root, a.root.location.paths(name))}
}

func (a *account) Rename(ctx context.Context, from, to string) error {
	return a.do(ctx, "rename", from, func() error {
		if to == store.Inbox {
			return store.ErrExists
		}
		if err := a.root.location.checkName(to); err != nil {
			return err
		}
		if from == store.Inbox {
			return a.renameInbox(ctx, to)
		}
		if strings.HasPrefix(to, from+"/") {
			return nameError(to, "lies below the mailbox that is renamed")
		}
		a.root.names.Lock()
		defer a.root.names.Unlock()
		return a.rename(from, to)
	})
}

// renameInbox moves all messages to a new mailbox.
func (a *account) renameInbox(ctx context.Context, to string) error {
	if err := a.create(ctx, to, ""); err != nil {
		return err
	}
	source, target := a.handle(store.Inbox), a.handle(to)
	_, err := source.transfer(ctx, store.AllUIDs(), target, true)
	return errors.Join(err, source.Close(), target.Close())
}

func (a *account) rename(from, to string) error {
	names, err := a.root.mailboxes()
	if err != nil {
		return err
	}
	all := append(levels(names), names...)
	if slices.Contains(all, to) {
		return store.ErrExists
	}
	moved := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return name != from && !strings.HasPrefix(name, from+"/") })
	if len(moved) == 0 {
		return store.ErrNotFound
	}
	var folders []*folder
	for _, name := range moved {
		renamed := to + name[len(from):]
		if err := a.root.location.checkName(renamed); err != nil {
			return err
		}
		f := a.store.acquire(a.root, a.root.location.paths(name))
		defer a.store.release(f)
		folders = append(folders, f)
	}
	defer lockFolders(folders...)()
	if err := a.root.renameDirs(moved, from, to); err != nil {
		return err
	}
	a.store.retire(folders...)
	uses, err := a.root.specialUses()
	if err != nil {
		return err
	}
	changed := false
	for _, name := range moved {
		if use, ok := uses[name]; ok {
			delete(uses, name)
			uses[to+name[len(from):]] = use
			changed = true
		}
	}
	if changed {
		return a.root.writeSpecialUses(uses)
	}
	return nil
}

// renameDirs renames the directories of the mailboxes; in layout fs the one that holds them all. What was renamed is renamed back when
// a later one fails.
func (r *root) renameDirs(moved []string, from, to string) (err error) {
	type step struct{ from, to string }
	var steps []step
	for _, top := range slices.Compact([]string{r.location.path, r.location.control, r.location.index}) {
		if r.location.fs {
			steps = append(steps, step{filepath.Join(top, r.location.encode(from)), filepath.Join(top, r.location.encode(to))})
			continue
		}
		for _, name := range moved {
			steps = append(steps, step{filepath.Join(top, r.location.relative(name)), filepath.Join(top, r.location.relative(to+name[len(from):]))})
		}
	}
	var done []step
	defer func() {
		if err == nil {
			return
		}
		for _, s := range slices.Backward(done) {
			err = errors.Join(err, r.disk().rename(s.to, s.from))
		}
	}()
	for _, s := range steps {
		if !r.disk().isDir(s.from) || slices.Contains(done, s) {
			continue
		}
		if err := r.disk().mkdirAll(filepath.Dir(s.to), r.ownership()); err != nil {
			return err
		}
		if err := r.clearHalfMade(s.to); err != nil {
			return err
		}
		if err := r.disk().rename(s.from, s.to); err != nil {
			return err
		}
		done = append(done, s)
	}
	for _, s := range done {
		if err := r.disk().syncDir(filepath.Dir(s.to)); err != nil {
			return err
		}
		if filepath.Dir(s.from) != filepath.Dir(s.to) {
			r.prune(filepath.Dir(s.from))
		}
	}
	return nil
}
