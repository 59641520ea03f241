package authd_test

import (
	"bufio"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postilion/account"
	"postilion/account/authclient"
	"postilion/server/authd"
)

func expand(template string, v map[string]string) (string, error) {
	return strings.NewReplacer("%u", v["u"], "%n", v["n"]).Replace(template), nil
}

// start serves both kinds of sockets over a passwd-file and returns their paths.
func start(t *testing.T) (clients, lookups string, server *authd.Server) {
	t.Helper()
	dir := t.TempDir()
	users := filepath.Join(dir, "users")
	text := "alice:{PLAIN}pw:1000:1001::/home/alice::userdb_quota_rule=*:storage=1M\nshut:{PLAIN}pw::::::nologin=y\n"
	if err := os.WriteFile(users, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	a, err := account.New(account.Options{
		Passdbs: []account.Passdb{{Driver: "passwd-file", Args: users}}, Userdbs: []account.Userdb{{Driver: "passwd-file", Args: users}},
		Mechanisms: []string{"plain", "login", "scram-sha-256"}, Expand: expand,
	})
	if err != nil {
		t.Fatal(err)
	}
	if server, err = authd.New(authd.Options{Auth: a, Directory: a, Passdb: a}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	for name, serve := range map[string]func(context.Context, net.Listener) error{"auth": server.Serve, "auth-userdb": server.ServeLookups} {
		l, err := net.Listen("unix", filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		go func() { done <- serve(ctx, l) }()
	}
	t.Cleanup(func() {
		cancel()
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})
	return filepath.Join(dir, "auth"), filepath.Join(dir, "auth-userdb"), server
}

func TestAuthclient(t *testing.T) {
	path, _, _ := start(t)
	c := authclient.New("unix", path, "smtp", nil)
	defer c.Close()
	ctx := context.Background()
	if got := c.Mechanisms(account.Client{}); len(got) != 3 || got[0].Name != "PLAIN" || !got[0].Plaintext || got[2].Plaintext {
		t.Errorf("mechanisms %v", got)
	}
	for range 3 {
		if u, err := c.Password(ctx, account.Client{}, "alice", "pw"); err != nil || u.Name != "alice" {
			t.Errorf("right password: %v, %v", u, err)
		}
		if _, err := c.Password(ctx, account.Client{}, "alice", "no"); !errors.Is(err, account.ErrProof) {
			t.Errorf("wrong password: %v", err)
		}
	}
	if _, err := c.Password(ctx, account.Client{}, "shut", "pw"); !errors.Is(err, account.ErrDenied) {
		t.Errorf("nologin: %v", err)
	}
	if _, err := c.Start(ctx, account.Client{}, "NOSUCH"); !errors.Is(err, account.ErrMechanism) {
		t.Errorf("unknown mechanism: %v", err)
	}
	e, err := c.Start(ctx, account.Client{}, "login")
	if err != nil {
		t.Fatal(err)
	}
	var user *account.User
	for _, response := range [][]byte{nil, []byte("alice"), []byte("pw")} {
		if _, user, err = e.Next(ctx, response); err != nil {
			t.Fatal(err)
		}
	}
	if user == nil || user.Name != "alice" {
		t.Errorf("LOGIN: %v", user)
	}
	away := authclient.New("unix", path+"-not", "smtp", nil)
	if _, err := away.Password(ctx, account.Client{}, "alice", "pw"); !errors.Is(err, account.ErrUnavailable) {
		t.Errorf("no server: %v", err)
	}
}

// dialogue sends lines and compares what comes after the greeting; "" in want is the end of the connection.
func dialogue(t *testing.T, path, greetingEnd, send string, want ...string) {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(line, greetingEnd) {
			break
		}
	}
	// A server that hangs up early may break the pipe.
	_, _ = conn.Write([]byte(send))
	for _, expected := range want {
		line, err := r.ReadString('\n')
		if err != nil {
			line = ""
		}
		if got := strings.TrimSuffix(line, "\n"); got != expected {
			t.Errorf("after %.80q: %q instead of %q (%v)", send, got, expected, err)
		}
	}
}

func TestDialogues(t *testing.T) {
	clients, lookups, server := start(t)
	hello := "VERSION\t1\t2\nCPID\t7\n"
	dialogue(t, clients, "DONE", hello+"AUTH\t1\tPLAIN\tservice=smtp\tresp=AGFsaWNlAHB3\n", "OK\t1\tuser=alice")
	dialogue(t, clients, "DONE", hello+"AUTH\t1\tPLAIN\tservice=smtp\tresp=AGFsaWNlAHg=\n", "FAIL\t1\tuser=alice")
	dialogue(t, clients, "DONE", hello+"CONT\t9\t\n", "FAIL\t9\treason=Authentication request timed out")
	for _, hostile := range []string{
		"CPID\t7\n", "VERSION\t2\t0\n", hello + "FOO\n", hello + "AUTH\t0\tPLAIN\tservice=x\n", hello + "AUTH\t1\tPLAIN\n",
		hello + "AUTH\t99999999999\tPLAIN\tservice=x\n", hello + strings.Repeat("A", 20000),
	} {
		dialogue(t, clients, "DONE", hostile, "")
	}
	version := "VERSION\t1\t1\n"
	dialogue(t, lookups, "SPID", version+"USER\t1\talice\tservice=lmtp\n", "USER\t1\talice\tuid=1000\tgid=1001\thome=/home/alice\tquota_rule=*:storage=1M")
	dialogue(t, lookups, "SPID", version+"USER\t2\tnobody\tservice=lmtp\n", "NOTFOUND\t2")
	dialogue(t, lookups, "SPID", version+"PASS\t3\tshut\tservice=imap\n", "PASS\t3\tuser=shut\tnologin=y")
	dialogue(t, lookups, "SPID", version+"LIST\t4\tservice=imap\n", "LIST\t4\talice", "LIST\t4\tshut", "DONE\t4\t")
	dialogue(t, lookups, "SPID", version+"FOO\n", "")
	for i := 0; server.Sessions() > 0 && i < 500; i++ {
		time.Sleep(10 * time.Millisecond)
	}
	if n := server.Sessions(); n != 0 {
		t.Errorf("%d sessions are left", n)
	}
}

func TestKindOf(t *testing.T) {
	for name, want := range map[string]authd.Kind{
		"auth-userdb": authd.Lookups, "auth-master": authd.Lookups, "/var/spool/postfix/private/auth": authd.Clients, "auth-client": authd.Clients,
		"auth-login": authd.Internal, "login/login": authd.Internal, "token-login/tokenlogin": authd.Internal, "auth-worker": authd.Internal, "auth-master-x": authd.Clients,
	} {
		if got := authd.KindOf(name); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
