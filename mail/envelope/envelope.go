// Package envelope holds what travels with a message beside its bytes: who sent it, who shall have it, and what the sender asked of
// delivery (RFC 5321, RFC 3461 DSN, RFC 6152 8BITMIME, RFC 3030 BINARYMIME, RFC 6531 SMTPUTF8). It is the value that SMTP, LMTP and submission
// fill in and that routing, queue and delivery pass on; it parses nothing and decides nothing.
package envelope

import "time"

// Envelope belongs to one message.
type Envelope struct {
	// QueueID names the message in every log line and in Received.
	QueueID string
	// Sender is the reverse path without brackets and source route; "" is the null sender.
	Sender     string
	Recipients []Recipient
	Body       BodyType
	// UTF8 is true when SMTPUTF8 was asked for.
	UTF8 bool
	// Return is the RET parameter: "", "FULL" or "HDRS".
	Return string
	// ID is the ENVID parameter, decoded from xtext.
	ID      string
	Arrival time.Time
	// Client tells where the message came from, for logs, Received and XFORWARD.
	Client Client
}

// BodyType is the BODY parameter of MAIL.
type BodyType uint8

// The body types; SevenBit is also what no parameter means.
const (
	SevenBit BodyType = iota
	EightBitMIME
	BinaryMIME
)

// Recipient is one forward path.
type Recipient struct {
	// Address is the path without brackets and source route, as given.
	Address string
	// Original is the ORCPT parameter as given (type;address, decoded from xtext), or "".
	Original string
	// Notify is the NOTIFY parameter; 0 when there was none.
	Notify Notify
}

// Notify is a set of DSN conditions.
type Notify uint8

// The conditions of RFC 3461 section 4.1. NotifyNever excludes the others.
const (
	NotifyNever Notify = 1 << iota
	NotifySuccess
	NotifyFailure
	NotifyDelay
)

// Client is the host that handed the message over.
type Client struct {
	// Name is the verified host name or "unknown".
	Name string
	// Address is the IP address in text form without brackets; Port its TCP port.
	Address, Port string
	Helo          string
	// Protocol is SMTP, ESMTP or LMTP; received headers add S and A themselves.
	Protocol string
	// User is the authenticated name, "" when there is none; Method the SASL mechanism.
	User, Method string
	// TLS describes the session's encryption, nil when there is none.
	TLS *TLS
}

// TLS is what Received and logs say of an encrypted session.
type TLS struct {
	Version, Cipher string
	// Bits is the strength of the cipher's key.
	Bits int
	// PeerName is the verified client certificate's name, "" without one.
	PeerName string
}
