package imapd

import (
	"sync"

	"postilion/proto/imap"
	"postilion/server/login"
)

// Server serves IMAP: its Gate lets connections in. Its methods may be called at the same time.
type Server struct {
	*login.Gate
	opt      Options
	prelogin *imap.Grammar
	grammar  *imap.Grammar
	features *features

	mu sync.Mutex
	// tracked names mailboxes of which mod-sequences were asked for.
	tracked map[string]struct{}
}

// New makes a Server.
func New(opt Options) *Server {
	opt.setDefaults()
	srv := &Server{
		opt:      opt,
		prelogin: imap.NewGrammar(imap.Prelogin()),
		grammar:  imap.NewGrammar(imap.Extensions()...),
		features: newFeatures(&opt), tracked: map[string]struct{}{},
	}
	opt.Options.Service = "imap"
	opt.Options.Refusal = func(text string) string { return "* BYE " + text + "\r\n" }
	srv.Gate = login.New(opt.Options, func(c *login.Conn) login.Session { return newSession(srv, c) })
	return srv
}
