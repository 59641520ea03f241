package smtp

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"postilion/mail/envelope"
)

// ClientEventKind says what the client engine wants.
type ClientEventKind uint8

// The events of a Client.
const (
	// ClientMore: write Output, then read and call Next with what came.
	ClientMore ClientEventKind = iota
	// ClientReady: the step that was asked for is done; see Reply, Extensions or Results.
	ClientReady
	// ClientHandshake: shake hands for TLS now, then call Hello again.
	ClientHandshake
	// ClientData: the server waits for the message: pass it through AppendData and FinishData, then go on.
	ClientData
	// ClientChallenge: the server wants a SASL response; Challenge has what it sent. Answer with Respond.
	ClientChallenge
)

// Result is what became of one recipient.
type Result struct {
	// Command is what the reply answers: MAIL FROM, RCPT TO, DATA or end of DATA.
	Command string
	Reply   ServerReply
}

// Delivered tells whether the server took the message for the recipient.
func (r Result) Delivered() bool { return r.Reply.Class() == 2 && r.Command == "end of DATA" }

// errBusy tells of steps out of order, which is a fault of the caller.
var errBusy = errors.New("smtp: a step is under way")

type clientState uint8

const (
	clientGreeting clientState = iota
	clientIdle
	clientHello
	clientTLS
	clientAuth
	clientXForward
	clientEnvelope
	clientBody
	clientFinal
	clientReset
	clientQuit
)

// Client is the client half of one connection, for one goroutine: greeting, Hello, StartTLS, Auth, any number of transactions, Quit.
// Each step queues output; Next takes input until ClientReady. An error of Next means that the connection is of no more use.
type Client struct {
	// LMTP speaks LHLO and expects a reply per recipient after the message.
	LMTP bool
	// NoPipelining sends each command of a transaction only after the reply before it.
	NoPipelining bool
	// Discard names keywords, in capitals, that are taken for not announced.
	Discard []string

	state      clientState
	out        []byte
	reader     replyReader
	reply      ServerReply
	extensions Extensions

	mail    *envelope.Envelope
	size    int64
	results []Result
	// asked counts the commands of the envelope that were sent, answered those with a reply: 0 is MAIL, then the recipients, then DATA.
	asked, answered int
	accepted        []int
	final           int
	bol             bool
	lastCR          bool
}

// Output returns what waits to be written; Written forgets it.
func (c *Client) Output() []byte { return c.out }

// Written forgets the output.
func (c *Client) Written() {
	if cap(c.out) > 128<<10 {
		c.out = nil
	}
	c.out = c.out[:0]
}

// Reply returns the last reply.
func (c *Client) Reply() ServerReply { return c.reply }

// Extensions returns what the server announced.
func (c *Client) Extensions() *Extensions { return &c.extensions }

// Results returns the outcome per recipient, in the order of the envelope, after a transaction.
func (c *Client) Results() []Result { return c.results }

// Hello sends EHLO, or LHLO.
func (c *Client) Hello(name string) error {
	if c.state != clientIdle {
		return errBusy
	}
	verb := "EHLO "
	if c.LMTP {
		verb = "LHLO "
	}
	return c.send(clientHello, verb+name)
}

// Helo sends HELO, to a server that does not know EHLO.
func (c *Client) Helo(name string) error {
	if c.state != clientIdle {
		return errBusy
	}
	return c.send(clientHello, "HELO "+name)
}

// StartTLS asks for TLS. After ClientHandshake all that the server announced before is forgotten.
func (c *Client) StartTLS() error {
	if c.state != clientIdle {
		return errBusy
	}
	return c.send(clientTLS, "STARTTLS")
}

// Quit says goodbye.
func (c *Client) Quit() error {
	if c.state != clientIdle {
		return errBusy
	}
	return c.send(clientQuit, "QUIT")
}

// send queues one command. A line end in it would smuggle another command.
func (c *Client) send(next clientState, line string) error {
	if strings.ContainsAny(line, "\r\n\x00") {
		return fmt.Errorf("smtp: line end in command %.20q", line)
	}
	c.out = append(append(c.out, line...), '\r', '\n')
	c.state = next
	return nil
}

// Mail begins a transaction for a message of size octets, 0 when it is not known. The server's extensions decide which parameters are sent.
func (c *Client) Mail(mail *envelope.Envelope, size int64) error {
	if c.state != clientIdle {
		return errBusy
	}
	for _, address := range append([]string{mail.Sender}, addresses(mail)...) {
		if strings.ContainsAny(address, "\r\n\x00<>") {
			return fmt.Errorf("smtp: address %.60q cannot be sent", address)
		}
	}
	c.mail, c.size = mail, size
	c.results = make([]Result, len(mail.Recipients))
	c.asked, c.answered, c.accepted = 0, 0, c.accepted[:0]
	c.state = clientEnvelope
	c.ask()
	return nil
}

func addresses(mail *envelope.Envelope) []string {
	list := make([]string, len(mail.Recipients))
	for i, r := range mail.Recipients {
		list[i] = r.Address
	}
	return list
}

// ask queues as many commands of the envelope as may be sent now. DATA goes out with the rest only when the server pipelines.
func (c *Client) ask() {
	ahead := c.extensions.Has("PIPELINING") && !c.NoPipelining
	for c.asked <= len(c.mail.Recipients)+1 && (ahead || c.asked == c.answered) {
		switch {
		case c.asked == 0:
			c.askMail()
		case c.asked <= len(c.mail.Recipients):
			c.askRcpt(c.mail.Recipients[c.asked-1])
		default:
			c.out = append(c.out, "DATA\r\n"...)
		}
		c.asked++
	}
}

func (c *Client) askMail() {
	m, e := c.mail, &c.extensions
	c.out = append(c.out, "MAIL FROM:<"...)
	c.out = append(c.out, QuoteLocal(m.Sender)...)
	c.out = append(c.out, '>')
	if c.size > 0 && e.Has("SIZE") {
		c.out = append(c.out, " SIZE="...)
		c.out = strconv.AppendInt(c.out, c.size, 10)
	}
	if m.Body == envelope.EightBitMIME && e.Has("8BITMIME") {
		c.out = append(c.out, " BODY=8BITMIME"...)
	}
	if m.UTF8 && e.Has("SMTPUTF8") {
		c.out = append(c.out, " SMTPUTF8"...)
	}
	if e.Has("DSN") {
		if m.Return != "" {
			c.out = append(append(c.out, " RET="...), m.Return...)
		}
		if m.ID != "" {
			c.out = AppendXtext(append(c.out, " ENVID="...), m.ID)
		}
	}
	c.out = append(c.out, '\r', '\n')
}

func (c *Client) askRcpt(r envelope.Recipient) {
	c.out = append(c.out, "RCPT TO:<"...)
	c.out = append(c.out, QuoteLocal(r.Address)...)
	c.out = append(c.out, '>')
	if c.extensions.Has("DSN") {
		if r.Notify != 0 {
			c.out = append(append(c.out, " NOTIFY="...), notifyText(r.Notify)...)
		}
		if kind, address, ok := strings.Cut(r.Original, ";"); ok && !strings.ContainsAny(kind, " \t\r\n") {
			c.out = append(append(append(c.out, " ORCPT="...), kind...), ';')
			c.out = AppendXtext(c.out, address)
		}
	}
	c.out = append(c.out, '\r', '\n')
}

func notifyText(set envelope.Notify) string {
	var names []string
	for i, name := range []string{"NEVER", "SUCCESS", "FAILURE", "DELAY"} {
		if set&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, ",")
}

// Next takes input and returns how much of it was used. The unused rest must be given again.
func (c *Client) Next(in []byte) (used int, kind ClientEventKind, err error) {
	for used < len(in) {
		n, reply, complete, err := c.reader.take(in[used:])
		used += n
		if err != nil {
			return used, ClientMore, err
		}
		if !complete {
			continue
		}
		c.reply = reply
		if kind, done, err := c.take(reply); done || err != nil {
			return used, kind, err
		}
	}
	return used, ClientMore, nil
}

// take deals with one reply; done ends Next.
func (c *Client) take(reply ServerReply) (kind ClientEventKind, done bool, err error) {
	switch c.state {
	case clientAuth:
		return c.authReply(reply)
	case clientGreeting, clientXForward, clientReset, clientQuit:
		c.state = clientIdle
		return ClientReady, true, nil
	case clientHello:
		c.state = clientIdle
		if reply.Class() == 2 {
			c.extensions = parseExtensions(reply)
			for _, keyword := range c.Discard {
				delete(c.extensions.words, keyword)
			}
		}
		return ClientReady, true, nil
	case clientTLS:
		c.state = clientIdle
		if reply.Code != 220 {
			return ClientReady, true, nil
		}
		c.extensions = Extensions{}
		return ClientHandshake, true, nil
	case clientEnvelope:
		return c.envelopeReply(reply)
	case clientFinal:
		return c.finalReply(reply)
	}
	return ClientMore, false, fmt.Errorf("smtp: reply to nothing: %s", reply)
}

func (c *Client) envelopeReply(reply ServerReply) (ClientEventKind, bool, error) {
	i := c.answered
	c.answered++
	switch {
	case i == 0:
		if reply.Class() != 2 {
			c.fail("MAIL FROM", reply)
		}
	case i <= len(c.mail.Recipients):
		if c.results[i-1].Command == "" {
			if c.results[i-1] = (Result{"RCPT TO", reply}); reply.Class() == 2 {
				c.accepted = append(c.accepted, i-1)
			}
		}
	default:
		return c.dataReply(reply)
	}
	if c.asked == c.answered && (len(c.accepted) == 0 && c.answered > len(c.mail.Recipients) || i == 0 && reply.Class() != 2) {
		return c.finish(), true, nil
	}
	c.ask()
	return ClientMore, false, nil
}

// fail gives all recipients without a result the same one.
func (c *Client) fail(command string, reply ServerReply) {
	for i := range c.results {
		if c.results[i].Command == "" || c.results[i].Command == "RCPT TO" && c.results[i].Reply.Class() == 2 {
			c.results[i] = Result{command, reply}
		}
	}
}

func (c *Client) dataReply(reply ServerReply) (ClientEventKind, bool, error) {
	if reply.Class() == 3 {
		c.bol, c.lastCR = true, false
		c.state = clientBody
		if len(c.accepted) == 0 {
			// The server wants a message for nobody (RFC 2920 section 3.1): it gets an empty one.
			c.out = append(c.out, ".\r\n"...)
			c.state, c.final = clientFinal, 1
			return ClientMore, false, nil
		}
		return ClientData, true, nil
	}
	if len(c.accepted) > 0 {
		c.fail("DATA", reply)
	}
	return c.finish(), true, nil
}

// finish ends a transaction.
func (c *Client) finish() ClientEventKind {
	c.state = clientIdle
	c.mail = nil
	return ClientReady
}

// Reset sends RSET, which ends a transaction that the server may still have open. Call it after a transaction without a delivery, before the next.
func (c *Client) Reset() error {
	if c.state != clientIdle {
		return errBusy
	}
	return c.send(clientReset, "RSET")
}

func (c *Client) finalReply(reply ServerReply) (ClientEventKind, bool, error) {
	if len(c.accepted) == 0 {
		return c.finish(), true, nil
	}
	result := Result{"end of DATA", reply}
	if c.LMTP {
		c.results[c.accepted[len(c.accepted)-c.final]] = result
	} else {
		for _, i := range c.accepted {
			c.results[i] = result
		}
	}
	if c.final--; c.final > 0 {
		return ClientMore, false, nil
	}
	return c.finish(), true, nil
}

// AppendData appends octets of the message to out in the form in which they are sent: dots at the start of lines doubled, bare CR and LF made
// line ends. It may be called with pieces of any size.
func (c *Client) AppendData(out, data []byte) []byte {
	for len(data) > 0 {
		if c.lastCR {
			c.lastCR = false
			out = append(out, '\r', '\n')
			c.bol = true
			if data[0] == '\n' {
				data = data[1:]
				continue
			}
		}
		if c.bol && data[0] == '.' {
			out = append(out, '.')
		}
		end := bytes.IndexByte(data, '\n')
		line := data
		if end >= 0 {
			line = data[:end]
		}
		switch cr := bytes.IndexByte(line, '\r'); {
		case cr >= 0:
			out = append(out, line[:cr]...)
			data, c.bol, c.lastCR = data[cr+1:], false, true
		case end < 0:
			c.bol = false
			return append(out, line...)
		default:
			out = append(append(out, line...), '\r', '\n')
			data, c.bol = data[end+1:], true
		}
	}
	return out
}

// FinishData appends the end of the message and expects the server's verdict.
func (c *Client) FinishData(out []byte) []byte {
	if c.lastCR || !c.bol {
		out = append(out, '\r', '\n')
	}
	c.state, c.final = clientFinal, 1
	if c.LMTP {
		c.final = len(c.accepted)
	}
	return append(out, ".\r\n"...)
}
