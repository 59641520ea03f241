package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A pid file is locked (flock) by the process whose number it holds for as long as that process lives, as Postfix's master does it: a file that nobody
// locks is left over and means nothing, whatever number it holds.

// pidFiles are the files that this process holds.
type pidFiles []*os.File

// errRunning tells that another process holds a pid file.
var errRunning = errors.New("is held by another server")

// holdPidFiles writes the process number into each file. Files that cannot be written are told in the error, and the others are held all the same.
func holdPidFiles(paths []string) (pidFiles, error) {
	var held pidFiles
	var errs []error
	for _, path := range paths {
		file, err := holdPidFile(path)
		if err != nil {
			errs = append(errs, fmt.Errorf("pid file %s: %w", path, err))
			continue
		}
		held = append(held, file)
	}
	return held, errors.Join(errs...)
}

func holdPidFile(path string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = errRunning
		}
		return nil, errors.Join(err, file.Close())
	}
	_, err = file.WriteAt(fmt.Appendf(nil, "%10d\n", os.Getpid()), 0)
	if err = errors.Join(err, file.Truncate(11)); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// release gives the files back. They stay where they are: without a lock they mean nothing.
func (p pidFiles) release() {
	for _, file := range p {
		// The lock goes with the descriptor; nothing was written since.
		_ = file.Close()
	}
}

// runningProcess returns the number of the process that holds a pid file, 0 when none does.
func runningProcess(path string) (int, error) {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer file.Close()
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
	if err == nil {
		return 0, nil
	}
	if !errors.Is(err, syscall.EWOULDBLOCK) {
		return 0, err
	}
	buffer := make([]byte, 32)
	n, err := file.Read(buffer)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(buffer[:n])))
	if err != nil || pid < 2 {
		return 0, fmt.Errorf("%s holds %q, which is no process number", path, buffer[:n])
	}
	return pid, nil
}

// awaitEnd waits until nobody holds the pid file.
func awaitEnd(path string, patience time.Duration, waiting func()) bool {
	begun, told := time.Now(), false
	for time.Since(begun) < patience {
		if pid, err := runningProcess(path); err != nil || pid == 0 {
			return true
		}
		if !told && time.Since(begun) > 5*time.Second {
			told = true
			waiting()
		}
		time.Sleep(50 * time.Millisecond)
	}
	return false
}
