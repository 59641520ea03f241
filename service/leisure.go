package service

import (
	"runtime/debug"
	"runtime/metrics"
)

const (
	// quietOctets is the most that an idle server allocates between two looks, littleOctets what is not worth a collection.
	quietOctets  = 1 << 20
	littleOctets = 4 << 20
)

// leisure gives back the memory that a burst of work left behind, such as the garbage of a thousand logins, once there is nothing else to do: one
// collection after each burst. Without it the memory stays until the next burst or for minutes. The zero value is ready.
type leisure struct {
	// seen is what the process had allocated in all at the last look, freed at the last collection of this kind.
	seen, freed uint64
}

// due tells whether now is the time, from what the process has allocated in all since its start. It is asked at each look.
func (l *leisure) due(allocated uint64) bool {
	since := allocated - l.seen
	l.seen = allocated
	if since > quietOctets || allocated-l.freed < littleOctets {
		return false
	}
	l.freed = allocated
	return true
}

// look frees memory when it is due.
func (l *leisure) look() {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	if sample[0].Value.Kind() == metrics.KindUint64 && l.due(sample[0].Value.Uint64()) {
		debug.FreeOSMemory()
	}
}
