package message

// Section finds the part that an IMAP section path such as 1.2 names (RFC 9051 section 6.4.5.1). The empty path is the message. The parts of
// an embedded message are those of its multipart; where there is no multipart, 1 is the part itself. Dovecot answers a path that names
// nothing with an empty string.
func (m *Message) Section(path []int) (*Part, bool) {
	p := &m.Root
	for i, number := range path {
		switch {
		case p.Kind == Multipart:
			if number < 1 || number > len(p.Children) {
				return nil, false
			}
			p = &p.Children[number-1]
		case number != 1:
			return nil, false
		}
		if inner := p.Embedded(); inner != nil && i+1 < len(path) {
			p = inner
		}
	}
	return p, true
}
