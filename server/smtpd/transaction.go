package smtpd

import (
	"context"
	"slices"
	"strings"
	"time"

	"postilion/mail/envelope"
	"postilion/mail/message"
	"postilion/mta/policy"
	"postilion/proto/smtp"
	"postilion/store/spool"
)

// transaction is one message on its way in, from MAIL to the reply.
type transaction struct {
	session *session
	arrival time.Time
	// id is the queue id; a message gets it with its first recipient.
	id      string
	effects []policy.Effect
	discard bool
	// plan follows the recipients; nil while there is none, or when nobody wants to know.
	plan Transaction

	begun   bool
	content *spool.Content
	parser  *message.Parser
	cleaner cleaner
	// scan runs the content checks, nil when there are none.
	scan  *policy.Scan
	local bool
	err   error
}

// name gives the message its queue id and logs who sends it.
func (t *transaction) name() {
	x := t.session
	t.id = x.options.QueueIDs.Next(t.arrival)
	x.facts.QueueID = t.id
	var b strings.Builder
	b.WriteString("client=" + x.peer.client)
	if id := x.forwarded["IDENT"]; id != "" && id != unknown {
		b.WriteString(", orig_queue_id=" + id)
	}
	if name, address := x.forwarded["NAME"], x.forwarded["ADDR"]; name != "" || address != "" {
		b.WriteString(", orig_client=" + orElse(name, unknown) + "[" + orElse(address, unknown) + "]")
	}
	if x.peer.method != "" && x.peer.user != "" {
		b.WriteString(", sasl_method=" + x.peer.method + ", sasl_username=" + x.peer.user)
	}
	x.lines.infoAbout(t.id, b.String())
}

// begin opens spool and parser and writes the lines above the message.
func (t *transaction) begin(ctx context.Context) {
	x := t.session
	t.begun = true
	t.content = x.options.Spool.Create()
	t.parser = message.NewParser(message.Limits{})
	mail := x.engine.Envelope()
	var buffer [1024]byte
	head := buffer[:0]
	if x.options.Verbatim {
		if x.options.Trace != nil {
			t.put(x.options.Trace(t.mail()))
		}
		return
	}
	for _, e := range append(slices.Clip(x.connEffects), t.effects...) {
		if e.Kind == "PREPEND" {
			head = append(head, strings.ReplaceAll(e.Argument, "\n", "\r\n")...)
			head = append(head, '\r', '\n')
		}
	}
	if checks := x.options.ContentChecks; checks != nil && !checks.Empty() {
		t.scan = checks.Scan(ctx, t.keep, t.logContent)
	}
	t.put(x.received(head, mail, t.id))
	switch local := x.options.LocalHeaderRewriteClients; {
	case x.forwarded["SOURCE"] == "REMOTE":
	case local != nil:
		t.local = local(&x.facts)
	default:
		t.local = x.onThisHost()
	}
	t.cleaner = cleaner{options: x.options, transaction: t}
}

// onThisHost is permit_inet_interfaces: the connection comes from an address of ours. What XCLIENT says does not count.
func (x *session) onThisHost() bool {
	return x.peer.socket.IsLoopback() || x.peer.socket == x.peer.socketServer
}

// write takes octets of the message as the engine hands them out.
func (t *transaction) write(ctx context.Context, data []byte) {
	if !t.begun {
		t.begin(ctx)
	}
	if t.session.options.Verbatim {
		t.put(data)
		return
	}
	t.cleaner.write(data)
}

// put takes octets of the message to the content checks, or straight to what is kept.
func (t *transaction) put(data []byte) {
	if t.scan != nil {
		t.scan.Write(data)
		return
	}
	t.keep(data)
}

// pass takes header lines of our own, which are not checked.
func (t *transaction) pass(data []byte) {
	if t.scan != nil {
		t.scan.Pass(data)
		return
	}
	t.keep(data)
}

// logContent writes what cleanup would say of a match.
func (t *transaction) logContent(e policy.ContentEvent) {
	x := t.session
	var b strings.Builder
	b.WriteString(e.Verb + ": " + e.What + " from " + x.peer.client + "; from=<" + smtp.QuoteLocal(x.facts.Sender) + ">")
	if recipients := x.engine.Envelope().Recipients; len(recipients) > 0 {
		b.WriteString(" to=<" + smtp.QuoteLocal(recipients[0].Address) + ">")
	}
	b.WriteString(" proto=" + x.engine.Protocol())
	if helo := x.engine.Helo(); helo != "" {
		b.WriteString(" helo=<" + helo + ">")
	}
	if e.Text != "" {
		b.WriteString(": " + e.Text)
	}
	x.lines.cleanupAbout(t.id, b.String())
}

// keep adds octets to what is kept.
func (t *transaction) keep(data []byte) {
	if t.err != nil || len(data) == 0 {
		return
	}
	if _, err := t.content.Write(data); err != nil {
		t.err = err
		return
	}
	// A parser never fails.
	_, _ = t.parser.Write(data)
}

// release forgets the message.
func (t *transaction) release() {
	if t.content != nil {
		t.content.Release()
	}
	*t = transaction{}
}

// mail is the message as it is handed on.
func (t *transaction) mail() *Mail {
	x := t.session
	e := x.engine.Envelope()
	e.QueueID, e.Arrival = t.id, t.arrival
	e.Client = envelope.Client{
		Name: x.peer.name, Port: x.peer.port, Helo: x.engine.Helo(), Protocol: x.engine.Protocol(), User: x.peer.user, Method: x.peer.method,
	}
	if x.peer.address.IsValid() {
		e.Client.Address = x.peer.text
	}
	if x.tls != nil {
		d := describeTLS(x.tls)
		e.Client.TLS = &envelope.TLS{Version: d.version, Cipher: d.cipher, Bits: d.bits}
		if len(x.tls.VerifiedChains) > 0 {
			e.Client.TLS.PeerName = x.tls.PeerCertificates[0].Subject.CommonName
		}
	}
	return &Mail{Envelope: e, Content: t.content, Local: t.local, Forwarded: x.forwarded, Session: &x.facts, Transaction: t.plan}
}

// checkMessage closes the message and looks at what can be known only now.
func (x *session) checkMessage(ctx context.Context) {
	t := &x.message
	if !t.begun {
		t.begin(ctx)
	}
	if !x.options.Verbatim {
		t.cleaner.finish()
	}
	t.finishScan()
	refusal := t.refusal()
	if refusal == "" {
		x.facts.Size = t.content.Size()
		if x.decide(ctx, policy.EndOfData) {
			return
		}
	} else {
		x.engine.Refuse(refusal)
	}
	t.release()
}

// finishScan ends the content checks; what they ask for is done like what access tables ask for.
func (t *transaction) finishScan() {
	if t.scan == nil {
		return
	}
	t.scan.Finish()
	t.discard = t.discard || t.scan.Discard
	t.effects = append(t.effects, t.scan.Effects...)
	if t.err == nil {
		t.err = t.scan.Err
	}
}

// refusal is what is wrong with the message itself, "" when it is fine.
func (t *transaction) refusal() string {
	x := t.session
	switch {
	case t.err != nil:
		x.lines.warning(t.id + ": " + t.err.Error())
		return writeError
	case !x.options.Verbatim && t.cleaner.hops+1 >= x.options.HopCountLimit:
		x.lines.warning(t.id + ": message rejected: hopcount exceeded")
		return "554 5.4.0 Error: too many hops"
	case t.scan != nil && t.scan.Refusal != "":
		return t.scan.Refusal
	case t.cleaner.forbidden:
		return "550 5.7.1 disallowed character"
	case t.cleaner.header8Bit && x.options.Strict7BitHeaders && !x.engine.Envelope().UTF8:
		return "550 5.6.0 improper use of 8-bit data in message header"
	}
	return ""
}

// deliver hands the message over and answers with what came of it.
func (x *session) deliver(ctx context.Context) {
	t := &x.message
	defer t.release()
	mail := t.mail()
	mail.Message = t.parser.Finish()
	for _, e := range append(slices.Clip(x.connEffects), t.effects...) {
		if e.Kind != "PREPEND" {
			mail.Effects = append(mail.Effects, e)
		}
	}
	if reply := x.strictMIME(mail); reply != "" {
		x.engine.Refuse(reply)
		return
	}
	queued := "250 2.0.0 Ok: queued as " + t.id
	if x.engine.Chunked() {
		queued = "250 2.0.0 Ok: " + itoa(x.engine.Size()) + " bytes queued as " + t.id
	}
	if t.discard || x.discardAll {
		x.engine.Reply(queued)
		return
	}
	if x.options.AcceptEach != nil && x.options.LMTP {
		x.engine.ReplyEach(x.resultsFor(mail, x.options.AcceptEach.AcceptEach(ctx, mail), queued))
		return
	}
	reply, err := x.options.Accept.Accept(ctx, mail)
	x.engine.Reply(x.replyFor(reply, err, queued))
}

func (x *session) resultsFor(mail *Mail, results []Result, queued string) []string {
	replies := make([]string, len(mail.Envelope.Recipients))
	for i := range replies {
		if i >= len(results) {
			replies[i] = writeError
			continue
		}
		replies[i] = x.replyFor(results[i].Reply, results[i].Err, queued)
	}
	return replies
}

// replyFor is what the client hears of one result.
func (x *session) replyFor(reply string, err error, queued string) string {
	if err == nil {
		if reply == "" {
			return queued
		}
		return reply
	}
	text, problem := replyOf(err)
	if problem {
		x.lines.warning(x.message.id + ": message not accepted: " + err.Error())
	} else {
		x.log("reject", text)
	}
	return text
}

// strictMIME refuses what the strict_* parameters forbid inside the message.
func (x *session) strictMIME(mail *Mail) string {
	o := x.options
	if !o.StrictMIMEEncodingDomain && !o.Strict8BitMIMEBody {
		return ""
	}
	return x.strictPart(&mail.Message.Root, mail.Content)
}

func (x *session) strictPart(p *message.Part, content *spool.Content) string {
	encoding := strings.ToLower(p.Encoding)
	composite := p.Type == "multipart" || p.Type == "message"
	if x.options.StrictMIMEEncodingDomain && composite && encoding != "" && encoding != "7bit" && encoding != "8bit" && encoding != "binary" {
		return "550 5.6.0 invalid message/* or multipart/* encoding domain"
	}
	if x.options.Strict8BitMIMEBody && len(p.Children) == 0 && encoding != "8bit" && encoding != "binary" && has8Bit(content, p.BodyStart, p.BodyEnd) {
		return "550 5.6.0 improper use of 8-bit data in message body"
	}
	for i := range p.Children {
		if reply := x.strictPart(&p.Children[i], content); reply != "" {
			return reply
		}
	}
	return ""
}

func has8Bit(content *spool.Content, from, to int64) bool {
	var buffer [4096]byte
	for from < to {
		n, err := content.ReadAt(buffer[:min(int64(len(buffer)), to-from)], from)
		for _, c := range buffer[:n] {
			if c >= 128 {
				return true
			}
		}
		if err != nil || n == 0 {
			return false
		}
		from += int64(n)
	}
	return false
}
