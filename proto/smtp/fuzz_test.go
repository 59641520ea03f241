package smtp

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// clientOctets returns what the client sends in a transcript.
func clientOctets(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if rest, ok := strings.CutPrefix(line, "C: "); ok {
			b.WriteString(rest + "\r\n")
		} else if rest, ok := strings.CutPrefix(line, "R: "); ok {
			raw, err := strconv.Unquote(rest)
			if err == nil {
				b.WriteString(raw)
			}
		}
	}
	return b.String()
}

// FuzzServer feeds the same octets at once and in pieces: whatever comes, replies and messages are the same, and the engine holds little.
func FuzzServer(f *testing.F) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil {
		f.Fatal(err)
	}
	for i, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(clientOctets(string(text))), uint64(i), uint8(i))
	}
	f.Fuzz(func(t *testing.T, data []byte, seed uint64, flags uint8) {
		run := func(pieces bool) string {
			settings := &Settings{
				Hostname: "h", Banner: "h", SMTPUTF8: flags&1 == 0, ReplaceStrayCR: flags&2 == 0, LMTP: flags&4 != 0, MessageSizeLimit: 1000,
				LineLengthLimit: 100, BinaryMIME: flags&64 != 0,
			}
			d := newDriver(settings, Peer{Client: "c[1.2.3.4]", Auth: true, Mechanisms: "PLAIN", XClient: true, XForward: true, TLSOffered: flags&8 != 0, BareNewline: BareNewline(flags >> 4 & 3)})
			r := rand.New(rand.NewPCG(seed, 1))
			for rest := data; ; {
				n := len(rest)
				if pieces && n > 0 {
					n = 1 + r.IntN(min(n, 40))
				}
				d.chunk = 0
				if !d.feed(string(rest[:n])) {
					break
				}
				if len(d.engine.line) > 100 && d.engine.mode == modeCommand {
					t.Fatalf("%d octets of a line are kept", len(d.engine.line))
				}
				if rest = rest[n:]; len(rest) == 0 {
					break
				}
			}
			said := withoutPipelining(d.out.String())
			if strings.Contains(said, "size limit exceeded") {
				// How much of a message is handed out before it is known to be too large depends on the pieces; nobody keeps it.
				return said
			}
			return said + d.body.String()
		}
		whole, pieces := run(false), run(true)
		if whole != pieces {
			t.Fatalf("at once:\n%s\nin pieces:\n%s", whole, pieces)
		}
	})
}

// FuzzPath: whatever is accepted as an address comes out the same when its external form is read again.
func FuzzPath(f *testing.F) {
	for _, seed := range []string{
		"<a@b.c>", "a@b.c", `<"a b"@c.d>`, `<a\ b@c.d>`, "<@x,@y:a@b.c>", "<a(c)@b.c>", "<x:a@b.c;>", "<a@[IPv6:::1]>", "<us..er@x>", "< >", "<<a@b>>", `<"">`, "<a@b@c.d>",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		address, ok := parsePath(raw, pathRules{})
		if !ok || address == "" || strings.ContainsAny(address, "\r\n\x00") {
			return
		}
		at := strings.LastIndexByte(address, '@')
		if at < 0 || strings.ContainsAny(address[at:], " <>()\\\"[],;:.\t\v\f") {
			return
		}
		again, ok := parsePath([]byte("<"+QuoteLocal(address)+">"), pathRules{})
		if !ok || again != address {
			t.Fatalf("%q is %q, which is read again as %q, %t", raw, address, again, ok)
		}
	})
}
