package service

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"

	"postilion/config/dovecot"
	"postilion/server/login"
)

// loginOptions are what the settings say of SERVICE-login.
func (b *builder) loginOptions(view *dovecot.View, service string) (login.Options, error) {
	options := login.Options{
		Service: service, Log: b.dovecotLog, ProxyTimeout: view.Duration("haproxy_timeout"),
		MaxConnections: clientLimit(view, service+"-login"), MaxUserIP: view.Int("mail_max_userip_connections"),
	}
	options.MaxStrangers, options.MaxPrelogin = strangerLimits(view, service+"-login")
	tlsConfig, err := dovecotTLS(view, &b.certificates)
	if err != nil {
		return options, err
	}
	if tlsConfig != nil {
		options.TLS = func() *tls.Config { return tlsConfig }
	}
	if options.Trusted, err = prefixes(view.List("login_trusted_networks")); err != nil {
		return options, fmt.Errorf("%s: login_trusted_networks: %w", view.Where("login_trusted_networks"), err)
	}
	if options.Proxies, err = prefixes(view.List("haproxy_trusted_networks")); err != nil {
		return options, fmt.Errorf("%s: haproxy_trusted_networks: %w", view.Where("haproxy_trusted_networks"), err)
	}
	return options, nil
}

// clientLimit bounds the connections of a login service: client_limit times process_limit, at least what default_client_limit gives.
func clientLimit(view *dovecot.View, service string) int {
	s, ok := view.Section("service", service)
	if !ok {
		return view.Int("default_client_limit")
	}
	clients := s.Int("client_limit")
	if clients <= 0 {
		clients = view.Int("default_client_limit")
	}
	processes := s.Int("process_limit")
	if processes <= 0 {
		processes = view.Int("default_process_limit")
	}
	return max(clients, 1) * max(processes, 1)
}

// strangerLimits bound the connections that have not logged in, in all and of one address. In Dovecot a login process that serves one client
// (service_count = 1) serves strangers alone, process_limit of them; here it is as many as one process may have clients. One address gets a
// quarter, so that it can keep nobody else out.
func strangerLimits(view *dovecot.View, service string) (all, address int) {
	all = view.Int("default_client_limit")
	if s, ok := view.Section("service", service); ok {
		if n := s.Int("client_limit"); n > 0 {
			all = n
		}
		if s.Int("service_count") != 1 {
			all = clientLimit(view, service)
		}
	}
	return max(all, 1), max(all/4, 1)
}

func prefixes(words []string) ([]netip.Prefix, error) {
	var list []netip.Prefix
	for _, word := range words {
		p, err := dovecot.ParseNet(word)
		if err != nil {
			return nil, err
		}
		list = append(list, p)
	}
	return list, nil
}

// loginEndpoints lists the sockets of SERVICE-login: listeners named SERVICE and SERVICEs, and any others.
func (b *builder) loginEndpoints(view *dovecot.View, protocol string, hasTLS bool, gate *login.Gate) error {
	b.sessions = append(b.sessions, gate.Sessions)
	s, ok := view.Section("service", protocol+"-login")
	if !ok {
		return nil
	}
	for _, l := range s.Sections("inet_listener") {
		entry := login.Entry{TLS: l.Bool("ssl"), HAProxy: l.Bool("haproxy")}
		if entry.TLS && !hasTLS {
			continue
		}
		for _, e := range dovecotAddresses(view, l) {
			e.Protocol, e.TLS = protocol, "no TLS"
			e.serve = func(ctx context.Context, listener net.Listener) error { return gate.ServeEntry(ctx, listener, entry) }
			switch {
			case entry.TLS:
				e.Protocol, e.TLS = protocol+"s", "TLS"
			case hasTLS:
				e.TLS = "STARTTLS"
			}
			b.endpoints = append(b.endpoints, e)
		}
	}
	return nil
}
