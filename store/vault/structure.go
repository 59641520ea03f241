package vault

import (
	"bytes"
	"encoding/gob"

	"postilion/mail/message"
	"postilion/store"
)

func structureRow(m *message.Message, prefix []byte, whole prefixed, size int64) ([]byte, error) {
	if m == nil {
		m = &message.Message{Size: size}
	}
	var b bytes.Buffer
	err := gob.NewEncoder(&b).Encode(m)
	return b.Bytes(), err
}

func (s *Store) structure(box uint64, e *entry) (*message.Message, error) {
	row, err := s.db.Get(s.space, nil, key1(rowStructure, e.body))
	if err != nil {
		return nil, s.missing(s.db, box, e, err)
	}
	m := new(message.Message)
	if err := gob.NewDecoder(bytes.NewReader(row)).Decode(m); err != nil {
		return nil, err
	}
	return m, nil
}

var _ store.Content = (*bytes.Reader)(nil)
