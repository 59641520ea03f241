package service_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"
)

func addressOf(text string) netip.Addr { return netip.MustParseAddr(text) }

// sessionProofs are the parameters of the SMTP dialogue.
func sessionProofs() []proof {
	ehlo := session("EHLO client.test")
	foo := session("EHLO client.test", "FOO", "FOO", "FOO", "NOOP")
	many := session("EHLO client.test", "MAIL FROM:<>", "RCPT TO:<USER>", "RCPT TO:<u0@example.test>", "RCPT TO:<u1@example.test>", "RCPT TO:<u2@example.test>", "RCPT TO:<u3@example.test>")
	return []proof{
		{"smtpd_banner", unset, "$myhostname ESMTP another", "", session(), "220 mail.example.test ESMTP Postfix", "220 mail.example.test ESMTP another"},
		{"mail_name", "Postfix", "Another", "", session(), "ESMTP Postfix", "ESMTP Another"},
		{"smtpd_helo_required", "no", "yes", "", session("MAIL FROM:<>"), "\n250 2.1.0", "\n503 5.5.1"},
		{"disable_vrfy_command", "no", "yes", "", session("EHLO client.test", "VRFY USER"), "VRFY\n", "\n502 5.5.1"},
		{"strict_rfc821_envelopes", "no", "yes", "", session("EHLO client.test", "MAIL FROM:a@good.test"), "\n250 2.1.0", "\n501 5.1.7"},
		{"smtputf8_enable", "yes", "no", "", ehlo, "SMTPUTF8", ""},
		{"strict_smtputf8", "no", "yes", "", session("EHLO client.test", "MAIL FROM:<\xc3\xbc@good.test>"), "\n250 2.1.0", "\n553 5.6.7"},
		{"smtpd_noop_commands", unset, "FOO", "", session("EHLO client.test", "FOO"), "\n500 5.5.2", "\n250 2.0.0"},
		{"smtpd_forbidden_commands", unset, "FOO", "", foo, "\n500 5.5.2", "\n221 2.7.0"},
		{"smtpd_forbid_unauth_pipelining", "no", "yes", "", pipelined, "\n250 2.1.0", "\n554 5.5.0"},
		{"smtpd_discard_ehlo_keywords", unset, "dsn", "", ehlo, "DSN", ""},
		{"smtpd_discard_ehlo_keyword_address_maps", unset, "inline:{127.0.0.2=dsn}", "", ehlo, "DSN", ""},
		{"postilion_smtpd_ehlo_keywords", unset, "LIMITS", "", ehlo, "", "LIMITS"},
		{"smtpd_hard_error_limit", "20", "2", "", foo, "\n250 2.0.0 Ok", "\n421 4.7.0"},
		{"stress", unset, "yes", "", foo, "\n250 2.0.0 Ok", "\n421 4.7.0"},
		{"smtpd_junk_command_limit", "100", "1", "smtpd_hard_error_limit = 2", session("EHLO client.test", "NOOP", "NOOP", "NOOP", "NOOP", "NOOP"), "", "\n421 4.7.0"},
		{"smtpd_recipient_limit", "1000", "2", "", many, "", "\n452 4.5.3"},
		{"smtpd_recipient_overshoot_limit", "1000", "1", "smtpd_recipient_limit = 1\nsmtpd_hard_error_limit = 2", many, "", "\n421 4.7.0"},
		{"smtpd_error_sleep_time", "0", "2s", "smtpd_soft_error_limit = 1", paced, "quick", "slow"},
		{"smtpd_soft_error_limit", "10", "1", "smtpd_error_sleep_time = 2s", paced, "quick", "slow"},
		{"default_process_limit", "200", "1", "", crowded, "still open", "closed"},
		{"smtpd_timeout", unset, "1s", "", idle("EHLO client.test"), "still open", "\n421 4.4.2"},
		{"smtpd_starttls_timeout", unset, "1s", "", idle("EHLO client.test", "STARTTLS"), "still open", "closed"},
		{"smtpd_upstream_proxy_protocol", unset, "haproxy", "", proxied, "127.0.0.2", "192.0.2.7"},
		{"smtpd_upstream_proxy_timeout", "100s", "1s", "smtpd_upstream_proxy_protocol = haproxy", idle(), "still open", "closed"},
		{"smtpd_per_request_deadline", "no", "yes", "smtpd_timeout = 3s", trickle, "\n250 2.0.0", "\n421 4.4.2"},
		{"smtpd_min_data_rate", "1", "500", "smtpd_timeout = 3s\nsmtpd_per_request_deadline = yes", trickleData, "\n250 2.0.0", "\n421 4.4.2"},
	}
}

// pipelined sends two commands before the greeting has come.
func pipelined(p *probe) string {
	k := p.connect(stranger)
	defer k.close()
	k.hear()
	k.send("EHLO client.test\r\nMAIL FROM:<>\r\n")
	k.hear()
	k.hear()
	return k.transcript.String()
}

// proxied tells the service another client's address, as a proxy does.
func proxied(p *probe) string {
	k := p.connect(stranger)
	defer k.close()
	k.send("PROXY TCP4 192.0.2.7 127.0.0.1 1234 25\r\n")
	k.hear()
	k.say("QUIT")
	lines := strings.Split(p.logged("disconnect from"), "\n")
	return lines[0]
}

// paced tells whether replies to errors come at once. A machine that is busy may be slow without being asked to, not three times.
func paced(p *probe) string {
	for range 3 {
		began := time.Now()
		from(stranger, "EHLO client.test", "FOO", "FOO")(p)
		if time.Since(began) < 2*time.Second {
			return "quick"
		}
	}
	return "slow"
}

// patient is how long a dialogue waits to see that a service does not end it.
const patient = 4 * time.Second

// idle says the lines and waits for what the service does with a silent client; to a line that ends in "unanswered" it awaits no reply before.
func idle(lines ...string) func(p *probe) string {
	return func(p *probe) string {
		k := p.connect(stranger)
		defer k.close()
		for i, line := range lines {
			if i == 0 {
				k.hear()
			}
			text, unanswered := strings.CutSuffix(line, " unanswered")
			k.send(text + "\r\n")
			if !unanswered {
				k.hear()
			}
		}
		return k.await()
	}
}

// await waits for a while for what the service says by itself, or for its end.
func (k *talk) await() string {
	if err := k.wire.conn.SetReadDeadline(time.Now().Add(patient)); err != nil {
		k.p.t.Error(err)
	}
	reply, err := k.wire.reply()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return k.transcript.String() + "still open"
	}
	return k.transcript.String() + reply + "\nclosed"
}

// trickle sends a command an octet at a time for longer than smtpd_timeout.
func trickle(p *probe) string {
	k := p.connect(stranger)
	defer k.close()
	k.hear()
	k.drip("NOOP " + strings.Repeat("x", 20) + "\r\n")
	k.hear()
	return k.transcript.String()
}

// trickleData does so with a message.
func trickleData(p *probe) string {
	k := p.connect(stranger)
	defer k.close()
	k.hear()
	k.say("EHLO client.test", "MAIL FROM:<>", "RCPT TO:<"+p.user+">")
	k.send("DATA\r\n")
	k.hear()
	k.drip("Subject: " + strings.Repeat("x", 20) + "\r\n.\r\n")
	k.hear()
	return k.transcript.String()
}

func (k *talk) drip(text string) {
	for _, c := range []byte(text) {
		if k.wire.send(string(c)) != nil {
			return
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// limitProofs are the limits of a client's events.
func limitProofs() []proof {
	const once = "smtpd_client_connection_rate_limit = 1"
	twice := func(lines ...string) func(p *probe) string {
		return func(p *probe) string {
			return from(stranger, lines...)(p) + "--- again:\n" + from(stranger, lines...)(p)
		}
	}
	return []proof{
		{"smtpd_client_connection_count_limit", "50", "1", "", together, "", "\n421 4.7.0"},
		{"smtpd_client_connection_rate_limit", "0", "1", "", twice(), "", "\n421 4.7.0"},
		{"smtpd_client_message_rate_limit", "0", "1", "", twice("EHLO client.test", "MAIL FROM:<>"), "", "\n450 4.7.1"},
		{"smtpd_client_recipient_rate_limit", "0", "1", "", twice("EHLO client.test", "MAIL FROM:<>", "RCPT TO:<USER>"), "", "\n450 4.7.1"},
		{"smtpd_client_auth_rate_limit", "0", "1", "smtpd_sasl_auth_enable = yes", twice("EHLO client.test", "AUTH PLAIN PLAIN64"), "", "\n450 4.7.1"},
		{"smtpd_client_new_tls_session_rate_limit", "0", "1", "", twice("EHLO client.test", "STARTTLS", "EHLO client.test"), "", "4.7.0"},
		{"smtpd_client_event_limit_exceptions", unset, stranger, once, twice(), "\n421 4.7.0", ""},
		{"anvil_rate_time_unit", "60s", "1s", once, again, "refused", "taken"},
	}
}

// together has two connections at a time.
func together(p *probe) string {
	first := p.connect(stranger)
	defer first.close()
	first.hear()
	second := p.connect(stranger)
	defer second.close()
	second.hear()
	return first.transcript.String() + second.transcript.String()
}

// again connects until it is let in a second time, or for a while.
func again(p *probe) string {
	from(stranger)(p)
	for end := time.Now().Add(patient); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if strings.HasPrefix(from(stranger)(p), "220") {
			return "taken"
		}
	}
	return "refused"
}

// loginProofs are the parameters of AUTH.
func loginProofs() []proof {
	const on = "smtpd_sasl_auth_enable = yes\n"
	login := session("EHLO client.test", "AUTH PLAIN PLAIN64")
	return []proof{
		{"smtpd_sasl_auth_enable", "no", "yes", "", login, "\n503 5.5.1", "\n235 2.7.0"},
		{"broken_sasl_auth_clients", "no", "yes", on, login, "", "AUTH="},
		{"smtpd_sasl_authenticated_header", "no", "yes", on, kept(session("EHLO client.test", "AUTH PLAIN PLAIN64", "MAIL FROM:<>", "RCPT TO:<USER>", "DATA", "Subject: x", "", "x", ".")), "", "(Authenticated sender: "},
		{"smtpd_sasl_exceptions_networks", unset, stranger, on, login, "250-AUTH", ""},
		{"smtpd_sasl_path", "private/auth", "private/nowhere", on, login, "\n235 2.7.0", ""},
		{"queue_directory", "DIR/spool", "DIR/elsewhere", on, login, "\n235 2.7.0", ""},
		{"smtpd_sasl_response_limit", "12288", "10", on, session("EHLO client.test", "AUTH PLAIN", "PLAIN64"), "\n235 2.7.0", "\n500 5."},
		{"smtpd_sasl_security_options", "noanonymous", "noanonymous, noplaintext", on, login, "PLAIN LOGIN", "250-AUTH CRAM-MD5"},
		{"smtpd_sasl_tls_security_options", unset, "noanonymous, noplaintext", on, session("EHLO client.test", "STARTTLS", "EHLO client.test", "AUTH PLAIN PLAIN64"), "\n235 2.7.0", ""},
		{"smtpd_tls_auth_only", "no", "yes", on, login, "\n235 2.7.0", ""},
		{"smtpd_sasl_service", "smtp", "submission", on, withLog(session("EHLO client.test", "AUTH PLAIN "+base64Text("\x00only@submission.test\x00secret"), "MAIL FROM:<>", "RCPT TO:<USER>")), "sasl_username=smtp.user", "sasl_username=submission.user"},
	}
}

// encryptionProofs are the parameters of TLS.
func encryptionProofs() []proof {
	const none = "smtpd_tls_security_level =\n"
	both := "smtpd_tls_cert_file = DIR/tls/rsa.pem\nsmtpd_tls_key_file = DIR/tls/rsa.key\n"
	secured := session("EHLO client.test", "STARTTLS", "EHLO client.test", "MAIL FROM:<>", "RCPT TO:<x@elsewhere.test>")
	old := encrypted(&tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}, "")
	letter := kept(encrypted(&tls.Config{InsecureSkipVerify: true}, "client", "MAIL FROM:<>", "RCPT TO:<USER>", "DATA", "Subject: x", "", "x", "."))
	known := encrypted(&tls.Config{InsecureSkipVerify: true}, "client", "MAIL FROM:<>", "RCPT TO:<x@elsewhere.test>")
	const fromCertificate = "smtpd_relay_restrictions = permit_tls_clientcerts, reject_unauth_destination\n"
	return []proof{
		{"smtpd_tls_CAfile", unset, "DIR/tls/authority.pem", "smtpd_tls_received_header = yes\nsmtpd_tls_ask_ccert = yes", letter, "(not verified)", "(verified OK)"},
		{"smtpd_tls_security_level", "may", "encrypt", "", rcpt("", "USER"), "\n250 2.1.5", "\n530 5.7.0"},
		{"smtpd_use_tls", "no", "yes", none, secured, "", "STARTTLS\n250-"},
		{"smtpd_enforce_tls", "no", "yes", none, rcpt("", "USER"), "\n250 2.1.5", "\n530 5.7.0"},
		{"smtpd_tls_wrappermode", "no", "yes", "", wrapped, "(handshake", "220 mail.example.test"},
		{"smtpd_tls_cert_file", "DIR/tls/ecdsa.both", "DIR/tls/other.both", "smtpd_tls_key_file =", secured, "certificate of ecdsa.test", "certificate of other.test"},
		{"smtpd_tls_chain_files", unset, "DIR/tls/other.both", "", secured, "certificate of localhost", "certificate of other.test"},
		{"smtpd_tls_eccert_file", unset, "DIR/tls/ecdsa.both", both, encrypted(onlyECDSA(), ""), "(handshake", "certificate of ecdsa.test"},
		{"smtpd_tls_dcert_file", unset, "DIR/tls/ecdsa.both", both, encrypted(onlyECDSA(), ""), "(handshake", "certificate of ecdsa.test"},
		{"smtpd_tls_loglevel", "0", "1", "", withLog(secured), "", "TLS connection established from"},
		{"smtpd_tls_protocols", ">=TLSv1.2", ">=TLSv1.3", "", old, "(TLS 1.2", "(handshake"},
		{"smtpd_tls_mandatory_protocols", ">=TLSv1.2", ">=TLSv1.3", "smtpd_tls_security_level = encrypt", old, "(TLS 1.2", "(handshake"},
		{"postilion_tls_minimum", "TLSv1.2", "TLSv1.3", "", old, "(TLS 1.2", "(handshake"},
		{"smtpd_tls_received_header", "no", "yes", "", letter, "", "(using TLSv1.3 with cipher"},
		{"smtpd_tls_ask_ccert", "no", "yes", "smtpd_tls_received_header = yes", letter, "", "(Client CN \"client.test\""},
		{"relay_clientcerts", unset, "texthash:DIR/tls/client.fingerprint", fromCertificate + "smtpd_tls_ask_ccert = yes", known, "\n554 5.7.1", "\n250 2.1.5"},
	}
}

// onlyECDSA is a client that cannot use an RSA certificate.
func onlyECDSA() *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}}
}

// encrypted is a dialogue after STARTTLS, with a client certificate when one is named.
func encrypted(config *tls.Config, certificate string, lines ...string) func(p *probe) string {
	return func(p *probe) string {
		k := p.connect(stranger)
		defer k.close()
		k.client = config.Clone()
		if certificate != "" {
			k.client.Certificates = []tls.Certificate{clientCertificate(p.t, certificate)}
		}
		k.hear()
		k.say(append([]string{"EHLO client.test", "STARTTLS", "EHLO client.test"}, lines...)...)
		return k.transcript.String()
	}
}

// wrapped begins with the handshake.
func wrapped(p *probe) string {
	k := p.connect(stranger)
	defer k.close()
	if k.secure() {
		fmt.Fprintln(&k.transcript, k.hear())
	}
	return k.transcript.String()
}
