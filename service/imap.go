package service

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
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
	log       *slog.Logger
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
	ns.Account = withExpiry(mail, s, m.log)
	return ns, true, nil
}

// imapEndpoints builds the IMAP server of a configuration and the sockets it serves.
func (b *builder) imapEndpoints() error {
	view := b.dovecot.For(dovecot.Filter{Protocol: "imap"})
	locations, err := newLocations(b.stores, view)
	if err != nil {
		return err
	}
	common, err := b.loginOptions(view, "imap")
	if err != nil {
		return err
	}
	workarounds := view.List("imap_client_workarounds")
	options := imapd.Options{
		Options: common, Auth: b.accounts, Mail: &imapMail{locations: locations, view: view, log: b.dovecotLog}, Spool: b.spool,
		Greeting: view.String("login_greeting"), Capability: view.String("imap_capability"),
		DisablePlaintextAuth: view.Bool("disable_plaintext_auth") || view.String("ssl") == "required",
		IDLog:                view.List("imap_id_log"),
		MaxLine:              int(min(view.Size("imap_max_line_length"), 1<<30)), LiteralMinus: view.Bool("imap_literal_minus"),
		AppendLimit:  max(0, sizeOrZero(view, "mail_max_size")),
		IdleNotify:   view.Duration("imap_idle_notify_interval"),
		DelayNewMail: hasWord(workarounds, "delay-newmail"), TBExtraMailboxSep: hasWord(workarounds, "tb-extra-mailbox-sep"),
		TBLSubFlags: hasWord(workarounds, "tb-lsub-flags"),
		IMAP4rev2:   view.Bool("postilion_imap4rev2"), UTF8Accept: view.Bool("postilion_imap4rev2"), MailboxID: view.Bool("postilion_imap_objectid"),
		SpecialUse:       hasSpecialUse(view),
		CreateSpecialUse: view.Bool("postilion_imap_create_special_use"),
	}
	if root, ok := view.Plugin("quota"); ok && hasWord(view.List("mail_plugins"), "imap_quota") {
		options.QuotaRoot = quotaRootName(root)
	}
	return b.loginEndpoints(view, "imap", common.TLS != nil, imapd.New(options).Gate)
}

// hasSpecialUse tells whether some mailbox section names a special use.
func hasSpecialUse(view *dovecot.View) bool {
	for _, ns := range view.Sections("namespace") {
		for _, box := range ns.Sections("mailbox") {
			if box.String("special_use") != "" {
				return true
			}
		}
	}
	return false
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

// spoolDir is where large messages wait while they come in.
func spoolDir(getenv func(string) string) string {
	return first(getenv("TMPDIR"), os.TempDir())
}
