// Package remote is the contract of package store spoken over a connection between two processes of one machine, so that a store can live in
// another process: Serve is the side that has the store, Client the side that uses it. It is there for system users' mail, whose Maildirs only a
// process of that user may touch.
//
// It is not a network protocol: there is no authentication (whoever holds the other end of the socketpair is trusted with the mail behind
// it) and no compatibility with other versions beyond the version byte that each side sends first. File descriptors are not passed: a spooled
// message is shared by all its recipients, and one of them must not get a descriptor that writes to it.
//
// Each side takes the other for hostile. Whatever arrives is bounded by the constants in this file, and what a Client gets is checked
// before it is shown: an order of UIDs, a keyword's number or an identifier that cannot be is an error of the call, a frame that cannot be ends the
// connection. What no check can find is that the far side lies about the mail.
//
// The wire: after the version byte each side sends frames of a header (length of the payload in four octets, kind and marks in one, id in
// eight, little endian) and a payload. A call is two streams of octets under one id, the request and the answer, each in as many data frames
// as it takes; nobody sends more than window octets of a stream before the receiver has granted more. The id of a call that opened something names
// the open account, mailbox or body from then on; a drop of the id means that what the call returns, or returned, is not wanted any more.
package remote

import (
	"fmt"
	"log/slog"
	"time"

	"postilion/store"
)

// version is the first octet that each side sends.
const version = 1

// Limits of the wire. Lengths are in octets.
const (
	// maxPayload is the longest payload of a frame; a chunk of a message and what stands before it fit in.
	maxPayload = chunk + 1024
	// chunk is how much of a message is read at a time, and up to which size a message comes with the answer to Open.
	chunk = 64 << 10
	// firstChunk is how much of a larger message comes with the answer to Open.
	firstChunk = 16 << 10
	// window is how much of a stream may be on its way.
	window = 128 << 10
	// maxPending is how much may wait to be written before those who want to send more wait too.
	maxPending = 256 << 10
	// maxCalls is how many calls one connection carries at the same time; more wait at the client.
	maxCalls = 128
	// maxHandles is how many accounts, mailboxes and bodies one connection may have open.
	maxHandles = 8192
	// maxName is the longest name of a user, path, keyword or delivery in a request. Stores have narrower limits of their own.
	maxName = 1 << 20
	// maxPrefix is the longest trace header of a target.
	maxPrefix = 1 << 20
	// maxListed is the longest mailbox name that a client takes, maxID the longest object identifier (RFC 8474 section 4) and maxKeyword the longest keyword.
	maxListed  = 64 << 10
	maxID      = 255
	maxKeyword = 1024
	// maxErrorText is how much of an error's text travels.
	maxErrorText = 4 << 10
	// maxStructures is the sum of the message structures in one request or answer; a message with a longer one is parsed where it is needed.
	maxStructures = 1 << 20
	// maxTargets is how many targets a delivery, how many drafts an Append, how many rules a quota and how many keywords a message may have.
	maxTargets  = 1 << 16
	maxDrafts   = 1 << 16
	maxRules    = 1 << 12
	maxKeywords = 1 << 16
	// maxNames bounds the sum of the names in a list of mailboxes, subscriptions or accounts; each counts nameCost more.
	maxNames = 32 << 20
	nameCost = 64
	// maxRanges is how many ranges a set of UIDs may have.
	maxRanges = 1 << 20
	// maxUIDs is how many UIDs a list may have.
	maxUIDs = 1 << 22
	// maxMessage is the largest size of a message, and of all messages of one request.
	maxMessage = 1 << 40
)

// ErrLost is what calls return, wrapped, whose connection broke: those under way and all later ones. Whether the far side did what was asked is not
// known; a Delivery may be offered again with the same ID. It wraps store.ErrClosed.
var ErrLost = fmt.Errorf("connection to the process that holds the mail is lost: %w", store.ErrClosed)

// ErrProtocol is wrapped by errors about a far side that says what it must not.
var ErrProtocol = fmt.Errorf("the far side breaks the protocol: %w", store.ErrDamaged)

// Options of a Client; the zero value is usable.
type Options struct {
	// HandshakeTimeout is how long the far side may take to say its version; 0 means 10 seconds.
	HandshakeTimeout time.Duration
	// Timeout is how long a call that has no context (reading a Body, Subscribe, Close) waits, how long a write may stand still and how
	// long the far side may be silent while calls are under way; 0 means one minute. A far side that answers pings is not silent.
	Timeout time.Duration
	// MaxMessages is how many messages the mailboxes that are open may hold together, which bounds the memory that a hostile far side can fill
	// (some 200 octets each). A View that would exceed it is store.ErrTooMany; 0 means 2,097,152.
	MaxMessages int
}

func (o Options) withDefaults() Options {
	if o.HandshakeTimeout == 0 {
		o.HandshakeTimeout = 10 * time.Second
	}
	if o.Timeout == 0 {
		o.Timeout = time.Minute
	}
	if o.MaxMessages == 0 {
		o.MaxMessages = 2 << 20
	}
	return o
}

// Server is the side that has the store; its zero value is usable.
type Server struct {
	// SpoolDir is where messages above 256 KiB lie while they come in; "" is the system's temporary directory.
	SpoolDir string
	// HandshakeTimeout and WriteTimeout are as in Options.
	HandshakeTimeout, WriteTimeout time.Duration
	// Log is told of panics of the store, with the stack; nil says nothing.
	Log *slog.Logger
}

// operation is the first octet of a request.
type operation uint8

const (
	opOpen operation = iota + 1
	opDeliver
	opAccounts
	opList
	opSubscriptions
	opSubscribe
	opCreate
	opDelete
	opRename
	opStatus
	opMailbox
	opQuota
	opView
	opExpungedSince
	opBody
	opRead
	opStructure
	opAppend
	opCopy
	opMove
	opSetFlags
	opExpunge
	opTakeRecent
	opWatch
	opOrigins
)

// names are the operations as store.Error tells them.
func (o operation) String() string {
	switch o {
	case opOpen:
		return "open"
	case opDeliver:
		return "deliver"
	case opAccounts:
		return "list accounts"
	case opList:
		return "list"
	case opSubscriptions:
		return "read subscriptions"
	case opSubscribe:
		return "subscribe"
	case opCreate:
		return "create"
	case opDelete:
		return "delete"
	case opRename:
		return "rename"
	case opStatus:
		return "status"
	case opMailbox:
		return "open mailbox"
	case opQuota:
		return "read quota"
	case opView:
		return "view"
	case opExpungedSince:
		return "read expunges"
	case opBody, opRead, opStructure:
		return "read"
	case opAppend:
		return "append"
	case opCopy:
		return "copy"
	case opMove:
		return "move"
	case opSetFlags:
		return "set flags"
	case opExpunge:
		return "expunge"
	case opTakeRecent:
		return "select"
	case opWatch:
		return "watch"
	case opOrigins:
		return "read origins"
	}
	return "unknown operation"
}
