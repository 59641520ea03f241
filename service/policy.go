package service

import (
	"fmt"

	"postilion/account"
	"postilion/mta/policy"
	"postilion/server/smtpd"
	"postilion/table"
)

// policy makes what decides for the service, and what counts its clients' events.
func (t *transport) policy() (policy.Checker, smtpd.Limits, error) {
	rules, err := policy.New(policy.Options{
		View: t.view, Router: t.router, Resolver: t.builder.resolver,
		Open:           func(spec string) table.Table { return t.tables.get(spec, false) },
		LocalAddresses: localAddresses(t.view),
		Warn:           func(text string) { t.log.Warn(text, "program", t.program()) },
	})
	if err != nil {
		return nil, nil, err
	}
	return rules, nil, nil
}

func (t *transport) program() string { return t.view.String("syslog_name") + "/smtpd" }

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
	return nil, fmt.Errorf("%s: smtpd_sasl_path = %s is no socket of the dovecot.conf that is served with it", t.view.Where("smtpd_sasl_path"), path)
}
