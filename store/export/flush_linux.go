package export

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// flush waits until the file system of dir is on the disk.
func flush(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(f.Fd())), f.Close())
}
