package smtpd

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"postilion/mail/envelope"
	"postilion/mta/policy"
	"postilion/proto/smtp"
)

// goldenGroups are the recorded groups whose policy fits into fakePolicy.
var goldenGroups = []string{
	"001", "002", "003", "004", "005", "006", "007", "008", "009", "010", "050", "051", "052", "053", "054", "055", "056", "057",
	"058", "059", "060", "061", "062", "063", "064", "066", "072", "073", "074", "076", "086", "089", "090", "091", "092", "093", "094", "095", "096",
}

// goldenKnown are recorded cases that this test cannot or shall not give: what they need is in other packages, or Postfix's answer is an
// accident.
var goldenKnown = map[string]string{
	"s053.01": "message_size_limit counts the message, not Postfix's queue file",
	"s063.18": "a temporary failure is answered with 454, so that clients do not ask for another password",
	"s063.17": "the reason comes from the recorded login service",
	"s089.02": "needs access tables", "s089.06": "needs header checks",
	"s094.03": "address rewriting is mta/route's",
	"s050.04": "needs reject_unauth_pipelining", "s050.05": "needs reject_unauth_pipelining", "s050.06": "needs reject_unauth_pipelining",
}

type goldenStep struct {
	C        *string  `json:"c"`
	P        []string `json:"p"`
	D        *string  `json:"d"`
	Raw      *string  `json:"raw"`
	N        *int     `json:"n"`
	Drain    float64  `json:"drain"`
	Big      int      `json:"big"`
	Head     *string  `json:"head"`
	BDAT     *string  `json:"bdat"`
	Last     bool     `json:"last"`
	StartTLS bool     `json:"starttls"`
	Read     int      `json:"read"`
	Sleep    float64  `json:"sleep"`
	EOF      bool     `json:"eof"`
}

type goldenCase struct {
	Name    string            `json:"name"`
	XClient map[string]string `json:"xclient"`
	Port    string            `json:"port"`
	Script  []goldenStep      `json:"script"`
	Show    goldenShow        `json:"show"`
	Expect  struct {
		Replies    [][]string `json:"replies"`
		Deliveries []struct {
			Sender, Recipient string
			Headers           []string
			Body              *string
		} `json:"deliveries"`
	} `json:"expect"`
}

type goldenShow struct {
	Message string   `json:"message"`
	Names   []string `json:"names"`
}

// sharedFolder finds the recorded cases, which are not part of the project.
func sharedFolder(t *testing.T) string {
	t.Helper()
	if dir := os.Getenv("POSTILION_SHARED"); dir != "" {
		return dir
	}
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			shared := filepath.Join(filepath.Dir(dir), "shared")
			if _, err := os.Stat(shared); err == nil {
				return shared
			}
			shared = filepath.Join(filepath.Dir(filepath.Dir(dir)), "shared")
			if _, err := os.Stat(shared); err == nil {
				return shared
			}
		}
	}
	t.Skip("the recorded cases (a folder shared beside the project) are not here")
	return ""
}

func TestRecordedSessions(t *testing.T) {
	root := filepath.Join(sharedFolder(t), "golden", "postfix", "smtp")
	for _, number := range goldenGroups {
		folders, err := filepath.Glob(filepath.Join(root, number+"-*"))
		if err != nil || len(folders) != 1 {
			t.Skipf("no recorded group %s", number)
		}
		t.Run(filepath.Base(folders[0]), func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join(folders[0], "case.json"))
			if err != nil {
				t.Fatal(err)
			}
			var group struct {
				Cases []goldenCase `json:"cases"`
				Show  goldenShow   `json:"show"`
			}
			if err := json.Unmarshal(text, &group); err != nil {
				t.Fatal(err)
			}
			config := readMainCF(t, filepath.Join(folders[0], "files", "main.cf"))
			f := start(t, func(o *Options) { goldenOptions(t, o, config) })
			for _, c := range group.Cases {
				if c.Show.Message == "" {
					c.Show = group.Show
				}
				t.Run(c.Name, func(t *testing.T) {
					if why := goldenKnown[c.Name]; why != "" {
						t.Skip(why)
					}
					f.play(t, &c)
				})
			}
		})
	}
}

func readMainCF(t *testing.T, name string) map[string]string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		return nil
	}
	config := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(line, "="); ok {
			config[strings.TrimSpace(key)] = strings.TrimSpace(value)
		}
	}
	return config
}

func inList(list string) func(string, netip.Addr) bool {
	return func(_ string, a netip.Addr) bool { return slices.Contains(strings.Fields(list), a.String()) }
}

func goldenOptions(t *testing.T, o *Options, config map[string]string) {
	yes := func(name string) bool { return config[name] == "yes" }
	number := func(name string, field *int) {
		if n, err := strconv.Atoi(config[name]); err == nil {
			*field = n
		}
	}
	o.XClientHosts = inList("127.0.0.1")
	o.BareNewlineExclusions = inList(config["smtpd_forbid_bare_newline_exclusions"])
	o.BareNewline = map[string]smtp.BareNewline{"": smtp.BareNewlineAllow, "no": smtp.BareNewlineAllow, "normalize": smtp.BareNewlineNormalize, "reject": smtp.BareNewlineReject}[config["smtpd_forbid_bare_newline"]]
	number("smtpd_forbid_bare_newline_reject_code", &o.BareNewlineRejectCode)
	number("smtpd_soft_error_limit", &o.SoftErrorLimit)
	number("smtpd_hard_error_limit", &o.HardErrorLimit)
	number("smtpd_junk_command_limit", &o.JunkCommandLimit)
	number("smtpd_recipient_limit", &o.RecipientLimit)
	number("smtpd_recipient_overshoot_limit", &o.RecipientOvershootLimit)
	number("header_size_limit", &o.HeaderSizeLimit)
	number("hopcount_limit", &o.HopCountLimit)
	if n, err := strconv.ParseInt(config["message_size_limit"], 10, 64); err == nil {
		o.MessageSizeLimit = n
	}
	o.HeloRequired, o.DisableVRFY = yes("smtpd_helo_required"), yes("disable_vrfy_command")
	o.StrictEnvelopes, o.StrictSMTPUTF8 = yes("strict_rfc821_envelopes"), yes("strict_smtputf8")
	o.SMTPUTF8 = config["smtputf8_enable"] != "no"
	o.SoftBounce, o.AlwaysAddMissingHeaders = yes("soft_bounce"), yes("always_add_missing_headers")
	o.StrictMIMEEncodingDomain, o.Strict8BitMIMEBody = yes("strict_mime_encoding_domain"), yes("strict_8bitmime_body")
	o.Strict7BitHeaders = yes("strict_7bit_headers")
	o.SASLAuthEnable, o.BrokenSASLClients = yes("smtpd_sasl_auth_enable"), yes("broken_sasl_auth_clients")
	o.SASLAuthenticatedHeader = yes("smtpd_sasl_authenticated_header")
	o.SASLExceptionsNetworks = inList(config["smtpd_sasl_exceptions_networks"])
	o.Auth = &fakeAuth{"alice", "secret"}
	o.RejectFooter, o.Banner = config["smtpd_reject_footer"], config["smtpd_banner"]
	if config["message_strip_characters"] == `\0` {
		o.MessageStripCharacters, o.MessageRejectCharacters = "\x00", "\x01"
	}
	if config["smtpd_discard_ehlo_keywords"] != "" {
		o.DiscardEHLOKeywords = func(a netip.Addr) smtp.Keywords {
			list := config["smtpd_discard_ehlo_keywords"]
			if a.String() == "192.0.2.51" {
				list = "pipelining, vrfy"
			}
			set, _ := smtp.ParseKeywords(list)
			return set
		}
	}
	o.XForwardHosts = inList(config["smtpd_authorized_xforward_hosts"])
	switch config["smtpd_tls_security_level"] {
	case "may", "encrypt":
		o.TLS = certificate(t)
		o.EnforceTLS = config["smtpd_tls_security_level"] == "encrypt"
		o.TLSAuthOnly = yes("smtpd_tls_auth_only")
	}
	p, _ := o.Checker.(*fakePolicy)
	if list, ok := config["mydestination"]; ok {
		p.local = strings.Fields(strings.ReplaceAll(list, ",", " "))
	}
	if list, ok := config["local_recipient_maps"]; ok && list == "" {
		p.users = nil
	}
	p.networks = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	if list, ok := config["mynetworks"]; ok {
		if !strings.Contains(list, "/") {
			list += "/32"
		}
		p.networks = []netip.Prefix{netip.MustParsePrefix(list)}
	}
	if config["local_header_rewrite_clients"] == "permit_mynetworks" {
		o.LocalHeaderRewriteClients = func(s *policy.Session, _ netip.Addr) bool { return p.networks[0].Contains(s.ClientAddress) }
	}
	if strings.Contains(config["smtpd_client_restrictions"], "192.0.2.1 ") {
		p.rules = func(stage policy.Stage, s *policy.Session) policy.Decision {
			subject := "<" + s.ClientName + "[" + s.ClientAddress.String() + "]>: Client host"
			if stage != policy.Connect {
				return policy.Decision{}
			}
			switch s.ClientAddress.String() {
			case "192.0.2.2":
				return policy.Decision{Action: policy.Drop, Reply: "421 4.7.0 " + subject + " rejected: busy"}
			case "192.0.2.3":
				return policy.Decision{Action: policy.Refuse, Reply: "554 5.7.1 " + subject + " rejected: Access denied"}
			case "192.0.2.4":
				return policy.Decision{Action: policy.DiscardMessage, Reply: subject + " triggers DISCARD action"}
			}
			return policy.Decision{}
		}
	}
}

var (
	queuedID = regexp.MustCompile(`(queued as|\bid) [0-9A-F]{10}\b`)
	sizeText = regexp.MustCompile(`Ok: \d+ bytes queued`)
	dateText = regexp.MustCompile(`\w\w\w, +\d+ \w\w\w \d{4} [\d:]{8} [-+]\d{4}( \(UTC\))?`)
	msgID    = regexp.MustCompile(`<\d{14}\.[0-9A-F]{10}@`)
)

func normalText(text string) string {
	text = queuedID.ReplaceAllString(text, "$1 @QID@")
	text = sizeText.ReplaceAllString(text, "Ok: @SIZE@ bytes queued")
	return msgID.ReplaceAllString(dateText.ReplaceAllString(text, "@DATE@"), "<@MSGID@@")
}

func (f *fixture) play(t *testing.T, c *goldenCase) {
	client := f.dial()
	client.t = t
	before := len(f.mails.all())
	replies := [][]string{{client.reply()}}
	if c.XClient != nil {
		client.command("EHLO runner.example.com")
		line := "XCLIENT"
		names := []string{"LOGIN", "NAME", "ADDR"}
		for _, name := range names {
			if value, ok := c.XClient[name]; ok {
				line += " " + name + "=" + value
			}
		}
		replies[0][0] = client.command(line)
	}
	for _, step := range c.Script {
		got := client.step(c, step, replies[len(replies)-1])
		replies = append(replies, got)
		if len(got) > 0 && got[len(got)-1] == "@EOF@" {
			break
		}
	}
	_ = client.conn.Close()
	for i, want := range c.Expect.Replies {
		var got []string
		if i < len(replies) {
			got = replies[i]
		}
		for j := range got {
			got[j] = normalText(got[j])
		}
		if !slices.Equal(withoutX(got), withoutX(want)) {
			t.Errorf("step %d: got %q\nwant %q", i, got, want)
		}
	}
	mails := f.mails.all()[before:]
	for _, want := range c.Expect.Deliveries {
		f.compare(t, c, mails, want.Sender, want.Recipient, want.Headers, want.Body)
	}
}

// withoutX takes out what the recording did not keep.
func withoutX(replies []string) []string {
	var out []string
	for _, reply := range replies {
		lines := strings.Split(reply, "\n")
		lines = slices.DeleteFunc(lines, func(l string) bool {
			return strings.HasPrefix(l[min(4, len(l)):], "XCLIENT") || strings.HasPrefix(l[min(4, len(l)):], "XFORWARD")
		})
		out = append(out, strings.Join(lines, "\n"))
	}
	return out
}

func (c *client) step(gc *goldenCase, step goldenStep, last []string) []string {
	sub := func(text string) string { return strings.ReplaceAll(text, "@CASE@", gc.Name) }
	var got []string
	read := func(n int) {
		for range n {
			got = append(got, c.reply())
			if got[len(got)-1][0] == '@' {
				return
			}
		}
	}
	if (step.D != nil || step.Big > 0) && (len(last) == 0 || !strings.HasPrefix(last[len(last)-1], "354")) {
		return nil
	}
	switch {
	case step.C != nil:
		got = append(got, c.command(sub(*step.C)))
	case step.P != nil:
		c.send(sub(strings.Join(step.P, "\r\n") + "\r\n"))
		read(len(step.P))
	case step.D != nil:
		text := strings.TrimSuffix(sub(*step.D), "\n")
		for line := range strings.SplitSeq(text, "\n") {
			if strings.HasPrefix(line, ".") {
				line = "." + line
			}
			c.send(line + "\r\n")
		}
		c.send(".\r\n")
		read(1)
	case step.Raw != nil:
		c.send(sub(*step.Raw))
		for step.Drain > 0 {
			r := c.replyWithin(150 * time.Millisecond)
			if r == "@TIMEOUT@" {
				break
			}
			if got = append(got, r); r == "@EOF@" {
				return got
			}
		}
		n := 1
		if step.Drain > 0 {
			n = 0
		}
		if step.N != nil {
			n = *step.N
		}
		read(n)
	case step.Big > 0:
		line := strings.Repeat("x", 70) + "\r\n"
		head := "Subject: big\n"
		if step.Head != nil {
			head = sub(*step.Head)
		}
		c.send(strings.ReplaceAll(head, "\n", "\r\n") + "\r\n" + strings.Repeat(line, step.Big/len(line)) + ".\r\n")
		read(1)
	case step.BDAT != nil:
		data := strings.ReplaceAll(sub(*step.BDAT), "\n", "\r\n")
		last := ""
		if step.Last {
			last = " LAST"
		}
		c.send("BDAT " + strconv.Itoa(len(data)) + last + "\r\n" + data)
		read(1)
	case step.StartTLS:
		got = append(got, c.command("STARTTLS"))
		if strings.HasPrefix(got[0], "220") {
			c.startTLS()
		}
	case step.Read > 0:
		read(step.Read)
	case step.Sleep > 0:
		time.Sleep(time.Duration(step.Sleep * float64(time.Second)))
	case step.EOF:
		read(1)
	}
	return got
}

var folding = regexp.MustCompile(`\r?\n[ \t]+`)

func (f *fixture) compare(t *testing.T, c *goldenCase, mails []delivered, sender, recipient string, headers []string, body *string) {
	for _, m := range mails {
		found := slices.ContainsFunc(m.envelope.Recipients, func(r envelope.Recipient) bool { return r.Address == recipient })
		if !found || m.envelope.Sender != sender {
			continue
		}
		head, rest, _ := strings.Cut(m.text, "\r\n\r\n")
		var got []string
		for line := range strings.SplitSeq(folding.ReplaceAllString(strings.TrimSuffix(head, "\r\n"), " "), "\r\n") {
			name, _, _ := strings.Cut(line, ":")
			if name != "X-Case" && (len(c.Show.Names) == 0 || slices.Contains(c.Show.Names, name)) {
				got = append(got, normalText(line))
			}
		}
		if c.Show.Message != "envelope" && headers != nil && !slices.Equal(got, headers) {
			t.Errorf("headers %q\nwant %q", got, headers)
		}
		if text := strings.ReplaceAll(rest, "\r\n", "\n"); body != nil && text != *body {
			t.Errorf("body %q\nwant %q", text, *body)
		}
		return
	}
	t.Errorf("no mail from <%s> to <%s> among %d", sender, recipient, len(mails))
}
