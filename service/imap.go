package service

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strings"

	"postilion/account"
	"postilion/config/dovecot"
	"postilion/server/imapd"
	"postilion/store"
)

func fileMode(mode int) fs.FileMode { return fs.FileMode(mode) & fs.ModePerm }

// imapMail opens a user's namespaces as the namespace sections say.
type imapMail struct {
	locations *locations
	view      *dovecot.View
}

// Open implements imapd.Mail.
func (m *imapMail) Open(ctx context.Context, u *account.User) ([]imapd.Namespace, error) {
	sections := m.view.Sections("namespace")
	var opened []imapd.Namespace
	fail := func(err error) ([]imapd.Namespace, error) {
		for _, ns := range opened {
			err = errors.Join(err, ns.Account.Close())
		}
		return nil, err
	}
	for _, s := range sections {
		ns, ok, err := m.namespace(ctx, u, s, len(sections) == 1)
		if err != nil {
			return fail(err)
		}
		if ok {
			opened = append(opened, ns)
		}
	}
	if len(sections) == 0 {
		mail, driver, err := m.open(ctx, u, "")
		if err != nil {
			return nil, err
		}
		opened = append(opened, imapd.Namespace{Separator: defaultSeparator(driver), Inbox: true, Subscriptions: true, Account: mail, RenameInbox: driver == "vault"})
	}
	return opened, nil
}

func (m *imapMail) open(ctx context.Context, u *account.User, location string) (store.Account, string, error) {
	place, owner, err := m.locations.owner(u, location)
	if err != nil {
		return nil, "", err
	}
	driver := "vault"
	if owner.Location != "" {
		driver = "maildir"
	}
	mail, err := place.Open(ctx, owner)
	return mail, driver, err
}

func defaultSeparator(driver string) byte {
	if driver == "maildir" {
		return '.'
	}
	return '/'
}

// namespace opens one section; ok is false for a disabled one.
func (m *imapMail) namespace(ctx context.Context, u *account.User, s *dovecot.Section, only bool) (imapd.Namespace, bool, error) {
	if s.Bool("disabled") {
		return imapd.Namespace{}, false, nil
	}
	mail, driver, err := m.open(ctx, u, s.String("location"))
	if err != nil {
		return imapd.Namespace{}, false, fmt.Errorf("namespace %s: %w", s.Name(), err)
	}
	ns := imapd.Namespace{
		Prefix: s.String("prefix"), Separator: defaultSeparator(driver), Inbox: s.Bool("inbox") || only,
		Hidden: s.Bool("hidden"), Subscriptions: s.Bool("subscriptions"), Account: mail, RenameInbox: driver == "vault",
	}
	if separator := s.String("separator"); separator != "" {
		ns.Separator = separator[0]
	}
	switch s.String("list") {
	case "no":
		ns.List = imapd.ListNo
	case "children":
		ns.List = imapd.ListChildren
	}
	switch s.String("type") {
	case "shared":
		ns.Kind = imapd.OtherUsers
	case "public":
		ns.Kind = imapd.Shared
	}
	for _, box := range s.Sections("mailbox") {
		setting := imapd.MailboxSetting{
			Name:       strings.ReplaceAll(box.Name(), string(ns.Separator), "/"),
			SpecialUse: box.String("special_use"),
		}
		switch box.String("auto") {
		case "create", "yes":
			setting.Auto = imapd.AutoYes
		case "subscribe":
			setting.Auto = imapd.AutoSubscribe
		}
		ns.Mailboxes = append(ns.Mailboxes, setting)
	}
	return ns, true, nil
}

// imapEndpoints builds the IMAP server of a configuration and the sockets it serves.
func (b *builder) imapEndpoints() error {
	view := b.dovecot.For(dovecot.Filter{Protocol: "imap"})
	locations, err := newLocations(b.stores, view)
	if err != nil {
		return err
	}
	tlsConfig, err := dovecotTLS(view, &b.certificates)
	if err != nil {
		return err
	}
	trusted, err := prefixes(view.List("login_trusted_networks"))
	if err != nil {
		return fmt.Errorf("%s: login_trusted_networks: %w", view.Where("login_trusted_networks"), err)
	}
	workarounds := view.List("imap_client_workarounds")
	options := imapd.Options{
		Auth: b.accounts, Mail: &imapMail{locations: locations, view: view}, Spool: b.spool, Log: b.dovecotLog,
		Greeting: view.String("login_greeting"), Capability: view.String("imap_capability"),
		DisablePlaintextAuth: view.Bool("disable_plaintext_auth") || view.String("ssl") == "required",
		Trusted:              trusted,
		IDLog:                view.List("imap_id_log"),
		MaxLine:              int(min(view.Size("imap_max_line_length"), 1<<30)), LiteralMinus: view.Bool("imap_literal_minus"),
		AppendLimit:    max(0, sizeOrZero(view, "mail_max_size")),
		MaxConnections: clientLimit(view, "imap-login"), MaxUserIP: view.Int("mail_max_userip_connections"),
		IdleNotify:   view.Duration("imap_idle_notify_interval"),
		DelayNewMail: hasWord(workarounds, "delay-newmail"), TBExtraMailboxSep: hasWord(workarounds, "tb-extra-mailbox-sep"),
		TBLSubFlags: hasWord(workarounds, "tb-lsub-flags"),
		IMAP4rev2:   view.Bool("postilion_imap4rev2"), UTF8Accept: view.Bool("postilion_imap4rev2"), MailboxID: view.Bool("postilion_imap_objectid"),
		CreateSpecialUse: view.Bool("postilion_imap_create_special_use"),
	}
	if root, ok := view.Plugin("quota"); ok && hasWord(view.List("mail_plugins"), "imap_quota") {
		options.QuotaRoot = quotaRootName(root)
	}
	if tlsConfig != nil {
		options.TLS = func() *tls.Config { return tlsConfig }
	}
	server := imapd.New(options)
	b.sessions = append(b.sessions, server.Sessions)
	return b.loginEndpoints(view, "imap", tlsConfig != nil, server.Serve, server.ServeTLS)
}

// quotaRootName is NAME in quota = DRIVER:NAME:PARAMETERS; without a name the root has an empty one.
func quotaRootName(root string) string {
	_, rest, _ := strings.Cut(root, ":")
	name, _, _ := strings.Cut(rest, ":")
	return name
}

func sizeOrZero(view *dovecot.View, name string) int64 {
	if !view.Set(name) {
		return 0
	}
	return view.Size(name)
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
func (b *builder) loginEndpoints(view *dovecot.View, protocol string, hasTLS bool, clear, implicit serveFunc) error {
	s, ok := view.Section("service", protocol+"-login")
	if !ok {
		return nil
	}
	for _, l := range s.Sections("inet_listener") {
		withTLS := l.Bool("ssl")
		if withTLS && !hasTLS {
			continue
		}
		if l.Bool("haproxy") {
			b.warn(l.Position().String(), "inet_listener "+l.Name()+": haproxy is not supported by this version for "+protocol+"; the listener is left out")
			continue
		}
		for _, e := range dovecotAddresses(view, l) {
			e.Protocol, e.TLS, e.serve = protocol, "no TLS", clear
			switch {
			case withTLS:
				e.Protocol, e.TLS, e.serve = protocol+"s", "TLS", implicit
			case hasTLS:
				e.TLS = "STARTTLS"
			}
			b.endpoints = append(b.endpoints, e)
		}
	}
	return nil
}

// spoolDir is where large messages wait while they come in.
func spoolDir(getenv func(string) string) string {
	return first(getenv("TMPDIR"), os.TempDir())
}
