package service

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"postilion/account"
	"postilion/account/authclient"
	"postilion/mta/deliver"
	"postilion/mta/policy"
	"postilion/server/smtpd"
	"postilion/table"
)

// policy makes what decides for the service, and what counts its clients' events.
func (t *transport) policy() (policy.Checker, smtpd.Limits, error) {
	rules, err := policy.New(policy.Options{
		View: t.view, Router: t.router, Resolver: t.builder.resolver, Verifier: verifier{t.acceptor()},
		Open:           func(spec string) table.Table { return t.tables.get(spec, false) },
		LocalAddresses: localAddresses(t.view.List("inet_interfaces")), ProxyAddresses: localAddresses(t.view.List("proxy_interfaces")),
		Warn: func(text string) { t.log.Warn(text, "program", t.program()) },
	})
	if err != nil {
		return nil, nil, err
	}
	t.builder.closers = append(t.builder.closers, rules)
	counts := policy.NewLimits(policy.LimitOptions{
		View: t.view, Open: func(spec string) table.Table { return t.tables.get(spec, false) }, Warn: func(text string) { t.log.Warn(text) },
	})
	return rules, limits{counts}, nil
}

// verifier tells whether mail for an address could be delivered.
type verifier struct{ acceptor *deliver.Acceptor }

// VerifyAddress implements policy.Verifier.
func (v verifier) VerifyAddress(ctx context.Context, address string) (policy.Probe, string) {
	status, reason := v.acceptor.Verify(ctx, address)
	switch status {
	case deliver.Sent:
		return policy.Deliverable, reason
	case deliver.Bounced:
		return policy.Undeliverable, reason
	}
	return policy.Unverified, reason
}

func (t *transport) program() string { return t.view.String("syslog_name") + "/smtpd" }

// limits translates the server's events, which stand in the same order.
type limits struct{ *policy.Limits }

// Count implements smtpd.Limits.
func (l limits) Count(kind smtpd.Event, name string, address netip.Addr) (int, bool) {
	return l.Limits.Count(policy.Event(kind), name, address)
}

func (t *transport) names() smtpd.Names {
	return &policy.Names{Resolver: t.builder.resolver, Warn: func(text string) { t.log.Warn(text, "program", t.program()) }}
}

// authenticator checks logins: the accounts of our own Dovecot half when smtpd_sasl_path names a socket that it serves.
func (t *transport) authenticator() (account.Authenticator, error) {
	path := t.view.String("smtpd_sasl_path")
	kind := t.view.String("smtpd_sasl_type")
	if kind != "dovecot" {
		return nil, fmt.Errorf("%s: smtpd_sasl_type = %s is not supported: use dovecot", t.view.Where("smtpd_sasl_type"), kind)
	}
	socket := path
	if len(path) < 5 || path[:5] != "inet:" {
		socket = "unix:" + path
	}
	if t.builder.accounts != nil && t.builder.authSockets[t.socketName(socket)] {
		return t.builder.accounts, nil
	}
	return t.foreignAuth(socket), nil
}

// foreignAuth asks another program's auth socket.
func (t *transport) foreignAuth(socket string) account.Authenticator {
	network, address := "unix", ""
	name := t.socketName(socket)
	if host, isInet := strings.CutPrefix(name, "inet:"); isInet {
		network, address = "tcp", host
	} else {
		address = strings.TrimPrefix(name, "unix:")
	}
	return authclient.New(network, address, first(t.view.String("smtpd_sasl_service"), "smtp"), t.log)
}

// contentChecks reads the header and body checks as the cleanup service of this smtpd service has them.
func (t *transport) contentChecks() *policy.ContentChecks {
	view := t.view
	if cleanup, ok := t.builder.postfix.Service(t.view.String("cleanup_service_name"), "unix"); ok && t.view.IsSet("cleanup_service_name") {
		view = cleanup.View()
	}
	return policy.NewContentChecks(policy.ContentOptions{
		View: view, Open: func(spec string) table.Table { return t.tables.get(spec, false) }, Warn: func(text string) { t.log.Warn(text) },
	})
}
