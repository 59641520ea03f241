package service_test

import (
	"fmt"
	"path/filepath"
	"strings"

	"postilion/service"
)

// explained is what `explain` says of a recipient at the service under proof.
func explained(recipient string) func(p *probe) string {
	return func(p *probe) string {
		options, err := service.InspectOptionsOf(service.Options{
			PostfixDir: p.s.dir, DovecotFile: filepath.Join(p.s.dir, "dovecot.conf"), Getenv: p.s.getenv,
		})
		if err != nil {
			p.t.Fatal(err)
		}
		var notes service.Notes
		options.Log = notes.Logger()
		x, err := service.Explain(p.t.Context(), options, service.Question{
			Service: p.smtp, Sender: "a@good.test", Recipient: strings.ReplaceAll(recipient, "USER", p.user), Client: addressOf(friend),
		})
		if err != nil {
			p.t.Fatal(err)
		}
		var text strings.Builder
		fmt.Fprintln(&text, x.Reply)
		for _, d := range x.Destinations {
			fmt.Fprintf(&text, "%s: %s\n", d.Recipient, d.Delivery)
			for _, s := range d.Steps {
				fmt.Fprintf(&text, "  %s: %s\n", s.What, s.Result)
			}
		}
		return text.String()
	}
}

// routeProofs are the parameters that say what an address means.
func routeProofs() []proof {
	const (
		local   = "virtual_mailbox_domains =\nmydestination = example.test\nlocal_recipient_maps =\n"
		toUsers = "mailbox_transport = lmtp:unix:private/dovecot-lmtp\n"
		list    = "virtual_alias_maps = inline:{{list@example.test=USER, u0@example.test}}"
	)
	to := func(recipient string) func(p *probe) string { return rcpt("a@good.test", recipient) }
	letter := lettered(stranger, "Subject: x", "", "x")
	listed := session("EHLO client.test", "MAIL FROM:<a@good.test>", "RCPT TO:<list@example.test>", "DATA", "Subject: x", "", "x", ".")
	return []proof{
		{"mydestination", unset, "local.test", "", to("nosuchuser@local.test"), "\n554 5.7.1", "\n550 5.1.1"},
		{"mydomain", unset, "nosuch.test", "append_dot_mydomain = yes\nvirtual_mailbox_domains = sub.example.test", to("x@sub"), "", "\n554 5.7.1"},
		{"myhostname", "one.test", "two.test", "", session(), "220 one.test ", "220 two.test "},
		{"myorigin", "example.test", "nosuch.test", "", to("u0"), "\n250 2.1.5", "\n554 5.7.1"},
		{"append_at_myorigin", "yes", "no", "myorigin = example.test", to("nobody"), "virtual mailbox table", ""},
		{"append_dot_mydomain", "yes", "no", "mydomain = test", to("u0@example"), "\n250 2.1.5", "\n554 5.7.1"},
		{"swap_bangpath", "yes", "no", "", to("example.test!u0"), "\n250 2.1.5", "\n554 5.7.1"},
		{"allow_percent_hack", "yes", "no", "", to("u0%example.test"), "\n250 2.1.5", "\n554 5.7.1"},
		{"allow_min_user", "no", "yes", "virtual_alias_maps = inline:{-x@example.test=u0@example.test}", to("-x@example.test"), "", "\n250 2.1.5"},
		{"proxy_interfaces", unset, "192.0.2.99", "", to("postmaster@[192.0.2.99]"), "\n554 5.7.1", "\n250 2.1.5"},
		{"recipient_delimiter", unset, "-", "virtual_alias_maps = inline:{list@example.test=u0@example.test}", to("list-x@example.test"), "\n550 5.1.1", "\n250 2.1.5"},
		{"owner_request_special", "yes", "no", "recipient_delimiter = -\nvirtual_alias_maps = inline:{owner@example.test=u0@example.test}", to("owner-x@example.test"), "\n550 5.1.1", "\n250 2.1.5"},
		{"propagate_unmatched_extensions", unset, "canonical", "recipient_delimiter = +\nvirtual_alias_maps = inline:{list@example.test=u0@example.test}", explained("list+x@example.test"), "virtual_alias_maps: u0+x@example.test", "virtual_alias_maps: u0@example.test"},
		{"double_bounce_sender", unset, "probe", "mydestination = local.test\nlocal_recipient_maps = inline:{known=x}", to("double-bounce@local.test"), "\n250 2.1.5", "\n550 5.1.1"},

		{"alias_maps", unset, "inline:{known=u0@example.test}", "mydestination = local.test", to("known@local.test"), "\n550 5.1.1", "\n250 2.1.5"},
		{"local_recipient_maps", "inline:{known=x}", unset, "mydestination = local.test", to("known@local.test"), "\n250 2.1.5", "\n550 5.1.1"},
		{"local_transport", "local:$myhostname", "error:5.2.1 closed", local + toUsers, to("USER"), "\n250 2.1.5", "closed"},
		{"mailbox_transport", unset, "lmtp:unix:private/dovecot-lmtp", local, letter, "", "\n250 2.0.0"},
		{"virtual_alias_domains", unset, "alias.test", "", to("x@alias.test"), "\n554 5.7.1", "virtual alias table"},
		{"virtual_alias_maps", unset, "inline:{list@example.test=u0@example.test}", "", to("list@example.test"), "\n550 5.1.1", "\n250 2.1.5"},
		{"virtual_alias_expansion_limit", "1000", "1", list, listed, "\n250 2.0.0", "\n451 4.3.0"},
		{"virtual_alias_recursion_limit", "1000", "1", "virtual_alias_maps = inline:{list@example.test=b@example.test, b@example.test=c@example.test, c@example.test=USER}", listed, "\n250 2.0.0", "\n451 4.3.0"},
		{"virtual_alias_address_length_limit", "1000", "10", list, listed, "\n250 2.0.0", "\n451 4.3.0"},
		{"virtual_mailbox_domains", "example.test", "other.test", "", to("USER"), "\n250 2.1.5", "\n554 5.7.1"},
		{"virtual_mailbox_maps", unset, "inline:{a@example.test=x}", "", to("USER"), "\n250 2.1.5", "\n550 5.1.1"},
		{"virtual_transport", "lmtp:unix:private/dovecot-lmtp", "error:5.2.1 closed", "", to("USER"), "\n250 2.1.5", "closed"},
		{"relay_domains", unset, "relay.test", "", to("x@relay.test"), "\n554 5.7.1", "\n250 2.1.5"},
		{"relay_recipient_maps", unset, "inline:{a@relay.test=x}", "relay_domains = relay.test", to("x@relay.test"), "\n250 2.1.5", "\n550 5.1.1"},
		{"relay_transport", "relay", "error:5.2.1 closed", "relay_domains = relay.test", to("x@relay.test"), "\n250 2.1.5", "closed"},
		{"default_transport", "smtp", "error:5.2.1 closed", "smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination\nmynetworks = 127.0.0.2", to("x@elsewhere.test"), "\n250 2.1.5", "closed"},
		{"relayhost", unset, "[hub.test]", "", explained("x@elsewhere.test"), "", "relayhost: [hub.test]"},
		{"transport_maps", unset, "inline:{{example.test=error:5.2.1 closed}}", "", to("USER"), "\n250 2.1.5", "closed"},
		{"relocated_maps", unset, "inline:{{USER=new@good.test}}", "", to("USER"), "\n250 2.1.5", "User has moved to new@good.test"},
	}
}
