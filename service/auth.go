package service

import (
	"log/slog"

	"postilion/account"
	"postilion/config/dovecot"
	"postilion/server/authd"
)

// Accounts makes the passdbs and userdbs of a configuration, for commands that ask them without a server.
func Accounts(view *dovecot.View, log *slog.Logger) (*account.Accounts, error) {
	return newAccounts(view, &Options{}, log)
}

// authEndpoints builds the server of `service auth` for foreign MTAs and delivery agents, and the sockets it serves.
func (b *builder) authEndpoints() error {
	view := b.dovecot.For(dovecot.Filter{})
	s, ok := view.Section("service", "auth")
	if !ok {
		return nil
	}
	server, err := authd.New(authd.Options{
		Auth: b.accounts, Directory: b.accounts, Passdb: b.accounts, MaxConnections: clientLimit(view, "auth"), Log: b.dovecotLog,
	})
	if err != nil {
		return err
	}
	b.sessions = append(b.sessions, server.Sessions)
	for _, l := range s.Sections("inet_listener") {
		serve := server.Serve
		if authd.KindOf(l.Name()) == authd.Lookups {
			serve = server.ServeLookups
		}
		for _, e := range dovecotAddresses(view, l) {
			e.Protocol, e.TLS, e.serve = "auth", "no TLS", serve
			b.endpoints = append(b.endpoints, e)
			b.authSockets["inet:"+e.Address.Address] = true
		}
	}
	for _, l := range s.Sections("unix_listener") {
		kind := authd.KindOf(l.Name())
		if kind == authd.Internal {
			continue
		}
		address, err := unixAddress(view, s, l)
		switch {
		case err != nil && !l.Set("user") && !l.Set("group"):
			// The default owner of a socket that the configuration does not mention.
			b.warn("", err.Error()+": the socket is left out")
			continue
		case err != nil:
			return err
		}
		if address.Mode == 0 && l.Set("mode") {
			continue
		}
		e := Endpoint{Protocol: "auth", TLS: "no TLS", Address: address, serve: server.Serve}
		if kind == authd.Lookups {
			e.serve = server.ServeLookups
		} else {
			b.authSockets["unix:"+address.Address] = true
		}
		b.endpoints = append(b.endpoints, e)
	}
	return nil
}
