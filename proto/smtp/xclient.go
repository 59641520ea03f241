package smtp

import "strings"

// attributeLimit is the longest value of XCLIENT and XFORWARD.
const attributeLimit = 255

func (s *Server) xclientCommand() {
	attributes, refusal := s.attributes(s.peer.XClient, checkXClient)
	if refusal != "" {
		s.refuse(refusal)
		return
	}
	// The session starts over, as if the client had connected from there.
	s.resetMail()
	s.helo, s.esmtp, s.authenticated, s.denied = "", false, false, false
	for _, a := range attributes {
		switch {
		case a.Name == "HELO" && !a.Unavailable:
			s.helo = neuter(printable([]byte(a.Value)))
		case a.Name == "PROTO":
			s.esmtp = equalFold(a.Value, "ESMTP")
		case a.Name == "LOGIN":
			s.authenticated = !a.Unavailable && s.peer.Auth
		}
	}
	s.counts[s.command].all++
	s.where = "CONNECT"
	s.put(CheckConnect, "")
	s.notices = append(s.notices, Event{Kind: XClient, Attributes: attributes})
}

func (s *Server) xforwardCommand() {
	attributes, refusal := s.attributes(s.peer.XForward, checkXForward)
	if refusal != "" {
		s.refuse(refusal)
		return
	}
	s.done("250 2.0.0 Ok")
	s.notices = append(s.notices, Event{Kind: XForward, Attributes: attributes})
}

// attributes reads the arguments of XCLIENT and XFORWARD; check names what is wrong with one, "" for nothing.
func (s *Server) attributes(allowed bool, check func(*Attribute) string) ([]Attribute, string) {
	switch {
	case s.inMail:
		return nil, "503 5.5.1 Error: MAIL transaction in progress"
	case len(s.tokens) < 2:
		return nil, "501 5.5.4 Syntax: " + s.where + " attribute=value..."
	case !allowed:
		return nil, "550 5.7.0 Error: insufficient authorization"
	}
	list := make([]Attribute, 0, len(s.tokens)-1)
	for _, t := range s.tokens[1:] {
		name, coded, found := strings.Cut(string(t.text), "=")
		if !found || coded == "" {
			return nil, "501 5.5.4 Error: attribute=value expected"
		}
		if len(coded) > attributeLimit {
			return nil, "501 5.5.4 Error: attribute value too long"
		}
		value := coded
		if decoded, ok := DecodeXtext([]byte(coded)); ok {
			value = string(decoded)
		}
		a := Attribute{Name: strings.ToUpper(name), Value: value}
		switch {
		case equalFold(value, "[UNAVAILABLE]"):
			a.Unavailable = true
		case equalFold(value, "[TEMPUNAVAIL]"):
			a.Temporary = true
		}
		if fault := check(&a); fault != "" {
			if fault == "name" {
				return nil, "501 5.5.4 Bad " + s.where + " attribute name: " + printable([]byte(name))
			}
			return nil, "501 5.5.4 Bad " + a.Name + " syntax: " + printable([]byte(value))
		}
		if a.Unavailable || a.Temporary {
			a.Value = ""
		}
		list = append(list, a)
	}
	return list, ""
}

func syntaxUnless(ok bool) string {
	if ok {
		return ""
	}
	return "syntax"
}

func checkXClient(a *Attribute) string {
	switch a.Name {
	case "NAME", "REVERSE_NAME":
		return syntaxUnless(a.Unavailable || a.Temporary || validHostname(a.Value))
	case "ADDR", "DESTADDR":
		return checkAddress(a)
	case "PORT", "DESTPORT":
		return syntaxUnless(a.Unavailable || allDigits([]byte(a.Value)))
	case "HELO":
		return syntaxUnless(len(a.Value) <= attributeLimit)
	case "PROTO":
		return syntaxUnless(equalFold(a.Value, "SMTP") || equalFold(a.Value, "ESMTP"))
	case "LOGIN":
		return ""
	}
	return "name"
}

func checkXForward(a *Attribute) string {
	switch a.Name {
	case "NAME":
		return syntaxUnless(a.Unavailable || a.Temporary || validHostname(neuter(a.Value)))
	case "ADDR":
		return checkAddress(a)
	case "PORT":
		return syntaxUnless(a.Unavailable || allDigits([]byte(a.Value)))
	case "PROTO":
		return syntaxUnless(len(a.Value) <= 64)
	case "HELO", "IDENT":
		return syntaxUnless(len(a.Value) <= attributeLimit)
	case "SOURCE":
		return syntaxUnless(a.Unavailable || equalFold(a.Value, "LOCAL") || equalFold(a.Value, "REMOTE"))
	}
	return "name"
}

// checkAddress accepts what XCLIENT has for addresses and leaves the bare address: IPv6 stands behind "IPV6:".
func checkAddress(a *Attribute) string {
	if a.Unavailable {
		return ""
	}
	if !validAddressLiteral(a.Value) {
		return "syntax"
	}
	if len(a.Value) > 5 && equalFold(a.Value[:5], "IPV6:") {
		a.Value = a.Value[5:]
	}
	return ""
}
