package deliver

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func pipeFor(t *testing.T, log io.Writer, attributes ...string) *Pipe {
	t.Helper()
	p, err := NewPipe(PipeOptions{
		Service: "box", Program: "postfix/pipe", Log: slog.New(slog.NewTextHandler(log, nil)), Attributes: attributes, QueueDirectory: t.TempDir(),
		Environment: Environment([]string{"TZ", "A=b"}, func(string) string { return "" }), Delimiter: "+", TimeLimit: 20 * time.Second,
		Identity: func(user, _ string) (*syscall.Credential, error) {
			if user == "stranger" {
				return nil, errors.New("user=stranger: not allowed")
			}
			return nil, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPipeRunsCommand(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	script := `printf '%s|' "$@" > ` + out + `; echo "$A $TZ" >> ` + out + `; cat >> ` + out
	var log bytes.Buffer
	p := pipeFor(t, &log, "flags=DORFB.>hu", "null_sender=", "user=me", "argv=/bin/sh", "-c", strings.ReplaceAll(script, "$", "$$"), "sh",
		"${recipient}", "$user", "$(extension)", "${mailbox}", "${domain}", "${nexthop}", "${sender}", "$$", "${size}", "x-${unknown}", "${client_address}")
	job := jobFor("Next.Hop", "Subject: x\r\n\r\n.dot\r\nFrom me\r\nlast", "Bob+Ext@Test.Example")
	job.Envelope.Sender = ""
	o := p.Deliver(t.Context(), job)[0]
	if o.Status != Sent || o.Text != "delivered via box service" || o.DSN != "2.0.0" {
		t.Fatalf("%+v", o)
	}
	text, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, _ := strings.Cut(string(text), "\n")
	if want := "bob+ext@test.example|bob|ext|bob+ext|test.example|next.hop||$|33|x-|192.0.2.1|b "; head != want {
		t.Errorf("arguments %q, want %q", head, want)
	}
	from, rest, _ := strings.Cut(rest, "\n")
	if !strings.HasPrefix(from, "From   ") {
		t.Errorf("%q", from)
	}
	if want := "Return-Path: <>\nX-Original-To: Bob+Ext@Test.Example\nDelivered-To: Bob+Ext@Test.Example\nSubject: x\n\n..dot\n>From me\nlast\n\n"; rest != want {
		t.Errorf("message %q, want %q", rest, want)
	}
	if !strings.Contains(log.String(), "Q1: to=<Bob+Ext@Test.Example>, relay=box, delay=") || !strings.Contains(log.String(), "status=sent (delivered via box service)") {
		t.Errorf("log %s", log.String())
	}
}

func TestPipeOutcomes(t *testing.T) {
	for _, row := range []struct {
		script string
		status Status
		dsn    string
		text   string
		reply  string
	}{
		{"cat > /dev/null; echo done", Sent, "2.0.0", "delivered via box service (done)", "250"},
		{"exit 0", Sent, "2.0.0", "delivered via box service", "250"},
		{"echo busy; exit 75", Deferred, "4.3.0", "temporary failure. Command output: busy", "451 4.3.0"},
		{"exit 67", Bounced, "5.1.1", "user unknown", "550 5.1.1 user unknown"},
		{"exit 77", Bounced, "5.7.0", "permission denied", "550 5.7.0"},
		{"echo 4.2.2 mailbox full; exit 1", Deferred, "4.2.2", "mailbox full", "451 4.2.2 mailbox full"},
		{"echo 5.7.1 go away; exit 75", Bounced, "5.7.1", "go away", "550 5.7.1 go away"},
		{"echo 4.2.2x; exit 3", Bounced, "5.3.0", `Command died with status 3: "/bin/sh". Command output: 4.2.2x`, "550 5.3.0"},
		{"kill -TERM $$", Bounced, "5.3.0", `Command died with signal 15: "/bin/sh"`, "550 5.3.0"},
	} {
		p := pipeFor(t, io.Discard, "user=me", "argv=/bin/sh", "-c", strings.ReplaceAll(row.script, "$", "$$"))
		o := p.Deliver(t.Context(), jobFor("", "Subject: x\r\n\r\n"+strings.Repeat("line\r\n", 50_000), "bob@test"))[0]
		if o.Status != row.status || o.DSN != row.dsn || o.Text != row.text || !strings.HasPrefix(o.ReplyText(), row.reply) {
			t.Errorf("%s: %v %s %q, reply %q", row.script, o.Status, o.DSN, o.Text, o.ReplyText())
		}
	}
}

// TestPipeBounds: time, output and size of a command are bounded, and nothing that it started lives on.
func TestPipeBounds(t *testing.T) {
	p := pipeFor(t, io.Discard, "user=me", "argv=/bin/sh", "-c", "sleep 300 & sleep 300")
	p.options.TimeLimit = 300 * time.Millisecond
	began := time.Now()
	if o := p.Deliver(t.Context(), jobFor("", "\r\n", "bob@test"))[0]; o.Status != Bounced || !strings.Contains(o.Text, "Command time limit exceeded") || time.Since(began) > 10*time.Second {
		t.Errorf("%+v after %v", o, time.Since(began))
	}
	p.options.TimeLimit = time.Minute
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if o := p.Deliver(ctx, jobFor("", "\r\n", "bob@test"))[0]; o.Status != Deferred {
		t.Errorf("%+v", o)
	}
	p = pipeFor(t, io.Discard, "user=me", "argv=/bin/sh", "-c", "yes | head -c 1000000; exit 75")
	if o := p.Deliver(t.Context(), jobFor("", "\r\n", "bob@test"))[0]; o.Status != Deferred || len(o.Text) > outputLimit+100 {
		t.Errorf("%d octets of output are told", len(o.Text))
	}
	p = pipeFor(t, io.Discard, "user=me", "size=10", "argv=/bin/true")
	if o := p.Deliver(t.Context(), jobFor("", "Subject: more than ten\r\n", "bob@test"))[0]; o.DSN != "5.3.4" {
		t.Errorf("%+v", o)
	}
	for _, attributes := range [][]string{{"user=stranger", "argv=/bin/true"}, {"user=me", "argv=/nowhere/at/all"}} {
		if o := pipeFor(t, io.Discard, attributes...).Deliver(t.Context(), jobFor("", "\r\n", "bob@test"))[0]; o.Status != Deferred {
			t.Errorf("%v: %+v", attributes, o)
		}
	}
	loop := jobFor("", "Delivered-To: BOB@test\r\n\r\n", "bob@test")
	if o := pipeFor(t, io.Discard, "flags=D", "user=me", "argv=/bin/true").Deliver(t.Context(), loop)[0]; o.DSN != "5.4.6" {
		t.Errorf("%+v", o)
	}
}

func TestPipeAttributes(t *testing.T) {
	for _, words := range [][]string{{"user=me"}, {"argv=/bin/true"}, {"flags=Z", "user=me", "argv=x"}, {"size=x", "user=me", "argv=x"}, {"bogus=1", "user=me", "argv=x"}, {"user"}} {
		if _, err := NewPipe(PipeOptions{Attributes: words}); err == nil {
			t.Errorf("%v is taken", words)
		}
	}
	if got := unescape(`\r\n\101\\x`); got != "\r\nA\\x" {
		t.Errorf("%q", got)
	}
}

// TestProgramInputInPieces: blocks end anywhere, and a line is a line all the same.
func TestProgramInputInPieces(t *testing.T) {
	for _, size := range []int{heldLine - 3, heldLine - 2, heldLine - 1, heldLine, heldLine + 1, 3 * heldLine} {
		text := strings.Repeat("x", size) + "\r\n.y\r\n" + strings.Repeat(".", size) + "\r\nFrom z"
		in := &programInput{content: bytes.NewReader([]byte(text)), eol: "\n", dots: true, from: true}
		got, err := io.ReadAll(in)
		if want := strings.Repeat("x", size) + "\n..y\n." + strings.Repeat(".", size) + "\n>From z\n"; err != nil || string(got) != want {
			t.Errorf("%d: %d octets, want %d, %v", size, len(got), len(want), err)
		}
	}
}

// TestPipeElsewhere: a command that is run elsewhere gets the same message, and its end and output mean the same.
func TestPipeElsewhere(t *testing.T) {
	var got []string
	p := pipeFor(t, io.Discard, "flags=D", "user=me", "argv=/bin/box", "-f", "to=${recipient}")
	for _, row := range []struct {
		ended  Ended
		err    error
		status Status
		text   string
	}{
		{Ended{}, nil, Sent, "delivered via box service (hello)"},
		{Ended{Code: 75}, nil, Deferred, "temporary failure. Command output: hello"},
		{Ended{Signal: syscall.SIGTERM}, nil, Bounced, `Command died with signal 15: "/bin/box". Command output: hello`},
		{Ended{Late: true}, nil, Bounced, `Command time limit exceeded: "/bin/box". Command output: hello`},
		{Ended{}, errors.New("not granted"), Deferred, "unable to run command /bin/box: not granted"},
	} {
		p.options.Run = func(_ context.Context, argv []string, input, output *os.File) (Ended, error) {
			got = argv
			text, err := io.ReadAll(input)
			if err != nil || !strings.HasPrefix(string(text), "Delivered-To: bob@test\nSubject") || len(text) < 250_000 {
				t.Errorf("%d octets of message, %v", len(text), err)
			}
			_, err = output.WriteString("hello\n")
			return row.ended, errors.Join(row.err, err, input.Close(), output.Close())
		}
		o := p.Deliver(t.Context(), jobFor("", "Subject: x\r\n\r\n"+strings.Repeat("line\r\n", 50_000), "bob@test"))[0]
		if o.Status != row.status || o.Text != row.text {
			t.Errorf("%+v: %+v", row, o)
		}
	}
	if strings.Join(got, "|") != "/bin/box|-f|to=bob@test" {
		t.Errorf("%q", got)
	}
}

func TestReadPipeCommand(t *testing.T) {
	c, err := ReadPipeCommand([]string{"user=me:us", "directory=/d", "argv=/bin/sh", "$$x", "a${sender}b", "to=$user", "x${size}${recipient}"})
	want := []PipeWord{{Text: "/bin/sh"}, {Text: "$x"}, {Text: "a", Macro: true}, {Text: "to=", Macro: true, Each: true}, {Text: "x", Macro: true, Each: true}}
	if err != nil || c.User != "me" || c.Group != "us" || c.Directory != "/d" || !slices.Equal(c.Words, want) {
		t.Errorf("%+v, %v", c, err)
	}
	if _, err := ReadPipeCommand([]string{"user=me"}); err == nil {
		t.Error("a service without a command is taken")
	}
}
