package message

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

// shared finds the folder of recorded answers that may lie beside the project, and skips the test when it is not there.
func shared(t testing.TB, name string) string {
	t.Helper()
	var roots []string
	if root := os.Getenv("POSTILION_SHARED"); root != "" {
		roots = append(roots, root)
	}
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		roots = append(roots, filepath.Join(dir, "shared"), filepath.Join(filepath.Dir(dir), "shared"))
	}
	for _, root := range roots {
		path := filepath.Join(root, name)
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	t.Skipf("%s is not here (set POSTILION_SHARED to the folder that holds it)", name)
	return ""
}

func readCorpus(t testing.TB) map[string][]byte {
	t.Helper()
	f, err := os.Open(shared(t, "corpus/mail/corpus.tar.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	mails := map[string][]byte{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err == io.EOF {
			return mails
		}
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(h.Name, ".eml") {
			if mails[h.Name], err = io.ReadAll(r); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// answers makes what the record of one mail holds.
func answers(raw []byte) map[string]string {
	m := Parse(raw)
	text := NetworkForm(raw)
	section := func(b []byte) string {
		sum := sha256.Sum256(b)
		return fmt.Sprintf("%d %s", len(b), hex.EncodeToString(sum[:])[:20])
	}
	one, ok := m.Section([]int{1})
	body1, mime1 := section(nil), section(nil)
	if ok {
		body1 = section(text[one.BodyStart:one.BodyEnd])
		mime1 = section(text[one.HeaderStart:one.BodyStart])
	}
	return map[string]string{
		"RFC822.SIZE":   strconv.FormatInt(m.Size, 10),
		"ENVELOPE":      canonical(AppendEnvelope(nil, m.Root.Envelope), false),
		"BODY":          canonical(AppendBodyStructure(nil, &m.Root, false), true),
		"BODYSTRUCTURE": canonical(AppendBodyStructure(nil, &m.Root, true), true),
		"BODY[]":        section(text),
		"BODY[HEADER]":  section(text[m.Root.HeaderStart:m.Root.BodyStart]),
		"BODY[TEXT]":    section(text[m.Root.BodyStart:m.Root.BodyEnd]),
		"BODY[1]":       body1,
		"BODY[1.MIME]":  mime1,
	}
}

// TestGoldenDovecot compares with what Dovecot answered for real mail. The comparison is that of the recorder: quoted or literal is the
// same, media types and parameter names are without case.
func TestGoldenDovecot(t *testing.T) {
	f, err := os.Open(shared(t, "golden/dovecot/mime/expected.jsonl.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	mails := readCorpus(t)
	total, same := 0, 0
	lines := bufio.NewScanner(z)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var want map[string]string
		if err := json.Unmarshal(lines.Bytes(), &want); err != nil {
			t.Fatal(err)
		}
		total++
		got := answers(mails[want["name"]])
		equal := true
		for item, value := range want {
			if item != "name" && got[item] != value {
				equal = false
				t.Logf("%s %s\n got %s\nwant %s", want["name"], item, got[item], value)
			}
		}
		if equal {
			same++
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d of %d mails answer as recorded", same, total)
	if total == 0 || same*100 < total*98 {
		t.Errorf("%d of %d mails answer as recorded; at least 98 %% must", same, total)
	}
}

// item is one element of an IMAP answer: a list, a string or an atom.
type item struct {
	list   []item
	isList bool
	quoted bool
	text   string
}

func parseItems(b []byte) (items []item, rest []byte) {
	for len(b) > 0 {
		switch c := b[0]; {
		case c == ' ':
			b = b[1:]
		case c == ')':
			return items, b[1:]
		case c == '(':
			var inner []item
			inner, b = parseItems(b[1:])
			items = append(items, item{list: inner, isList: true})
		case c == '"':
			var s []byte
			i := 1
			for ; b[i] != '"'; i++ {
				if b[i] == '\\' {
					i++
				}
				s = append(s, b[i])
			}
			items = append(items, item{quoted: true, text: string(s)})
			b = b[i+1:]
		case c == '{':
			end := bytes.IndexByte(b, '\n') + 1
			n, _ := strconv.Atoi(string(b[1 : end-3]))
			items = append(items, item{quoted: true, text: string(b[end : end+n])})
			b = b[end+n:]
		default:
			i := 0
			for i < len(b) && b[i] != ' ' && b[i] != '(' && b[i] != ')' {
				i++
			}
			items = append(items, item{text: string(b[:i])})
			b = b[i:]
		}
	}
	return items, nil
}

func (i item) String() string {
	if i.isList {
		parts := make([]string, len(i.list))
		for n, inner := range i.list {
			parts[n] = inner.String()
		}
		return "(" + strings.Join(parts, " ") + ")"
	}
	if !i.quoted {
		return i.text
	}
	// The record keeps bytes that are not UTF-8 as lone surrogates, which JSON decoding turns into U+FFFD, one a byte.
	var text strings.Builder
	for s := i.text; s != ""; {
		r, n := utf8.DecodeRuneInString(s)
		text.WriteRune(r)
		s = s[n:]
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(text.String()); err != nil {
		return err.Error()
	}
	s := strings.TrimSuffix(out.String(), "\n")
	return strings.NewReplacer(`\u2028`, "\u2028", `\u2029`, "\u2029", "\x7f", "\x7f").Replace(s)
}

func canonical(b []byte, structure bool) string {
	items, _ := parseItems(b)
	if len(items) != 1 {
		return "not one item: " + string(b)
	}
	if structure {
		lowerStructure(&items[0])
	}
	return items[0].String()
}

func lowerString(i *item) {
	if i.quoted {
		i.text = strings.ToLower(i.text)
	}
}

func lowerParams(i *item) {
	for n := 0; n < len(i.list); n += 2 {
		lowerString(&i.list[n])
	}
}

func lowerDisposition(i *item) {
	if len(i.list) == 0 {
		return
	}
	lowerString(&i.list[0])
	for n := 1; n < len(i.list); n++ {
		lowerParams(&i.list[n])
	}
}

func lowerStructure(i *item) {
	l := i.list
	if len(l) == 0 {
		return
	}
	if l[0].isList {
		n := 0
		for n < len(l) && l[n].isList {
			lowerStructure(&l[n])
			n++
		}
		if n < len(l) {
			lowerString(&l[n])
		}
		if n+1 < len(l) {
			lowerParams(&l[n+1])
		}
		if n+2 < len(l) {
			lowerDisposition(&l[n+2])
		}
		return
	}
	for _, n := range []int{0, 1, 5} {
		if n < len(l) {
			lowerString(&l[n])
		}
	}
	if len(l) > 2 {
		lowerParams(&l[2])
	}
	n := 7
	if l[0].text == "text" {
		n = 8
	} else if l[0].text == "message" && (l[1].text == "rfc822" || l[1].text == "global") && len(l) > 9 {
		lowerStructure(&l[8])
		n = 10
	}
	if n+1 < len(l) {
		lowerDisposition(&l[n+1])
	}
}
