package vault

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"postilion/mail/message"
	"postilion/store"
)

// parsePiece is how much of a message is handed to the parser at a time.
const parsePiece = 32 << 10

// putStructure plans the row of a body's parsed form. The structure is that of the content; the row's is that of prefix and content.
func (c *change) putStructure(id uint64, m *message.Message, prefix []byte, content store.Content) error {
	if m == nil {
		var err error
		if m, err = parse(content); err != nil {
			return err
		}
	}
	c.scratch = shifted(m, prefix).AppendBinary(c.scratch[:0])
	c.batch.Set(c.store.space, key1(rowStructure, id), c.scratch)
	return nil
}

// shifted is the structure of the message with complete header lines before it.
func shifted(m *message.Message, prefix []byte) *message.Message {
	if len(prefix) == 0 {
		return m
	}
	return m.Shift(int64(len(prefix)), int64(bytes.Count(prefix, []byte{'\n'})))
}

func parse(content store.Content) (*message.Message, error) {
	size := content.Size()
	piece := make([]byte, min(size, parsePiece))
	parser := message.NewParser(message.Limits{})
	for from := int64(0); from < size; {
		part := piece[:min(size-from, parsePiece)]
		n, err := content.ReadAt(part, from)
		if n < len(part) {
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, fmt.Errorf("reading the message: %w", err)
		}
		_, _ = parser.Write(part)
		from += int64(n)
	}
	return parser.Finish(), nil
}

// structure reads the parsed form of the message of an entry.
func (s *Store) structure(box uint64, e *entry) (*message.Message, error) {
	row, err := s.db.Get(s.space, nil, key1(rowStructure, e.body))
	if err != nil {
		return nil, s.missing(s.db, box, e, err)
	}
	m, err := message.Decode(row)
	if err != nil {
		return nil, fmt.Errorf("%w: structure of UID %d: %w", store.ErrDamaged, e.uid, err)
	}
	if e.prefix == 0 {
		return m, nil
	}
	prefix, err := s.db.Get(s.space, nil, keyUID(rowPrefix, box, e.uid))
	if err != nil {
		return nil, s.missing(s.db, box, e, err)
	}
	return shifted(m, prefix), nil
}
