package pop3d

import (
	"bytes"
	"context"
	"net"
	"strconv"
	"strings"
	"testing"

	"postilion/account"
	"postilion/proto/pop3"
	"postilion/server/login"
	"postilion/store"
)

// nowhere takes what is sent and never sends.
type nowhere struct{ net.Conn }

func (nowhere) Write(p []byte) (int, error) { return len(p), nil }

// benchSession is logged in with as many small messages.
func benchSession(b *testing.B, messages int) *session {
	r := newRig(b)
	text := []byte("From: Ann Baker <ann@example.com>\r\nTo: alice@example.org\r\nSubject: numbers\r\nDate: Mon, 06 Nov 2023 09:15:00 +0100\r\n\r\n" +
		strings.Repeat("Some words that fill a line of a small message.\r\n", 20))
	drafts := make([]store.Draft, messages)
	for i := range drafts {
		drafts[i].Content = content{bytes.NewReader(text)}
	}
	if _, err := r.inbox(b, "alice").Append(context.Background(), drafts); err != nil {
		b.Fatal(err)
	}
	_, conn := net.Pipe()
	srv := New(r.opt)
	s := &session{Conn: srv.NewConn(nowhere{conn}, login.Entry{}), srv: srv, opt: &srv.opt}
	s.User = &account.User{Name: "alice"}
	if err := s.openMail(context.Background()); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _, _ = s.box.Close(), s.mail.Close() })
	return s
}

// run gives a session commands and takes what it answers.
func (s *session) run(b *testing.B, commands []byte) {
	ctx := context.Background()
	for len(commands) > 0 {
		n := copy(s.dec.Space(), commands)
		s.dec.Filled(n)
		commands = commands[n:]
		for s.dec.Next(pop3.Line) == pop3.Ready {
			s.command(ctx, s.dec.Command())
			if len(s.Out) >= login.OutputSize {
				s.Flush()
			}
		}
	}
	s.Flush()
	if s.Ended {
		b.Fatal("the session ended: " + s.Reason)
	}
}

// BenchmarkRetrieve10k retrieves 10,000 small messages by pipelined commands.
func BenchmarkRetrieve10k(b *testing.B) {
	const messages = 10_000
	s := benchSession(b, messages)
	var commands []byte
	for n := 1; n <= messages; n++ {
		commands = append(strconv.AppendInt(append(commands, "RETR "...), int64(n), 10), "\r\n"...)
	}
	b.SetBytes(s.drop.Total())
	b.ReportAllocs()
	for b.Loop() {
		s.run(b, commands)
	}
	b.ReportMetric(float64(b.N)*messages/b.Elapsed().Seconds(), "msg/s")
}

// BenchmarkLists asks for LIST and UIDL of 10,000 messages.
func BenchmarkLists(b *testing.B) {
	s := benchSession(b, 10_000)
	for _, name := range []string{"LIST", "UIDL", "STAT"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				s.run(b, []byte(name+"\r\n"))
			}
		})
	}
}

// BenchmarkLogin opens a mailbox of 10,000 messages.
func BenchmarkLogin(b *testing.B) {
	s := benchSession(b, 10_000)
	b.ReportAllocs()
	for b.Loop() {
		if err := s.openMail(context.Background()); err != nil {
			b.Fatal(err)
		}
		_, _ = s.box.Close(), s.mail.Close()
	}
	if err := s.openMail(context.Background()); err != nil {
		b.Fatal(err)
	}
}
