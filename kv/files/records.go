package files

import (
	"encoding/binary"
	"hash/crc32"
	"math/bits"
)

// The record format of Pebble's logs and MANIFESTs.
const (
	recordBlock  = 32 << 10
	legacyHeader = 7
	// The type of a chunk is one of four positions in one of three forms.
	typeFull, typeFirst, typeMiddle, typeLast = 1, 2, 3, 4
	maxChunkType                              = 12
)

func crcOf(data []byte) uint32 { return crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli)) }

// mask is how checksums are written, so that a checksum of checksums is none.
func mask(crc uint32) uint32 { return bits.RotateLeft32(crc, 17) + 0xa282ead8 }

// recordReader yields the records of a log that are whole, and goes on behind what is damaged.
type recordReader struct {
	data []byte
	// log is the number that chunks carry, 0 for a MANIFEST: chunks of another number are what the file held before it was used again.
	log    uint32
	damage func(offset, length int64)

	at      int
	partial []byte
	whole   bool
	// broken is where damage began that nothing whole has followed yet, -1 for none: a log may end in the middle of a write.
	broken int
	failed bool
}

type chunk struct {
	position, header, size int
	log                    uint32
}

// parse reads the chunk at an offset.
func (r *recordReader) parse(at int) (c chunk, ok bool) {
	block := r.data[at:min(len(r.data), (at/recordBlock+1)*recordBlock)]
	if len(block) < legacyHeader {
		return c, false
	}
	kind := int(block[6])
	if kind < 1 || kind > maxChunkType {
		return c, false
	}
	c.position, c.header = (kind-1)%4+1, legacyHeader
	switch {
	case kind > 8:
		c.header += 12
	case kind > 4:
		c.header += 4
	}
	c.size = int(binary.LittleEndian.Uint16(block[4:]))
	if c.header+c.size > len(block) || binary.LittleEndian.Uint32(block) != mask(crcOf(block[6:c.header+c.size])) {
		return c, false
	}
	if c.header > legacyHeader {
		c.log = binary.LittleEndian.Uint32(block[7:])
	}
	return c, true
}

// next returns the next whole record, nil at the end. It is good until the call after.
func (r *recordReader) next() []byte {
	r.partial, r.whole = r.partial[:0], false
	for r.at < len(r.data) {
		end := min(len(r.data), (r.at/recordBlock+1)*recordBlock)
		if end-r.at < legacyHeader || zero(r.data[r.at:end]) {
			r.at = end
			continue
		}
		c, ok := r.parse(r.at)
		if !ok {
			r.skip(end)
			continue
		}
		if c.header > legacyHeader && c.log != r.log {
			// The end: a mark that the log was closed, or what the file held before.
			if c.log == r.log+1 && c.size == 0 {
				r.tell(r.at)
			}
			r.at = len(r.data)
			break
		}
		r.tell(r.at)
		payload := r.data[r.at+c.header : r.at+c.header+c.size]
		r.at += c.header + c.size
		if c.position == typeFull || c.position == typeFirst {
			r.partial, r.whole = r.partial[:0], true
		}
		r.partial = append(r.partial, payload...)
		if r.whole && (c.position == typeFull || c.position == typeLast) {
			return r.partial
		}
	}
	return nil
}

// skip goes on behind a chunk that is damaged: to the one that its length points to, or else to the next block.
func (r *recordReader) skip(end int) {
	if !r.failed {
		r.failed, r.broken = true, r.at
	}
	r.whole = false
	size := int(binary.LittleEndian.Uint16(r.data[r.at+4:]))
	for _, header := range []int{legacyHeader, legacyHeader + 4, legacyHeader + 12} {
		if at := r.at + header + size; at+legacyHeader <= end {
			if _, ok := r.parse(at); ok {
				r.at = at
				return
			}
		}
	}
	r.at = end
}

// tell reports damage before at, now that something whole follows it.
func (r *recordReader) tell(at int) {
	if r.failed && r.damage != nil {
		r.damage(int64(r.broken), int64(at-r.broken))
	}
	r.failed = false
}

func zero(data []byte) bool {
	for _, b := range data {
		if b != 0 {
			return false
		}
	}
	return true
}
