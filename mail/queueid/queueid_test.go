package queueid

import (
	"regexp"
	"sync"
	"testing"
	"time"
)

func TestForms(t *testing.T) {
	at := time.Unix(1700000000, 583021000)
	for _, c := range []struct{ name, got, want string }{
		{"short as Postfix writes it", Short(at, 0xC8219), "8E56DC8219"},
		{"short with a small number", Short(at, 1), "8E56D00001"},
		{"short at the full second", Short(time.Unix(0, 0), 0), "0000000000"},
		{"short with a huge number", Short(at, 1<<63|0x123456789), "8E56D123456789"},
	} {
		if c.got != c.want {
			t.Errorf("%s: %s, want %s", c.name, c.got, c.want)
		}
	}
}

func TestLongCanBeTakenApart(t *testing.T) {
	at := time.Unix(1700000000, 583021000)
	id := Long(at, 0xC8219)
	value := func(text string, base int64) (n int64) {
		for _, c := range text {
			for i, a := range alphabet {
				if a == c {
					n = n*base + int64(i)
				}
			}
		}
		return n
	}
	parts := regexp.MustCompile(`^(.{6})(.{4})z(.+)$`).FindStringSubmatch(id)
	if parts == nil || value(parts[1], 52) != at.Unix() || value(parts[2], 52) != 583021 || value(parts[3], 51) != 0xC8219 {
		t.Errorf("%s does not hold %d, 583021 and 819737", id, at.Unix())
	}
}

func TestNeverTwice(t *testing.T) {
	for _, long := range []bool{false, true} {
		sequence := New(long, 1<<36-500)
		at := time.Unix(1700000000, 0)
		var group sync.WaitGroup
		var mutex sync.Mutex
		seen := map[string]bool{}
		for range 8 {
			group.Go(func() {
				for range 1000 {
					id := sequence.Next(at)
					mutex.Lock()
					if seen[id] {
						t.Errorf("%s twice", id)
					}
					seen[id] = true
					mutex.Unlock()
				}
			})
		}
		group.Wait()
	}
}

func BenchmarkNext(b *testing.B) {
	sequence := New(true, 7)
	at := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		sequence.Next(at)
	}
}
