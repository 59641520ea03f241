package main

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"postilion/service/certificate"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"postilion": main})
}

// TestScripts runs the sessions in testdata/script: each shows a command as it is used.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			// Sockets have short paths, and $WORK is deep.
			short, err := os.MkdirTemp("", "p")
			if err != nil {
				return err
			}
			e.Defer(func() { _ = os.RemoveAll(short) })
			e.Setenv("SHORT", short)
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"portbase": portBase, "certificate": makeCertificate, "status": wantStatus,
		},
	})
}

// portBase sets a variable to a base for which all ports of quickstart are free: portbase NAME.
func portBase(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: portbase NAME")
	}
	for range 200 {
		base := 12_000 + 1000*rand.IntN(18) // below the range from which systems pick ports by themselves
		if portsAreFree(base) {
			ts.Setenv(args[0], strconv.Itoa(base))
			return
		}
	}
	ts.Fatalf("no free ports")
}

func portsAreFree(base int) bool {
	for _, port := range []int{25, 110, 143, 465, 587, 993, 995} {
		listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", base+port))
		if err != nil {
			return false
		}
		if listener.Close() != nil {
			return false
		}
	}
	return true
}

// makeCertificate makes a self-signed pair that is valid for that many days: certificate CERT KEY DAYS NAME.
func makeCertificate(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 4 {
		ts.Fatalf("usage: certificate CERT KEY DAYS NAME")
	}
	days, err := strconv.Atoi(args[2])
	ts.Check(err)
	pair := certificate.Pair{CertificateFile: ts.MkAbs(args[0]), KeyFile: ts.MkAbs(args[1])}
	ts.Check(os.MkdirAll(filepath.Dir(pair.CertificateFile), 0o755))
	ts.Check(certificate.MakeSelfSigned(pair, time.Duration(days)*24*time.Hour+time.Hour, args[3]))
}

// wantStatus runs a command that must end with that status: status N postilion ARGUMENT ...
func wantStatus(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: status N COMMAND ...")
	}
	err := ts.Exec(args[1], args[2:]...)
	status := "0"
	if exit, ok := err.(interface{ ExitCode() int }); ok {
		status = strconv.Itoa(exit.ExitCode())
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if status != args[0] {
		ts.Fatalf("status %s instead of %s", status, args[0])
	}
}
