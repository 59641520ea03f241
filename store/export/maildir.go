package export

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"postilion/store"
)

// letterKeywords is how many keywords a file name of Maildir has letters for.
const letterKeywords = 26

// maildirs writes an account as Maildir++ folders with Dovecot's control files.
type maildirs struct {
	exporter *exporter
	dir      string
	// used are the directories that mailboxes have, by name of the directory.
	used map[string]string

	folder  string
	name    string
	view    store.View
	letters map[uint16]byte
	list    bytes.Buffer
}

func newMaildirs(e *exporter, dir string) *maildirs {
	return &maildirs{exporter: e, dir: dir, used: map[string]string{}}
}

// folderName is the name of a mailbox's directory: "." between the levels, so a "." in a level becomes "_".
func (m *maildirs) folderName(name string) string {
	if name == store.Inbox {
		return ""
	}
	coded := "." + strings.ReplaceAll(strings.ReplaceAll(utf7(name), ".", "_"), "/", ".")
	for m.used[coded] != "" && m.used[coded] != name {
		coded += "_"
	}
	if strings.Contains(name, ".") && m.used[coded] == "" {
		m.exporter.problem("mailbox %q is written as %q: Maildir++ has the dot between levels", name, coded)
	}
	m.used[coded] = name
	return coded
}

func (m *maildirs) begin(name string, view store.View) error {
	m.name, m.view, m.folder = name, view, filepath.Join(m.dir, m.folderName(name))
	for _, sub := range []string{"cur", "new", "tmp"} {
		if err := os.MkdirAll(filepath.Join(m.folder, sub), 0o700); err != nil {
			return err
		}
	}
	if m.folder != m.dir {
		if err := writeFile(filepath.Join(m.folder, "maildirfolder"), nil); err != nil {
			return err
		}
	}
	m.letters = map[uint16]byte{}
	m.list.Reset()
	fmt.Fprintf(&m.list, "3 V%d N%d\n", view.UIDValidity(), view.UIDNext())
	return nil
}

// letter is what stands for a keyword in file names, 0 when there are too many.
func (m *maildirs) letter(keyword uint16) byte {
	letter, known := m.letters[keyword]
	if !known {
		if len(m.letters) < letterKeywords {
			letter = byte('a' + len(m.letters))
		} else {
			m.exporter.problem("mailbox %q: keyword %s is left out: Maildir has %d", m.name, m.view.Keywords()[keyword], letterKeywords)
		}
		m.letters[keyword] = letter
	}
	return letter
}

func (m *maildirs) add(entry *store.Entry, body store.Body) error {
	data, err := text(body)
	if err != nil {
		return err
	}
	size := len(data)
	// Files of Maildir have LF. A message with a bare LF would not come back as it was, so it keeps what it has.
	if bytes.Count(data, []byte("\n")) == bytes.Count(data, []byte("\r\n")) {
		data = bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n"))
	}
	var flags []byte
	for _, f := range []struct {
		flag   store.Flags
		letter byte
	}{{store.FlagDraft, 'D'}, {store.FlagFlagged, 'F'}, {store.FlagAnswered, 'R'}, {store.FlagSeen, 'S'}, {store.FlagDeleted, 'T'}} {
		if entry.Flags&f.flag != 0 {
			flags = append(flags, f.letter)
		}
	}
	var keywords [letterKeywords]bool
	for _, k := range entry.Keywords {
		if letter := m.letter(k); letter != 0 {
			keywords[letter-'a'] = true
		}
	}
	for i, set := range keywords {
		if set {
			flags = append(flags, byte('a'+i))
		}
	}
	base := fmt.Sprintf("%d.M%dV%d.export,S=%d,W=%d", entry.InternalDate.Unix(), entry.UID, m.view.UIDValidity(), len(data), size)
	name := filepath.Join(m.folder, "cur", base+":2,"+string(flags))
	if err := writeFile(name, data); err != nil {
		return err
	}
	fmt.Fprintf(&m.list, "%d :%s\n", entry.UID, base)
	return os.Chtimes(name, entry.InternalDate, entry.InternalDate)
}

func (m *maildirs) end() error {
	if err := writeFile(filepath.Join(m.folder, "dovecot-uidlist"), m.list.Bytes()); err != nil {
		return err
	}
	lines := make([]string, letterKeywords)
	for keyword, letter := range m.letters {
		if letter != 0 {
			lines[letter-'a'] = m.view.Keywords()[keyword]
		}
	}
	var names bytes.Buffer
	for i, name := range lines {
		if name != "" {
			fmt.Fprintf(&names, "%d %s\n", i, name)
		}
	}
	if names.Len() == 0 {
		return nil
	}
	return writeFile(filepath.Join(m.folder, "dovecot-keywords"), names.Bytes())
}

func (m *maildirs) finish(subscriptions []string) error {
	var list bytes.Buffer
	list.WriteString("V\t2\n\n")
	for _, name := range subscriptions {
		list.WriteString(strings.ReplaceAll(utf7(name), "/", "\t"))
		list.WriteByte('\n')
	}
	return writeFile(filepath.Join(m.dir, "subscriptions"), list.Bytes())
}
