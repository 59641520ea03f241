package smtpd

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"postilion/account"
	"postilion/proto/smtp"
)

// authClient is what the authenticator shall know of the connection.
func (x *session) authClient() account.Client {
	port := func(text string) uint16 {
		n, err := strconv.ParseUint(text, 10, 16)
		if err != nil {
			return 0
		}
		return uint16(n)
	}
	p := &x.peer
	return account.Client{
		Service: x.options.AuthService,
		Remote:  netip.AddrPortFrom(p.address, port(p.port)),
		Local:   netip.AddrPortFrom(p.serverAddress, port(p.serverPort)),
		TLS:     x.tls, Secured: x.tls != nil, Session: x.facts.Instance,
	}
}

// offered returns the mechanisms that this client may use now.
func (x *session) offered() []string {
	limits := x.options.SASLSecurityOptions
	if x.tls != nil {
		limits = x.options.SASLTLSSecurityOptions
	}
	var names []string
	for _, m := range x.options.Auth.Mechanisms(x.authClient()) {
		if m.Plaintext && slices.Contains(limits, "noplaintext") || m.Name == "ANONYMOUS" && slices.Contains(limits, "noanonymous") || m.Name == "EXTERNAL" {
			continue
		}
		names = append(names, m.Name)
	}
	return names
}

func (x *session) mechanisms() string { return strings.Join(x.offered(), " ") }

// authenticate carries one step of a SASL exchange between engine and authenticator.
func (x *session) authenticate(ctx context.Context, event smtp.Event) {
	if event.Kind == smtp.AuthAborted {
		x.sasl = nil
		return
	}
	if event.Kind == smtp.AuthStart {
		if x.overLimit(AuthRate, "AUTH command rate") {
			x.engine.Refuse("450 4.7.1 Error: too many AUTH commands from " + x.peer.text)
			return
		}
		mechanism := strings.ToUpper(event.Text)
		if !slices.Contains(x.offered(), mechanism) {
			x.authFailed(account.ErrMechanism)
			return
		}
		exchange, err := x.options.Auth.Start(ctx, x.authClient(), mechanism)
		if err != nil {
			x.authFailed(err)
			return
		}
		x.sasl, x.peer.method, x.claimed = exchange, mechanism, ""
	}
	if name := claimed(x.peer.method, event.Data); x.claimed == "" && name != "" {
		x.claimed = name
	}
	challenge, user, err := x.sasl.Next(ctx, event.Data)
	switch {
	case err != nil:
		x.authFailed(err)
	case user == nil || challenge != nil && !x.finalSent:
		x.finalSent = user != nil
		if user != nil {
			x.sasl = finished{user}
		}
		x.engine.Challenge(challenge)
	default:
		x.sasl, x.finalSent = nil, false
		x.peer.user = user.Name
		x.updatePeer()
		x.engine.Authenticated()
	}
}

// finished waits for the client's empty answer to the data that goes with success: SMTP has no other place for it (RFC 4954 section 4).
type finished struct{ user *account.User }

func (f finished) Next(context.Context, []byte) ([]byte, *account.User, error) {
	return nil, f.user, nil
}

// claimed is the name in a client's response, for the log: whose password is tried. "" where a mechanism does not tell.
func claimed(mechanism string, response []byte) string {
	text := string(response)
	switch mechanism {
	case "PLAIN":
		if parts := strings.SplitN(text, "\x00", 3); len(parts) == 3 {
			return parts[1]
		}
	case "LOGIN":
		return text
	case "CRAM-MD5":
		if i := strings.LastIndexByte(text, ' '); i > 0 {
			return text[:i]
		}
	default:
		if strings.HasPrefix(mechanism, "SCRAM-") {
			if _, rest, found := strings.Cut(text, ",n="); found {
				name, _, _ := strings.Cut(rest, ",")
				return name
			}
		}
	}
	return ""
}

func (x *session) authFailed(err error) {
	name := x.claimed
	x.sasl, x.finalSent, x.peer.method, x.claimed = nil, false, "", ""
	reason := "(reason unavailable)"
	var told interface{ Reason() string }
	switch {
	case errors.As(err, &told) && told.Reason() != "":
		reason = told.Reason()
	case errors.Is(err, account.ErrMechanism), errors.Is(err, account.ErrPlaintext):
		reason = "Invalid authentication mechanism"
	case errors.Is(err, account.ErrMalformed):
		reason = "malformed authentication data"
	}
	temporary := errors.Is(err, account.ErrUnavailable) || unavailable(err)
	if temporary {
		x.lines.warning("login of " + x.peer.client + ": " + err.Error())
	}
	x.engine.AuthFailed(temporary, reason, name)
}
