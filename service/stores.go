package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"postilion/account"
	"postilion/config/dovecot"
	"postilion/kv"
	"postilion/store"
	"postilion/store/maildir"
	"postilion/store/vault"
)

// stores holds the open mail stores of a process: one vault for each path that a mail_location names, and one Maildir store for all users. It
// outlives reloads.
type stores struct {
	log *slog.Logger
	// agents touch the Maildirs of other users; nil: this process touches them itself.
	agents *userAgents
	// remember is how long delivery ids are known.
	remember time.Duration
	// fatal is told when a database cannot go on; the process must end then.
	fatal func(error)

	mu      sync.Mutex
	vaults  map[string]*openVault
	maildir *maildir.Store
	closed  bool
}

type openVault struct {
	db    *kv.DB
	store *vault.Store
}

func newStores(log *slog.Logger, root Root, remember time.Duration, fatal func(error)) *stores {
	s := &stores{log: log, remember: remember, fatal: fatal, vaults: map[string]*openVault{}}
	if root != nil {
		s.agents = newUserAgents(root)
	}
	return s
}

// errNoDriver names the drivers of mail_location that this version has.
var errNoDriver = errors.New("only vault: and maildir: are supported by this version")

// splitLocation divides mail_location into driver and the rest.
func splitLocation(location string) (driver, rest string, err error) {
	driver, rest, found := strings.Cut(location, ":")
	if !found {
		return "", "", fmt.Errorf("mail_location %q has no driver: %w", location, errNoDriver)
	}
	switch driver {
	case "vault", "maildir":
		return driver, rest, nil
	}
	return "", "", fmt.Errorf("mail_location %q: %w", location, errNoDriver)
}

// placed gives a location that names no place one: the vault is in state_dir then, and an empty location means it.
func placed(view *dovecot.View, location string) string {
	if location == "" || location == "vault:" {
		return "vault:" + filepath.Join(view.String("state_dir"), "vault")
	}
	return location
}

// at returns the store for an expanded location of mail that belongs to uid and gid, and what Owner.Location is.
func (s *stores) at(location string, uid, gid int) (store.Store, string, error) {
	driver, rest, err := splitLocation(location)
	if err != nil {
		return nil, "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, "", store.ErrClosed
	}
	if driver == "vault" {
		v, err := s.vault(rest)
		return v, "", err
	}
	if s.agents != nil && uid >= 0 && uid != os.Geteuid() {
		agent, err := s.agents.of(uid, gid)
		return agent, rest, err
	}
	if s.maildir == nil {
		if s.maildir, err = maildir.Open(maildir.Options{DeliveryMemory: s.remember}); err != nil {
			return nil, "", err
		}
	}
	return s.maildir, rest, nil
}

func (s *stores) vault(path string) (store.Store, error) {
	if path == "" || strings.HasPrefix(path, "~") {
		return nil, fmt.Errorf("mail_location vault:%s: a vault holds the mail of all users and needs a path without ~ and %%-variables", path)
	}
	path = filepath.Clean(path)
	if open, ok := s.vaults[path]; ok {
		return open.store, nil
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("vault: %w", err)
	}
	db, err := kv.Open(path, kv.Options{Logger: s.log, OnFatal: s.fatal})
	if err != nil {
		return nil, fmt.Errorf("vault: %w", err)
	}
	opened, err := vault.Open(db, vault.Options{RememberDeliveries: s.remember, Logger: s.log})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("vault %s: %w", path, err), db.Close())
	}
	s.vaults[path] = &openVault{db: db, store: opened}
	return opened, nil
}

// close closes every store, when no session uses it any more.
func (s *stores) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	var errs []error
	for path, open := range s.vaults {
		if err := errors.Join(open.store.Close(), open.db.Close()); err != nil {
			errs = append(errs, fmt.Errorf("vault %s: %w", path, err))
		}
	}
	if s.maildir != nil {
		errs = append(errs, s.maildir.Close())
	}
	if s.agents != nil {
		errs = append(errs, s.agents.close())
	}
	return errors.Join(errs...)
}

// tidy ends what is kept for later and was not needed for some time.
func (s *stores) tidy(now time.Time) error {
	if s.agents == nil {
		return nil
	}
	return s.agents.tidy(now)
}

// locations turns users into places in stores, as one configuration says.
type locations struct {
	stores *stores
	view   *dovecot.View
	quota  []store.QuotaRule
}

func newLocations(s *stores, view *dovecot.View) (*locations, error) {
	l := &locations{stores: s, view: view}
	if root, ok := view.Plugin("quota"); !ok || root == "" || !hasWord(view.List("mail_plugins"), "quota") {
		return l, nil
	}
	for i := 1; ; i++ {
		name := "quota_rule"
		if i > 1 {
			name = fmt.Sprintf("quota_rule%d", i)
		}
		text, ok := view.Plugin(name)
		if !ok {
			return l, nil
		}
		rule, err := parseQuotaRule(text, wholeRule(l.quota))
		if err != nil {
			return nil, fmt.Errorf("plugin setting %s: %w", name, err)
		}
		l.quota = addRule(l.quota, rule)
	}
}

// addRule adds a rule; one for a mailbox that has a rule already adds its limits to that one.
func addRule(rules []store.QuotaRule, rule store.QuotaRule) []store.QuotaRule {
	for i := range rules {
		have := &rules[i]
		if have.Mailbox != rule.Mailbox || have.Relative != rule.Relative {
			continue
		}
		if rule.Bytes != 0 {
			have.Bytes = rule.Bytes
		}
		if rule.Messages != 0 {
			have.Messages = rule.Messages
		}
		have.Ignore = have.Ignore || rule.Ignore
		return rules
	}
	return append(rules, rule)
}

// wholeRule is the rule of *.
func wholeRule(rules []store.QuotaRule) store.QuotaRule {
	for _, r := range rules {
		if r.Mailbox == "*" {
			return r
		}
	}
	return store.QuotaRule{}
}

func hasWord(words []string, word string) bool {
	for _, w := range words {
		if w == word {
			return true
		}
	}
	return false
}

func userVars(u *account.User) dovecot.Vars {
	local, domain, _ := strings.Cut(u.Name, "@")
	return dovecot.VarMap(map[string]string{"u": u.Name, "n": local, "d": domain, "h": u.Home})
}

// owner places the user's mail of one namespace; location is that namespace's, "" for mail_location.
func (l *locations) owner(u *account.User, location string) (store.Store, store.Owner, error) {
	if location == "" {
		location = first(u.Mail, l.view.String("mail_location"))
	}
	location = placed(l.view, location)
	home, err := l.home(u)
	if err != nil {
		return nil, store.Owner{}, err
	}
	vars := userVars(&account.User{Name: u.Name, Home: home})
	expanded, err := dovecot.Expand(location, vars)
	if err != nil {
		return nil, store.Owner{}, fmt.Errorf("mail_location %q: %w", location, err)
	}
	rules, err := l.quotaOf(u)
	if err != nil {
		return nil, store.Owner{}, err
	}
	owner := store.Owner{User: l.accountName(u, home), Home: home, UID: u.UID, GID: u.GID, Quota: store.Quota{Rules: rules}}
	if owner.UID < 0 {
		if owner.UID, err = account.UserID(l.view.String("mail_uid")); err != nil {
			return nil, store.Owner{}, fmt.Errorf("mail_uid: %w", err)
		}
	}
	if owner.GID < 0 {
		if owner.GID, err = account.GroupID(l.view.String("mail_gid")); err != nil {
			return nil, store.Owner{}, fmt.Errorf("mail_gid: %w", err)
		}
	}
	place, rest, err := l.stores.at(expanded, owner.UID, owner.GID)
	if err != nil {
		return nil, store.Owner{}, err
	}
	owner.Location = rest
	if os.Geteuid() != 0 {
		// The process owns what it writes, and so does an agent.
		owner.UID, owner.GID = -1, -1
	}
	return place, owner, nil
}

// accountName is the name that a store keeps the user's mail under: that of the entry in userdb, when more names lead to it and none of them has
// a home of its own.
func (l *locations) accountName(u *account.User, home string) string {
	if u.Entry == "" {
		return u.Name
	}
	entry := *u
	entry.Name = u.Entry
	if other, err := l.home(&entry); err != nil || other != home {
		return u.Name
	}
	return u.Entry
}

func (l *locations) home(u *account.User) (string, error) {
	if u.Home != "" {
		return u.Home, nil
	}
	home, err := dovecot.Expand(l.view.String("mail_home"), userVars(u))
	if err != nil {
		return "", fmt.Errorf("mail_home: %w", err)
	}
	return home, nil
}

func (l *locations) quotaOf(u *account.User) ([]store.QuotaRule, error) {
	if len(u.QuotaRules) == 0 || !hasWord(l.view.List("mail_plugins"), "quota") {
		return l.quota, nil
	}
	// The user's rules replace the configuration's for the same mailbox.
	var rules []store.QuotaRule
	given := map[string]bool{}
	for _, text := range u.QuotaRules {
		rule, err := parseQuotaRule(text, wholeRule(l.quota))
		if err != nil {
			return nil, fmt.Errorf("userdb quota_rule of %s: %w", u.Name, err)
		}
		given[rule.Mailbox] = true
		rules = addRule(rules, rule)
	}
	for _, rule := range l.quota {
		if !given[rule.Mailbox] {
			rules = append(rules, rule)
		}
	}
	return rules, nil
}

// namespaceFor finds the namespace that a mailbox name of the user's clients belongs to and the name in its account.
func (l *locations) namespaceFor(mailbox string) (location, name string, err error) {
	if strings.EqualFold(mailbox, store.Inbox) {
		mailbox = store.Inbox
	}
	best, found := -1, ""
	name = mailbox
	for _, ns := range l.view.Sections("namespace") {
		prefix := ns.String("prefix")
		separator := first(ns.String("separator"), "/")
		if !strings.HasPrefix(mailbox, prefix) || len(prefix) <= best {
			continue
		}
		best, found = len(prefix), ns.String("location")
		name = strings.ReplaceAll(strings.TrimPrefix(mailbox, prefix), separator, "/")
	}
	if name == "" {
		return "", "", fmt.Errorf("mailbox %q: %w", mailbox, store.ErrName)
	}
	return found, name, nil
}

// locate is deliver.Locate.
func (l *locations) locate(_ context.Context, u *account.User, mailbox string) (store.Store, store.Owner, string, error) {
	location, name, err := l.namespaceFor(mailbox)
	if err != nil {
		return nil, store.Owner{}, "", err
	}
	place, owner, err := l.owner(u, location)
	return place, owner, name, err
}

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}
