package imapd

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"postilion/mail/message"
	"postilion/proto/imap"
	"postilion/server/login"
	"postilion/store"
)

// bigBox is a mailbox of 10,000 messages that share one body and one parsed structure.
type bigBox struct {
	*memBox
	structure *message.Message
}

func (b *bigBox) Structure(context.Context, store.UID) (*message.Message, error) {
	return b.structure, nil
}

// nowhere takes what is sent and never sends.
type nowhere struct{ net.Conn }

func (nowhere) Write(p []byte) (int, error) { return len(p), nil }

func benchSession(b *testing.B, messages int) *session {
	r := newRig(b)
	text := "From: Ann Baker <ann@example.com>\r\nTo: Alice <alice@example.org>, bob@example.org\r\nSubject: numbers\r\nDate: Mon, 06 Nov 2023 09:15:00 +0100\r\n" +
		"Message-ID: <n@example.com>\r\nMIME-Version: 1.0\r\nContent-Type: multipart/alternative; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nhello\r\n--b\r\nContent-Type: text/html\r\n\r\n<p>hello\r\n--b--\r\n"
	a, _ := r.store.Open(context.Background(), store.Owner{User: "alice"})
	mailbox, _ := a.Mailbox(context.Background(), store.Inbox)
	box := mailbox.(*memBox)
	box.change(func(v *memView) {
		for range messages {
			v.add(box, []byte(text), store.FlagSeen, nil, benchDate)
		}
	})
	_, conn := net.Pipe()
	srv := New(r.opt)
	s := newSession(srv, srv.NewConn(nowhere{conn}, login.Entry{}))
	s.box = &selected{box: &bigBox{box, message.Parse([]byte(text))}, view: box.view, cancel: func() {}, ns: &Namespace{Account: a}}
	return s
}

var benchDate = time.Unix(1700000000, 0)

func BenchmarkFetch(b *testing.B) {
	const messages = 10_000
	for _, items := range []string{"FLAGS", "ENVELOPE", "BODYSTRUCTURE", "(UID FLAGS RFC822.SIZE INTERNALDATE)", "BODY.PEEK[HEADER.FIELDS (FROM TO SUBJECT)]", "BODY.PEEK[]"} {
		b.Run(items, func(b *testing.B) {
			s := benchSession(b, messages)
			s.dec.Reset(s.srv.grammar, imap.Limits{})
			line := []byte("a FETCH 1:* " + items + "\r\n")
			b.ReportAllocs()
			for b.Loop() {
				s.dec.Feed(line)
				if s.dec.Next() != imap.Ready {
					b.Fatal(s.dec.Failure())
				}
				s.fetch(context.Background(), s.dec.Command(), false)
				s.Flush()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/messages, "ns/message")
		})
	}
}

func BenchmarkSearch(b *testing.B) {
	const messages = 10_000
	for _, keys := range []string{"UNSEEN", "SUBJECT x", "FROM ann SUBJECT num", "BODY world"} {
		b.Run(keys, func(b *testing.B) {
			s := benchSession(b, messages)
			s.dec.Reset(s.srv.grammar, imap.Limits{})
			line := []byte("a SEARCH " + keys + "\r\n")
			b.ReportAllocs()
			for b.Loop() {
				s.dec.Feed(line)
				s.dec.Next()
				s.search(context.Background(), s.dec.Command(), false)
				s.Flush()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/messages, "ns/message")
		})
	}
}

func BenchmarkNoop(b *testing.B) {
	r := newRig(b)
	_, addr := r.listen(b)
	p := selectedPeer(b, addr)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := io.WriteString(p.conn, "a NOOP\r\n"); err != nil {
			b.Fatal(err)
		}
		if line := p.line(); line != "a OK NOOP completed.\r\n" {
			b.Fatalf("%q", line)
		}
	}
}
