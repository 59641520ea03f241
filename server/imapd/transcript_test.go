package imapd

import (
	"bufio"
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"postilion/account"
	"postilion/store"
	"postilion/store/spool"
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

func (a testAuth) Start(_ context.Context, _ account.Client, mechanism string) (account.Exchange, error) {
	if mechanism != "PLAIN" {
		return nil, account.ErrMechanism
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
	case password != "pw":
		return nil, account.ErrProof
	}
	return &account.User{Name: name, UID: -1, GID: -1}, nil
}

func (testAuth) APOP(context.Context, account.Client, string, string, string) (*account.User, error) {
	return nil, account.ErrProof
}

// testMail gives every user one namespace over a memStore, or what namespaces says.
type testMail struct {
	store      *memStore
	namespaces func(store.Account) []Namespace
	settings   []MailboxSetting
}

func (m *testMail) Open(ctx context.Context, user *account.User) ([]Namespace, error) {
	a, err := m.store.Open(ctx, store.Owner{User: user.Name})
	if err != nil {
		return nil, err
	}
	if m.namespaces != nil {
		return m.namespaces(a), nil
	}
	return []Namespace{{Separator: '/', Inbox: true, Subscriptions: true, Account: a, Mailboxes: m.settings}}, nil
}

// rig is a server for a test.
type rig struct {
	opt   Options
	mail  *testMail
	store *memStore
}

func newRig(t testing.TB) *rig {
	r := &rig{store: newMemStore()}
	r.mail = &testMail{store: r.store}
	r.opt = Options{Auth: testAuth{}, Mail: r.mail, Spool: spool.New(t.TempDir())}
	return r
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

func dial(t testing.TB, addr string) *peer {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &peer{t, conn, bufio.NewReader(conn)}
}

func (p *peer) write(text string) {
	p.t.Helper()
	if _, err := io.WriteString(p.conn, text); err != nil {
		p.t.Logf("writing: %v", err)
	}
}

var literalEnd = regexp.MustCompile(`\{(\d+)\}\r\n$`)

// line reads a response with its literals; "" is the end of the connection.
func (p *peer) line() string {
	_ = p.conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	var out string
	for {
		text, err := p.r.ReadString('\n')
		if err != nil {
			if err != io.EOF && !strings.Contains(err.Error(), "reset") {
				p.t.Errorf("reading: %v (after %q)", err, out+text)
			}
			return out + text
		}
		out += text
		m := literalEnd.FindStringSubmatch(out)
		if m == nil {
			return out
		}
		n, _ := strconv.Atoi(m[1])
		body := make([]byte, n)
		if _, err := io.ReadFull(p.r, body); err != nil {
			p.t.Errorf("reading a literal: %v", err)
			return out
		}
		out += string(body)
	}
}

// until reads responses up to the one that begins with prefix, a continuation request, or the end.
func (p *peer) until(prefix string) string {
	var all strings.Builder
	for {
		line := p.line()
		all.WriteString(line)
		if line == "" || strings.HasPrefix(line, prefix) || prefix != "* " && strings.HasPrefix(line, "+") {
			return all.String()
		}
	}
}

// do sends a command and returns everything up to its tagged response.
func (p *peer) do(command string) string {
	p.t.Helper()
	p.write("t " + command + "\r\n")
	return p.until("t ")
}

// transcript is a file of testdata: lines of setup ("mail", "mailbox", "set"), then lines that begin with a connection's number and ">" are
// sent (with "\r\n" added and Go escapes undone), ">-" are sent without waiting for anything, "?" waits for one response, and the indented
// lines below are what the server answered.
type transcript struct {
	rig   *rig
	addr  string
	peers map[string]*peer
}

var tagOf = regexp.MustCompile(`^[A-Za-z0-9]+`)

// capabilityCode is left out of transcripts, so that a new extension changes only those that ask for CAPABILITY.
var capabilityCode = regexp.MustCompile(`\[CAPABILITY [^]]*\]`)

func (tr *transcript) step(t *testing.T, line string) string {
	who, rest, _ := strings.Cut(line, " ")
	name := strings.TrimRight(who, ">-?+")
	p := tr.peers[name]
	greeting := ""
	if p == nil {
		p = dial(t, tr.addr)
		tr.peers[name] = p
		greeting = p.line()
	}
	text, err := strconv.Unquote(`"` + strings.ReplaceAll(rest, `"`, `\"`) + `"`)
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	switch strings.TrimPrefix(who, name) {
	case "+":
		return greeting
	case "?":
		return p.line()
	case ">-":
		p.write(text)
		return ""
	case ">>":
		p.write(text)
		return p.until("* ")
	}
	p.write(text + "\r\n")
	tag := tagOf.FindString(text)
	if text == "DONE" {
		return p.line()
	}
	return p.until(tag + " ")
}

func (tr *transcript) setup(t *testing.T, line string) bool {
	words := strings.Fields(line)
	switch words[0] {
	case "set":
		tr.set(t, words[1:])
	case "mailbox":
		a, _ := tr.rig.store.Open(context.Background(), store.Owner{User: "alice"})
		_ = a.Create(context.Background(), words[1], "")
	case "mail":
		flags := store.Flags(0)
		for _, f := range systemFlags {
			if len(words) > 3 && strings.Contains(words[3], strings.ToLower(f.name[1:3])) {
				flags |= f.flag
			}
		}
		text, err := os.ReadFile(filepath.Join("testdata", words[2]+".eml"))
		if err != nil {
			t.Fatal(err)
		}
		deliver(t, tr.rig.store, "alice", words[1], string(text), flags)
	default:
		return false
	}
	return true
}

func (tr *transcript) set(t *testing.T, words []string) {
	o := &tr.rig.opt
	for _, w := range words {
		switch w {
		case "rev2":
			o.IMAP4rev2, o.UTF8Accept = true, true
		case "delay-newmail":
			o.DelayNewMail = true
		case "tb-lsub-flags":
			o.TBLSubFlags = true
		case "tb-extra-mailbox-sep":
			o.TBExtraMailboxSep = true
		case "quota":
			o.QuotaRoot = "User quota"
			a, _ := tr.rig.store.Open(context.Background(), store.Owner{User: "alice"})
			a.(*memAccount).limit = 10 << 10
		case "objectid":
			o.MailboxID = true
		case "literal-":
			o.LiteralMinus = true
		case "line=100":
			o.MaxLine = 100
		case "appendlimit=1000":
			o.AppendLimit = 1000
		case "namespaces":
			tr.rig.mail.namespaces = func(a store.Account) []Namespace {
				public, _ := tr.rig.store.Open(context.Background(), store.Owner{User: "public"})
				return []Namespace{
					{Prefix: "INBOX.", Separator: '.', Inbox: true, Subscriptions: true, Account: a},
					{Prefix: "Public/", Separator: '/', Kind: Shared, Account: public},
				}
			}
		case "auto":
			tr.rig.mail.settings = []MailboxSetting{
				{Name: "Drafts", Auto: AutoSubscribe, SpecialUse: `\Drafts`},
				{Name: "Sent", Auto: AutoYes, SpecialUse: `\Sent`},
				{Name: "Junk", SpecialUse: `\Junk`},
			}
		default:
			t.Fatalf("unknown setting %s", w)
		}
	}
}

// deliver puts a message into a mailbox; lines may end in LF.
func deliver(t testing.TB, s *memStore, user, mailbox, text string, flags store.Flags) {
	t.Helper()
	ctx := context.Background()
	a, _ := s.Open(ctx, store.Owner{User: user})
	box, err := a.Mailbox(ctx, mailbox)
	if err != nil {
		t.Fatal(err)
	}
	text = strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\n", "\r\n")
	_, err = box.Append(ctx, []store.Draft{{Content: memBody{bytes.NewReader([]byte(text))}, Flags: flags, InternalDate: time.Unix(1700000000, 0).UTC()}})
	if err != nil {
		t.Fatal(err)
	}
}

func TestTranscripts(t *testing.T) {
	t.Setenv("TZ", "UTC")
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no transcripts", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := runTranscript(t, string(text))
			if *rewrite {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if want := string(text); got != want {
				t.Errorf("differs:\n%s", firstDifference(want, got))
			}
		})
	}
}

func runTranscript(t *testing.T, text string) string {
	r := newRig(t)
	r.opt.Log = slog.New(slog.DiscardHandler)
	tr := &transcript{rig: r, peers: map[string]*peer{}}
	var out strings.Builder
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, "    "):
			continue
		case line == "" || line[0] == '#':
			out.WriteString(line + "\n")
			continue
		}
		out.WriteString(line + "\n")
		if tr.setup(t, line) {
			continue
		}
		if tr.addr == "" {
			_, tr.addr = r.listen(t)
		}
		answer := tr.step(t, line)
		for l := range strings.Lines(answer) {
			l = capabilityCode.ReplaceAllString(strings.TrimSuffix(strings.TrimSuffix(l, "\n"), "\r"), "[CAPABILITY ...]")
			q := strconv.Quote(l)
			l = strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`)
			l = strings.ReplaceAll(l, `\\`, `\`)
			out.WriteString("    " + l + "\n")
		}
	}
	return out.String()
}

func firstDifference(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range max(len(w), len(g)) {
		a, b := "(end)", "(end)"
		if i < len(w) {
			a = w[i]
		}
		if i < len(g) {
			b = g[i]
		}
		if a != b {
			return fmt.Sprintf("line %d\n want %s\n got  %s", i+1, a, b)
		}
	}
	return ""
}
