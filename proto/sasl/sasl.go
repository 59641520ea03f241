// Package sasl speaks the SASL mechanisms, server side: PLAIN (RFC 4616), LOGIN, CRAM-MD5 (RFC 2195), DIGEST-MD5 (RFC 2831), SCRAM-SHA-1 and
// SCRAM-SHA-256 with channel binding (RFC 5802, 7677), EXTERNAL (RFC 4422), OAUTHBEARER (RFC 7628), XOAUTH2 and ANONYMOUS (RFC 4505).
//
// It is grammar and arithmetic only: whether a proof holds is asked of a Credentials, and base64 is the protocols' business. A mechanism is
// used by one goroutine.
package sasl

import (
	"crypto/tls"
	"errors"
	"strings"
)

// MaxResponse is the limit in octets of one decoded client response; protocols refuse longer ones before they are decoded.
const MaxResponse = 12 << 10

// ErrMalformed tells that a response is not of the mechanism's form. Errors of this package wrap it; what Credentials return is passed on as it is.
var ErrMalformed = errors.New("malformed SASL response")

// ErrUnchecked tells that a token could not be checked now: Credentials wrap it, and the exchange ends without the document that tells the client
// to bring another token.
var ErrUnchecked = errors.New("token not checked")

// Server is one exchange.
type Server interface {
	// Next takes a response, nil when the client sent no initial one, and returns the next challenge, or done. With done, challenge
	// is additional data that goes with success, nil for none. After an error the exchange is over.
	Next(response []byte) (challenge []byte, done bool, err error)
}

// Credentials says whether proofs hold. An empty authorization name means the same as the authentication name.
type Credentials interface {
	// Plain checks a password.
	Plain(authorization, authentication, password string) error
	// CRAMMD5 checks the keyed digest of the challenge (RFC 2195), 16 octets.
	CRAMMD5(authentication string, challenge, digest []byte) error
	// DigestHash returns H(user:realm:password) of RFC 2831 for the user, which never leaves the server.
	DigestHash(authentication, realm string) ([16]byte, error)
	// SCRAMKeys returns the stored keys for the hash "SHA-1" or "SHA-256".
	SCRAMKeys(authentication, hash string) (SCRAMKeys, error)
	// External accepts the identity that the transport proved (a client certificate).
	External(authorization string) error
	// Token checks an OAuth 2.0 bearer token.
	Token(authentication, token string) error
	// Anonymous accepts a client without a name.
	Anonymous(trace string) error
	// Proven tells that the exchange with the user came to its good end, for the mechanisms whose arithmetic is done here (DIGEST-MD5, SCRAM).
	Proven(authorization, authentication string) error
}

// Options are what the mechanisms need to know of their surroundings.
type Options struct {
	// Hostname appears in challenges.
	Hostname string
	// Service is the GSSAPI service name: imap, pop, smtp.
	Service string
	// Realms are offered by DIGEST-MD5.
	Realms []string
	// TLS gives the channel bindings of SCRAM's -PLUS forms; nil without TLS.
	TLS *tls.ConnectionState
	// OpenIDConfiguration is told to clients whose token was refused (RFC 7628 section 3.2.2); "" for none.
	OpenIDConfiguration string
	// Nonce returns fresh printable randomness; nil uses crypto/rand. Tests set it.
	Nonce func() string
}

// mechanisms names what New can make, in the order in which strength rises.
var mechanisms = [...]struct {
	name      string
	plaintext bool
}{
	{"ANONYMOUS", true},
	{"PLAIN", true},
	{"LOGIN", true},
	{"XOAUTH2", true},
	{"OAUTHBEARER", true},
	{"EXTERNAL", false},
	{"CRAM-MD5", false},
	{"DIGEST-MD5", false},
	{"SCRAM-SHA-1", false},
	{"SCRAM-SHA-1-PLUS", false},
	{"SCRAM-SHA-256", false},
	{"SCRAM-SHA-256-PLUS", false},
}

// Known tells whether New can make the mechanism (in any case of letters) and whether it reveals a password or token to whoever reads the
// connection.
func Known(mechanism string) (plaintext, known bool) {
	for _, m := range mechanisms {
		if strings.EqualFold(m.name, mechanism) {
			return m.plaintext, true
		}
	}
	return false, false
}

// New begins an exchange of the mechanism, whose name may have any case; nil when there is no such mechanism.
func New(mechanism string, credentials Credentials, options Options) Server {
	if options.Nonce == nil {
		options.Nonce = randomNonce
	}
	name := strings.ToUpper(mechanism)
	switch name {
	case "ANONYMOUS":
		return &anonymous{credentials: credentials}
	case "PLAIN":
		return &plain{credentials: credentials}
	case "LOGIN":
		return &login{credentials: credentials}
	case "XOAUTH2":
		return &bearer{credentials: credentials, options: options}
	case "OAUTHBEARER":
		return &bearer{credentials: credentials, options: options, gs2: true}
	case "EXTERNAL":
		return &external{credentials: credentials}
	case "CRAM-MD5":
		return &cramMD5{credentials: credentials, options: options}
	case "DIGEST-MD5":
		return &digestMD5{credentials: credentials, options: options}
	case "SCRAM-SHA-1", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS":
		return newSCRAM(name, credentials, options)
	}
	return nil
}
