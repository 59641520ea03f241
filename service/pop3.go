package service

import (
	"context"
	"errors"
	"log/slog"
	"strings"

	"postilion/account"
	"postilion/config/dovecot"
	"postilion/mta/deliver"
	"postilion/server/pop3d"
	"postilion/store"
)

// pop3Mail opens the account of the namespace that holds INBOX.
type pop3Mail struct {
	locations *locations
	view      *dovecot.View
	log       *slog.Logger
}

// Open implements pop3d.Mail.
func (m *pop3Mail) Open(ctx context.Context, u *account.User) (store.Account, error) {
	place, owner, err := m.locations.owner(u, inboxLocation(m.view))
	if err != nil {
		return nil, err
	}
	mail, err := place.Open(ctx, owner)
	if s := inboxNamespace(m.view); s != nil && err == nil {
		mail = withExpiry(mail, s, m.log)
	}
	return mail, err
}

// inboxNamespace is the namespace with inbox = yes, nil when there is none.
func inboxNamespace(view *dovecot.View) *dovecot.Section {
	sections := view.Sections("namespace")
	for _, s := range sections {
		if !s.Bool("disabled") && (s.Bool("inbox") || len(sections) == 1) {
			return s
		}
	}
	return nil
}

// inboxLocation is its location setting, "" for mail_location.
func inboxLocation(view *dovecot.View) string {
	if s := inboxNamespace(view); s != nil {
		return s.String("location")
	}
	return ""
}

// pop3Endpoints builds the POP3 server of a configuration and the sockets it serves.
func (b *builder) pop3Endpoints() error {
	view := b.dovecot.For(dovecot.Filter{Protocol: "pop3"})
	locations, err := newLocations(b.stores, view)
	if err != nil {
		return err
	}
	common, err := b.loginOptions(view, "pop3")
	if err != nil {
		return err
	}
	deletedFlag := view.String("pop3_deleted_flag")
	deleteFlags := deletedFlag != "" && view.String("pop3_delete_type") != "expunge"
	if deletedFlag == "" && view.String("pop3_delete_type") == "flag" {
		return errors.New("pop3_delete_type=flag, but pop3_deleted_flag not set")
	}
	workarounds := view.List("pop3_client_workarounds")
	options := pop3d.Options{
		Options: common, Auth: b.accounts, Mail: &pop3Mail{locations: locations, view: view, log: b.dovecotLog}, Expand: expandMap,
		Greeting: view.String("login_greeting"), Hostname: first(view.String("hostname"), deliver.Hostname()),
		APOP:                 hasWord(strings.Fields(strings.ToLower(view.String("auth_mechanisms"))), "apop"),
		DisablePlaintextAuth: view.Bool("disable_plaintext_auth") || view.String("ssl") == "required",
		SSLRequired:          view.String("ssl") == "required",
		NoFlagUpdates:        view.Bool("pop3_no_flag_updates"), EnableLast: view.Bool("pop3_enable_last"),
		ReuseXUIDL: view.Bool("pop3_reuse_xuidl"), LockSession: view.Bool("pop3_lock_session"),
		UIDLFormat: view.String("pop3_uidl_format"), RenameDuplicates: view.String("pop3_uidl_duplicates") == "rename",
		DeletedFlag: deletedFlag, DeleteFlags: deleteFlags,
		OutlookNoNULs: hasWord(workarounds, "outlook-no-nuls"), OENSEndOfHeader: hasWord(workarounds, "oe-ns-eoh"),
		LogoutFormat: view.String("pop3_logout_format"),
	}
	return b.loginEndpoints(view, "pop3", common.TLS != nil, pop3d.New(options).Gate)
}
