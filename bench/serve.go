package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"syscall"
	"time"

	"postilion/service"
)

// The environment of serve: where its CPU profile goes, and where it notes its counts and its heap at each SIGUSR1.
const (
	profileVariable = "BENCH_CPU_PROFILE"
	countsVariable  = "BENCH_COUNTS"
	heapVariable    = "BENCH_HEAP_PROFILE"
)

// serveProfiled is `postilion serve -c dir` in this process, so that the shipped server needs no profiler. SIGTERM ends it and completes the profile.
func serveProfiled(ctx context.Context, dir string) (err error) {
	if os.Getenv(heapVariable) != "" {
		runtime.MemProfileRate = 512
	}
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
	tidy := time.NewTicker(service.TidyEvery)
	defer tidy.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tidy.C:
			server.Tidy()
		case err := <-server.Fatal():
			return err
		case <-count:
			if err := noteCounts(os.Getenv(countsVariable), os.Getenv(heapVariable)); err != nil {
				return err
			}
		}
	}
}

// counts is what a process has allocated since it began, and what it holds after a garbage collection, in octets.
type counts struct {
	Objects, Octets             uint64
	HeapLive, HeapInUse, Stacks uint64
}

func noteCounts(name, heap string) error {
	var m runtime.MemStats
	if heap != "" {
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	if heap != "" {
		if err := writeHeap(heap); err != nil {
			return err
		}
	}
	text, err := json.Marshal(counts{Objects: m.Mallocs, Octets: m.TotalAlloc, HeapLive: m.HeapAlloc, HeapInUse: m.HeapInuse, Stacks: m.StackInuse})
	if err != nil {
		return err
	}
	if err := os.WriteFile(name+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}

func writeHeap(name string) error {
	file, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(pprof.WriteHeapProfile(file), file.Close())
}
