// Package queueid makes the names that messages have in the queue and in every log line, in Postfix's two forms: short ones (microseconds
// and a number, in hexadecimal) and, with enable_long_queue_ids, long ones that are never used twice (time and number in the alphabet of 52
// characters of postconf(5)). It stores nothing and reads no clock.
package queueid

import (
	"sync/atomic"
	"time"
)

// alphabet has no vowels, so that ids make no words. The last character separates time and number in the long form.
const alphabet = "0123456789BCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz"

// partBits is how much of the number an id shows.
const partBits = 36

// Sequence makes ids. Its ids differ from each other; those of two Sequences differ when their seeds are random, or the times are.
type Sequence struct {
	long bool
	next atomic.Uint64
}

// New returns a Sequence whose numbers, which take the place of Postfix's inode numbers, begin at seed. long is enable_long_queue_ids.
func New(long bool, seed uint64) *Sequence {
	s := &Sequence{long: long}
	s.next.Store(seed)
	return s
}

// Next returns an id for a message that arrived at the time. It may be called by many goroutines.
func (s *Sequence) Next(arrival time.Time) string {
	number := s.next.Add(1)
	if s.long {
		return Long(arrival, number)
	}
	return Short(arrival, number)
}

// Short returns the short form: five hexadecimal digits of microseconds and the number's last 36 bits, of which at least five digits are shown.
func Short(arrival time.Time, number uint64) string {
	const digits = "0123456789ABCDEF"
	id := make([]byte, 0, 5+partBits/4)
	micro := arrival.Nanosecond() / 1000
	for shift := 16; shift >= 0; shift -= 4 {
		id = append(id, digits[micro>>shift&15])
	}
	number &= 1<<partBits - 1
	for shift := partBits - 4; shift >= 0; shift -= 4 {
		if shift < 20 || number>>shift != 0 {
			id = append(id, digits[number>>shift&15])
		}
	}
	return string(id)
}

// Long returns the long form: the seconds, four characters of microseconds, "z", and the number's last 36 bits.
func Long(arrival time.Time, number uint64) string {
	id := make([]byte, 0, 24)
	id = appendBase(id, uint64(max(arrival.Unix(), 0)), 52, 6)
	id = appendBase(id, uint64(arrival.Nanosecond()/1000), 52, 4)
	id = append(id, 'z')
	return string(appendBase(id, number&(1<<partBits-1), 51, 1))
}

func appendBase(id []byte, n, base uint64, width int) []byte {
	var buffer [16]byte
	i := len(buffer)
	for n > 0 || len(buffer)-i < width {
		i--
		buffer[i] = alphabet[n%base]
		n /= base
	}
	return append(id, buffer[i:]...)
}
