package service_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	osuser "os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"postilion/service"
	"postilion/service/master"
	"postilion/service/roles"
)

// divideVariable names the directory that a copy of this test program serves as master, worker and helper.
const divideVariable = "POSTILION_TEST_DIVIDE"

// serveDivided is the serve command of root in little.
func serveDivided(dir string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	options := service.Options{PostfixDir: dir, DovecotFile: filepath.Join(dir, "dovecot.conf"), Getenv: os.Getenv, Stderr: os.Stderr}
	authority := service.NewAuthority(options)
	grants, err := authority.Read()
	if err == nil {
		err = roles.Serve(ctx, roles.Options{
			Service: options, Authority: authority, Grants: grants, Name: "test",
			Ready:     func(line string, _ []string) { fmt.Fprintln(os.Stderr, line) },
			Reloading: func(bool) {},
		}, reload)
	}
	if err != nil {
		if !errors.Is(err, master.ErrWorker) {
			fmt.Fprintln(os.Stderr, "fatal: "+err.Error())
		}
		return 1
	}
	return 0
}

// mailUID owns the mail of tests that need no system user for it; nobody has this number.
const mailUID = 41234

// divided configures a system for a server that root starts, whose worker is nobody. Its files can be read by root alone.
func divided(t *testing.T, with setting) *system {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: only root can start processes as other users")
	}
	if _, err := osuser.Lookup("nobody"); err != nil {
		t.Skipf("needs a user nobody: %v", err)
	}
	with.main += "mail_owner = nobody\n"
	s := configure(t, with)
	if err := os.Chmod(s.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s.replace("dovecot.conf", fmt.Sprintf("uid=%d gid=%d", os.Getuid(), os.Getgid()), fmt.Sprintf("uid=%d gid=%d", mailUID, mailUID))
	for i := range with.accounts {
		for _, dir := range []string{"mail", "home"} {
			path := filepath.Join(s.dir, dir, fmt.Sprintf("u%d", i))
			if err := errors.Join(os.MkdirAll(path, 0o755), os.Chown(path, mailUID, mailUID)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return s
}

// replace changes a file of the configuration.
func (s *system) replace(file, old, text string) {
	s.t.Helper()
	content, err := os.ReadFile(filepath.Join(s.dir, file))
	if err != nil {
		s.t.Fatal(err)
	}
	if !strings.Contains(string(content), old) {
		s.t.Fatalf("%s has no %q", file, old)
	}
	s.write(file, strings.ReplaceAll(string(content), old, text))
}

// divide starts the system as root does. It is ended, and must end in order, when the test does.
func (s *system) divide() *exec.Cmd {
	s.t.Helper()
	process := s.serveBy(divideVariable)
	s.t.Cleanup(func() {
		if err := process.Process.Signal(os.Interrupt); err != nil {
			s.t.Error(err)
		}
		if err := process.Wait(); err != nil {
			s.t.Errorf("the server did not end in order: %v", err)
		}
		for deadline := time.Now().Add(patience); len(s.parts(process, "")) > 0; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				s.t.Errorf("processes are left: %v", s.parts(process, ""))
				break
			}
		}
		if s.t.Failed() {
			s.t.Logf("troubles in the log:\n%s", s.troubles(40))
		}
	})
	return process
}

// parts are the processes that descend from the server and have the role; "" is any.
func (s *system) parts(server *exec.Cmd, role string) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		s.t.Fatal(err)
	}
	parents := map[int]int{}
	// An agent whose helper was killed has another parent and goes on working.
	orphans := map[int]bool{}
	var found []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		status, err := os.ReadFile(filepath.Join("/proc", e.Name(), "status"))
		if err != nil {
			continue
		}
		_, parent, _ := strings.Cut(string(status), "\nPPid:\t")
		parent, _, _ = strings.Cut(parent, "\n")
		parents[pid], _ = strconv.Atoi(parent)
		line, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		words := strings.Split(string(line), "\x00")
		if err == nil && len(words) > 2 && words[0] == "postilion" && (role == "" || words[1] == role) && !strings.Contains(string(status), "\nState:\tZ") {
			found = append(found, pid)
			orphans[pid] = words[1] == "agent" && strings.Contains(string(status), fmt.Sprintf("\nUid:\t%d\t", mailUID))
		}
	}
	return slices.DeleteFunc(found, func(pid int) bool {
		if orphans[pid] {
			return false
		}
		for at := pid; at > 1; at = parents[at] {
			if at == server.Process.Pid {
				return false
			}
		}
		return true
	})
}

// part waits for the process of a role.
func (s *system) part(server *exec.Cmd, role string) int {
	s.t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if pids := s.parts(server, role); len(pids) > 0 {
			return pids[0]
		}
	}
	s.t.Fatalf("there is no %s", role)
	return 0
}

// hasNothingOfRoot looks at who a process is.
func hasNothingOfRoot(t *testing.T, pid, uid int) {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		words := strings.Fields(value)
		switch name {
		case "Uid":
			if slices.ContainsFunc(words, func(w string) bool { return w != strconv.Itoa(uid) }) {
				t.Errorf("process %d has %s, want %d", pid, line, uid)
			}
		case "Gid", "Groups":
			if slices.Contains(words, "0") {
				t.Errorf("process %d has %s", pid, line)
			}
		case "CapInh", "CapPrm", "CapEff", "CapAmb":
			if strings.Trim(words[0], "0") != "" {
				t.Errorf("process %d has %s", pid, line)
			}
		case "NoNewPrivs":
			if words[0] != "1" {
				t.Errorf("process %d may gain privileges", pid)
			}
		}
	}
}

// TestSystemUser makes a user, sends mail by SMTP and reads it by IMAP: it lies in the user's home and belongs to the user, and only the helper is root.
func TestSystemUser(t *testing.T) {
	s := divided(t, setting{driver: "maildir", accounts: 1})
	name := fmt.Sprintf("pt%d", os.Getpid())
	home := filepath.Join(s.dir, "users-home")
	if out, err := exec.Command("useradd", "-r", "-U", "-m", "-K", "UMASK=077", "-d", home, "-s", "/usr/sbin/nologin", name).CombinedOutput(); err != nil {
		t.Skipf("needs useradd: %v %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("userdel", name).CombinedOutput(); err != nil {
			t.Errorf("userdel: %v %s", err, out)
		}
	})
	found, err := osuser.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	uid, err := strconv.Atoi(found.Uid)
	if err != nil {
		t.Fatal(err)
	}
	s.write("users", fmt.Sprintf("%s:{PLAIN}%s\n", name, pass))
	s.replace("dovecot.conf", "driver = static", "driver = passwd")
	s.replace("dovecot.conf", fmt.Sprintf("args = uid=%d gid=%d home=%s/home/%%n\n", mailUID, mailUID, s.dir), "")
	s.replace("dovecot.conf", "maildir:"+s.dir+"/mail/%n", "maildir:~/Maildir")
	s.write("dovecot.conf", s.read("dovecot.conf")+"auth_username_format = %Ln\nfirst_valid_uid = 100\n")
	server := s.divide()

	w, err := s.greetSMTP("smtp")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.mail("a@elsewhere.example", []string{name + "@" + domain}, []byte("Subject: to a system user\r\n\r\nbody\r\n")); err != nil {
		t.Fatal(err)
	}
	w.close()
	mails, err := filepath.Glob(filepath.Join(home, "Maildir", "*", "*.*"))
	if err != nil || len(mails) == 0 {
		t.Fatalf("no mail in %s: %v", home, err)
	}
	for _, mail := range mails {
		info, err := os.Stat(mail)
		if err != nil || int(info.Sys().(*syscall.Stat_t).Uid) != uid {
			t.Errorf("%s does not belong to %s: %v, %v", mail, name, info, err)
		}
	}
	reader, err := s.login("imaps", name)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.close()
	if _, err := reader.imap("SELECT INBOX"); err != nil {
		t.Fatal(err)
	}
	answers, err := reader.imap("FETCH 1 BODY.PEEK[HEADER]")
	if err != nil || len(answers) == 0 || !bytes.Contains(bytes.Join(answers[0].literals, nil), []byte("to a system user")) {
		t.Errorf("IMAP: %q, %v", answers, err)
	}
	nobody, err := osuser.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	worker, err := strconv.Atoi(nobody.Uid)
	if err != nil {
		t.Fatal(err)
	}
	hasNothingOfRoot(t, s.part(server, "worker"), worker)
	hasNothingOfRoot(t, s.part(server, "agent"), uid)
}

func (s *system) read(file string) string {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join(s.dir, file))
	if err != nil {
		s.t.Fatal(err)
	}
	return string(text)
}

// TestKilledParts kills parts of the server while mail flows: everything acknowledged is there once, and the master is still the same.
func TestKilledParts(t *testing.T) {
	for _, c := range []struct {
		driver  string
		victims []string
		kills   int
	}{
		{"vault", []string{"worker"}, 20},
		{"maildir", []string{"agent", "worker", "helper", "agent"}, 20},
	} {
		t.Run(c.driver, func(t *testing.T) {
			const accounts, sessions = 4, 4
			kills := c.kills
			if testing.Short() {
				kills = 4
			}
			s := divided(t, setting{driver: c.driver, accounts: accounts})
			server := s.divide()
			ledger := &ledger{acknowledged: map[string]bool{}}
			var over atomic.Bool
			var load sync.WaitGroup
			for n := range sessions {
				load.Go(func() {
					for attempt := 0; !over.Load(); attempt++ {
						s.numberedUntil(ledger, &over, attempt, n, accounts)
					}
				})
			}
			for i := range kills {
				ledger.nextRound()
				ledger.wait(12)
				victim := c.victims[i%len(c.victims)]
				if err := syscall.Kill(s.part(server, victim), syscall.SIGKILL); err != nil {
					t.Errorf("kill %s: %v", victim, err)
				}
			}
			ledger.nextRound()
			ledger.wait(12)
			over.Store(true)
			load.Wait()
			s.audit(ledger, accounts)
			if killed := strings.Count(s.log.String(), "killed by signal 9"); killed < kills/4 {
				t.Errorf("%d of %d deaths are in the log", killed, kills)
			}
		})
	}
}

// TestMasterReloads reloads a divided server: a new port, a key that only root can read, and files that cannot be used.
func TestMasterReloads(t *testing.T) {
	s := divided(t, setting{accounts: 1})
	server := s.divide()
	text := []byte("Subject: reload\r\n\r\nbody\r\n")
	if err := s.postOne(0, text); err != nil {
		t.Fatal(err)
	}
	before, err := s.serial("imaps")
	if err != nil {
		t.Fatal(err)
	}
	old := s.ports["smtp"]
	s.ports["smtp"] = freePorts(t)["smtp"]
	s.replace("master.cf", fmt.Sprintf("127.0.0.1:%d ", old), fmt.Sprintf("127.0.0.1:%d ", s.ports["smtp"]))
	if err := s.replaceCertificate(); err != nil {
		t.Fatal(err)
	}
	worker := s.part(server, "worker")
	reloads := 0
	reload := func(want string) {
		t.Helper()
		reloads++
		if err := server.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
			if strings.Count(s.log.String(), want) > 0 {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("the log has no %q:\n%s", want, s.log)
			}
		}
	}
	reload("reloaded; ready")
	if err := s.postOne(0, text); err != nil {
		t.Fatal(err)
	}
	if after, err := s.serial("imaps"); err != nil || after == before {
		t.Errorf("the certificate is the old one: %v", err)
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		conn, err := s.dialPort(old)
		if err != nil {
			break
		}
		_ = conn.Close()
		if time.Now().After(deadline) {
			t.Error("the old port is still open")
			break
		}
	}
	good := s.read("main.cf")
	s.write("main.cf", good+"smtpd_recipient_limit = many\n")
	reload("smtpd_recipient_limit")
	if err := s.postOne(0, text); err != nil {
		t.Errorf("after a broken reload: %v", err)
	}
	s.write("main.cf", good)
	s.countMail(1, 3)
	if now := s.part(server, "worker"); now != worker {
		t.Errorf("worker %d was replaced by %d", worker, now)
	}
}

// TestNoUserForTheWorker: the error names the setting and says what to do.
func TestNoUserForTheWorker(t *testing.T) {
	for _, c := range []struct{ owner, want string }{
		{"no-such-user-here", "unknown user"},
		{"root", "must not work as root"},
	} {
		s := configure(t, setting{accounts: 1, main: "mail_owner = " + c.owner + "\n"})
		authority := service.NewAuthority(service.Options{PostfixDir: s.dir, DovecotFile: filepath.Join(s.dir, "dovecot.conf"), Getenv: s.getenv, Stderr: s.log})
		_, err := authority.Read()
		if err == nil {
			t.Fatalf("%s was taken", c.owner)
		}
		for _, want := range []string{c.want, "mail_owner", "main.cf", "postilion_single_process"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%v: does not say %q", err, want)
			}
		}
	}
	s := configure(t, setting{accounts: 1, main: "postilion_single_process = yes\n"})
	authority := service.NewAuthority(service.Options{PostfixDir: s.dir, Getenv: s.getenv, Stderr: s.log})
	if _, err := authority.Read(); !errors.Is(err, service.ErrSingleProcess) {
		t.Errorf("postilion_single_process: %v", err)
	}
}
