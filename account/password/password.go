// Package password keeps, makes and checks passwords in the schemes of Dovecot's "Password Schemes" page: {PLAIN}, {SHA512-CRYPT}, {BLF-CRYPT},
// {ARGON2ID}, {SCRAM-SHA-256} and the rest, with the encodings .hex and .b64.
//
// It knows one stored password at a time: which user has it and whether the user may log in is package account's business.
package password

import (
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"postilion/proto/sasl"
)

// MaxLength is the limit in octets of a password that is checked; longer ones never match. It keeps hostile input from costing time.
// A password with a NUL never matches either: crypt(3) would see only what stands before it.
const MaxLength = 4096

// ErrScheme tells that a scheme is not known, or cannot give what a mechanism needs.
var ErrScheme = errors.New("password scheme cannot be used")

// Stored is one password as it is kept.
type Stored struct {
	// Scheme is in capitals, without the encoding's ending.
	Scheme string
	// Data is decoded from .hex or .b64 if the scheme's name ended in that.
	Data string
}

// Parse reads {SCHEME}data; without braces defaultScheme holds.
func Parse(text, defaultScheme string) (Stored, error) {
	name, data := defaultScheme, text
	if strings.HasPrefix(text, "{") {
		end := strings.IndexByte(text, '}')
		if end < 0 {
			return Stored{}, fmt.Errorf("%w: no } after the scheme's name", ErrScheme)
		}
		name, data = text[1:end], text[end+1:]
	}
	name = strings.ToUpper(name)
	name, encoding, _ := strings.Cut(name, ".")
	scheme := find(name)
	if scheme == nil {
		return Stored{}, fmt.Errorf("%w: unknown scheme %s", ErrScheme, name)
	}
	var raw []byte
	var err error
	switch encoding {
	case "":
		return Stored{Scheme: name, Data: data}, nil
	case "HEX":
		raw, err = hex.DecodeString(data)
	case "B64", "BASE64":
		raw, err = base64.StdEncoding.DecodeString(data)
	default:
		return Stored{}, fmt.Errorf("%w: unknown encoding .%s", ErrScheme, encoding)
	}
	if err != nil {
		return Stored{}, fmt.Errorf("%w: %s.%s: %w", ErrScheme, name, encoding, err)
	}
	if scheme.form == rawDigest {
		// Digest schemes keep their own text form; an explicit encoding replaces it.
		return Stored{Scheme: name, Data: scheme.text(raw)}, nil
	}
	return Stored{Scheme: name, Data: string(raw)}, nil
}

// Verify tells whether password is the stored one. user is the login name, which DIGEST-MD5's hash covers. The error wraps ErrScheme
// when the stored data is not of its scheme's form.
func (s Stored) Verify(user, password string) (bool, error) {
	scheme := find(s.Scheme)
	if scheme == nil {
		return false, fmt.Errorf("%w: unknown scheme %s", ErrScheme, s.Scheme)
	}
	if len(password) > MaxLength || strings.IndexByte(password, 0) >= 0 {
		return false, nil
	}
	ok, err := scheme.verify(s.Data, user, password)
	if err != nil {
		return false, fmt.Errorf("%w: %s: %w", ErrScheme, s.Scheme, err)
	}
	return ok, nil
}

// plaintext returns the password when the scheme keeps it readable.
func (s Stored) plaintext() (string, bool) {
	switch s.Scheme {
	case "PLAIN", "CLEAR", "CLEARTEXT":
		return s.Data, true
	}
	return "", false
}

// CRAMMD5 tells whether digest is the keyed MD5 of the challenge (RFC 2195, also POP3 and SMTP). It needs PLAIN, CRAM-MD5 or HMAC-MD5.
func (s Stored) CRAMMD5(challenge, digest []byte) (bool, error) {
	context := s.Data
	if plain, ok := s.plaintext(); ok {
		context = cramContext(plain)
	} else if s.Scheme != "CRAM-MD5" && s.Scheme != "HMAC-MD5" {
		return false, fmt.Errorf("%w: %s does not serve CRAM-MD5", ErrScheme, s.Scheme)
	}
	want, err := cramDigest(context, challenge)
	if err != nil {
		return false, fmt.Errorf("%w: %s: %w", ErrScheme, s.Scheme, err)
	}
	return subtle.ConstantTimeCompare(want, digest) == 1, nil
}

// APOP tells whether digest is MD5 over the banner and the password in hexadecimal (RFC 1939 section 7). It needs PLAIN.
func (s Stored) APOP(banner, digest string) (bool, error) {
	plain, ok := s.plaintext()
	if !ok {
		return false, fmt.Errorf("%w: %s does not serve APOP", ErrScheme, s.Scheme)
	}
	return equal(hexMD5(banner+plain), strings.ToLower(digest)), nil
}

// DigestHash returns H(user:realm:password) for DIGEST-MD5. It needs PLAIN or DIGEST-MD5.
func (s Stored) DigestHash(user, realm string) ([16]byte, error) {
	var hash [16]byte
	if plain, ok := s.plaintext(); ok {
		return md5Sum(user + ":" + realm + ":" + plain), nil
	}
	if s.Scheme != "DIGEST-MD5" {
		return hash, fmt.Errorf("%w: %s does not serve DIGEST-MD5", ErrScheme, s.Scheme)
	}
	raw, err := hex.DecodeString(s.Data)
	if err != nil || len(raw) != len(hash) {
		return hash, fmt.Errorf("%w: DIGEST-MD5 data is not 32 hexadecimal digits", ErrScheme)
	}
	copy(hash[:], raw)
	return hash, nil
}

// SCRAMKeys returns the keys for SCRAM with the hash "SHA-1" or "SHA-256". It needs that scheme or PLAIN; with PLAIN the salt is
// derived from seed, so that the same user is always asked with the same salt.
func (s Stored) SCRAMKeys(hash string, seed []byte) (sasl.SCRAMKeys, error) {
	if plain, ok := s.plaintext(); ok {
		return sasl.MakeSCRAMKeys(hash, plain, seed, scramIterations)
	}
	if s.Scheme != "SCRAM-"+hash {
		return sasl.SCRAMKeys{}, fmt.Errorf("%w: %s does not serve SCRAM-%s", ErrScheme, s.Scheme, hash)
	}
	keys, err := parseSCRAM(s.Data, sasl.SCRAMHash(hash)().Size())
	if err != nil {
		return keys, fmt.Errorf("%w: SCRAM-%s: %w", ErrScheme, hash, err)
	}
	return keys, nil
}

// Generate makes {SCHEME}data for a new password. rounds is the scheme's cost, 0 for its default; schemes without a cost ignore it.
func Generate(scheme, user, password string, rounds int) (string, error) {
	name, encoding, _ := strings.Cut(strings.ToUpper(scheme), ".")
	s := find(name)
	if s == nil {
		return "", fmt.Errorf("%w: unknown scheme %s", ErrScheme, name)
	}
	if strings.IndexByte(password, 0) >= 0 || len(password) > MaxLength {
		return "", fmt.Errorf("%w: a password has at most %d octets and no NUL", ErrScheme, MaxLength)
	}
	data, err := s.generate(user, password, rounds)
	if err != nil {
		return "", fmt.Errorf("%w: %s: %w", ErrScheme, name, err)
	}
	switch encoding {
	case "":
	case "HEX":
		data, name = hex.EncodeToString(s.bytes(data)), name+".HEX"
	case "B64", "BASE64":
		data, name = base64.StdEncoding.EncodeToString(s.bytes(data)), name+"."+encoding
	default:
		return "", fmt.Errorf("%w: unknown encoding .%s", ErrScheme, encoding)
	}
	return "{" + name + "}" + data, nil
}

// Schemes returns the names of all schemes in order of the alphabet.
func Schemes() []string {
	var names []string
	for _, s := range schemes() {
		names = append(names, s.name)
	}
	slices.Sort(names)
	return names
}

func equal(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }
