package message

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"strconv"
	"strings"
	"testing"
)

// awkward is a mail with what Dovecot 2.3.19.1 answered for it. Strings hold one byte a character.
type awkward struct {
	Mail, Envelope, Body, BodyStructure string
	One, MIME                           string
	Sections                            map[string]string
}

func readAwkward(t testing.TB) (cases []awkward) {
	t.Helper()
	f, err := os.Open("testdata/awkward.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var c awkward
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			t.Fatal(err)
		}
		cases = append(cases, c)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return cases
}

func narrow(s string) []byte {
	b := make([]byte, 0, len(s))
	for _, r := range s {
		b = append(b, byte(r))
	}
	return b
}

// TestAwkwardMails compares bytes with what Dovecot sent for mails that are broken on purpose.
func TestAwkwardMails(t *testing.T) {
	for n, c := range readAwkward(t) {
		raw := narrow(c.Mail)
		m := Parse(raw)
		text := NetworkForm(raw)
		check := func(item string, got []byte, want string) {
			t.Helper()
			if w := narrow(want); !bytes.Equal(got, w) {
				t.Errorf("mail %d %s\nmail %q\n got %q\nwant %q", n, item, raw, got, w)
			}
		}
		check("ENVELOPE", AppendEnvelope(nil, m.Root.Envelope), c.Envelope)
		check("BODY", AppendBodyStructure(nil, &m.Root, false), c.Body)
		check("BODYSTRUCTURE", AppendBodyStructure(nil, &m.Root, true), c.BodyStructure)
		check("BODY[1]", fetch(m, text, "1"), c.One)
		check("BODY[1.MIME]", fetch(m, text, "1.MIME"), c.MIME)
		for section, want := range c.Sections {
			check("BODY["+section+"]", fetch(m, text, section), want)
		}
	}
}

// fetch answers a BODY section as an IMAP server does that is built on this package. Dovecot sends NUL as 0x80.
func fetch(m *Message, text []byte, section string) []byte {
	var path []int
	rest := section
	for rest != "" && rest[0] >= '0' && rest[0] <= '9' {
		digits, after, _ := strings.Cut(rest, ".")
		n, _ := strconv.Atoi(digits)
		path = append(path, n)
		rest = after
	}
	p, ok := m.Section(path)
	if ok && len(path) > 0 && rest != "" && rest != "MIME" {
		p = p.Embedded()
	}
	if !ok || p == nil {
		return nil
	}
	header, body := text[p.HeaderStart:p.BodyStart], text[p.BodyStart:p.BodyEnd]
	var answer []byte
	what, list, _ := strings.Cut(rest, " ")
	names := strings.Fields(strings.Trim(list, "()"))
	switch what {
	case "", "TEXT":
		answer = body
	case "MIME", "HEADER":
		answer = header
	case "HEADER.FIELDS":
		answer = AppendHeaderFields(nil, header, names)
	case "HEADER.FIELDS.NOT":
		answer = AppendHeaderFieldsNot(nil, header, names)
	}
	return bytes.ReplaceAll(answer, []byte{0}, []byte{0x80})
}
