package service

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"postilion/config/dovecot"
	"postilion/config/postfix"
	"postilion/service/care"
	"postilion/service/control"
)

// noControlSocket is the value of postilion_control_socket that leaves the socket out.
const noControlSocket = "none"

// commands lists what the control socket answers to. A further command is a file of its own that returns a control.Command, and a line here.
func (s *Server) commands() []control.Command {
	return care.Commands(s.stores.find)
}

// openControl makes the control socket. A server without one serves mail all the same.
func (s *Server) openControl(b *builder) {
	var failures []error
	for _, path := range controlSockets(b.postfix, b.dovecot) {
		opened, err := control.Listen(path, s.log, s.commands()...)
		if err == nil {
			s.control = opened
			return
		}
		failures = append(failures, err)
	}
	if err := errors.Join(failures...); err != nil {
		s.log.Warn(fmt.Sprintf("no control socket, so that commands cannot reach this process: %s", strings.ReplaceAll(err.Error(), "\n", "; ")))
	}
}

func (s *Server) closeControl() error {
	if s.control == nil {
		return nil
	}
	return s.control.Close()
}

// find returns the open vault in a directory, or the only one for "".
func (s *stores) find(path string) (*care.Vault, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if path == "" && len(s.vaults) == 1 {
		for only := range s.vaults {
			path = only
		}
	}
	open, ok := s.vaults[filepath.Clean(path)]
	if !ok {
		return nil, fmt.Errorf("this process does not serve the vault %s", path)
	}
	return &care.Vault{Path: path, DB: open.db, Store: open.store}, nil
}

// controlSockets are the places of the control socket, the first that can be made counts: as postilion_control_socket says, or in base_dir, or, where that belongs to
// another user, in data_directory, which is the serving user's.
func controlSockets(transport *postfix.Config, mailboxes *dovecot.Config) []string {
	path, dir := "", ""
	var dirs []string
	if mailboxes != nil {
		view := mailboxes.For(dovecot.Filter{})
		path, dir = view.String("postilion_control_socket"), view.String("base_dir")
		dirs = append(dirs, dir)
	}
	if transport != nil {
		view := transport.View()
		path, dir = first(path, view.String("postilion_control_socket")), first(dir, view.String("data_directory"))
		if len(dirs) > 0 {
			dirs = append(dirs, view.String("data_directory"))
		}
	}
	switch {
	case path == noControlSocket:
		return nil
	case path != "" && !filepath.IsAbs(path):
		return []string{filepath.Join(dir, path)}
	case path != "":
		return []string{path}
	}
	for i := range dirs {
		dirs[i] = filepath.Join(dirs[i], "control", "socket")
	}
	return dirs
}

// Places are where a configuration keeps what commands ask for.
type Places struct {
	// ControlSockets are where the control socket of whoever serves it may lie.
	ControlSockets []string
	// Vault is the directory of the vault, "" when mail_location names none.
	Vault string
}

// FindPlaces reads a configuration for a command.
func FindPlaces(options Options) (Places, error) {
	b := &builder{options: options}
	if err := b.read(); err != nil {
		return Places{}, err
	}
	places := Places{ControlSockets: controlSockets(b.postfix, b.dovecot)}
	if b.dovecot != nil {
		view := b.dovecot.For(dovecot.Filter{})
		if path, ok := strings.CutPrefix(placed(view, view.String("mail_location")), "vault:"); ok && !strings.Contains(path, "%") {
			places.Vault = filepath.Clean(path)
		}
	}
	return places, nil
}
