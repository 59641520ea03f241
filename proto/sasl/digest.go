package sasl

import (
	"bytes"
	"crypto/md5"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"
)

func randomNonce() string {
	raw := make([]byte, 18)
	// crypto/rand.Read never fails (it ends the process when the system has no randomness).
	_, _ = rand.Read(raw)
	return base64.StdEncoding.EncodeToString(raw)
}

type cramMD5 struct {
	credentials Credentials
	options     Options
	challenge   []byte
}

func (m *cramMD5) Next(response []byte) ([]byte, bool, error) {
	if m.challenge == nil {
		if response != nil {
			return nil, false, fmt.Errorf("%w: CRAM-MD5 has no initial response", ErrMalformed)
		}
		nonce := strings.Map(func(r rune) rune {
			if r == '+' || r == '/' || r == '=' {
				return '0'
			}
			return r
		}, m.options.Nonce())
		m.challenge = fmt.Appendf(nil, "<%s.%d@%s>", nonce, time.Now().Unix(), m.options.Hostname)
		return m.challenge, false, nil
	}
	space := bytes.LastIndexByte(response, ' ')
	if space < 0 {
		return nil, false, fmt.Errorf("%w: CRAM-MD5 without digest", ErrMalformed)
	}
	digest := make([]byte, md5.Size)
	if n, err := hex.Decode(digest, response[space+1:min(len(response), space+1+2*md5.Size)]); err != nil || n != md5.Size || len(response) != space+1+2*md5.Size {
		return nil, false, fmt.Errorf("%w: CRAM-MD5 digest is not 32 hexadecimal digits", ErrMalformed)
	}
	if err := m.credentials.CRAMMD5(string(response[:space]), m.challenge, digest); err != nil {
		return nil, false, err
	}
	return nil, true, nil
}

type digestMD5 struct {
	credentials Credentials
	options     Options
	nonce       string
	// authorization and authentication are kept between the proof and the client's acknowledgement.
	authorization, authentication string
	proven                        bool
}

func (m *digestMD5) Next(response []byte) ([]byte, bool, error) {
	switch {
	case m.proven:
		if err := m.credentials.Proven(m.authorization, m.authentication); err != nil {
			return nil, false, err
		}
		return nil, true, nil
	case m.nonce == "":
		m.nonce = m.options.Nonce()
		var challenge []byte
		for _, realm := range m.options.Realms {
			challenge = fmt.Appendf(challenge, "realm=%s,", quoteDigest(realm))
		}
		if len(m.options.Realms) == 0 {
			challenge = append(challenge, `realm="",`...)
		}
		challenge = fmt.Appendf(challenge, `nonce="%s",qop="auth",charset="utf-8",algorithm="md5-sess"`, m.nonce)
		return challenge, false, nil
	}
	fields, err := parseDigestFields(string(response))
	if err != nil {
		return nil, false, err
	}
	return m.verify(fields)
}

func (m *digestMD5) verify(fields map[string]string) ([]byte, bool, error) {
	count, err := strconv.ParseUint(fields["nc"], 16, 32)
	qop := fields["qop"]
	if qop == "" {
		qop = "auth"
	}
	switch {
	case err != nil || count != 1:
		return nil, false, fmt.Errorf("%w: DIGEST-MD5 nonce count is not 1", ErrMalformed)
	case fields["username"] == "" || fields["cnonce"] == "" || fields["digest-uri"] == "":
		return nil, false, fmt.Errorf("%w: DIGEST-MD5 response lacks username, cnonce or digest-uri", ErrMalformed)
	case subtle.ConstantTimeCompare([]byte(fields["nonce"]), []byte(m.nonce)) != 1:
		return nil, false, fmt.Errorf("%w: DIGEST-MD5 nonce is not ours", ErrMalformed)
	case qop != "auth":
		return nil, false, fmt.Errorf("%w: DIGEST-MD5 qop %q was not offered", ErrMalformed, qop)
	case len(fields["response"]) != 32:
		return nil, false, fmt.Errorf("%w: DIGEST-MD5 response is not 32 hexadecimal digits", ErrMalformed)
	}
	secret, err := m.credentials.DigestHash(fields["username"], fields["realm"])
	if err != nil {
		return nil, false, err
	}
	a1 := append(secret[:], ":"+m.nonce+":"+fields["cnonce"]...)
	if authorization := fields["authzid"]; authorization != "" {
		a1 = append(a1, ":"+authorization...)
	}
	compute := func(method string) string {
		middle := ":" + m.nonce + ":" + fields["nc"] + ":" + fields["cnonce"] + ":" + qop + ":"
		return hexMD5([]byte(hexMD5(a1) + middle + hexMD5([]byte(method+":"+fields["digest-uri"]))))
	}
	if subtle.ConstantTimeCompare([]byte(compute("AUTHENTICATE")), []byte(strings.ToLower(fields["response"]))) != 1 {
		return nil, false, ErrMismatch
	}
	m.proven, m.authorization, m.authentication = true, fields["authzid"], fields["username"]
	return []byte("rspauth=" + compute("")), false, nil
}

func hexMD5(data []byte) string {
	sum := md5.Sum(data)
	return hex.EncodeToString(sum[:])
}

func quoteDigest(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// parseDigestFields reads name=value and name="value" pairs with commas between them; a repeated name is an error (RFC 2831 section 2.1.2).
func parseDigestFields(text string) (map[string]string, error) {
	fields := map[string]string{}
	for {
		text = strings.TrimLeft(text, ", \t\r\n")
		if text == "" {
			return fields, nil
		}
		name, rest, found := strings.Cut(text, "=")
		if !found || name == "" {
			return nil, fmt.Errorf("%w: DIGEST-MD5 field without value", ErrMalformed)
		}
		name = strings.ToLower(strings.TrimSpace(name))
		var value string
		if strings.HasPrefix(rest, `"`) {
			var quoted strings.Builder
			i := 1
			for ; i < len(rest) && rest[i] != '"'; i++ {
				if rest[i] == '\\' && i+1 < len(rest) {
					i++
				}
				quoted.WriteByte(rest[i])
			}
			if i >= len(rest) {
				return nil, fmt.Errorf("%w: DIGEST-MD5 quoted string has no end", ErrMalformed)
			}
			value, text = quoted.String(), rest[i+1:]
		} else {
			end := strings.IndexByte(rest, ',')
			if end < 0 {
				end = len(rest)
			}
			value, text = strings.TrimSpace(rest[:end]), rest[end:]
		}
		if _, twice := fields[name]; twice {
			return nil, fmt.Errorf("%w: DIGEST-MD5 field %s stands twice", ErrMalformed, name)
		}
		fields[name] = value
	}
}
