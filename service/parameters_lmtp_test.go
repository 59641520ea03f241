package service_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// agentProofs are the parameters of lmtp(8).
func agentProofs() []proof {
	const text = "Subject: x\r\n\r\nx"
	plain := peer{}
	two := plain.handed(text, text)
	eight := "Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\xfcber"
	mute := func(verb string, words ...string) func(p *probe) string {
		return peer{mute: verb, words: words}.mutely(text)
	}
	failedFirst := func(p *probe) string {
		server := peer{mute: "RSET"}.begin(p)
		letterOut("bad@far.test", text)(p)
		return idle("EHLO client.test", "MAIL FROM:<sender@good.test>", "RCPT TO:<x@far.test>", "DATA", text+"\r\n. unanswered")(p) + server.end()
	}
	connections := func(ask func(p *probe) string) func(p *probe) string {
		return func(p *probe) string { return fmt.Sprintf("connections: %d\n", strings.Count(ask(p), "(connection)")) }
	}
	twice := connections(two)
	const kept, anew = "connections: 1\n", "connections: 2\n"
	return []proof{
		{"lmtp_lhlo_name", "one.test", "two.test", "", plain.handed(text), "LHLO one.test", "LHLO two.test"},
		{"lmtp_tcp_port", "PORT", "1", "!nexthop = inet:HOST", plain.handed(text), "\n250 2.0.0", "\n451 4."},
		{"lmtp_discard_lhlo_keywords", unset, "size", "", peer{words: []string{"SIZE 10"}}.handed(text), "5.3.4", "\n250 2.0.0"},
		{"lmtp_line_length_limit", "998", "50", "", plain.handed("Subject: x\r\n\r\n" + strings.Repeat("x", 60)), "| " + strings.Repeat("x", 60), ""},
		{"disable_mime_output_conversion", "no", "yes", "", plain.handed(eight), "| =FCber", "| \xfcber"},
		{"lmtp_send_xforward_command", "no", "yes", "", peer{words: []string{"XFORWARD NAME ADDR"}}.handed(text), "", "XFORWARD "},
		{"lmtp_connection_cache_on_demand", "yes", "no", "lmtp_connection_cache_time_limit = 60s", twice, kept, anew},
		{"lmtp_connection_cache_destinations", unset, "HOST:PORT", "lmtp_connection_cache_on_demand = no\nlmtp_connection_cache_time_limit = 60s", twice, anew, kept},
		{"lmtp_connection_cache_time_limit", "60s", "0", "", twice, kept, anew},
		{"lmtp_connection_reuse_count_limit", "0", "1", "lmtp_connection_cache_time_limit = 60s", twice, kept, anew},
		{"lmtp_connection_reuse_time_limit", "300s", "0", "lmtp_connection_cache_time_limit = 60s", twice, kept, anew},
		{"lmtp_connect_timeout", unset, "1s", "", backlogged, "still open", "Connection timed out"},
		{"lmtp_lhlo_timeout", unset, "1s", "", mute("LHLO"), "still open", "\n451 4.4.2"},
		{"lmtp_mail_timeout", unset, "1s", "", mute("MAIL"), "still open", "\n451 4.4.2"},
		{"lmtp_rcpt_timeout", unset, "1s", "", mute("RCPT"), "still open", "\n451 4.4.2"},
		{"lmtp_data_init_timeout", unset, "1s", "", mute("DATA"), "still open", "\n451 4.4.2"},
		{"lmtp_data_done_timeout", unset, "1s", "", mute("BODY"), "still open", "\n451 4.4.2"},
		{"lmtp_data_xfer_timeout", unset, "1s", "", peer{mute: "XFER"}.mutely("Subject: x\r\n\r\n" + strings.Repeat(strings.Repeat("x", 70)+"\r\n", 125_000)), "still open", "\n451 4.4.2"},
		{"lmtp_rset_timeout", "300s", "1s", "lmtp_connection_cache_time_limit = 60s", failedFirst, "still open", "\n451 4.4.2"},
		{"lmtp_quit_timeout", unset, "1s", "lmtp_connection_cache_on_demand = no", mute("QUIT"), "still open", "\n250 2.0.0"},
		{"lmtp_skip_quit_response", "no", "yes", "lmtp_connection_cache_on_demand = no", mute("QUIT"), "still open", "\n250 2.0.0"},
		{"lmtp_xforward_timeout", unset, "1s", "lmtp_send_xforward_command = yes", mute("XFORWARD", "XFORWARD NAME ADDR"), "still open", "\n451 4.4.2"},
		{"lmtp_starttls_timeout", unset, "1s", "lmtp_tls_security_level = encrypt", peer{mute: "STARTTLS", certificate: "lmtp"}.mutely(text), "still open", "\n451 4."},
	}
}

// agentLoginProofs are the parameters about logins at a server.
func agentLoginProofs() []proof {
	const text = "Subject: x\r\n\r\nx"
	const on = "lmtp_sasl_auth_enable = yes\n"
	const free = "lmtp_sasl_security_options = noanonymous\n"
	const known = "lmtp_sasl_password_maps = inline:{HOST=u:p}\n"
	server := peer{words: []string{"AUTH PLAIN LOGIN"}}.handed(text)
	secured := peer{words: []string{"AUTH PLAIN LOGIN"}, certificate: "lmtp"}.handed(text)
	return []proof{
		{"lmtp_sasl_auth_enable", "no", "yes", known + free, server, "", "AUTH PLAIN "},
		{"lmtp_sasl_password_maps", unset, "inline:{HOST=u:p}", on + free, server, "", "AUTH PLAIN "},
		{"lmtp_sasl_mechanism_filter", "plain", "login", on + free + known, server, "AUTH PLAIN ", "AUTH LOGIN"},
		{"lmtp_sasl_security_options", "noanonymous", "noplaintext", on + known, server, "AUTH PLAIN ", "\n451 4.7.8"},
		{"lmtp_sasl_tls_security_options", "noanonymous", "noplaintext", on + known + "lmtp_tls_security_level = may", secured, "AUTH PLAIN ", "\n451 4.7.8"},
		{"lmtp_sender_dependent_authentication", "no", "yes", on + free + "lmtp_sasl_password_maps = inline:{sender@good.test=s:p}", server, "", "AUTH PLAIN "},
	}
}

// agentEncryptionProofs are the parameters about TLS with a server.
func agentEncryptionProofs() []proof {
	const text = "Subject: x\r\n\r\nx"
	const level, authority = "lmtp_tls_security_level = ", "\nlmtp_tls_CAfile = DIR/tls/authority.pem\n"
	server, clear := peer{certificate: "lmtp"}.handed(text), peer{}.handed(text)
	const taken, refused = "\n250 2.0.0", "\n451 4.7."
	files, err := certificateFiles()
	fingerprint := "none"
	if err == nil {
		fingerprint, _, _ = strings.Cut(string(files["lmtp.fingerprint"]), " ")
	}
	return []proof{
		{"lmtp_tls_security_level", "may", "encrypt", "", clear, taken, "\n451 4.7.4"},
		{"lmtp_use_tls", "no", "yes", "", server, "", "(TLS 1.3"},
		{"lmtp_enforce_tls", "no", "yes", "", clear, taken, "\n451 4.7.4"},
		{"lmtp_tls_enforce_peername", "yes", "no", "lmtp_enforce_tls = yes", server, refused, taken},
		{"lmtp_tls_CAfile", unset, "DIR/tls/authority.pem", level + "verify", server, refused, taken},
		{"lmtp_tls_CApath", unset, "DIR/authorities", level + "verify", server, refused, taken},
		{"lmtp_tls_verify_cert_match", "hostname", "other.test", level + "verify" + authority, server, taken, refused},
		{"lmtp_tls_secure_cert_match", "nexthop", "other.test", level + "secure" + authority, server, taken, refused},
		{"lmtp_tls_fingerprint_cert_match", unset, fingerprint, level + "fingerprint", server, refused, taken},
		{"lmtp_tls_fingerprint_digest", "md5", "sha256", level + "fingerprint\nlmtp_tls_fingerprint_cert_match = " + fingerprint, server, refused, taken},
		{"lmtp_tls_protocols", ">=TLSv1.2", "<=TLSv1.2", level + "may", server, "(TLS 1.3", "(TLS 1.2"},
		{"lmtp_tls_mandatory_protocols", ">=TLSv1.2", "<=TLSv1.2", level + "encrypt", server, "(TLS 1.3", "(TLS 1.2"},
		{"lmtp_tls_policy_maps", unset, "inline:{HOST:PORT=none}", level + "may", server, "(TLS 1.3", ""},
		{"lmtp_tls_servername", unset, "sni.test", level + "may", server, "", "asked for sni.test"},
		{"lmtp_tls_cert_file", unset, "DIR/tls/client.both", level + "may", server, "client nobody", "client client.test"},
		{"lmtp_tls_key_file", "DIR/tls/client.key", "DIR/tls/other.key", level + "may\nlmtp_tls_cert_file = DIR/tls/client.pem", server, "client client.test", "\n451 4.7.5"},
		{"lmtp_tls_chain_files", unset, "DIR/tls/client.both", level + "may", server, "client nobody", "client client.test"},
	}
}

// TestSystemAuthorities is the proof of tls_append_default_CA: the system's authorities are a file of the test. They are read once in a process, so that
// nothing else here may have asked for them before.
func TestSystemAuthorities(t *testing.T) {
	files, err := certificateFiles()
	if err != nil {
		t.Fatal(err)
	}
	file := shortDir(t) + "/authorities.pem"
	if err := os.WriteFile(file, files["authority.pem"], 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SSL_CERT_FILE", file)
	t.Setenv("SSL_CERT_DIR", file+".none")
	proveAgents(t, []proof{
		{"tls_append_default_CA", "no", "yes", "lmtp_tls_security_level = verify", peer{certificate: "lmtp"}.handed("Subject: x\r\n\r\nx"), "\n451 4.7.", "\n250 2.0.0"},
	})
}
