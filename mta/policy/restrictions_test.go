package policy

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func client(address, name string) func(*Session) {
	return func(s *Session) {
		s.ClientAddress, s.ClientName, s.ReverseName = netip.MustParseAddr(address), name, name
	}
}

func from(sender string) func(*Session)   { return func(s *Session) { s.Sender = sender } }
func to(recipient string) func(*Session)  { return func(s *Session) { s.Recipient = recipient } }
func greeting(name string) func(*Session) { return func(s *Session) { s.Helo = name } }
func login(user, as string) func(*Session) {
	return func(s *Session) { s.SASLUsername, s.Sender = user, as }
}

func unnamed(status NameStatus) func(*Session) {
	return func(s *Session) {
		s.ClientName, s.ReverseName, s.NameStatus, s.ReverseNameStatus = "unknown", "unknown", status, status
	}
}

func TestRestrictions(t *testing.T) {
	dns := fakeDNS{
		"MX good.example": "mx.good.example", "A mx.good.example": "192.0.2.11", "NS good.example": "ns.bad.example", "A ns.bad.example": "192.0.2.99",
		"A aonly.example": "192.0.2.20", "MX null.example": ".", "MX soft.example": "!", "A soft.example": "!", "AAAA soft.example": "!",
		"A 66.2.0.192.bl.example": "127.0.0.4", "TXT 66.2.0.192.bl.example": "listed $myhostname", "A 68.2.0.192.bl.example": "!",
		"A spam.example.rhs.example": "127.0.0.2", "MX backup.example": "mx.good.example me.example", "A me.example": "192.0.2.25", "MX mine.example": "me.example",
	}
	type try struct {
		change func(*Session)
		want   string
	}
	for _, row := range []struct {
		conf  string
		tries []try
	}{
		{"smtpd_client_restrictions = check_client_access inline:{ {192.0.2.1=REJECT} {198.51=450 4.2.9 subnet} {bad.example=REJECT no} {host.bad.example=OK} {2001:db8=DEFER} }", []try{
			{client("192.0.2.1", "c.example"), "554 5.7.1 <c.example[192.0.2.1]>: Client host rejected: Access denied"},
			{client("198.51.100.7", "c.example"), "450 4.2.9 <c.example[198.51.100.7]>: Client host rejected: subnet"},
			{client("192.0.2.9", "x.bad.example"), "554 5.7.1 <x.bad.example[192.0.2.9]>: Client host rejected: no"},
			{client("192.0.2.1", "host.bad.example"), ""},
			{client("2001:db8::1", "c.example"), "450 4.7.1 <c.example[2001:db8::1]>: Client host rejected: Access denied"},
		}},
		{"smtpd_client_restrictions = check_client_access texthash:/nonexistent", []try{
			{nil, "451 4.3.5 <client.example.org[192.0.2.50]>: Client host rejected: Server configuration error"},
		}},
		{"smtpd_client_restrictions = reject_unknown_reverse_client_hostname, reject_unknown_client\nunknown_client_reject_code = 553", []try{
			{nil, ""},
			{unnamed(NameUnknownNow), "450 4.7.1 Client host rejected: cannot find your reverse hostname, [192.0.2.50]"},
			{func(s *Session) { s.NameStatus = NameForged }, "553 5.7.25 Client host rejected: cannot find your hostname, [192.0.2.50]"},
		}},
		{"smtpd_helo_restrictions = reject_invalid_hostname", []try{
			{greeting("a..b"), "501 5.5.2 <a..b>: Helo command rejected: Invalid name"},
			{greeting("[300.1.1.1]"), "501 5.5.2 <[300.1.1.1]>: Helo command rejected: invalid ip address"},
			{greeting("[IPv6:192.0.2.1]"), "501 5.5.2 <[IPv6:192.0.2.1]>: Helo command rejected: invalid ip address"},
			{greeting("[010.1.1.1]"), ""},
			{greeting("1.2.3.4."), ""},
			{greeting("1-2.3"), ""},
			{greeting("x_y"), ""},
			{greeting("1.2"), "501 5.5.2 <1.2>: Helo command rejected: Invalid name"},
			{greeting(""), ""},
		}},
		{"smtpd_helo_restrictions = reject_non_fqdn_helo_hostname, check_helo_access inline:{ {friend=OK} {evil.example=550 5.1.1 x} }, reject_unknown_helo_hostname", []try{
			{greeting("friend"), "504 5.5.2 <friend>: Helo command rejected: need fully-qualified hostname"},
			{greeting("evil.example"), "550 5.0.0 <evil.example>: Helo command rejected: x"},
			{greeting("good.example"), ""},
			{greeting("null.example"), ""},
			{greeting("[192.0.2.1]"), ""},
			{greeting("soft.example"), "450 4.7.1 <soft.example>: Helo command rejected: Host not found"},
			{greeting("none.example"), "450 4.7.1 <none.example>: Helo command rejected: Host not found"},
		}},
		{"smtpd_sender_restrictions = reject_non_fqdn_sender, reject_unknown_sender_domain\nunknown_address_reject_code = 553", []try{
			{from(""), ""},
			{from("u@good.example"), ""},
			{from("u@aonly.example"), ""},
			{from("u@[192.0.2.1]"), ""},
			{from("bob@mail.example.com"), ""},
			{from("postmaster"), "504 5.5.2 <postmaster>: Sender address rejected: need fully-qualified address"},
			{from("u@localhost"), "504 5.5.2 <u@localhost>: Sender address rejected: need fully-qualified address"},
			{from("u@null.example"), "550 5.7.27 <u@null.example>: Sender address rejected: Domain null.example does not accept mail (nullMX)"},
			{from("u@soft.example"), "450 4.1.8 <u@soft.example>: Sender address rejected: Domain not found"},
			{from("u@none.example"), "553 5.1.8 <u@none.example>: Sender address rejected: Domain not found"},
		}},
		{"smtpd_sender_restrictions = check_sender_mx_access inline:{mx.good.example=OK}, check_sender_a_access inline:{192.0.2.20=REJECT}", []try{
			{from("u@good.example"), "451 4.3.5 Server configuration error"},
			{from("u@aonly.example"), "554 5.7.1 <u@aonly.example>: Sender address rejected: Access denied"},
			{from("u@null.example"), ""},
			{from("u@none.example"), ""},
		}},
		{"smtpd_sender_restrictions = check_sender_ns_access inline:{ns.bad.example=DEFER}, check_sender_access inline:{ {<> = REJECT none} }", []try{
			{from("u@sub.good.example"), "450 4.7.1 <u@sub.good.example>: Sender address rejected: Access denied"},
			{from(""), "554 5.7.1 <>: Sender address rejected: none"},
		}},
		{"smtpd_sender_login_maps = inline:{ {a@example.com = alice, Carol} {b@example.com = bob} }\nsmtpd_sender_restrictions = reject_sender_login_mismatch", []try{
			{login("", "a@example.com"), "553 5.7.1 <a@example.com>: Sender address rejected: not logged in"},
			{login("alice", "A@example.com"), ""},
			{login("carol", "a+x@example.com"), ""},
			{login("alice", ""), ""},
			{login("alice", "b@example.com"), "553 5.7.1 <b@example.com>: Sender address rejected: not owned by user alice"},
			{login("alice", "n@example.com"), "553 5.7.1 <n@example.com>: Sender address rejected: not owned by user alice"},
		}},
		{"smtpd_sender_login_maps = inline:{ {b@example.com = bob} }\nsmtpd_sender_restrictions = reject_known_sender_login_mismatch", []try{
			{login("alice", "n@example.com"), ""},
			{login("", "n@example.com"), ""},
			{login("", "b@example.com"), "553 5.7.1 <b@example.com>: Sender address rejected: not logged in"},
		}},
		{"smtpd_recipient_restrictions = check_sasl_access inline:{blocked=REJECT}, permit_sasl_authenticated\nsmtpd_relay_restrictions = permit_sasl_authenticated, reject", []try{
			{login("BLOCKED", "s@example.org"), "554 5.7.1 <BLOCKED>: SASL login name rejected: Access denied"},
			{login("alice", "s@example.org"), ""},
			{to("x@r.example.org"), "554 5.7.1 <x@r.example.org>: Recipient address rejected: Access denied"},
			{to("PostMaster"), ""},
		}},
		{"smtpd_client_restrictions = reject_rbl_client bl.example=127.0.0.[2..4;9]", []try{
			{client("192.0.2.66", "c.example"), "554 5.7.1 Service unavailable; Client host [192.0.2.66] blocked using bl.example; listed $myhostname"},
			{client("192.0.2.68", "c.example"), ""},
			{client("192.0.2.67", "c.example"), ""},
		}},
		{"smtpd_client_restrictions = reject_rbl_client bl.example=127.0.0.5", []try{{client("192.0.2.66", "c.example"), ""}}},
		{"smtpd_client_restrictions = permit_dnswl_client bl.example, reject", []try{
			{client("192.0.2.66", "c.example"), ""},
			{client("192.0.2.68", "c.example"), "450 4.7.1 <192.0.2.68>: Client host rejected: Service unavailable"},
			{client("192.0.2.67", "c.example"), "554 5.7.1 <c.example[192.0.2.67]>: Client host rejected: Access denied"},
		}},
		{"smtpd_recipient_restrictions = reject_rhsbl_sender rhs.example\nmaps_rbl_reject_code = 553", []try{
			{from("u@spam.example"), "553 5.7.1 Service unavailable; Sender address [u@spam.example] blocked using rhs.example"}, {from("u@[192.0.2.1]"), ""},
		}},
		{"smtpd_relay_restrictions = permit_mx_backup, reject_unauth_destination\npermit_mx_backup_networks = 192.0.2.0/28", []try{
			{to("x@backup.example"), ""},
			{to("x@mine.example"), "554 5.7.1 <x@mine.example>: Relay access denied"},
			{to("x@soft.example"), "450 4.4.4 <x@soft.example>: Recipient address rejected: Unable to look up mail exchanger information: soft.example (type MX): host name lookup failed for now"},
		}},
		{"smtpd_relay_restrictions =\nsmtpd_recipient_restrictions = check_recipient_access inline:{bob@=REJECT}, check_relay_domains", []try{
			{to("x@example.net"), "554 5.7.1 <x@example.net>: Recipient address rejected: Relay access denied"}, {nil, "554 5.7.1 <bob@mail.example.com>: Recipient address rejected: Access denied"},
		}},
		{"smtpd_relay_restrictions = permit_inet_interfaces, reject_unauth_destination", []try{{func(s *Session) {
			s.ClientAddress, s.Recipient = netip.MustParseAddr("192.0.2.25"), "x@example.net"
		}, ""}}},
		{"smtpd_recipient_restrictions = reject_plaintext_session", []try{{nil, "450 4.7.1 Session encryption is required"}, {func(s *Session) { s.Encryption.Protocol = "TLSv1.3" }, ""}}},
		{"smtpd_recipient_restrictions = warn_if_reject reject, reject_unverified_recipient", []try{
			{nil, "450 4.1.1 <bob@mail.example.com>: Recipient address rejected: unverified address: Address verification in progress"},
		}},
		{"transport_maps = inline:{ {r.example.org=error:5.1.2 closed} }\nsmtpd_recipient_restrictions = reject_unverified_recipient\nunverified_recipient_reject_code = 550", []try{
			{to("x@r.example.org"), "550 5.1.1 <x@r.example.org>: Recipient address rejected: undeliverable address: closed"},
		}},
		{"soft_bounce = yes\nsmtpd_recipient_restrictions = reject", []try{{nil, "454 4.7.1 <bob@mail.example.com>: Recipient address rejected: Access denied"}}},
		{"smtpd_restriction_classes = c, d\nc = inline:{bob@mail.example.com=DEFER_IF_REJECT}, d\nd = reject\nsmtpd_recipient_restrictions = c", []try{
			{nil, "450 4.7.1 <bob@mail.example.com>: Recipient address rejected: Service unavailable"},
		}},
		{"smtpd_restriction_classes = c\nc = c\nsmtpd_recipient_restrictions = c", []try{{nil, "451 4.3.5 Server configuration error"}}},
		{"smtpd_recipient_restrictions = check_policy_service\n", []try{{nil, "451 4.3.5 Server configuration error"}}},
		{"smtpd_recipient_restrictions = warn_if_reject nosuch, permit\n", []try{{nil, "451 4.3.5 Server configuration error"}}},
		{"smtpd_recipient_restrictions = sleep x\n", []try{{nil, "451 4.3.5 Server configuration error"}}},
		{"smtpd_relay_restrictions =\nsmtpd_recipient_restrictions = permit_mynetworks, permit, reject\n", []try{{nil, "451 4.3.5 Server configuration error"}}},
		{"smtpd_relay_restrictions =\nsmtpd_recipient_restrictions = warn_if_reject reject\n", []try{{nil, "451 4.3.5 Server configuration error"}}},
	} {
		b := testRules(t, row.conf+"\n", dns)
		for i, try := range row.tries {
			if got := b.ask(try.change); got != try.want {
				t.Errorf("%s\n  %d: %s\nwant %s", row.conf, i, got, try.want)
			}
		}
	}
}

func TestActions(t *testing.T) {
	for _, row := range []struct{ action, reply, effect string }{
		{"OK", "", ""},
		{"12345", "", ""},
		{"550", "", ""},
		{"DUNNO", "", ""},
		{"550 text", "550 5.7.1 <s@example.org>: Sender address rejected: text", ""},
		{"450 4.2.9 soft", "450 4.2.9 <s@example.org>: Sender address rejected: soft", ""},
		{"REJECT 5.1.6 x", "554 5.1.7 <s@example.org>: Sender address rejected: x", ""},
		{"REJECT 5.1.20 x", "554 5.1.0 <s@example.org>: Sender address rejected: x", ""},
		{"REJECT 5.1 x", "554 5.7.1 <s@example.org>: Sender address rejected: 5.1 x", ""},
		{"999 x", "450 4.7.1 Service unavailable", ""},
		{"DEFER_IF_PERMIT x", "450 4.7.1 <s@example.org>: Sender address rejected: x", ""},
		{"521 5.7.1 drop", "521 5.7.1 <s@example.org>: Sender address rejected: drop", ""},
		{"HOLD", "", "HOLD  <s@example.org>: Sender address triggers HOLD action"},
		{"HOLD why", "", "HOLD why <s@example.org>: Sender address why"},
		{"FILTER slow:x", "", "FILTER slow:x <s@example.org>: Sender address triggers FILTER slow:x"},
		{"FILTER x", "", ""},
		{"REDIRECT x", "", ""},
		{"PREPEND x", "", ""},
		{"PREPEND X-A: b", "", "PREPEND X-A: b "},
		{"BCC a@b", "", "BCC a@b <s@example.org>: Sender address triggers BCC a@b"},
		{"WARN care", "", "WARN care care"},
		{"DISCARD", "discard <s@example.org>: Sender address triggers DISCARD action", ""},
		{"bogus", "451 4.3.5 Server configuration error", ""},
		{"check_client_access hash:x", "451 4.3.5 Server configuration error", ""},
		{"permit, reject", "", ""},
		{"warn_if_reject reject", "", ""},
	} {
		b := testRules(t, "smtpd_sender_restrictions = check_sender_access inline:{ {s@example.org = "+row.action+"} }\n", fakeDNS{})
		s := testSession()
		s.Sender = "s@example.org"
		d := b.rules.Check(context.Background(), Rcpt, s)
		reply := d.Reply
		if d.Action == DiscardMessage {
			reply = "discard " + reply
			if again := b.rules.Check(context.Background(), Data, s); again.Action != Permit {
				t.Errorf("DISCARD: DATA gives %v", again)
			}
		}
		if reply != row.reply {
			t.Errorf("%s: %s, want %s", row.action, reply, row.reply)
		}
		if drop := strings.HasPrefix(reply, "521"); (d.Action == Drop) != drop {
			t.Errorf("%s: action %d", row.action, d.Action)
		}
		effect := ""
		for _, e := range d.Effects {
			effect += e.Kind + " " + e.Argument + " " + e.Text
		}
		if effect != row.effect {
			t.Errorf("%s: effect %q, want %q", row.action, effect, row.effect)
		}
	}
}

func TestStagesWithoutDelay(t *testing.T) {
	b := testRules(t, `smtpd_delay_reject = no
smtpd_client_restrictions = check_client_access inline:{client.example.org=DEFER_IF_PERMIT,h.example.org=HOLD}
smtpd_helo_restrictions = reject_non_fqdn_helo_hostname
`, fakeDNS{})
	ctx := context.Background()
	s := testSession()
	s.Helo, s.Sender, s.HasSender, s.Recipient = "", "", false, ""
	if d := b.rules.Check(ctx, Connect, s); d.Action != Permit {
		t.Errorf("CONNECT: %v", d)
	}
	s.Helo = "short"
	if d := b.rules.Check(ctx, Helo, s); d.Reply != "504 5.5.2 <short>: Helo command rejected: need fully-qualified hostname" {
		t.Errorf("HELO: %v", d)
	}
	s.Helo = "long.example.org"
	for _, stage := range []Stage{Helo, Mail} {
		if d := b.rules.Check(ctx, stage, s); d.Action != Permit {
			t.Errorf("%d: %v", stage, d)
		}
	}
	s.Recipient, s.HasSender = "bob@mail.example.com", true
	if d := b.rules.Check(ctx, Rcpt, s); d.Reply != "450 4.7.1 <client.example.org[192.0.2.50]>: Client host rejected: Service unavailable" {
		t.Errorf("RCPT: %v", d)
	}
	held := testSession()
	held.ClientName = "h.example.org"
	if d := b.rules.Check(ctx, Connect, held); len(d.Effects) != 0 || len(b.warnings) == 0 {
		t.Errorf("HOLD before MAIL: %v", d)
	}
}

func TestRefusalAfterDiscard(t *testing.T) {
	b := testRules(t, "smtpd_sender_restrictions = check_sender_access inline:{ {sender@example.org = a} }\nsmtpd_restriction_classes = a\na = defer_if_permit, check_client_access inline:{client.example.org=DISCARD}\n", fakeDNS{})
	s := testSession()
	for range 2 {
		if d := b.rules.Check(context.Background(), Rcpt, s); d.Action != Refuse {
			t.Errorf("%+v", d)
		}
		s.Recipient = "x@example.net"
	}
	s.Sender = "other@example.org"
	if d := b.rules.Check(context.Background(), Rcpt, s); d.Reply != "454 4.7.1 <x@example.net>: Relay access denied" {
		t.Errorf("%+v", d)
	}
}

func TestTrace(t *testing.T) {
	b := testRules(t, "smtpd_recipient_restrictions = permit_mynetworks\n  check_sender_access inline:{sender@example.org=REJECT}\n", fakeDNS{})
	d := b.rules.Check(context.Background(), Rcpt, testSession())
	last := d.Trace[len(d.Trace)-1]
	if last.Restriction != "check_sender_access inline:{sender@example.org=REJECT}" || !strings.Contains(last.Where, "main.cf:") ||
		last.Result != d.Reply || !strings.Contains(last.Detail, "sender@example.org REJECT") {
		t.Errorf("%+v", last)
	}
}

// policyServer answers every request by answer, and hands out the requests.
func policyServer(t *testing.T, answer func(request map[string]string) string) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			lines := bufio.NewScanner(conn)
			request := map[string]string{}
			for lines.Scan() {
				if name, value, ok := strings.Cut(lines.Text(), "="); ok {
					request[name] = value
					continue
				}
				if _, err := conn.Write([]byte(answer(request))); err != nil {
					break
				}
				request = map[string]string{}
			}
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() {
		if err := listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		<-done
	})
	return listener.Addr().String()
}

func TestPolicyService(t *testing.T) {
	seen := make(chan map[string]string, 10)
	address := policyServer(t, func(request map[string]string) string {
		seen <- request
		return "action=" + map[string]string{"a@example.org": "REJECT said so", "b@example.org": "DUNNO"}[request["sender"]] + "\n\n"
	})
	b := testRules(t, "smtpd_recipient_restrictions = check_policy_service { inet:"+address+", policy_context = here }\n", fakeDNS{})
	if got := b.ask(from("a@example.org")); got != "554 5.7.1 <bob@mail.example.com>: Recipient address rejected: said so" {
		t.Error(got)
	}
	request := <-seen
	for name, want := range map[string]string{"request": "smtpd_access_policy", "protocol_state": "RCPT", "recipient": "bob@mail.example.com", "recipient_count": "0", "policy_context": "here", "client_address": "192.0.2.50"} {
		if request[name] != want {
			t.Errorf("%s=%s, want %s", name, request[name], want)
		}
	}
	if got := b.ask(from("b@example.org")); got != "" {
		t.Error(got)
	}
}

func TestPolicyServiceDown(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	b := testRules(t, "smtpd_recipient_restrictions = check_policy_service inet:"+address+"\n", fakeDNS{})
	if got := b.ask(nil); got != "451 4.3.5 <bob@mail.example.com>: Recipient address rejected: Server configuration problem" {
		t.Error(got)
	}
	if b.slept != time.Second {
		t.Errorf("slept %s between two tries", b.slept)
	}
	b = testRules(t, "smtpd_recipient_restrictions = check_policy_service { inet:"+address+", default_action=DUNNO, try_limit=1 }, check_policy_service inet:"+policyServer(t, func(map[string]string) string {
		return strings.Repeat("x", 3000)
	})+"\nsmtpd_policy_service_try_limit = 1\n", fakeDNS{})
	if got := b.ask(nil); !strings.HasPrefix(got, "451 4.3.5") {
		t.Error(got)
	}
}

func TestLookupClient(t *testing.T) {
	n := Names{Resolver: fakeDNS{
		"PTR 192.0.2.1": "good.example.", "A good.example": "192.0.2.1", "PTR 192.0.2.2": "good.example", "PTR 192.0.2.3": "!", "PTR 192.0.2.4": "none.example",
		"PTR 192.0.2.5": "soft.example", "A soft.example": "!", "PTR 192.0.2.6": "bad..name",
	}}
	for address, want := range map[string][4]any{
		"192.0.2.1": {"good.example", "good.example", NameFound, NameFound}, "::ffff:192.0.2.1": {"unknown", "unknown", NameMissing, NameMissing},
		"192.0.2.2": {"unknown", "good.example", NameForged, NameFound}, "192.0.2.3": {"unknown", "unknown", NameUnknownNow, NameUnknownNow},
		"192.0.2.4": {"unknown", "none.example", NameForged, NameFound}, "192.0.2.5": {"unknown", "soft.example", NameUnknownNow, NameFound},
		"192.0.2.6": {"unknown", "unknown", NameMissing, NameMissing}, "192.0.2.7": {"unknown", "unknown", NameMissing, NameMissing},
	} {
		name, reverse, a, b := n.LookupClient(context.Background(), netip.MustParseAddr(address))
		if got := [4]any{name, reverse, a, b}; got != want {
			t.Errorf("%s: %v, want %v", address, got, want)
		}
	}
}

func BenchmarkEverydayRecipient(b *testing.B) {
	rules := testRules(b, `smtpd_relay_restrictions = permit_mynetworks, permit_sasl_authenticated, reject_unauth_destination
smtpd_helo_restrictions = reject_invalid_helo_hostname, reject_non_fqdn_helo_hostname
smtpd_recipient_restrictions = reject_non_fqdn_sender, reject_non_fqdn_recipient
smtpd_reject_unlisted_recipient = no
`, fakeDNS{}).rules
	s := testSession()
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		if d := rules.Check(ctx, Rcpt, s); d.Action != Permit {
			b.Fatal(d.Reply)
		}
	}
}

func BenchmarkListedRecipient(b *testing.B) {
	rules := testRules(b, "", fakeDNS{}).rules
	s := testSession()
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		if d := rules.Check(ctx, Rcpt, s); d.Action != Permit {
			b.Fatal(d.Reply)
		}
	}
}

func FuzzRestrictions(f *testing.F) {
	for _, seed := range []string{
		"permit_mynetworks, reject_unauth_destination", "check_sender_access inline:{x=y}", "warn_if_reject", "check_policy_service { inet:h:1, timeout = 3 }",
		"reject_rbl_client bl.example=127.0.0.[1..4;9]", "sleep 3 sleep", "check_client_mx_access cidr:{ {1.2.3.4 OK} }", "{", "permit reject nosuch:",
	} {
		f.Add(seed)
	}
	b := testRules(f, "", fakeDNS{})
	f.Fuzz(func(t *testing.T, text string) {
		words := strings.Fields(text)
		for _, word := range words {
			if strings.HasPrefix(word, "check_policy_service") || strings.ContainsAny(word, "/:") {
				t.Skip("opens files and connections")
			}
		}
		e := evaluation{rules: b.rules, ctx: context.Background(), session: testSession(), stage: Rcpt, bare: "check_recipient_access"}
		result := e.run(&program{members: b.rules.parse("fuzz", "", words)}, subject{"bob@mail.example.com", recipientClass})
		if (result == refuse) != (e.decision.Reply != "" && e.decision.Action != DiscardMessage) {
			t.Errorf("%q: %d with reply %q", text, result, e.decision.Reply)
		}
	})
}

func FuzzAction(f *testing.F) {
	for _, seed := range []string{"OK", "REJECT 5.1.1 x", "450", "550 4.4.4 \x00\r\n", "DISCARD", "PREPEND a: b", "warn_if_reject warn_if_reject reject", "999999"} {
		f.Add(seed)
	}
	b := testRules(f, "", fakeDNS{})
	f.Fuzz(func(t *testing.T, text string) {
		if strings.HasPrefix(text, "check_policy_service") || strings.Contains(text, "sleep") {
			t.Skip("waits")
		}
		e := evaluation{rules: b.rules, ctx: context.Background(), session: testSession(), stage: Rcpt}
		result := e.act(entryOf(text), "test", "key", subject{"s@example.org", senderClass})
		if result != refuse {
			return
		}
		reply := e.decision.Reply
		if len(reply) < 10 || (reply[0] != '4' && reply[0] != '5') || reply[4] != reply[0] || strings.ContainsAny(reply, "\r\n\x00") {
			t.Errorf("%q: reply %q", text, reply)
		}
	})
}

func FuzzMacro(f *testing.F) {
	f.Add("$rbl_code ${a?{b}:{c}} $(d:e) $$")
	f.Fuzz(func(t *testing.T, text string) {
		_, _ = expand(text, func(name string) (string, bool) { return "$" + name, name != "a" }, func(s string) string { return s })
		if p, err := parseAddressPattern(text); err == nil && p == nil {
			t.Error("neither pattern nor error")
		}
		if status, rest := splitStatus("5.7.1", text); len(status) < 5 || len(rest) > len(text) {
			t.Errorf("%q: status %q, rest %q", text, status, rest)
		}
	})
}
