package maildir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"postilion/store"
)

// among yields the messages that are in the set.
func (f *folder) among(uids store.UIDSet) iter.Seq[*stored] {
	messages := f.messages
	return func(yield func(*stored) bool) {
		for _, r := range uids {
			i, _ := searchUID(messages, r.First)
			for ; i < len(messages) && messages[i].uid <= r.Last; i++ {
				if !yield(messages[i]) {
					return
				}
			}
		}
	}
}

// arrival is a file that becomes a message of a folder.
type arrival struct {
	// path is where it lies: it is renamed, or linked when keep is set.
	path string
	keep bool
	base string
	// guid is the global identifier when it is not the base name.
	guid     string
	size     int64
	flags    store.Flags
	keywords []string
	// date is the file's, the zero time when it is not known.
	date time.Time
}

// place gives an arrival its place in new/, or in cur/ when it has flags.
func (f *folder) place(c *tx, a arrival) (store.UID, error) {
	if f.next+1 == 0 {
		return 0, fmt.Errorf("%w: all UIDs of %s are used up", store.ErrTooMany, f.paths.mail)
	}
	letters, numbers, err := f.assign(a.keywords)
	if err != nil {
		return 0, err
	}
	m := &stored{uid: f.next, flags: a.flags, keywords: numbers, base: a.base, name: a.base, size: a.size, saved: time.Now().Unix(), guid: a.guid}
	if m.inNew = a.flags == 0 && len(letters) == 0; !m.inNew {
		m.name = fileName{base: a.base}.withFlags(a.flags, letters).String()
	}
	entry := uidEntry{uid: m.uid, base: a.base}
	if m.guid == "" {
		m.guid = a.base
	} else {
		entry.extensions = "G" + a.guid
	}
	if _, ok := sizeIn(a.base, 'W'); !ok {
		entry.extensions = strings.TrimSpace("W" + number(uint64(a.size)) + " " + entry.extensions)
	}
	m.email = emailID(m.guid)
	target := m.path(f)
	if err := f.store.bring(a.path, target, a.keep, f.root.ownership()); err != nil {
		return 0, err
	}
	c.undo = append(c.undo, func() {
		if a.keep || f.store.disk.rename(target, a.path) != nil {
			_ = f.store.disk.remove(target)
		}
	})
	if m.date = a.date; m.date.IsZero() {
		info, err := f.store.disk.files.Stat(target)
		if err != nil {
			return 0, err
		}
		m.date = info.ModTime()
	}
	f.next++
	m.modseq = c.next()
	f.listed[a.base] = entry
	c.records = append(c.records, entry)
	c.moved(filepath.Base(filepath.Dir(target)))
	f.put(m)
	r := f.remember(m)
	c.line(messageLine(m.uid, r))
	c.durable = c.durable || len(r.more) > 0
	return m.uid, nil
}

// bring gives the file at from the name to, in one step where the file system can, else by a copy in the tmp/ beside.
func (s *Store) bring(from, to string, keep bool, owner ownership) error {
	var err error
	switch {
	case !keep:
		err = s.disk.rename(from, to)
	case s.options.NoHardLinks:
		err = syscall.EXDEV
	default:
		err = s.disk.link(from, to)
	}
	if !errors.Is(err, syscall.EXDEV) && !errors.Is(err, syscall.EPERM) && !errors.Is(err, syscall.EMLINK) {
		return err
	}
	content, info, err := s.disk.readLimited(from)
	if err != nil {
		return err
	}
	if info == nil {
		return fs.ErrNotExist
	}
	temporary := filepath.Join(filepath.Dir(filepath.Dir(to)), "tmp", s.names.next(""))
	if err = s.disk.writeFile(temporary, content, owner); err == nil {
		err = s.disk.files.Chtimes(temporary, info.ModTime())
	}
	if err == nil {
		err = s.disk.rename(temporary, to)
	}
	if err != nil {
		_ = s.disk.files.Remove(temporary)
		return err
	}
	if !keep {
		return s.disk.remove(from)
	}
	return nil
}

// assign returns letters and numbers of keywords; a new keyword takes a free letter while there is one.
func (f *folder) assign(names []string) (letters []byte, numbers []uint16, err error) {
	missing := map[int]string{}
	for _, name := range names {
		n := f.keywordNumber(name)
		if n >= maxKeywords {
			f.keywords = f.keywords[:n]
			return nil, nil, fmt.Errorf("%w: more than %d keywords in one mailbox", store.ErrTooMany, maxKeywords)
		}
		letter := f.letterOf(n)
		if letter < 0 {
			for i, used := range f.letters {
				if used < 0 && missing[i] == "" {
					letter, missing[i] = i, f.keywords[n]
					break
				}
			}
		}
		if letter >= 0 {
			letters = append(letters, byte('a'+letter))
		}
		numbers = append(numbers, uint16(n))
	}
	if len(missing) > 0 {
		if err := f.writeLetters(missing); err != nil {
			return nil, nil, err
		}
	}
	slices.Sort(numbers)
	return letters, slices.Compact(numbers), nil
}

// writeLetters adds names to the keyword file.
func (f *folder) writeLetters(missing map[int]string) error {
	path := filepath.Join(f.paths.control, keywordsName)
	owner := f.root.ownership()
	lock, err := f.store.disk.lock(context.Background(), path, f.store.options.LockTimeout, owner)
	if err != nil {
		return err
	}
	defer lock.unlock()
	text, before, err := f.store.disk.readLimited(path)
	if err != nil {
		return err
	}
	names := parseKeywords(text)
	for letter, name := range missing {
		if names[letter] != "" && !strings.EqualFold(names[letter], name) {
			return fmt.Errorf("%s was changed without the lock of the UID list; try again", path)
		}
		names[letter] = name
	}
	if err := f.store.disk.replace(path, formatKeywords(names), owner); err != nil {
		return err
	}
	f.setLetters(names)
	_, info, err := f.store.disk.statFile(path)
	if err == nil && before != nil && info != nil && info.ModTime().Unix() <= before.ModTime().Unix() {
		// Dovecot knows the file by its time in seconds, so that must rise.
		if err = f.store.disk.files.Chtimes(path, time.Unix(before.ModTime().Unix()+1, 0)); err == nil {
			_, info, err = f.store.disk.statFile(path)
		}
	}
	f.keywordStamp = stampOf(info)
	return err
}

// setFlags renames the files of messages whose flags change, and tells which files were not there.
func (f *folder) setFlags(c *tx, uids store.UIDSet, change store.FlagChange) (result store.FlagsChanged, missing store.UIDSet, err error) {
	_, named, err := f.assignFor(change)
	if err != nil {
		return result, nil, err
	}
	var changed []*stored
	for m := range f.among(uids) {
		if change.UnchangedSince != nil && m.modseq > *change.UnchangedSince {
			result.Modified = result.Modified.Add(m.uid)
			continue
		}
		flags, numbers := m.flags, m.keywords
		switch change.Operation {
		case store.ReplaceFlags:
			flags, numbers = change.Flags, named
		case store.AddFlags:
			flags |= change.Flags
			numbers = slices.Compact(slices.Sorted(slices.Values(append(slices.Clone(numbers), named...))))
		case store.RemoveFlags:
			flags &^= change.Flags
			numbers = slices.DeleteFunc(slices.Clone(numbers), func(n uint16) bool { return slices.Contains(named, n) })
		}
		if flags == m.flags && slices.Equal(numbers, m.keywords) {
			result.Changed = result.Changed.Add(m.uid)
			result.ModSeq = max(result.ModSeq, m.modseq)
			continue
		}
		next, err := f.reletter(c, m, flags, numbers)
		if errors.Is(err, fs.ErrNotExist) {
			missing = missing.Add(m.uid)
			continue
		}
		if err != nil {
			return result, nil, err
		}
		changed = append(changed, next)
		result.Changed = result.Changed.Add(m.uid)
	}
	for _, m := range changed {
		m.modseq = c.next()
		r := f.remember(m)
		c.line(messageLine(m.uid, r))
		c.durable = c.durable || len(r.more) > 0
	}
	f.put(changed...)
	result.ModSeq = max(result.ModSeq, c.modseq)
	return result, missing, nil
}

// assignFor returns the letters and numbers of the keywords in change; unknown ones that are to be removed are left out.
func (f *folder) assignFor(change store.FlagChange) ([]byte, []uint16, error) {
	names := change.Keywords
	if change.Operation == store.RemoveFlags {
		names = slices.DeleteFunc(slices.Clone(names), func(name string) bool {
			return !slices.ContainsFunc(f.keywords, func(known string) bool { return strings.EqualFold(known, name) })
		})
	}
	return f.assign(names)
}

// reletter renames the file of m for other flags; it then lies in cur/.
func (f *folder) reletter(c *tx, m *stored, flags store.Flags, numbers []uint16) (*stored, error) {
	var letters []byte
	for _, n := range numbers {
		if letter := f.letterOf(int(n)); letter >= 0 {
			letters = append(letters, byte('a'+letter))
		}
	}
	next := *m
	next.flags, next.keywords, next.inNew = flags, numbers, false
	next.name = parseFileName(m.name).withFlags(flags, letters).String()
	from, to := m.path(f), next.path(f)
	if from == to {
		return &next, nil
	}
	if err := f.store.disk.rename(from, to); err != nil {
		return nil, err
	}
	c.undo = append(c.undo, func() { _ = f.store.disk.rename(to, from) })
	c.moved("cur")
	if m.inNew {
		c.moved("new")
	}
	return &next, nil
}

// expunge removes files, and tells which were not there.
func (f *folder) expunge(c *tx, uids store.UIDSet, onlyDeleted bool) (set, missing store.UIDSet, err error) {
	var gone []*stored
	for m := range f.among(uids) {
		if onlyDeleted && m.flags&store.FlagDeleted == 0 {
			continue
		}
		path := m.path(f)
		if err := f.store.disk.remove(path); errors.Is(err, fs.ErrNotExist) {
			missing = missing.Add(m.uid)
			continue
		} else if err != nil {
			if len(gone) == 0 {
				return nil, nil, err
			}
			break
		}
		c.moved(filepath.Base(filepath.Dir(path)))
		gone = append(gone, m)
		set = set.Add(m.uid)
	}
	f.drop(c, gone...)
	return set, missing, nil
}

// takeRecent moves what lies in new/ to cur/ and makes all that is there no longer recent.
func (f *folder) takeRecent(c *tx) error {
	var moved []*stored
	for _, m := range f.messages {
		if !m.inNew {
			continue
		}
		next := *m
		next.inNew = false
		name := parseFileName(m.name)
		name.info = true
		next.name = name.String()
		if err := f.store.disk.rename(m.path(f), next.path(f)); errors.Is(err, fs.ErrNotExist) {
			f.newStamp = dirStamp{}
			continue
		} else if err != nil {
			return err
		}
		c.moved("new")
		c.moved("cur")
		moved = append(moved, &next)
	}
	f.put(moved...)
	if f.recent != f.next {
		f.recent = f.next
		c.line("r " + number(uint64(f.recent)))
		c.durable = true
	}
	return nil
}
