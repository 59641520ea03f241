package service

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"

	"postilion/config/dovecot"
	"postilion/config/postfix"
	"postilion/mail/queueid"
	"postilion/mta/deliver"
	"postilion/resolve"
	"postilion/service/certificate"
	"postilion/store/spool"
	"postilion/table"
)

// InspectOptions give an inspection what to look at; a nil configuration leaves that half out.
type InspectOptions struct {
	Postfix    *postfix.Config
	PostfixDir string
	Dovecot    *dovecot.Config
	Getenv     func(string) string
	// Log gets what the server would log while it starts.
	Log *slog.Logger
}

// Inspection is what a configuration would serve: everything is built by the code that serves, with no socket and no database opened and no file
// made.
type Inspection struct {
	builder    *builder
	transports []*transport
	// Errors are what would keep the server from starting.
	Errors []error
}

// Inspect builds a configuration without serving it.
func Inspect(ctx context.Context, o InspectOptions) *Inspection {
	b := newInspector(o)
	i := &Inspection{builder: b}
	if b.dovecot != nil {
		if err := b.mailboxHalf(); err != nil {
			i.Errors = append(i.Errors, err)
		}
	}
	if b.postfix != nil {
		ids := queueid.New(false, 1)
		i.transports = b.transports()
		for _, t := range i.transports {
			if err := t.build(ctx, ids); err != nil {
				i.Errors = append(i.Errors, fmt.Errorf("%s: service %s: %w", t.service.Pos, t.service.Name, err))
			}
		}
	}
	return i
}

func newInspector(o InspectOptions) *builder {
	b := &builder{
		options: Options{PostfixDir: o.PostfixDir, Getenv: o.Getenv}, postfix: o.Postfix, dovecot: o.Dovecot, inspecting: true,
		log: o.Log, postfixLog: o.Log, dovecotLog: o.Log, spool: spool.New(spoolDir(o.Getenv)),
		mailboxSockets: map[string]bool{}, authSockets: map[string]bool{}, resolver: resolve.New(resolve.Options{}),
	}
	b.certificates.log, b.certificates.openFile = o.Log, b.options.open
	b.stores = newStores(o.Log, nil, b.remember(), func(error) {})
	return b
}

// Endpoints are the sockets that would be served.
func (i *Inspection) Endpoints() []Endpoint { return slices.Clone(i.builder.endpoints) }

// TableProblem is a table that cannot be opened.
type TableProblem struct {
	Spec string
	Err  error
}

// Tables opens every table that the configuration names once more and returns those that cannot be used, by name. lint gets what a table holds that
// hardly means what it seems to.
func (i *Inspection) Tables(lint func(spec, text string)) []TableProblem {
	if i.builder.postfix == nil {
		return nil
	}
	var problems []TableProblem
	shared := i.builder.tables()
	for key := range shared.open {
		spec := strings.TrimPrefix(key, aliasesPrefix)
		options := shared.tableOptions(spec != key)
		options.Warn = func(text string) { lint(spec, text) }
		options.Lint = options.Warn
		if _, err := table.Open(spec, options); err != nil {
			problems = append(problems, TableProblem{spec, err})
		}
	}
	slices.SortFunc(problems, func(a, b TableProblem) int { return strings.Compare(a.Spec, b.Spec) })
	return problems
}

// Junction is a place where main.cf hands mail or logins on.
type Junction struct {
	// Service is that of master.cf, Parameter what names the other end, Value its value, Where its position.
	Service, Parameter, Value string
	Where                     postfix.Position
	// Served tells that something takes what is handed on; Text says what that is, or what happens without.
	Served bool
	Text   string
}

// Junctions tells for each service where mail of each address class goes, and who checks logins.
func (i *Inspection) Junctions() []Junction {
	var list []Junction
	for _, t := range i.transports {
		for _, c := range []struct{ parameter, because string }{
			{"local_transport", "mydestination"}, {"virtual_transport", "virtual_mailbox_domains"}, {"relay_transport", "relay_domains"},
		} {
			if len(t.view.List(c.because)) > 0 {
				list = append(list, t.junction(c.parameter, t.view.String(c.parameter)))
			}
		}
		if value := t.view.String("mailbox_transport"); value != "" && len(t.view.List("mydestination")) > 0 {
			list = append(list, t.junction("mailbox_transport", value))
		}
		if t.view.Bool("smtpd_sasl_auth_enable") {
			j := Junction{
				Service: t.service.Name, Parameter: "smtpd_sasl_path", Value: t.view.String("smtpd_sasl_path"), Where: t.view.Where("smtpd_sasl_path"),
				Served: true, Text: "logins are checked in this program when dovecot.conf serves that socket, else over it",
			}
			if auth, err := t.authenticator(); err != nil {
				j.Served, j.Text = false, err.Error()
			} else if t.builder.accounts != nil && auth == any(t.builder.accounts) {
				j.Text = "the socket is dovecot.conf's own: logins are checked in this program"
			}
			list = append(list, j)
		}
	}
	return list
}

func (t *transport) junction(parameter, value string) Junction {
	j := Junction{Service: t.service.Name, Parameter: parameter, Value: value, Where: t.view.Where(parameter), Served: true}
	transport, nexthop, _ := strings.Cut(value, ":")
	switch hop, _ := t.hop(transport, nexthop); hop {
	case deliver.ToMailbox:
		j.Text = "the socket is dovecot.conf's own: mail goes into the mailboxes in this program"
	case deliver.ToLocal:
		j.Text = "aliases, then mailbox_transport"
		if t.view.String("mailbox_transport") == "" {
			j.Served, j.Text = false, "aliases work; mail for system users is refused with 451: set mailbox_transport = lmtp:unix:private/dovecot-lmtp, or whatever names the LMTP socket of dovecot.conf"
		}
	case deliver.ToError:
		j.Text = "mail is refused with that text"
	case deliver.ToRetry:
		j.Text = "mail is put off with that text"
	case deliver.ToDiscard:
		j.Text = "mail is thrown away"
	case deliver.ToAgent:
		j.Text = "mail goes to another program, one recipient at a time; its answer is what the sender hears"
	default:
		j.Served = false
		j.Text = fmt.Sprintf("transport %s is not served by this version: such mail is refused with 451 and stays with its sender", transport)
		if _, ok := t.builder.postfix.Service(transport, "unix"); !ok {
			j.Text = fmt.Sprintf("master.cf has no service %s of type unix: such mail is refused with 451", transport)
		}
	}
	return j
}

// RelayProblem is a service that refuses all mail because no restriction keeps strangers from relaying, or one that relays for too many.
type RelayProblem struct {
	Service string
	Where   postfix.Position
	Text    string
	// Open tells that strangers can relay; else mail is refused.
	Open bool
}

// Relay looks at who may send mail to other hosts' users.
func (i *Inspection) Relay() []RelayProblem {
	var list []RelayProblem
	for _, t := range i.transports {
		if rules, ok := t.rules.(interface{ OpenRelay() error }); ok && rules.OpenRelay() != nil {
			list = append(list, RelayProblem{
				Service: t.service.Name, Where: t.view.Where("smtpd_relay_restrictions"),
				Text: "would be an open relay, so every recipient is refused with 451, as in Postfix: " + strings.TrimPrefix(rules.OpenRelay().Error(), ": "),
			})
		}
		networks := t.hosts("mynetworks")
		for _, stranger := range []string{"192.0.2.77", "198.51.100.77", "8.8.8.8", "2001:db8::77", "2600::77"} {
			if networks != nil && networks("unknown", netip.MustParseAddr(stranger)) {
				list = append(list, RelayProblem{
					Service: t.service.Name, Where: t.view.Where("mynetworks"), Open: true,
					Text: fmt.Sprintf("mynetworks holds %s, an address of nobody here: whoever is in mynetworks may send mail anywhere", stranger),
				})
				break
			}
		}
	}
	return list
}

// CertificateUse is a pair of files that a setting names.
type CertificateUse struct {
	Pair certificate.Pair
	// Where is the setting's position, Setting its name.
	Where, Setting string
}

// Certificates lists the certificate and key files of both halves, each pair once.
func (i *Inspection) Certificates() []CertificateUse {
	var list []CertificateUse
	add := func(pair certificate.Pair, where, setting string) {
		if !slices.ContainsFunc(list, func(u CertificateUse) bool { return u.Pair == pair && u.Where == where }) {
			list = append(list, CertificateUse{pair, where, setting})
		}
	}
	for _, t := range i.transports {
		if smtpdTLSLevel(t.view) == "none" {
			continue
		}
		pairs, err := postfixPairs(t.view)
		if err != nil {
			continue
		}
		for _, pair := range pairs {
			name := "smtpd_tls_cert_file"
			if pair.KeyFile == pair.CertificateFile && t.view.IsSet("smtpd_tls_chain_files") {
				name = "smtpd_tls_chain_files"
			}
			add(pair, t.view.Where(name).String(), name)
		}
	}
	if i.builder.dovecot != nil {
		for _, protocol := range []string{"imap", "pop3", "lmtp"} {
			view := i.builder.dovecot.For(dovecot.Filter{Protocol: protocol})
			if file, ok := view.File("ssl_cert"); ok && view.String("ssl") != "no" {
				key, _ := view.File("ssl_key")
				add(certificate.Pair{CertificateFile: file, KeyFile: first(key, file)}, view.Where("ssl_cert").String(), "ssl_cert")
			}
		}
	}
	return list
}
