package smtp

// verb is a command, in the order of Postfix's disconnect line.
type verb uint8

const (
	verbHelo verb = iota
	verbEhlo
	verbLhlo
	verbXClient
	verbXForward
	verbStartTLS
	verbAuth
	verbMail
	verbRcpt
	verbData
	verbBdat
	verbRset
	verbNoop
	verbVrfy
	verbEtrn
	verbQuit
	verbUnknown
)

func (v verb) String() string {
	return [...]string{
		"HELO", "EHLO", "LHLO", "XCLIENT", "XFORWARD", "STARTTLS", "AUTH", "MAIL", "RCPT", "DATA", "BDAT", "RSET", "NOOP", "VRFY", "ETRN", "QUIT",
		"UNKNOWN",
	}[v]
}

type verbFlags uint8

const (
	// junkFlag: the command counts against smtpd_junk_command_limit.
	junkFlag verbFlags = 1 << iota
	// beforeTLS: the command is allowed when TLS is required and not there yet.
	beforeTLS
	// lastOfGroup: nothing may be sent after the command before its reply (RFC 2920).
	lastOfGroup
)

func (v verb) flags() verbFlags {
	switch v {
	case verbHelo, verbEhlo, verbLhlo, verbNoop:
		return junkFlag | beforeTLS | lastOfGroup
	case verbXClient, verbXForward:
		return beforeTLS
	case verbStartTLS:
		return beforeTLS | lastOfGroup
	case verbAuth, verbData:
		return lastOfGroup
	case verbRset, verbEtrn:
		return junkFlag
	case verbVrfy:
		return junkFlag | lastOfGroup
	case verbQuit:
		return beforeTLS
	}
	return 0
}

// find returns the verb of a word in any case, as far as the service has it.
func (s *Server) find(word []byte) verb {
	for v := range verbUnknown {
		if !foldedBytes(word, v.String()) {
			continue
		}
		switch v {
		case verbHelo, verbEhlo, verbEtrn:
			if s.settings.LMTP {
				return verbUnknown
			}
		case verbLhlo:
			if !s.settings.LMTP {
				return verbUnknown
			}
		}
		return v
	}
	return verbUnknown
}

func (s *Server) run() {
	switch s.command {
	case verbHelo, verbEhlo, verbLhlo:
		s.heloCommand()
	case verbXClient:
		s.xclientCommand()
	case verbXForward:
		s.xforwardCommand()
	case verbStartTLS:
		s.startTLSCommand()
	case verbAuth:
		s.authCommand()
	case verbMail:
		s.mailCommand()
	case verbRcpt:
		s.rcptCommand()
	case verbData:
		s.dataCommand()
	case verbBdat:
		s.bdatCommand()
	case verbRset:
		s.rsetCommand()
	case verbNoop:
		s.done("250 2.0.0 Ok")
	case verbVrfy:
		s.vrfyCommand()
	case verbEtrn:
		s.etrnCommand()
	case verbQuit:
		s.done("221 2.0.0 Bye")
		s.closing = true
	}
}
