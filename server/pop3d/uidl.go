package pop3d

import (
	"bytes"
	"context"
	"fmt"
	"strconv"

	"postilion/mail/message"
	"postilion/proto/pop3"
	"postilion/server/login"
)

const (
	// maxXUIDL bounds how much of a message is read in search of its X-UIDL field.
	maxXUIDL = 64 << 10
	// maxUIDL bounds an identifier from there, so that a response line keeps to 512 octets. RFC 1939 allows 70, but an identifier that a
	// client knows already is better kept.
	maxUIDL = 480
)

func (s *session) uidl(ctx context.Context, cmd *pop3.Command) {
	if len(cmd.Args) == 0 {
		s.uidls(ctx)
		return
	}
	n, ok := s.message(cmd)
	if !ok {
		return
	}
	s.ok("")
	start := len(s.Out) - len("\r\n")
	s.Out = append(s.Out[:start], ' ')
	s.number(int64(n))
	s.Out = append(s.Out, ' ')
	if err := s.appendUnique(ctx, n); err != nil {
		s.Out = s.Out[:start-len("+OK")]
		s.uidlsFailed(err)
		return
	}
	s.Out = append(s.Out, "\r\n"...)
}

func (s *session) uidls(ctx context.Context) {
	s.ok("")
	for n := uint32(1); n <= s.drop.Count() && !s.Ended; n++ {
		if s.drop.Deleted(n) {
			continue
		}
		start := len(s.Out)
		s.number(int64(n))
		s.Out = append(s.Out, ' ')
		if err := s.appendUnique(ctx, n); err != nil {
			s.Out = s.Out[:start]
			s.uidlsFailed(err)
			return
		}
		s.Out = append(s.Out, "\r\n"...)
		if len(s.Out) >= login.OutputSize {
			s.Flush()
			s.Room()
		}
	}
	s.Send(".\r\n")
}

// uidlsFailed ends the session: a client that saw no identifiers could fetch and delete by wrong ones.
func (s *session) uidlsFailed(err error) {
	s.Log.Error("UIDL: " + err.Error())
	s.Flush()
	s.Ended, s.Reason = true, "POP3 UIDLs couldn't be listed"
}

// appendUnique appends the unique identifier of message n, told apart from equal ones when that is wanted.
func (s *session) appendUnique(ctx context.Context, n uint32) error {
	if !s.opt.RenameDuplicates {
		return s.appendUIDL(ctx, n)
	}
	if s.renamed == nil {
		if err := s.findDuplicates(ctx); err != nil {
			return err
		}
	}
	if name, ok := s.renamed[n]; ok {
		s.Out = append(s.Out, name...)
		return nil
	}
	return s.appendUIDL(ctx, n)
}

// findDuplicates gives the second and later messages of one identifier names of their own.
func (s *session) findDuplicates(ctx context.Context) error {
	s.renamed = map[uint32]string{}
	counts := make(map[string]int, s.drop.Count())
	start := len(s.Out)
	defer func() { s.Out = s.Out[:start] }()
	for n := uint32(1); n <= s.drop.Count(); n++ {
		s.Out = s.Out[:start]
		if err := s.appendUIDL(ctx, n); err != nil {
			return err
		}
		name := string(s.Out[start:])
		counts[name]++
		if times := counts[name]; times > 1 {
			s.renamed[n] = name + "-" + strconv.Itoa(times)
		}
	}
	return nil
}

// appendUIDL appends the identifier that pop3_uidl_format makes.
func (s *session) appendUIDL(ctx context.Context, n uint32) error {
	if s.opt.ReuseXUIDL {
		name, err := s.xuidl(ctx, n)
		if err != nil {
			return err
		}
		if name != "" {
			s.Out = append(s.Out, name...)
			return nil
		}
	}
	uid := uint32(s.uid(n))
	if s.opt.UIDLFormat == defaultUIDLFormat {
		s.Out = appendHex(appendHex(s.Out, uid), s.view.UIDValidity())
		return nil
	}
	name, err := s.opt.Expand(s.opt.UIDLFormat, s.uidlVariables(n, uid))
	if err != nil {
		return fmt.Errorf("pop3_uidl_format %s: %w", s.opt.UIDLFormat, err)
	}
	if name == "" {
		return fmt.Errorf("pop3_uidl_format %s gives nothing for UID %d: this store does not support its variables", s.opt.UIDLFormat, uid)
	}
	s.Out = append(s.Out, name...)
	return nil
}

func (s *session) uidlVariables(n, uid uint32) map[string]string {
	index := s.index(n)
	guid := s.view.Entry(index).EmailID
	file := guid
	if s.origins != nil {
		if name := s.origins.GUID(index); name != "" {
			guid = name
		}
		if name := s.origins.Filename(index); name != "" {
			file = name
		}
	}
	u, v := strconv.FormatUint(uint64(uid), 10), strconv.FormatUint(uint64(s.view.UIDValidity()), 10)
	return map[string]string{"u": u, "uid": u, "v": v, "uidvalidity": v, "g": guid, "guid": guid, "f": file, "filename": file}
}

func appendHex(dst []byte, value uint32) []byte {
	const digits = "0123456789abcdef"
	for shift := 28; shift >= 0; shift -= 4 {
		dst = append(dst, digits[value>>shift&0xf])
	}
	return dst
}

// xuidl returns the value of the message's X-UIDL field, "" for none that can be used.
func (s *session) xuidl(ctx context.Context, n uint32) (string, error) {
	body, err := s.box.Open(ctx, s.uid(n))
	if err != nil {
		return "", err
	}
	defer body.Close()
	header := make([]byte, min(body.Size(), maxXUIDL))
	got, err := body.ReadAt(header, 0)
	if got < len(header) {
		return "", err
	}
	field, ok := message.Lookup(header, "X-UIDL")
	if !ok {
		return "", nil
	}
	value := message.Unfold(nil, field.Value)
	if len(value) > maxUIDL || bytes.ContainsFunc(value, func(r rune) bool { return r < ' ' || r > '~' }) {
		return "", nil
	}
	return string(value), nil
}
