package imapd

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"strings"
	"time"

	"postilion/account"
	"postilion/proto/imap"
)

const maxSASLLine = 64 << 10

func (s *session) greet() {
	s.untagged("OK [CAPABILITY " + s.capabilities() + "] " + s.opt.Greeting)
}

// startTLS begins encryption on the connection.
func (s *session) startTLS(ctx context.Context) bool {
	conn := tls.Server(s.raw, s.opt.TLS())
	_ = s.raw.SetDeadline(time.Now().Add(min(s.opt.LoginTimeout, time.Minute)))
	if s.stopped() {
		return false
	}
	err := conn.HandshakeContext(ctx)
	if s.end.Load() != uint32(endNot) && err == nil {
		err = context.Canceled
	}
	if err != nil {
		s.ended = true
		s.reason = "TLS handshaking: " + err.Error()
		if s.end.Load() != 0 {
			s.reason = "Server shutting down."
		}
		return false
	}
	_ = s.raw.SetDeadline(time.Time{})
	state := conn.ConnectionState()
	s.conn, s.client.TLS, s.client.Secured = conn, &state, true
	return true
}

func preloginCommands() []command {
	return []command{
		{name: "CAPABILITY", run: (*session).preloginCapability},
		{name: "NOOP", run: func(s *session, _ context.Context, cmd *imap.Command) { s.tagged(cmd, "OK NOOP completed.") }},
		{name: "LOGOUT", run: (*session).preloginLogout},
		{name: "ID", run: (*session).identify},
		{name: "ENABLE", run: func(s *session, _ context.Context, cmd *imap.Command) {
			s.untagged("ENABLED")
			s.tagged(cmd, "OK ENABLE ignored in non-authenticated state.")
		}},
		{name: "STARTTLS", run: (*session).starttls},
		{name: "LOGIN", run: (*session).login},
		{name: "AUTHENTICATE", run: (*session).authenticate},
	}
}

func (s *session) preloginCapability(_ context.Context, cmd *imap.Command) {
	s.asked = true
	s.untagged("CAPABILITY " + s.capabilities())
	s.tagged(cmd, "OK Pre-login capabilities listed, post-login capabilities have more.")
}

func (s *session) preloginLogout(_ context.Context, cmd *imap.Command) {
	s.untagged("BYE Logging out")
	s.tagged(cmd, "OK Logout completed.")
	s.ended, s.reason = true, "Aborted login by logging out"
}

// starttls changes over to TLS. What the client sent behind the command in clear is not obeyed.
func (s *session) starttls(ctx context.Context, cmd *imap.Command) {
	switch {
	case s.client.TLS != nil:
		s.tagged(cmd, "BAD TLS is already active.")
		return
	case s.opt.TLS == nil:
		s.tagged(cmd, "BAD TLS support isn't enabled.")
		return
	}
	if s.dec.Buffered() > 0 {
		s.dec.Discard()
		s.log.Warn("input in clear behind STARTTLS dropped: " + s.peer())
	}
	s.tagged(cmd, "OK Begin TLS negotiation now.")
	s.flush()
	s.startTLS(ctx)
	s.dec.Discard()
}

// plaintextRefused answers when the password must not have been sent.
func (s *session) plaintextRefused(cmd *imap.Command) {
	s.untagged("BAD [ALERT] Plaintext authentication not allowed without SSL/TLS, but your client did it anyway. If anyone was listening, the password was exposed.")
	s.tagged(cmd, "NO [PRIVACYREQUIRED] Plaintext authentication disallowed on non-secure (SSL/TLS) connections.")
}

func (s *session) login(ctx context.Context, cmd *imap.Command) {
	if len(cmd.Args) != 2 || !cmd.Args[0].IsString() || !cmd.Args[1].IsString() {
		s.refuse(cmd, "Invalid arguments")
		return
	}
	if s.opt.DisablePlaintextAuth && !s.client.Secured {
		s.plaintextRefused(cmd)
		return
	}
	name, password := string(cmd.Args[0].Text), string(cmd.Args[1].Text)
	s.method = "PLAIN"
	s.throttle(false)
	user, err := s.opt.Auth.Password(s.waiting, s.client, name, password)
	s.proved(ctx, cmd, user, err)
}

func (s *session) throttle(failed bool) {
	if s.opt.Throttle != nil {
		s.flush()
		s.opt.Throttle(s.waiting, s.client, failed)
	}
}

// authenticate is AUTHENTICATE with an optional initial response (RFC 4959).
func (s *session) authenticate(ctx context.Context, cmd *imap.Command) {
	if len(cmd.Args) < 1 || len(cmd.Args) > 2 || !cmd.Args[0].IsString() || len(cmd.Args) == 2 && cmd.Args[1].Kind != imap.Atom {
		s.refuse(cmd, "Invalid arguments")
		return
	}
	s.method = cmd.Args[0].Upper()
	var response []byte
	if len(cmd.Args) == 2 {
		response = []byte{}
		if text := cmd.Args[1].Text; string(text) != "=" {
			var err error
			if response, err = base64.StdEncoding.AppendDecode(response, text); err != nil {
				s.tagged(cmd, "BAD Invalid base64 data in initial response")
				return
			}
		}
	}
	s.throttle(false)
	exchange, err := s.opt.Auth.Start(s.waiting, s.client, s.method)
	if err != nil {
		s.proved(ctx, cmd, nil, err)
		return
	}
	kept := imap.Command{Tag: cmd.Tag, Name: cmd.Name}
	for {
		challenge, user, err := exchange.Next(s.waiting, response)
		if err != nil || user != nil && challenge == nil {
			s.proved(ctx, &kept, user, err)
			return
		}
		s.send("+ " + base64.StdEncoding.EncodeToString(challenge) + "\r\n")
		var ok bool
		if response, ok = s.saslResponse(&kept); !ok {
			return
		}
		if user != nil {
			s.proved(ctx, &kept, user, nil)
			return
		}
	}
}

// saslResponse reads the client's line after a challenge.
func (s *session) saslResponse(cmd *imap.Command) ([]byte, bool) {
	for {
		line, more, tooLong := s.dec.Line(maxSASLLine)
		switch {
		case tooLong:
			s.bye("Input buffer full, aborting")
			s.reason = "Input buffer full"
			return nil, false
		case more:
			if !s.read() && s.ended {
				return nil, false
			}
		case len(line) == 1 && line[0] == '*':
			s.tagged(cmd, "BAD Authentication aborted by client.")
			s.attempts++
			return nil, false
		default:
			response, err := base64.StdEncoding.AppendDecode([]byte{}, line)
			if err != nil {
				s.tagged(cmd, "NO [ALERT] Invalid base64 in response")
				s.attempts++
				return nil, false
			}
			return response, true
		}
	}
}

// proved ends a login attempt with its reply.
func (s *session) proved(ctx context.Context, cmd *imap.Command, user *account.User, err error) {
	if err == nil {
		s.enter(ctx, cmd, user)
		return
	}
	var reason interface{ Reason() string }
	switch {
	case errors.Is(err, account.ErrPlaintext):
		s.plaintextRefused(cmd)
		return
	case errors.Is(err, account.ErrMechanism):
		s.tagged(cmd, "NO [ALERT] Unsupported authentication mechanism.")
		return
	case errors.Is(err, account.ErrDenied) && errors.As(err, &reason):
		s.tagged(cmd, "NO [CONTACTADMIN] "+reason.Reason())
	case errors.Is(err, account.ErrDenied):
		s.tagged(cmd, "NO [CONTACTADMIN] Login disabled.")
	case errors.Is(err, account.ErrProof), errors.Is(err, account.ErrMalformed):
		s.tagged(cmd, "NO [AUTHENTICATIONFAILED] Authentication failed.")
	default:
		s.log.Error("authentication: " + err.Error())
		s.tagged(cmd, "NO [UNAVAILABLE] Temporary authentication failure.")
	}
	s.attempts++
	s.throttle(true)
}

// enter opens the user's mail and changes over to the commands of a user.
func (s *session) enter(ctx context.Context, cmd *imap.Command, user *account.User) {
	s.user = user
	if !s.srv.loggedIn(s) {
		s.tagged(cmd, "NO [LIMIT] Maximum number of connections from user+IP exceeded (mail_max_userip_connections)")
		s.log.Info("Maximum number of connections from user+IP exceeded: "+s.peer(), "user", user.Name)
		s.user = nil
		s.ended, s.reason = true, "Too many connections of the user"
		return
	}
	namespaces, err := s.opt.Mail.Open(ctx, user)
	s.logLogin()
	if err != nil {
		s.log.Error("opening mail: " + err.Error())
		s.tagged(cmd, "NO [UNAVAILABLE] Internal error occurred. Refer to server log for more information.")
		s.ended, s.reason = true, "Internal error"
		return
	}
	s.namespaces = namespaces
	s.autoCreate(ctx)
	s.dec.Reset(s.srv.grammar, imap.Limits{Line: s.opt.MaxLine, LiteralMinus: s.opt.LiteralMinus})
	if s.asked {
		s.untagged("CAPABILITY " + s.capabilities())
		s.tagged(cmd, "OK Logged in")
	} else {
		s.tagged(cmd, "OK [CAPABILITY "+s.capabilities()+"] Logged in")
	}
	s.lastTime = time.Now()
}

// capabilities is what CAPABILITY lists now.
func (s *session) capabilities() string {
	f := s.srv.features
	if s.user != nil {
		return f.capability
	}
	words := []string{"IMAP4rev1"}
	if s.opt.IMAP4rev2 {
		words = append(words, "IMAP4rev2")
	}
	words = append(words, f.banner...)
	if s.opt.TLS != nil && s.client.TLS == nil {
		words = append(words, "STARTTLS")
	}
	if s.opt.DisablePlaintextAuth && !s.client.Secured {
		words = append(words, "LOGINDISABLED")
	}
	for _, m := range s.opt.Auth.Mechanisms(s.client) {
		words = append(words, "AUTH="+m.Name)
	}
	return strings.Join(words, " ")
}
