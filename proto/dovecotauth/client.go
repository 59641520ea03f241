package dovecotauth

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
)

// Mechanism is a MECH line.
type Mechanism struct {
	// Name is in capitals.
	Name string
	// Flags are plaintext, anonymous, dictionary, active, forward-secrecy, mutual-auth or private.
	Flags []string
}

// Has tells whether the mechanism has the flag.
func (m Mechanism) Has(flag string) bool { return slices.Contains(m.Flags, flag) }

// Handshake is what the server tells first.
type Handshake struct {
	Mechanisms []Mechanism
	// SPID is the server's process, CUID the number of this connection; they and the request's id name a request to a master connection.
	SPID, CUID uint32
	// Cookie is 32 hexadecimal digits.
	Cookie string

	version bool
}

// Append writes the server's handshake.
func (h *Handshake) Append(dst []byte) []byte {
	dst = AppendLine(dst, "VERSION", strconv.Itoa(MajorVersion), strconv.Itoa(MinorVersion))
	for _, m := range h.Mechanisms {
		dst = AppendLine(dst, append([]string{"MECH", m.Name}, m.Flags...)...)
	}
	dst = AppendLine(dst, "SPID", formatID(h.SPID))
	dst = AppendLine(dst, "CUID", formatID(h.CUID))
	dst = AppendLine(dst, "COOKIE", h.Cookie)
	return AppendLine(dst, "DONE")
}

// Take reads one line of the server's handshake; done is true after DONE. Lines that are not known are passed over.
func (h *Handshake) Take(line []byte) (done bool, err error) {
	words := Split(line)
	if !h.version {
		h.version = true
		return false, checkVersion(words)
	}
	switch words[0] {
	case "MECH":
		if len(words) < 2 || words[1] == "" {
			return false, fmt.Errorf("%w: MECH without a name", ErrProtocol)
		}
		if len(h.Mechanisms) >= MaxMechanisms {
			return false, fmt.Errorf("%w: more than %d mechanisms", ErrProtocol, MaxMechanisms)
		}
		h.Mechanisms = append(h.Mechanisms, Mechanism{Name: words[1], Flags: words[2:]})
	case "SPID", "CUID":
		if len(words) < 2 {
			return false, fmt.Errorf("%w: %s without a number", ErrProtocol, words[0])
		}
		number, err := strconv.ParseUint(words[1], 10, 32)
		if err != nil {
			return false, fmt.Errorf("%w: %s %.20q", ErrProtocol, words[0], words[1])
		}
		if words[0] == "SPID" {
			h.SPID = uint32(number)
		} else {
			h.CUID = uint32(number)
		}
	case "COOKIE":
		if len(words) > 1 {
			h.Cookie = words[1]
		}
	case "DONE":
		return true, nil
	}
	return false, nil
}

// ClientHello is what a client says first.
func ClientHello(dst []byte, pid uint32) []byte {
	dst = AppendLine(dst, "VERSION", strconv.Itoa(MajorVersion), strconv.Itoa(MinorVersion))
	return AppendLine(dst, "CPID", formatID(pid))
}

// Verb is what a client asks for.
type Verb uint8

// The verbs of a client.
const (
	// Hello needs no reply: VERSION, CPID and what is not for this version.
	Hello Verb = iota
	Auth
	Continue
	Cancel
)

// Request is one line of a client.
type Request struct {
	Verb Verb
	ID   uint32
	// Mechanism and Params belong to Auth; Params has no resp.
	Mechanism string
	Params    Params
	// Response is the client's SASL response, nil when an Auth has no initial one.
	Response []byte
	// Malformed tells that the response was not base64.
	Malformed bool
}

// Append writes the request.
func (r *Request) Append(dst []byte) []byte {
	switch r.Verb {
	case Auth:
		words := appendWords([]string{"AUTH", formatID(r.ID), r.Mechanism}, r.Params)
		if r.Response != nil {
			// It must be the last: everything behind it belongs to it.
			words = append(words, "resp="+base64.StdEncoding.EncodeToString(r.Response))
		}
		return AppendLine(dst, words...)
	case Continue:
		return AppendLine(dst, "CONT", formatID(r.ID), base64.StdEncoding.EncodeToString(r.Response))
	case Cancel:
		return AppendLine(dst, "CANCEL", formatID(r.ID))
	}
	return dst
}

// Listener reads what a client says on one connection. The zero value is ready.
type Listener struct{ version bool }

// Greeted tells whether the client's VERSION was read.
func (l *Listener) Greeted() bool { return l.version }

// Take reads one line of a client. Errors wrap ErrProtocol.
func (l *Listener) Take(line []byte) (Request, error) {
	words := Split(line)
	if !l.version {
		if err := checkVersion(words); err != nil {
			return Request{}, err
		}
		l.version = true
		return Request{}, nil
	}
	switch words[0] {
	case "VERSION":
		return Request{}, checkVersion(words)
	case "CPID":
		return Request{}, nil
	case "AUTH":
		return parseAuth(words)
	case "CONT":
		if len(words) < 2 {
			return Request{}, fmt.Errorf("%w: CONT without an id", ErrProtocol)
		}
		id, err := parseID(words[1])
		if err != nil {
			return Request{}, err
		}
		r := Request{Verb: Continue, ID: id, Response: []byte{}}
		if len(words) > 2 {
			r.Response, r.Malformed = decode(words[2])
		}
		return r, nil
	case "CANCEL":
		if len(words) < 2 {
			return Request{}, fmt.Errorf("%w: CANCEL without an id", ErrProtocol)
		}
		id, err := parseID(words[1])
		return Request{Verb: Cancel, ID: id}, err
	}
	return Request{}, fmt.Errorf("%w: unknown command %.40q", ErrProtocol, words[0])
}

func parseAuth(words []string) (Request, error) {
	if len(words) < 3 || words[2] == "" {
		return Request{}, fmt.Errorf("%w: AUTH without id and mechanism", ErrProtocol)
	}
	id, err := parseID(words[1])
	if err != nil {
		return Request{}, err
	}
	r := Request{Verb: Auth, ID: id, Mechanism: words[2]}
	for _, p := range ParseParams(words[3:]) {
		if p.Name == "resp" {
			r.Response, r.Malformed = decode(p.Value)
			continue
		}
		r.Params = append(r.Params, p)
	}
	if service, _ := r.Params.Get("service"); service == "" {
		return Request{}, fmt.Errorf("%w: AUTH without service", ErrProtocol)
	}
	return r, nil
}

func decode(text string) (raw []byte, malformed bool) {
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return []byte{}, true
	}
	return raw, false
}

// Outcome is what a server answers.
type Outcome uint8

// The outcomes of a request.
const (
	OK Outcome = iota + 1
	Fail
	Challenge
)

// Reply is one line of a server after its handshake.
type Reply struct {
	Outcome Outcome
	ID      uint32
	// Data is the challenge; with OK it is additional data, nil for none.
	Data []byte
	// Params are user=, reason=, code=, temp, authz and others.
	Params Params
}

// Append writes the reply.
func (r *Reply) Append(dst []byte) []byte {
	if r.Outcome == Challenge {
		return AppendLine(dst, "CONT", formatID(r.ID), base64.StdEncoding.EncodeToString(r.Data))
	}
	words := []string{"OK", formatID(r.ID)}
	if r.Outcome == Fail {
		words[0] = "FAIL"
	}
	words = appendWords(words, r.Params)
	if r.Outcome == OK && r.Data != nil {
		words = append(words, "resp="+base64.StdEncoding.EncodeToString(r.Data))
	}
	return AppendLine(dst, words...)
}

// ParseReply reads a reply; ok is false for lines that are no reply and may be passed over. Errors wrap ErrProtocol.
func ParseReply(line []byte) (reply Reply, ok bool, err error) {
	words := Split(line)
	switch words[0] {
	case "OK":
		reply.Outcome = OK
	case "FAIL":
		reply.Outcome = Fail
	case "CONT":
		reply.Outcome = Challenge
	default:
		return Reply{}, false, nil
	}
	if len(words) < 2 {
		return Reply{}, false, fmt.Errorf("%w: %s without an id", ErrProtocol, words[0])
	}
	if reply.ID, err = parseID(words[1]); err != nil {
		return Reply{}, false, err
	}
	if reply.Outcome == Challenge {
		reply.Data = []byte{}
		if len(words) > 2 {
			var malformed bool
			if reply.Data, malformed = decode(words[2]); malformed {
				return Reply{}, false, fmt.Errorf("%w: challenge is not base64", ErrProtocol)
			}
		}
		return reply, true, nil
	}
	for _, p := range ParseParams(words[2:]) {
		if p.Name == "resp" && reply.Outcome == OK {
			data, malformed := decode(p.Value)
			if malformed {
				return Reply{}, false, fmt.Errorf("%w: additional data is not base64", ErrProtocol)
			}
			reply.Data = data
			continue
		}
		reply.Params = append(reply.Params, p)
	}
	return reply, true, nil
}
