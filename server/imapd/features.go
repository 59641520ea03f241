package imapd

import (
	"context"
	"strconv"
	"strings"
	"time"

	"postilion/proto/imap"
)

// command is how a command is carried out.
type command struct {
	name string
	// selected commands need a mailbox.
	selected bool
	run      func(*session, context.Context, *imap.Command)
}

// feature is what one extension adds to the server.
type feature struct {
	// capability words are announced after login, at the place Dovecot has them.
	capability []string
	commands   []command
	fetch      []fetcher
	search     []searcher
	status     []statusItem
	enable     []enabler
	// selectParams are parameters of SELECT and EXAMINE, fetchModifiers those of FETCH (RFC 4466).
	selectParams   []selectParam
	fetchModifiers []fetchModifier
}

// enabler is a word that ENABLE takes.
type enabler struct {
	word string
	run  func(*session, context.Context)
}

// features is the joined list.
type features struct {
	capability string
	// banner is the words before login, without those of TLS and authentication.
	banner   []string
	prelogin map[string]*command
	commands map[string]*command
	fetch    map[string]*fetcher
	search   map[string]*searcher
	status   map[string]*statusItem
	enable   map[string]*enabler

	selectParams   map[string]*selectParam
	fetchModifiers map[string]*fetchModifier
}

// listFeatures names everything that the server can do. The order of the list is the order of the capability words, Dovecot's as far as it has them.
func listFeatures(opt *Options) []feature {
	list := []feature{
		{capability: []string{"SASL-IR", "LOGIN-REFERRALS", "ID", "ENABLE", "IDLE"}},
		basics(), mailboxes(), selecting(), listing(), statuses(), fetching(), storing(), searching(), copying(), idling(),
		sorting(), threading(),
		{capability: []string{"MULTIAPPEND"}},
		appending(),
		{capability: []string{"UNSELECT", "CHILDREN", "NAMESPACE", "UIDPLUS", "LIST-EXTENDED", "I18NLEVEL=1"}},
		condstore(), qresync(), esearch(), within(), searchContexts(),
		{capability: []string{"LIST-STATUS"}},
		binary(), moving(), preview(),
		{capability: []string{"STATUS=SIZE"}},
		savedate(),
	}
	if opt.SpecialUse || opt.CreateSpecialUse {
		list = append(list, feature{capability: []string{"SPECIAL-USE"}})
	}
	if opt.LiteralMinus {
		list = append(list, feature{capability: []string{"LITERAL-"}})
	} else {
		list = append(list, feature{capability: []string{"LITERAL+"}})
	}
	if opt.AppendLimit > 0 {
		list = append(list, feature{capability: []string{"APPENDLIMIT=" + strconv.FormatInt(opt.AppendLimit, 10)}})
	}
	if opt.QuotaRoot != "" {
		list = append(list, quota())
	}
	if opt.CreateSpecialUse {
		list = append(list, feature{capability: []string{"CREATE-SPECIAL-USE"}})
	}
	if opt.UTF8Accept {
		list = append(list, feature{
			capability: []string{"UTF8=ACCEPT"},
			enable:     []enabler{{"UTF8=ACCEPT", func(s *session, _ context.Context) { s.enabled.utf8 = true }}},
		})
	}
	if opt.IMAP4rev2 {
		list = append(list, feature{enable: []enabler{{"IMAP4rev2", func(s *session, _ context.Context) { s.enabled.rev2 = true }}}})
	}
	if opt.MailboxID {
		list = append(list, objectID())
	}
	return list
}

func newFeatures(opt *Options) *features {
	f := &features{
		prelogin: map[string]*command{}, commands: map[string]*command{},
		fetch: map[string]*fetcher{}, search: map[string]*searcher{}, status: map[string]*statusItem{},
		enable: map[string]*enabler{}, selectParams: map[string]*selectParam{}, fetchModifiers: map[string]*fetchModifier{},
	}
	words := []string{"IMAP4rev1"}
	if opt.IMAP4rev2 {
		words = append(words, "IMAP4rev2")
	}
	list := listFeatures(opt)
	for _, feature := range list {
		words = append(words, feature.capability...)
		for _, c := range feature.commands {
			f.commands[c.name] = &c
		}
		for _, item := range feature.fetch {
			f.fetch[item.name] = &item
		}
		for _, key := range feature.search {
			f.search[key.name] = &key
		}
		for _, item := range feature.status {
			f.status[item.name] = &item
		}
	}
	for _, feature := range list {
		for _, e := range feature.enable {
			f.enable[strings.ToUpper(e.word)] = &e
		}
		for _, p := range feature.selectParams {
			f.selectParams[p.name] = &p
		}
		for _, m := range feature.fetchModifiers {
			f.fetchModifiers[m.name] = &m
		}
	}
	for _, c := range preloginCommands() {
		f.prelogin[c.name] = &c
	}
	f.capability = strings.Join(words, " ")
	if more, ok := strings.CutPrefix(opt.Capability, "+"); ok {
		f.capability += " " + strings.TrimSpace(more)
	} else if opt.Capability != "" {
		f.capability = opt.Capability
	}
	literal := "LITERAL+"
	if opt.LiteralMinus {
		literal = "LITERAL-"
	}
	f.banner = []string{"SASL-IR", "LOGIN-REFERRALS", "ID", "ENABLE", "IDLE", literal}
	return f
}

// command carries out what the decoder read.
func (s *session) command(ctx context.Context, cmd *imap.Command) {
	table := s.srv.features.commands
	if s.User == nil {
		table = s.srv.features.prelogin
	}
	c := table[cmd.Name]
	switch {
	case c == nil:
		s.refuse(cmd, "Unknown command")
	case c.selected && s.box == nil:
		if !s.tooManyBad() {
			s.tagged(cmd, "BAD No mailbox selected")
		}
	default:
		s.tellsNew = c.name == "NOOP" || c.name == "CHECK" || c.name == "IDLE"
		c.run(s, ctx, cmd)
	}
	s.lastCommand, s.lastTime = cmd.Name, time.Now()
	s.Overflow()
}

// basics is the commands that concern no mailbox.
func basics() feature {
	return feature{commands: []command{
		{name: "CAPABILITY", run: func(s *session, ctx context.Context, cmd *imap.Command) {
			s.untagged("CAPABILITY " + s.capabilities())
			s.finish(ctx, cmd, "OK Capability completed.")
		}},
		{name: "NOOP", run: func(s *session, ctx context.Context, cmd *imap.Command) { s.finish(ctx, cmd, "OK NOOP completed.") }},
		{name: "CHECK", selected: true, run: func(s *session, ctx context.Context, cmd *imap.Command) {
			s.finish(ctx, cmd, "OK Check completed.")
		}},
		{name: "LOGOUT", run: func(s *session, _ context.Context, cmd *imap.Command) {
			s.untagged("BYE Logging out")
			s.tagged(cmd, "OK Logout completed.")
			s.Ended, s.Reason = true, "Logged out"
		}},
		{name: "ID", run: (*session).identify},
		{name: "ENABLE", run: (*session).enable},
		{name: "NAMESPACE", run: (*session).namespace},
	}}
}

// identify is ID (RFC 2971).
func (s *session) identify(ctx context.Context, cmd *imap.Command) {
	s.logID(cmd.Args)
	s.Room()
	s.Out = append(s.Out, "* ID "...)
	fields := s.opt.IDSend
	if len(fields) == 0 {
		fields = []string{"name", "*"}
	}
	for i, text := range fields {
		if i == 0 {
			s.Out = append(s.Out, '(')
		} else {
			s.Out = append(s.Out, ' ')
		}
		if i%2 == 1 && text == "*" {
			text = s.ownID(fields[i-1])
		}
		s.Out = imap.AppendString(s.Out, []byte(text))
	}
	s.Out = append(s.Out, ")\r\n"...)
	if s.User == nil {
		s.tagged(cmd, "OK ID completed.")
		return
	}
	s.finish(ctx, cmd, "OK ID completed.")
}

func (s *session) ownID(field string) string {
	if field == "name" {
		return "Postilion"
	}
	return ""
}

// logID logs the fields of the client's ID that imap_id_log names.
func (s *session) logID(args []imap.Arg) {
	if len(s.opt.IDLog) == 0 || len(args) == 0 || args[0].Kind != imap.List {
		return
	}
	var told []string
	list := args[0].List
	for i := 0; i+1 < len(list) && i < 60; i += 2 {
		name := strings.ToLower(string(list[i].Text))
		for _, want := range s.opt.IDLog {
			if want == "*" || strings.EqualFold(want, name) {
				told = append(told, name+"="+string(list[i+1].Text[:min(len(list[i+1].Text), 1024)]))
				break
			}
		}
	}
	if told != nil {
		s.Log.Info("ID sent: " + strings.Join(told, ", "))
	}
}

// enable is ENABLE (RFC 5161).
func (s *session) enable(ctx context.Context, cmd *imap.Command) {
	var done []string
	for i := range cmd.Args {
		if cmd.Args[i].Kind != imap.Atom {
			s.refuse(cmd, "Invalid arguments")
			return
		}
		if e := s.srv.features.enable[cmd.Args[i].Upper()]; e != nil {
			e.run(s, ctx)
			done = append(done, e.word)
		}
	}
	if done != nil {
		s.untagged("ENABLED " + strings.Join(done, " "))
	}
	s.finish(ctx, cmd, "OK Enabled.")
}
