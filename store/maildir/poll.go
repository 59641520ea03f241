package maildir

import (
	"context"
	"sync"
	"time"
)

// poller is the one goroutine that looks at subscribed mailboxes for changes of other programs.
type poller struct {
	mu      sync.Mutex
	cancel  context.CancelFunc
	stopped chan struct{}
}

// watch starts the goroutine when it does not run yet.
func (s *Store) watch(*folder) {
	s.poll.mu.Lock()
	defer s.poll.mu.Unlock()
	if s.poll.cancel != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.poll.cancel, s.poll.stopped = cancel, make(chan struct{})
	go s.pollUntil(ctx, s.poll.stopped)
}

func (p *poller) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cancel != nil {
		p.cancel()
		<-p.stopped
	}
}

func (s *Store) pollUntil(ctx context.Context, stopped chan struct{}) {
	defer close(stopped)
	ticker := time.NewTicker(s.options.PollInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		end, err := s.begin(ctx)
		if err != nil {
			return
		}
		for _, f := range s.used() {
			f.mu.Lock()
			if len(f.watchers) > 0 {
				// What cannot be read now is told to whoever asks for the next view.
				_ = f.refresh(ctx)
			}
			f.mu.Unlock()
		}
		end()
	}
}

// used returns the folders that have handles.
func (s *Store) used() []*folder {
	s.mu.Lock()
	defer s.mu.Unlock()
	var folders []*folder
	for _, f := range s.folders {
		if f.users > 0 {
			folders = append(folders, f)
		}
	}
	return folders
}
