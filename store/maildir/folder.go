package maildir

import (
	"container/list"
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"postilion/mail/message"
	"postilion/store"
)

// folder is the state of one mailbox directory, shared by all who use it. mu guards everything below it; it is held while files are changed.
type folder struct {
	store *Store
	root  *root
	paths folderPaths
	// users counts the handles; idle is the place among those without, with idleMessages messages. Store.mu guards them.
	users        int
	idle         *list.Element
	idleMessages int
	// count is how many messages there are.
	count atomic.Int64

	// inbound are deliveries that wait for mu; waiting guards them.
	waiting sync.Mutex
	inbound []*inbound

	mu sync.Mutex
	// gone is set when the mailbox was deleted or renamed.
	gone   bool
	loaded bool

	validity uint32
	guid     string
	next     store.UID
	// listed is every record of the UID list by base name; stale counts those whose file is gone.
	listed map[string]uidEntry
	stale  int
	// rewriteList asks for a new UID list: there is none, or one of an old version.
	rewriteList bool

	// keywords names all that were seen since the folder was loaded; letters has the number of each letter's keyword, or -1.
	keywords []string
	letters  [letterKeywords]int

	messages []*stored
	files    map[string]*file
	scan     uint64

	highest      store.ModSeq
	recent       store.UID
	expunged     []expunge
	floor        store.ModSeq
	marks        map[deliveryMark]store.UID
	journalLines int
	// rewriteJournal asks for a new journal: there is none that fits.
	rewriteJournal bool

	listStamp, keywordStamp, journalStamp stamp
	newStamp, curStamp                    dirStamp
	// scanned tells that every record of the UID list was looked for in the directories; scanNext was the next UID then.
	scanned  bool
	scanNext store.UID
	// scanTime is how long the directories took to read last.
	scanTime time.Duration
	// distrusted asks for a new UID list and journal: a flush of them failed.
	distrusted bool

	current  *view
	watchers map[uint64]func()
	watched  uint64
	parsed   []parsedMessage
}

// file is where a message lies now; scan is the last scan that saw it.
type file struct {
	message *stored
	scan    uint64
}

// stored is one message as views show it. It never changes.
type stored struct {
	uid      store.UID
	modseq   store.ModSeq
	flags    store.Flags
	keywords []uint16
	// base and name are the file's name without and with its flags; inNew tells that it lies in new/.
	base, name string
	inNew      bool
	size       int64
	date       time.Time
	saved      int64
	guid       string
	email      string
}

func (m *stored) path(f *folder) string {
	if m.inNew {
		return filepath.Join(f.paths.mail, "new", m.name)
	}
	return filepath.Join(f.paths.mail, "cur", m.name)
}

// parsedMessage is one entry of the small cache of structures, the newest last.
type parsedMessage struct {
	uid       store.UID
	structure *message.Message
}

const maxParsed = 32

func newFolder(s *Store, r *root, paths folderPaths) *folder {
	return &folder{store: s, root: r, paths: paths}
}

// reset forgets everything that was read.
func (f *folder) reset() {
	f.loaded = false
	f.validity, f.guid, f.next = 0, "", 1
	f.listed, f.stale, f.rewriteList = map[string]uidEntry{}, 0, false
	f.keywords = nil
	for i := range f.letters {
		f.letters[i] = -1
	}
	f.messages, f.files = nil, map[string]*file{}
	f.highest, f.recent, f.expunged, f.floor = 0, 0, nil, 0
	f.marks = map[deliveryMark]store.UID{}
	f.journalLines, f.rewriteJournal = 0, false
	f.listStamp, f.keywordStamp, f.journalStamp = stamp{}, stamp{}, stamp{}
	f.newStamp, f.curStamp = dirStamp{}, dirStamp{}
	f.scanned, f.scanNext = false, 1
	f.parsed = nil
}

// refresh takes in what other programs changed. mu is held.
func (f *folder) refresh(ctx context.Context) error {
	if f.gone {
		return store.ErrNotFound
	}
	if f.loaded && !f.changedOutside() {
		return nil
	}
	return f.update(ctx, func(*tx) error { return nil })
}

// load makes sure that the folder was read, as long ago as that may be. mu is held.
func (f *folder) load(ctx context.Context) error {
	if f.loaded && !f.gone {
		return nil
	}
	return f.refresh(ctx)
}

// tx gathers what one operation does to a folder under its lock.
type tx struct {
	folder *folder
	modseq store.ModSeq
	// records go to the UID list, lines to the journal.
	records []uidEntry
	lines   []byte
	count   int
	// durable asks for a flush of the journal, for what stands nowhere else.
	durable bool
	// forget has expunged messages leave no trace of their delivery: it is taken back.
	forget  bool
	touched bool
	dirs    []string
	undo    []func()
	// flushes make durable what was written into the files that are open.
	flushes []func() error
	open    []openFile
	// rewritten tells that the UID list was written anew.
	rewritten bool
}

// next returns the mod-sequence of this change.
func (c *tx) next() store.ModSeq {
	if c.modseq == 0 {
		c.modseq = max(c.folder.highest+1, store.ModSeq(time.Now().UnixMicro()))
	}
	c.touched = true
	return c.modseq
}

func (c *tx) line(text string) {
	c.lines = appendLine(c.lines, text)
	c.count++
}

// moved notes a directory of the mailbox that has to be flushed.
func (c *tx) moved(dir string) {
	if !slices.Contains(c.dirs, dir) {
		c.dirs = append(c.dirs, dir)
	}
}

// update runs fn under the lock of the UID list after taking in what others changed, makes its changes durable and shows them. When fn or
// the writing fails, what fn noted for undo is taken back and the folder is read again. mu is held.
func (f *folder) update(ctx context.Context, fn func(*tx) error) error {
	return f.updateAfter(ctx, true, fn)
}

// updateKnown is update without looking for files that others brought or renamed: for what needs to know only the files it touches. UID list and
// journal are read when others wrote into them.
func (f *folder) updateKnown(ctx context.Context, fn func(*tx) error) error {
	return f.updateAfter(ctx, false, fn)
}

func (f *folder) updateAfter(ctx context.Context, scan bool, fn func(*tx) error) error {
	if f.gone {
		return store.ErrNotFound
	}
	lock, err := f.lock(ctx)
	if err != nil {
		return err
	}
	defer lock.unlock()
	if !f.store.disk.isDir(filepath.Join(f.paths.mail, "cur")) {
		// Whoever makes a mailbox holds its lock until cur is there: this is none.
		return store.ErrNotFound
	}
	c := &tx{folder: f}
	err = f.sync(c, scan || lock.inherited)
	if err == nil {
		err = f.commit(c)
	}
	if err != nil {
		f.reset()
		return err
	}
	c = &tx{folder: f}
	if err = fn(c); err == nil {
		err = f.commit(c)
	}
	if err != nil {
		for _, undo := range slices.Backward(c.undo) {
			undo()
		}
		f.reset()
		return err
	}
	return nil
}

// lock takes the lock of the UID list, in whose directory it may be the first file.
func (f *folder) lock(ctx context.Context) (held, error) {
	d := &f.store.disk
	lock, err := d.lock(ctx, f.listPath(), f.store.options.LockTimeout, f.root.ownership())
	if !errors.Is(err, fs.ErrNotExist) {
		return lock, err
	}
	if !d.isDir(filepath.Join(f.paths.mail, "cur")) {
		return held{}, store.ErrNotFound
	}
	if err := d.mkdirAll(f.paths.control, f.root.ownership()); err != nil {
		return held{}, err
	}
	return d.lock(ctx, f.listPath(), f.store.options.LockTimeout, f.root.ownership())
}

func (f *folder) listPath() string { return filepath.Join(f.paths.control, uidListName) }

func (f *folder) journalPath() string { return filepath.Join(f.paths.index, journalName) }

// commit writes UID list and journal, flushes them and the directories, then shows the new view. It does not matter which of them reaches the disk
// first: a record without a file, or a file without a record, is what the next reading of the folder takes out or in.
func (f *folder) commit(c *tx) error {
	for _, dir := range c.dirs {
		c.flushes = append(c.flushes, func() error { return f.store.disk.syncDir(filepath.Join(f.paths.mail, dir)) })
	}
	err := f.writeList(c)
	if err == nil {
		f.highest = max(f.highest, c.modseq)
		err = f.writeJournal(c)
	}
	if err == nil {
		err = flushAll(c.flushes)
	}
	for _, file := range c.open {
		err = errors.Join(err, file.Close())
	}
	if err != nil {
		// What could not be flushed may never reach the disk, whatever is flushed later.
		f.distrusted = f.distrusted || len(c.open) > 0
		return err
	}
	f.distrusted = f.distrusted && !c.rewritten
	f.adoptDirs(c.dirs)
	f.show(c.touched)
	return nil
}

// writeList appends the new records, or writes the whole list where that is needed or shorter.
func (f *folder) writeList(c *tx) error {
	if !f.rewriteList && (f.stale < 100 || f.stale < len(f.messages) || !f.scanned) {
		if len(c.records) == 0 {
			return nil
		}
		var text []byte
		for _, record := range c.records {
			text = record.appendTo(text)
		}
		file, info, err := f.store.disk.appendFile(f.listPath(), text, f.listStamp.size)
		if err == nil {
			f.listStamp = stampOf(info)
			c.open = append(c.open, file)
			c.flushes = append(c.flushes, func() error { return f.store.disk.flush(file) })
		}
		return err
	}
	list := uidList{validity: f.validity, next: f.next, guid: f.guid}
	kept := map[string]uidEntry{}
	for _, m := range f.messages {
		entry := f.listed[m.base]
		list.entries = append(list.entries, entry)
		kept[m.base] = entry
	}
	slices.SortFunc(list.entries, func(a, b uidEntry) int { return int(int64(a.uid) - int64(b.uid)) })
	if err := f.store.disk.replace(f.listPath(), list.format(), f.root.ownership()); err != nil {
		return err
	}
	f.rewriteList, f.listed, f.stale, c.rewritten = false, kept, 0, true
	_, info, err := f.store.disk.statFile(f.listPath())
	f.listStamp = stampOf(info)
	return err
}

// writeJournal appends the new lines, or writes the whole journal where that is needed or it has grown to more than twice its worth.
func (f *folder) writeJournal(c *tx) error {
	if f.paths.index == "" {
		return nil
	}
	f.expunged, f.floor = prune(f.expunged, f.floor, f.store.options.DeliveryMemory)
	if !f.rewriteJournal && (!f.scanned || f.journalLines+c.count <= 2*(len(f.messages)+len(f.expunged))+200) {
		if c.count == 0 {
			return nil
		}
		file, info, err := f.store.disk.appendFile(f.journalPath(), c.lines, f.journalStamp.size)
		if err != nil {
			return err
		}
		c.open = append(c.open, file)
		if c.durable {
			c.flushes = append(c.flushes, func() error { return f.store.disk.flush(file) })
		}
		f.journalStamp = stampOf(info)
		f.journalLines += c.count
		return nil
	}
	if err := f.store.disk.mkdirAll(f.paths.index, f.root.ownership()); err != nil {
		return err
	}
	j := journal{validity: f.validity, guid: f.guid}
	text := appendLine(nil, j.headerLine())
	text = appendLine(text, "h "+number(uint64(f.highest))+" "+number(uint64(f.floor)))
	text = appendLine(text, "n "+number(uint64(f.next)))
	text = appendLine(text, "r "+number(uint64(f.recent)))
	for _, e := range f.expunged {
		text = appendLine(text, expungeLine(e))
	}
	for _, m := range f.messages {
		text = appendLine(text, messageLine(m.uid, f.remember(m)))
	}
	if err := f.store.disk.replace(f.journalPath(), text, f.root.ownership()); err != nil {
		return err
	}
	f.rewriteJournal, f.journalLines = false, len(f.expunged)+len(f.messages)+4
	_, info, err := f.store.disk.statFile(f.journalPath())
	f.journalStamp = stampOf(info)
	return err
}

// remember returns what the journal keeps of m.
func (f *folder) remember(m *stored) remembered {
	r := remembered{modseq: m.modseq, date: m.date.UnixNano(), saved: m.saved, size: m.size, letters: parseFileName(m.name).letters}
	for _, number := range m.keywords {
		if f.letterOf(int(number)) < 0 {
			r.more = append(r.more, f.keywords[number])
		}
	}
	return r
}

// show makes a new view when there is something new in it, and tells the watchers.
func (f *folder) show(changed bool) {
	if f.current != nil && !changed && f.current.recent == f.recent && f.current.next == f.next && f.current.highest == f.highest {
		return
	}
	f.count.Store(int64(len(f.messages)))
	f.current = &view{
		validity: f.validity, next: f.next, highest: f.highest, recent: f.recent, id: f.guid,
		messages: f.messages, keywords: f.keywords[:len(f.keywords):len(f.keywords)], expunged: f.expunged[:len(f.expunged):len(f.expunged)], floor: f.floor,
	}
	f.notify()
}

func (f *folder) notify() {
	for _, fn := range f.watchers {
		fn()
	}
}

// find returns the message with this UID, or nil.
func (f *folder) find(uid store.UID) *stored {
	if i, ok := searchUID(f.messages, uid); ok {
		return f.messages[i]
	}
	return nil
}

func searchUID(messages []*stored, uid store.UID) (int, bool) {
	return slices.BinarySearchFunc(messages, uid, func(m *stored, uid store.UID) int {
		switch {
		case m.uid < uid:
			return -1
		case m.uid > uid:
			return 1
		}
		return 0
	})
}

// put adds or replaces messages; the slice that views hold is left alone.
func (f *folder) put(changed ...*stored) {
	if len(changed) == 0 {
		return
	}
	appended := true
	for _, m := range changed {
		if n := len(f.messages); n > 0 && m.uid <= f.messages[n-1].uid {
			appended = false
		}
		if known := f.files[m.base]; known != nil {
			known.message = m
		} else {
			f.files[m.base] = &file{message: m, scan: f.scan}
		}
		if mark := markIn(m.base); mark != "" {
			f.marks[mark] = m.uid
		}
	}
	byUID := func(a, b *stored) int { return int(int64(a.uid) - int64(b.uid)) }
	slices.SortFunc(changed, byUID)
	if appended {
		// Views hold shorter slices of the same array: what lies behind their end is nobody's yet.
		f.messages = append(f.messages, changed...)
		return
	}
	messages := slices.Clone(f.messages)
	for _, m := range changed {
		i, found := searchUID(messages, m.uid)
		if found {
			messages[i] = m
		} else {
			messages = slices.Insert(messages, i, m)
		}
	}
	f.messages = messages
}

// drop takes messages out and notes them as expunged.
func (f *folder) drop(c *tx, gone ...*stored) {
	if len(gone) == 0 {
		return
	}
	uids := make(map[store.UID]bool, len(gone))
	now := time.Now().Unix()
	for _, m := range gone {
		uids[m.uid] = true
		if known := f.files[m.base]; known != nil && known.message.uid == m.uid {
			delete(f.files, m.base)
		}
		f.stale++
		e := expunge{uid: m.uid, modseq: c.next(), when: now, mark: markIn(m.base)}
		if c.forget {
			delete(f.marks, e.mark)
			e.mark = ""
		} else if e.mark != "" {
			f.marks[e.mark] = 0
		}
		f.expunged = append(f.expunged, e)
		c.line(expungeLine(e))
	}
	messages := make([]*stored, 0, max(0, len(f.messages)-len(gone)))
	for _, m := range f.messages {
		if !uids[m.uid] {
			messages = append(messages, m)
		}
	}
	f.messages = messages
	f.parsed = slices.DeleteFunc(f.parsed, func(p parsedMessage) bool { return uids[p.uid] })
}

// letterOf returns the index of a keyword's letter, or -1.
func (f *folder) letterOf(number int) int { return slices.Index(f.letters[:], number) }

// keywordNumber returns the number of a keyword, which is made when it is new. Keywords are the same in either case.
func (f *folder) keywordNumber(name string) int {
	for i, known := range f.keywords {
		if strings.EqualFold(known, name) {
			return i
		}
	}
	f.keywords = append(f.keywords, name)
	return len(f.keywords) - 1
}
