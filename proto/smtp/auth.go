package smtp

import "encoding/base64"

func (s *Server) authCommand() {
	switch {
	case s.settings.HeloRequired && s.helo == "":
		s.refuse("503 5.5.1 Error: send HELO/EHLO first")
	case !s.peer.Auth || s.peer.Discard&KeywordAuth != 0:
		s.refuse("503 5.5.1 Error: authentication not enabled")
	case s.inMail:
		s.refuse("503 5.5.1 Error: MAIL transaction in progress")
	case s.authenticated:
		s.refuse("503 5.5.1 Error: already authenticated")
	case len(s.tokens) < 2 || len(s.tokens) > 3:
		s.refuse("501 5.5.4 Syntax: AUTH mechanism")
	default:
		s.mechanism = string(s.tokens[1].text)
		s.put(AuthStart, s.mechanism)
		if len(s.tokens) == 3 {
			s.authResponse(s.tokens[2].text)
		}
	}
}

// authResponse puts a decoded response into the event that is about to be handed out. "=" is the empty response (RFC 4954 section 4).
func (s *Server) authResponse(coded []byte) {
	response := make([]byte, base64.StdEncoding.DecodedLen(len(coded)))
	if string(coded) == "=" {
		s.ask.Data = response[:0]
		return
	}
	n, err := base64.StdEncoding.Decode(response, coded)
	if err != nil {
		s.asking = false
		s.AuthFailed(false, "malformed base64 data", "")
		return
	}
	s.ask.Data = response[:n]
}

// authLine takes the client's response to a challenge.
func (s *Server) authLine(line []byte, tooLong bool) {
	switch {
	case tooLong:
		s.refuse("500 5.5.6 SASL response limit exceeded")
	case string(line) == "*":
		s.notice(true, s.peer.Client+": SASL "+printable([]byte(s.mechanism))+" authentication aborted")
		s.refuse("501 5.7.0 Authentication aborted")
		s.ask = Event{Kind: AuthAborted}
		s.asking = true
	default:
		s.put(AuthNext, s.mechanism)
		s.authResponse(line)
	}
}

// Challenge answers AuthStart and AuthNext with a challenge for the client.
func (s *Server) Challenge(challenge []byte) {
	if s.mode != modeAnswer {
		return
	}
	s.reply("334 ", base64.StdEncoding.EncodeToString(challenge))
	s.mode = modeAuth
}

// Authenticated answers AuthStart and AuthNext: the proof holds.
func (s *Server) Authenticated() {
	if s.mode != modeAnswer {
		return
	}
	s.authenticated = true
	s.done("235 2.7.0 Authentication successful")
}

// AuthFailed answers AuthStart and AuthNext: the proof does not hold, or with temporary, cannot be checked now. The reason is shown to the client.
// user is the name that was tried, for the log; "" when it is not known.
func (s *Server) AuthFailed(temporary bool, reason, user string) {
	if s.mode != modeAnswer {
		return
	}
	if user == "" {
		user = "(unavailable)"
	}
	s.notice(true, s.peer.Client+": SASL "+printable([]byte(s.mechanism))+" authentication failed: "+reason+", sasl_username="+printable([]byte(user[:min(len(user), 100)])))
	if temporary {
		s.refuse("454 4.7.0 Temporary authentication failure: ", reason)
		return
	}
	s.refuse("535 5.7.8 Error: authentication failed: ", reason)
}

// LoggedIn tells the engine that the client counts as authenticated, as after XCLIENT LOGIN, or does not.
func (s *Server) LoggedIn(yes bool) { s.authenticated = yes }
