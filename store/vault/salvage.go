package vault

import (
	"context"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2/vfs"

	"postilion/kv"
	"postilion/kv/files"
	"postilion/store"
)

// salvageBatch is how many octets of rows are written in one step.
const salvageBatch = 4 << 20

// ErrNothing: nothing of a database could be read.
var ErrNothing = fmt.Errorf("%w: no row of it can be read", store.ErrDamaged)

// SalvageOptions tell Salvage what to do; all may be nil.
type SalvageOptions struct {
	FS       vfs.FS
	Now      Options
	Progress func(rows int64)
	// Damage is told which parts of which files cannot be read, Problem what that means for mail and what was made of it.
	Damage  func(text string)
	Problem func(Problem)
}

// Salvage reads around the damage of the database in dir, which nobody may have open and which is not changed, into a new database in target, and repairs the store
// there: what it counts at the end is what was saved.
func Salvage(ctx context.Context, dir, target string, o SalvageOptions) (Checked, error) {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if names, err := o.FS.List(target); err == nil && len(names) > 0 {
		return Checked{}, fmt.Errorf("vault: salvage to %s: it is not empty (it has %s)", target, names[0])
	}
	db, err := kv.Open(target, kv.Options{FS: o.FS, Logger: o.Now.Logger})
	if err != nil {
		return Checked{}, err
	}
	checked, err := salvage(ctx, dir, db, o)
	return checked, errors.Join(err, db.Close())
}

func salvage(ctx context.Context, dir string, db *kv.DB, o SalvageOptions) (Checked, error) {
	batch := db.Batch(salvageBatch)
	defer func() { batch.Close() }()
	rows, lost := int64(0), int64(0)
	err := files.Salvage(ctx, o.FS, dir, files.SalvageOptions{Progress: o.Progress, Damage: func(d files.Damage) {
		if o.Damage != nil {
			o.Damage(d.String())
		}
	}}, func(row files.Row) error {
		if row.Err != nil || len(row.Key) == 0 {
			lost++
			return nil
		}
		rows++
		batch.Set(db.Raw(row.Key[0]), row.Key[1:], row.Value)
		if batch.Len() < salvageBatch {
			return nil
		}
		err := batch.CommitUnsynced()
		batch.Close()
		batch = db.Batch(salvageBatch)
		return err
	})
	if err == nil {
		err = batch.Commit()
	}
	if err != nil {
		return Checked{}, err
	}
	if rows == 0 {
		return Checked{}, ErrNothing
	}
	if lost > 0 && o.Damage != nil {
		o.Damage(fmt.Sprintf("%d rows have values that cannot be read", lost))
	}
	s, err := Open(db, o.Now)
	if err != nil {
		return Checked{}, err
	}
	first, err := s.Check(ctx, CheckOptions{Repair: true, Problem: o.Problem})
	var after Checked
	if err == nil {
		after, err = s.Check(ctx, CheckOptions{})
		after.Lost, after.Repaired = first.Lost, first.Repaired
	}
	return after, errors.Join(err, s.Close())
}
