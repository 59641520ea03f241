package policy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"postilion/config/postfix"
	"postilion/table"
)

// Limits of a policy service's answer, in octets and lines, and of the connections to one service that wait for work.
const (
	maxPolicyLine  = 2048
	maxPolicyLines = 100
	maxPolicyIdle  = 32
)

// policyService is a server of the policy delegation protocol (SMTPD_POLICY_README).
type policyService struct {
	name, network, address string
	timeout, retryDelay    time.Duration
	maxIdle, maxTTL        time.Duration
	tries, requestLimit    int
	defaultAction, context string
	now                    func() time.Time
	sleep                  func(context.Context, time.Duration)

	mu     sync.Mutex
	idle   []*policyConnection
	closed bool
}

type policyConnection struct {
	conn          net.Conn
	reader        *bufio.Reader
	opened, since time.Time
	requests      int
}

// service reads inet:host:port, unix:path or { server, name = value, ... }.
func (r *Rules) service(argument string) (*policyService, error) {
	if s, ok := r.services[argument]; ok {
		return s, nil
	}
	v := r.view
	s := &policyService{
		timeout: v.Duration("smtpd_policy_service_timeout"), retryDelay: v.Duration("smtpd_policy_service_retry_delay"),
		maxIdle: v.Duration("smtpd_policy_service_max_idle"), maxTTL: v.Duration("smtpd_policy_service_max_ttl"),
		tries: v.Int("smtpd_policy_service_try_limit"), requestLimit: v.Int("smtpd_policy_service_request_limit"),
		defaultAction: v.String("smtpd_policy_service_default_action"), context: v.String("smtpd_policy_service_policy_context"),
		now: r.options.Now, sleep: r.options.Sleep,
	}
	words := []string{argument}
	if strings.HasPrefix(argument, "{") {
		inner, problem := postfix.Unbrace(argument)
		if problem != "" {
			return nil, errors.New(problem)
		}
		words, _ = postfix.SplitQuoted(inner, postfix.ListSeparators)
	}
	if len(words) == 0 || !strings.Contains(words[0], ":") {
		return nil, errors.New("must be followed by transport:endpoint")
	}
	s.name = words[0]
	if err := s.place(words[0], v.String("queue_directory")); err != nil {
		return nil, err
	}
	for _, setting := range joinSettings(words[1:]) {
		if err := s.set(setting); err != nil {
			return nil, err
		}
	}
	r.services[argument] = s
	return s, nil
}

func (s *policyService) place(server, queueDirectory string) error {
	kind, where, _ := strings.Cut(server, ":")
	switch kind {
	case "unix", "local":
		s.network, s.address = "unix", where
		if !filepath.IsAbs(where) {
			s.address = filepath.Join(queueDirectory, where)
		}
		return nil
	case "inet":
	default:
		where = server
	}
	host, port, ok := cutLast(where, ":")
	if !ok {
		host, port = "localhost", where
	}
	host = strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(host, "["), "IPv6:"), "]")
	if port == "" {
		return fmt.Errorf("bad host:port %q", where)
	}
	s.network, s.address = "tcp", net.JoinHostPort(host, port)
	return nil
}

func cutLast(text, separator string) (before, after string, found bool) {
	at := strings.LastIndex(text, separator)
	if at < 0 {
		return text, "", false
	}
	return text[:at], text[at+len(separator):], true
}

// joinSettings puts "name", "=", "value" together that were apart.
func joinSettings(words []string) []string {
	var settings []string
	for i := 0; i < len(words); i++ {
		word, problem := words[i], ""
		if strings.HasPrefix(word, "{") {
			if word, problem = postfix.Unbrace(word); problem != "" {
				word = words[i]
			}
		}
		if i+2 < len(words) && words[i+1] == "=" {
			word += "=" + words[i+2]
			i += 2
		}
		settings = append(settings, word)
	}
	return settings
}

func (s *policyService) set(setting string) error {
	name, value, err := postfix.SplitNameValue(setting)
	if err != nil {
		return err
	}
	span := func(field *time.Duration) error {
		d, err := parseDuration(value)
		if err != nil {
			return fmt.Errorf("%s: bad time %q", name, value)
		}
		*field = d
		return nil
	}
	number := func(field *int) error {
		n, err := strconv.Atoi(value)
		if err != nil || n < 0 {
			return fmt.Errorf("%s: bad number %q", name, value)
		}
		*field = n
		return nil
	}
	switch name {
	case "timeout":
		return span(&s.timeout)
	case "retry_delay":
		return span(&s.retryDelay)
	case "max_idle":
		return span(&s.maxIdle)
	case "max_ttl":
		return span(&s.maxTTL)
	case "try_limit":
		return number(&s.tries)
	case "request_limit":
		return number(&s.requestLimit)
	case "default_action":
		s.defaultAction = value
	case "policy_context":
		s.context = value
	default:
		return fmt.Errorf("unexpected attribute name %q", name)
	}
	return nil
}

// parseDuration reads a number with s, m, h, d or w behind it; seconds without.
func parseDuration(text string) (time.Duration, error) {
	unit := time.Second
	if text != "" {
		switch text[len(text)-1] {
		case 's':
			text = text[:len(text)-1]
		case 'm':
			unit, text = time.Minute, text[:len(text)-1]
		case 'h':
			unit, text = time.Hour, text[:len(text)-1]
		case 'd':
			unit, text = 24*time.Hour, text[:len(text)-1]
		case 'w':
			unit, text = 7*24*time.Hour, text[:len(text)-1]
		}
	}
	n, err := strconv.ParseUint(text, 10, 31)
	return time.Duration(n) * unit, err
}

// check asks the service and does what it says, or its default action when it says nothing.
func (s *policyService) check(e *evaluation, about subject) verdict {
	request := s.request(e)
	action, err := s.ask(e.ctx, request)
	if err != nil {
		e.warn("problem talking to server %s: %v", s.name, err)
		action = s.defaultAction
	}
	result := e.act(table.Entry{Value: action, Source: s.name}, s.name, "policy query", about)
	e.detail = s.name + " " + action
	return result
}

func (s *policyService) ask(ctx context.Context, request []byte) (action string, err error) {
	for try := 1; ; try++ {
		var reused bool
		action, reused, err = s.exchange(ctx, request)
		if err == nil || ctx.Err() != nil {
			return action, err
		}
		if reused {
			try--
			continue
		}
		if try >= max(s.tries, 1) {
			return "", err
		}
		s.sleep(ctx, s.retryDelay)
	}
}

// exchange sends one request. reused tells that the connection was an old one, which the server may have left.
func (s *policyService) exchange(ctx context.Context, request []byte) (action string, reused bool, err error) {
	c, reused, err := s.connection(ctx)
	if err != nil {
		return "", false, err
	}
	if err = c.conn.SetDeadline(time.Now().Add(s.timeout)); err == nil {
		if _, err = c.conn.Write(request); err == nil {
			action, err = readAction(c.reader)
		}
	}
	if err != nil {
		return "", reused, errors.Join(err, c.conn.Close())
	}
	c.requests++
	s.release(c)
	return action, reused, nil
}

func (s *policyService) connection(ctx context.Context) (c *policyConnection, reused bool, err error) {
	now := s.now()
	s.mu.Lock()
	for len(s.idle) > 0 {
		c = s.idle[len(s.idle)-1]
		s.idle = s.idle[:len(s.idle)-1]
		if now.Sub(c.since) < s.maxIdle && now.Sub(c.opened) < s.maxTTL {
			s.mu.Unlock()
			return c, true, nil
		}
		_ = c.conn.Close()
	}
	s.mu.Unlock()
	dialer := net.Dialer{Timeout: s.timeout}
	conn, err := dialer.DialContext(ctx, s.network, s.address)
	if err != nil {
		return nil, false, err
	}
	return &policyConnection{conn: conn, reader: bufio.NewReaderSize(conn, maxPolicyLine), opened: now}, false, nil
}

func (s *policyService) release(c *policyConnection) {
	c.since = s.now()
	s.mu.Lock()
	keep := !s.closed && len(s.idle) < maxPolicyIdle && (s.requestLimit == 0 || c.requests < s.requestLimit)
	if keep {
		s.idle = append(s.idle, c)
	}
	s.mu.Unlock()
	if !keep {
		_ = c.conn.Close()
	}
}

func (s *policyService) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, c := range s.idle {
		_ = c.conn.Close()
	}
	s.idle = nil
}

// readAction reads name=value lines up to an empty one.
func readAction(r *bufio.Reader) (string, error) {
	action, has := "", false
	for range maxPolicyLines {
		line, err := r.ReadSlice('\n')
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return "", fmt.Errorf("reading the answer: %w", err)
		}
		text := strings.TrimRight(string(line), "\r\n")
		if text == "" {
			if !has {
				return "", errors.New("answer without action")
			}
			return action, nil
		}
		if name, value, ok := strings.Cut(text, "="); ok && name == "action" {
			action, has = value, true
		}
	}
	return "", fmt.Errorf("answer of more than %d lines", maxPolicyLines)
}

// request makes the request in the order in which Postfix sends its attributes.
func (s *policyService) request(e *evaluation) []byte {
	x := e.session
	var b []byte
	put := func(name, value string) {
		b = append(append(append(append(b, name...), '='), oneLine(value)...), '\n')
	}
	count := 0
	if e.stage == Data || e.stage == EndOfData {
		count = x.RecipientCount
	}
	address := func(valid bool, text string) string {
		if !valid {
			return ""
		}
		return text
	}
	put("request", "smtpd_access_policy")
	put("protocol_state", e.state())
	put("protocol_name", x.Protocol)
	put("client_address", e.clientAddress())
	put("client_name", x.ClientName)
	put("client_port", x.ClientPort)
	put("reverse_client_name", x.ReverseName)
	put("server_address", address(x.ServerAddress.IsValid(), x.ServerAddress.Unmap().String()))
	put("server_port", x.ServerPort)
	put("helo_name", x.Helo)
	put("queue_id", x.QueueID)
	put("instance", x.Instance)
	put("sender", x.Sender)
	put("recipient", x.Recipient)
	put("recipient_count", strconv.Itoa(count))
	put("sasl_method", x.SASLMethod)
	put("sasl_username", x.SASLUsername)
	put("sasl_sender", x.SASLSender)
	put("etrn_domain", x.ETRN)
	put("stress", e.rules.view.String("stress"))
	put("ccert_subject", xtext(x.Encryption.Subject))
	put("ccert_issuer", xtext(x.Encryption.Issuer))
	put("ccert_fingerprint", x.Encryption.Fingerprint)
	put("ccert_pubkey_fingerprint", x.Encryption.PublicKeyFingerprint)
	put("encryption_protocol", x.Encryption.Protocol)
	put("encryption_cipher", x.Encryption.Cipher)
	put("encryption_keysize", strconv.Itoa(x.Encryption.KeySize))
	put("policy_context", s.context)
	put("size", strconv.FormatInt(x.Size, 10))
	return append(b, '\n')
}

// state names the stage as the protocol does.
func (e *evaluation) state() string {
	if e.verify {
		return "VRFY"
	}
	switch e.stage {
	case Connect:
		return "CONNECT"
	case Helo:
		if e.session.Protocol == "SMTP" {
			return "HELO"
		}
		return "EHLO"
	case Mail:
		return "MAIL"
	case Rcpt:
		return "RCPT"
	case Data:
		return "DATA"
	case EndOfData:
		return "END-OF-MESSAGE"
	}
	return "ETRN"
}

// oneLine keeps a value from ending its line.
func oneLine(value string) string {
	if !strings.ContainsAny(value, "\r\n\x00") {
		return value
	}
	return strings.NewReplacer("\r", "?", "\n", "?", "\x00", "?").Replace(value)
}

// xtext encodes a text as RFC 3461 section 4 says.
func xtext(text string) string {
	var b strings.Builder
	for i := range len(text) {
		if c := text[i]; c < 33 || c > 126 || c == '+' || c == '=' {
			fmt.Fprintf(&b, "+%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}
