// Package forgetful is a file system in memory that forgets what was not flushed when its power goes: for tests of programs that promise to lose
// nothing. Contents and names are kept apart, each with what a disk would hold and what the programs see.
//
// What a flush promises depends on the Order. With Strict it is what POSIX says: fsync of a file keeps its content and attributes, fsync of a directory
// the changes of names in it, and nothing else. With Ext4Like fsync of a file also keeps every name it was given before and those of the
// directories above, and fsync of a directory its own name. A rename is one change. After Cut a Survival says what becomes of the rest.
//
// It is no file system for other uses: it has no permissions, no symbolic links, no sparse files, and one lock. Nothing outside of tests imports it.
package forgetful

import (
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Order says which changes of names a flush makes durable.
type Order uint8

// The two orders.
const (
	Ext4Like Order = iota
	Strict
)

// Survival says what a power cut leaves of changes that were not flushed.
type Survival uint8

// The kinds of power cut.
const (
	// LoseAll: nothing.
	LoseAll Survival = iota
	// RandomSubset: changes of names up to a random one in the order made (Ext4Like), or each by itself if the earlier ones of the same name did
	// (Strict); of the writes to a block of 4 KiB a random number, the oldest first.
	RandomSubset
	// Torn: the same, and the last surviving write of a file may end at any border of 512 octets.
	Torn
)

// ErrPowerOff is what every operation answers once the power is off.
var ErrPowerOff = syscall.EIO

// FS is a file system; make it with New.
type FS struct {
	order Order

	mu   sync.Mutex
	root *node
	last uint64
	// changes are the changes of names that are not durable yet, in the order made.
	changes []*change
	// left is how many changing operations may still happen before the power goes; below 0 there is no such limit.
	left int
	off  bool
	// fault is asked before each operation and makes it fail; nil never.
	fault func(operation, name string) error
	// operations counts the changing ones.
	operations int
}

// node is a file or directory.
type node struct {
	id   uint64
	mode fs.FileMode
	// names and content are what programs see; kept is what the disk holds.
	names   map[string]*node
	content []byte
	modTime time.Time
	changed time.Time
	kept    durable
	// writes are those that are not durable, in the order made.
	writes []write
	links  int
}

// durable is what the disk holds of a node.
type durable struct {
	names   map[string]*node
	content []byte
	modTime time.Time
}

// write is one write, or a truncation to offset when data is nil.
type write struct {
	offset int64
	data   []byte
}

// change is one change of names: every step of it or none.
type change struct {
	steps []step
}

// step gives the name in a directory to a node, nil for nobody.
type step struct {
	dir  *node
	name string
	node *node
}

// New returns an empty file system with a root directory that is durable.
func New(order Order) *FS {
	f := &FS{order: order, left: -1}
	f.root = f.newNode(fs.ModeDir | 0o755)
	return f
}

func (f *FS) newNode(mode fs.FileMode) *node {
	f.last++
	now := time.Now()
	n := &node{id: f.last, mode: mode, modTime: now, changed: now, links: 1}
	n.kept.modTime = now
	if mode.IsDir() {
		n.names, n.kept.names = map[string]*node{}, map[string]*node{}
	}
	return n
}

// CutAfter lets the power go before the n-th changing operation from now; 1 is the next. All operations answer ErrPowerOff from then on.
func (f *FS) CutAfter(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.left = n - 1
}

// Off tells whether the power is off.
func (f *FS) Off() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.off
}

// Operations returns how many changing operations there were.
func (f *FS) Operations() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.operations
}

// Fail has fn asked before each operation ("open", "create", "write", "sync", "rename", "link", "remove", "mkdir", "truncate", "chtimes") whether it fails. A flush that
// fails leaves the file's writes where they cannot reach the disk any more, as Linux does; they stay to be seen until the power goes.
func (f *FS) Fail(fn func(operation, name string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault = fn
}

// Cut switches the power off and returns what is on the disk afterwards as a new file system, with power.
func (f *FS) Cut(survival Survival, random *rand.Rand) *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.off = true
	if survival != LoseAll {
		f.surviveNames(random)
	}
	after := New(f.order)
	after.last = f.last
	seen := map[*node]*node{f.root: after.root}
	after.restore(f.root, after.root, seen, func(n *node) []byte { return n.survivor(survival, random) })
	return after
}

// surviveNames makes some of the changes of names durable.
func (f *FS) surviveNames(random *rand.Rand) {
	if f.order == Ext4Like {
		for _, c := range f.changes[:random.IntN(len(f.changes)+1)] {
			c.keep()
		}
		return
	}
	refused := map[step]bool{}
	for _, c := range f.changes {
		lives := random.IntN(2) == 0 && !slices.ContainsFunc(c.steps, func(s step) bool { return refused[step{dir: s.dir, name: s.name}] })
		for _, s := range c.steps {
			refused[step{dir: s.dir, name: s.name}] = refused[step{dir: s.dir, name: s.name}] || !lives
		}
		if lives {
			c.keep()
		}
	}
}

// keep makes a change durable.
func (c *change) keep() {
	for _, s := range c.steps {
		if s.node == nil {
			delete(s.dir.kept.names, s.name)
		} else {
			s.dir.kept.names[s.name] = s.node
		}
	}
}

const block = 4096

// survivor returns the content that a cut leaves.
func (n *node) survivor(survival Survival, random *rand.Rand) []byte {
	content := slices.Clone(n.kept.content)
	if survival == LoseAll {
		return content
	}
	// How many of the writes to each block survive; a truncation is a barrier for all that follows.
	lost := map[int64]bool{}
	for i, w := range n.writes {
		if w.data == nil {
			if random.IntN(2) == 0 {
				break
			}
			content = resize(content, w.offset)
			lost = map[int64]bool{}
			continue
		}
		for at := w.offset; at < w.offset+int64(len(w.data)); {
			end := min((at/block+1)*block, w.offset+int64(len(w.data)))
			if lost[at/block] = lost[at/block] || random.IntN(3) == 0; !lost[at/block] {
				part := w.data[at-w.offset : end-w.offset]
				if survival == Torn && i == len(n.writes)-1 {
					if whole := (at+int64(len(part)))/512*512 - at; whole >= 0 && random.IntN(2) == 0 {
						part = part[:min(int64(len(part)), whole)]
					}
				}
				content = put(content, at, part)
			}
			at = end
		}
	}
	return content
}

func put(content []byte, at int64, data []byte) []byte {
	if len(data) == 0 {
		return content
	}
	if end := at + int64(len(data)); end > int64(len(content)) {
		content = resize(content, end)
	}
	copy(content[at:], data)
	return content
}

func resize(content []byte, size int64) []byte {
	if size <= int64(len(content)) {
		return content[:size]
	}
	return append(content, make([]byte, size-int64(len(content)))...)
}

// restore copies what is durable below from.
func (f *FS) restore(from, to *node, seen map[*node]*node, content func(*node) []byte) {
	names := make([]string, 0, len(from.kept.names))
	for name := range from.kept.names {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		old := from.kept.names[name]
		copied := seen[old]
		if copied == nil {
			copied = &node{id: old.id, mode: old.mode, modTime: old.kept.modTime, changed: old.changed}
			seen[old] = copied
			if old.mode.IsDir() {
				copied.names, copied.kept.names = map[string]*node{}, map[string]*node{}
				f.restore(old, copied, seen, content)
			} else {
				copied.content = content(old)
			}
			copied.kept.content, copied.kept.modTime = slices.Clone(copied.content), copied.modTime
		}
		copied.links++
		to.names[name], to.kept.names[name] = copied, copied
	}
}

// begin admits an operation on name; changing ones are counted.
func (f *FS) begin(operation, name string, changing bool) error {
	if changing && !f.off {
		if f.left == 0 {
			f.off = true
		} else if f.left > 0 {
			f.left--
		}
		f.operations++
	}
	var err error
	if f.off {
		err = ErrPowerOff
	} else if f.fault != nil {
		err = f.fault(operation, name)
	}
	if err != nil {
		return &fs.PathError{Op: operation, Path: name, Err: err}
	}
	return nil
}

// find returns the node of a name, and that of the directory it is or would be in.
func (f *FS) find(operation, name string) (dir *node, base string, n *node, err error) {
	at := f.root
	name = filepath.Clean("/" + name)
	if name == "/" {
		return nil, "/", at, nil
	}
	parts := strings.Split(name[1:], "/")
	for i, part := range parts {
		if at.names == nil {
			return nil, "", nil, &fs.PathError{Op: operation, Path: name, Err: syscall.ENOTDIR}
		}
		next := at.names[part]
		if i == len(parts)-1 {
			return at, part, next, nil
		}
		if next == nil {
			return nil, "", nil, &fs.PathError{Op: operation, Path: name, Err: syscall.ENOENT}
		}
		at = next
	}
	return nil, "", nil, nil
}

// existing is find for what must be there.
func (f *FS) existing(operation, name string) (dir *node, base string, n *node, err error) {
	dir, base, n, err = f.find(operation, name)
	if err == nil && n == nil {
		err = &fs.PathError{Op: operation, Path: name, Err: syscall.ENOENT}
	}
	return dir, base, n, err
}

// do changes names for programs and notes the change.
func (f *FS) do(steps ...step) {
	now := time.Now()
	for _, s := range steps {
		if s.node == nil {
			delete(s.dir.names, s.name)
		} else {
			s.dir.names[s.name] = s.node
			s.node.changed = now
		}
		s.dir.modTime, s.dir.changed = now, now
	}
	f.changes = append(f.changes, &change{steps: steps})
}

// flushNames makes the changes durable that concerns picks, with the earlier ones of the names they touch.
func (f *FS) flushNames(concerns func(step) bool) {
	wanted := make([]bool, len(f.changes))
	type place struct {
		dir  *node
		name string
	}
	touched := map[place]bool{}
	for i := len(f.changes) - 1; i >= 0; i-- {
		for _, s := range f.changes[i].steps {
			wanted[i] = wanted[i] || concerns(s) || touched[place{s.dir, s.name}]
		}
		if wanted[i] {
			for _, s := range f.changes[i].steps {
				touched[place{s.dir, s.name}] = true
			}
		}
	}
	rest := f.changes[:0:0]
	for i, c := range f.changes {
		if wanted[i] {
			c.keep()
		} else {
			rest = append(rest, c)
		}
	}
	f.changes = rest
}

// sync makes a node durable as the order says.
func (f *FS) sync(n *node) {
	n.kept.modTime = n.modTime
	for _, w := range n.writes {
		if w.data == nil {
			n.kept.content = resize(n.kept.content, w.offset)
		} else {
			n.kept.content = put(n.kept.content, w.offset, w.data)
		}
	}
	n.writes = nil
	if n.mode.IsDir() {
		f.flushNames(func(s step) bool { return s.dir == n })
	}
	if f.order == Ext4Like {
		above := map[*node]bool{n: true}
		for grown := true; grown; {
			grown = false
			for _, c := range f.changes {
				for _, s := range c.steps {
					if s.node != nil && above[s.node] && !above[s.dir] {
						above[s.dir], grown = true, true
					}
				}
			}
		}
		f.flushNames(func(s step) bool { return s.node != nil && above[s.node] })
	}
}

// Stat tells about a name. Sys is a *syscall.Stat_t with inode number and time of the last change.
func (f *FS) Stat(name string) (fs.FileInfo, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.begin("stat", name, false); err != nil {
		return nil, err
	}
	_, base, n, err := f.existing("stat", name)
	if err != nil {
		return nil, err
	}
	return n.info(base), nil
}

// Mkdir makes a directory.
func (f *FS) Mkdir(name string, perm fs.FileMode) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.begin("mkdir", name, true); err != nil {
		return err
	}
	dir, base, n, err := f.find("mkdir", name)
	if err == nil && n != nil {
		err = &fs.PathError{Op: "mkdir", Path: name, Err: syscall.EEXIST}
	}
	if err != nil {
		return err
	}
	f.do(step{dir, base, f.newNode(fs.ModeDir | perm.Perm())})
	return nil
}

// Link gives a file another name.
func (f *FS) Link(from, to string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.begin("link", to, true); err != nil {
		return err
	}
	_, _, n, err := f.existing("link", from)
	if err != nil {
		return err
	}
	dir, base, there, err := f.find("link", to)
	if err == nil && there != nil {
		err = &os.LinkError{Op: "link", Old: from, New: to, Err: syscall.EEXIST}
	}
	if err == nil && n.mode.IsDir() {
		err = &os.LinkError{Op: "link", Old: from, New: to, Err: syscall.EPERM}
	}
	if err != nil {
		return err
	}
	f.do(step{dir, base, n})
	return nil
}

// Rename moves a name, over one that is there.
func (f *FS) Rename(from, to string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.begin("rename", to, true); err != nil {
		return err
	}
	fromDir, fromBase, n, err := f.existing("rename", from)
	if err != nil {
		return err
	}
	toDir, toBase, there, err := f.find("rename", to)
	if err != nil {
		return err
	}
	switch {
	case there == n:
		return nil
	case there != nil && there.mode.IsDir() != n.mode.IsDir():
		err = syscall.EISDIR
	case there != nil && len(there.names) > 0:
		err = syscall.ENOTEMPTY
	case n.mode.IsDir() && strings.HasPrefix(filepath.Clean("/"+to), filepath.Clean("/"+from)+"/"):
		err = syscall.EINVAL
	}
	if err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	f.do(step{fromDir, fromBase, nil}, step{toDir, toBase, n})
	return nil
}

// Remove takes a name away; a directory must be empty.
func (f *FS) Remove(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.remove(name)
}

func (f *FS) remove(name string) error {
	if err := f.begin("remove", name, true); err != nil {
		return err
	}
	dir, base, n, err := f.existing("remove", name)
	if err == nil && len(n.names) > 0 {
		err = &fs.PathError{Op: "remove", Path: name, Err: syscall.ENOTEMPTY}
	}
	if err != nil {
		return err
	}
	f.do(step{dir, base, nil})
	return nil
}

// RemoveAll takes a name away with all that is below it, one by one.
func (f *FS) RemoveAll(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.removeAll(name)
}

func (f *FS) removeAll(name string) error {
	_, _, n, err := f.find("remove", name)
	if err != nil || n == nil {
		return err
	}
	for _, below := range n.list() {
		if err := f.removeAll(filepath.Join(name, below)); err != nil {
			return err
		}
	}
	return f.remove(name)
}

// Chown does nothing: there are no owners.
func (f *FS) Chown(name string, _, _ int) error {
	_, err := f.Stat(name)
	return err
}

// Chtimes sets the time of the last modification.
func (f *FS) Chtimes(name string, modified time.Time) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.begin("chtimes", name, true); err != nil {
		return err
	}
	_, _, n, err := f.existing("chtimes", name)
	if err != nil {
		return err
	}
	n.modTime, n.changed = modified, time.Now()
	return nil
}
