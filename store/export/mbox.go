package export

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"postilion/mail/mbox"
	"postilion/store"
)

// mboxes writes an account as one mbox file a mailbox, INBOX as "inbox", with the fields in which Dovecot keeps UIDs and flags.
type mboxes struct {
	exporter *exporter
	dir      string
	// above are the names that have mailboxes below them: a directory has that name already.
	above map[string]bool

	file   *os.File
	writer *mbox.Writer
	view   store.View
	first  bool
}

func newMboxes(e *exporter, dir string, listed []store.Listed) *mboxes {
	m := &mboxes{exporter: e, dir: dir, above: map[string]bool{}}
	for _, l := range listed {
		for i := range len(l.Name) {
			if l.Name[i] == '/' {
				m.above[l.Name[:i]] = true
			}
		}
	}
	return m
}

func (m *mboxes) begin(name string, view store.View) error {
	path := utf7(name)
	switch {
	case name == store.Inbox:
		path = "inbox"
	case m.above[name]:
		path += ".mbox"
		m.exporter.problem("mailbox %q is written as %q: a directory has its name", name, path)
	}
	path = filepath.Join(m.dir, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	m.file, m.writer, m.view, m.first = file, mbox.NewWriter(file, mbox.RD), view, true
	return nil
}

func (m *mboxes) add(entry *store.Entry, body store.Body) error {
	data, err := text(body)
	if err != nil {
		return err
	}
	head, rest := splitHead(data)
	sender := ""
	var kept bytes.Buffer
	for _, field := range fields(head) {
		name, value, _ := bytes.Cut(field, []byte(":"))
		switch strings.ToLower(string(bytes.TrimSpace(name))) {
		case "status", "x-status", "x-keywords", "x-uid", "x-imapbase", "x-imap", "content-length":
			continue
		case "return-path":
			sender = strings.Trim(strings.TrimSpace(string(value)), "<>")
		}
		kept.Write(field)
	}
	if err := m.writer.Begin(sender, entry.InternalDate); err != nil {
		return err
	}
	m.own(&kept, entry)
	_, headErr := m.writer.Write(kept.Bytes())
	_, bodyErr := m.writer.Write(rest)
	return errors.Join(headErr, bodyErr)
}

// own writes Dovecot's fields.
func (m *mboxes) own(to *bytes.Buffer, entry *store.Entry) {
	if m.first {
		m.first = false
		fmt.Fprintf(to, "X-IMAPbase: %d %010d %s\r\n", m.view.UIDValidity(), uint32(m.view.UIDNext())-1, strings.Join(m.view.Keywords(), " "))
	}
	fmt.Fprintf(to, "X-UID: %d\r\n", entry.UID)
	status := "O"
	if entry.Flags&store.FlagSeen != 0 {
		status = "RO"
	}
	fmt.Fprintf(to, "Status: %s\r\n", status)
	var more []byte
	for _, f := range []struct {
		flag   store.Flags
		letter byte
	}{{store.FlagAnswered, 'A'}, {store.FlagFlagged, 'F'}, {store.FlagDraft, 'T'}, {store.FlagDeleted, 'D'}} {
		if entry.Flags&f.flag != 0 {
			more = append(more, f.letter)
		}
	}
	if len(more) > 0 {
		fmt.Fprintf(to, "X-Status: %s\r\n", more)
	}
	if len(entry.Keywords) > 0 {
		names := make([]string, len(entry.Keywords))
		for i, k := range entry.Keywords {
			names[i] = m.view.Keywords()[k]
		}
		fmt.Fprintf(to, "X-Keywords: %s\r\n", strings.Join(names, " "))
	}
}

func (m *mboxes) end() error {
	return errors.Join(m.writer.Flush(), m.file.Close())
}

func (m *mboxes) finish(subscriptions []string) error {
	var list bytes.Buffer
	list.WriteString("V\t2\n\n")
	for _, name := range subscriptions {
		list.WriteString(strings.ReplaceAll(utf7(name), "/", "\t") + "\n")
	}
	return writeFile(filepath.Join(m.dir, ".subscriptions"), list.Bytes())
}

// splitHead divides a message before the empty line.
func splitHead(data []byte) (head, rest []byte) {
	at := 0
	for line := range bytes.Lines(data) {
		if len(bytes.TrimRight(line, "\r\n")) == 0 {
			return data[:at], data[at:]
		}
		at += len(line)
	}
	return data, []byte("\r\n")
}

// fields divides a head into fields with their continuation lines.
func fields(head []byte) (all [][]byte) {
	start, at := 0, 0
	for line := range bytes.Lines(head) {
		if at > start && line[0] != ' ' && line[0] != '\t' {
			all = append(all, head[start:at])
			start = at
		}
		at += len(line)
	}
	if at > start {
		all = append(all, head[start:at])
	}
	return all
}
