package service_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"postilion/config/dovecot"
	"postilion/config/postfix"
	"postilion/resolve"
	"postilion/service"
)

// proof shows that a parameter is honoured: two configurations that differ in its value alone, the same dialogue with both, and what must be
// different.
type proof struct {
	// parameter is the name in main.cf; in dovecot.conf it may have its section in front: passdb.deny.
	parameter string
	// a and b are the two values; unset leaves the parameter out.
	a, b string
	// with are further lines that both configurations have. In those of dovecot.conf @@ marks where the parameter stands; without the mark it is
	// a line of its own.
	with string
	// ask has the dialogue and returns what was seen.
	ask func(p *probe) string
	// seenA is in what a gives and not in what b gives; seenB the other way round. "" asks for nothing.
	seenA, seenB string
}

const unset = "\x00"

// probe is one of the two configurations of a proof.
type probe struct {
	t testing.TB
	s *system
	// smtp is the address of the SMTP service under proof, program its syslog_name, "" where that cannot be told.
	smtp, program string
	// peer is the address of the server that the service hands mail to.
	peer string
	// user is an account that nobody else uses.
	user string
}

// line is the configuration line of a value, "" for unset.
func (p *proof) line(value string) string {
	if value == unset {
		return ""
	}
	name := p.parameter[strings.LastIndexByte(p.parameter, '.')+1:]
	return name + " = " + value
}

// sides calls f for both configurations of every proof; number counts them from 0.
func sides(proofs []proof, f func(number int, p *proof, side, value string)) {
	for i := range proofs {
		p := &proofs[i]
		f(2*i, p, "a", p.a)
		f(2*i+1, p, "b", p.b)
	}
}

// outcome is what the two configurations of a proof showed.
type outcome struct{ a, b string }

// observe has the dialogues of all proofs, many at a time, because some of them wait for time-outs; each then has a test of its own.
func observe(t *testing.T, proofs []proof, probes []*probe) {
	t.Helper()
	seen := make([]outcome, len(proofs))
	var dialogues sync.WaitGroup
	places := make(chan struct{}, 32)
	ask := func(p *proof, to *probe, saw *string) {
		dialogues.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			*saw = p.ask(to)
		})
	}
	for i := range proofs {
		ask(&proofs[i], probes[2*i], &seen[i].a)
		ask(&proofs[i], probes[2*i+1], &seen[i].b)
	}
	dialogues.Wait()
	for i := range proofs {
		t.Run(proofs[i].parameter, func(t *testing.T) { proofs[i].judge(t, seen[i]) })
	}
}

// judge compares what was seen.
func (p *proof) judge(t *testing.T, saw outcome) {
	t.Helper()
	sawA, sawB := saw.a, saw.b
	complain := func(text string) {
		t.Errorf("%s: %s\n--- with %q:\n%s\n--- with %q:\n%s", p.parameter, text, p.a, sawA, p.b, sawB)
	}
	switch {
	case p.seenA == "" && p.seenB == "":
		complain("the proof asks for no difference")
	case p.seenA != "" && !strings.Contains(sawA, p.seenA):
		complain(fmt.Sprintf("the first lacks %q", p.seenA))
	case p.seenB != "" && !strings.Contains(sawB, p.seenB):
		complain(fmt.Sprintf("the second lacks %q", p.seenB))
	case p.seenA != "" && strings.Contains(sawB, p.seenA):
		complain(fmt.Sprintf("the second has %q too", p.seenA))
	case p.seenB != "" && strings.Contains(sawA, p.seenB):
		complain(fmt.Sprintf("the first has %q too", p.seenB))
	}
}

// group are proofs that share systems.
type group struct {
	name   string
	proofs []proof
	prove  func(t *testing.T, proofs []proof)
}

// postfixGroups are the proofs of all parameters of main.cf that are marked honoured.
func postfixGroups() []group {
	return []group{
		{"replies", replyProofs(), proveServices},
		{"verification", verifyProofs(), proveServices},
		{"restrictions", restrictionProofs(), proveServices},
		{"routes", routeProofs(), proveServices},
		{"content", contentProofs(), proveServices},
		{"sessions", sessionProofs(), proveServices},
		{"limits", limitProofs(), proveServices},
		{"logins", loginProofs(), proveServices},
		{"encryption", encryptionProofs(), proveServices},
		{"delegation", delegationProofs(), proveServices},
		{"agents", agentProofs(), proveAgents},
		{"agents' logins", agentLoginProofs(), proveAgents},
		{"agents' encryption", agentEncryptionProofs(), proveAgents},
		{"systems", systemProofs(), proveSystems},
		{"files", fileProofs(), proveFiles},
		{"authority", transportAuthorityProofs(), proveFiles},
	}
}

// dovecotGroups are those of dovecot.conf.
func dovecotGroups() []group {
	return []group{
		{"names", imapLoginProofs(), proveTogether},
		{"passdbs", passdbProofs(), proveTogether},
		{"userdbs", userdbProofs(), proveApart},
		{"mail encryption", mailEncryptionProofs(), proveApart},
		{"mailboxes", imapProofs(), proveTogether},
		{"deliveries", deliveryProofs(), proveTogether},
		{"more deliveries", moreDeliveryProofs(), proveTogether},
		{"quota", quotaProofs(), proveTogether},
		{"connections", connectionProofs(), proveTogether},
		{"more connections", moreConnectionProofs(), proveTogether},
		{"mail systems", mailSystemProofs(), proveApart},
		{"listeners", listenerProofs(), proveMailFiles},
		{"mail authority", mailAuthorityProofs(), proveMailFiles},
		{"reasons", verboseProofs(), proveApart},
		{"tokens", tokenProofs(), proveApart},
	}
}

func TestParameters(t *testing.T) {
	for _, g := range append(postfixGroups(), dovecotGroups()...) {
		t.Run(g.name, func(t *testing.T) {
			t.Parallel()
			g.prove(t, g.proofs)
		})
	}
}

// proven are the parameters that groups are about.
func proven(groups []group) []string {
	var names []string
	for _, g := range groups {
		for i := range g.proofs {
			names = append(names, g.proofs[i].parameter)
		}
	}
	return names
}

// provenElsewhere are parameters of main.cf whose proof is a test of its own, mailProvenElsewhere those of dovecot.conf.
var (
	provenElsewhere = map[string]string{
		"maximal_queue_lifetime": "TestQueueLifetimeIsRemembered", "tls_append_default_CA": "TestSystemAuthorities",
		"queue_minfree": "TestRoomForMail", "postilion_memory_limit": "TestMemoryLimitIsTheSmallerOne",
	}
	mailProvenElsewhere = map[string]string{"postilion_memory_limit": "TestMemoryLimitIsTheSmallerOne"}
)

// testNames are the tests of this directory.
func testNames(t *testing.T) map[string]bool {
	t.Helper()
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if rest, is := strings.CutPrefix(line, "func Test"); is {
				name, _, _ := strings.Cut(rest, "(")
				names["Test"+name] = true
			}
		}
	}
	return names
}

// TestParametersAreProven holds the registries to the proofs: what is marked honoured has one, and what has one is marked so.
func TestParametersAreProven(t *testing.T) {
	compare := func(t *testing.T, honoured, proven []string) {
		for _, name := range honoured {
			if !slices.Contains(proven, name) {
				t.Errorf("%s is marked honoured and no proof changes it", name)
			}
		}
		for _, name := range proven {
			if !slices.Contains(honoured, name) {
				t.Errorf("%s has a proof and is not marked honoured", name)
			}
		}
	}
	tests := testNames(t)
	t.Run("main.cf", func(t *testing.T) {
		var honoured, others []string
		for name, test := range provenElsewhere {
			if !tests[test] {
				t.Errorf("%s is said to be proven by %s, which is not there", name, test)
			}
			others = append(others, name)
		}
		for _, name := range postfix.Builtin().Names() {
			if p, _ := postfix.Builtin().Lookup(name); p.Treatment == postfix.Honoured {
				honoured = append(honoured, name)
			}
		}
		compare(t, honoured, append(proven(postfixGroups()), others...))
	})
	t.Run("dovecot.conf", func(t *testing.T) {
		var honoured, others []string
		for name, test := range mailProvenElsewhere {
			if !tests[test] {
				t.Errorf("%s is said to be proven by %s, which is not there", name, test)
			}
			others = append(others, name)
		}
		for _, s := range dovecot.Settings() {
			if s.Treatment == dovecot.Honoured {
				honoured = append(honoured, strings.TrimPrefix(s.Section+"."+s.Name, "."))
			}
		}
		compare(t, honoured, append(proven(dovecotGroups()), others...))
	})
}

// begin starts a configured system whose names come from the test's name server.
func (s *system) begin(names string) {
	s.t.Helper()
	server, err := service.Start(context.Background(), service.Options{
		PostfixDir: s.dir, DovecotFile: filepath.Join(s.dir, "dovecot.conf"), Getenv: s.getenv, Stderr: s.log,
		Resolve: resolve.Options{Servers: []string{names}, Hosts: "-", Timeout: patience, Attempts: 1},
	})
	if err != nil {
		s.t.Fatalf("start: %v\n%s", err, s.log)
	}
	s.server = server
	s.t.Cleanup(s.stop)
}

// submissionUsers is a passdb with an account that is named after the service that asks.
const submissionUsers = `
passdb {
  driver = static
  username_filter = only@submission.test
  args = password=secret user=%s.user
}
`

// strangersOnly leaves one client in mynetworks, so that dialogues are with strangers.
const strangersOnly = "127.0.0.1/32"

// proveServices gives each side of each proof an smtpd service of its own in one system; the parameter is an -o of it.
func proveServices(t *testing.T, proofs []proof) {
	s := configure(t, setting{accounts: 2 * len(proofs), mynetworks: strangersOnly, mail: submissionUsers})
	s.writeCertificates()
	var master strings.Builder
	master.WriteString(s.masterConfig() + "local unix - n n - - local\nerror unix - - n - - error\nstrict-cleanup unix n - n - 0 cleanup\n  -o { header_checks = regexp:{{/^Subject: bad/ REJECT}} }\n")
	probes := make([]*probe, 2*len(proofs))
	sides(proofs, func(number int, p *proof, side, value string) {
		probes[number] = &probe{
			t: t, s: s, user: user(number), program: fmt.Sprintf("proof%d%s", number/2, side),
			smtp: net.JoinHostPort(fmt.Sprintf("127.19.%d.%d", number/200, number%200+1), fmt.Sprint(s.ports["smtp"])),
		}
		fmt.Fprintf(&master, "%s inet n - n - - smtpd\n", probes[number].smtp)
		for line := range strings.Lines("syslog_name = " + probes[number].program + "\n" + p.with + "\n" + p.line(value)) {
			if line = strings.TrimSpace(line); line != "" {
				fmt.Fprintf(&master, "  -o { %s }\n", strings.NewReplacer("DIR", s.dir, "SIDE", probes[number].program, "USER", probes[number].user).Replace(line))
			}
		}
	})
	s.write("master.cf", master.String())
	s.begin(nameServer(t))
	observe(t, proofs, probes)
}

// fill puts the system's directory where DIR stands.
func (s *system) fill(text string) string { return strings.ReplaceAll(text, "DIR", s.dir) }

// newPairs configures two systems for each proof of main.cf. Each is given to begin at once: its ports are free at that moment.
func newPairs(t *testing.T, proofs []proof, begin func(s *system)) []*probe {
	t.Helper()
	var probes []*probe
	sides(proofs, func(_ int, p *proof, _, value string) {
		s := configure(t, setting{accounts: 2, mynetworks: strangersOnly})
		s.writeCertificates()
		main, err := os.ReadFile(filepath.Join(s.dir, "main.cf"))
		if err != nil {
			t.Fatal(err)
		}
		s.write("main.cf", s.fill(changed(string(main), p.with+"\n"+p.line(value)+"\n")))
		begin(s)
		probes = append(probes, &probe{t: t, s: s, user: user(0), smtp: s.address("smtp")})
	})
	return probes
}

// changed adds lines to a file; one that begins with ! takes the parameter of that name out.
func changed(text, lines string) string {
	var kept, added strings.Builder
	for line := range strings.Lines(text) {
		name, _, _ := strings.Cut(line, " =")
		if !strings.Contains("\n"+lines, "\n!"+name+"\n") {
			kept.WriteString(line)
		}
	}
	for line := range strings.Lines(lines) {
		if !strings.HasPrefix(line, "!") {
			added.WriteString(line)
		}
	}
	return kept.String() + added.String()
}

// proveSystems gives each side of each proof a system of its own; the parameter stands in main.cf.
func proveSystems(t *testing.T, proofs []proof) {
	names := nameServer(t)
	observe(t, proofs, newPairs(t, proofs, func(s *system) { s.begin(names) }))
}

// proveFiles gives each side its files and starts nothing: the proof does with them what it is about.
func proveFiles(t *testing.T, proofs []proof) {
	observe(t, proofs, newPairs(t, proofs, func(*system) {}))
}

// logged waits for a line of the program's that has the text, and returns all of them.
func (p *probe) logged(text string) string {
	p.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		var lines strings.Builder
		found := false
		for line := range strings.Lines(p.s.log.String()) {
			if p.program == "" || strings.Contains(line, p.program) {
				lines.WriteString(line)
				found = found || strings.Contains(line, text)
			}
		}
		if found || time.Now().After(end) {
			return lines.String()
		}
	}
}
