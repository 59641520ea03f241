package service

import (
	"postilion/config/dovecot"
)

// noteAuthSockets remembers the auth sockets of our own configuration, so that main.cf's smtpd_sasl_path finds them in process.
func (b *builder) noteAuthSockets(view *dovecot.View) error {
	s, ok := view.Section("service", "auth")
	if !ok {
		return nil
	}
	for _, l := range s.Sections("unix_listener") {
		address, err := unixAddress(view, s, l)
		if err != nil {
			return err
		}
		b.authSockets["unix:"+address.Address] = true
	}
	for _, l := range s.Sections("inet_listener") {
		for _, e := range dovecotAddresses(view, l) {
			b.authSockets["inet:"+e.Address.Address] = true
		}
	}
	return nil
}
