package service

import (
	"context"
	"fmt"
	"log/slog"
	"path"
	"strings"
	"time"

	"postilion/config/dovecot"
	"postilion/store"
)

// expiryTime bounds what the end of a session may take for autoexpunge.
const expiryTime = 30 * time.Second

// expiry is one mailbox section with autoexpunge.
type expiry struct {
	// pattern is the mailbox's name, which may have the wildcards * and ?.
	pattern string
	// age is how long a message stays after it was saved, most how many stay; 0 is no limit.
	age  time.Duration
	most int
}

// expiring is an account whose old messages go when the session that opened it ends, as Dovecot's autoexpunge does it.
type expiring struct {
	store.Account
	rules []expiry
	log   *slog.Logger
}

// withExpiry adds the namespace's autoexpunge settings to an account.
func withExpiry(mail store.Account, namespace *dovecot.Section, log *slog.Logger) store.Account {
	var rules []expiry
	separator := first(namespace.String("separator"), "/")
	for _, box := range namespace.Sections("mailbox") {
		rule := expiry{
			pattern: strings.ReplaceAll(box.Name(), separator, "/"), age: box.Duration("autoexpunge"), most: box.Int("autoexpunge_max_mails"),
		}
		if rule.age > 0 || rule.most > 0 {
			rules = append(rules, rule)
		}
	}
	if len(rules) == 0 {
		return mail
	}
	return &expiring{Account: mail, rules: rules, log: log}
}

// Close implements store.Account.
func (e *expiring) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), expiryTime)
	defer cancel()
	if err := e.expire(ctx, time.Now()); err != nil {
		e.log.Error(fmt.Sprintf("autoexpunge: %v", err), "user", e.User())
	}
	return e.Account.Close()
}

func (e *expiring) expire(ctx context.Context, now time.Time) error {
	names, err := e.List(ctx)
	if err != nil {
		return err
	}
	for _, listed := range names {
		for _, rule := range e.rules {
			if matched, err := path.Match(rule.pattern, listed.Name); !listed.Selectable || err != nil || !matched {
				continue
			}
			if err := rule.apply(ctx, e.Account, listed.Name, now); err != nil {
				return fmt.Errorf("%s: %w", listed.Name, err)
			}
			break
		}
	}
	return nil
}

// apply expunges from the oldest on, until a message is young enough and there are few enough.
func (r *expiry) apply(ctx context.Context, mail store.Account, name string, now time.Time) error {
	box, err := mail.Mailbox(ctx, name)
	if err != nil {
		return err
	}
	defer box.Close()
	view, err := box.View(ctx)
	if err != nil {
		return err
	}
	var old store.UIDSet
	for i := range view.Len() {
		entry := view.Entry(i)
		saved := entry.SaveDate
		if saved.IsZero() {
			saved = entry.InternalDate
		}
		if tooOld := r.age > 0 && now.Sub(saved) >= r.age; !tooOld && (r.most == 0 || view.Len()-i <= r.most) {
			break
		}
		old = old.Add(entry.UID)
	}
	if old.Count() == 0 {
		return nil
	}
	_, err = box.Expunge(ctx, old, false)
	return err
}
