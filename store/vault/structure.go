package vault

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"postilion/kv"
	"postilion/mail/message"
	"postilion/store"
)

// parsePiece is how much of a message is handed to the parser at a time.
const parsePiece = 32 << 10

// putStructure plans the row of a body's parsed form. The structure is that of the content; the row's is that of prefix and content.
func (c *change) putStructure(id uint64, m *message.Message, prefix []byte, content store.Content, digest uint32) error {
	if m == nil {
		var err error
		if m, err = parse(content); err != nil {
			return err
		}
	}
	c.scratch = appendDigest(shifted(m, prefix).AppendBinary(c.scratch[:0]), digest)
	c.batch.Set(c.store.space, key1(rowStructure, id), c.scratch)
	return nil
}

// digestLen is how many octets at the end of a structure's row are the digest of the body.
const digestLen = 4

// addDigest goes on with the digest of a body: CRC-32C, which the processor has an instruction for. It tells octets that were mixed up or cut from those that
// came in; a block that the disk changed is found by the database's own checksum as well.
func addDigest(digest uint32, octets []byte) uint32 {
	return crc32.Update(digest, crc32.MakeTable(crc32.Castagnoli), octets)
}

func appendDigest(row []byte, digest uint32) []byte {
	return binary.BigEndian.AppendUint32(row, digest)
}

// cutDigest divides the row of a structure.
func cutDigest(row []byte) (structure []byte, digest uint32, err error) {
	if len(row) < digestLen {
		return nil, 0, fmt.Errorf("%w: row of a structure has %d octets", store.ErrDamaged, len(row))
	}
	at := len(row) - digestLen
	return row[:at], binary.BigEndian.Uint32(row[at:]), nil
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
	row, _, err = cutDigest(row)
	if err != nil {
		return nil, err
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

// digestOf reads the rows of a body.
func digestOf(from kv.Reader, space *kv.Space, id uint64) (digest uint32, err error) {
	it, err := from.Iterate(space, key1(rowBody, id), key1(rowBody, id+1))
	if err != nil {
		return 0, err
	}
	for it.First(); it.Valid() && err == nil; it.Next() {
		var value []byte
		if value, err = it.Value(); err == nil {
			digest = addDigest(digest, value)
		}
	}
	return digest, errors.Join(err, it.Close())
}
