package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"syscall"
	"time"

	"postilion/service"
)

// profileVariable names the file for serve's CPU profile, and countsVariable the file where it notes what it has allocated, at each SIGUSR1.
const (
	profileVariable = "BENCH_CPU_PROFILE"
	countsVariable  = "BENCH_COUNTS"
)

// serveProfiled is `postilion serve -c dir` in this process, so that the shipped server needs no profiler. SIGTERM ends it and completes the profile.
func serveProfiled(ctx context.Context, dir string) (err error) {
	server, err := service.Start(ctx, service.Options{
		PostfixDir: dir, DovecotFile: filepath.Join(dir, "dovecot.conf"), Getenv: os.Getenv, Stderr: os.Stderr,
	})
	if err != nil {
		return err
	}
	defer func() {
		patience, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
		defer cancel()
		err = errors.Join(err, server.Stop(patience))
	}()
	if name := os.Getenv(profileVariable); name != "" {
		file, err := os.Create(name)
		if err != nil {
			return err
		}
		defer file.Close()
		if err := pprof.StartCPUProfile(file); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	count := make(chan os.Signal, 1)
	signal.Notify(count, syscall.SIGUSR1)
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-server.Fatal():
			return err
		case <-count:
			if err := noteCounts(os.Getenv(countsVariable)); err != nil {
				return err
			}
		}
	}
}

// counts is what a process has allocated since it began.
type counts struct {
	objects, octets uint64
}

func noteCounts(name string) error {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	if err := os.WriteFile(name+".new", fmt.Appendf(nil, "%d %d\n", m.Mallocs, m.TotalAlloc), 0o600); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}
