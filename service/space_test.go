package service

import (
	"log/slog"
	"path/filepath"
	"testing"
	"time"
)

func TestRoomForMail(t *testing.T) {
	s := newStores(slog.New(slog.DiscardHandler), nil, time.Hour, func(error) {})
	if !s.room(1<<60, 1<<60) {
		t.Error("no vault, and no room")
	}
	if _, _, err := s.at("vault:"+filepath.Join(t.TempDir(), "vault"), -1, -1); err != nil {
		t.Fatal(err)
	}
	defer s.close()
	for _, test := range []struct {
		least, size int64
		want        bool
	}{{0, 1000, true}, {1 << 60, 0, false}, {0, 1 << 60, false}} {
		if got := s.room(test.least, test.size); got != test.want {
			t.Errorf("least %d, size %d: %v", test.least, test.size, got)
		}
	}
}
