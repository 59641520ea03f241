package smtp

import (
	"fmt"
	"strings"
	"testing"

	"postilion/mail/envelope"
)

// talk connects a Client with a Server engine, in pieces of a size, until the client has finished its step.
func talk(t *testing.T, c *Client, d *driver, piece int) ClientEventKind {
	t.Helper()
	for range 100000 {
		out := string(c.Output())
		c.Written()
		d.chunk = piece
		if out != "" || d.out.Len() == 0 {
			d.feed(out)
		}
		var replies strings.Builder
		for line := range strings.Lines(d.out.String()) {
			if rest, ok := strings.CutPrefix(line, "S: "); ok {
				replies.WriteString(strings.TrimSuffix(rest, "\n") + "\r\n")
			}
		}
		d.out.Reset()
		in := []byte(replies.String())
		for len(in) > 0 {
			n, kind, err := c.Next(in[:min(piece, len(in))])
			if err != nil {
				t.Fatal(err)
			}
			in = in[n:]
			if kind != ClientMore {
				if len(in) > 0 {
					t.Fatalf("octets left after %v: %q", kind, in)
				}
				return kind
			}
		}
	}
	t.Fatal("the two talk for ever")
	return 0
}

func TestClientMeetsServer(t *testing.T) {
	for _, lmtp := range []bool{false, true} {
		for _, oneByOne := range []bool{false, true} {
			for _, piece := range []int{1, 7, 4096} {
				t.Run(fmt.Sprint(lmtp, oneByOne, piece), func(t *testing.T) { meet(t, lmtp, oneByOne, piece) })
			}
		}
	}
}

func meet(t *testing.T, lmtp, oneByOne bool, piece int) {
	d := newDriver(&Settings{Hostname: "s", Banner: "s", LMTP: lmtp}, Peer{Client: "c", TLSOffered: true, Auth: !lmtp, Mechanisms: "PLAIN"})
	d.refusals["rcpt no"] = "550 5.1.1 no such user"
	c := &Client{LMTP: lmtp, NoPipelining: oneByOne}
	step := func(err error, want ClientEventKind, code int) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		if kind := talk(t, c, d, piece); kind != want || c.Reply().Code != code {
			t.Fatalf("event %v, reply %s", kind, c.Reply())
		}
	}
	step(nil, ClientReady, 220)
	step(c.Hello("c"), ClientReady, 250)
	if !c.Extensions().Has("STARTTLS") || !c.Extensions().Has("8BITMIME") || c.Extensions().Name != "s" {
		t.Fatalf("extensions %v", c.Extensions())
	}
	step(c.StartTLS(), ClientHandshake, 220)
	step(c.Hello("c"), ClientReady, 250)
	if c.Extensions().Has("STARTTLS") {
		t.Error("STARTTLS is still announced")
	}
	if !lmtp {
		step(c.Auth("PLAIN", []byte("\x00alice\x00wrong")), ClientReady, 535)
		step(c.Auth("PLAIN", []byte("\x00alice\x00secret")), ClientReady, 235)
	}
	mail := &envelope.Envelope{Sender: "s@test", Recipients: []envelope.Recipient{{Address: "b c@test"}, {Address: "no@test"}, {Address: "d@test"}}, Body: envelope.EightBitMIME}
	if !lmtp {
		mail.Return, mail.ID = "FULL", "i+d"
		mail.Recipients[0].Notify, mail.Recipients[0].Original = envelope.NotifyNever, "rfc822;b c@test"
	}
	step(c.Mail(mail, 10), ClientData, 354)
	var wire []byte
	for _, part := range []string{".dot\r\n..", "two\nbare\r", "cr\r\n\r\n.\r\nlast"} {
		wire = c.AppendData(wire, []byte(part))
	}
	c.out = append(c.out, c.FinishData(wire)...)
	step(nil, ClientReady, 250)
	want := []string{"end of DATA 250", "RCPT TO 550", "end of DATA 250"}
	for i, r := range c.Results() {
		if got := fmt.Sprintf("%s %d", r.Command, r.Reply.Code); got != want[i] || r.Delivered() != (i != 1) {
			t.Errorf("recipient %d: %s", i, got)
		}
	}
	if e := c.Results()[1].Reply.Enhanced(); e != "5.1.1" {
		t.Errorf("enhanced code %q", e)
	}
	mail.Recipients = mail.Recipients[1:2]
	step(c.Mail(mail, 0), ClientReady, map[bool]int{true: 550, false: map[bool]int{true: 503, false: 554}[lmtp]}[oneByOne])
	if r := c.Results()[0]; r.Command != "RCPT TO" || r.Reply.Code != 550 {
		t.Errorf("result %v", r)
	}
	step(c.Reset(), ClientReady, 250)
	step(c.Quit(), ClientReady, 221)
}

func TestClientSendsNoSecondCommand(t *testing.T) {
	c := &Client{state: clientIdle}
	if err := c.Hello("a\r\nQUIT"); err == nil {
		t.Error("a line end in a name was sent")
	}
	for _, address := range []string{"a\r\nb@c", "a>b@c", "a\nb@c"} {
		if err := c.Mail(&envelope.Envelope{Sender: address}, 0); err == nil {
			t.Errorf("%q was sent", address)
		}
	}
}

func TestClientRefusesNonsense(t *testing.T) {
	for _, text := range []string{"hello\r\n", "2x0 a\r\n", "250_a\r\n", "999 a\r\n", "\r\n", strings.Repeat("250-x\r\n", 2000), "250 " + strings.Repeat("x", 1<<20)} {
		c := &Client{}
		_, _, err := c.Next([]byte(text))
		if err == nil && len(text) < 1<<19 {
			t.Errorf("%.20q was taken for a reply", text)
		}
		if len(c.reader.line) > replyLineLimit || c.reader.size > replyTextLimit*2 {
			t.Errorf("%.20q: %d octets kept", text, len(c.reader.line))
		}
	}
}

// FuzzClient: no server makes the client panic or hold much, and pieces make no difference.
func FuzzClient(f *testing.F) {
	f.Add([]byte("220 a\r\n250-a\r\n250 PIPELINING\r\n250 ok\r\n250 ok\r\n354 go\r\n250 done\r\n"), false)
	f.Add([]byte("220 a\r\n500 x\r\n421 bye\r\n"), true)
	f.Fuzz(func(t *testing.T, data []byte, lmtp bool) {
		run := func(piece int) string {
			c := &Client{LMTP: lmtp}
			var log strings.Builder
			for in := data; len(in) > 0; {
				n, kind, err := c.Next(in[:min(piece, len(in))])
				in = in[n:]
				if err != nil {
					fmt.Fprintf(&log, "error\n")
					break
				}
				if kind == ClientMore {
					continue
				}
				fmt.Fprintf(&log, "%v %v %v\n", kind, c.Reply(), c.Results())
				switch {
				case kind == ClientData:
					c.FinishData(nil)
				case c.extensions.words == nil:
					err = c.Hello("x")
				default:
					err = c.Mail(&envelope.Envelope{Sender: "a@b", Recipients: []envelope.Recipient{{Address: "c@d"}, {Address: "e@f"}}}, 0)
				}
				if err != nil {
					t.Fatal(err)
				}
				c.Written()
			}
			return log.String()
		}
		if a, b := run(1<<20), run(1); a != b {
			t.Fatalf("at once:\n%s\nin pieces:\n%s", a, b)
		}
	})
}
