package files

import (
	"encoding/binary"
	"errors"
)

// The tags of a version edit, as Pebble writes them to its MANIFEST.
const (
	tagComparator         = 1
	tagLogNumber          = 2
	tagNextFileNumber     = 3
	tagLastSequence       = 4
	tagCompactPointer     = 5
	tagDeletedFile        = 6
	tagNewFile            = 7
	tagPrevLogNumber      = 9
	tagNewFile2           = 100
	tagNewFile3           = 102
	tagNewFile4           = 103
	tagNewFile5           = 104
	tagCreatedBacking     = 105
	tagRemovedBacking     = 106
	tagNewBlobFile        = 107
	tagDeletedBlobFile    = 108
	fieldEnd              = 1
	fieldVirtual          = 66
	fieldBlobReferences   = 69
	containsPointKeys     = 1
	maxManifestReferences = 1 << 20
)

// tableFacts are what the MANIFEST says about a table.
type tableFacts struct {
	// file is the number of the file, level where it stands.
	file  uint64
	level int
	// blobs are the blob files that its values lie in, in the order of its references.
	blobs []uint64
}

// contents are the files that belong to a database.
type contents struct {
	tables map[uint64]tableFacts
	// dropped are the tables that once belonged to it, blobs the file that holds a blob file's values now.
	dropped map[uint64]bool
	blobs   map[uint64]uint64
	// firstLog is the first log that is not in tables.
	firstLog uint64
}

// edit applies one record of the MANIFEST.
func (c *contents) edit(record []byte) error {
	r := &editReader{data: record}
	for len(r.data) > 0 && !r.bad {
		switch tag := r.number(); tag {
		case tagComparator:
			r.bytes()
		case tagLogNumber:
			c.firstLog = max(c.firstLog, r.number())
		case tagNextFileNumber, tagLastSequence, tagPrevLogNumber, tagRemovedBacking:
			r.number()
		case tagCompactPointer:
			r.number()
			r.bytes()
		case tagCreatedBacking:
			r.number()
			r.number()
		case tagDeletedFile:
			r.number()
			table := r.number()
			delete(c.tables, table)
			c.dropped[table] = true
		case tagNewFile, tagNewFile2, tagNewFile3, tagNewFile4, tagNewFile5:
			c.newTable(tag, r)
		case tagNewBlobFile:
			id, file := r.number(), r.number()
			r.number()
			r.number()
			r.number()
			c.blobs[id] = file
		case tagDeletedBlobFile:
			id, file := r.number(), r.number()
			if c.blobs[id] == file {
				delete(c.blobs, id)
			}
		default:
			return errEdit
		}
	}
	if r.bad {
		return errEdit
	}
	return nil
}

var errEdit = errors.New("a record of it is of an unknown form")

func (c *contents) newTable(tag uint64, r *editReader) {
	facts := tableFacts{level: int(r.number())}
	table := r.number()
	facts.file = table
	if tag == tagNewFile3 {
		r.number()
	}
	r.number()
	if tag == tagNewFile5 && r.octet()&containsPointKeys == 0 {
		r.bytes()
		r.bytes()
	} else {
		if r.bytes(); tag == tagNewFile5 {
			r.bytes()
			r.bytes()
		}
		r.bytes()
	}
	if tag != tagNewFile {
		r.number()
		r.number()
	}
	for tag >= tagNewFile4 && !r.bad {
		field := r.number()
		if field == fieldEnd {
			break
		}
		switch field {
		case fieldVirtual:
			facts.file = r.number()
		case fieldBlobReferences:
			r.number()
			n := r.number()
			if n > maxManifestReferences {
				r.bad = true
				return
			}
			for range n {
				facts.blobs = append(facts.blobs, r.number())
				r.number()
			}
		default:
			r.bytes()
		}
	}
	if !r.bad {
		c.tables[table] = facts
		delete(c.dropped, table)
	}
}

// editReader takes numbers and texts off the front of a record.
type editReader struct {
	data []byte
	bad  bool
}

func (r *editReader) number() uint64 {
	n, size := binary.Uvarint(r.data)
	if size <= 0 {
		r.bad, r.data = true, nil
		return 0
	}
	r.data = r.data[size:]
	return n
}

func (r *editReader) octet() byte {
	if len(r.data) == 0 {
		r.bad = true
		return 0
	}
	b := r.data[0]
	r.data = r.data[1:]
	return b
}

func (r *editReader) bytes() {
	n := r.number()
	if n > uint64(len(r.data)) {
		r.bad, r.data = true, nil
		return
	}
	r.data = r.data[n:]
}
