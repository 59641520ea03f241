package smtp

// EventKind says what the engine wants from the session.
type EventKind uint8

// The events. For those named Check the session answers with Permit or Refuse before it calls Next again.
const (
	// More: all input is used up; write Output, then read.
	More EventKind = iota
	// Notice: Text is a line for the log; Warning tells its weight.
	Notice
	// Pause: the client made too many errors; wait smtpd_error_sleep_time before its next reply goes out.
	Pause
	// Abandon: the transaction that was under way is gone; forget what was kept of it.
	Abandon
	// CheckConnect comes first of all. Refuse makes the refusal the greeting.
	CheckConnect
	// CheckHelo: Text is the host name as given.
	CheckHelo
	// CheckMail: Envelope has sender and parameters; Size the announced size.
	CheckMail
	// CheckRcpt: Text is the recipient; Envelope does not hold it yet.
	CheckRcpt
	// CheckData comes at DATA and at the first BDAT.
	CheckData
	// CheckEndOfData comes when the whole message was handed out without error.
	CheckEndOfData
	// CheckEtrn: Text is the domain.
	CheckEtrn
	// CheckVerify: Text is the address of VRFY.
	CheckVerify
	// CheckTLS comes at STARTTLS: Permit means that a handshake will follow; Refuse answers instead.
	CheckTLS
	// Handshake: write Output, drop unused input, shake hands, then call TLSStarted or end the session.
	Handshake
	// AuthStart: Text is the mechanism, Data the initial response, nil without one. Answer with Challenge, Authenticated or AuthFailed.
	AuthStart
	// AuthNext: Data is the client's response. Answer as for AuthStart.
	AuthNext
	// AuthAborted: the client gave up; no answer is due.
	AuthAborted
	// FlushQueue: ETRN was permitted for domain Text; answer with Reply.
	FlushQueue
	// XClient: Attributes override what is known of the client. Update it, call SetPeer, and go on: CheckConnect follows.
	XClient
	// XForward: Attributes describe where the next message came from; no answer is due.
	XForward
	// MessageData: Data holds the next octets of the message, valid until the next call.
	MessageData
	// EndOfMessage: the message is complete and permitted. Answer with Reply, or with ReplyEach in LMTP.
	EndOfMessage
	// Close: write Output and end the session. Text is the reason for the log, "" for QUIT.
	Close

	// again goes on inside Next.
	again EventKind = 255
)

// Event is one step of a session.
type Event struct {
	Kind    EventKind
	Text    string
	Data    []byte
	Warning bool
	// Attributes belong to XClient and XForward.
	Attributes []Attribute
}

// Attribute is one name and value of XCLIENT or XFORWARD, decoded. Unavailable and Temporary stand for [UNAVAILABLE] and [TEMPUNAVAIL];
// Value is then empty.
type Attribute struct {
	Name, Value            string
	Unavailable, Temporary bool
}
