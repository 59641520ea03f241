package smtpd

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net/netip"
	"time"

	"postilion/account"
	"postilion/mail/queueid"
	"postilion/mta/policy"
	"postilion/proto/smtp"
	"postilion/store/spool"
)

// Options is one smtpd service of master.cf (or an LMTP service). A Server keeps a copy; nothing in it changes after New. Zero values of
// numbers stand for Postfix's defaults where a default is named.
type Options struct {
	smtp.Settings

	// MailName is mail_name, in Received. Default "Postfix".
	MailName string
	// SyslogName is the program attribute of log lines: $syslog_name/smtpd. Default "postfix/smtpd".
	SyslogName string
	// ServiceName names the service in messages about rate limits, such as smtp. Default "smtp".
	ServiceName string

	// Timeout is smtpd_timeout: the wait for a client to send or to take something. Default 300s (10s under stress).
	Timeout time.Duration
	// StressTimeout takes the place of Timeout while connections run short. Default 10s.
	StressTimeout time.Duration
	// StartTLSTimeout is smtpd_starttls_timeout. Default 300s (10s under stress).
	StartTLSTimeout time.Duration
	// PerRequestDeadline is smtpd_per_request_deadline: Timeout limits a whole command, not each read. Default no (yes under stress).
	PerRequestDeadline bool
	// MinDataRate is smtpd_min_data_rate in octets a second: what a message must bring when PerRequestDeadline holds. Default 500.
	MinDataRate int
	// ErrorSleepTime is smtpd_error_sleep_time. Default 1s; negative means none.
	ErrorSleepTime time.Duration
	// ConnectionLimit bounds the sessions of this server; beyond it the client that was silent longest is dismissed for the next one. Default 1000.
	ConnectionLimit int
	// ConnectionCountLimit is smtpd_client_connection_count_limit. Default 50; negative means none.
	ConnectionCountLimit int
	// Hoggers tells who is in smtpd_client_event_limit_exceptions. Nil means nobody. Default $mynetworks.
	Hoggers func(name string, address netip.Addr) bool

	// UpstreamProxyProtocol is smtpd_upstream_proxy_protocol = haproxy. Default no.
	UpstreamProxyProtocol bool
	// UpstreamProxyTimeout is smtpd_upstream_proxy_timeout. Default 5s.
	UpstreamProxyTimeout time.Duration

	// BareNewline is smtpd_forbid_bare_newline for clients outside BareNewlineExclusions.
	BareNewline smtp.BareNewline
	// BareNewlineExclusions tells who is in smtpd_forbid_bare_newline_exclusions. Nil means nobody. Default $mynetworks.
	BareNewlineExclusions func(name string, address netip.Addr) bool
	// XClientHosts tells who is in smtpd_authorized_xclient_hosts. Nil means nobody, the default.
	XClientHosts func(name string, address netip.Addr) bool
	// XForwardHosts tells who is in smtpd_authorized_xforward_hosts. Nil means nobody, the default.
	XForwardHosts func(name string, address netip.Addr) bool
	// DiscardEHLOKeywords gives the keywords of smtpd_discard_ehlo_keywords and its address maps for a client. Nil means none, the default.
	DiscardEHLOKeywords func(address netip.Addr) smtp.Keywords
	// RejectFooter is smtpd_reject_footer as written, with its $names. Default none.
	RejectFooter string
	// RejectFooterMap is smtpd_reject_footer_maps: it may give another footer for a reply. Nil means none.
	RejectFooterMap func(reply string) (footer string, found bool)

	// TLS gives the certificate configuration of this moment. Nil means no TLS (smtpd_tls_security_level = none); an error means that
	// STARTTLS is announced and answered with 454.
	TLS func() (*tls.Config, error)
	// WrapperMode is smtpd_tls_wrappermode: TLS from the first octet. Default no.
	WrapperMode bool
	// TLSAskClientCertificate is smtpd_tls_ask_ccert, for what Received says; the tls.Config does it. Default no.
	TLSAskClientCertificate bool
	// TLSReceivedHeader is smtpd_tls_received_header. Default no.
	TLSReceivedHeader bool
	// TLSLogLevel is smtpd_tls_loglevel. Default 0.
	TLSLogLevel int
	// TLSAuthOnly is smtpd_tls_auth_only: no AUTH before TLS. Default no.
	TLSAuthOnly bool

	// SASLAuthEnable is smtpd_sasl_auth_enable. Default no.
	SASLAuthEnable bool
	// SASLSecurityOptions is smtpd_sasl_security_options, SASLTLSSecurityOptions is smtpd_sasl_tls_security_options: noplaintext and
	// noanonymous leave out mechanisms. Default noanonymous for both.
	SASLSecurityOptions, SASLTLSSecurityOptions []string
	// SASLExceptionsNetworks tells who is in smtpd_sasl_exceptions_networks: AUTH is not announced to them. Nil means nobody, the default.
	SASLExceptionsNetworks func(name string, address netip.Addr) bool
	// SASLAuthenticatedHeader is smtpd_sasl_authenticated_header. Default no.
	SASLAuthenticatedHeader bool
	// AuthService is the account.Client.Service of logins: smtp or submission. Default smtp.
	AuthService string

	// PeernameLookup is smtpd_peername_lookup, turned round: true leaves names out. Default no.
	NoPeernameLookup bool
	// ClientPortLogging is smtpd_client_port_logging. Default no.
	ClientPortLogging bool

	// Verbatim keeps messages as they came: no Received, no missing headers, no dropped ones. An LMTP server adds its own trace by Trace.
	Verbatim bool
	// Trace writes the lines above the message when Verbatim is set; each ends in CRLF. Nil writes none.
	Trace func(mail *Mail) []byte
	// HopCountLimit is hopcount_limit. Default 50.
	HopCountLimit int
	// HeaderSizeLimit is header_size_limit in octets; what goes beyond in one header is dropped. Default 102400.
	HeaderSizeLimit int
	// AlwaysAddMissingHeaders is always_add_missing_headers. Default no.
	AlwaysAddMissingHeaders bool
	// LocalHeaderRewriteClients is local_header_rewrite_clients: who gets missing headers added. Nil means permit_inet_interfaces, the default.
	LocalHeaderRewriteClients func(session *policy.Session) bool
	// MessageDropHeaders is message_drop_headers, in small letters. Nil means bcc, content-length, resent-bcc, return-path, the default.
	MessageDropHeaders []string
	// MessageStripCharacters and MessageRejectCharacters are message_strip_characters and message_reject_characters, unescaped. Default none.
	MessageStripCharacters, MessageRejectCharacters string
	// Strict7BitHeaders is strict_7bit_headers. Default no.
	Strict7BitHeaders bool
	// Strict8BitMIMEBody is strict_8bitmime_body. Default no.
	Strict8BitMIMEBody bool
	// StrictMIMEEncodingDomain is strict_mime_encoding_domain. Default no.
	StrictMIMEEncodingDomain bool

	// ContentChecks are header_checks, mime_header_checks, nested_header_checks and body_checks; nil means none.
	ContentChecks *policy.ContentChecks
	// Checker decides at every stage. Required: without one there would be an open relay.
	Checker policy.Checker
	// Accept takes complete messages. Required unless AcceptEach is there.
	Accept Acceptor
	// Begin makes what follows the recipients of a transaction; nil means that all can be taken together.
	Begin func() Transaction
	// AcceptEach takes them for LMTP, with a result per recipient.
	AcceptEach EachAcceptor
	// Auth checks logins; nil means none.
	Auth account.Authenticator
	// Names looks up client names; nil means that all are unknown.
	Names Names
	// Limits counts events per client; nil means no rates.
	Limits Limits
	// Etrn starts delivery for a domain: the reply to ETRN. Nil answers 459 (service unavailable).
	Etrn func(ctx context.Context, domain string) (reply string)
	// QueueSpace tells whether there is room for a message of size octets (queue_minfree). Nil means that there is.
	QueueSpace func(size int64) bool
	// Spool holds messages while they come in. Required.
	Spool *spool.Spool
	// QueueIDs names messages. Required.
	QueueIDs *queueid.Sequence
	// Log gets the lines. Required.
	Log *slog.Logger
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Names finds the names of clients.
type Names interface {
	// LookupClient returns the verified name and the unverified one, "unknown" where there is none, and why.
	LookupClient(ctx context.Context, address netip.Addr) (name, reverse string, nameStatus, reverseStatus policy.NameStatus)
}

// Limits counts what clients do, as anvil(8) does.
type Limits interface {
	// Count books an event and returns how many there were in the time unit (or, for ConnectionCount, are open at the moment), and
	// whether that is more than allowed.
	Count(kind Event, name string, address netip.Addr) (count int, exceeded bool)
	// Disconnect takes back a ConnectionCount.
	Disconnect(name string, address netip.Addr)
}

// Event is what Limits counts.
type Event uint8

// The events. ConnectionCount is booked together with ConnectionRate for every connection.
const (
	ConnectionCount Event = iota
	ConnectionRate
	MessageRate
	RecipientRate
	AuthRate
	NewTLSRate
)

func (o *Options) setDefaults() {
	text := func(field *string, value string) {
		if *field == "" {
			*field = value
		}
	}
	duration := func(field *time.Duration, value time.Duration) {
		if *field == 0 {
			*field = value
		}
	}
	number := func(field *int, value int) {
		if *field == 0 {
			*field = value
		}
	}
	text(&o.MailName, "Postfix")
	text(&o.SyslogName, "postfix/smtpd")
	text(&o.ServiceName, "smtp")
	text(&o.AuthService, "smtp")
	text(&o.Banner, o.Hostname+" ESMTP "+o.MailName)
	duration(&o.Timeout, 300*time.Second)
	duration(&o.StressTimeout, 10*time.Second)
	duration(&o.StartTLSTimeout, 300*time.Second)
	duration(&o.UpstreamProxyTimeout, 5*time.Second)
	duration(&o.ErrorSleepTime, time.Second)
	number(&o.MinDataRate, 500)
	number(&o.ConnectionLimit, 1000)
	number(&o.ConnectionCountLimit, 50)
	number(&o.HopCountLimit, 50)
	number(&o.HeaderSizeLimit, 102400)
	if o.MessageDropHeaders == nil {
		o.MessageDropHeaders = []string{"bcc", "content-length", "resent-bcc", "return-path"}
	}
	if o.SASLSecurityOptions == nil {
		o.SASLSecurityOptions = []string{"noanonymous"}
	}
	if o.SASLTLSSecurityOptions == nil {
		o.SASLTLSSecurityOptions = o.SASLSecurityOptions
	}
	if o.Now == nil {
		o.Now = time.Now
	}
}
