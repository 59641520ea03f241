package service_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// imapProofs are settings of IMAP and POP3 that do not touch each other.
func imapProofs() []proof {
	capability := imapSession("LOGIN", "CAPABILITY")
	logged := func(ask func(p *probe) string, until string) func(p *probe) string {
		return func(p *probe) string { return ask(p) + p.logged(until) }
	}
	letter := []string{"Subject: x\n\nx"}
	seen := func(p *probe) string {
		pop3Session(letter, "RETR 1", "QUIT")(p)
		return imapSession("LOGIN", "SELECT INBOX", "FETCH 1 FLAGS")(p)
	}
	hidden := func(p *probe) string {
		p.deliver(p.user, "Subject: x\n\nx")
		imapSession("LOGIN", "SELECT INBOX", "STORE 1 +FLAGS ($POP3Deleted)")(p)
		return pop3Dialogue(p, "STAT")
	}
	locked := func(p *probe) string {
		conn, err := p.dialAs(client{}, "pop3")
		if err != nil {
			return err.Error()
		}
		defer conn.Close()
		w := newWire(p.t, conn)
		for _, command := range []string{"", "USER " + p.user, "PASS " + pass, "STAT"} {
			if _, err := w.pop3(command); err != nil {
				return err.Error()
			}
		}
		return pop3Dialogue(p, "STAT")
	}
	twice := func(p *probe) string {
		k, err := p.imapAs(client{})
		if err != nil {
			return err.Error()
		}
		k.say("LOGIN")
		defer k.close()
		return imapSession("LOGIN")(p)
	}
	return []proof{
		{"imap_capability", unset, "+XPROOF", "", capability, "", "XPROOF"},
		{"imap_client_workarounds", unset, "tb-extra-mailbox-sep", "", imapSession("LOGIN", `SUBSCRIBE "Sent/"`), "t2 NO", "t2 OK"},
		{"imap_id_log", unset, "name", "", logged(imapSession("LOGIN", `ID ("name" "proof")`, "LOGOUT"), "Logged out"), "", "name=proof"},
		{"imap_idle_notify_interval", "2 mins", "1s", "", idling, "", "* OK Still here"},
		{"imap_literal_minus", "no", "yes", "", capability, "LITERAL+", "LITERAL-"},
		{"imap_max_line_length", "64 k", "1 k", "", imapSession("LOGIN", "NOOP", "SEARCH SUBJECT "+strings.Repeat("x", 2000)), "", "Too long argument"},
		{"login_greeting", "one", "two", "", imapSession(), "] one", "] two"},
		{"mail_max_userip_connections", "200", "1", "", twice, "t1 OK", "t1 NO"},
		{"postilion_imap4rev2", "no", "yes", "", capability, "", "IMAP4rev2"},
		{"postilion_imap_create_special_use", "no", "yes", "", imapSession("LOGIN", `CREATE Proof (USE (\Flagged))`, `LIST (SPECIAL-USE) "" *`), "", `\Flagged) "/" Proof`},
		{"postilion_imap_objectid", "no", "yes", "", imapSession("LOGIN", "SELECT INBOX"), "", "MAILBOXID"},
		{"pop3_client_workarounds", unset, "oe-ns-eoh", "", pop3Session([]string{"Subject: x"}, "RETR 1"), "Subject: x\n.\n", "Subject: x\n\n.\n"},
		{"pop3_deleted_flag", unset, `"$POP3Deleted"`, "", hidden, "+OK 1 ", "+OK 0 "},
		{"pop3_enable_last", "no", "yes", "", pop3Session(nil, "LAST"), "> LAST\n-ERR", "> LAST\n+OK"},
		{"pop3_lock_session", "no", "yes", "", locked, "> STAT\n+OK", "[IN-USE]"},
		{"pop3_logout_format", "retr=%r", "gone=%r", "", logged(pop3Session(letter, "RETR 1", "QUIT"), "Logged out"), "retr=1", "gone=1"},
		{"pop3_no_flag_updates", "no", "yes", "", seen, `(FLAGS (\Seen))`, ""},
		{"pop3_reuse_xuidl", "no", "yes", "", pop3Session([]string{"X-UIDL: reused\nSubject: x\n\nx"}, "UIDL"), "", "1 reused"},
		{"pop3_uidl_format", "%08Xu%08Xv", "proof-%u", "", pop3Session(letter, "UIDL"), "1 00000001", "1 proof-1"},
		{"mailbox.auto", "no", "create", "namespace inbox {\n  mailbox Auto {\n    @@\n  }\n}", imapSession("LOGIN", `LIST "" Auto`), "", `"/" Auto`},
		{"mailbox.special_use", unset, `\Archive`, "namespace inbox {\n  mailbox Old {\n    auto = create\n    @@\n  }\n}", imapSession("LOGIN", `LIST "" Old`), "", `\Archive`},
	}
}

// idling waits for a while in IDLE.
func idling(p *probe) string {
	k, err := p.imapAs(client{})
	if err != nil {
		return err.Error()
	}
	defer k.close()
	k.say("LOGIN", "SELECT INBOX", "IDLE")
	if err := k.wire.conn.SetReadDeadline(time.Now().Add(patient)); err != nil {
		p.t.Error(err)
	}
	line, _ := k.wire.line()
	return k.transcript.String() + line
}

// deliveryProofs are settings of LMTP that do not touch each other.
func deliveryProofs() []proof {
	detailed := func(p *probe) string {
		p.deliver(strings.Replace(p.user, "@", "+New@", 1), "Subject: x\n\nx")
		return imapSession("LOGIN", `LIST "" *`, `LSUB "" *`)(p)
	}
	letter := delivered("Subject: x\n\nx")
	return []proof{
		{"lda_mailbox_autocreate", "no", "yes", "lmtp_save_to_detail_mailbox = yes", detailed, "", `* LIST (\HasNoChildren) "/" New`},
		{"lmtp_add_received_header", "yes", "no", "", letter, "with LMTP", ""},
		{"lmtp_hdr_delivery_address", "final", "none", "", letter, "Delivered-To: ", ""},
	}
}

// moreDeliveryProofs are those that touch the first ones, and each other little enough.
func moreDeliveryProofs() []proof {
	detailed := func(mailbox string) func(p *probe) string {
		return func(p *probe) string {
			p.deliver(strings.Replace(p.user, "@", "+"+mailbox+"@", 1), "Subject: x\n\nx")
			return imapSession("LOGIN", "STATUS INBOX (MESSAGES)", `LSUB "" New`)(p)
		}
	}
	return []proof{
		{"lmtp_save_to_detail_mailbox", "no", "yes", "", detailed("Sent"), "(MESSAGES 1)", "(MESSAGES 0)"},
		{"lda_mailbox_autosubscribe", "no", "yes", "lda_mailbox_autocreate = yes", detailed("New"), "", `* LSUB () "/" New`},
	}
}

// quotaProofs are settings about full mailboxes.
func quotaProofs() []proof {
	full := func(p *probe) string {
		p.deliver(p.user, "Subject: x\n\nx")
		return p.deliver(p.user, "Subject: x\n\nx")
	}
	const limits = "mail_plugins = quota\nplugin {\n  quota = count:User quota\n  quota_rule = *:messages=1\n}"
	return []proof{
		{"quota_full_tempfail", "no", "yes", limits, full, "\n552 5.2.2", "\n452 4.2.2"},
		{"lmtp_rcpt_check_quota", "no", "yes", "", full, "\n354 ", ""},
	}
}

// mailSystemProofs are settings that need systems of their own.
func mailSystemProofs() []proof {
	letter := []string{"Subject: x\n\nx"}
	delimited := func(p *probe) string {
		return p.deliver(strings.Replace(p.user, "@", "-x@", 1), "Subject: x\n\nx")
	}
	full := func(p *probe) string {
		p.deliver(p.user, "Subject: x\n\nx")
		return p.deliver(p.user, "Subject: x\n\nx")
	}
	removed := func(p *probe) string {
		pop3Session(letter, "DELE 1", "QUIT")(p)
		return imapSession("LOGIN", "STATUS INBOX (MESSAGES)")(p)
	}
	logFile := func(p *probe) string {
		imapSession("LOGIN")(p)
		text, err := os.ReadFile(filepath.Join(p.s.dir, "maillog"))
		if err != nil {
			return "no file\n" + p.logged("Login: ")
		}
		return "in the file:\n" + string(text)
	}
	logged := func(p *probe) string {
		imapSession("LOGIN")(p)
		return p.logged("Login: ")
	}
	same := []string{"X-UIDL: same\n\nx", "X-UIDL: same\n\ny"}
	proxied := "service imap-login {\n  inet_listener proxied {\n    address = 127.0.0.9\n    port = IMAPPORT\n    haproxy = yes\n  }\n}\n"
	other := "namespace other {\n  prefix = Other/\n  separator = /\n  location = vault:DIR/other\n  @@\n}"
	return []proof{
		{"recipient_delimiter", "+", "-", "", delimited, "\n550 5.1.1", "\n250 2.1.5"},
		{"mail_plugins", unset, "quota", "plugin {\n  quota = count:User quota\n  quota_rule = *:messages=1\n}", full, "", "\n552 5.2.2"},
		{"pop3_delete_type", "expunge", "flag", `pop3_deleted_flag = "$POP3Deleted"`, removed, "(MESSAGES 0)", "(MESSAGES 1)"},
		{"pop3_uidl_duplicates", "allow", "rename", "pop3_reuse_xuidl = yes", pop3Session(same, "UIDL"), "2 same\n", "2 same-2"},
		{"log_path", "/dev/stderr", "DIR/maillog", "", logFile, "no file", "in the file:"},
		{"info_log_path", unset, "DIR/maillog", "", logFile, "no file", "in the file:"},
		{"postilion_log_format", "classic", "json", "", logged, "imap-login: Info: Login: ", `"program":"imap-login"`},
		{"hostname", "one.test", "two.test", "", func(p *probe) string { return p.deliver(p.user, "x: y\n\nx") }, "220 one.test", "220 two.test"},
		{"service.service_count", "0", "1", "service imap-login {\n  client_limit = 2\n  @@\n}", crowdedMail("imap"), "still there", "gone"},
		{"inet_listener.haproxy", "no", "yes", strings.Replace(proxied, "haproxy = yes", "@@", 1) + "haproxy_trusted_networks = 127.0.0.0/8\nhaproxy_timeout = 100 s\n", behindProxy(""), "* OK ", "(nothing)"},
		{"haproxy_trusted_networks", "192.0.2.0/24", "127.0.0.0/8", proxied, behindProxy("PROXY TCP4 192.0.2.7 192.0.2.1 4711 143\r\n"), "(closed)", "* OK "},
		{"haproxy_timeout", "100 s", "1 s", proxied + "haproxy_trusted_networks = 127.0.0.0/8\n", behindProxy(""), "(nothing)", "(closed)"},
		{"auth_mechanisms", "plain", "plain cram-md5", "", imapSession("CAPABILITY"), "", "AUTH=CRAM-MD5"},
		{"namespace.separator", "/", ".", "!namespace inbox\nnamespace inbox {\n  inbox = yes\n  @@\n}", imapSession("LOGIN", "NAMESPACE"), `(("" "/"))`, `(("" "."))`},
		{"namespace.prefix", unset, "Mail/", "namespace inbox {\n  @@\n}", imapSession("LOGIN", "NAMESPACE"), `(("" "/"))`, `(("Mail/" "/"))`},
		{"namespace.location", unset, "vault:DIR/elsewhere", "namespace inbox {\n  @@\n}", leaving(imapSession("LOGIN", "STATUS INBOX (MESSAGES)"), "elsewhere"), "", "found elsewhere"},
		{"namespace.inbox", "yes", "no", "!namespace inbox\nnamespace inbox {\n  separator = /\n  location = vault:DIR/first\n  @@\n}\n" +
			strings.ReplaceAll(other, "@@", ""), imapSession("LOGIN", "SELECT INBOX"), "t2 OK", ""},
		{"namespace.type", "private", "public", other, imapSession("LOGIN", "NAMESPACE"), `("Other/" "/")) NIL NIL`, `NIL (("Other/" "/"))`},
		{"namespace.hidden", "no", "yes", other, imapSession("LOGIN", "NAMESPACE"), "Other/", ""},
		{"namespace.list", "yes", "no", other, imapSession("LOGIN", "CREATE Other/Box", `LIST "" *`), `"/" Other/Box`, ""},
		{"namespace.disabled", "no", "yes", other, imapSession("LOGIN", "NAMESPACE"), "Other/", ""},
		{"namespace.subscriptions", "yes", "no", "namespace inbox {\n  @@\n}", imapSession("LOGIN", "SUBSCRIBE Sent"), "t2 OK", "t2 NO"},
	}
}

// behindProxy connects to the listener for proxies, says what a proxy says, and waits for a while for what comes.
func behindProxy(words string) func(p *probe) string {
	return func(p *probe) string {
		conn, err := net.DialTimeout("tcp4", net.JoinHostPort("127.0.0.9", strconv.Itoa(p.s.ports["imap"])), patience)
		if err != nil {
			return err.Error()
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(patient)); err != nil {
			p.t.Error(err)
		}
		w := newWire(p.t, conn)
		_ = w.send(words)
		line, err := w.line()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return "(nothing)"
		case err != nil:
			return "(closed)"
		}
		return line
	}
}

// connectionProofs and moreConnectionProofs are the limits of connections, which multiply each other.
func connectionProofs() []proof {
	return []proof{
		{"default_client_limit", "1000", "2", "service imap-login {\n  process_limit = 1\n}", crowdedMail("imap"), "still there", "gone"},
		{"service.client_limit", "1000", "2", "service pop3-login {\n  process_limit = 1\n  @@\n}", crowdedMail("pop3"), "still there", "gone"},
	}
}

func moreConnectionProofs() []proof {
	return []proof{
		{"default_process_limit", "100", "1", "service imap-login {\n  client_limit = 2\n  service_count = 0\n}", crowdedMail("imap"), "still there", "gone"},
		{"service.process_limit", "100", "1", "service pop3-login {\n  client_limit = 2\n  service_count = 0\n  @@\n}", crowdedMail("pop3"), "still there", "gone"},
	}
}

// crowdedMail opens three connections and tells what became of the first.
func crowdedMail(protocol string) func(p *probe) string {
	return func(p *probe) string {
		var first *wire
		for range 3 {
			conn, err := p.dialAs(client{}, protocol)
			if err != nil {
				return err.Error()
			}
			defer conn.Close()
			w := newWire(p.t, conn)
			if _, err := w.line(); err != nil {
				return err.Error()
			}
			if first == nil {
				first = w
			}
		}
		command := "t1 NOOP\r\n"
		if protocol == "pop3" {
			command = "CAPA\r\n"
		}
		for range 20 {
			_ = first.send(command)
			if line, err := first.line(); err != nil || strings.HasPrefix(line, "* BYE") {
				return "gone"
			}
			time.Sleep(50 * time.Millisecond)
		}
		return "still there"
	}
}

// listenerProofs are what says where is listened, and files that cannot be used.
func listenerProofs() []proof {
	const relative = "service auth {\n  unix_listener relative {\n  }\n}"
	listener := "service imap-login {\n  inet_listener more {\n    port = 4001\n    @@\n  }\n}"
	socket := "service auth {\n  unix_listener DIR/run/more {\n    @@\n  }\n}"
	owned := "service auth {\n  unix_listener DIR/run/more {\n  }\n  @@\n}"
	return []proof{
		{"protocols", "imap", "imap pop3", "", mailEndpoints, "", "pop3 "},
		{"listen", "127.0.0.1", "127.0.0.3", "", mailEndpoints, "imap 127.0.0.1:", "imap 127.0.0.3:"},
		{"base_dir", "DIR/one", "DIR/two", relative, mailEndpoints, "DIR/one/relative", "DIR/two/relative"},
		{"inet_listener.address", "127.0.0.4", "127.0.0.5", listener, mailEndpoints, "127.0.0.4:4001", "127.0.0.5:4001"},
		{"inet_listener.port", "4002", "4003", strings.ReplaceAll(listener, "port = 4001", ""), mailEndpoints, "127.0.0.1:4002", "127.0.0.1:4003"},
		{"inet_listener.ssl", "no", "yes", listener, mailEndpoints, "imap 127.0.0.1:4001", "imaps 127.0.0.1:4001"},
		{"unix_listener.mode", "0600", "0660", socket, mailEndpoints, "DIR/run/more (no TLS) mode=600", "DIR/run/more (no TLS) mode=660"},
		{"unix_listener.user", "1", "2", socket, mailEndpoints, "run/more (no TLS) mode=600 uid=1 ", "run/more (no TLS) mode=600 uid=2 "},
		{"unix_listener.group", "1", "2", socket, mailEndpoints, "gid=1\n", "gid=2\n"},
		{"service.user", "1", "2", owned, mailEndpoints, "run/more (no TLS) mode=600 uid=1 ", "run/more (no TLS) mode=600 uid=2 "},
		{"service.group", "1", "2", owned, mailEndpoints, "gid=1\n", "gid=2\n"},
		{"ssl_key", "<DIR/tls/ecdsa.key", "<DIR/tls/other.key", "ssl_cert = <DIR/tls/ecdsa.pem", started, "started", "other.key"},
		{"ssl_alt_key", "<DIR/tls/ecdsa.key", "<DIR/tls/other.key", "ssl_alt_cert = <DIR/tls/ecdsa.pem", started, "started", "other.key"},
		{"syslog_facility", "local1", "nosuch", "log_path = syslog", started, "started", "nosuch"},
	}
}
