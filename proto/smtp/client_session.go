package smtp

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// Step is what a Client waits for: the time-outs of a client are kept per step.
type Step uint8

// The steps in the order of a session.
const (
	StepIdle Step = iota
	StepGreeting
	StepHello
	StepTLS
	StepAuth
	StepXForward
	StepMail
	StepRcpt
	StepData
	StepBody
	StepFinal
	StepReset
	StepQuit
)

// Doing says what the client does in a step, in the words of Postfix's logs.
func (c *Client) Doing() string {
	hello := "EHLO"
	if c.LMTP {
		hello = "LHLO"
	}
	switch c.Step() {
	case StepGreeting:
		return "receiving the initial server greeting"
	case StepHello:
		return "performing the " + hello + " handshake"
	case StepTLS:
		return "performing the STARTTLS handshake"
	case StepAuth:
		return "performing the AUTH handshake"
	case StepXForward:
		return "sending XFORWARD name/address"
	case StepMail:
		return "sending MAIL FROM"
	case StepRcpt:
		return "sending RCPT TO"
	case StepData:
		return "sending DATA command"
	case StepBody:
		return "sending message body"
	case StepFinal:
		return "sending end of data -- message may be sent more than once"
	case StepReset:
		return "sending final RSET"
	case StepQuit:
		return "sending QUIT"
	}
	return "waiting"
}

// Step returns which reply is due next.
func (c *Client) Step() Step {
	switch c.state {
	case clientGreeting:
		return StepGreeting
	case clientHello:
		return StepHello
	case clientTLS:
		return StepTLS
	case clientAuth:
		return StepAuth
	case clientXForward:
		return StepXForward
	case clientBody:
		return StepBody
	case clientFinal:
		return StepFinal
	case clientReset:
		return StepReset
	case clientQuit:
		return StepQuit
	case clientEnvelope:
		switch {
		case c.answered == 0:
			return StepMail
		case c.answered <= len(c.mail.Recipients):
			return StepRcpt
		}
		return StepData
	}
	return StepIdle
}

// Auth logs in with a SASL mechanism; initial is sent with the command unless it is nil.
func (c *Client) Auth(mechanism string, initial []byte) error {
	if c.state != clientIdle {
		return errBusy
	}
	line := "AUTH " + mechanism
	switch {
	case initial == nil:
	case len(initial) == 0:
		line += " ="
	default:
		line += " " + base64.StdEncoding.EncodeToString(initial)
	}
	return c.send(clientAuth, line)
}

// Challenge returns what the server wants an answer to, after ClientChallenge.
func (c *Client) Challenge() ([]byte, error) {
	data, err := base64.StdEncoding.DecodeString(strings.Join(c.reply.Lines, ""))
	if err != nil {
		return nil, fmt.Errorf("smtp: challenge %.60q: %w", c.reply.Lines, err)
	}
	return data, nil
}

// Respond answers a challenge; nil gives the exchange up.
func (c *Client) Respond(response []byte) error {
	if c.state != clientAuth {
		return errBusy
	}
	if response == nil {
		return c.send(clientAuth, "*")
	}
	return c.send(clientAuth, base64.StdEncoding.EncodeToString(response))
}

func (c *Client) authReply(reply ServerReply) (ClientEventKind, bool, error) {
	if reply.Code == 334 {
		return ClientChallenge, true, nil
	}
	c.state = clientIdle
	return ClientReady, true, nil
}

// xforwardLine is the longest command line of XFORWARD.
const xforwardLine = 512

// ErrNothingToForward tells that no attribute is left to send.
var ErrNothingToForward = errors.New("smtp: the server asks for no such attribute")

// XForward tells the server where the next message came from: those of the attributes that it announced and that fit into one command.
// The error is ErrNothingToForward when none does.
func (c *Client) XForward(attributes []Attribute) error {
	if c.state != clientIdle {
		return errBusy
	}
	wanted := c.extensions.Parameters("XFORWARD")
	line := []byte("XFORWARD")
	for _, a := range attributes {
		if !hasWord(wanted, a.Name) {
			continue
		}
		start := len(line)
		line = append(append(append(line, ' '), a.Name...), '=')
		switch {
		case a.Temporary:
			line = append(line, "[TEMPUNAVAIL]"...)
		case a.Unavailable || a.Value == "":
			line = append(line, "[UNAVAILABLE]"...)
		default:
			line = AppendXtext(line, a.Value)
		}
		if len(line)+2 > xforwardLine {
			line = line[:start]
		}
	}
	if len(line) == len("XFORWARD") {
		return ErrNothingToForward
	}
	return c.send(clientXForward, string(line))
}

func hasWord(list, word string) bool {
	for w := range words(list) {
		if equalFold(w, word) {
			return true
		}
	}
	return false
}
