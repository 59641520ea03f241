package deliver

import (
	"crypto/hmac"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"slices"
	"strings"

	"postilion/proto/smtp"
)

// mechanisms are the SASL mechanisms of a client, the best first. plain tells those that give the password away.
var mechanisms = [...]struct {
	name  string
	plain bool
}{{"CRAM-MD5", false}, {"PLAIN", true}, {"LOGIN", true}}

// chooseMechanism picks the best mechanism that the server offers and the configuration allows; "" is none.
func chooseMechanism(server *smtp.Extensions, filter, security []string) string {
	for _, m := range mechanisms {
		switch {
		case !server.Auth(m.name) || m.plain && slices.Contains(security, "noplaintext"):
		case len(filter) > 0 && !slices.ContainsFunc(filter, func(f string) bool { return strings.EqualFold(f, m.name) }):
		default:
			return m.name
		}
	}
	return ""
}

// authenticate runs one login; its result is the client's reply.
func authenticate(c *connection, mechanism, user, password string) error {
	var initial []byte
	var answers []func(challenge []byte) []byte
	say := func(text string) func([]byte) []byte { return func([]byte) []byte { return []byte(text) } }
	switch mechanism {
	case "PLAIN":
		initial = []byte("\x00" + user + "\x00" + password)
	case "LOGIN":
		answers = append(answers, say(user), say(password))
	case "CRAM-MD5":
		answers = append(answers, func(challenge []byte) []byte {
			mac := hmac.New(md5.New, []byte(password))
			mac.Write(challenge)
			return []byte(user + " " + hex.EncodeToString(mac.Sum(nil)))
		})
	}
	if err := c.client.Auth(mechanism, initial); err != nil {
		return err
	}
	kind, err := c.advance()
	for err == nil && kind == smtp.ClientChallenge {
		var challenge []byte
		if challenge, err = c.client.Challenge(); err != nil {
			return err
		}
		if len(answers) == 0 {
			return errors.New("one SASL challenge too many")
		}
		answer := answers[0](challenge)
		answers = answers[1:]
		if err = c.client.Respond(answer); err == nil {
			kind, err = c.advance()
		}
	}
	return err
}
