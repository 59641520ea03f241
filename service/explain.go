package service

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"postilion/mta/deliver"
	"postilion/mta/policy"
)

// Question is a recipient of a mail that might come.
type Question struct {
	// Service is the smtpd service asked, by its name in master.cf or by smtp, submission or submissions; "" is the first one.
	Service string
	// Client is the client's address; the zero value stands for a stranger of 192.0.2.1.
	Client netip.Addr
	// Helo is what the client calls itself; "" makes it the address literal.
	Helo string
	// Sender is the reverse path, "" the null sender; Recipient the forward path.
	Sender, Recipient string
	// User is who logged in, "" nobody.
	User string
}

// Explanation is what the server would say to the question, and why.
type Explanation struct {
	// Service is the service asked, Where its line in master.cf.
	Service string `json:"service"`
	Where   string `json:"where"`

	Client      string `json:"client"`
	ClientName  string `json:"client_name"`
	ReverseName string `json:"reverse_name"`
	Helo        string `json:"helo"`
	Sender      string `json:"sender"`
	Recipient   string `json:"recipient"`
	User        string `json:"user,omitempty"`
	// TLS tells that the session is taken to be encrypted, because the service or the login wants it.
	TLS bool `json:"tls"`

	Stages []ExplainedStage `json:"stages"`
	// Accepted tells that no stage refuses; Reply is the refusal, or what the server says to RCPT.
	Accepted bool   `json:"accepted"`
	Reply    string `json:"reply"`
	// Destinations are where the mail ends, when it is accepted.
	Destinations []ExplainedDestination `json:"destinations,omitempty"`
	// Problems are what the log would hold besides, and what kept parts from being built.
	Problems []string `json:"problems,omitempty"`
}

// ExplainedStage is the decision at one command.
type ExplainedStage struct {
	Stage string          `json:"stage"`
	Steps []ExplainedStep `json:"steps,omitempty"`
	// Reply is a refusal, "" without one. Effects are what access tables ask for beside.
	Reply   string   `json:"reply,omitempty"`
	Effects []string `json:"effects,omitempty"`
	// Warnings are refusals that warn_if_reject turns into log lines.
	Warnings []string `json:"warnings,omitempty"`
	Problem  string   `json:"problem,omitempty"`
}

// ExplainedStep is a restriction, rewrite or route.
type ExplainedStep struct {
	What   string `json:"what"`
	Where  string `json:"where,omitempty"`
	Result string `json:"result,omitempty"`
	Detail string `json:"detail,omitempty"`
}

// ExplainedDestination is where mail for the recipient ends.
type ExplainedDestination struct {
	Recipient string          `json:"recipient"`
	Delivery  string          `json:"delivery"`
	Steps     []ExplainedStep `json:"steps,omitempty"`
}

// ErrNoService tells that master.cf has no such smtpd service.
var ErrNoService = errors.New("master.cf has no such smtpd service")

// explainTimeout bounds the look-ups of one stage.
const explainTimeout = 15 * time.Second

// Explain asks the rules, the router and the acceptor of a service what they would do; ctx bounds the look-ups.
func Explain(ctx context.Context, o InspectOptions, q Question) (*Explanation, error) {
	if o.Postfix == nil {
		return nil, errors.New("there is no main.cf: nothing receives mail by SMTP")
	}
	b := newInspector(o)
	x := &Explanation{Sender: q.Sender, Recipient: q.Recipient, Helo: q.Helo, User: q.User, Stages: []ExplainedStage{}}
	if b.dovecot != nil {
		if err := b.mailboxHalf(); err != nil {
			x.Problems = append(x.Problems, err.Error())
		}
	}
	t, err := b.transportNamed(q.Service)
	if err != nil {
		return nil, err
	}
	x.Service, x.Where = t.service.Name, t.service.Pos.String()
	t.route()
	checker, _, err := t.policy()
	if err != nil {
		return nil, err
	}
	session := t.sessionFor(ctx, x, q)
	x.ask(ctx, checker, session, q)
	if !x.Accepted {
		return x, nil
	}
	ctx, cancel := context.WithTimeout(ctx, explainTimeout)
	defer cancel()
	found, err := t.acceptor().Explain(ctx, q.Recipient)
	if err != nil {
		x.Problems = append(x.Problems, err.Error())
		x.Destinations = []ExplainedDestination{{Recipient: q.Recipient, Delivery: "451 4.3.0 after the data: " + err.Error()}}
		return x, nil
	}
	x.Destinations = destinations(found)
	return x, nil
}

func destinations(found []deliver.Explained) []ExplainedDestination {
	var list []ExplainedDestination
	for _, d := range found {
		to := ExplainedDestination{Recipient: d.Recipient, Delivery: d.Delivery}
		for _, s := range d.Trace {
			to.Steps = append(to.Steps, ExplainedStep{What: s.What, Where: placeOf(s.Where), Result: s.Result})
		}
		list = append(list, to)
	}
	return list
}

// placeOf is "" for what a built-in default gave.
func placeOf(where string) string {
	if where == "(default)" {
		return ""
	}
	return where
}

// transportNamed finds a service by its name, with or without /inet, or by what it is for.
func (b *builder) transportNamed(name string) (*transport, error) {
	name = strings.TrimSuffix(name, "/inet")
	all := b.transports()
	for _, match := range []func(t *transport) bool{
		func(t *transport) bool { return name == "" || t.service.Name == name },
		func(t *transport) bool { return t.protocol() == name },
		func(t *transport) bool { return strings.HasSuffix(t.service.Name, ":"+name) },
	} {
		if i := slices.IndexFunc(all, match); i >= 0 {
			return all[i], nil
		}
	}
	var names []string
	for _, t := range all {
		names = append(names, t.service.Name)
	}
	return nil, fmt.Errorf("%s: service %s/inet: %w; it has: %s", b.postfix.MasterFile(), name, ErrNoService, strings.Join(names, ", "))
}

// sessionFor makes what the server would know of the client.
func (t *transport) sessionFor(ctx context.Context, x *Explanation, q Question) *policy.Session {
	client := q.Client
	if !client.IsValid() {
		client = netip.AddrFrom4([4]byte{192, 0, 2, 1})
	}
	s := &policy.Session{
		ClientAddress: client, ClientPort: "12345", ClientName: "unknown", ReverseName: "unknown", NameStatus: policy.NameMissing, ReverseNameStatus: policy.NameMissing,
		ServerAddress: netip.AddrFrom4([4]byte{127, 0, 0, 1}), ServerPort: "25", Helo: q.Helo, Protocol: "ESMTP", Instance: "explain",
	}
	if t.view.Bool("smtpd_peername_lookup") {
		ctx, cancel := context.WithTimeout(ctx, explainTimeout)
		defer cancel()
		s.ClientName, s.ReverseName, s.NameStatus, s.ReverseNameStatus = t.names().LookupClient(ctx, client)
	}
	if s.Helo == "" {
		s.Helo = "[" + client.String() + "]"
		if client.Is6() {
			s.Helo = "[IPv6:" + client.String() + "]"
		}
	}
	x.TLS = q.User != "" || smtpdTLSLevel(t.view) == "encrypt"
	if x.TLS {
		s.Encryption = policy.Encryption{Protocol: "TLSv1.3", Cipher: "TLS_AES_256_GCM_SHA384", KeySize: 256}
	}
	if q.User != "" {
		s.SASLMethod, s.SASLUsername = "PLAIN", q.User
		if !t.view.Bool("smtpd_sasl_auth_enable") {
			x.Problems = append(x.Problems, fmt.Sprintf("service %s takes no logins (smtpd_sasl_auth_enable = no): the login is left out", t.service.Name))
			s.SASLMethod, s.SASLUsername = "", ""
		}
	}
	x.Client, x.ClientName, x.ReverseName, x.Helo = client.String(), s.ClientName, s.ReverseName, s.Helo
	return s
}

// ask goes through the stages as a session does, until one refuses.
func (x *Explanation) ask(ctx context.Context, checker policy.Checker, s *policy.Session, q Question) {
	for _, stage := range []struct {
		name   string
		stage  policy.Stage
		before func()
	}{
		{"connect", policy.Connect, func() {}},
		{"EHLO", policy.Helo, func() {}},
		{"MAIL", policy.Mail, func() { s.Sender, s.HasSender = q.Sender, true }},
		{"RCPT", policy.Rcpt, func() { s.Recipient = q.Recipient }},
		{"DATA", policy.Data, func() { s.RecipientCount = 1 }},
		{"end of data", policy.EndOfData, func() {}},
	} {
		stage.before()
		limited, cancel := context.WithTimeout(ctx, explainTimeout)
		d := checker.Check(limited, stage.stage, s)
		cancel()
		told := explainStage(stage.name, d)
		if len(told.Steps) > 0 || told.Reply != "" || told.Problem != "" {
			x.Stages = append(x.Stages, told)
		}
		switch d.Action {
		case policy.Refuse, policy.Drop:
			x.Reply = d.Reply
			return
		case policy.DiscardMessage:
			x.Reply = "250 2.1.5 Ok; the message is thrown away"
			return
		}
	}
	x.Accepted, x.Reply = true, "250 2.1.5 Ok"
}

func explainStage(name string, d policy.Decision) ExplainedStage {
	told := ExplainedStage{Stage: name, Warnings: d.Warnings, Reply: d.Reply}
	for _, s := range d.Trace {
		told.Steps = append(told.Steps, ExplainedStep{What: s.Restriction, Where: placeOf(s.Where), Result: s.Result, Detail: placeOf(s.Detail)})
	}
	for _, e := range d.Effects {
		told.Effects = append(told.Effects, strings.TrimSpace(e.Kind+" "+e.Argument))
	}
	if d.Problem != nil {
		told.Problem = d.Problem.Error()
	}
	return told
}

// InspectOptionsOf reads the configurations that Options name, as a server would; an error is what keeps it from starting.
func InspectOptionsOf(o Options) (InspectOptions, error) {
	b := &builder{options: o}
	if err := b.read(); err != nil {
		return InspectOptions{}, err
	}
	return InspectOptions{Postfix: b.postfix, PostfixDir: o.PostfixDir, Dovecot: b.dovecot, Getenv: o.Getenv}, nil
}
