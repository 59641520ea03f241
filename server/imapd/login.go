package imapd

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"postilion/account"
	"postilion/proto/imap"
)

const maxSASLLine = 64 << 10

func (s *session) greet() {
	s.untagged("OK [CAPABILITY " + s.capabilities() + "] " + s.opt.Greeting)
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
	s.Ended, s.Reason = true, "Aborted login by logging out"
}

// starttls changes over to TLS. What the client sent behind the command in clear is not obeyed.
func (s *session) starttls(ctx context.Context, cmd *imap.Command) {
	switch {
	case s.Client.TLS != nil:
		s.tagged(cmd, "BAD TLS is already active.")
		return
	case s.opt.TLS == nil:
		s.tagged(cmd, "BAD TLS support isn't enabled.")
		return
	}
	if s.dec.Buffered() > 0 {
		s.dec.Discard()
		s.Log.Warn("input in clear behind STARTTLS dropped: " + s.Peer())
	}
	s.tagged(cmd, "OK Begin TLS negotiation now.")
	s.Flush()
	s.StartTLS(ctx)
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
	if s.opt.DisablePlaintextAuth && !s.Client.Secured {
		s.plaintextRefused(cmd)
		return
	}
	name, password := string(cmd.Args[0].Text), string(cmd.Args[1].Text)
	s.Method = "PLAIN"
	user, err := s.opt.Auth.Password(s.Waiting(), s.Client, name, password)
	s.proved(ctx, cmd, user, err)
}

// authenticate is AUTHENTICATE with an optional initial response (RFC 4959).
func (s *session) authenticate(ctx context.Context, cmd *imap.Command) {
	if len(cmd.Args) < 1 || len(cmd.Args) > 2 || !cmd.Args[0].IsString() || len(cmd.Args) == 2 && cmd.Args[1].Kind != imap.Atom {
		s.refuse(cmd, "Invalid arguments")
		return
	}
	s.Method = cmd.Args[0].Upper()
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
	exchange, err := s.opt.Auth.Start(s.Waiting(), s.Client, s.Method)
	if err != nil {
		s.proved(ctx, cmd, nil, err)
		return
	}
	kept := imap.Command{Tag: cmd.Tag, Name: cmd.Name}
	user, over, err := s.Exchange(exchange, response, func(challenge []byte) ([]byte, bool) {
		s.Send("+ " + base64.StdEncoding.EncodeToString(challenge) + "\r\n")
		return s.saslResponse(&kept)
	})
	if !over {
		s.proved(ctx, &kept, user, err)
	}
}

// saslResponse reads the client's line after a challenge.
func (s *session) saslResponse(cmd *imap.Command) ([]byte, bool) {
	for {
		line, more, tooLong := s.dec.Line(maxSASLLine)
		switch {
		case tooLong:
			s.bye("Input buffer full, aborting")
			s.Reason = "Input buffer full"
			return nil, false
		case more:
			if !s.read() && s.Ended {
				return nil, false
			}
		case len(line) == 1 && line[0] == '*':
			s.tagged(cmd, "BAD Authentication aborted by client.")
			s.Attempts++
			return nil, false
		default:
			response, err := base64.StdEncoding.AppendDecode([]byte{}, line)
			if err != nil {
				s.tagged(cmd, "NO [ALERT] Invalid base64 in response")
				s.Attempts++
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
		s.tagged(cmd, "NO [CONTACTADMIN] Login disabled for this user")
	case errors.Is(err, account.ErrProof), errors.Is(err, account.ErrMalformed):
		s.tagged(cmd, "NO [AUTHENTICATIONFAILED] Authentication failed.")
	default:
		s.Log.Error("authentication: " + err.Error())
		s.tagged(cmd, "NO [UNAVAILABLE] Temporary authentication failure.")
	}
	s.Attempts++
}

// enter opens the user's mail and changes over to the commands of a user.
func (s *session) enter(ctx context.Context, cmd *imap.Command, user *account.User) {
	if !s.Enter(user) {
		s.tagged(cmd, "NO [LIMIT] Maximum number of connections from user+IP exceeded (mail_max_userip_connections)")
		s.Ended, s.Reason = true, fmt.Sprintf("Maximum number of connections from user+IP exceeded (mail_max_userip_connections=%d)", s.opt.MaxUserIP)
		return
	}
	namespaces, err := s.opt.Mail.Open(ctx, user)
	s.LogLogin()
	if err != nil {
		s.Log.Error("opening mail: " + err.Error())
		s.tagged(cmd, "NO [UNAVAILABLE] Internal error occurred. Refer to server log for more information.")
		s.Ended, s.Reason = true, "Internal error"
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
	if s.User != nil {
		return f.capability
	}
	words := []string{"IMAP4rev1"}
	if s.opt.IMAP4rev2 {
		words = append(words, "IMAP4rev2")
	}
	words = append(words, f.banner...)
	if s.opt.TLS != nil && s.Client.TLS == nil {
		words = append(words, "STARTTLS")
	}
	if s.opt.DisablePlaintextAuth && !s.Client.Secured {
		words = append(words, "LOGINDISABLED")
	}
	for _, m := range s.opt.Auth.Mechanisms(s.Client) {
		words = append(words, "AUTH="+m.Name)
	}
	return strings.Join(words, " ")
}
