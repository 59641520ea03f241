package smtp

// Settings belong to one service and are read by many sessions at once; nobody changes them after the first session began.
// Fields that have a Postfix parameter name it with its default.
type Settings struct {
	// LMTP makes the service speak LMTP: LHLO instead of HELO and EHLO, a reply per recipient after the message.
	LMTP bool
	// Hostname is myhostname, in replies and in the EHLO answer.
	Hostname string
	// Banner is smtpd_banner, expanded: the text after "220 ". Default "$myhostname ESMTP $mail_name".
	Banner string

	// MessageSizeLimit is message_size_limit in octets; 0 means none. Default 10240000.
	MessageSizeLimit int64
	// LineLengthLimit is line_length_limit in octets: the longest command, longer ones are cut. Default 2048; 0 means the default.
	LineLengthLimit int
	// SASLResponseLimit is smtpd_sasl_response_limit in octets. Default 12288; 0 means the default.
	SASLResponseLimit int
	// SoftErrorLimit is smtpd_soft_error_limit: with that many errors each reply is preceded by a Pause event. Default 10; 0 means the default.
	SoftErrorLimit int
	// HardErrorLimit is smtpd_hard_error_limit: with that many errors the session ends. Default 20 (1 under stress); 0 means the default.
	HardErrorLimit int
	// JunkCommandLimit is smtpd_junk_command_limit: commands that do nothing, beyond which each counts as an error. Default 100 (1 under stress);
	// 0 means the default.
	JunkCommandLimit int
	// RecipientLimit is smtpd_recipient_limit. Default 1000; 0 means the default.
	RecipientLimit int
	// RecipientOvershootLimit is smtpd_recipient_overshoot_limit: recipients beyond the limit that are refused without counting as errors.
	// Default 1000; negative means none, 0 the default.
	RecipientOvershootLimit int

	// HeloRequired is smtpd_helo_required. Default no.
	HeloRequired bool
	// DisableVRFY is disable_vrfy_command. Default no.
	DisableVRFY bool
	// StrictEnvelopes is strict_rfc821_envelopes. Default no.
	StrictEnvelopes bool
	// SMTPUTF8 is smtputf8_enable. Default yes at compatibility level 1 and above.
	SMTPUTF8 bool
	// StrictSMTPUTF8 is strict_smtputf8: addresses beyond ASCII need SMTPUTF8 at MAIL. Default no.
	StrictSMTPUTF8 bool
	// AllowMinUser is allow_min_user: addresses may begin with "-". Default no.
	AllowMinUser bool
	// ResolveNullDomain is resolve_null_domain: "user@" is an address. Default no.
	ResolveNullDomain bool
	// ResolveNumericDomain is resolve_numeric_domain: "user@1.2.3.4" is an address. Default no.
	ResolveNumericDomain bool
	// SoftBounce is soft_bounce: 5xx replies go out as 4xx. Default no.
	SoftBounce bool
	// ForbidUnauthPipelining is smtpd_forbid_unauth_pipelining: a client that sends ahead where it may not is disconnected. Default no.
	ForbidUnauthPipelining bool
	// ReplaceStrayCR is cleanup_replace_stray_cr_lf: a CR inside a line of a message becomes a space. Default yes.
	ReplaceStrayCR bool
	// BareNewlineRejectCode is smtpd_forbid_bare_newline_reject_code. Default 550; 0 means the default. 521 disconnects.
	BareNewlineRejectCode int

	// NoopCommands is smtpd_noop_commands, in capitals: answered like NOOP. Default none.
	NoopCommands []string
	// ForbiddenCommand tells whether a command that is none of SMTP's is in smtpd_forbidden_commands (default CONNECT, GET, POST and
	// whatever does not begin with a letter). Nil means the default.
	ForbiddenCommand func(word string) bool
	// CommandFilter is smtpd_command_filter: it may replace a command line, which it gets without its line end. Nil is none.
	CommandFilter func(line string) string

	// EnforceTLS is smtpd_tls_security_level = encrypt: most commands are refused before STARTTLS. Default no.
	EnforceTLS bool
	// BrokenSASLClients is broken_sasl_auth_clients: an additional AUTH= line. Default no.
	BrokenSASLClients bool

	// BinaryMIME announces BINARYMIME (RFC 3030); Postfix does not have it. Default no.
	BinaryMIME bool
	// Limits announces LIMITS with RCPTMAX (RFC 9422); Postfix does not have it. Default no.
	Limits bool
}

// BareNewline is what smtpd_forbid_bare_newline says of lines that end in LF alone.
type BareNewline uint8

// The values of smtpd_forbid_bare_newline. "yes" is Normalize.
const (
	// BareNewlineNormalize takes such lines, but ends a message only at CRLF.CRLF.
	BareNewlineNormalize BareNewline = iota
	// BareNewlineAllow ("no") takes LF for CRLF everywhere, the end of the message included. It opens the door to smuggled mail.
	BareNewlineAllow
	// BareNewlineNote is Normalize with a notice.
	BareNewlineNote
	// BareNewlineReject refuses the command or the message.
	BareNewlineReject
)

// Keywords is a set of EHLO keywords.
type Keywords uint16

// The keywords that smtpd_discard_ehlo_keywords can name. SilentDiscard keeps the discard out of the log.
const (
	KeywordPipelining Keywords = 1 << iota
	KeywordSize
	KeywordVRFY
	KeywordETRN
	KeywordSTARTTLS
	KeywordAuth
	KeywordXVERP
	KeywordEnhancedStatusCodes
	Keyword8BitMIME
	KeywordDSN
	KeywordSMTPUTF8
	KeywordChunking
	SilentDiscard
)

// ParseKeywords reads a list as smtpd_discard_ehlo_keywords holds it, separated by blanks or commas, in any case. Unknown words are
// returned as they are.
func ParseKeywords(list string) (set Keywords, unknown []string) {
	for word := range words(list) {
		if k := keywordOf(word); k != 0 {
			set |= k
		} else {
			unknown = append(unknown, word)
		}
	}
	return set, unknown
}

func keywordOf(word string) Keywords {
	for i, name := range keywordNames() {
		if equalFold(word, name) {
			return 1 << i
		}
	}
	return 0
}

func keywordNames() [13]string {
	return [...]string{
		"pipelining", "size", "vrfy", "etrn", "starttls", "auth", "xverp", "enhancedstatuscodes", "8bitmime", "dsn", "smtputf8", "chunking",
		"silent-discard",
	}
}

// String lists the keywords as the log shows them.
func (k Keywords) String() string {
	text := ""
	for i, name := range keywordNames() {
		if k&(1<<i) != 0 {
			if text != "" {
				text += " "
			}
			text += name
		}
	}
	return text
}

// Peer is what the session found out about one client. It is given before the greeting, and again after XCLIENT and STARTTLS.
type Peer struct {
	// Client names the client in replies and notices: host[address].
	Client string
	// Discard holds the EHLO keywords that this client does not get (smtpd_discard_ehlo_keywords and its address maps).
	Discard Keywords
	// XClient and XForward say whether the client is in smtpd_authorized_xclient_hosts or smtpd_authorized_xforward_hosts.
	XClient, XForward bool
	// Auth enables AUTH; Mechanisms is what EHLO announces, separated by blanks, and "" announces nothing.
	Auth       bool
	Mechanisms string
	// TLSOffered announces and allows STARTTLS; TLSActive says that the connection is encrypted.
	TLSOffered, TLSActive bool
	// BareNewline is smtpd_forbid_bare_newline after smtpd_forbid_bare_newline_exclusions.
	BareNewline BareNewline
	// Footer adds smtpd_reject_footer to the text of a 4xx or 5xx reply. Nil adds nothing.
	Footer func(reply string) string
}

func (s *Settings) lineLimit() int       { return orDefault(s.LineLengthLimit, 2048) }
func (s *Settings) saslLimit() int       { return orDefault(s.SASLResponseLimit, 12288) }
func (s *Settings) softErrorLimit() int  { return orDefault(s.SoftErrorLimit, 10) }
func (s *Settings) hardErrorLimit() int  { return orDefault(s.HardErrorLimit, 20) }
func (s *Settings) junkLimit() int       { return orDefault(s.JunkCommandLimit, 100) }
func (s *Settings) recipientLimit() int  { return orDefault(s.RecipientLimit, 1000) }
func (s *Settings) overshootLimit() int  { return max(orDefault(s.RecipientOvershootLimit, 1000), 0) }
func (s *Settings) bareNewlineCode() int { return orDefault(s.BareNewlineRejectCode, 550) }

func orDefault(value, byDefault int) int {
	if value == 0 {
		return byDefault
	}
	return value
}
