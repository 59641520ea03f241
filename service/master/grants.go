package master

import (
	"log/slog"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"postilion/service/child"
	"postilion/service/helper"
	"postilion/service/listen"
)

// Grants is all that a configuration lets the master do for its worker, and nothing else is done.
type Grants struct {
	// Worker is who the worker is. It stays what it was at the start.
	Worker child.Identity
	// Sockets may be opened, with the owners and modes given here.
	Sockets []listen.Address
	// Files may be read. A * stands for any part of one name: "/etc/vmail/*/passwd".
	Files []string
	// Logs may be appended to, and are made when they are missing.
	Logs []string
	// Directories are made when they are missing.
	Directories []Directory
	// PidFiles hold the master's process number.
	PidFiles []string
	// Shadow lets the worker ask for single password hashes of system users.
	Shadow bool
	// Users are whom agents may be.
	Users helper.Bounds
	// Commands may be run, each as a user of its own.
	Commands []helper.Command
	// AgentArgs is the command line of agents behind their role.
	AgentArgs []string
	// Log is the master's own.
	Log *slog.Logger
}

// Directory is one that the server needs.
type Directory struct {
	Path string
	// Where is the setting that names it, with file and line.
	Where string
	// Owned directories belong to the worker, which must be able to write there; others are root's.
	Owned bool
	// Required directories end the start when the worker cannot use them.
	Required bool
}

// sameHelper tells whether a helper that was started by one of the two would be the same by the other.
func (g *Grants) sameHelper(other *Grants) bool {
	return g.Users == other.Users && slices.Equal(g.AgentArgs, other.AgentArgs) && reflect.DeepEqual(g.Commands, other.Commands)
}

// mayRead tells whether a file is granted.
func (g *Grants) mayRead(name string) bool {
	if !filepath.IsAbs(name) || filepath.Clean(name) != name {
		return slices.Contains(g.Files, name)
	}
	return slices.ContainsFunc(g.Files, func(granted string) bool {
		if granted == name {
			return true
		}
		if !strings.Contains(granted, "*") {
			return false
		}
		ok, err := path.Match(granted, name)
		return err == nil && ok
	})
}

func (g *Grants) socket(network, address string) (listen.Address, bool) {
	i := slices.IndexFunc(g.Sockets, func(a listen.Address) bool { return a.Network == network && a.Address == address })
	if i < 0 {
		return listen.Address{}, false
	}
	return g.Sockets[i], true
}
