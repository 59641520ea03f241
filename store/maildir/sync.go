package maildir

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"postilion/store"
)

// sync takes in the UID list, keywords and journal as they are now, and the files when scan is set or there is need. The lock is held.
func (f *folder) sync(c *tx, scan bool) error {
	fresh := !f.loaded
	if fresh {
		f.reset()
		c.touched = true
	}
	reread, err := f.readList(fresh)
	if errors.Is(err, errOtherValidity) {
		f.reset()
		return f.sync(c, true)
	}
	if err != nil {
		return err
	}
	if reread && !fresh {
		f.scanned = false
		for base, entry := range f.listed {
			if mark := markIn(base); mark != "" && entry.uid >= f.scanNext {
				if _, known := f.marks[mark]; !known {
					f.marks[mark] = entry.uid
				}
			}
		}
	}
	if err := f.readKeywords(); err != nil {
		return err
	}
	past, err := f.readJournal(fresh)
	if err != nil {
		return err
	}
	if past != nil && !fresh {
		f.takeOver(c, past)
	}
	changed := f.dirsChanged()
	if !fresh && !f.rewriteList && !f.rewriteJournal && (!scan || (f.scanned && !changed)) {
		if f.loaded = true; !f.scanned || changed {
			// Whoever looks next reads the directories.
			f.newStamp, f.curStamp = dirStamp{}, dirStamp{}
		}
		return nil
	}
	began := time.Now()
	found, err := f.scanFiles(c)
	if err != nil {
		return err
	}
	if err := f.reconcile(c, found, past, fresh, f.scanNext); err != nil {
		return err
	}
	f.loaded, f.scanned, f.scanNext, f.scanTime = true, true, f.next, time.Since(began)
	return nil
}

var errOtherValidity = errors.New("the UID list has another UIDVALIDITY")

// readList reads the UID list when it is not the one that is known. A list of another UIDVALIDITY makes everything new.
func (f *folder) readList(fresh bool) (reread bool, err error) {
	_, info, err := f.store.disk.statFile(f.listPath())
	if err != nil {
		return false, err
	}
	if !fresh && info != nil && stampOf(info) == f.listStamp {
		return false, nil
	}
	text, info, err := f.store.disk.readLimited(f.listPath())
	if err != nil {
		return false, err
	}
	list, err := parseUIDList(text)
	switch {
	case errors.Is(err, store.ErrTooMany):
		return false, err
	case err != nil && fresh:
		// No list, or none that can be read: UIDs start anew under a new UIDVALIDITY.
		validity, err := f.root.nextValidity()
		if err != nil {
			return false, err
		}
		list = &uidList{validity: validity, next: 1, guid: randomHex(16)}
		f.rewriteList = true
	case err != nil:
		// The list vanished while it was known: what is known is written again.
		f.rewriteList = true
		f.listStamp = stampOf(info)
		return false, nil
	}
	if list.guid == "" {
		list.guid = f.guid
		if list.guid == "" {
			list.guid = randomHex(16)
		}
		f.rewriteList = true
	}
	f.rewriteList = f.rewriteList || list.version != 3 || list.torn || f.distrusted
	if !fresh && list.validity != f.validity {
		return false, errOtherValidity
	}
	f.validity, f.guid = list.validity, list.guid
	f.next = max(f.next, list.next)
	f.listed = make(map[string]uidEntry, len(list.entries))
	if fresh {
		f.files = make(map[string]*file, len(list.entries))
	}
	for _, entry := range list.entries {
		f.listed[entry.base] = entry
	}
	f.listStamp = stampOf(info)
	return true, nil
}

// readKeywords gives the letters their meaning.
func (f *folder) readKeywords() error {
	path := filepath.Join(f.paths.control, keywordsName)
	_, info, err := f.store.disk.statFile(path)
	if err != nil || stampOf(info) == f.keywordStamp {
		return err
	}
	text, info, err := f.store.disk.readLimited(path)
	if err != nil {
		return err
	}
	f.setLetters(parseKeywords(text))
	f.keywordStamp = stampOf(info)
	return nil
}

func (f *folder) setLetters(names [letterKeywords]string) {
	for i, name := range names {
		f.letters[i] = -1
		if name != "" {
			f.letters[i] = f.keywordNumber(name)
		}
	}
}

// readJournal returns what the journal holds when it is not the one that is known, or nil.
func (f *folder) readJournal(fresh bool) (*journal, error) {
	if f.paths.index == "" {
		return nil, nil
	}
	_, info, err := f.store.disk.statFile(f.journalPath())
	if err != nil || (!fresh && stampOf(info) == f.journalStamp) {
		return nil, err
	}
	text, info, err := f.store.disk.readLimited(f.journalPath())
	if err != nil {
		return nil, err
	}
	j := parseJournal(text)
	if j == nil || j.validity != f.validity || j.guid != f.guid {
		f.rewriteJournal = true
		return nil, nil
	}
	// A torn end would hide what is appended after it.
	f.rewriteJournal = f.rewriteJournal || j.lines != countLines(text) || f.distrusted
	f.journalStamp, f.journalLines = stampOf(info), j.lines
	f.next = max(f.next, j.next)
	f.floor = max(f.floor, j.floor)
	if fresh {
		f.highest, f.recent = j.highest, j.recent
		f.expunged = j.expunged
		for _, e := range j.expunged {
			if e.mark != "" {
				f.marks[e.mark] = 0
			}
		}
	}
	return j, nil
}

func countLines(text []byte) int {
	n := 0
	for _, b := range text {
		if b == '\n' {
			n++
		}
	}
	if len(text) > 0 && text[len(text)-1] != '\n' {
		n++
	}
	return n
}

// takeOver brings in what another process of ours wrote into the journal.
func (f *folder) takeOver(c *tx, j *journal) {
	known := make(map[store.UID]bool, len(f.expunged))
	for _, e := range f.expunged {
		known[e.uid] = true
	}
	var gone []*stored
	for _, e := range j.expunged {
		if known[e.uid] {
			continue
		}
		f.expunged = append(f.expunged, e)
		if e.mark != "" {
			f.marks[e.mark] = 0
		}
		if m := f.find(e.uid); m != nil {
			gone = append(gone, m)
		}
		c.touched = true
	}
	slices.SortStableFunc(f.expunged, func(a, b expunge) int { return int(int64(a.modseq) - int64(b.modseq)) })
	for _, m := range gone {
		delete(f.files, m.base)
		i, _ := searchUID(f.messages, m.uid)
		f.messages = slices.Delete(slices.Clone(f.messages), i, i+1)
		f.stale++
	}
	var changed []*stored
	for uid, r := range j.messages {
		if m := f.find(uid); m != nil && r.modseq > m.modseq {
			next := *m
			next.modseq = r.modseq
			next.keywords = f.keywordsOf(r.letters, r.more)
			next.flags = fileName{letters: r.letters}.flags()
			changed = append(changed, &next)
			c.touched = true
		}
	}
	f.put(changed...)
	if j.highest > f.highest || j.recent > f.recent {
		f.highest, f.recent = max(f.highest, j.highest), max(f.recent, j.recent)
		c.touched = true
	}
}

// found is a file that a scan saw.
type found struct {
	name  string
	inNew bool
}

// scanFiles lists new and cur. When a known message seems to be missing, both are read once more: a file that is renamed meanwhile can be
// passed over.
func (f *folder) scanFiles(c *tx) ([]found, error) {
	var files []found
	for attempt := 0; ; attempt++ {
		f.scan++
		files = files[:0]
		var err error
		if files, f.newStamp, err = f.scanDir("new", true, files); err != nil {
			return nil, err
		}
		if files, f.curStamp, err = f.scanDir("cur", false, files); err != nil {
			return nil, err
		}
		seen := 0
		for _, file := range files {
			if known := f.files[parseFileName(file.name).base]; known != nil && known.scan != f.scan {
				known.scan = f.scan
				seen++
			}
		}
		if seen == len(f.files) || attempt == 1 {
			return files, nil
		}
	}
}

func (f *folder) scanDir(dir string, inNew bool, files []found) ([]found, dirStamp, error) {
	path := filepath.Join(f.paths.mail, dir)
	at, err := f.store.disk.stampDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err = f.store.disk.mkdirAll(path, f.root.ownership()); err == nil {
			at, err = f.store.disk.stampDir(path)
		}
	}
	if err != nil {
		return nil, dirStamp{}, err
	}
	handle, err := f.store.disk.open(path)
	if err != nil {
		return nil, dirStamp{}, err
	}
	names, err := handle.Readdirnames(-1)
	if err := errors.Join(err, handle.Close()); err != nil {
		return nil, dirStamp{}, err
	}
	for _, name := range names {
		if name[0] != '.' {
			files = append(files, found{name, inNew})
		}
	}
	return files, at, nil
}

// reconcile makes the messages what the files are: changed names are changed flags, missing files expunged messages, unknown files new ones. before
// is the next UID before the list was read again.
func (f *folder) reconcile(c *tx, files []found, past *journal, fresh bool, before store.UID) error {
	f.scan++
	var changed []*stored
	unknown := map[string]found{}
	for _, at := range files {
		name := parseFileName(at.name)
		known := f.files[name.base]
		if known != nil {
			if entry, ok := f.listed[name.base]; ok && entry.uid != known.message.uid && !fresh {
				known = nil
			}
		}
		if known == nil {
			if _, twice := unknown[name.base]; !twice || !at.inNew {
				unknown[name.base] = at
			}
			continue
		}
		if known.scan == f.scan && at.inNew {
			continue
		}
		known.scan = f.scan
		if m := known.message; m.name != at.name || m.inNew != at.inNew {
			next := *m
			next.name, next.inNew = at.name, at.inNew
			if parseFileName(m.name).letters != name.letters {
				if err := f.reflag(c, &next, name); err != nil {
					return err
				}
			}
			changed = append(changed, &next)
		}
	}
	f.put(changed...)
	var gone []*stored
	for _, known := range f.files {
		if known.scan != f.scan {
			gone = append(gone, known.message)
		}
	}
	slices.SortFunc(gone, func(a, b *stored) int { return int(int64(a.uid) - int64(b.uid)) })
	f.drop(c, gone...)
	firstNew := f.next
	if err := f.takeIn(c, unknown, past, fresh, before); err != nil {
		return err
	}
	if fresh {
		f.forgetMissing(c, past)
		if f.recent == 0 {
			f.recent = firstNew
			for _, m := range f.messages {
				if m.inNew && m.uid < f.recent {
					f.recent = m.uid
				}
			}
		}
		if past == nil {
			// What was expunged before is not known: whoever saw less than this is told of every UID that is not there.
			f.highest = max(f.highest, c.next())
			f.floor = f.highest
		}
	}
	return nil
}

// reflag gives m the flags that another program put into the file's name.
func (f *folder) reflag(c *tx, m *stored, name fileName) error {
	if err := f.nameLetters(name.letters); err != nil {
		return err
	}
	var more []string
	for _, k := range m.keywords {
		if f.letterOf(int(k)) < 0 {
			more = append(more, f.keywords[k])
		}
	}
	m.flags, m.keywords = name.flags(), f.keywordsOf(name.letters, more)
	m.modseq = c.next()
	c.line(messageLine(m.uid, f.remember(m)))
	return nil
}

// keywordsOf returns the numbers of the keywords that have these letters and names.
func (f *folder) keywordsOf(letters string, more []string) []uint16 {
	var numbers []uint16
	for i := range len(letters) {
		if l := letters[i]; l >= 'a' && l <= 'z' && f.letters[l-'a'] >= 0 {
			numbers = append(numbers, uint16(f.letters[l-'a']))
		}
	}
	for _, name := range more {
		numbers = append(numbers, uint16(f.keywordNumber(name)))
	}
	slices.Sort(numbers)
	return slices.Compact(numbers)
}

// nameLetters gives a name to each letter that is used without one, as Dovecot does.
func (f *folder) nameLetters(letters string) error {
	missing := map[int]string{}
	for i := range len(letters) {
		if l := letters[i]; l >= 'a' && l <= 'z' && f.letters[l-'a'] < 0 {
			missing[int(l-'a')] = fmt.Sprintf("unknown-%d", l-'a')
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return f.writeLetters(missing)
}

// takeIn adds the files that were not known, those of the UID list under their UIDs, the others in the order of their names.
func (f *folder) takeIn(c *tx, files map[string]found, past *journal, fresh bool, before store.UID) error {
	expunged := map[store.UID]bool{}
	if len(files) > 0 {
		for _, e := range f.expunged {
			expunged[e.uid] = true
		}
	}
	bases := make([]string, 0, len(files))
	for base := range files {
		bases = append(bases, base)
	}
	slices.Sort(bases)
	var added []*stored
	for _, base := range bases {
		at := files[base]
		entry, listed := f.listed[base]
		if listed && (expunged[entry.uid] || (!fresh && entry.uid < before)) {
			listed = false
		}
		var m *stored
		var err error
		if listed {
			m, err = f.describe(c, at, entry, past)
		} else {
			entry = uidEntry{uid: f.next, base: base}
			m, err = f.describe(c, at, entry, nil)
		}
		switch {
		case errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNoMessage):
			continue
		case err != nil:
			return err
		}
		if !listed {
			if f.next+1 == 0 {
				return fmt.Errorf("%w: all UIDs of %s are used up", store.ErrTooMany, f.paths.mail)
			}
			f.next++
			if _, ok := sizeIn(base, 'W'); !ok {
				entry.extensions = "W" + number(uint64(m.size))
			}
			f.listed[base] = entry
			c.records = append(c.records, entry)
		}
		added = append(added, m)
		c.touched = true
	}
	f.put(added...)
	if fresh {
		f.stale = len(f.listed) - len(f.messages)
	}
	return nil
}

var errNoMessage = errors.New("not a message file")

// describe makes the message of a file. What the journal remembers saves looking at the file.
func (f *folder) describe(c *tx, at found, entry uidEntry, past *journal) (*stored, error) {
	name := parseFileName(at.name)
	if err := f.nameLetters(name.letters); err != nil {
		return nil, err
	}
	m := &stored{uid: entry.uid, flags: name.flags(), base: name.base, name: at.name, inNew: at.inNew, size: -1}
	if m.guid = entry.extension('G'); m.guid == "" {
		m.guid = m.base
	}
	m.email = emailID(m.guid)
	if past != nil {
		if r, ok := past.messages[entry.uid]; ok {
			m.modseq, m.date, m.saved, m.size = r.modseq, time.Unix(0, r.date), r.saved, r.size
			m.keywords = f.keywordsOf(name.letters, r.more)
			if r.letters == name.letters && r.size >= 0 {
				return m, nil
			}
		}
	}
	if m.keywords == nil {
		m.keywords = f.keywordsOf(name.letters, nil)
	}
	if m.size < 0 {
		if err := m.look(f, entry); err != nil {
			return nil, err
		}
	}
	m.modseq = c.next()
	c.line(messageLine(m.uid, f.remember(m)))
	return m, nil
}

// look finds dates and size at the file itself.
func (m *stored) look(f *folder, entry uidEntry) error {
	info, err := f.store.disk.files.Stat(m.path(f))
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return errNoMessage
	}
	m.date, m.saved = info.ModTime(), info.ModTime().Unix()
	if system, ok := info.Sys().(*syscall.Stat_t); ok {
		m.saved = system.Ctim.Sec
	}
	size, ok := sizeIn(m.base, 'W')
	if !ok {
		if n, err := strconv.ParseInt(entry.extension('W'), 10, 64); err == nil && n >= 0 {
			size, ok = n, true
		}
	}
	if !ok {
		if size, err = f.store.disk.networkSize(m.path(f)); err != nil {
			return err
		}
	}
	m.size = size
	return nil
}

// forgetMissing notes as expunged what the journal or the UID list remembers and no file has. The list knows more: a power cut can take what the
// journal was told last.
func (f *folder) forgetMissing(c *tx, past *journal) {
	if past == nil {
		return
	}
	known := make(map[store.UID]bool, len(f.expunged))
	for _, e := range f.expunged {
		known[e.uid] = true
	}
	base := make(map[store.UID]string, len(past.messages))
	for uid := range past.messages {
		if f.find(uid) == nil {
			base[uid] = ""
		}
	}
	for name, entry := range f.listed {
		if !known[entry.uid] && f.find(entry.uid) == nil {
			base[entry.uid] = name
		}
	}
	for _, uid := range slices.Sorted(maps.Keys(base)) {
		e := expunge{uid: uid, modseq: c.next(), when: time.Now().Unix(), mark: markIn(base[uid])}
		if e.mark != "" {
			if _, there := f.marks[e.mark]; !there {
				f.marks[e.mark] = 0
			}
		}
		f.expunged = append(f.expunged, e)
		c.line(expungeLine(e))
	}
}
