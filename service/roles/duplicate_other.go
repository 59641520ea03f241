//go:build !linux

package roles

import "syscall"

func duplicate(from, to int) error { return syscall.Dup2(from, to) }
