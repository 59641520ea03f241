package message

// Section finds the part that an IMAP section path such as 1.2 names (RFC 9051 section 6.4.5.1). The empty path is the message. The parts of
// an embedded message are those of its multipart; of what is no multipart, 1 is the whole body. As with Dovecot, 0 names the first part of a
// multipart, and 1 may be said once more of a part that has none; a path that names nothing is answered with an empty string.
//
// HEADER, TEXT and HEADER.FIELDS behind a path are those of the part's Embedded message and empty for any other part; MIME is the part's
// own header.
func (m *Message) Section(path []int) (*Part, bool) {
	p := &m.Root
	whole := false
	for i, number := range path {
		switch {
		case p.Kind == Multipart:
			number = max(number, 1)
			if number > len(p.Children) {
				return nil, false
			}
			p = &p.Children[number-1]
		case number != 1 || whole:
			return nil, false
		default:
			whole = true
		}
		if inner := p.Embedded(); inner != nil && i+1 < len(path) {
			p, whole = inner, false
		}
	}
	return p, true
}
