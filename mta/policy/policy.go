// Package policy decides whether an SMTP server accepts: the smtpd_*_restrictions lists with access tables, DNS checks and relay
// control, and the limits per client. Every decision comes with the steps that led to it, so that `postilion explain` shows what the server does
// by running the same code.
//
// It speaks no SMTP and moves no mail. It follows postconf(5), access(5) and SMTPD_ACCESS_README of Postfix 3.7.
package policy

import (
	"context"
	"net/netip"
)

// Checker decides for one smtpd service of master.cf. Methods may be called at the same time with different sessions.
type Checker interface {
	// Check evaluates what is due at the stage, given the facts known so far. With smtpd_delay_reject the lists of Connect, Helo and Mail
	// are evaluated at Rcpt (or Etrn), in that order.
	Check(ctx context.Context, stage Stage, session *Session) Decision
	// Verify answers VRFY for the address.
	Verify(ctx context.Context, session *Session, address string) Decision
}

// Stage is the command at which a decision is asked for.
type Stage uint8

// The stages in the order of a session.
const (
	Connect Stage = iota
	Helo
	Mail
	Rcpt
	Data
	EndOfData
	Etrn
)

// Session is what the server knows of the client and the transaction. It is filled in as the session goes on.
type Session struct {
	ClientAddress netip.Addr
	ClientPort    string
	// ClientName is the verified host name, "unknown" when the address has no name or the name does not lead back to the address.
	ClientName string
	// ReverseName is the unverified name of the address, or "unknown".
	ReverseName string
	// NameStatus and ReverseNameStatus say whether the two names are missing for good or only for now.
	NameStatus, ReverseNameStatus NameStatus
	// ServerAddress and ServerPort are the end of the connection on our side.
	ServerAddress netip.Addr
	ServerPort    string

	Helo string
	// Protocol is SMTP or ESMTP.
	Protocol string

	Encryption Encryption
	// SASLMethod, SASLUsername and SASLSender are empty without login.
	SASLMethod, SASLUsername, SASLSender string

	// Sender is the reverse path as given without brackets, "" for the null sender; HasSender is false before MAIL.
	Sender    string
	HasSender bool
	// Recipient is the forward path as given without brackets, "" before RCPT.
	Recipient      string
	RecipientCount int
	// Size is that of MAIL's SIZE, and at EndOfData the message's.
	Size    int64
	QueueID string
	// Instance names the transaction for policy services.
	Instance string
	UTF8     bool
	// ETRN is the domain of ETRN.
	ETRN string
	// Pipelined tells that input waits behind a command after which the client had to wait for the reply.
	Pipelined bool

	memory memory
}

// memory is what earlier stages of a session leave for later ones.
type memory struct {
	// client, helo and sender are the deferrals that a permit of their stage turns into.
	client, helo, sender deferral
	// discard: nothing more is checked, because the message goes nowhere.
	discard bool
}

// deferral is a refusal for later that waits for the outcome of the restrictions behind it.
type deferral struct {
	active       bool
	code         int
	status, text string
}

// NameStatus says what became of a host name look-up.
type NameStatus uint8

// The results of a host name look-up.
const (
	NameFound NameStatus = iota
	NameMissing
	// NameForged: the name does not lead back to the address.
	NameForged
	// NameUnknownNow: DNS gave no answer; asking later may help.
	NameUnknownNow
)

// Encryption describes the session's TLS; the zero value is none.
type Encryption struct {
	Protocol, Cipher string
	KeySize          int
	// Subject, Issuer, Fingerprint and PublicKeyFingerprint belong to the client's certificate; Trusted tells that it was verified.
	Subject, Issuer, Fingerprint, PublicKeyFingerprint string
	Trusted                                            bool
}

// Action is what a decision means.
type Action uint8

// The actions.
const (
	// Permit lets the command go on.
	Permit Action = iota
	// Refuse answers with Reply and keeps the session.
	Refuse
	// Drop answers with Reply and ends the session (codes 421 and 521).
	Drop
	// DiscardMessage accepts everything and delivers nothing; Reply is a text for the log.
	DiscardMessage
)

// Decision is the result of a check.
type Decision struct {
	Action Action
	// Reply is the complete reply text without footer, such as "554 5.7.1 <a@b>: Relay access denied". Empty with Permit.
	Reply string
	// Effects take place when the message is accepted; they are kept also when Action is Permit.
	Effects []Effect
	// Warnings are what warn_if_reject and WARN ask to be logged: texts in the form of a reject line without its verb.
	Warnings []string
	// Problem is set when a table or a parameter could not be used: it goes to the log as a warning; Reply is then a 451.
	Problem error
	Trace   []Step
}

// Effect is an access action that does not refuse.
type Effect struct {
	// Kind is HOLD, FILTER, REDIRECT, BCC, PREPEND, WARN or INFO.
	Kind string
	// Argument is the action's text.
	Argument string
	// Text is what the log says of it, "" for PREPEND, which is not logged.
	Text string
}

// Step is one line of a trace.
type Step struct {
	// Restriction is the member as written, with its argument.
	Restriction string
	// Where is file:line of the list that holds it, "" for a built-in default.
	Where string
	// Result is what it gave: DUNNO, OK, or the reply.
	Result string
	// Detail names the table entry, with its file:line, or the DNS answer that decided.
	Detail string
}
