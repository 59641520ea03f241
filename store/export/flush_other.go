//go:build !linux

package export

import "syscall"

// flush has the system write everything to the disk.
func flush(string) error {
	syscall.Sync()
	return nil
}
