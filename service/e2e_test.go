package service_test

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sync/errgroup"

	"postilion/mail/message"
)

// posted is a message and the accounts that must have it.
type posted struct {
	id   int
	text []byte
	to   []int
}

// withoutStrayCR makes a CR within a line a space, as cleanup_replace_stray_cr_lf has it.
func withoutStrayCR(text []byte) []byte {
	clean := bytes.Clone(text)
	for i, c := range clean {
		if c == '\r' && (i+1 == len(clean) || clean[i+1] != '\n') {
			clean[i] = ' '
		}
	}
	return clean
}

// networkForm is a message as a sender would transmit it: without the mbox line that archives put before it, with CRLF.
func networkForm(text []byte) []byte {
	if bytes.HasPrefix(text, []byte("From ")) {
		_, text, _ = bytes.Cut(text, []byte("\n"))
	}
	text = withoutDropped(message.NetworkForm(text))
	text = withoutStrayCR(text)
	if !bytes.HasSuffix(text, []byte("\r\n")) {
		text = append(bytes.Clone(text), "\r\n"...)
	}
	return text
}

// withoutDropped leaves out the fields of message_drop_headers, which a server removes, and ends the header by an empty line.
func withoutDropped(text []byte) []byte {
	var kept []byte
	dropping := false
	rest := text
	for line := range bytes.Lines(text) {
		name, _, isField := bytes.Cut(line, []byte(":"))
		if line[0] != ' ' && line[0] != '\t' {
			if !isField || bytes.ContainsAny(bytes.TrimRight(name, " \t"), " \t") {
				if string(line) != "\r\n" {
					// A body that begins without an empty line gets one.
					kept = append(kept, "\r\n"...)
				}
				break
			}
			dropping = false
			for _, drop := range []string{"bcc", "content-length", "resent-bcc", "return-path"} {
				dropping = dropping || strings.EqualFold(strings.TrimRight(string(name), " \t"), drop)
			}
		}
		if !dropping {
			kept = append(kept, line...)
		}
		rest = rest[len(line):]
	}
	return append(kept, rest...)
}

// addressed deals the messages out to the accounts; each fourth goes to three of them.
func addressed(mails [][]byte, accounts int) []posted {
	var all []posted
	for i, text := range mails {
		p := posted{id: i, text: networkForm(text), to: []int{i % accounts}}
		if i%4 == 0 {
			p.to = append(p.to, (i+7)%accounts, (i+13)%accounts)
		}
		all = append(all, p)
	}
	return all
}

// post sends the messages over several connections at once.
func (s *system) post(all []posted, connections int) error {
	var group errgroup.Group
	for c := range connections {
		group.Go(func() error {
			w, err := s.greetSMTP("smtp")
			if err != nil {
				return err
			}
			defer w.close()
			for i := c; i < len(all); i += connections {
				var to []string
				for _, n := range all[i].to {
					to = append(to, user(n))
				}
				if err := w.mail(fmt.Sprintf("sender%d@elsewhere.example", all[i].id), to, all[i].text); err != nil {
					return fmt.Errorf("message %d: %w", all[i].id, err)
				}
			}
			return w.smtp("QUIT", "221")
		})
	}
	return group.Wait()
}

// TestCorpus delivers real mail by SMTP and reads it back by IMAP and by POP3, byte for byte.
func TestCorpus(t *testing.T) {
	for _, c := range []struct {
		driver   string
		messages int
	}{{"vault", 1000}, {"maildir", 200}} {
		t.Run(c.driver, func(t *testing.T) {
			if testing.Short() {
				c.messages /= 10
			}
			const accounts = 50
			s := start(t, setting{driver: c.driver, accounts: accounts})
			all := addressed(corpus(t, c.messages), accounts)
			if err := s.post(all, 8); err != nil {
				t.Fatal(err)
			}
			expected := make([][]posted, accounts)
			for _, p := range all {
				for _, n := range p.to {
					expected[n] = append(expected[n], p)
				}
			}
			var group errgroup.Group
			group.SetLimit(4)
			for n := range accounts {
				group.Go(func() error { return s.readBoth(n, expected[n]) })
			}
			if err := group.Wait(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// readBoth compares what IMAP and POP3 show of an account with what was posted.
func (s *system) readBoth(n int, want []posted) error {
	byIMAP, err := s.readIMAP(n)
	if err != nil {
		return fmt.Errorf("IMAP %s: %w", user(n), err)
	}
	if err := same(byIMAP, want); err != nil {
		return fmt.Errorf("IMAP %s: %w", user(n), err)
	}
	w, count, err := s.loginPOP3("pop3s", user(n))
	if err != nil {
		return fmt.Errorf("POP3 %s: %w", user(n), err)
	}
	defer w.close()
	if count != len(byIMAP) {
		return fmt.Errorf("POP3 %s: %d messages, IMAP shows %d", user(n), count, len(byIMAP))
	}
	for i := range count {
		text, err := w.retrieve(i + 1)
		if err != nil {
			return fmt.Errorf("POP3 %s: %w", user(n), err)
		}
		if !bytes.Equal(text, byIMAP[i]) {
			return fmt.Errorf("POP3 %s: message %d differs from IMAP's: %s", user(n), i+1, difference(text, byIMAP[i]))
		}
	}
	_, err = w.pop3("QUIT")
	return err
}

// readIMAP reads the INBOX and looks at the envelope, structure and size of each message.
func (s *system) readIMAP(n int) ([][]byte, error) {
	w, err := s.login("imaps", user(n))
	if err != nil {
		return nil, err
	}
	defer w.close()
	if _, err := w.imap("EXAMINE INBOX"); err != nil {
		return nil, err
	}
	answers, err := w.imap("UID FETCH 1:* (UID RFC822.SIZE BODY.PEEK[])")
	if err != nil {
		return nil, err
	}
	var texts [][]byte
	for _, a := range answers {
		if !strings.Contains(a.text, " FETCH (") {
			continue
		}
		if len(a.literals) != 1 {
			return nil, fmt.Errorf("FETCH answer with %d literals: %s", len(a.literals), a.text)
		}
		_, size, _ := strings.Cut(a.text, "RFC822.SIZE ")
		size = strings.FieldsFunc(size, func(r rune) bool { return r < '0' || r > '9' })[0]
		if size != strconv.Itoa(len(a.literals[0])) {
			return nil, fmt.Errorf("RFC822.SIZE %s, the message has %d octets", size, len(a.literals[0]))
		}
		texts = append(texts, a.literals[0])
	}
	if len(texts) == 0 {
		return nil, nil
	}
	answers, err = w.imap("FETCH 1:* (ENVELOPE BODYSTRUCTURE)")
	if err != nil {
		return nil, err
	}
	described := 0
	for _, a := range answers {
		if !strings.Contains(a.text, " FETCH (") {
			continue
		}
		described++
		if err := sane(a); err != nil {
			return nil, err
		}
	}
	if described != len(texts) {
		return nil, fmt.Errorf("%d messages, %d descriptions", len(texts), described)
	}
	_, err = w.imap("LOGOUT")
	return texts, err
}

// sane checks that an ENVELOPE has ten fields and that all parentheses close.
func sane(a answer) error {
	for _, name := range []string{"ENVELOPE (", "BODYSTRUCTURE ("} {
		_, rest, found := strings.Cut(a.text, name)
		if !found {
			return fmt.Errorf("no %s in %s", name, a.text)
		}
		fields, closed := topFields(rest)
		if !closed || name == "ENVELOPE (" && fields != 10 {
			return fmt.Errorf("%s has %d fields, closed %v: %s", name, fields, closed, a.text)
		}
	}
	return nil
}

// topFields counts the fields of a list up to its closing parenthesis.
func topFields(text string) (fields int, closed bool) {
	depth, quoted, inside := 0, false, false
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
			if depth == 0 && quoted {
				fields++
			}
		case quoted:
		case c == '(':
			if depth == 0 {
				fields++
			}
			depth++
		case c == ')':
			if depth == 0 {
				return fields, true
			}
			depth--
			inside = false
		case c == ' ':
			inside = false
		case depth == 0 && !inside:
			fields++
			inside = true
		}
	}
	return fields, false
}

// same compares stored messages, which begin with trace fields, with what was posted, in any order.
func same(stored [][]byte, want []posted) error {
	if len(stored) != len(want) {
		return fmt.Errorf("%d messages, want %d", len(stored), len(want))
	}
	byID := map[int][]byte{}
	for _, text := range stored {
		var id int
		if _, err := fmt.Sscanf(string(text[:min(len(text), 200)]), "Return-Path: <sender%d@", &id); err != nil {
			return fmt.Errorf("no Return-Path: %.100q", text)
		}
		if byID[id] != nil {
			return fmt.Errorf("message %d is there twice", id)
		}
		byID[id] = text
	}
	for _, p := range want {
		text := byID[p.id]
		if text == nil {
			return fmt.Errorf("message %d is missing", p.id)
		}
		if !bytes.HasSuffix(text, p.text) {
			return fmt.Errorf("message %d: %s", p.id, difference(text[max(0, len(text)-len(p.text)):], p.text))
		}
		if !bytes.Contains(text[:len(text)-len(p.text)], []byte("\r\nReceived: ")) {
			return fmt.Errorf("message %d has no Received field", p.id)
		}
	}
	return nil
}

// difference shows where two texts part.
func difference(got, want []byte) string {
	i := 0
	for i < len(got) && i < len(want) && got[i] == want[i] {
		i++
	}
	return fmt.Sprintf("%d octets, want %d; at %d got %.60q, want %.60q", len(got), len(want), i, got[i:], want[i:])
}

// TestRelayTricks tries what is known to fool servers into carrying strangers' mail to other domains.
func TestRelayTricks(t *testing.T) {
	recipients := []string{
		"victim@foreign.example", "victim%foreign.example@" + domain, "victim%foreign.example", "foreign.example!victim",
		"foreign.example!victim@" + domain, domain + "!victim@foreign.example", "@" + domain + ":victim@foreign.example",
		"@" + domain + ",@foreign.example:victim@foreign.example", "\"victim@foreign.example\"", "\"victim@foreign.example\"@" + domain,
		"\"victim%foreign.example\"@" + domain, "u0@" + domain + "@foreign.example", "victim@foreign.example@" + domain,
		"\"u0@" + domain + "\"@foreign.example", "victim@[192.0.2.7]", "victim@[IPv6:2001:db8::1]", "victim@192.0.2.7",
		"victim%foreign.example@[127.0.0.1]", "victim@" + domain + ".foreign.example", "victim@foreign.example.", "u0@foreign." + domain,
		"\"foreign.example!victim\"@" + domain, "foreign.example!victim%other.example@" + domain, "victim@foreign.example%" + domain,
		"victim%foreign.example%" + domain, "u0+victim%foreign.example@other.example", "\\\"victim@foreign.example\\\"@" + domain,
		"postmaster@foreign.example", "abuse@foreign.example", "victim@FOREIGN.EXAMPLE", "victim @foreign.example",
		"victim@foreign.example\x00@" + domain, "victim@xn--mller-kva.example", "@foreign.example", "victim@", "victim@.", "victim@[]",
	}
	senders := []string{"", "u0@" + domain, "stranger@foreign.example", "\"victim@foreign.example\"@" + domain, "@" + domain + ":x@foreign.example"}
	systems := []struct {
		name    string
		setting setting
	}{
		{"usual restrictions", setting{accounts: 2, mynetworks: "127.0.0.1/32"}},
		{"no restrictions written", setting{accounts: 2, mynetworks: "127.0.0.1/32", noRelay: true}},
		{"compatibility level 0", setting{accounts: 2, mynetworks: "127.0.0.1/32", noRelay: true, main: "compatibility_level = 0\n"}},
		{"a catch-all alias", setting{
			accounts: 2, mynetworks: "127.0.0.1/32",
			main: "allow_percent_hack = yes\nswap_bangpath = yes\nresolve_dequoted_address = no\nvirtual_alias_maps = inline:{ {postmaster@" + domain + "=u0@" + domain + "} }\n",
		}},
		{"rewriting is off", setting{accounts: 2, mynetworks: "127.0.0.1/32", main: "allow_percent_hack = no\nswap_bangpath = no\nsmtpd_reject_unlisted_recipient = no\n"}},
	}
	for _, c := range systems {
		t.Run(c.name, func(t *testing.T) {
			c.setting.main += "smtpd_error_sleep_time = 0\nsmtpd_soft_error_limit = 1000\nsmtpd_hard_error_limit = 1000\n"
			s := start(t, c.setting)
			for _, from := range senders {
				s.tryRelay(from, recipients)
			}
		})
	}
}

// tryRelay offers every recipient from an address that mynetworks does not have; none may get a 250, except those that are ours to take.
func (s *system) tryRelay(from string, recipients []string) {
	s.t.Helper()
	var w *wire
	fresh := func() {
		var err error
		if w, err = s.dialFrom("smtp", "127.0.0.2"); err != nil {
			s.t.Fatal(err)
		}
		for _, step := range [][2]string{{"", "220"}, {"EHLO stranger.example", "250"}} {
			if err := w.smtp(step[0], step[1]); err != nil {
				s.t.Fatal(err)
			}
		}
	}
	fresh()
	defer func() { w.close() }()
	for _, r := range recipients {
		if err := w.smtp("RSET", "250"); err != nil {
			// Too many errors end a session.
			w.close()
			fresh()
		}
		if err := w.send("MAIL FROM:<" + from + ">\r\nRCPT TO:<" + r + ">\r\n"); err != nil {
			s.t.Fatal(err)
		}
		for range 2 {
			got, err := w.reply()
			if err != nil {
				w.close()
				fresh()
				break
			}
			if strings.HasPrefix(got, "421") {
				w.close()
				fresh()
				break
			}
			if strings.HasPrefix(got, "250 2.1.5") || got == "250 Ok" {
				s.t.Errorf("from <%s> to <%s>: %s", from, r, got)
			}
		}
	}
}

// TestRelayNeedsProof shows that the refusals of TestRelayTricks are about who asks: the same recipient is taken to be relayed, up to the
// point where this version has no queue, from trusted clients and after a login, and not after a failed login.
func TestRelayNeedsProof(t *testing.T) {
	s := start(t, setting{accounts: 1, mynetworks: "127.0.0.1/32"})
	steps := func(protocol, source string, commands ...[2]string) error {
		w, err := s.dialFrom(protocol, source)
		if err != nil {
			return err
		}
		defer w.close()
		commands = append([][2]string{{"", "220"}, {"EHLO client.example", "250"}}, commands...)
		for _, c := range commands {
			if err := w.smtp(c[0], c[1]); err != nil {
				return err
			}
		}
		return nil
	}
	plain := "AUTH PLAIN " + base64Text("\x00"+user(0)+"\x00"+pass)
	wrong := "AUTH PLAIN " + base64Text("\x00"+user(0)+"\x00wrong")
	from := [2]string{"MAIL FROM:<" + user(0) + ">", "250"}
	var wait sync.WaitGroup
	for _, c := range []struct {
		name, protocol, source string
		commands               [][2]string
	}{
		{"trusted", "smtp", "127.0.0.1", [][2]string{from, {"RCPT TO:<x@foreign.example>", "250"}}},
		{"stranger", "smtp", "127.0.0.2", [][2]string{from, {"RCPT TO:<x@foreign.example>", "554 5.7.1"}}},
		{"stranger to us", "smtp", "127.0.0.2", [][2]string{from, {"RCPT TO:<u0@" + domain + ">", "250"}}},
		{"login", "submissions", "127.0.0.2", [][2]string{{plain, "235"}, from, {"RCPT TO:<x@foreign.example>", "250"}}},
		{"failed login", "submissions", "127.0.0.2", [][2]string{{wrong, "535"}, from, {"RCPT TO:<x@foreign.example>", "554 5.7.1"}}},
		{"submission without login", "submission", "127.0.0.1", [][2]string{from, {"RCPT TO:<x@foreign.example>", "554 5.7.1"}}},
	} {
		wait.Go(func() {
			if err := steps(c.protocol, c.source, c.commands...); err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
		})
	}
	wait.Wait()
}
