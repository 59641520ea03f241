package smtp

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the transcripts under testdata with what the engine says")

// driver stands for a session: it answers the engine's questions from rules and gathers what comes out.
type driver struct {
	engine *Server
	peer   Peer
	// refusals answers a check whose line (kind and text) begins with the key.
	refusals map[string]string
	chunk    int

	out  strings.Builder
	body strings.Builder
}

func newDriver(settings *Settings, peer Peer) *driver {
	d := &driver{engine: NewServer(settings), peer: peer, refusals: map[string]string{}}
	d.engine.Start(peer)
	return d
}

func kindName(k EventKind) string {
	return map[EventKind]string{
		CheckConnect: "connect", CheckHelo: "helo", CheckMail: "mail", CheckRcpt: "rcpt", CheckData: "data", CheckEndOfData: "end",
		CheckEtrn: "etrn", CheckVerify: "vrfy", CheckTLS: "tls", EndOfMessage: "message",
	}[k]
}

// feed gives input in pieces and gathers replies; it returns false when the session is over.
func (d *driver) feed(input string) bool {
	in := []byte(input)
	for first := true; first || len(in) > 0; first = false {
		piece := in
		if d.chunk > 0 {
			piece = in[:min(d.chunk, len(in))]
		}
		in = in[len(piece):]
		if !d.take(piece) {
			return false
		}
	}
	return true
}

func (d *driver) take(piece []byte) bool {
	for {
		used, event := d.engine.Next(piece)
		piece = piece[used:]
		d.replies()
		switch event.Kind {
		case More:
			if len(piece) > 0 {
				panic("More with input left")
			}
			return true
		case Close:
			fmt.Fprintf(&d.out, "-: close %s\n", event.Text)
			return false
		default:
			d.answer(event)
		}
		d.replies()
	}
}

func (d *driver) replies() {
	for line := range strings.Lines(string(d.engine.Output())) {
		d.out.WriteString("S: " + strings.TrimSuffix(line, "\r\n") + "\n")
	}
	d.engine.Written()
}

func (d *driver) answer(event Event) {
	key := kindName(event.Kind) + " " + event.Text
	for prefix, reply := range d.refusals {
		if kindName(event.Kind) != "" && strings.HasPrefix(key, prefix) {
			d.engine.Refuse(reply)
			d.body.Reset()
			return
		}
	}
	switch event.Kind {
	case Notice:
		fmt.Fprintf(&d.out, "-: %s\n", event.Text)
	case Pause:
		d.out.WriteString("-: pause\n")
	case Abandon:
		d.out.WriteString("-: abandon\n")
		d.body.Reset()
	case CheckConnect, CheckHelo, CheckMail, CheckRcpt, CheckData, CheckEndOfData, CheckEtrn, CheckVerify, CheckTLS:
		d.engine.Permit()
	case Handshake:
		d.out.WriteString("-: handshake\n")
		d.peer.TLSActive = true
		d.engine.SetPeer(d.peer)
		d.engine.TLSStarted()
	case AuthStart, AuthNext:
		d.login(event)
	case FlushQueue:
		d.engine.Reply("250 Queuing started")
	case XClient, XForward:
		fmt.Fprintf(&d.out, "-: attributes %v\n", event.Attributes)
		d.engine.SetPeer(d.peer)
	case MessageData:
		d.body.Write(event.Data)
	case EndOfMessage:
		d.message()
	}
}

func (d *driver) login(event Event) {
	switch {
	case event.Data == nil:
		d.engine.Challenge(nil)
	case string(event.Data) == "\x00alice\x00secret":
		d.engine.Authenticated()
	default:
		d.engine.AuthFailed(false, "(reason unavailable)", "")
	}
}

func (d *driver) message() {
	e := d.engine.Envelope()
	fmt.Fprintf(&d.out, "M: from=<%s>", e.Sender)
	for _, r := range e.Recipients {
		fmt.Fprintf(&d.out, " to=<%s>", r.Address)
		if r.Original != "" || r.Notify != 0 {
			fmt.Fprintf(&d.out, "(%s %d)", r.Original, r.Notify)
		}
	}
	fmt.Fprintf(&d.out, " body=%d utf8=%t ret=%q envid=%q %s\n", e.Body, e.UTF8, e.Return, e.ID, strconv.Quote(d.body.String()))
	d.body.Reset()
	if d.engine.settings.LMTP {
		var replies []string
		for _, r := range e.Recipients {
			replies = append(replies, "250 2.0.0 <"+r.Address+"> Saved")
		}
		d.engine.ReplyEach(replies)
		return
	}
	d.engine.Reply("250 2.0.0 Ok: queued as 123")
}

// set changes one setting of a transcript's head.
func set(t *testing.T, s *Settings, p *Peer, refusals map[string]string, line string) {
	t.Helper()
	name, value, _ := strings.Cut(line, " = ")
	number := func() int {
		n, err := strconv.Atoi(value)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	switch name {
	case "lmtp":
		s.LMTP = true
	case "size":
		s.MessageSizeLimit = int64(number())
	case "soft":
		s.SoftErrorLimit = number()
	case "hard":
		s.HardErrorLimit = number()
	case "junk":
		s.JunkCommandLimit = number()
	case "line":
		s.LineLengthLimit = number()
	case "helo":
		s.HeloRequired = true
	case "strict":
		s.StrictEnvelopes = true
	case "strictutf8":
		s.StrictSMTPUTF8 = true
	case "enforce":
		s.EnforceTLS = true
	case "sync":
		s.ForbidUnauthPipelining = true
	case "extras":
		s.BinaryMIME, s.Limits = true, true
	case "filter":
		s.CommandFilter = func(line string) string { return strings.Replace(line, "HI ", "EHLO ", 1) }
		s.NoopCommands = []string{"XNOOP"}
	case "polite":
		s.ForbiddenCommand = func(string) bool { return false }
		s.HardErrorLimit, s.SoftErrorLimit = 1000, 1000
	case "tls":
		p.TLSOffered = true
	case "auth":
		p.Auth, p.Mechanisms = true, "PLAIN LOGIN"
	case "xclient":
		p.XClient, p.XForward = true, true
	case "bare":
		p.BareNewline = map[string]BareNewline{"no": BareNewlineAllow, "note": BareNewlineNote, "reject": BareNewlineReject}[value]
	case "barecode":
		s.BareNewlineRejectCode = number()
	case "refuse":
		key, reply, _ := strings.Cut(value, " -> ")
		refusals[key] = reply
	default:
		t.Fatalf("unknown setting %q", name)
	}
}

// TestTranscripts plays the sessions under testdata. "#" lines set things, "C:" is a line of the client, "R:" raw octets in Go's quotes;
// "S:" is what the server answers, "M:" a message it took, "-:" an event.
func TestTranscripts(t *testing.T) {
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
			for _, chunk := range []int{0, 1, 3} {
				got := playTranscript(t, string(text), chunk)
				if *rewrite && chunk == 0 {
					if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
						t.Fatal(err)
					}
					text = []byte(got)
				}
				if chunk > 0 && strings.Contains(string(text), "\n# sync\n") {
					// Here it matters what comes at once.
					break
				}
				if chunk > 0 {
					// What was sent ahead is not seen when octets come one by one.
					got, text = withoutPipelining(got), []byte(withoutPipelining(string(text)))
				}
				if got != string(text) {
					t.Fatalf("pieces of %d: got\n%s\nwant\n%s", chunk, got, text)
				}
			}
		})
	}
}

func withoutPipelining(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if !strings.Contains(line, "improper command pipelining") {
			b.WriteString(line)
		}
	}
	return b.String()
}

func playTranscript(t *testing.T, text string, chunk int) string {
	t.Helper()
	settings := &Settings{Hostname: "mx.test", Banner: "mx.test ESMTP", SMTPUTF8: true, ReplaceStrayCR: true}
	peer := Peer{Client: "c.test[192.0.2.1]"}
	refusals := map[string]string{}
	var out strings.Builder
	var d *driver
	open := true
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		mark, rest, _ := strings.Cut(line, " ")
		if d == nil && (mark == "C:" || mark == "R:" || mark == "S:") {
			d = newDriver(settings, peer)
			d.refusals, d.chunk = refusals, chunk
			open = d.feed("")
			out.WriteString(d.out.String())
			d.out.Reset()
		}
		switch mark {
		case "#":
			out.WriteString(line + "\n")
			if d == nil && !strings.HasPrefix(rest, "(") {
				set(t, settings, &peer, refusals, rest)
			}
		case "C:", "R:":
			out.WriteString(line + "\n")
			input := rest + "\r\n"
			if mark == "R:" {
				var err error
				if input, err = strconv.Unquote(rest); err != nil {
					t.Fatalf("%s: %v", line, err)
				}
			}
			if open {
				open = d.feed(input)
			}
			out.WriteString(d.out.String())
			d.out.Reset()
		}
	}
	return out.String()
}
