package service

import (
	"crypto/tls"

	"postilion/config/dovecot"
	"postilion/mta/deliver"
	"postilion/server/lmtpd"
)

// lmtpEndpoints builds the LMTP server of a configuration and the sockets it serves.
func (b *builder) lmtpEndpoints() error {
	view := b.dovecot.For(dovecot.Filter{Protocol: "lmtp"})
	tlsConfig, err := dovecotTLS(view, &b.certificates)
	if err != nil {
		return err
	}
	options := lmtpd.Options{
		Mailbox: b.mailbox, Spool: b.spool, Log: b.dovecotLog,
		Hostname: first(view.String("hostname"), deliver.Hostname()), Greeting: view.String("login_greeting"),
		ConnectionLimit: clientLimit(view, "lmtp"),
	}
	mode := "no TLS"
	if tlsConfig != nil {
		mode = "STARTTLS"
		options.TLS = func() (*tls.Config, error) { return tlsConfig, nil }
	}
	server, err := lmtpd.New(options)
	if err != nil {
		return err
	}
	b.sessions = append(b.sessions, server.Sessions)
	s, ok := view.Section("service", "lmtp")
	if !ok {
		return nil
	}
	for _, l := range s.Sections("inet_listener") {
		for _, e := range dovecotAddresses(view, l) {
			e.Protocol, e.TLS, e.serve = "lmtp", mode, server.Serve
			b.endpoints = append(b.endpoints, e)
			b.mailboxSockets["inet:"+e.Address.Address] = true
		}
	}
	for _, l := range s.Sections("unix_listener") {
		address, err := unixAddress(view, s, l)
		if err != nil {
			return err
		}
		if address.Mode == 0 && l.Set("mode") {
			continue
		}
		b.endpoints = append(b.endpoints, Endpoint{Protocol: "lmtp", TLS: mode, Address: address, serve: server.Serve})
		b.mailboxSockets["unix:"+address.Address] = true
	}
	return nil
}
