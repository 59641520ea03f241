package kv

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime/debug"
)

// cursorPrefix begins the rows of the system space that say how far a migration came.
const cursorPrefix = 'c'

// Format is the format of the rows of a space: which version a program writes, and how rows of earlier versions are brought to it.
type Format struct {
	// Name tells people what is meant, such as "mail store".
	Name string
	// Key is the row of the space that keeps the version.
	Key []byte
	// Version is what this program reads and writes; the first is 1.
	Version int
	// Steps lead from one version to the next, one for each version below Version that can still be read, the oldest first.
	Steps []Step
	// Progress is told what is done; it may be nil. It must return at once.
	Progress func(Progress)
}

// Step brings the rows of a space from version From to the next one. Run may be stopped at any moment, by a crash too, and is called again with the
// cursor of the last commit that is durable: what it does in each batch must be right together with that cursor, or right when done twice.
type Step struct {
	From int
	// What says what the step does, for the log.
	What string
	Run  func(ctx context.Context, m *Migration) error
}

// Progress is how far a migration is.
type Progress struct {
	Name, What string
	From, To   int
	// Done counts rows or whatever the step counts.
	Done int64
	// Finished is true when the step has ended and is durable.
	Finished bool
}

// Migration is a step at work.
type Migration struct {
	// DB and Space are where the rows lie.
	DB    *DB
	Space *Space

	format *Format
	step   *Step
	cursor []byte
	done   int64
}

// Cursor is what the last Commit was given, also before a crash; nil at the beginning of the step.
func (m *Migration) Cursor() []byte { return m.cursor }

// Commit makes the batch durable, and with it the place from which the step goes on after a crash. count is added to what was done.
func (m *Migration) Commit(batch *Batch, cursor []byte, count int64) error {
	own := &Space{db: m.DB, prefix: systemSpace}
	row := append(binary.AppendUvarint(binary.AppendUvarint(nil, uint64(m.step.From)), uint64(m.done+count)), cursor...)
	batch.Set(own, m.key(), row)
	if err := batch.Commit(); err != nil {
		return err
	}
	m.cursor, m.done = append(m.cursor[:0], cursor...), m.done+count
	m.report(false)
	return nil
}

func (m *Migration) key() []byte { return append([]byte{cursorPrefix}, m.Space.name...) }

func (m *Migration) report(finished bool) {
	if m.format.Progress != nil {
		m.format.Progress(Progress{Name: m.format.Name, What: m.step.What, From: m.step.From, To: m.step.From + 1, Done: m.done, Finished: finished})
	}
}

// Migrate brings the rows of the space to the format, step by step, and stamps a new space with its version. It answers ErrFormat for rows of a version
// that is newer, or so old that there is no step for it. When ctx ends, what was done stays and the next call goes on from there.
func (s *Space) Migrate(ctx context.Context, format Format) error {
	for {
		version, by, err := s.version(&format)
		if err != nil {
			return err
		}
		switch {
		case version == format.Version:
			return nil
		case version == 0:
			return s.stamp(&format, format.Version, nil)
		case version > format.Version:
			return formatError(true, "the %s has version %d, written by %s; this program, %s, reads up to %d: start that program or a newer one",
				format.Name, version, by, program(), format.Version)
		}
		if err := s.migrate(ctx, &format, version); err != nil {
			return err
		}
	}
}

func (s *Space) migrate(ctx context.Context, format *Format, version int) error {
	for i := range format.Steps {
		if format.Steps[i].From != version {
			continue
		}
		m := &Migration{DB: s.db, Space: s, format: format, step: &format.Steps[i]}
		if err := m.resume(); err != nil {
			return err
		}
		m.report(false)
		if err := m.step.Run(ctx, m); err != nil {
			return fmt.Errorf("kv: %s, from version %d to %d (%s): %w", format.Name, version, version+1, m.step.What, err)
		}
		if err := s.stamp(format, version+1, m.key()); err != nil {
			return err
		}
		m.report(true)
		return nil
	}
	return formatError(true, "the %s has version %d, and this program, %s, has no step from there to %d: start an older program once that has",
		format.Name, version, program(), format.Version)
}

// resume finds how far the step came before.
func (m *Migration) resume() error {
	own := &Space{db: m.DB, prefix: systemSpace}
	row, err := m.DB.Get(own, nil, m.key())
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	from, n := binary.Uvarint(row)
	if n <= 0 || from != uint64(m.step.From) {
		return nil
	}
	done, size := binary.Uvarint(row[n:])
	if size <= 0 {
		return nil
	}
	m.done, m.cursor = int64(done), row[n+size:]
	return nil
}

// version returns 0 when the space has none.
func (s *Space) version(format *Format) (version int, by string, err error) {
	row, err := s.db.Get(s, nil, format.Key)
	if errors.Is(err, ErrNotFound) {
		return 0, "", nil
	}
	if err != nil {
		return 0, "", err
	}
	n, size := binary.Uvarint(row)
	if size <= 0 || n < 1 || n > 1<<31-1 {
		return 0, "", formatError(true, "the version of the %s cannot be read", format.Name)
	}
	by = string(row[size:])
	if by == "" {
		by = "another program"
	}
	return int(n), by, nil
}

// stamp writes the version, and with it takes a finished step's cursor away.
func (s *Space) stamp(format *Format, version int, cursor []byte) error {
	batch := s.db.Batch(64)
	defer batch.Close()
	batch.Set(s, format.Key, append(binary.AppendUvarint(nil, uint64(version)), program()...))
	if cursor != nil {
		batch.Delete(&Space{db: s.db, prefix: systemSpace}, cursor)
	}
	return batch.Commit()
}

// program names this program for the one who finds what it wrote.
func program() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return "postilion " + info.Main.Version
	}
	return "postilion (development build)"
}
