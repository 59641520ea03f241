package remote

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"postilion/store"
)

// Client is a store.Store that another process serves. Make it with NewClient and end it with Close.
type Client struct {
	options Options
	link    *link
	// slots holds a word for each call under way, those that nobody waits for any more among them.
	slots chan struct{}
	// background counts the goroutines of the connection.
	background sync.WaitGroup
	closing    sync.Once
	recent     recentViews

	// The rest is guarded by link.mu.

	// mailboxes are those that somebody subscribed to.
	mailboxes map[uint64]*mailbox
	// heard counts the frames that came.
	heard uint64
}

var _ store.Store = (*Client)(nil)

// NewClient returns the client of what the peer of conn serves. It does not wait: a peer that does not shake hands makes the first call fail.
func NewClient(conn net.Conn, options Options) *Client {
	options = options.withDefaults()
	c := &Client{
		options: options, link: newLink(conn, false, options.Timeout), slots: make(chan struct{}, maxCalls), mailboxes: map[uint64]*mailbox{},
	}
	c.recent.limit = options.MaxMessages
	c.background.Go(c.link.write)
	c.background.Go(func() {
		c.link.read(options.HandshakeTimeout, c.dispatch)
		c.tellAll()
	})
	c.background.Go(c.listen)
	return c
}

// Done is closed when the client cannot be used any more.
func (c *Client) Done() <-chan struct{} { return c.link.done }

// Err tells why the client cannot be used any more: store.ErrClosed after Close, else an error that wraps ErrLost; nil while it can.
func (c *Client) Err() error {
	if err := c.link.reason(); err != nil {
		return lost(err)
	}
	return nil
}

// Close waits for the calls under way, Options.Timeout at most, and ends the connection; the far side then closes what was open.
func (c *Client) Close() error {
	c.closing.Do(func() {
		limit := time.NewTimer(c.options.Timeout)
		defer limit.Stop()
	wait:
		for range maxCalls {
			select {
			case c.slots <- struct{}{}:
			case <-c.link.done:
				break wait
			case <-limit.C:
				break wait
			}
		}
		c.link.fail(store.ErrClosed)
	})
	c.background.Wait()
	return nil
}

// dispatch takes a frame of the server.
func (c *Client) dispatch(f frame) error {
	if f.kind == kindEvent {
		c.event(f)
		return nil
	}
	l := c.link
	l.mu.Lock()
	defer l.mu.Unlock()
	c.heard++
	x := l.exchanges[f.id]
	switch f.kind {
	case kindData:
		if x == nil {
			return fmt.Errorf("%w: an answer to call %d, which is not under way", ErrProtocol, f.id)
		}
		if f.last {
			c.ended(x)
		}
		return x.put(f)
	case kindCredit:
		if x != nil {
			return x.grant(f)
		}
	case kindDrop:
		if x != nil {
			x.void, x.ended = true, true
			x.signal()
			c.ended(x)
		}
	case kindPong:
	default:
		return fmt.Errorf("%w: a frame of kind %d", ErrProtocol, f.kind)
	}
	l.give(f.payload)
	return nil
}

// ended forgets a call whose answer is complete; link.mu is held.
func (c *Client) ended(x *exchange) {
	delete(c.link.exchanges, x.id)
	<-c.slots
}

// event tells the subscribers of a mailbox. The lock of the link is not held meanwhile.
func (c *Client) event(f frame) {
	c.link.mu.Lock()
	c.heard++
	m := c.mailboxes[f.id]
	c.link.mu.Unlock()
	c.link.give(f.payload)
	if m != nil {
		m.tell()
	}
}

// tellAll tells every subscriber after the connection ended: who looks at the mailbox then learns of it.
func (c *Client) tellAll() {
	c.link.mu.Lock()
	watched := slices.Collect(maps.Values(c.mailboxes))
	c.link.mu.Unlock()
	for _, m := range watched {
		m.tell()
	}
}

// listen ends the connection when the far side is silent though it owes an answer and was asked for a sign.
func (c *Client) listen() {
	ticker := time.NewTicker(c.options.Timeout / 2)
	defer ticker.Stop()
	heard, quiet := uint64(0), 0
	for {
		select {
		case <-c.link.done:
			return
		case <-ticker.C:
		}
		c.link.mu.Lock()
		now, owed := c.heard, len(c.link.exchanges) > 0
		if quiet++; !owed || now != heard {
			heard, quiet = now, 0
		} else if quiet == 1 {
			c.link.queue(kindPing, 0, nil)
		}
		c.link.mu.Unlock()
		if quiet > 1 {
			c.link.fail(fmt.Errorf("%w: it has been silent for %v", ErrLost, c.options.Timeout))
		}
	}
}

// call is a call at the client.
type call struct {
	client        *Client
	op            operation
	user, mailbox string
	ctx           context.Context
	exchange      *exchange
	out           encoder
	in            decoder
	// told tells that the error is the far side's, which says itself what failed.
	told bool
}

// begin starts a call. Its end must be deferred, also when begin fails.
func (c *Client) begin(ctx context.Context, op operation, user, mailbox string) (*call, error) {
	k := &call{client: c, op: op, user: user, mailbox: mailbox, ctx: ctx}
	if err := ctx.Err(); err != nil {
		return k, err
	}
	select {
	case c.slots <- struct{}{}:
	default:
		select {
		case c.slots <- struct{}{}:
		case <-c.link.done:
			return k, c.Err()
		case <-ctx.Done():
			return k, ctx.Err()
		}
	}
	k.exchange = newExchange(c.link, 0)
	k.out.begin(ctx, k.exchange)
	k.out.octet(byte(op))
	k.in.source, k.in.ctx = k.exchange, ctx
	return k, nil
}

// id is what a handle that the call opens is called by.
func (k *call) id() uint64 { return k.exchange.id }

// answer ends the request and reads the beginning of the answer: it returns the error that the far side tells.
func (k *call) answer() error {
	if err := k.out.end(); err != nil && !errors.Is(err, errAnswered) {
		return err
	}
	switch status := k.in.octet(); {
	case k.in.err != nil:
		return k.in.err
	case status == statusDone:
		return nil
	case status != statusFailed:
		return malformed("status %d", status)
	}
	err := k.in.error()
	if bad := k.in.finish(); bad != nil {
		return bad
	}
	k.told = true
	return err
}

// end gives back what the call holds and drops its result when there is an error. Errors of this side are told with the operation.
func (k *call) end(err *error) {
	if x := k.exchange; x != nil {
		l := k.client.link
		k.in.release()
		k.out.release()
		l.mu.Lock()
		x.abandoned = true
		x.clear()
		if *err != nil && !k.told && k.out.begun {
			l.queue(kindDrop, x.id, nil)
		}
		l.mu.Unlock()
		if !k.out.begun {
			<-k.client.slots
		}
	}
	if *err != nil && !k.told {
		*err = &store.Error{Operation: k.op.String(), User: k.user, Mailbox: k.mailbox, Err: *err}
	}
}

// drop tells the far side that a handle is not wanted any more.
func (c *Client) drop(id uint64) { c.link.tell(kindDrop, id) }

// timeout is the context of calls that have none.
func (c *Client) timeout() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), c.options.Timeout)
}

// Open implements store.Store.
func (c *Client) Open(ctx context.Context, owner store.Owner) (a store.Account, err error) {
	k, err := c.begin(ctx, opOpen, owner.User, "")
	defer k.end(&err)
	if err != nil {
		return nil, err
	}
	k.out.owner(&owner)
	if err := k.answer(); err != nil {
		return nil, err
	}
	if err := k.in.finish(); err != nil {
		return nil, err
	}
	return &account{client: c, id: k.id(), owner: owner}, nil
}

// Deliver implements store.Store. When ctx ends or the connection breaks, what became of the delivery is not known: it may be offered again.
func (c *Client) Deliver(ctx context.Context, delivery *store.Delivery) (outcomes []store.Outcome, err error) {
	user := ""
	if len(delivery.Targets) > 0 {
		user = delivery.Targets[0].Owner.User
	}
	k, err := c.begin(ctx, opDeliver, user, "")
	defer k.end(&err)
	if err != nil {
		return nil, err
	}
	if len(delivery.Targets) > maxTargets {
		return nil, fmt.Errorf("%w: %d targets of one delivery", store.ErrTooMany, len(delivery.Targets))
	}
	k.out.text(delivery.ID, maxName)
	k.out.truth(delivery.AllOrNothing)
	k.out.time(delivery.InternalDate)
	k.out.structure(delivery.Structure)
	k.out.number(uint64(len(delivery.Targets)))
	for i := range delivery.Targets {
		k.out.target(&delivery.Targets[i])
	}
	k.out.content(delivery.Content)
	if err := k.answer(); err != nil {
		return nil, err
	}
	for range delivery.Targets {
		outcome := store.Outcome{UID: k.in.uid(), Duplicate: k.in.truth()}
		if k.in.truth() {
			outcome.Err = k.in.error()
		}
		if (outcome.Err != nil && outcome.UID != 0) || (outcome.Err == nil && !outcome.Duplicate && outcome.UID == 0) {
			k.in.fail(malformed("an outcome that cannot be"))
		}
		if k.in.err != nil {
			return nil, k.in.err
		}
		outcomes = append(outcomes, outcome)
	}
	return outcomes, k.in.finish()
}

// Accounts implements store.Store.
func (c *Client) Accounts(ctx context.Context, fn func(user string) bool) error {
	users, err := c.users(ctx)
	if err != nil {
		return err
	}
	for _, user := range users {
		if !fn(user) {
			break
		}
	}
	return nil
}

func (c *Client) users(ctx context.Context) (users []string, err error) {
	k, err := c.begin(ctx, opAccounts, "", "")
	defer k.end(&err)
	if err != nil {
		return nil, err
	}
	if err := k.answer(); err != nil {
		return nil, err
	}
	for left := maxNames; k.in.truth(); {
		user := k.in.text(maxName, "a user")
		if left -= len(user) + nameCost; left < 0 {
			return nil, fmt.Errorf("%w: too many accounts to list", store.ErrTooMany)
		}
		users = append(users, user)
	}
	return users, k.in.finish()
}
