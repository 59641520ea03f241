package deliver

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"syscall"
	"time"

	"postilion/mail/envelope"
	"postilion/proto/smtp"
)

// PipeOptions configure a Pipe. Attributes are the arguments of the service in master.cf, as pipe(8) describes them.
type PipeOptions struct {
	// Service is the service's name, Program stands in log lines: postfix/pipe.
	Service, Program string
	Log              *slog.Logger
	Attributes       []string
	// QueueDirectory is where commands run unless directory= says otherwise.
	QueueDirectory string
	// Environment are the variables of export_environment, Extra the recipient delimiters of recipient_delimiter.
	Environment []string
	Delimiter   string
	// TimeLimit is SERVICE_time_limit.
	TimeLimit time.Duration
	// Identity is whom a command runs as: nil is this process's own identity. An error puts mail off.
	Identity func(user, group string) (*syscall.Credential, error)
	// Run runs the commands, as whom and where the service says, for a process that cannot itself; nil has them run as children of this process.
	Run Run
	// Processes bounds the commands at a time; 0 is no limit.
	Processes int
}

// Pipe hands mail to a command, as pipe(8) does. Its methods may be called at the same time.
type Pipe struct {
	options    PipeOptions
	log        outcomeLog
	attributes pipeAttributes
	slots      chan struct{}
}

// pipeAttributes are the arguments of the service, read.
type pipeAttributes struct {
	flags, eol, nullSender, directory string
	user, group                       string
	size                              int64
	argv                              []string
}

// NewPipe reads the attributes.
func NewPipe(options PipeOptions) (*Pipe, error) {
	attributes, err := readPipeAttributes(options.Attributes)
	if err != nil {
		return nil, fmt.Errorf("service %s: %w", options.Service, err)
	}
	p := &Pipe{options: options, attributes: attributes, log: outcomeLog{options.Log, options.Program}}
	if options.Processes > 0 {
		p.slots = make(chan struct{}, options.Processes)
	}
	return p, nil
}

func readPipeAttributes(words []string) (pipeAttributes, error) {
	a := pipeAttributes{eol: "\n", nullSender: "MAILER-DAEMON"}
	for i, word := range words {
		name, value, found := strings.Cut(word, "=")
		if !found {
			return a, fmt.Errorf("pipe attribute %q has no value", word)
		}
		switch name {
		case "flags":
			if rest := strings.Trim(value, "BDFORXhqu.>"); rest != "" {
				return a, fmt.Errorf("unknown flag in flags=%s", value)
			}
			a.flags = value
		case "eol":
			a.eol = unescape(value)
		case "null_sender":
			a.nullSender = value
		case "directory":
			a.directory = value
		case "user":
			a.user, a.group, _ = strings.Cut(value, ":")
		case "size":
			if _, err := fmt.Sscan(value, &a.size); err != nil || a.size < 0 {
				return a, fmt.Errorf("bad size limit in size=%s", value)
			}
		case "argv":
			a.argv = append([]string{value}, words[i+1:]...)
			if a.user == "" || value == "" {
				return a, fmt.Errorf("missing user= attribute or command")
			}
			return a, nil
		default:
			return a, fmt.Errorf("unknown or unsupported pipe attribute %q", name)
		}
	}
	return a, fmt.Errorf("missing argv= attribute")
}

// PipeCommand is what the arguments of a service in master.cf fix of its commands.
type PipeCommand struct {
	// User and Group are user=, Directory is directory=, "" when they are not given.
	User, Group, Directory string
	Words                  []PipeWord
}

// PipeWord is a word of argv=.
type PipeWord struct {
	// Text is the whole word, or what stands before its first macro.
	Text string
	// Macro tells that it has macros, Each that it stands once for each recipient.
	Macro, Each bool
}

// ReadPipeCommand reads the arguments of a service.
func ReadPipeCommand(attributes []string) (PipeCommand, error) {
	a, err := readPipeAttributes(attributes)
	if err != nil {
		return PipeCommand{}, err
	}
	c := PipeCommand{User: a.user, Group: a.group, Directory: a.directory}
	for _, argument := range a.argv {
		// No argument of a program has an octet 0.
		text, each := expandMacros(argument, func(name string) (string, bool, bool) { return "\x00", recipientMacro(name), true })
		text, _, macro := strings.Cut(text, "\x00")
		c.Words = append(c.Words, PipeWord{Text: text, Macro: macro, Each: each})
	}
	return c, nil
}

// recipientMacro tells whether a macro's value differs between recipients.
func recipientMacro(name string) bool {
	switch name {
	case "recipient", "original_recipient", "user", "extension", "mailbox", "domain":
		return true
	}
	return false
}

// unescape reads C's backslash sequences.
func unescape(text string) string {
	simple := map[byte]byte{'a': 7, 'b': 8, 'f': 12, 'n': 10, 'r': 13, 't': 9, 'v': 11, '\\': '\\'}
	var out []byte
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' || i+1 == len(text) {
			out = append(out, text[i])
			continue
		}
		i++
		if c, ok := simple[text[i]]; ok {
			out = append(out, c)
			continue
		}
		value, digits := 0, 0
		for digits < 3 && i < len(text) && text[i] >= '0' && text[i] <= '7' {
			value = value<<3 + int(text[i]-'0')
			digits++
			i++
		}
		i--
		if digits > 0 {
			out = append(out, byte(value))
		} else {
			i++
			out = append(out, text[i])
		}
	}
	return string(out)
}

func (a *pipeAttributes) has(flag byte) bool { return strings.IndexByte(a.flags, flag) >= 0 }

// Deliver implements Agent.
func (p *Pipe) Deliver(ctx context.Context, job *Job) []Outcome {
	began := time.Now()
	o := p.deliver(ctx, job)
	o.Relay, o.Transmission = p.options.Service, time.Since(began)
	outcomes := forAll(job, o)
	for i := range outcomes {
		p.log.write(job.Envelope, job.Envelope.Recipients[i].Address, job.Given[i], began, &outcomes[i])
	}
	return outcomes
}

func (p *Pipe) deliver(ctx context.Context, job *Job) Outcome {
	a := &p.attributes
	if a.size > 0 && job.Content.Size() > a.size {
		return failure(Bounced, "5.3.4", "message size %d exceeds size limit %d of service %s", job.Content.Size(), a.size, p.options.Service)
	}
	if a.has('D') {
		loops, err := deliveredBefore(job)
		if err != nil {
			return failure(Deferred, "4.3.0", "cannot read the message: %v", err)
		}
		if loops {
			return failure(Bounced, "5.4.6", "mail forwarding loop for %s", job.Envelope.Recipients[0].Address)
		}
	}
	if p.slots != nil {
		select {
		case p.slots <- struct{}{}:
			defer func() { <-p.slots }()
		case <-ctx.Done():
			return failure(Deferred, "4.3.2", "all processes of service %s are in use", p.options.Service)
		}
	}
	credential, err := p.options.Identity(a.user, a.group)
	if err != nil {
		return failure(Deferred, "4.3.5", "mail system configuration error: %v", err)
	}
	c := command{
		argv: p.expand(job), directory: orElse(a.directory, p.options.QueueDirectory), environment: p.options.Environment,
		credential: credential, limit: p.options.TimeLimit, input: p.input(job), elsewhere: p.options.Run,
	}
	return c.run(ctx, p.options.Service)
}

// macros are what stands for one recipient.
func (p *Pipe) macros(job *Job, i int) func(name string) (value string, perRecipient, known bool) {
	a, e := &p.attributes, job.Envelope
	address := func(text string) string {
		at := strings.LastIndexByte(text, '@')
		if at < 0 {
			at = len(text)
		}
		local, domain := text[:at], text[at:]
		if a.has('u') {
			local = strings.ToLower(local)
		}
		if a.has('h') {
			domain = strings.ToLower(domain)
		}
		if a.has('q') {
			return smtp.QuoteLocal(local + domain)
		}
		return local + domain
	}
	recipient := e.Recipients[i].Address
	local, domain, _ := cutLast(recipient, '@')
	if a.has('u') {
		local = strings.ToLower(local)
	}
	user, extension := local, ""
	if at := strings.IndexAny(local, p.options.Delimiter); at > 0 && p.options.Delimiter != "" {
		user, extension = local[:at], local[at+1:]
	}
	nexthop := orElse(job.Nexthop, domain)
	if a.has('h') {
		domain, nexthop = strings.ToLower(domain), strings.ToLower(nexthop)
	}
	sender := e.Sender
	if sender == "" {
		sender = a.nullSender
	} else if a.has('q') {
		sender = smtp.QuoteLocal(sender)
	}
	return func(name string) (string, bool, bool) {
		switch name {
		case "recipient":
			return address(recipient), recipientMacro(name), true
		case "original_recipient":
			return address(job.Given[i]), recipientMacro(name), true
		case "user":
			return user, recipientMacro(name), true
		case "extension":
			return extension, recipientMacro(name), true
		case "mailbox":
			return local, recipientMacro(name), true
		case "domain":
			return domain, recipientMacro(name), true
		case "nexthop":
			return nexthop, false, true
		case "sender":
			return sender, false, true
		}
		value, known := clientMacro(name, e, job.Content.Size())
		return value, false, known
	}
}

func clientMacro(name string, e *envelope.Envelope, size int64) (value string, known bool) {
	switch name {
	case "client_address":
		return e.Client.Address, true
	case "client_helo":
		return e.Client.Helo, true
	case "client_hostname":
		return e.Client.Name, true
	case "client_port":
		return e.Client.Port, true
	case "client_protocol":
		return e.Client.Protocol, true
	case "envid":
		return e.ID, true
	case "queue_id":
		return e.QueueID, true
	case "sasl_method":
		return e.Client.Method, true
	case "sasl_username":
		return e.Client.User, true
	case "sasl_sender":
		return "", true
	case "size":
		return fmt.Sprint(size), true
	}
	return "", false
}

// expand makes the command line. An argument with a recipient's macro stands once for each recipient.
func (p *Pipe) expand(job *Job) []string {
	var argv []string
	for _, argument := range p.attributes.argv {
		for i := range job.Envelope.Recipients {
			text, perRecipient := expandMacros(argument, p.macros(job, i))
			argv = append(argv, text)
			if !perRecipient {
				break
			}
		}
	}
	return argv
}

func expandMacros(text string, value func(name string) (string, bool, bool)) (expanded string, perRecipient bool) {
	var b strings.Builder
	for text != "" {
		before, after, found := strings.Cut(text, "$")
		b.WriteString(before)
		if !found {
			break
		}
		if rest, ok := strings.CutPrefix(after, "$"); ok {
			b.WriteByte('$')
			text = rest
			continue
		}
		name := after
		if after != "" && (after[0] == '{' || after[0] == '(') {
			end := strings.IndexAny(after, "})")
			if end < 0 {
				break
			}
			name, text = after[1:end], after[end+1:]
		} else {
			end := 0
			for end < len(after) && (after[end] == '_' || after[end] >= 'a' && after[end] <= 'z') {
				end++
			}
			name, text = after[:end], after[end:]
		}
		got, each, _ := value(name)
		b.WriteString(got)
		perRecipient = perRecipient || each
	}
	return b.String(), perRecipient
}

// deliveredBefore tells whether the message has a Delivered-To field with the recipient already.
func deliveredBefore(job *Job) (bool, error) {
	header, err := readHeader(job)
	if err != nil {
		return false, err
	}
	for line := range strings.Lines(header) {
		name, value, found := strings.Cut(line, ":")
		if found && strings.EqualFold(name, "Delivered-To") && slices.ContainsFunc(job.Envelope.Recipients, func(r envelope.Recipient) bool {
			return strings.EqualFold(strings.TrimSpace(value), r.Address)
		}) {
			return true, nil
		}
	}
	return false, nil
}

// readHeader reads the message's header, as much as counts.
func readHeader(job *Job) (string, error) {
	end := min(job.Content.Size(), headerLimit)
	if job.Structure != nil && job.Structure.BareLF == 0 {
		end = min(end, job.Structure.Root.BodyStart)
	}
	header := make([]byte, end)
	n, err := job.Content.ReadAt(header, 0)
	if n < len(header) {
		return "", orUnexpected(err)
	}
	return string(header), nil
}

// input is the message as the command gets it.
func (p *Pipe) input(job *Job) *programInput {
	a := &p.attributes
	sender := orElse(job.Envelope.Sender, a.nullSender)
	in := &programInput{content: job.Content, eol: a.eol, dots: a.has('.'), from: a.has('>'), blankAtEnd: a.has('B')}
	line := func(text string) { in.pending.WriteString(text + a.eol) }
	if a.has('F') {
		line("From " + sender + "  " + time.Now().Format("Mon Jan _2 15:04:05 2006"))
	}
	if a.has('R') {
		line("Return-Path: <" + smtp.QuoteLocal(job.Envelope.Sender) + ">")
	}
	if a.has('O') {
		line("X-Original-To: " + job.Given[0])
	}
	if a.has('D') {
		line("Delivered-To: " + job.Envelope.Recipients[0].Address)
	}
	return in
}

// Environment is what commands get: the names of a list like export_environment, of which NAME=value sets one.
func Environment(names []string, getenv func(string) string) []string {
	environment := []string{"PATH=/usr/bin:/bin"}
	for _, name := range names {
		if strings.Contains(name, "=") {
			environment = append(environment, name)
			continue
		}
		if value := getenv(name); value != "" {
			environment = append(environment, name+"="+value)
		}
	}
	return environment
}
