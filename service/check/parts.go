package check

import (
	"fmt"
	"os"
	"strings"
	"time"

	"postilion/config/postfix"
	"postilion/service"
	"postilion/service/certificate"
)

// renewBefore is how long before its end a certificate should have been renewed.
const renewBefore = 14 * 24 * time.Hour

// certificates loads every pair and returns the errors told.
func (r *run) certificates(i *service.Inspection) []string {
	var told []string
	for _, use := range i.Certificates() {
		file, line, _ := splitPlace(use.Where + ": ")
		add := func(severity Severity, format string, arguments ...any) {
			r.add(severity, file, line, use.Setting, use.Setting+": "+fmt.Sprintf(format, arguments...))
		}
		loaded, err := certificate.Load(use.Pair)
		if err != nil {
			add(Error, "%v", err)
			told = append(told, err.Error())
			continue
		}
		leaf, left := loaded.Leaf, time.Duration(0)
		if leaf != nil {
			left = leaf.NotAfter.Sub(r.options.Now)
		}
		switch {
		case leaf == nil:
		case left <= 0:
			add(Warning, "%s expired on %s: clients will refuse it", use.Pair.CertificateFile, leaf.NotAfter.Format(time.DateOnly))
		case leaf.NotBefore.After(r.options.Now):
			add(Warning, "%s is not valid before %s", use.Pair.CertificateFile, leaf.NotBefore.Format(time.DateOnly))
		case left < renewBefore:
			add(Warning, "%s expires on %s, in %d days: renew it; the new one is taken up by itself", use.Pair.CertificateFile, leaf.NotAfter.Format(time.DateOnly), int(left.Hours()/24))
		default:
			add(Fine, "%s is valid until %s", use.Pair.CertificateFile, leaf.NotAfter.Format(time.DateOnly))
		}
		if leaf != nil && r.hostname() != "" && leaf.VerifyHostname(r.hostname()) != nil {
			add(Warning, "%s is for %s, not for this host's name %s", use.Pair.CertificateFile, strings.Join(leaf.DNSNames, ", "), r.hostname())
		}
		if info, err := os.Stat(use.Pair.KeyFile); err == nil && info.Mode().Perm()&0o004 != 0 {
			add(Warning, "everybody on this host may read the key %s: chmod o-r", use.Pair.KeyFile)
		}
	}
	return told
}

func (r *run) hostname() string {
	if r.postfix != nil {
		return r.postfix.View().String("myhostname")
	}
	return ""
}

// tables tells which tables cannot be opened, and what those that can hold by mistake.
func (r *run) tables(i *service.Inspection) []string {
	var told []string
	lint := func(spec, text string) {
		if file, line, rest := splitPlace(text); file != "" {
			r.add(Warning, file, line, "", rest)
			return
		}
		_, _, where := r.parameterWith(spec)
		r.add(Warning, where.File, where.Line, "", text)
	}
	for _, p := range i.Tables(lint) {
		told = append(told, p.Err.Error())
		name, service, where := r.parameterWith(p.Spec)
		if where.IsZero() && len(r.postfix.View().List("mydestination")) == 0 {
			continue
		}
		what := "a default"
		if name != "" {
			what = service + name
		}
		r.add(Warning, where.File, where.Line, name, fmt.Sprintf("%s: table %s cannot be opened: %v; what needs it is answered with 451", what, p.Spec, p.Err))
	}
	return told
}

// parameterWith finds the parameter whose value names a table.
func (r *run) parameterWith(spec string) (name, service string, where postfix.Position) {
	search := func(view *postfix.View) (string, postfix.Position) {
		for _, name := range r.postfix.Names() {
			if at := view.Where(name); !at.IsZero() && strings.Contains(view.String(name), spec) {
				return name, at
			}
		}
		return "", postfix.Position{}
	}
	if name, where := search(r.postfix.View()); name != "" {
		return name, "", where
	}
	for _, s := range r.postfix.Services() {
		if name, where := search(s.View()); name != "" {
			return name, "service " + s.Name + ": ", where
		}
	}
	return "", "", postfix.Position{}
}

func (r *run) junctions(i *service.Inspection) {
	for _, j := range i.Junctions() {
		severity := Fine
		if !j.Served {
			severity = Warning
		}
		text := fmt.Sprintf("%s = %s: %s", j.Parameter, j.Value, j.Text)
		r.add(severity, j.Where.File, j.Where.Line, j.Parameter, text)
	}
}

// ownParts are Postfix's daemons whose work this program does in one of its parts, whatever master.cf says of them.
var ownParts = map[string]bool{
	"cleanup": true, "trivial-rewrite": true, "bounce": true, "proxymap": true, "anvil": true, "scache": true, "postlogd": true, "tlsmgr": true,
	"local": true, "error": true, "discard": true, "lmtp": true,
}

// notServed says what is missing without a daemon that this version has no part for.
var notServed = map[string]string{
	"smtp": "mail for other hosts is refused with 451", "qmgr": "there is no queue: mail is delivered at once or refused", "oqmgr": "there is no queue: mail is delivered at once or refused",
	"pickup": "mail from the sendmail command is not taken", "showq": "there is no queue to list", "flush": "ETRN is not answered", "verify": "addresses are not probed: reject_unverified_* defers",
	"virtual": "mail goes into the mailboxes of dovecot.conf by virtual_transport = lmtp:", "pipe": "mail for this transport is refused with 451",
	"spawn": "the command is not run", "postscreen": "nothing stands before smtpd", "dnsblog": "smtpd asks the DNS lists itself", "tlsproxy": "sessions do their own TLS",
	"qmqpd": "QMQP is not spoken",
}

// services tells which entries of master.cf are not served.
func (r *run) services() {
	if r.postfix == nil {
		return
	}
	for _, s := range r.postfix.Services() {
		name := "service " + s.Name + "/" + s.Type
		switch {
		case s.Command == "smtpd" && s.Type == "inet":
			r.add(Fine, s.Pos.File, s.Pos.Line, "", name+": served")
		case s.Type == "inet":
			r.add(Warning, s.Pos.File, s.Pos.Line, "", fmt.Sprintf("%s (%s) is not served: its port is not opened", name, s.Command))
		case ownParts[s.Command]:
			r.add(Fine, s.Pos.File, s.Pos.Line, "", name+": a part of this program")
		case notServed[s.Command] != "":
			r.add(NoEffect, s.Pos.File, s.Pos.Line, "", fmt.Sprintf("%s (%s) is not served: %s", name, s.Command, notServed[s.Command]))
		default:
			r.add(NoEffect, s.Pos.File, s.Pos.Line, "", fmt.Sprintf("%s (%s) is not served", name, s.Command))
		}
	}
}
