package smtpd

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"postilion/proto/smtp"
)

// heapPeak runs fn and returns how far the heap grew while it ran, as far as samples show.
func heapPeak(fn func(sample func())) int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	base, peak := m.HeapAlloc, m.HeapAlloc
	fn(func() {
		runtime.ReadMemStats(&m)
		peak = max(peak, m.HeapAlloc)
	})
	return int64(peak) - int64(base)
}

const abuserLimit = 10 << 20

func TestFiveThousandRecipientsInOneWrite(t *testing.T) {
	f := start(t, func(o *Options) {
		p, _ := o.Checker.(*fakePolicy)
		p.users = nil
		o.RecipientLimit = 10000
	})
	c := f.dial()
	c.reply()
	var b strings.Builder
	b.WriteString("EHLO c\r\nMAIL FROM:<a@b.test>\r\n")
	for i := range 5000 {
		fmt.Fprintf(&b, "RCPT TO:<u%d@mail.example.com>\r\n", i)
	}
	b.WriteString("DATA\r\n")
	go c.send(b.String())
	for i := range 5003 {
		if got := c.reply(); got[0] != '2' && got[0] != '3' {
			t.Fatalf("reply %d: %q", i, got)
		}
	}
	c.expect("x\r\n.", "250")
	if n := len(f.mails.all()[0].envelope.Recipients); n != 5000 {
		t.Errorf("%d recipients", n)
	}
}

// flood writes size octets of a pattern and samples memory on the way.
func (c *client) flood(pattern string, size int, sample func()) {
	block := []byte(strings.Repeat(pattern, 1<<16/len(pattern)))
	for sent := 0; sent < size; sent += len(block) {
		if _, err := c.conn.Write(block); err != nil {
			return
		}
		if sent%(16<<20) < len(block) {
			sample()
		}
	}
	sample()
}

func TestFloods(t *testing.T) {
	for _, flood := range []struct {
		name, before, pattern string
		size                  int
		after, want           string
	}{
		{"a line before EHLO", "", "x", 100 << 20, "\r\n", "500 5.5.2 Error: command not recognized"},
		{"a line of a message", "MAIL FROM:<a@b.test>\r\nRCPT TO:<bob@mail.example.com>\r\nDATA\r\nSubject: x\r\n\r\n", "x", 100 << 20, "\r\n.\r\n", "552 5.3.4 Error: message file too big"},
		{"a header line", "MAIL FROM:<a@b.test>\r\nRCPT TO:<bob@mail.example.com>\r\nDATA\r\nSubject: ", "x", 9 << 20, "\r\n\r\n.\r\n", "250 2.0.0 Ok: queued"},
		{"many headers", "MAIL FROM:<a@b.test>\r\nRCPT TO:<bob@mail.example.com>\r\nDATA\r\n", "X-Header: some text here\r\n", 9 << 20, "\r\n.\r\n", "250 2.0.0 Ok: queued"},
		{"a folded header", "MAIL FROM:<a@b.test>\r\nRCPT TO:<bob@mail.example.com>\r\nDATA\r\nSubject: x\r\n", " more of it\r\n", 9 << 20, "\r\n.\r\n", "250 2.0.0 Ok: queued"},
		{"CRs", "MAIL FROM:<a@b.test>\r\nRCPT TO:<bob@mail.example.com>\r\nDATA\r\n\r\n", "\r", 9 << 20, "\r\n.\r\n", "250 2.0.0 Ok: queued"},
		{"a chunk beyond the limit", "MAIL FROM:<a@b.test>\r\nRCPT TO:<bob@mail.example.com>\r\nBDAT 52428800 LAST\r\n", "x", 50 << 20, "", "552 5.3.4 Chunk exceeds message size limit"},
	} {
		t.Run(flood.name, func(t *testing.T) {
			f := start(t, func(o *Options) { o.Accept = discard{} })
			c := f.dial()
			c.reply()
			c.send(flood.before)
			var got string
			peak := heapPeak(func(sample func()) {
				c.flood(flood.pattern, flood.size, sample)
				c.send(flood.after)
				for {
					got = c.reply()
					if !strings.HasPrefix(got, "250 2.1.") && !strings.HasPrefix(got, "354") {
						return
					}
				}
			})
			if !strings.HasPrefix(got, flood.want) {
				t.Errorf("%q, want %q", got, flood.want)
			}
			if peak > abuserLimit {
				t.Errorf("the heap grew by %d octets", peak)
			}
			c.expect("NOOP", "250")
		})
	}
}

// TestTruncatedHeader: header_size_limit cuts a header and keeps its line ends.
func TestTruncatedHeader(t *testing.T) {
	f := start(t, func(o *Options) { o.HeaderSizeLimit = 100; o.BareNewline = smtp.BareNewlineNormalize })
	c := f.dial()
	c.reply()
	c.mail("bob@mail.example.com")
	c.expect("Subject: "+strings.Repeat("x", 5000)+"\r\n more\r\nTo: y\r\n\r\nb\r\n.", "250")
	text := f.mails.all()[0].text
	if !strings.Contains(text, "\r\nSubject: "+strings.Repeat("x", 91)+"\r\nTo: y\r\n") {
		t.Errorf("%q", text)
	}
}

// discard accepts everything after reading it once.
type discard struct{}

func (discard) Accept(_ context.Context, mail *Mail) (string, error) {
	_, err := io.Copy(io.Discard, io.NewSectionReader(mail.Content, 0, mail.Content.Size()))
	return "", err
}

// cpuTime is what the process has used, the client's part included.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func benchmarkSession(b *testing.B, size int) {
	f := start(b, func(o *Options) { o.Accept = discard{} })
	c := f.dial()
	c.reply()
	c.expect("EHLO c", "250")
	line := strings.Repeat("x", 74) + "\r\n"
	message := []byte("MAIL FROM:<a@b.test>\r\nRCPT TO:<bob@mail.example.com>\r\nDATA\r\n")
	body := append([]byte("From: <a@b.test>\r\nTo: <bob@mail.example.com>\r\nSubject: x\r\nDate: Mon, 5 Jan 2026 10:00:00 +0000\r\nMessage-Id: <x@y>\r\n\r\n"),
		bytes.Repeat([]byte(line), size/len(line))...)
	body = append(body, ".\r\n"...)
	reply := make([]byte, 4096)
	read := func(want int) {
		for lines := 0; lines < want; {
			n, err := c.conn.Read(reply)
			if err != nil {
				b.Fatal(err)
			}
			lines += bytes.Count(reply[:n], []byte{'\n'})
		}
	}
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	began := cpuTime(b)
	defer func() { b.ReportMetric(float64(cpuTime(b)-began)/1e3/float64(b.N), "cpu-us/op") }()
	for b.Loop() {
		if _, err := c.conn.Write(message); err != nil {
			b.Fatal(err)
		}
		read(3)
		if _, err := c.conn.Write(body); err != nil {
			b.Fatal(err)
		}
		read(1)
	}
}

func BenchmarkSession4K(b *testing.B)  { benchmarkSession(b, 4<<10) }
func BenchmarkSession64K(b *testing.B) { benchmarkSession(b, 64<<10) }

// scriptConn is a connection whose client is a script: pieces are read one after the other, over and over; what is written is forgotten.
type scriptConn struct {
	net.Conn
	pieces [][]byte
	rounds int
	next   int
	offset int
}

func (c *scriptConn) Read(p []byte) (int, error) {
	if c.offset == len(c.pieces[c.next]) {
		c.offset = 0
		if c.next++; c.next == len(c.pieces) {
			c.next = 0
			if c.rounds--; c.rounds <= 0 {
				return 0, io.EOF
			}
		}
	}
	n := copy(p, c.pieces[c.next][c.offset:])
	c.offset += n
	return n, nil
}

func (c *scriptConn) Write(p []byte) (int, error) { return len(p), nil }
func (c *scriptConn) Close() error                { return nil }
func (c *scriptConn) LocalAddr() net.Addr         { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 25} }

func (c *scriptConn) RemoteAddr() net.Addr {
	return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1025}
}
func (c *scriptConn) SetReadDeadline(time.Time) error  { return nil }
func (c *scriptConn) SetWriteDeadline(time.Time) error { return nil }
func (c *scriptConn) SetDeadline(time.Time) error      { return nil }

// BenchmarkEngineAndSession leaves out the kernel: what a message costs in this package and below.
func BenchmarkEngineAndSession(b *testing.B) {
	for _, size := range []int{4 << 10, 64 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			mails, log := &collector{}, &logLines{}
			options := baseOptions(mails, log)
			options.Accept, options.Log = discard{}, slog.New(slog.DiscardHandler)
			server, err := New(options)
			if err != nil {
				b.Fatal(err)
			}
			line := strings.Repeat("x", 74) + "\r\n"
			body := "From: <a@b.test>\r\nTo: <bob@mail.example.com>\r\nSubject: x\r\nDate: Mon, 5 Jan 2026 10:00:00 +0000\r\nMessage-Id: <x@y>\r\n\r\n" +
				strings.Repeat(line, size/len(line)) + ".\r\n"
			b.ReportAllocs()
			b.SetBytes(int64(len(body)))
			b.ResetTimer()
			server.ServeConn(context.Background(), &scriptConn{rounds: b.N, pieces: [][]byte{
				[]byte("MAIL FROM:<a@b.test>\r\nRCPT TO:<bob@mail.example.com>\r\nDATA\r\n"), []byte(body),
			}})
		})
	}
}
