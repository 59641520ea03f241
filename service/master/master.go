// Package master is the process of root in a server that was started by root: it opens sockets and the files that only root may read, starts a worker
// under a user of its own that does all the rest, and starts it again when it died. Beside the worker it keeps the helper of service/helper.
//
// The worker may ask for what Grants lists and for nothing else; those are computed from the configuration, which the master reads for that purpose
// alone. Sockets stay open in the master while a worker is started again, so that clients wait and are not refused.
//
// Run is the master, Client the worker's side.
package master

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"postilion/service/child"
	"postilion/service/helper"
	"postilion/service/listen"
	"postilion/service/packet"
)

// Options say what a master runs.
type Options struct {
	// Read reads the configuration; its error ends the start, or leaves everything as it was at a reload.
	Read func() (*Grants, error)
	// WorkerArgs are the worker's command line behind its role.
	WorkerArgs []string
	// WorkerEnv is added to the worker's environment.
	WorkerEnv []string
	// HelperQuiet keeps standard error from the helper.
	HelperQuiet bool
	Stdout      io.Writer
	Stderr      io.Writer
	// Inherited are sockets that systemd opened.
	Inherited []net.Listener
	// Ready is called once, when every listener of the first worker accepts, with the line that tells so.
	Ready func(line string, g *Grants)
	// Reloading is called before and after a reload.
	Reloading func(done bool)
	// Patience is how long a worker may take to end.
	Patience time.Duration
}

// ErrWorker tells that the first worker did not become ready; it has said why.
var ErrWorker = errors.New("the worker did not start")

type master struct {
	options Options
	host    *listen.Host

	// mu guards what requests of the worker look at.
	mu           sync.Mutex
	grants, next *Grants
	sockets      map[string]net.Listener

	// worker has no command, and helper is nil, while there is none.
	worker, helper *process
	// events leads to the worker.
	events   *packet.Conn
	heard    chan string
	ready    bool
	everUp   bool
	pending  bool
	restart  <-chan time.Time
	failures int
	// helperPause ends when a helper may be started again.
	helperPause <-chan time.Time
}

// process is a child and how it ended.
type process struct {
	command *exec.Cmd
	begun   time.Time
	ended   chan struct{}
}

// Run is the master until ctx ends or the server cannot go on. A value of reload has the configuration read again.
func Run(ctx context.Context, o Options, reload <-chan os.Signal) error {
	grants, err := o.Read()
	if err != nil {
		return err
	}
	m := &master{options: o, host: listen.NewHost(o.Inherited), grants: grants, sockets: map[string]net.Listener{}}
	defer m.closeSockets()
	if err := prepare(grants); err != nil {
		return err
	}
	if err := m.start(); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return m.stop()
		case <-reload:
			m.reload()
		case text := <-m.heard:
			m.hear(text)
		case <-m.worker.ended:
			if err := m.lost(ctx); err != nil {
				return err
			}
		case <-m.helperEnded():
			m.lostHelper()
		case <-m.helperPause:
			m.helperPause = nil
			if m.worker.command != nil && m.helper == nil {
				if err := m.startHelper(); err != nil {
					return err
				}
			}
		case <-m.restart:
			m.restart = nil
			if err := m.again(); err != nil {
				return err
			}
		}
	}
}

func (m *master) log() *slog.Logger { return m.grants.Log }

func prepare(g *Grants) error {
	var errs []error
	for _, d := range g.Directories {
		err := d.prepare(&g.Worker)
		if err != nil && !d.Required {
			g.Log.Warn(err.Error())
			err = nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func spawn(o child.Options) (*process, error) {
	command, err := child.Start(o)
	if err != nil {
		return nil, err
	}
	p := &process{command: command, begun: time.Now(), ended: make(chan struct{})}
	go func() {
		// How it ended stands in ProcessState; an error of Wait says the same in other words.
		_ = command.Wait()
		close(p.ended)
	}()
	return p, nil
}

// describe tells how a process ended, as Postfix's master does.
func (p *process) describe() string {
	state := p.command.ProcessState
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return fmt.Sprintf("%d killed by signal %d (%v)", state.Pid(), int(status.Signal()), status.Signal())
	}
	return fmt.Sprintf("%d exit status %d", state.Pid(), state.ExitCode())
}

// start starts a worker and, with it, its helper.
func (m *master) start() error {
	requests, theirRequests, err := packet.Pair()
	if err != nil {
		return err
	}
	events, theirEvents, err := packet.Pair()
	if err != nil {
		return errors.Join(err, requests.Close(), theirRequests.Close())
	}
	m.worker, err = spawn(child.Options{
		Role: "worker", Args: m.options.WorkerArgs, As: &m.grants.Worker, Env: append(child.Environment(), m.options.WorkerEnv...),
		Files: []*os.File{theirRequests, theirEvents}, Stdout: m.options.Stdout, Stderr: m.options.Stderr,
	})
	if err := errors.Join(err, theirRequests.Close(), theirEvents.Close()); err != nil {
		return errors.Join(err, requests.Close(), events.Close())
	}
	answering, err := packet.New(requests)
	if err != nil {
		return err
	}
	if m.events, err = packet.New(events); err != nil {
		return err
	}
	go m.serve(answering)
	heard := make(chan string, 16)
	m.heard, m.ready = heard, false
	go listenTo(m.events, heard, m.worker.ended)
	return m.startHelper()
}

// listenTo passes on what a worker says until it has ended.
func listenTo(conn *packet.Conn, heard chan<- string, ended <-chan struct{}) {
	for {
		text, file, err := conn.Receive()
		if err != nil {
			return
		}
		if file != nil {
			_ = file.Close()
		}
		select {
		case heard <- text:
		case <-ended:
			return
		}
	}
}

// startHelper starts a helper and tells the worker.
func (m *master) startHelper() error {
	forWorker, forHelper, err := packet.Pair()
	if err != nil {
		return err
	}
	commands, err := helper.EncodeCommands(m.grants.Commands)
	if err != nil {
		m.log().Error(err.Error() + ": no mail goes to commands")
		commands = []byte("[]")
	}
	list, toHelper, err := os.Pipe()
	if err != nil {
		return errors.Join(err, forWorker.Close(), forHelper.Close())
	}
	var stderr io.Writer
	if !m.options.HelperQuiet {
		stderr = m.options.Stderr
	}
	m.helper, err = spawn(child.Options{
		Role: "helper", Dir: "/", Args: append(m.grants.Users.Args(), m.grants.AgentArgs...), Env: child.Environment(),
		Files: []*os.File{forHelper, list}, Stderr: stderr,
	})
	err = errors.Join(err, forHelper.Close(), list.Close())
	// It ends when the helper has read all, or has ended, which is told elsewhere.
	go func() {
		_, _ = toHelper.Write(commands)
		_ = toHelper.Close()
	}()
	if err == nil {
		// A worker that has just ended hears nothing; that it ended is told elsewhere.
		_ = m.events.Send("helper", forWorker)
	}
	return errors.Join(err, forWorker.Close())
}

// hear takes what the worker says: "ready LINE", "reloaded LINE" or "kept REASON".
func (m *master) hear(text string) {
	verb, rest, _ := strings.Cut(text, " ")
	switch verb {
	case "ready":
		m.ready = true
		if !m.everUp {
			m.everUp = true
			m.options.Ready(rest, m.grants)
		}
		m.closeUnused(m.grants)
	case "reloaded":
		m.settle(true)
		return
	case "kept":
		// The worker has logged why.
		m.settle(false)
		return
	}
	if m.pending {
		m.pending = false
		m.reload()
	}
}

// reload reads the configuration and has the worker do so.
func (m *master) reload() {
	if !m.ready || m.next != nil {
		// A worker that starts or reloads may have read the files before they changed last.
		m.pending = true
		return
	}
	m.options.Reloading(false)
	next, err := m.options.Read()
	if err == nil {
		err = prepare(next)
	}
	if err != nil {
		m.log().Error(fmt.Sprintf("reload: %v; the configuration in use stays", err))
		m.options.Reloading(true)
		return
	}
	if next.Worker.UID != m.grants.Worker.UID {
		next.Log.Warn(fmt.Sprintf("the server goes on as %s until it is started again, not as %s", m.grants.Worker.Name, next.Worker.Name))
	}
	next.Worker = m.grants.Worker
	m.mu.Lock()
	m.next = next
	m.mu.Unlock()
	// A worker that has ended is noticed elsewhere, and the next one reads the new files.
	_ = m.events.Send("reload", nil)
}

// settle ends a reload.
func (m *master) settle(taken bool) {
	m.mu.Lock()
	next := m.next
	m.next = nil
	if taken && next != nil {
		m.grants, next = next, m.grants
	}
	m.mu.Unlock()
	if next == nil {
		return
	}
	m.closeUnused(m.grants)
	if taken && m.helper != nil && !m.grants.sameHelper(next) {
		// The helper is told its limits at its start. The one in use ends when its commands have: the worker leaves it for the new one.
		before := m.helper
		if err := m.startHelper(); err != nil {
			m.log().Error(fmt.Sprintf("reload: %v; the helper is ended and started again", err))
			m.helper = before
			_ = before.command.Process.Kill()
		}
	}
	m.options.Reloading(true)
	if m.pending {
		m.pending = false
		m.reload()
	}
}

// closeUnused closes the sockets that a configuration does not name.
func (m *master) closeUnused(g *Grants) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for key, l := range m.sockets {
		if !slices.ContainsFunc(g.Sockets, func(a listen.Address) bool { return a.Key() == key }) {
			if err := l.Close(); err != nil {
				m.log().Warn(err.Error())
			}
			delete(m.sockets, key)
		}
	}
}

func (m *master) closeSockets() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range m.sockets {
		// Nobody is told any more.
		_ = l.Close()
	}
	clear(m.sockets)
}

// Pauses before a worker is started again: pauseStep for each time in a row that it died young, at most maxPause. One that lived for settled is
// no longer young.
const (
	pauseStep = 50 * time.Millisecond
	maxPause  = 10 * time.Second
	settled   = time.Minute
	// helperPause is the pause before a helper is started again.
	helperPause = 100 * time.Millisecond
)

// lost deals with a worker that ended without being asked to.
func (m *master) lost(ctx context.Context) error {
	ended := m.worker
	// Nothing is heard from it any more.
	m.worker = &process{ended: make(chan struct{})}
	_ = m.events.Close()
	if ctx.Err() != nil {
		m.endHelper()
		return nil
	}
	if !m.everUp {
		m.endHelper()
		return ErrWorker
	}
	if time.Since(ended.begun) > settled {
		m.failures = 0
	}
	m.failures++
	pause := min(time.Duration(m.failures)*pauseStep, maxPause)
	if !m.ready {
		pause = min(pause*20, maxPause)
	}
	m.log().Warn(fmt.Sprintf("process postilion worker pid %s; it is started again in %v", ended.describe(), pause))
	if m.next != nil {
		m.settle(false)
	}
	m.ready = false
	m.restart = time.After(pause)
	return nil
}

// again starts a worker in the place of one that died, by the configuration as it is now, or when that cannot be read, as it was.
func (m *master) again() error {
	if next, err := m.options.Read(); err != nil {
		m.log().Error(fmt.Sprintf("the configuration cannot be read: %v", err))
	} else {
		next.Worker = m.grants.Worker
		if err := prepare(next); err != nil {
			next.Log.Error(err.Error())
		}
		m.mu.Lock()
		m.grants = next
		m.mu.Unlock()
	}
	m.endHelper()
	return m.start()
}

// helperEnded is closed when the helper has ended.
func (m *master) helperEnded() <-chan struct{} {
	if m.helper == nil {
		return nil
	}
	return m.helper.ended
}

// lostHelper deals with a helper that ended. It ends in order when its worker lets go of it, which a worker that dies does too.
func (m *master) lostHelper() {
	if !m.helper.command.ProcessState.Success() {
		m.log().Warn("process postilion helper pid " + m.helper.describe() + "; it is started again")
	}
	m.helper = nil
	m.helperPause = time.After(helperPause)
}

// endHelper waits for the helper, which ends when its worker has.
func (m *master) endHelper() {
	m.helperPause = nil
	if m.helper == nil {
		return
	}
	select {
	case <-m.helper.ended:
	case <-time.After(time.Second):
		_ = m.helper.command.Process.Kill()
		<-m.helper.ended
	}
	m.helper = nil
}

// stop has the worker end in order, and ends it when it does not.
func (m *master) stop() error {
	if m.worker.command == nil {
		m.endHelper()
		return nil
	}
	_ = m.events.Send("stop", nil)
	late := time.After(m.options.Patience)
	for waiting := true; waiting; {
		select {
		case <-m.worker.ended:
			waiting = false
		case <-m.heard:
		case <-late:
			m.log().Warn(fmt.Sprintf("process postilion worker pid %d does not end: it is killed", m.worker.command.Process.Pid))
			_ = m.worker.command.Process.Kill()
		}
	}
	m.endHelper()
	if !m.worker.command.ProcessState.Success() {
		return errors.New("process postilion worker pid " + m.worker.describe())
	}
	return nil
}
