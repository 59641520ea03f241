package imapd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"postilion/proto/imap"
	"postilion/store"
)

// failure is an answer of NO: a response code with brackets or "", and a text.
type failure struct {
	code, text string
}

func (f failure) Error() string { return f.text }

func (f failure) reply() string {
	if f.code == "" {
		return "NO " + f.text
	}
	return "NO [" + f.code + "] " + f.text
}

func cannot(why string) error { return failure{"CANNOT", "Invalid mailbox name: " + why} }

// place is where a mailbox name leads.
type place struct {
	ns *Namespace
	// name is the store's name, "" for the namespace's own prefix.
	name string
	// shown is the name as the client knows it, in UTF-8.
	shown string
}

// locate reads a mailbox name as the client sent it.
func (s *session) locate(arg *imap.Arg) (place, error) {
	name, ok := s.decodeName(arg.Text)
	if !ok {
		return place{}, failure{"", "Mailbox name is not valid mUTF-7"}
	}
	return s.find(name)
}

func (s *session) decodeName(text []byte) (string, bool) {
	if s.enabled.utf8 || s.enabled.rev2 {
		return string(text), utf8.Valid(text)
	}
	return imap.ParseUTF7(text)
}

// find gives the namespace and the store's name of a name in UTF-8.
func (s *session) find(name string) (place, error) {
	ns := s.namespaceOf(name)
	if ns == nil {
		return place{}, failure{"NONEXISTENT", "Client tried to access nonexistent namespace. (Mailbox name should probably be prefixed with: " + s.namespaces[0].Prefix + ")"}
	}
	p := place{ns: ns, shown: name}
	if strings.EqualFold(name, store.Inbox) {
		return place{ns, store.Inbox, store.Inbox}, nil
	}
	rest := strings.TrimPrefix(name, ns.Prefix)
	if len(name) < len(ns.Prefix) {
		return p, nil
	}
	separator := string(ns.Separator)
	if ns.Separator != '/' && strings.Contains(rest, "/") {
		return p, cannot("Name must not have '/' characters")
	}
	p.name = strings.ReplaceAll(rest, separator, "/")
	if head, below, deeper := strings.Cut(p.name, "/"); deeper && ns.Inbox && strings.EqualFold(head, store.Inbox) {
		p.name = store.Inbox + "/" + below
		p.shown = ns.Prefix + strings.ReplaceAll(p.name, "/", separator)
	} else if ns.Inbox && ns.Prefix != "" && strings.EqualFold(p.name, store.Inbox) {
		p.name = store.Inbox
	}
	switch {
	case p.name == "":
		return p, cannot("Name is empty")
	case p.name[0] == '/':
		return p, cannot("Begins with hierarchy separator")
	case strings.HasSuffix(p.name, "/"):
		return p, cannot("Ends with hierarchy separator")
	case strings.Contains(p.name, "//"):
		return p, cannot("Has adjacent hierarchy separators")
	}
	return p, nil
}

// namespaceOf finds the namespace with the longest prefix that a name has.
func (s *session) namespaceOf(name string) *Namespace {
	var best *Namespace
	inbox := strings.EqualFold(name, store.Inbox)
	for i := range s.namespaces {
		ns := &s.namespaces[i]
		if inbox {
			if ns.Inbox {
				return ns
			}
			continue
		}
		matches := strings.HasPrefix(name, ns.Prefix) || name+string(ns.Separator) == ns.Prefix ||
			strings.HasPrefix(strings.ToUpper(ns.Prefix), store.Inbox) && len(name) >= len(ns.Prefix) && strings.EqualFold(name[:len(ns.Prefix)], ns.Prefix)
		if matches && (best == nil || len(ns.Prefix) > len(best.Prefix)) {
			best = ns
		}
	}
	return best
}

// show gives the client's name of a store's name.
func (ns *Namespace) show(name string) string {
	if name == store.Inbox && ns.Inbox {
		return store.Inbox
	}
	if ns.Separator != '/' {
		name = strings.ReplaceAll(name, "/", string(ns.Separator))
	}
	return ns.Prefix + name
}

// setting returns the mailbox section of a store's name.
func (ns *Namespace) setting(name string) *MailboxSetting {
	for i := range ns.Mailboxes {
		if ns.Mailboxes[i].Name == name {
			return &ns.Mailboxes[i]
		}
	}
	return nil
}

// autoCreate makes the mailboxes that the configuration wants to be there. One that cannot be made keeps nobody out: on a full disk, the user
// must get in to delete mail.
func (s *session) autoCreate(ctx context.Context) {
	for i := range s.namespaces {
		ns := &s.namespaces[i]
		for _, m := range ns.Mailboxes {
			if m.Auto == AutoNo || m.Name == store.Inbox {
				continue
			}
			if _, err := ns.Account.Status(ctx, m.Name); err == nil {
				continue
			}
			err := ns.Account.Create(ctx, m.Name, firstWord(m.SpecialUse))
			if errors.Is(err, store.ErrExists) {
				continue
			}
			if err == nil && m.Auto == AutoSubscribe {
				err = ns.Account.Subscribe(ctx, m.Name, true)
			}
			if err != nil {
				s.Log.Error(fmt.Sprintf("mailbox %s, which auto wants: %v", m.Name, err))
			}
		}
	}
}

func firstWord(s string) string {
	word, _, _ := strings.Cut(s, " ")
	return word
}

// explain turns an error of the store into the answer that the client sees; one that is not the client's is logged.
func (s *session) explain(err error, p place) failure {
	var f failure
	switch {
	case errors.As(err, &f):
		return f
	case errors.Is(err, store.ErrNotFound):
		return failure{"", "Mailbox doesn't exist: " + p.shown}
	case errors.Is(err, store.ErrExists):
		return failure{"ALREADYEXISTS", "Mailbox already exists"}
	case errors.Is(err, store.ErrName):
		return failure{"CANNOT", "Invalid mailbox name"}
	case errors.Is(err, store.ErrOverQuota):
		return failure{"OVERQUOTA", "Quota exceeded (mailbox for user is full)"}
	case errors.Is(err, store.ErrExpunged):
		return failure{"EXPUNGEISSUED", "Some of the requested messages no longer exist."}
	case errors.Is(err, store.ErrTooMany):
		return failure{"LIMIT", "Limit of the mail store reached"}
	case errors.Is(err, store.ErrNoSpace):
		s.Log.Error(err.Error())
		return failure{"UNAVAILABLE", "Not enough disk space"}
	}
	s.Log.Error(err.Error())
	return failure{"SERVERBUG", "Internal error occurred. Refer to server log for more information."}
}

// fail answers NO, or BAD when the error is the grammar's.
func (s *session) fail(ctx context.Context, cmd *imap.Command, err error, p place) {
	var syntax imap.SyntaxError
	if errors.As(err, &syntax) {
		s.refuse(cmd, string(syntax))
		return
	}
	s.finish(ctx, cmd, s.explain(err, p).reply())
}

// stringArgs checks that a command has n string arguments.
func (s *session) stringArgs(cmd *imap.Command, n int) bool {
	if len(cmd.Args) < n {
		s.refuse(cmd, "Missing arguments")
		return false
	}
	for i := range n {
		if !cmd.Args[i].IsString() {
			s.refuse(cmd, "Invalid arguments")
			return false
		}
	}
	return true
}

// namespace is NAMESPACE (RFC 2342).
func (s *session) namespace(ctx context.Context, cmd *imap.Command) {
	s.Room()
	s.Out = append(s.Out, "* NAMESPACE"...)
	for _, kind := range []NamespaceKind{Personal, OtherUsers, Shared} {
		any := false
		for i := range s.namespaces {
			ns := &s.namespaces[i]
			if ns.Kind != kind || ns.Hidden {
				continue
			}
			if !any {
				s.Out = append(s.Out, " ("...)
			}
			any = true
			s.Out = append(s.Out, '(')
			s.Out = imap.AppendString(s.Out, s.encodeName(ns.Prefix))
			s.Out = append(s.Out, ' ')
			s.Out = imap.AppendString(s.Out, []byte{ns.Separator})
			s.Out = append(s.Out, ')')
		}
		if any {
			s.Out = append(s.Out, ')')
		} else {
			s.Out = append(s.Out, " NIL"...)
		}
	}
	s.Out = append(s.Out, "\r\n"...)
	s.finish(ctx, cmd, "OK Namespace completed.")
}

func (s *session) encodeName(name string) []byte {
	if s.enabled.utf8 || s.enabled.rev2 {
		return []byte(name)
	}
	return imap.AppendUTF7(nil, name)
}

// appendName writes a mailbox name in a response.
func (s *session) appendName(dst []byte, name string) []byte {
	return imap.AppendMailbox(dst, name, s.enabled.utf8 || s.enabled.rev2)
}
