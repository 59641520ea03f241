package smtpd

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	"postilion/config/postfix"
	"postilion/proto/smtp"
)

// OptionsFrom fills in what main.cf and the service's -o settings say in numbers and words. What needs tables, networks, certificates or other
// parts of the system is left to whoever builds the server: the functions, Checker, Accept, Auth, Names, Limits, TLS, Spool, QueueIDs and Log.
func OptionsFrom(v *postfix.View) Options {
	number := func(name string) int { return noneAsNegative(v.Int(name)) }
	o := Options{
		Settings: settingsFrom(v),

		MailName: v.String("mail_name"), SyslogName: v.String("syslog_name") + "/smtpd",

		Timeout: v.Duration("smtpd_timeout"), StressTimeout: v.With("stress", "yes").Duration("smtpd_timeout"),
		StartTLSTimeout: v.Duration("smtpd_starttls_timeout"), PerRequestDeadline: v.Bool("smtpd_per_request_deadline"),
		MinDataRate: v.Int("smtpd_min_data_rate"), ConnectionCountLimit: number("smtpd_client_connection_count_limit"),
		UpstreamProxyProtocol: v.String("smtpd_upstream_proxy_protocol") == "haproxy", UpstreamProxyTimeout: v.Duration("smtpd_upstream_proxy_timeout"),

		BareNewline: bareNewlineOf(v.String("smtpd_forbid_bare_newline")), RejectFooter: v.String("smtpd_reject_footer"),

		WrapperMode: v.Bool("smtpd_tls_wrappermode"), TLSAskClientCertificate: v.Bool("smtpd_tls_ask_ccert") || v.Bool("smtpd_tls_req_ccert"),
		TLSReceivedHeader: v.Bool("smtpd_tls_received_header"), TLSAuthOnly: v.Bool("smtpd_tls_auth_only"), TLSLogLevel: levelOf(v.String("smtpd_tls_loglevel")),

		SASLAuthEnable: v.Bool("smtpd_sasl_auth_enable"), SASLAuthenticatedHeader: v.Bool("smtpd_sasl_authenticated_header"),
		SASLSecurityOptions: v.List("smtpd_sasl_security_options"), SASLTLSSecurityOptions: v.List("smtpd_sasl_tls_security_options"),

		NoPeernameLookup: !v.Bool("smtpd_peername_lookup"), ClientPortLogging: v.Bool("smtpd_client_port_logging"),

		HopCountLimit: v.Int("hopcount_limit"), HeaderSizeLimit: v.Int("header_size_limit"), AlwaysAddMissingHeaders: v.Bool("always_add_missing_headers"),
		MessageDropHeaders: lowered(v.List("message_drop_headers")), MessageStripCharacters: unescape(v.String("message_strip_characters")),
		MessageRejectCharacters: unescape(v.String("message_reject_characters")), Strict7BitHeaders: v.Bool("strict_7bit_headers"),
		Strict8BitMIMEBody: v.Bool("strict_8bitmime_body"), StrictMIMEEncodingDomain: v.Bool("strict_mime_encoding_domain"),
	}
	if v.Bool("strict_8bitmime") {
		o.Strict7BitHeaders, o.Strict8BitMIMEBody = true, true
	}
	if o.ErrorSleepTime = v.Duration("smtpd_error_sleep_time"); o.ErrorSleepTime == 0 {
		o.ErrorSleepTime = -1
	}
	return o
}

func settingsFrom(v *postfix.View) smtp.Settings {
	s := smtp.Settings{
		Hostname: v.String("myhostname"), Banner: v.String("smtpd_banner"),
		MessageSizeLimit: v.Int64("message_size_limit"), LineLengthLimit: v.Int("line_length_limit"), SASLResponseLimit: v.Int("smtpd_sasl_response_limit"),
		SoftErrorLimit: v.Int("smtpd_soft_error_limit"), HardErrorLimit: v.Int("smtpd_hard_error_limit"), JunkCommandLimit: v.Int("smtpd_junk_command_limit"),
		RecipientLimit: v.Int("smtpd_recipient_limit"), RecipientOvershootLimit: noneAsNegative(v.Int("smtpd_recipient_overshoot_limit")),
		HeloRequired: v.Bool("smtpd_helo_required"), DisableVRFY: v.Bool("disable_vrfy_command"), StrictEnvelopes: v.Bool("strict_rfc821_envelopes"),
		SMTPUTF8: v.Bool("smtputf8_enable"), StrictSMTPUTF8: v.Bool("strict_smtputf8"), AllowMinUser: v.Bool("allow_min_user"),
		ResolveNullDomain: v.Bool("resolve_null_domain"), ResolveNumericDomain: v.Bool("resolve_numeric_domain"), SoftBounce: v.Bool("soft_bounce"),
		ForbidUnauthPipelining: v.Bool("smtpd_forbid_unauth_pipelining"), ReplaceStrayCR: true,
		BareNewlineRejectCode: v.Int("smtpd_forbid_bare_newline_reject_code"), NoopCommands: v.List("smtpd_noop_commands"),
		BrokenSASLClients: v.Bool("broken_sasl_auth_clients"),
	}
	if raw, _, set := v.Raw("cleanup_replace_stray_cr_lf"); set {
		s.ReplaceStrayCR = raw != "no"
	}
	switch level := v.String("smtpd_tls_security_level"); level {
	case "encrypt":
		s.EnforceTLS = true
	case "":
		s.EnforceTLS = v.Bool("smtpd_enforce_tls")
	}
	if v.IsSet("smtpd_forbidden_commands") {
		s.ForbiddenCommand = forbiddenCommands(v.List("smtpd_forbidden_commands"))
	}
	return s
}

// forbiddenCommands matches the words of smtpd_forbidden_commands. A table in the list stands for words that do not begin with a letter, which is
// what the default's table says.
func forbiddenCommands(list []string) func(word string) bool {
	table := slices.ContainsFunc(list, func(s string) bool { return strings.Contains(s, ":") })
	letter := regexp.MustCompile(`^[A-Za-z]`)
	return func(word string) bool {
		return table && !letter.MatchString(word) || slices.ContainsFunc(list, func(s string) bool { return strings.EqualFold(s, word) })
	}
}

func bareNewlineOf(value string) smtp.BareNewline {
	switch value {
	case "no":
		return smtp.BareNewlineAllow
	case "reject":
		return smtp.BareNewlineReject
	case "note":
		return smtp.BareNewlineNote
	}
	return smtp.BareNewlineNormalize
}

// noneAsNegative turns Postfix's 0 for "none" into ours, as 0 stands for the default here.
func noneAsNegative(n int) int {
	if n == 0 {
		return -1
	}
	return n
}

func levelOf(text string) int {
	n, err := strconv.Atoi(strings.TrimSpace(text))
	if err != nil {
		return 0
	}
	return n
}

func lowered(list []string) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = strings.ToLower(s)
	}
	return out
}

// unescape reads C's escapes as message_strip_characters has them.
func unescape(text string) string {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' || i+1 == len(text) {
			b.WriteByte(text[i])
			continue
		}
		i++
		if at := strings.IndexByte(`abfnrtv`, text[i]); at >= 0 {
			b.WriteByte("\a\b\f\n\r\t\v"[at])
			continue
		}
		n, digits := 0, 0
		for digits < 3 && i+digits < len(text) && text[i+digits] >= '0' && text[i+digits] <= '7' {
			n = n*8 + int(text[i+digits]-'0')
			digits++
		}
		if digits == 0 {
			b.WriteByte(text[i])
			continue
		}
		b.WriteByte(byte(n))
		i += digits - 1
	}
	return b.String()
}
