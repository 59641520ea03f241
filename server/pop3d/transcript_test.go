package pop3d

import (
	"bufio"
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"postilion/account"
	"postilion/config/dovecot"
	"postilion/kv"
	"postilion/store"
	"postilion/store/vault"
)

var rewrite = flag.Bool("rewrite", false, "write what was observed into the transcripts")

// testAuth knows users whose password is "pw".
type testAuth struct{ noPlaintext bool }

func (a testAuth) Mechanisms(c account.Client) []account.Mechanism {
	if a.noPlaintext && !c.Secured {
		return nil
	}
	return []account.Mechanism{{Name: "PLAIN", Plaintext: true}, {Name: "LOGIN", Plaintext: true}}
}

func (a testAuth) Start(_ context.Context, c account.Client, mechanism string) (account.Exchange, error) {
	if mechanism != "PLAIN" {
		return nil, account.ErrMechanism
	}
	if a.noPlaintext && !c.Secured {
		return nil, account.ErrPlaintext
	}
	return testPlain{a}, nil
}

type testPlain struct{ a testAuth }

func (p testPlain) Next(ctx context.Context, response []byte) ([]byte, *account.User, error) {
	if response == nil {
		return []byte{}, nil, nil
	}
	f := bytes.Split(response, []byte{0})
	if len(f) != 3 {
		return nil, nil, account.ErrMalformed
	}
	user, err := p.a.Password(ctx, account.Client{}, string(f[1]), string(f[2]))
	return nil, user, err
}

func (a testAuth) Password(_ context.Context, _ account.Client, name, password string) (*account.User, error) {
	switch {
	case name == "shut":
		return nil, account.ErrDenied
	case name == "later":
		return nil, account.ErrUnavailable
	case name == "crash":
		panic("asked for")
	case password != "pw":
		return nil, account.ErrProof
	}
	return &account.User{Name: name, UID: -1, GID: -1}, nil
}

func (testAuth) APOP(_ context.Context, _ account.Client, name, banner, digest string) (*account.User, error) {
	sum := md5.Sum([]byte(banner + "pw"))
	if hex.EncodeToString(sum[:]) != digest {
		return nil, account.ErrProof
	}
	return &account.User{Name: name, UID: -1, GID: -1}, nil
}

type testMail struct{ store store.Store }

func (m testMail) Open(ctx context.Context, user *account.User) (store.Account, error) {
	return m.store.Open(ctx, store.Owner{User: user.Name, UID: -1, GID: -1})
}

// rig is a server for a test.
type rig struct {
	opt   Options
	store store.Store
}

func newRig(t testing.TB) *rig {
	db, err := kv.Open("db", kv.Options{FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	v, err := vault.Open(db, vault.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := v.Close(); err != nil {
			t.Error(err)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	expand := func(template string, variables map[string]string) (string, error) {
		return dovecot.Expand(template, dovecot.VarMap(variables))
	}
	return &rig{opt: Options{Auth: testAuth{}, Mail: testMail{v}, Expand: expand}, store: v}
}

type content struct{ *bytes.Reader }

// inbox returns the INBOX of a user.
func (r *rig) inbox(t testing.TB, user string) store.Mailbox {
	t.Helper()
	a, err := r.store.Open(context.Background(), store.Owner{User: user, UID: -1, GID: -1})
	if err != nil {
		t.Fatal(err)
	}
	box, err := a.Mailbox(context.Background(), store.Inbox)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = box.Close(), a.Close() })
	return box
}

func (r *rig) deliver(t testing.TB, user string, texts ...string) {
	t.Helper()
	var drafts []store.Draft
	for _, text := range texts {
		drafts = append(drafts, store.Draft{Content: content{bytes.NewReader([]byte(text))}, InternalDate: time.Unix(1700000000, 0)})
	}
	if _, err := r.inbox(t, user).Append(context.Background(), drafts); err != nil {
		t.Fatal(err)
	}
}

// listen serves on a loopback port until the test ends.
func (r *rig) listen(t testing.TB) (*Server, string) {
	srv := New(r.opt)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ctx, listener) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return srv, listener.Addr().String()
}

// peer is a client in a test.
type peer struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
}

// dial connects and reads the greeting.
func dial(t testing.TB, addr string) *peer {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	p := &peer{t, conn, bufio.NewReader(conn)}
	wantPrefix(t, p.line(), "+OK ")
	return p
}

func wantPrefix(t testing.TB, got, prefix string) {
	t.Helper()
	if !strings.HasPrefix(got, prefix) {
		t.Errorf("got %q, want %q", got, prefix)
	}
}

func (p *peer) write(text string) {
	if _, err := io.WriteString(p.conn, text); err != nil {
		p.t.Logf("writing: %v", err)
	}
}

// line reads a line; "" is the end of the connection.
func (p *peer) line() string {
	_ = p.conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	text, err := p.r.ReadString('\n')
	if err != nil && err != io.EOF && !strings.Contains(err.Error(), "reset") {
		p.t.Errorf("reading: %v (after %q)", err, text)
	}
	return text
}

// do sends a command and returns the whole response.
func (p *peer) do(command string) string {
	p.t.Helper()
	p.write(command + "\r\n")
	return p.response(command)
}

func (p *peer) response(command string) string {
	first := p.line()
	name, args, _ := strings.Cut(strings.ToUpper(command), " ")
	multi := name == "CAPA" || name == "RETR" || name == "TOP" || args == "" && (name == "LIST" || name == "UIDL" || name == "AUTH")
	if !multi || !strings.HasPrefix(first, "+OK") {
		return first
	}
	all := first
	for {
		line := p.line()
		all += line
		if line == ".\r\n" || line == "" {
			return all
		}
	}
}

func logIn(t testing.TB, addr, user string) *peer {
	t.Helper()
	p := dial(t, addr)
	wantPrefix(t, p.do("USER "+user), "+OK")
	wantPrefix(t, p.do("PASS pw"), "+OK Logged in.")
	return p
}

var timestamp = regexp.MustCompile(`<[0-9a-f]+\.[^>]*@[^>]*>`)

// TestTranscripts plays the files of testdata. Lines "set NAME" set an option, "mail USER TEXT" delivers TEXT (a Go string without quotes),
// "keyword USER UID NAME" and "expunge USER UID" change a mailbox. "1> COMMAND" sends a command on connection 1 (opened on first use), "1+"
// only connects, "1x" closes, "1?" reads one line more, "1>> TEXT" sends TEXT as it is. The indented lines are the answer.
func TestTranscripts(t *testing.T) {
	files, _ := filepath.Glob("testdata/*.txt")
	if len(files) == 0 {
		t.Fatal("no transcripts")
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) { playFile(t, file) })
	}
}

func playFile(t *testing.T, file string) {
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	p := &player{t: t, rig: newRig(t), peers: map[string]*peer{}}
	var got strings.Builder
	for line := range strings.Lines(string(want)) {
		if strings.HasPrefix(line, "    ") {
			continue
		}
		got.WriteString(line)
		got.WriteString(p.step(strings.TrimSuffix(line, "\n")))
	}
	if got.String() == string(want) {
		return
	}
	if *rewrite {
		if err := os.WriteFile(file, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Errorf("%s differs; got:\n%s", file, got.String())
}

type player struct {
	t     *testing.T
	rig   *rig
	addr  string
	peers map[string]*peer
}

func unquote(t *testing.T, text string) string {
	out, err := strconv.Unquote(`"` + text + `"`)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return out
}

func (p *player) step(line string) string {
	words := strings.SplitN(line, " ", 3)
	switch words[0] {
	case "", "#":
		return ""
	case "set":
		p.set(words[1], strings.Join(words[2:], ""))
		return ""
	case "mail":
		p.rig.deliver(p.t, words[1], unquote(p.t, words[2]))
		return ""
	case "keyword", "expunge":
		p.change(words[0], words[1], strings.Fields(words[2]))
		return ""
	}
	verb := words[0][1:]
	conn, ok := p.peers[words[0][:1]]
	answer := ""
	if !ok {
		conn, answer = p.connect()
		p.peers[words[0][:1]] = conn
	}
	switch verb {
	case "+":
	case "x":
		_ = conn.conn.Close()
		delete(p.peers, words[0][:1])
		return ""
	case "?":
		answer += conn.line()
		if answer == "" {
			answer = "(closed)\r\n"
		}
	case ">>":
		conn.write(unquote(p.t, line[4:]))
	case ">":
		answer += conn.do(line[3:])
	default:
		p.t.Fatalf("no such step: %s", line)
	}
	return p.shown(answer)
}

// shown indents an answer and hides what differs from run to run.
func (p *player) shown(answer string) string {
	answer = timestamp.ReplaceAllString(answer, "<TIMESTAMP>")
	if v, err := p.rig.inbox(p.t, "alice").View(context.Background()); err == nil {
		answer = strings.ReplaceAll(answer, fmt.Sprintf("%08x", v.UIDValidity()), "VVVVVVVV")
		answer = strings.ReplaceAll(answer, fmt.Sprint(v.UIDValidity()), "VALIDITY")
	}
	var out strings.Builder
	for line := range strings.Lines(answer) {
		text := strings.TrimSuffix(line, "\r\n")
		if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) {
			text = strconv.QuoteToASCII(text)
		}
		out.WriteString(strings.TrimRight("    "+text, " ") + "\n")
		if text == "" {
			s := out.String()
			out.Reset()
			out.WriteString(strings.TrimSuffix(s, "\n") + "    \n")
		}
	}
	return out.String()
}

func (p *player) connect() (*peer, string) {
	if p.addr == "" {
		_, p.addr = p.rig.listen(p.t)
	}
	conn, err := net.Dial("tcp", p.addr)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = conn.Close() })
	c := &peer{p.t, conn, bufio.NewReader(conn)}
	return c, c.line()
}

func (p *player) set(name, value string) {
	o := &p.rig.opt
	switch name {
	case "APOP":
		o.APOP = true
	case "EnableLast":
		o.EnableLast = true
	case "ReuseXUIDL":
		o.ReuseXUIDL = true
	case "LockSession":
		o.LockSession, o.LockTimeout = true, time.Millisecond
	case "RenameDuplicates":
		o.RenameDuplicates = true
	case "UIDLFormat":
		o.UIDLFormat = value
	case "DeletedFlag":
		o.DeletedFlag = value
	case "DeleteFlags":
		o.DeleteFlags = true
	case "Workarounds":
		o.OutlookNoNULs, o.OENSEndOfHeader = true, true
	case "UTF8":
		o.UTF8 = true
	case "MaxUserIP":
		o.MaxUserIP, _ = strconv.Atoi(value)
	default:
		p.t.Fatalf("no such option: %s", name)
	}
}

func (p *player) change(verb, user string, args []string) {
	box, uid := p.rig.inbox(p.t, user), store.UID(0)
	n, _ := strconv.Atoi(args[0])
	uid = store.UID(n)
	var err error
	if verb == "expunge" {
		_, err = box.Expunge(context.Background(), store.UIDSetOf(uid), false)
	} else {
		_, err = box.SetFlags(context.Background(), store.UIDSetOf(uid), store.FlagChange{Operation: store.AddFlags, Keywords: args[1:]})
	}
	if err != nil {
		p.t.Fatal(err)
	}
}
