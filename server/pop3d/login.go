package pop3d

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"postilion/account"
	"postilion/proto/pop3"
)

type commandFunc func(*session, context.Context, *pop3.Command)

// preloginCommands is the table of the authorization state.
func preloginCommands(name string) commandFunc {
	switch name {
	case "CAPA":
		return (*session).capa
	case "USER":
		return (*session).userCommand
	case "PASS":
		return (*session).pass
	case "AUTH":
		return (*session).auth
	case "APOP":
		return (*session).apop
	case "STLS":
		return (*session).stls
	case "UTF8":
		return (*session).utf8Command
	case "QUIT":
		return (*session).preloginQuit
	}
	return nil
}

func (s *session) greet() {
	text := s.opt.Greeting
	if s.opt.APOP {
		var random [16]byte
		_, _ = rand.Read(random[:])
		s.banner = fmt.Sprintf("<%x.%x.%s@%s>", os.Getpid(), time.Now().Unix(), base64.StdEncoding.EncodeToString(random[:]), s.opt.Hostname)
		text += " " + s.banner
	}
	s.ok(text)
}

func (s *session) plaintextRefused() bool { return s.opt.DisablePlaintextAuth && !s.Client.Secured }

// capa is CAPA (RFC 2449 section 5), with what the state of the connection permits.
func (s *session) capa(context.Context, *pop3.Command) {
	s.ok("")
	s.Send("CAPA\r\nTOP\r\nUIDL\r\nRESP-CODES\r\nPIPELINING\r\nAUTH-RESP-CODE\r\n")
	if s.User == nil {
		if s.opt.TLS != nil && s.Client.TLS == nil {
			s.Send("STLS\r\n")
		}
		if !s.plaintextRefused() {
			s.Send("USER\r\n")
		}
		s.Send("SASL")
		for _, name := range s.mechanisms() {
			s.Send(" " + name)
		}
		s.Send("\r\n")
	}
	if s.opt.UTF8 {
		s.Send("UTF8 USER\r\n")
	}
	s.Send(".\r\n")
}

// mechanisms names what AUTH offers; APOP is no SASL mechanism.
func (s *session) mechanisms() []string {
	var names []string
	for _, m := range s.opt.Auth.Mechanisms(s.Client) {
		if m.Name != "APOP" {
			names = append(names, m.Name)
		}
	}
	return names
}

// stls changes over to TLS (RFC 2595 section 4). What the client sent behind the command in clear is not obeyed, and what it said
// before is forgotten.
func (s *session) stls(ctx context.Context, _ *pop3.Command) {
	switch {
	case s.Client.TLS != nil:
		s.fail("TLS is already active.")
		return
	case s.opt.TLS == nil:
		s.fail("TLS support isn't enabled.")
		return
	}
	if s.dec.Buffered() > 0 {
		s.Log.Warn("input in clear behind STLS dropped: " + s.Peer())
	}
	s.dec.Discard()
	s.given, s.Name = "", ""
	s.ok("Begin TLS negotiation now.")
	s.Flush()
	if !s.Ended {
		s.StartTLS(ctx)
	}
}

func (s *session) preloginQuit(context.Context, *pop3.Command) {
	s.ok("Logging out")
	s.Ended, s.Reason = true, "Aborted login by logging out"
}

// utf8Command is UTF8 (RFC 6856 section 2): mail is given as it is, so there is nothing to change.
func (s *session) utf8Command(_ context.Context, cmd *pop3.Command) {
	if !s.opt.UTF8 {
		s.unknown(cmd)
		return
	}
	s.ok("UTF8 enabled")
}

const plaintextText = "[AUTH] Plaintext authentication disallowed on non-secure (SSL/TLS) connections."

func (s *session) userCommand(_ context.Context, cmd *pop3.Command) {
	if s.plaintextRefused() {
		s.Attempts++
		s.fail(plaintextText)
		return
	}
	s.given = string(cmd.Args)
	s.Name = s.given
	s.ok("")
}

func (s *session) pass(ctx context.Context, cmd *pop3.Command) {
	switch {
	case s.plaintextRefused():
		s.Attempts++
		s.fail(plaintextText)
		return
	case s.given == "":
		s.fail("No username given.")
		return
	}
	name, password := s.given, string(cmd.Args)
	s.Method = "PLAIN"
	user, err := s.opt.Auth.Password(s.Waiting(), s.Client, name, password)
	s.proved(ctx, user, err)
	s.given = ""
}

func (s *session) apop(ctx context.Context, cmd *pop3.Command) {
	if !s.opt.APOP {
		s.fail("APOP not enabled.")
		return
	}
	name, digest, _ := strings.Cut(string(cmd.Args), " ")
	if sum, err := hex.DecodeString(digest); err != nil || len(sum) != 16 || name == "" {
		s.fail("Invalid parameters.")
		return
	}
	s.Method, s.Name = "APOP", name
	user, err := s.opt.Auth.APOP(s.Waiting(), s.Client, name, s.banner, strings.ToLower(digest))
	s.proved(ctx, user, err)
}

// auth is AUTH with an optional initial response (RFC 5034); without a mechanism it lists them, as clients older than the RFC want.
func (s *session) auth(ctx context.Context, cmd *pop3.Command) {
	mechanism, initial, _ := strings.Cut(string(cmd.Args), " ")
	if mechanism == "" {
		s.ok("")
		for _, name := range s.mechanisms() {
			s.Send(name + "\r\n")
		}
		s.Send(".\r\n")
		return
	}
	if s.opt.SSLRequired && !s.Client.Secured {
		s.Attempts++
		s.fail("[AUTH] Authentication not allowed until SSL/TLS is enabled.")
		return
	}
	s.Method = strings.ToUpper(mechanism)
	var response []byte
	if initial != "" {
		response = []byte{}
		if initial != "=" {
			var err error
			if response, err = base64.StdEncoding.AppendDecode(response, []byte(initial)); err != nil {
				s.Attempts++
				s.fail("[AUTH] Invalid base64 data in initial response")
				return
			}
		}
	}
	exchange, err := s.opt.Auth.Start(s.Waiting(), s.Client, s.Method)
	if err != nil {
		s.proved(ctx, nil, err)
		return
	}
	user, over, err := s.Exchange(exchange, response, func(challenge []byte) ([]byte, bool) {
		s.Send("+ " + base64.StdEncoding.EncodeToString(challenge) + "\r\n")
		return s.saslResponse()
	})
	if !over {
		s.proved(ctx, user, err)
	}
}

// saslResponse reads the client's line after a challenge.
func (s *session) saslResponse() ([]byte, bool) {
	for !s.Ended {
		switch s.dec.NextResponse(pop3.SASLLine) {
		case pop3.NeedInput:
			s.read()
		case pop3.TooLong:
			s.stop("[AUTH] Authentication response too large", "Authentication response too large")
		case pop3.Ready:
			line := s.dec.Response()
			if string(line) == "*" {
				s.Attempts++
				s.fail("Authentication aborted by client.")
				return nil, false
			}
			response, err := base64.StdEncoding.AppendDecode([]byte{}, line)
			if err != nil {
				s.Attempts++
				s.fail("[AUTH] Invalid base64 in response")
				return nil, false
			}
			return response, true
		}
	}
	return nil, false
}

// proved ends a login attempt with its reply.
func (s *session) proved(ctx context.Context, user *account.User, err error) {
	if err == nil {
		s.enter(ctx, user)
		return
	}
	s.Attempts++
	var reason interface{ Reason() string }
	switch {
	case errors.Is(err, account.ErrPlaintext) && s.Method == "PLAIN" && s.given != "":
		s.fail(plaintextText)
	case errors.Is(err, account.ErrPlaintext):
		s.fail("[AUTH] Plaintext authentication disabled.")
	case errors.Is(err, account.ErrMechanism):
		s.fail("[AUTH] Unsupported authentication mechanism.")
		return
	case errors.Is(err, account.ErrDenied) && errors.As(err, &reason):
		s.fail("[AUTH] " + reason.Reason())
	case errors.Is(err, account.ErrDenied):
		s.fail("[AUTH] Login disabled for this user")
	case errors.Is(err, account.ErrProof), errors.Is(err, account.ErrMalformed):
		s.fail("[AUTH] Authentication failed.")
	default:
		s.Log.Error("authentication: " + err.Error())
		s.fail("[SYS/TEMP] Temporary authentication failure.")
	}
}

// enter opens the user's mail and changes over to the transaction state.
func (s *session) enter(ctx context.Context, user *account.User) {
	if !s.Enter(user) {
		text := "Maximum number of connections from user+IP exceeded (mail_max_userip_connections=" + strconv.Itoa(s.opt.MaxUserIP) + ")"
		s.stop("[IN-USE] "+text, text)
		return
	}
	s.LogLogin()
	// pop3_logout_format counts what comes after the login.
	s.Received, s.Sent = int64(s.dec.Buffered()), -int64(len(s.Out))
	if s.opt.LockSession && !s.srv.lock(s) {
		if !s.Stopped() {
			s.stop("[IN-USE] Mailbox is locked by another POP3 session.", "Couldn't lock POP3 session")
		}
		return
	}
	if err := s.openMail(ctx); err != nil {
		s.Log.Error("Couldn't open INBOX: " + err.Error())
		s.stop("[SYS/TEMP] Internal error occurred. Refer to server log for more information.", "Couldn't open INBOX: "+err.Error())
		return
	}
	s.ok("Logged in.")
}
