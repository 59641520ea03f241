package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"time"

	"postilion/account"
	"postilion/config/dovecot"
	"postilion/config/postfix"
	"postilion/mta/deliver"
	"postilion/resolve"
	"postilion/store/spool"
)

func isRefused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }

// builder makes a generation: everything that one reading of the configuration gives, before any socket is touched.
type builder struct {
	options Options
	stores  *stores
	spool   *spool.Spool

	postfix *postfix.Config
	dovecot *dovecot.Config

	log, postfixLog, dovecotLog *slog.Logger

	accounts     *account.Accounts
	resolver     *resolve.Resolver
	mailbox      *deliver.Mailbox
	certificates certificateSource
	endpoints    []Endpoint
	sessions     []func() int
	background   []func(ctx context.Context)
	closers      []io.Closer
	sinks        map[string]bool
	// mailboxSockets are the LMTP sockets that our own Dovecot half serves, by what main.cf calls them.
	mailboxSockets map[string]bool
	// authSockets are the auth sockets that our own Dovecot half serves.
	authSockets  map[string]bool
	sharedTables *tables
	agents       agents
	// inspecting builds without a trace on the disk.
	inspecting bool
}

func (b *builder) warn(where, text string) {
	if where != "" {
		text = where + ": " + text
	}
	b.log.Warn(text)
}

// build reads the configuration and makes all parts.
func (s *Server) build(ctx context.Context) (*builder, error) {
	b := &builder{
		options: s.options, spool: spool.New(spoolDir(s.options.Getenv)),
		mailboxSockets: map[string]bool{}, authSockets: map[string]bool{}, resolver: resolve.New(s.options.Resolve),
	}
	if err := b.read(); err != nil {
		return nil, err
	}
	s.logs.begin()
	if err := b.openLogs(s.logs); err != nil {
		return nil, err
	}
	b.sinks = s.logs.used()
	if s.current == nil {
		s.follow.set(b.log)
		s.log = s.follow.logger()
	}
	b.certificates.log, b.certificates.openFile = b.log, b.options.open
	if s.stores == nil {
		s.stores = newStores(s.log, s.options.Root, b.remember(), func(err error) {
			select {
			case s.fatal <- err:
			default:
			}
		})
	}
	b.stores = s.stores
	if b.dovecot != nil {
		if err := b.mailboxHalf(); err != nil {
			return nil, err
		}
	}
	if b.postfix != nil {
		if err := b.transportHalf(ctx); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// remember is how long delivery ids are known: as long as a message can be in a queue, and a day.
func (b *builder) remember() time.Duration {
	lifetime := 5 * 24 * time.Hour
	if b.postfix != nil {
		lifetime = b.postfix.View().Duration("maximal_queue_lifetime")
	}
	return lifetime + 24*time.Hour
}

func (b *builder) read() error { return b.readBy(b.options.open) }

func (b *builder) readBy(open func(name string) (*os.File, error)) error {
	if dir := b.options.PostfixDir; dir != "" {
		config, err := postfix.LoadWith(postfix.Options{Dir: dir, Open: open})
		if err != nil {
			return err
		}
		for _, d := range config.Check() {
			if d.Severity >= postfix.Fatal {
				err = errors.Join(err, errors.New(d.String()))
			}
		}
		if err != nil {
			return err
		}
		b.postfix = config
	}
	if file := b.options.DovecotFile; file != "" {
		config, err := dovecot.LoadWith(dovecot.Options{File: file, Open: open})
		if err != nil {
			return err
		}
		for _, d := range config.Errors() {
			err = errors.Join(err, d)
		}
		if err != nil {
			return err
		}
		b.dovecot = config
	}
	return nil
}

func (b *builder) openLogs(l *logs) error {
	hostname, err := os.Hostname()
	if err != nil {
		hostname = "localhost"
	}
	if b.postfix != nil {
		if b.postfixLog, err = l.postfixLog(b.postfix.View(), hostname); err != nil {
			return err
		}
		b.log = b.postfixLog
		for _, d := range b.postfix.Warnings() {
			b.log.Warn(fmt.Sprintf("%s: %s", d.Pos, d.Text))
		}
	}
	if b.dovecot != nil {
		if b.dovecotLog, err = l.dovecotLog(b.dovecot.For(dovecot.Filter{}), hostname); err != nil {
			return err
		}
		if b.log == nil {
			b.log = b.dovecotLog
		}
		for _, d := range b.dovecot.Warnings() {
			b.dovecotLog.Warn(d.Warn())
		}
	}
	return nil
}

// mailboxHalf builds what dovecot.conf asks for.
func (b *builder) mailboxHalf() error {
	view := b.dovecot.For(dovecot.Filter{})
	var err error
	if !b.inspecting {
		err = os.MkdirAll(view.String("base_dir"), 0o755)
	}
	if err != nil {
		return fmt.Errorf("%s: base_dir: %w", view.Where("base_dir"), err)
	}
	if b.accounts, err = newAccounts(view, &b.options, b.dovecotLog); err != nil {
		return err
	}
	if err := b.openVault(view); err != nil {
		return err
	}
	if err := b.mailboxAgent(); err != nil {
		return err
	}
	if err := b.authEndpoints(); err != nil {
		return fmt.Errorf("service auth: %w", err)
	}
	for _, protocol := range b.dovecot.Protocols() {
		switch protocol {
		case "imap", "imaps":
			err = b.imapEndpoints()
		case "pop3", "pop3s":
			err = b.pop3Endpoints()
		case "lmtp":
			err = b.lmtpEndpoints()
		case "none", "":
		default:
			b.dovecotLog.Warn(fmt.Sprintf("protocol %s is not served by this version", protocol))
		}
		if err != nil {
			return fmt.Errorf("%s: %w", protocol, err)
		}
	}
	return nil
}

// openVault opens the vault of mail_location before anybody is told that we are ready: one that another process owns, or that cannot be
// written, ends the start, not each delivery.
func (b *builder) openVault(view *dovecot.View) error {
	location := placed(view, view.String("mail_location"))
	if b.inspecting || !strings.HasPrefix(location, "vault:") || strings.Contains(location, "%") {
		return nil
	}
	if _, _, err := b.stores.at(location, -1, -1); err != nil {
		return fmt.Errorf("%s: mail_location: %w", view.Where("mail_location"), err)
	}
	return nil
}

// mailboxAgent makes the agent that delivers into mailboxes, for LMTP and for transports that lead to our own LMTP socket.
func (b *builder) mailboxAgent() error {
	view := b.dovecot.For(dovecot.Filter{Protocol: "lmtp"})
	locations, err := newLocations(b.stores, view)
	if err != nil {
		return err
	}
	b.mailbox = deliver.NewMailbox(deliver.MailboxOptions{
		Directory: b.accounts, Locate: locations.locate,
		Hostname:            first(view.String("hostname"), deliver.Hostname()),
		RecipientDelimiter:  view.String("recipient_delimiter"),
		SaveToDetailMailbox: view.Bool("lmtp_save_to_detail_mailbox"),
		AutoCreate:          view.Bool("lda_mailbox_autocreate"), AutoSubscribe: view.Bool("lda_mailbox_autosubscribe"),
		QuotaFullTempfail: view.Bool("quota_full_tempfail"), CheckQuota: view.Bool("lmtp_rcpt_check_quota") && !b.inspecting,
		AddReceived: view.Bool("lmtp_add_received_header"), DeliveryAddress: view.String("lmtp_hdr_delivery_address"),
		Log: b.dovecotLog,
	})
	return nil
}
