package smtpd

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"postilion/mail/envelope"
	"postilion/mta/policy"
	"postilion/proto/smtp"
)

// check asks the policy what is due at an event and tells the engine.
func (x *session) check(ctx context.Context, event smtp.Event) {
	f := &x.facts
	f.Helo, f.Protocol, f.Pipelined = x.engine.Helo(), x.engine.Protocol(), x.engine.ImproperPipelining()
	mail := x.engine.Envelope()
	if !x.engine.InTransaction() {
		f.Sender, f.HasSender, f.Recipient, f.RecipientCount, f.QueueID = "", false, "", 0, ""
	}
	switch event.Kind {
	case smtp.CheckConnect:
		x.decide(ctx, policy.Connect)
	case smtp.CheckHelo:
		f.Helo = event.Text
		x.decide(ctx, policy.Helo)
	case smtp.CheckMail:
		x.checkMail(ctx, mail)
	case smtp.CheckRcpt:
		x.checkRcpt(ctx, event.Text, len(mail.Recipients))
	case smtp.CheckData:
		f.RecipientCount = len(mail.Recipients)
		x.decide(ctx, policy.Data)
	case smtp.CheckEndOfData:
		x.checkMessage(ctx)
	case smtp.CheckEtrn:
		f.ETRN = event.Text
		x.decide(ctx, policy.Etrn)
		f.ETRN = ""
	case smtp.CheckVerify:
		f.Recipient = event.Text
		x.apply(x.options.Checker.Verify(ctx, f, event.Text), policy.Rcpt)
		f.Recipient = ""
	}
}

func (x *session) checkMail(ctx context.Context, mail *envelope.Envelope) {
	if x.overLimit(MessageRate, "Message delivery request rate") {
		x.engine.Refuse("450 4.7.1 Error: too much mail from " + x.peer.text)
		return
	}
	if x.options.QueueSpace != nil && !x.options.QueueSpace(x.engine.Size()) {
		x.lines.warning("not enough free space in mail queue for the message from " + x.peer.client)
		x.engine.Refuse("452 4.3.1 Insufficient system storage")
		return
	}
	f := &x.facts
	f.Sender, f.HasSender, f.UTF8, f.Size = mail.Sender, true, mail.UTF8, x.engine.Size()
	f.Recipient, f.RecipientCount, f.QueueID = "", 0, ""
	x.sequence++
	arrival := x.options.Now()
	f.Instance = x.instance(arrival)
	x.message = transaction{session: x, arrival: arrival}
	x.decide(ctx, policy.Mail)
}

// instance names a transaction for policy services: session, time and number, in hexadecimal.
func (x *session) instance(arrival time.Time) string {
	var buffer [64]byte
	out := strconv.AppendInt(buffer[:0], x.number, 16)
	for _, n := range []int64{arrival.Unix(), int64(arrival.Nanosecond() / 1000), int64(x.sequence)} {
		out = strconv.AppendInt(append(out, '.'), n, 16)
	}
	return string(out)
}

func (x *session) checkRcpt(ctx context.Context, recipient string, count int) {
	if x.overLimit(RecipientRate, "Recipient address rate") {
		x.engine.Refuse("450 4.7.1 Error: too many recipients from " + x.peer.text)
		return
	}
	x.facts.Recipient, x.facts.RecipientCount = recipient, count
	if x.judge(x.options.Checker.Check(ctx, policy.Rcpt, &x.facts), policy.Rcpt) {
		x.addRecipient(ctx, recipient)
	}
	if len(x.engine.Envelope().Recipients) > 0 {
		x.facts.Recipient = x.engine.Envelope().Recipients[0].Address
	} else {
		x.facts.Recipient = ""
	}
}

// addRecipient takes a recipient that policy permits, unless it cannot be taken in this transaction.
func (x *session) addRecipient(ctx context.Context, recipient string) {
	t := &x.message
	if x.options.Begin != nil {
		if t.plan == nil {
			t.plan = x.options.Begin()
		}
		if refusal := t.plan.Add(ctx, recipient); refusal != "" {
			x.log("reject", refusal)
			x.engine.Refuse(refusal)
			return
		}
	}
	x.engine.Permit()
	if t.id == "" {
		t.name()
	}
}

// decide asks for one stage; true means that the command goes on.
func (x *session) decide(ctx context.Context, stage policy.Stage) bool {
	return x.apply(x.options.Checker.Check(ctx, stage, &x.facts), stage)
}

// apply logs a decision and tells the engine.
func (x *session) apply(d policy.Decision, stage policy.Stage) bool {
	if !x.judge(d, stage) {
		return false
	}
	x.engine.Permit()
	return true
}

// judge logs a decision and tells the engine when it is a refusal; true means that the command may go on.
func (x *session) judge(d policy.Decision, stage policy.Stage) bool {
	if d.Problem != nil {
		x.lines.warning(d.Problem.Error())
	}
	for _, warning := range d.Warnings {
		x.log("reject_warning", warning)
	}
	x.takeEffects(d.Effects, stage)
	switch d.Action {
	case policy.Refuse, policy.Drop:
		if stage == policy.Etrn {
			x.lines.warning("reject: ETRN " + x.facts.ETRN + "... from " + x.peer.client)
		}
		x.log("reject", d.Reply)
		x.engine.Refuse(d.Reply)
		return false
	case policy.DiscardMessage:
		if stage == policy.Connect || stage == policy.Helo {
			x.discardAll = true
		} else {
			x.message.discard = true
		}
		x.log("discard", orElse(d.Reply, "triggers DISCARD action"))
	}
	return true
}

// takeEffects keeps what an access table asked for, for the transaction or, before MAIL, for all of the session.
func (x *session) takeEffects(effects []policy.Effect, stage policy.Stage) {
	for _, e := range effects {
		list := &x.message.effects
		if stage == policy.Connect || stage == policy.Helo {
			list = &x.connEffects
		}
		if e.Kind != "PREPEND" && slices.Contains(*list, e) {
			continue
		}
		*list = append(*list, e)
		if e.Text != "" {
			x.log(strings.ToLower(e.Kind), e.Text)
		}
	}
}

func orElse(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}

// log writes a line about a command in the form that log readers know.
func (x *session) log(verb, text string) {
	id := x.message.id
	if id == "" {
		id = "NOQUEUE"
	}
	f := &x.facts
	var b strings.Builder
	b.WriteString(id + ": " + verb + ": " + x.engine.Where() + " from " + x.peer.client + ": " + text + ";")
	if f.HasSender && (x.engine.InTransaction() || x.engine.Where() == "MAIL") {
		b.WriteString(" from=<" + smtp.QuoteLocal(f.Sender) + ">")
	}
	if f.Recipient != "" {
		b.WriteString(" to=<" + smtp.QuoteLocal(f.Recipient) + ">")
	}
	b.WriteString(" proto=" + x.engine.Protocol())
	if f.Helo != "" {
		b.WriteString(" helo=<" + f.Helo + ">")
	}
	x.lines.info(b.String())
}

func (x *session) flushQueue(ctx context.Context, domain string) {
	if x.options.Etrn == nil {
		x.lines.warning("reject: ETRN " + domain + "... from " + x.peer.client)
		x.engine.Reply("459 <" + domain + ">: service unavailable")
		return
	}
	x.engine.Reply(x.options.Etrn(ctx, domain))
}

// checkTLS answers STARTTLS before the handshake.
func (x *session) checkTLS() {
	if _, err := x.options.TLS(); err != nil {
		x.lines.warning("TLS is not available: " + err.Error())
		x.engine.Refuse("454 4.7.0 TLS not available due to local problem")
		return
	}
	if x.overLimit(NewTLSRate, "New TLS session rate") {
		x.engine.Refuse("421 4.7.0 " + x.options.Hostname + " Error: too many new TLS sessions from " + x.peer.text)
		return
	}
	x.engine.Permit()
}

// handshake goes on after the client was told to start. What it sent in clear beyond STARTTLS is thrown away.
func (x *session) handshake(ctx context.Context) error {
	if err := x.flush(); err != nil {
		return err
	}
	x.input = nil
	if !x.startTLS(ctx) {
		x.lines.info("lost connection after STARTTLS from " + x.peer.client)
		return errEnded
	}
	x.peer.user, x.peer.method = "", ""
	x.updatePeer()
	x.engine.SetPeer(x.enginePeer())
	x.engine.TLSStarted()
	return nil
}

// startTLS encrypts the connection; false means that it failed, which is logged.
func (x *session) startTLS(ctx context.Context) bool {
	config, err := x.options.TLS()
	if err != nil {
		x.lines.warning("TLS is not available: " + err.Error())
		return false
	}
	secure := tls.Server(x.conn, config)
	if x.options.TLSLogLevel > 1 {
		x.lines.info("setting up TLS connection from " + x.peer.client)
	}
	x.askedAt = time.Now()
	x.owes.Store(x.askedAt.UnixNano())
	if err = x.deadlineForHandshake(); err == nil {
		err = secure.HandshakeContext(ctx)
	}
	x.waited()
	if err == nil && !x.dismissed.Load() {
		err = secure.SetDeadline(time.Time{})
	}
	if err != nil {
		x.lines.info("SSL_accept error from " + x.peer.client + ": " + err.Error())
		return false
	}
	x.deadline.Lock()
	x.conn = secure
	x.deadline.Unlock()
	state := secure.ConnectionState()
	verifyClient(&state, config.ClientCAs)
	x.tls = &state
	x.facts.Encryption = encryptionOf(&state)
	if x.options.TLSLogLevel > 0 {
		x.lines.info(x.tlsLine())
	}
	return true
}

// deadlineForHandshake bounds a handshake, which ends at once when the server stops.
func (x *session) deadlineForHandshake() error {
	x.deadline.Lock()
	defer x.deadline.Unlock()
	x.waiting = true
	if x.leaving() {
		return errEnded
	}
	return x.conn.SetDeadline(time.Now().Add(min(x.options.StartTLSTimeout, x.timeout())))
}

// verifyClient looks whether one of the authorities signed the client's certificate. The handshake itself takes any: as in Postfix, a client
// whose certificate is not trusted is served like one without.
func verifyClient(state *tls.ConnectionState, authorities *x509.CertPool) {
	if authorities == nil || len(state.PeerCertificates) == 0 || len(state.VerifiedChains) > 0 {
		return
	}
	options := x509.VerifyOptions{Roots: authorities, Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	for _, certificate := range state.PeerCertificates[1:] {
		options.Intermediates.AddCert(certificate)
	}
	if chains, err := state.PeerCertificates[0].Verify(options); err == nil {
		state.VerifiedChains = chains
	}
}

func encryptionOf(state *tls.ConnectionState) policy.Encryption {
	d := describeTLS(state)
	e := policy.Encryption{Protocol: d.version, Cipher: d.cipher, KeySize: d.bits}
	if len(state.PeerCertificates) > 0 {
		certificate := state.PeerCertificates[0]
		e.Subject, e.Issuer = certificate.Subject.CommonName, certificate.Issuer.CommonName
		e.Fingerprint, e.PublicKeyFingerprint = fingerprint(certificate.Raw), fingerprint(certificate.RawSubjectPublicKeyInfo)
		e.Trusted = len(state.VerifiedChains) > 0
	}
	return e
}

// fingerprint is SHA-256 in the form of smtpd_tls_fingerprint_digest.
func fingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	digits := strings.ToUpper(hex.EncodeToString(sum[:]))
	var b strings.Builder
	for i := 0; i < len(digits); i += 2 {
		if i > 0 {
			b.WriteByte(':')
		}
		b.WriteString(digits[i : i+2])
	}
	return b.String()
}

// unavailable tells whether an error means that nothing can be said now.
func unavailable(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}
