package sasl

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

type plain struct {
	credentials Credentials
	asked       bool
}

func (m *plain) Next(response []byte) ([]byte, bool, error) {
	if response == nil && !m.asked {
		m.asked = true
		return []byte{}, false, nil
	}
	parts := bytes.Split(response, []byte{0})
	if len(parts) != 3 {
		return nil, false, fmt.Errorf("%w: PLAIN has %d parts instead of 3", ErrMalformed, len(parts))
	}
	if err := m.credentials.Plain(string(parts[0]), string(parts[1]), string(parts[2])); err != nil {
		return nil, false, err
	}
	return nil, true, nil
}

type login struct {
	credentials Credentials
	step        int
	name        string
}

func (m *login) Next(response []byte) ([]byte, bool, error) {
	if response == nil && m.step == 0 {
		m.step = 1
		return []byte("Username:"), false, nil
	}
	if m.step < 2 {
		m.step, m.name = 2, string(response)
		return []byte("Password:"), false, nil
	}
	if err := m.credentials.Plain("", m.name, string(response)); err != nil {
		return nil, false, err
	}
	return nil, true, nil
}

type external struct {
	credentials Credentials
	asked       bool
}

func (m *external) Next(response []byte) ([]byte, bool, error) {
	if response == nil && !m.asked {
		m.asked = true
		return []byte{}, false, nil
	}
	if err := m.credentials.External(string(response)); err != nil {
		return nil, false, err
	}
	return nil, true, nil
}

type anonymous struct {
	credentials Credentials
	asked       bool
}

func (m *anonymous) Next(response []byte) ([]byte, bool, error) {
	if response == nil && !m.asked {
		m.asked = true
		return []byte{}, false, nil
	}
	if err := m.credentials.Anonymous(string(response)); err != nil {
		return nil, false, err
	}
	return nil, true, nil
}

// bearer is OAUTHBEARER with a GS2 header, or XOAUTH2 without one.
type bearer struct {
	credentials Credentials
	options     Options
	gs2         bool
	asked       bool
	// failed holds the reason while the client acknowledges the error document.
	failed error
}

func (m *bearer) Next(response []byte) ([]byte, bool, error) {
	if m.failed != nil {
		return nil, false, m.failed
	}
	if response == nil && !m.asked {
		m.asked = true
		return []byte{}, false, nil
	}
	user, token, err := m.parse(string(response))
	if err != nil {
		return nil, false, err
	}
	switch err := m.credentials.Token(user, token); {
	case errors.Is(err, ErrUnchecked):
		return nil, false, err
	case err != nil:
		m.failed = err
		return m.refusal()
	}
	return nil, true, nil
}

// refusal is the document that tells the client to bring another token.
func (m *bearer) refusal() ([]byte, bool, error) {
	text := `{"status":"401","schemes":"bearer","scope":"mail"`
	if m.gs2 {
		text = `{"status":"invalid_token"`
	}
	if url := m.options.OpenIDConfiguration; url != "" {
		quoted, err := json.Marshal(url)
		if err != nil {
			return nil, false, fmt.Errorf("openid_configuration_url: %w", err)
		}
		text += `,"openid-configuration":` + string(quoted)
	}
	return []byte(text + "}"), false, nil
}

func (m *bearer) parse(text string) (user, token string, err error) {
	if m.gs2 {
		header, rest, found := strings.Cut(text, "\x01")
		fields := strings.Split(header, ",")
		if !found || len(fields) < 2 || (fields[0] != "n" && fields[0] != "y") {
			return "", "", fmt.Errorf("%w: OAUTHBEARER without GS2 header", ErrMalformed)
		}
		if name, ok := strings.CutPrefix(fields[1], "a="); ok {
			if user, err = decodeSASLName(name); err != nil {
				return "", "", err
			}
		}
		text = rest
	}
	for pair := range strings.SplitSeq(text, "\x01") {
		key, value, _ := strings.Cut(pair, "=")
		switch strings.ToLower(key) {
		case "user":
			if !m.gs2 {
				user = value
			}
		case "auth":
			scheme, credential, _ := strings.Cut(value, " ")
			if !strings.EqualFold(scheme, "bearer") {
				return "", "", fmt.Errorf("%w: token type is not Bearer", ErrMalformed)
			}
			token = strings.TrimSpace(credential)
		}
	}
	if token == "" {
		return "", "", fmt.Errorf("%w: no token", ErrMalformed)
	}
	return user, token, nil
}
