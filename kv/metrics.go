package kv

import (
	dto "github.com/prometheus/client_model/go"
)

// Metrics are counts since the database was opened, unless said otherwise.
type Metrics struct {
	// Commits are synced batches, Flushes the times that the log was flushed to the disk for them.
	Commits, Flushes int64
	// LogBytes were written to the log, FlushedBytes from memory to tables, CompactedBytes by compaction, SeparatedBytes to blob files.
	LogBytes, FlushedBytes, CompactedBytes, SeparatedBytes int64
	// DiskBytes is what the database takes on the disk now; MemTableBytes and CacheBytes what it takes in memory.
	DiskBytes, MemTableBytes, CacheBytes int64
	// CompactionDebt is what compaction still has to write, in octets.
	CompactionDebt int64
	// Damaged counts reports of damaged files.
	Damaged int64
}

// Metrics returns the present counts.
func (db *DB) Metrics() Metrics {
	if db.Err() != nil {
		return Metrics{Commits: db.commits.Load(), Damaged: db.corrupt.Load()}
	}
	m := db.pebble.Metrics()
	out := Metrics{
		Commits:        db.commits.Load(),
		LogBytes:       int64(m.WAL.BytesWritten),
		DiskBytes:      int64(m.DiskSpaceUsage()),
		MemTableBytes:  int64(m.MemTable.Size),
		CacheBytes:     m.BlockCache.Size,
		CompactionDebt: int64(m.Compact.EstimatedDebt),
		Damaged:        db.corrupt.Load(),
	}
	for i := range m.Levels {
		out.FlushedBytes += int64(m.Levels[i].TableBytesFlushed)
		out.CompactedBytes += int64(m.Levels[i].TableBytesCompacted)
		// Pebble counts what a flush writes to blob files under both names.
		out.SeparatedBytes += int64(m.Levels[i].BlobBytesCompacted)
	}
	var histogram dto.Metric
	if m.LogWriter.FsyncLatency != nil && m.LogWriter.FsyncLatency.Write(&histogram) == nil {
		out.Flushes = int64(histogram.GetHistogram().GetSampleCount())
	}
	return out
}
