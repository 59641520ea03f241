package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os/user"
	"strconv"
	"sync"
	"time"

	"postilion/service/child"
	"postilion/store"
	"postilion/store/maildir"
	"postilion/store/remote"
)

// agentRest is how long an agent without work is kept.
const agentRest = 2 * time.Minute

// ServeAgent is the life of an agent: it serves the Maildirs of the user whom this process runs as until the connection ends.
func ServeAgent(ctx context.Context, conn net.Conn, spoolDir string, remember time.Duration) error {
	mail, err := maildir.Open(maildir.Options{DeliveryMemory: remember})
	if err != nil {
		return err
	}
	server := remote.Server{SpoolDir: spoolDir}
	return errors.Join(server.Serve(ctx, conn, mail), mail.Close())
}

// userAgents keeps one agent for each user and group whose mail a server of another user handles.
type userAgents struct {
	root Root

	mu     sync.Mutex
	owners map[[2]int]*agentStore
	closed bool
}

func newUserAgents(root Root) *userAgents {
	return &userAgents{root: root, owners: map[[2]int]*agentStore{}}
}

// of returns the store of a user's Maildirs. gid -1 is the user's own group.
func (a *userAgents) of(uid, gid int) (*agentStore, error) {
	if gid < 0 {
		found, err := user.LookupId(strconv.Itoa(uid))
		if err != nil {
			return nil, fmt.Errorf("user id %d has no group: set gid in the userdb, or mail_gid: %w", uid, err)
		}
		if gid, err = strconv.Atoi(found.Gid); err != nil {
			return nil, fmt.Errorf("group of user id %d: %w", uid, err)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return nil, store.ErrClosed
	}
	key := [2]int{uid, gid}
	s, ok := a.owners[key]
	if !ok {
		s = &agentStore{root: a.root, id: child.Identity{UID: uid, GID: gid}}
		a.owners[key] = s
	}
	return s, nil
}

// tidy ends agents that rest.
func (a *userAgents) tidy(now time.Time) error {
	a.mu.Lock()
	var all []*agentStore
	for _, s := range a.owners {
		all = append(all, s)
	}
	a.mu.Unlock()
	var errs []error
	for _, s := range all {
		errs = append(errs, s.rest(now.Add(-agentRest)))
	}
	return errors.Join(errs...)
}

// close ends all agents.
func (a *userAgents) close() error {
	a.mu.Lock()
	a.closed = true
	owners := a.owners
	a.owners = map[[2]int]*agentStore{}
	a.mu.Unlock()
	var errs []error
	for _, s := range owners {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}

// agentStore is a store.Store that an agent serves, started when it is needed and again when it died.
type agentStore struct {
	root Root
	id   child.Identity

	mu     sync.Mutex
	client *remote.Client
	// busy counts open accounts and deliveries; idle is since when it is 0.
	busy   int
	idle   time.Time
	closed bool
}

// take returns the client of a living agent. The caller gives it back.
func (s *agentStore) take(ctx context.Context) (*remote.Client, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, store.ErrClosed
	}
	if s.client != nil && s.client.Err() != nil {
		// It died; what Close finds is what was told already.
		_ = s.client.Close()
		s.client = nil
	}
	if s.client == nil {
		conn, err := s.root.Agent(ctx, &s.id)
		if err != nil {
			return nil, fmt.Errorf("become user %d: %w", s.id.UID, err)
		}
		s.client = remote.NewClient(conn, remote.Options{})
	}
	s.busy++
	return s.client, nil
}

func (s *agentStore) giveBack() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy--
	s.idle = time.Now()
}

// rest ends the agent when it has had no work since the time.
func (s *agentStore) rest(since time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.client == nil || s.busy > 0 || s.idle.After(since) {
		return nil
	}
	err := s.client.Close()
	s.client = nil
	return err
}

// lost tells that an operation failed because its agent had died before or while it was asked.
func lost(err error) bool { return errors.Is(err, remote.ErrLost) }

// Open implements store.Store.
func (s *agentStore) Open(ctx context.Context, owner store.Owner) (store.Account, error) {
	for try := 0; ; try++ {
		client, err := s.take(ctx)
		if err != nil {
			return nil, err
		}
		account, err := client.Open(ctx, owner)
		if err == nil {
			return &agentAccount{Account: account, store: s}, nil
		}
		s.giveBack()
		if try > 0 || !lost(err) || ctx.Err() != nil {
			return nil, err
		}
	}
}

// agentAccount keeps its agent at work until it is closed.
type agentAccount struct {
	store.Account
	store *agentStore
	once  sync.Once
}

// Close implements store.Account.
func (a *agentAccount) Close() error {
	defer a.once.Do(a.store.giveBack)
	return a.Account.Close()
}

// Deliver implements store.Store. A delivery whose agent died is offered once more: its id keeps it from being there twice.
func (s *agentStore) Deliver(ctx context.Context, delivery *store.Delivery) ([]store.Outcome, error) {
	for try := 0; ; try++ {
		client, err := s.take(ctx)
		if err != nil {
			return nil, err
		}
		outcomes, err := client.Deliver(ctx, delivery)
		s.giveBack()
		if try > 0 || !lost(err) || delivery.ID == "" || ctx.Err() != nil {
			return outcomes, err
		}
	}
}

// Accounts implements store.Store.
func (s *agentStore) Accounts(ctx context.Context, fn func(user string) bool) error {
	client, err := s.take(ctx)
	if err != nil {
		return err
	}
	defer s.giveBack()
	return client.Accounts(ctx, fn)
}

// Close implements store.Store.
func (s *agentStore) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.client == nil {
		return nil
	}
	err := s.client.Close()
	s.client = nil
	if lost(err) || errors.Is(err, io.EOF) {
		// It died before; whoever used it was told.
		return nil
	}
	return err
}
