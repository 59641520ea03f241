package care

import (
	"context"

	"github.com/cockroachdb/pebble/v2/vfs"

	"postilion/kv/files"
	"postilion/store/vault"
)

// CheckFiles reads every file of a database and compares its checksums. serving leaves out what a process that has it open is writing to.
func CheckFiles(ctx context.Context, fs vfs.FS, dir string, serving bool, progress func(done, of int64), problem func(vault.Problem)) (Files, error) {
	counts, err := files.Verify(ctx, fs, dir, files.VerifyOptions{
		Serving: serving, Progress: progress, Damage: func(d files.Damage) { problem(vault.Problem{Text: d.String()}) },
	})
	return Files{Read: counts.Files, Damaged: counts.Damaged, Octets: counts.Octets}, err
}
