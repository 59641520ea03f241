package imapd

import (
	"bytes"
	"io"

	"postilion/mail/charset"
	"postilion/mail/message"
	"postilion/proto/imap"
)

// binary is RFC 3516.
func binary() feature {
	return feature{fetch: []fetcher{
		{"BINARY[", fetchBinary},
		{"BINARY.PEEK[", fetchBinary},
		{"BINARY.SIZE[", fetchBinarySize},
	}}
}

var errEncoding = failure{"UNKNOWN-CTE", "Unknown Content-Transfer-Encoding"}

// decoded returns a reader of a section with its transfer encoding undone.
func (f *fetch) decoded(section *imap.Section) (io.Reader, error) {
	where, err := f.span(section)
	if err == nil {
		err = f.open()
	}
	if err != nil {
		return nil, err
	}
	raw := io.NewSectionReader(f.body, where.start, where.end-where.start)
	if len(section.Path) == 0 {
		return raw, nil
	}
	part := f.part(section.Path)
	if part == nil || len(part.Children) > 0 {
		return raw, nil
	}
	return decodePart(raw, part)
}

func decodePart(raw io.Reader, part *message.Part) (io.Reader, error) {
	if !charset.KnownTransfer(part.Encoding) {
		return nil, errEncoding
	}
	return charset.NewTransferReader(raw, part.Encoding), nil
}

// measure counts decoded octets and tells whether there is a NUL among them.
func measure(r io.Reader) (size int64, nul bool, err error) {
	var space [8 << 10]byte
	for {
		n, err := r.Read(space[:])
		size += int64(n)
		nul = nul || bytes.IndexByte(space[:n], 0) >= 0
		if err != nil {
			if err == io.EOF {
				err = nil
			}
			return size, nul, err
		}
	}
}

func fetchBinarySize(f *fetch, item *imap.FetchItem) error {
	r, err := f.decoded(&item.Section)
	if err != nil {
		return err
	}
	size, _, err := measure(r)
	if err != nil {
		return err
	}
	f.s.Out = append(append(f.s.Out, item.Label...), ' ')
	f.s.Out = imap.AppendNumber(f.s.Out, uint64(size))
	return nil
}

// fetchBinary goes over the part twice: once to know the size that the literal's head tells, once to send it.
func fetchBinary(f *fetch, item *imap.FetchItem) error {
	r, err := f.decoded(&item.Section)
	if err != nil {
		return err
	}
	size, nul, err := measure(r)
	if err != nil {
		return err
	}
	if r, err = f.decoded(&item.Section); err != nil {
		return err
	}
	start, end := int64(0), size
	if item.Partial {
		start = min(int64(min(item.Offset, 1<<61)), size)
		end = min(start+int64(min(item.Length, 1<<61)), size)
	}
	s := f.s
	s.count.bodies++
	s.count.bodyBytes += size
	s.Out = append(append(s.Out, item.Label...), ' ')
	if nul {
		s.Out = append(s.Out, '~')
	}
	s.Out = append(s.Out, '{')
	s.Out = append(imap.AppendNumber(s.Out, uint64(end-start)), "}\r\n"...)
	if _, err = io.CopyN(io.Discard, r, start); err == nil {
		_, err = io.CopyN(s, r, end-start)
	}
	if err != nil {
		s.Ended, s.Reason = true, "Internal error"
		s.Log.Error("FETCH in "+s.box.name+": "+errBroken.Error(), "uid", f.entry.UID, "error", err)
		return errBroken
	}
	return nil
}

// Write appends to the output.
func (s *session) Write(p []byte) (int, error) {
	s.Room()
	s.Out = append(s.Out, p...)
	s.Overflow()
	return len(p), nil
}
