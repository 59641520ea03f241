package files

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/cockroachdb/pebble/v2/objstorage"
	"github.com/cockroachdb/pebble/v2/sstable/blob"
	"github.com/cockroachdb/pebble/v2/sstable/block"
	"github.com/cockroachdb/pebble/v2/sstable/colblk"
	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	// The columns of a blob file's index and of its blocks.
	indexHeader   = 4
	columnVirtual = 0
	columnOffsets = 1
	columnValues  = 0
	// noBlock in the virtual column stands for a block of which nothing is left.
	noBlock = 0x00000000ffffffff
	// footerLen is the length of a blob file's footer.
	footerLen   = 38
	footerMagic = "\xf0\x9f\xaa\xb3\xf0\x9f\xa6\x80"
	// maxScan bounds a blob file whose blocks are looked for, in octets.
	maxScan = 1 << 30
)

var errNoValue = errors.New("there is no such value")

// blobFile reads the values of one blob file.
type blobFile struct {
	ctx      context.Context
	name     string
	readable objstorage.Readable
	reader   *blob.FileReader
	// blocks are where values lie. virtual, of a file that was rewritten, gives for each block of before the block and the first value in it now.
	blocks  []block.Handle
	virtual []uint64
	// indexErr is set when the blocks were looked for because the index is damaged.
	indexErr error

	held   block.BufferHandle
	heldAt int
	values colblk.RawBytes
	rows   int
}

func openBlob(ctx context.Context, fs vfs.FS, name string) (b *blobFile, err error) {
	readable, err := openReadable(fs, name)
	if err != nil {
		return nil, err
	}
	b = &blobFile{ctx: ctx, name: baseName(name), readable: readable, heldAt: -1}
	if err := b.readIndex(); err != nil {
		b.indexErr = err
		if err := b.findBlocks(); err != nil {
			return nil, errors.Join(b.indexErr, err, readable.Close())
		}
	}
	return b, nil
}

func (b *blobFile) close() {
	b.letGo()
	_ = b.reader.Close()
}

func (b *blobFile) readIndex() (err error) {
	defer recovered(&err)
	if b.reader, err = blob.NewFileReader(b.ctx, b.readable, blob.FileReaderOptions{}); err != nil {
		return err
	}
	index, err := b.reader.ReadIndexBlock(b.ctx, block.NoReadEnv, nil)
	if err != nil {
		return err
	}
	defer index.Release()
	data := index.BlockData()
	var d colblk.BlockDecoder
	d.Init(data, indexHeader)
	virtual := int(binary.LittleEndian.Uint32(data))
	column := colblk.DecodeColumn(&d, columnVirtual, virtual, colblk.DataTypeUint, colblk.DecodeUnsafeUints)
	for i := range virtual {
		b.virtual = append(b.virtual, column.At(i))
	}
	offsets := colblk.DecodeColumn(&d, columnOffsets, d.Rows()+1, colblk.DataTypeUint, colblk.DecodeUnsafeUints)
	for i := range d.Rows() {
		b.blocks = append(b.blocks, block.Handle{Offset: offsets.At(i), Length: offsets.At(i+1) - offsets.At(i) - block.TrailerLen})
	}
	return nil
}

// findBlocks finds the blocks of a file without an index: they lie one behind the other, and each is followed by its kind and checksum.
func (b *blobFile) findBlocks() error {
	size := b.readable.Size()
	if size > maxScan {
		return fmt.Errorf("it is too large to look for its blocks: %d octets", size)
	}
	data := make([]byte, size)
	if err := b.readable.ReadAt(b.ctx, data, 0); err != nil {
		return err
	}
	b.blocks, b.virtual = blocksIn(data), nil
	if n := len(b.blocks); n > 0 {
		// The last one is the index itself when that is whole.
		footer := makeFooter()
		reader, err := blob.NewFileReader(b.ctx, &patched{Readable: b.readable, footer: footer}, blob.FileReaderOptions{})
		if err != nil {
			return err
		}
		b.reader = reader
		return nil
	}
	return errors.New("none of its blocks was found")
}

// blocksIn looks for blocks from the beginning of a file on.
func blocksIn(data []byte) (blocks []block.Handle) {
	table := crc32.MakeTable(crc32.Castagnoli)
	for start := 0; start < len(data); {
		crc, found := ^uint32(0), false
		for end := start; end+block.TrailerLen <= len(data); end++ {
			// With the kind that follows, as the checksum has it.
			if end > start {
				with := table[byte(crc)^data[end]] ^ (crc >> 8)
				if binary.LittleEndian.Uint32(data[end+1:]) == mask(^with) {
					blocks = append(blocks, block.Handle{Offset: uint64(start), Length: uint64(end - start)})
					start, found = end+block.TrailerLen, true
					break
				}
			}
			crc = table[byte(crc)^data[end]] ^ (crc >> 8)
		}
		if !found {
			break
		}
	}
	return blocks
}

// makeFooter writes a footer, for a reader that is asked for single blocks only.
func makeFooter() []byte {
	footer := make([]byte, footerLen)
	footer[20], footer[21] = byte(block.ChecksumTypeCRC32c), byte(blob.FileFormatV1)
	copy(footer[30:], footerMagic)
	binary.LittleEndian.PutUint32(footer, mask(crcOf(footer[4:])))
	return footer
}

// patched is a file with another footer.
type patched struct {
	objstorage.Readable
	footer []byte
}

func (p *patched) ReadAt(ctx context.Context, data []byte, off int64) error {
	if off == p.Size()-footerLen && len(data) == footerLen {
		copy(data, p.footer)
		return nil
	}
	return p.Readable.ReadAt(ctx, data, off)
}

func (p *patched) NewReadHandle(before objstorage.ReadBeforeSize) objstorage.ReadHandle {
	handle := objstorage.MakeNoopReadHandle(p)
	return &handle
}

// value returns a value of size octets, good until the next call.
func (b *blobFile) value(h blob.InlineHandle) (value []byte, err error) {
	defer recovered(&err)
	at, id := int(h.BlockID), int(h.ValueID)
	if b.virtual != nil {
		if at >= len(b.virtual) || b.virtual[at]&noBlock == noBlock {
			return nil, errNoValue
		}
		at, id = int(b.virtual[at]&noBlock), id+int(b.virtual[at]>>32)
	}
	if at >= len(b.blocks) {
		return nil, errNoValue
	}
	if at != b.heldAt {
		b.letGo()
		held, err := b.reader.ReadValueBlock(b.ctx, block.NoReadEnv, nil, b.blocks[at])
		if err != nil {
			return nil, err
		}
		b.held, b.heldAt = held, at
		var d colblk.BlockDecoder
		d.Init(held.BlockData(), 0)
		b.values, b.rows = d.RawBytes(columnValues), d.Rows()
	}
	if id >= b.rows {
		return nil, errNoValue
	}
	if value = b.values.At(id); len(value) != int(h.ValueLen) {
		return nil, errNoValue
	}
	return value, nil
}

func (b *blobFile) letGo() {
	if b.heldAt >= 0 {
		b.held.Release()
	}
	b.heldAt = -1
}
