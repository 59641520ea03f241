package pop3

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

func TestDecoder(t *testing.T) {
	for _, c := range []struct{ input, want string }{
		{"STAT\r\n", "STAT|"},
		{"stat\n", "STAT|"},
		{"list 1\r\nRETR  2\r\n", "LIST|1 RETR| 2"},
		{"\r\n", "|"},
		{" STAT\r\n", "|STAT"},
		{"verylongname x\r\n", "VERYLONGNAME|x"},
		{"PASS a\rb \r\n", "PASS|a\rb "},
		{"NOOP", ""},
		{strings.Repeat("x", 20) + "\r\n", strings.Repeat("X", 20) + "|"},
		{strings.Repeat("x", 21) + "\r\n", "too long"},
		{strings.Repeat("x", 22), "too long"},
	} {
		for _, portion := range []int{1, 3, 1000} {
			if got := decodeAll([]byte(c.input), portion, 20); got != c.want {
				t.Errorf("%q in portions of %d: %q, want %q", c.input, portion, got, c.want)
			}
		}
	}
}

// decodeAll reads input that comes in portions.
func decodeAll(input []byte, portion, limit int) string {
	var d Decoder
	var words []string
	for {
		switch d.Next(limit) {
		case TooLong:
			return strings.Join(append(words, "too long"), " ")
		case Ready:
			words = append(words, d.Command().Name+"|"+string(d.Command().Args))
		case NeedInput:
			if len(input) == 0 {
				return strings.Join(words, " ")
			}
			n := min(portion, len(input))
			d.Feed(input[:n])
			input = input[n:]
		}
	}
}

func TestDecoderDiscardAndIdle(t *testing.T) {
	var d Decoder
	d.Feed([]byte("STLS\r\nUSER eve\r\nPASS"))
	if d.Next(Line) != Ready || d.Buffered() == 0 {
		t.Fatal("no command")
	}
	d.Discard()
	if d.Next(Line) != NeedInput || d.Buffered() != 0 {
		t.Error("what was discarded is read")
	}
	d.Idle()
	if cap(d.buf) != 0 {
		t.Error("memory is kept")
	}
	d.Feed([]byte("QUI"))
	d.Idle()
	d.Feed([]byte("T\r\n"))
	if d.Next(Line) != Ready || d.Command().Name != "QUIT" {
		t.Error("half a line was lost")
	}
}

func TestResponse(t *testing.T) {
	var d Decoder
	d.Feed([]byte("dGVzdA==\r\n*\n"))
	for _, want := range []string{"dGVzdA==", "*"} {
		if d.NextResponse(SASLLine) != Ready || string(d.Response()) != want {
			t.Errorf("got %q, want %q", d.Response(), want)
		}
	}
}

func TestArguments(t *testing.T) {
	for _, c := range []struct{ args, number, top string }{
		{"1", "1", "Noise after message number: "},
		{" 12", "12", "Noise after message number: "},
		{"1 2", "Noise after message number:  2", "1 2"},
		{"", "Invalid message number: ", "Invalid message number: "},
		{"-1", "Invalid message number: -1", "Invalid message number: -1"},
		{"4294967295", "4294967295", "Noise after message number: "},
		{"4294967296", "Message number too large: 4294967296", "Message number too large: 4294967296"},
		{"1 18446744073709551615", "Noise after message number:  18446744073709551615", "1 18446744073709551615"},
		{"1 18446744073709551616", "Noise after message number:  18446744073709551616", "Size too large: 18446744073709551616"},
		{"1 0x", "Noise after message number:  0x", "Noise after size: x"},
		{"\x01\r", "Invalid message number: ??", "Invalid message number: ??"},
	} {
		n, err := OnlyNumber([]byte(c.args))
		got := fmt.Sprint(n)
		if err != nil {
			got = err.Error()
		}
		if got != c.number {
			t.Errorf("number of %q: %q, want %q", c.args, got, c.number)
		}
		n, lines, err := TopArguments([]byte(c.args))
		got = fmt.Sprint(n, lines)
		if err != nil {
			got = err.Error()
		}
		if got != c.top {
			t.Errorf("TOP of %q: %q, want %q", c.args, got, c.top)
		}
	}
	if _, err := OnlyNumber(bytes.Repeat([]byte("x"), Line)); len(err.Error()) > 500 {
		t.Error("a refusal repeats too much")
	}
	if got := Unknown(&Command{Name: "X\x00"}).Error(); got != "Unknown command: X?" {
		t.Error(got)
	}
}

func TestStuffer(t *testing.T) {
	const message = "A: b\r\nC: d\r\n\r\n.\r\n..x\r\n\r\nlast"
	for _, c := range []struct {
		name    string
		stuffer Stuffer
		in, out string
	}{
		{"whole", Stuffer{}, message, "A: b\r\nC: d\r\n\r\n..\r\n...x\r\n\r\nlast\r\n"},
		{"header", Stuffer{Top: true}, message, "A: b\r\nC: d\r\n\r\n"},
		{"a line", Stuffer{Top: true, Lines: 1}, message, "A: b\r\nC: d\r\n\r\n..\r\n"},
		{"an empty line", Stuffer{Top: true, Lines: 3}, message, "A: b\r\nC: d\r\n\r\n..\r\n...x\r\n\r\n"},
		{"more lines than there are", Stuffer{Top: true, Lines: 9}, message, "A: b\r\nC: d\r\n\r\n..\r\n...x\r\n\r\nlast\r\n"},
		{"empty", Stuffer{}, "", "\r\n"},
		{"half an end", Stuffer{}, "x\r", "x\r\n"},
		{"bare LF", Stuffer{Top: true, Lines: 1}, "A: b\n\n.c\nd\n", "A: b\n\n..c\n"},
		{"no body", Stuffer{Top: true}, "A: b\r\n", "A: b\r\n"},
		{"NUL", Stuffer{NoNULs: true}, "a\x00b\r\n", "a\x80b\r\n"},
		{"end of header", Stuffer{EndHeader: true}, "A: b", "A: b\r\n\r\n"},
		{"end of header there", Stuffer{EndHeader: true}, "A: b\r\n\r\n", "A: b\r\n\r\n"},
		{"header of blanks", Stuffer{Top: true}, " \r\n\r\nx\r\n", " \r\n\r\n"},
	} {
		for _, portion := range []int{1, 2, 3, 1000} {
			if got := stuff(c.stuffer, []byte(c.in), portion); got != c.out {
				t.Errorf("%s in portions of %d: %q, want %q", c.name, portion, got, c.out)
			}
		}
	}
}

func stuff(s Stuffer, in []byte, portion int) string {
	var out []byte
	for len(in) > 0 {
		n := min(portion, len(in))
		out = s.Append(out, in[:n])
		in = in[n:]
	}
	return string(s.Finish(out))
}

func TestMaildrop(t *testing.T) {
	sizes := make([]int64, 130)
	total := int64(0)
	for i := range sizes {
		sizes[i] = int64(i)
		total += sizes[i]
	}
	m := NewMaildrop(130, total, func(n uint32) int64 { return sizes[n-1] })
	for _, n := range []uint32{0, 131, 1 << 31} {
		if m.Check(n) == nil {
			t.Errorf("message %d is there", n)
		}
	}
	m.Delete(1)
	m.Delete(130)
	m.Retrieved(64, true)
	m.Retrieved(65, false)
	m.Retrieved(64, true)
	if count, octets := m.Stat(); count != 128 || octets != total-129 {
		t.Errorf("STAT %d %d", count, octets)
	}
	if m.Check(130) == nil || !m.Deleted(130) || m.Deleted(129) || m.Check(129) != nil {
		t.Error("wrong message marked")
	}
	if m.Last() != 65 || m.Flagging() != 1 || !m.ToFlag(64) || m.ToFlag(65) {
		t.Errorf("LAST %d, flagging %d", m.Last(), m.Flagging())
	}
	m.Reset()
	if count, octets := m.Stat(); count != 130 || octets != total || m.Last() != 0 || m.Flagging() != 0 || m.Check(1) != nil {
		t.Error("RSET left something")
	}
}

// FuzzDecoder: however the input is divided, the same commands come out, and none is longer than the limit.
func FuzzDecoder(f *testing.F) {
	for _, seed := range []string{"USER a\r\nPASS b\r\n", "\n\r\n \r\n", "TOP 1 2\nQUIT", strings.Repeat("y", 200)} {
		f.Add([]byte(seed), 1)
	}
	f.Fuzz(func(t *testing.T, input []byte, portion int) {
		portion = min(max(portion, 1), 4096)
		whole := decodeAll(input, max(len(input), 1), 100)
		if got := decodeAll(input, portion, 100); got != whole {
			t.Errorf("in portions of %d %q, at once %q", portion, got, whole)
		}
		var d Decoder
		d.Feed(input)
		for d.Next(100) == Ready {
			if len(d.Command().Args) > 100 {
				t.Error("argument beyond the limit")
			}
			for _, err := range []error{second(OnlyNumber(d.Command().Args)), Unknown(d.Command())} {
				if err != nil && (len(err.Error()) > 500 || strings.ContainsAny(err.Error(), "\r\n")) {
					t.Errorf("refusal %q", err)
				}
			}
			_, _, _ = TopArguments(d.Command().Args)
		}
	})
}

func second(_ uint32, err error) error { return err }

// FuzzStuffer: however the message is divided the same comes out; it never holds a line of one dot, and undoing the stuffing gives the message.
func FuzzStuffer(f *testing.F) {
	for _, seed := range []string{"", ".", "\r\n.\r\n", "a: b\r\n\r\n.\r\n", "x\r", "\n.\n", "\r\n\r"} {
		f.Add([]byte(seed), 1, true, uint64(1))
	}
	f.Fuzz(func(t *testing.T, message []byte, portion int, top bool, lines uint64) {
		portion = min(max(portion, 1), 4096)
		s := Stuffer{Top: top, Lines: lines}
		whole := stuff(s, message, max(len(message), 1))
		if got := stuff(s, message, portion); got != whole {
			t.Fatalf("in portions of %d %q, at once %q", portion, got, whole)
		}
		if !strings.HasSuffix(whole, "\n") && whole != "" {
			t.Fatalf("%q has no end", whole)
		}
		var back []byte
		for line := range bytes.Lines([]byte(whole)) {
			if text := string(bytes.TrimRight(line, "\r\n")); text == "." {
				t.Fatalf("%q ends the response early", whole)
			}
			back = append(back, bytes.TrimPrefix(line, []byte("."))...)
		}
		want := message
		if top {
			want = want[:min(len(want), len(back))]
			back = back[:len(want)]
		}
		if !bytes.HasPrefix(back, want) || len(back) > len(want)+2 {
			t.Fatalf("%q came back as %q", message, back)
		}
	})
}

func BenchmarkStuffer(b *testing.B) {
	message := []byte(strings.Repeat("A line of an ordinary message, some seventy octets long in all.\r\n", 500))
	out := make([]byte, 0, 2*len(message))
	b.SetBytes(int64(len(message)))
	b.ReportAllocs()
	for b.Loop() {
		var s Stuffer
		out = s.Finish(s.Append(out[:0], message))
	}
}

func BenchmarkDecoder(b *testing.B) {
	input := []byte("RETR 12345\r\n")
	var d Decoder
	b.ReportAllocs()
	for b.Loop() {
		d.Feed(input)
		if d.Next(Line) != Ready {
			b.Fatal("no command")
		}
	}
}
