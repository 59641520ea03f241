package authd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"postilion/account"
	"postilion/proto/dovecotauth"
)

// listChunk is how many octets of a list are gathered before they are sent.
const listChunk = 32 << 10

func (s *Server) serveLookups(ctx context.Context, c *conn) {
	c.send(dovecotauth.MasterGreeting(nil, s.pid))
	var listener dovecotauth.MasterListener
	for {
		wait := idleTime
		if !listener.Greeted() {
			wait = helloTime
		}
		line, ok := c.next(wait)
		if !ok {
			return
		}
		lookup, err := listener.Take(line)
		if err != nil {
			c.log.Error(fmt.Sprintf("auth: BUG: Master client: %v", err))
			return
		}
		switch lookup.Question {
		case dovecotauth.User:
			c.do(func() { s.answerUser(ctx, c, &lookup) })
		case dovecotauth.Pass:
			c.do(func() { s.answerPass(ctx, c, &lookup) })
		case dovecotauth.List:
			c.do(func() { s.answerList(ctx, c, &lookup) })
		case dovecotauth.FlushCache:
			answer := dovecotauth.Answer{Finding: dovecotauth.Flushed, ID: lookup.ID}
			c.send(answer.Append(nil))
		}
	}
}

// UserFields are a user's userdb fields in the order in which they are told.
func UserFields(u *account.User) dovecotauth.Params {
	var fields dovecotauth.Params
	add := func(name, value string) { fields = append(fields, dovecotauth.Param{Name: name, Value: value}) }
	if u.UID >= 0 {
		add("uid", strconv.Itoa(u.UID))
	}
	if u.GID >= 0 {
		add("gid", strconv.Itoa(u.GID))
	}
	if u.Home != "" {
		add("home", u.Home)
	}
	for i, rule := range u.QuotaRules {
		name := "quota_rule"
		if i > 0 {
			name += strconv.Itoa(i + 1)
		}
		add(name, rule)
	}
	if u.Mail != "" {
		add("mail", u.Mail)
	}
	var others []string
	for name := range u.Fields {
		others = append(others, name)
	}
	slices.Sort(others)
	for _, name := range others {
		add(name, u.Fields[name])
	}
	return fields
}

func (s *Server) answerUser(ctx context.Context, c *conn, lookup *dovecotauth.Lookup) {
	user, err := s.options.Directory.Lookup(ctx, clientOf(lookup.Params), lookup.Name)
	if err != nil {
		s.answerError(c, lookup, err)
		return
	}
	answer := dovecotauth.Answer{Finding: dovecotauth.Found, ID: lookup.ID, Name: user.Name, Fields: UserFields(user)}
	c.send(answer.Append(nil))
}

func (s *Server) answerPass(ctx context.Context, c *conn, lookup *dovecotauth.Lookup) {
	if s.options.Passdb == nil {
		s.answerError(c, lookup, fmt.Errorf("%w: passdb lookups are not served here", account.ErrUnavailable))
		return
	}
	user, extra, err := s.options.Passdb.PassdbFields(ctx, clientOf(lookup.Params), lookup.Name)
	if err != nil {
		s.answerError(c, lookup, err)
		return
	}
	answer := dovecotauth.Answer{Finding: dovecotauth.Found, ID: lookup.ID, Pass: true, Fields: dovecotauth.Params{{Name: "user", Value: user}}}
	for _, f := range extra {
		answer.Fields = append(answer.Fields, dovecotauth.Param{Name: f.Name, Value: f.Value})
	}
	c.send(answer.Append(nil))
}

func (s *Server) answerError(c *conn, lookup *dovecotauth.Lookup, err error) {
	answer := dovecotauth.Answer{Finding: dovecotauth.Failed, ID: lookup.ID}
	if errors.Is(err, account.ErrNoUser) {
		answer.Finding = dovecotauth.NotFound
	} else {
		c.log.Error(fmt.Sprintf("auth: lookup(%s): %v", lookup.Name, err))
	}
	c.send(answer.Append(nil))
}

func (s *Server) answerList(ctx context.Context, c *conn, lookup *dovecotauth.Lookup) {
	var text []byte
	err := s.options.Directory.Users(ctx, func(name string) bool {
		listed := dovecotauth.Answer{Finding: dovecotauth.Listed, ID: lookup.ID, Name: name}
		if text = listed.Append(text); len(text) >= listChunk {
			c.send(text)
			text = text[:0]
		}
		return ctx.Err() == nil
	})
	if len(text) > 0 {
		c.send(text)
	}
	if err != nil {
		c.log.Error(fmt.Sprintf("auth: list of users: %v", err))
		end := dovecotauth.AppendLine(nil, "DONE", strconv.FormatUint(uint64(lookup.ID), 10), "fail")
		c.send(end)
		return
	}
	done := dovecotauth.Answer{Finding: dovecotauth.Done, ID: lookup.ID}
	c.send(done.Append(nil))
}
