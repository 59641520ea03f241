package pop3d

import (
	"context"
	"crypto/rand"
	"crypto/tls"
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

func (s *session) plaintextRefused() bool { return s.opt.DisablePlaintextAuth && !s.client.Secured }

// capa is CAPA (RFC 2449 section 5), with what the state of the connection permits.
func (s *session) capa(context.Context, *pop3.Command) {
	s.ok("")
	s.send("CAPA\r\nTOP\r\nUIDL\r\nRESP-CODES\r\nPIPELINING\r\nAUTH-RESP-CODE\r\n")
	if s.user == nil {
		if s.opt.TLS != nil && s.client.TLS == nil {
			s.send("STLS\r\n")
		}
		if !s.plaintextRefused() {
			s.send("USER\r\n")
		}
		s.send("SASL")
		for _, name := range s.mechanisms() {
			s.send(" " + name)
		}
		s.send("\r\n")
	}
	if s.opt.UTF8 {
		s.send("UTF8 USER\r\n")
	}
	s.send(".\r\n")
}

// mechanisms names what AUTH offers; APOP is no SASL mechanism.
func (s *session) mechanisms() []string {
	var names []string
	for _, m := range s.opt.Auth.Mechanisms(s.client) {
		if m.Name != "APOP" {
			names = append(names, m.Name)
		}
	}
	return names
}

// startTLS begins encryption on the connection.
func (s *session) startTLS(ctx context.Context) bool {
	conn := tls.Server(s.raw, s.opt.TLS())
	_ = s.raw.SetDeadline(time.Now().Add(min(s.opt.LoginTimeout, time.Minute)))
	if s.end.Load() != 0 {
		_ = s.raw.SetReadDeadline(time.Unix(1, 0))
	}
	if err := conn.HandshakeContext(ctx); err != nil {
		s.ended, s.broken = true, true
		s.reason = "TLS handshaking: " + err.Error()
		if s.end.Load() != 0 {
			s.reason = reasonShutdown
		}
		return false
	}
	_ = s.raw.SetDeadline(time.Time{})
	state := conn.ConnectionState()
	s.conn, s.client.TLS, s.client.Secured = conn, &state, true
	return true
}

// stls changes over to TLS (RFC 2595 section 4). What the client sent behind the command in clear is not obeyed, and what it said
// before is forgotten.
func (s *session) stls(ctx context.Context, _ *pop3.Command) {
	switch {
	case s.client.TLS != nil:
		s.fail("TLS is already active.")
		return
	case s.opt.TLS == nil:
		s.fail("TLS support isn't enabled.")
		return
	}
	if s.dec.Buffered() > 0 {
		s.log.Warn("input in clear behind STLS dropped: " + s.peer())
	}
	s.dec.Discard()
	s.name, s.tried = "", ""
	s.ok("Begin TLS negotiation now.")
	s.flush()
	if !s.ended {
		s.startTLS(ctx)
	}
}

func (s *session) preloginQuit(context.Context, *pop3.Command) {
	s.ok("Logging out")
	s.ended, s.reason = true, "Aborted login by logging out"
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
		s.attempts++
		s.fail(plaintextText)
		return
	}
	s.name = string(cmd.Args)
	s.tried = s.name
	s.ok("")
}

func (s *session) pass(ctx context.Context, cmd *pop3.Command) {
	switch {
	case s.plaintextRefused():
		s.attempts++
		s.fail(plaintextText)
		return
	case s.name == "":
		s.fail("No username given.")
		return
	}
	name, password := s.name, string(cmd.Args)
	s.method = "PLAIN"
	s.throttle(ctx, false)
	user, err := s.opt.Auth.Password(ctx, s.client, name, password)
	s.proved(ctx, user, err)
	s.name = ""
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
	s.method, s.tried = "APOP", name
	s.throttle(ctx, false)
	user, err := s.opt.Auth.APOP(ctx, s.client, name, s.banner, strings.ToLower(digest))
	s.proved(ctx, user, err)
}

func (s *session) throttle(ctx context.Context, failed bool) {
	if s.opt.Throttle != nil {
		s.flush()
		s.opt.Throttle(ctx, s.client, failed)
	}
}

// auth is AUTH with an optional initial response (RFC 5034); without a mechanism it lists them, as clients older than the RFC want.
func (s *session) auth(ctx context.Context, cmd *pop3.Command) {
	mechanism, initial, _ := strings.Cut(string(cmd.Args), " ")
	if mechanism == "" {
		s.ok("")
		for _, name := range s.mechanisms() {
			s.send(name + "\r\n")
		}
		s.send(".\r\n")
		return
	}
	if s.opt.SSLRequired && !s.client.Secured {
		s.attempts++
		s.fail("[AUTH] Authentication not allowed until SSL/TLS is enabled.")
		return
	}
	s.method = strings.ToUpper(mechanism)
	var response []byte
	if initial != "" {
		response = []byte{}
		if initial != "=" {
			var err error
			if response, err = base64.StdEncoding.AppendDecode(response, []byte(initial)); err != nil {
				s.attempts++
				s.fail("[AUTH] Invalid base64 data in initial response")
				return
			}
		}
	}
	s.throttle(ctx, false)
	exchange, err := s.opt.Auth.Start(ctx, s.client, s.method)
	if err != nil {
		s.proved(ctx, nil, err)
		return
	}
	s.exchange(ctx, exchange, response)
}

func (s *session) exchange(ctx context.Context, exchange account.Exchange, response []byte) {
	for {
		challenge, user, err := exchange.Next(ctx, response)
		if err != nil || user != nil && challenge == nil {
			s.proved(ctx, user, err)
			return
		}
		s.send("+ " + base64.StdEncoding.EncodeToString(challenge) + "\r\n")
		var ok bool
		if response, ok = s.saslResponse(); !ok {
			return
		}
		if user != nil {
			s.proved(ctx, user, nil)
			return
		}
	}
}

// saslResponse reads the client's line after a challenge.
func (s *session) saslResponse() ([]byte, bool) {
	for !s.ended {
		switch s.dec.NextResponse(pop3.SASLLine) {
		case pop3.NeedInput:
			s.read()
		case pop3.TooLong:
			s.stop("[AUTH] Authentication response too large", "Authentication response too large")
		case pop3.Ready:
			line := s.dec.Response()
			if string(line) == "*" {
				s.attempts++
				s.fail("Authentication aborted by client.")
				return nil, false
			}
			response, err := base64.StdEncoding.AppendDecode([]byte{}, line)
			if err != nil {
				s.attempts++
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
	s.attempts++
	var reason interface{ Reason() string }
	switch {
	case errors.Is(err, account.ErrPlaintext) && s.method == "PLAIN" && s.name != "":
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
		s.log.Error("authentication: " + err.Error())
		s.fail("[SYS/TEMP] Temporary authentication failure.")
	}
	s.throttle(ctx, true)
}

// enter opens the user's mail and changes over to the transaction state.
func (s *session) enter(ctx context.Context, user *account.User) {
	s.user = user
	if !s.srv.loggedIn(s) {
		text := "Maximum number of connections from user+IP exceeded (mail_max_userip_connections=" + strconv.Itoa(s.opt.MaxUserIP) + ")"
		s.stop("[IN-USE] "+text, text)
		s.surplus = true
		s.user = nil
		return
	}
	s.logLogin()
	// pop3_logout_format counts what comes after the login.
	s.count.in, s.count.out = int64(s.dec.Buffered()), -int64(len(s.out))
	if s.opt.LockSession && !s.srv.lock(s) {
		if !s.stopped() {
			s.stop("[IN-USE] Mailbox is locked by another POP3 session.", "Couldn't lock POP3 session")
		}
		return
	}
	if err := s.openMail(ctx); err != nil {
		s.log.Error("Couldn't open INBOX: " + err.Error())
		s.stop("[SYS/TEMP] Internal error occurred. Refer to server log for more information.", "Couldn't open INBOX: "+err.Error())
		return
	}
	s.ok("Logged in.")
}
