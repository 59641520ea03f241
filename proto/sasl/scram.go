package sasl

import (
	"bytes"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"strconv"
	"strings"
)

// ErrMismatch tells that the arithmetic of DIGEST-MD5 or SCRAM came out different: the client does not know the password.
var ErrMismatch = errors.New("SASL proof does not match")

// SCRAMKeys is what a server keeps of a password for SCRAM (RFC 5802 section 3).
type SCRAMKeys struct {
	Salt                 []byte
	Iterations           int
	StoredKey, ServerKey []byte
}

// SCRAMHash returns the hash of "SHA-1" or "SHA-256", nil for any other name.
func SCRAMHash(name string) func() hash.Hash {
	switch name {
	case "SHA-1":
		return sha1.New
	case "SHA-256":
		return sha256.New
	}
	return nil
}

// MakeSCRAMKeys derives the keys of a password.
func MakeSCRAMKeys(hashName, password string, salt []byte, iterations int) (SCRAMKeys, error) {
	newHash := SCRAMHash(hashName)
	if newHash == nil {
		return SCRAMKeys{}, fmt.Errorf("SCRAM has no hash %q", hashName)
	}
	salted, err := pbkdf2.Key(newHash, password, salt, iterations, newHash().Size())
	if err != nil {
		return SCRAMKeys{}, fmt.Errorf("SCRAM keys: %w", err)
	}
	stored := newHash()
	stored.Write(hmacSum(newHash, salted, "Client Key"))
	return SCRAMKeys{
		Salt: salt, Iterations: iterations,
		StoredKey: stored.Sum(nil), ServerKey: hmacSum(newHash, salted, "Server Key"),
	}, nil
}

func hmacSum(newHash func() hash.Hash, key []byte, text string) []byte {
	mac := hmac.New(newHash, key)
	mac.Write([]byte(text))
	return mac.Sum(nil)
}

type scram struct {
	credentials Credentials
	options     Options
	hashName    string
	plus        bool

	step                          int
	authorization, authentication string
	keys                          SCRAMKeys
	gs2Header, clientFirst        string
	serverFirst, nonce            string
}

func newSCRAM(name string, credentials Credentials, options Options) *scram {
	hashName, plus := strings.CutSuffix(strings.TrimPrefix(name, "SCRAM-"), "-PLUS")
	return &scram{credentials: credentials, options: options, hashName: hashName, plus: plus}
}

func (m *scram) Next(response []byte) ([]byte, bool, error) {
	switch m.step {
	case 0:
		if response == nil {
			m.step = 1
			return []byte{}, false, nil
		}
		return m.first(string(response))
	case 1:
		return m.first(string(response))
	case 2:
		return m.final(string(response))
	}
	if len(response) > 0 {
		return nil, false, fmt.Errorf("%w: SCRAM ends with an empty response", ErrMalformed)
	}
	if err := m.credentials.Proven(m.authorization, m.authentication); err != nil {
		return nil, false, err
	}
	return nil, true, nil
}

func (m *scram) first(text string) ([]byte, bool, error) {
	fields := strings.SplitN(text, ",", 3)
	if len(fields) < 3 {
		return nil, false, fmt.Errorf("%w: SCRAM without GS2 header", ErrMalformed)
	}
	binding, isBound := strings.CutPrefix(fields[0], "p=")
	switch {
	case m.plus && !isBound:
		return nil, false, fmt.Errorf("%w: SCRAM -PLUS without channel binding", ErrMalformed)
	case !m.plus && isBound:
		return nil, false, fmt.Errorf("%w: channel binding needs a SCRAM -PLUS mechanism", ErrMalformed)
	case !isBound && fields[0] != "n" && fields[0] != "y":
		return nil, false, fmt.Errorf("%w: SCRAM GS2 header %q", ErrMalformed, fields[0])
	case isBound && m.bindingData(binding) == nil:
		return nil, false, fmt.Errorf("%w: channel binding %q is not available", ErrMalformed, binding)
	}
	var err error
	if name, ok := strings.CutPrefix(fields[1], "a="); ok {
		if m.authorization, err = decodeSASLName(name); err != nil {
			return nil, false, err
		}
	}
	m.gs2Header = fields[0] + "," + fields[1] + ","
	m.clientFirst = fields[2]
	attributes := strings.Split(fields[2], ",")
	if len(attributes) < 2 || !strings.HasPrefix(attributes[0], "n=") || !strings.HasPrefix(attributes[1], "r=") || len(attributes[1]) < 3 {
		return nil, false, fmt.Errorf("%w: SCRAM first message", ErrMalformed)
	}
	if m.authentication, err = decodeSASLName(attributes[0][2:]); err != nil {
		return nil, false, err
	}
	if m.keys, err = m.credentials.SCRAMKeys(m.authentication, m.hashName); err != nil {
		return nil, false, err
	}
	m.nonce = attributes[1][2:] + m.options.Nonce()
	m.serverFirst = "r=" + m.nonce + ",s=" + base64.StdEncoding.EncodeToString(m.keys.Salt) + ",i=" + strconv.Itoa(m.keys.Iterations)
	m.step = 2
	return []byte(m.serverFirst), false, nil
}

func (m *scram) final(text string) ([]byte, bool, error) {
	proofAt := strings.LastIndex(text, ",p=")
	if proofAt < 0 {
		return nil, false, fmt.Errorf("%w: SCRAM final message has no proof", ErrMalformed)
	}
	withoutProof := text[:proofAt]
	attributes := strings.Split(withoutProof, ",")
	if len(attributes) < 2 || !strings.HasPrefix(attributes[0], "c=") || !strings.HasPrefix(attributes[1], "r=") {
		return nil, false, fmt.Errorf("%w: SCRAM final message", ErrMalformed)
	}
	bound, err := base64.StdEncoding.DecodeString(attributes[0][2:])
	if err != nil || !bytes.Equal(bound, m.expectedBinding()) {
		return nil, false, fmt.Errorf("%w: SCRAM channel binding differs", ErrMalformed)
	}
	if subtle.ConstantTimeCompare([]byte(attributes[1][2:]), []byte(m.nonce)) != 1 {
		return nil, false, fmt.Errorf("%w: SCRAM nonce differs", ErrMalformed)
	}
	proof, err := base64.StdEncoding.DecodeString(text[proofAt+3:])
	newHash := SCRAMHash(m.hashName)
	if err != nil || len(proof) != newHash().Size() {
		return nil, false, fmt.Errorf("%w: SCRAM proof", ErrMalformed)
	}
	message := m.clientFirst + "," + m.serverFirst + "," + withoutProof
	signature := hmacSum(newHash, m.keys.StoredKey, message)
	clientKey := make([]byte, len(proof))
	subtle.XORBytes(clientKey, proof, signature)
	sum := newHash()
	sum.Write(clientKey)
	if subtle.ConstantTimeCompare(sum.Sum(nil), m.keys.StoredKey) != 1 {
		return nil, false, ErrMismatch
	}
	m.step = 3
	return []byte("v=" + base64.StdEncoding.EncodeToString(hmacSum(newHash, m.keys.ServerKey, message))), false, nil
}

func (m *scram) expectedBinding() []byte {
	data := []byte(m.gs2Header)
	if kind, ok := strings.CutPrefix(strings.SplitN(m.gs2Header, ",", 2)[0], "p="); ok {
		data = append(data, m.bindingData(kind)...)
	}
	return data
}

// bindingData returns the channel binding of that type: tls-unique (RFC 5929, up to TLS 1.2) or tls-exporter (RFC 9266).
func (m *scram) bindingData(kind string) []byte {
	if m.options.TLS == nil {
		return nil
	}
	switch kind {
	case "tls-unique":
		return m.options.TLS.TLSUnique
	case "tls-exporter":
		data, err := m.options.TLS.ExportKeyingMaterial("EXPORTER-Channel-Binding", nil, 32)
		if err != nil {
			return nil
		}
		return data
	}
	return nil
}

// decodeSASLName undoes =2C and =3D (RFC 5802 section 5.1).
func decodeSASLName(name string) (string, error) {
	if !strings.Contains(name, "=") {
		return name, nil
	}
	var b strings.Builder
	for i := 0; i < len(name); i++ {
		if name[i] != '=' {
			b.WriteByte(name[i])
			continue
		}
		switch {
		case strings.HasPrefix(name[i:], "=2C"):
			b.WriteByte(',')
		case strings.HasPrefix(name[i:], "=3D"):
			b.WriteByte('=')
		default:
			return "", fmt.Errorf("%w: user name has a bare =", ErrMalformed)
		}
		i += 2
	}
	return b.String(), nil
}
