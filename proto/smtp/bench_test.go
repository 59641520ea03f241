package smtp

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

func benchmarkData(b *testing.B, body []byte) {
	settings := &Settings{Hostname: "h", Banner: "h", SMTPUTF8: true, ReplaceStrayCR: true}
	s := NewServer(settings)
	s.Start(Peer{Client: "c[1.2.3.4]"})
	script := []byte("EHLO c\r\n")
	transaction := append([]byte("MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.com>\r\nDATA\r\n"), body...)
	transaction = append(transaction, ".\r\n"...)
	play := func(in []byte) {
		for {
			n, event := s.Next(in)
			in = in[n:]
			switch event.Kind {
			case More:
				s.Written()
				return
			case CheckConnect, CheckHelo, CheckMail, CheckRcpt, CheckData, CheckEndOfData:
				s.Permit()
			case EndOfMessage:
				s.Reply("250 2.0.0 Ok: queued as 123")
			}
		}
	}
	play(script)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		play(transaction)
	}
}

func BenchmarkTransaction(b *testing.B) {
	line := strings.Repeat("x", 74) + "\r\n"
	for _, size := range []int{4 << 10, 64 << 10, 1 << 20} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			benchmarkData(b, bytes.Repeat([]byte(line), size/len(line)))
		})
	}
	b.Run("dots", func(b *testing.B) { benchmarkData(b, bytes.Repeat([]byte("..dotted line\r\n"), 4000)) })
	b.Run("short", func(b *testing.B) { benchmarkData(b, bytes.Repeat([]byte("ab\r\n"), 16000)) })
}
