// Package care looks after a vault: it checks, compacts, backs up, brings back and exports. The same code works inside of the process that serves, asked through its
// control socket, and in a command that opens a vault which nobody serves.
//
// It decides nothing about mail and opens no vault by itself; what the words mean is said in postilion-vault(8).
package care

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"postilion/kv"
	"postilion/service/control"
	"postilion/store/export"
	"postilion/store/vault"
)

// Vault is an open vault.
type Vault struct {
	// Path is the directory it lies in.
	Path  string
	DB    *kv.DB
	Store *vault.Store
}

// The things that can be asked for.
const (
	Check   = "vault/check"
	Compact = "vault/compact"
	Backup  = "vault/backup"
	Restore = "vault/restore"
	Export  = "vault/export"
)

// Request is what is asked for; each command reads what concerns it. Paths are absolute and as the serving process sees them.
type Request struct {
	// Vault is the directory of the vault.
	Vault string `json:"vault"`
	// Repair is for Check.
	Repair bool `json:"repair,omitempty"`
	// Dir is the backup to write or to read, or the directory of an export. Previous is an earlier backup.
	Dir      string `json:"dir,omitempty"`
	Previous string `json:"previous,omitempty"`
	Format   string `json:"format,omitempty"`
	Account  string `json:"account,omitempty"`
	Mailbox  string `json:"mailbox,omitempty"`
	// Into is the name below which Restore puts mailboxes.
	Into string `json:"into,omitempty"`
}

// Event is what is told while a command works: how far it is, or a problem.
type Event struct {
	Step string `json:"step,omitempty"`
	Done int64  `json:"done,omitempty"`
	// Of is how much there is to do, 0 when nobody knows; Unit what is counted.
	Of      int64          `json:"of,omitempty"`
	Unit    string         `json:"unit,omitempty"`
	Problem *vault.Problem `json:"problem,omitempty"`
}

// Result is what was done.
type Result struct {
	Checked *vault.Checked `json:"checked,omitempty"`
	Files   *Files         `json:"files,omitempty"`
	Compact *Compacted     `json:"compacted,omitempty"`
	Backup  *BackedUp      `json:"backup,omitempty"`
	Carried *export.Counts `json:"carried,omitempty"`
	// Into is where Restore put mailboxes.
	Into string `json:"into,omitempty"`
}

// Files counts the files of the database that were read, and those that are damaged.
type Files struct {
	Read    int64 `json:"read"`
	Damaged int64 `json:"damaged"`
	Octets  int64 `json:"octets"`
}

// Compacted is the size of the database before and after.
type Compacted struct {
	Before int64 `json:"before"`
	After  int64 `json:"after"`
}

// BackedUp is a backup that was written or read.
type BackedUp struct {
	Dir    string    `json:"dir"`
	Made   time.Time `json:"made"`
	Files  int       `json:"files"`
	Octets int64     `json:"octets"`
	Shared int64     `json:"shared"`
}

// Run does what is asked for. event is called from one goroutine at a time, progress a few times a second at most.
func Run(ctx context.Context, v *Vault, name string, r Request, event func(Event)) (Result, error) {
	t := &teller{event: event}
	switch name {
	case Check:
		return check(ctx, v, r, t)
	case Compact:
		return compact(ctx, v, t)
	case Backup:
		b, err := v.DB.Backup(ctx, r.Dir, r.Previous, t.octets("copying and reading back"))
		if err != nil {
			return Result{}, err
		}
		return Result{Backup: backedUp(r.Dir, b)}, nil
	case Restore:
		return restore(ctx, v, r, t)
	case Export:
		counts, err := export.Export(ctx, v.Store, export.Options{
			Format: r.Format, Dir: r.Dir, Account: r.Account, Mailbox: r.Mailbox, Progress: t.messages("exporting"), Problem: t.problem,
		})
		return Result{Carried: &counts}, err
	}
	return Result{}, fmt.Errorf("there is no command %q", name)
}

func backedUp(dir string, b *kv.Backup) *BackedUp {
	return &BackedUp{Dir: dir, Made: b.Made, Files: len(b.Files), Octets: b.Octets(), Shared: b.Shared}
}

// teller thins progress out.
type teller struct {
	mu    sync.Mutex
	last  time.Time
	event func(Event)
}

const tellEvery = 300 * time.Millisecond

func (t *teller) tell(e Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now := time.Now(); e.Problem != nil || now.Sub(t.last) >= tellEvery {
		t.last = now
		t.event(e)
	}
}

func (t *teller) octets(step string) func(done, of int64) {
	return func(done, of int64) { t.tell(Event{Step: step, Done: done, Of: of, Unit: "octets"}) }
}

func (t *teller) messages(step string) func(export.Counts) {
	return func(c export.Counts) { t.tell(Event{Step: step, Done: c.Messages, Unit: "messages"}) }
}

func (t *teller) problem(text string) { t.tell(Event{Problem: &vault.Problem{Text: text}}) }

func check(ctx context.Context, v *Vault, r Request, t *teller) (Result, error) {
	files, err := CheckFiles(ctx, vfs.Default, v.Path, true, t.octets("reading files"), func(p vault.Problem) { t.tell(Event{Problem: &p}) })
	result := Result{Files: &files}
	if err != nil {
		return result, err
	}
	options := vault.CheckOptions{
		Progress: func(c vault.Checked) { t.tell(Event{Step: "reading rows", Done: c.Messages, Unit: "messages"}) },
		Problem:  func(p vault.Problem) { t.tell(Event{Problem: &p}) },
	}
	if r.Repair {
		// A look first: nobody has to wait for a store in which nothing is wrong.
		quiet := options
		quiet.Problem = nil
		checked, err := v.Store.Check(ctx, quiet)
		if result.Checked = &checked; err != nil || checked.Problems == 0 {
			return result, err
		}
		options.Repair = true
	}
	checked, err := v.Store.Check(ctx, options)
	result.Checked = &checked
	if errors.Is(err, vault.ErrUnreadable) && r.Repair {
		err = fmt.Errorf("nothing was repaired: %w; stop the server and save what can be read with `postilion vault check --salvage DIR`", err)
	} else if errors.Is(err, vault.ErrUnreadable) {
		err = nil
	}
	return result, err
}

func compact(ctx context.Context, v *Vault, t *teller) (Result, error) {
	before := v.DB.Metrics()
	ended := make(chan error, 1)
	go func() { ended <- v.DB.Compact(ctx) }()
	ticker := time.NewTicker(tellEvery)
	defer ticker.Stop()
	for {
		select {
		case err := <-ended:
			return Result{Compact: &Compacted{Before: before.DiskBytes, After: v.DB.Metrics().DiskBytes}}, err
		case <-ticker.C:
			m := v.DB.Metrics()
			t.tell(Event{Step: "compacting", Done: m.CompactedBytes + m.FlushedBytes - before.CompactedBytes - before.FlushedBytes, Unit: "octets"})
		}
	}
}

// restore brings an account of a backup beside what it has now.
func restore(ctx context.Context, v *Vault, r Request, t *teller) (Result, error) {
	if _, err := kv.VerifyBackup(ctx, vfs.Default, r.Dir, t.octets("reading the backup")); err != nil {
		return Result{}, err
	}
	b, err := kv.ReadBackup(vfs.Default, r.Dir)
	if err != nil {
		return Result{}, err
	}
	if r.Into == "" {
		r.Into = "Restored " + b.Made.Format("2006-01-02")
	}
	db, err := kv.Open(r.Dir, kv.Options{ReadOnly: true})
	if err != nil {
		return Result{}, err
	}
	old, err := vault.Open(db, vault.Options{ReadOnly: true})
	if err != nil {
		return Result{}, errors.Join(err, db.Close())
	}
	counts, err := export.Copy(ctx, old, v.Store, export.CopyOptions{
		Account: r.Account, Mailbox: r.Mailbox, Into: r.Into, Progress: t.messages("restoring"), Problem: t.problem,
	})
	err = errors.Join(err, old.Close(), db.Close())
	return Result{Backup: backedUp(r.Dir, b), Carried: &counts, Into: r.Into}, err
}

// Commands are what a process that serves vaults answers on its control socket. find returns the open vault that lies in a directory; "" asks for the only one.
func Commands(find func(path string) (*Vault, error)) []control.Command {
	var commands []control.Command
	for _, name := range []string{Check, Compact, Backup, Restore, Export} {
		commands = append(commands, control.Command{Name: name, Run: func(ctx context.Context, arguments json.RawMessage, event func(any) error) (any, error) {
			var r Request
			if err := json.Unmarshal(arguments, &r); err != nil {
				return nil, fmt.Errorf("arguments of %s: %w", name, err)
			}
			for _, path := range []string{r.Dir, r.Previous} {
				if path != "" && !filepath.IsAbs(path) {
					return nil, fmt.Errorf("%s is no absolute path", path)
				}
			}
			v, err := find(r.Vault)
			if err != nil {
				return nil, err
			}
			return Run(ctx, v, name, r, func(e Event) { _ = event(e) })
		}})
	}
	return commands
}
