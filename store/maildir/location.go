package maildir

import (
	"fmt"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"postilion/store"
)

// location is mail_location, understood.
type location struct {
	path, inbox, control, index string
	fs                          bool
	utf8                        bool
	// dirname is put below each folder of layout fs (DIRNAME).
	dirname string
	// noIndex keeps the journal in memory only (INDEX=MEMORY).
	noIndex bool
}

// parseLocation reads what follows "maildir:" in mail_location: a path, then options between colons.
func parseLocation(text, home string) (location, error) {
	parts := strings.Split(text, ":")
	path, err := expandPath(parts[0], home)
	if err != nil {
		return location{}, fmt.Errorf("mail_location %q: %w", text, err)
	}
	l := location{path: path, inbox: path, control: path, index: path}
	for _, part := range parts[1:] {
		if err := l.option(part, home); err != nil {
			return location{}, fmt.Errorf("mail_location %q: %w", text, err)
		}
	}
	if l.dirname != "" && !l.fs {
		return location{}, fmt.Errorf("mail_location %q: DIRNAME needs LAYOUT=fs", text)
	}
	return l, nil
}

func (l *location) option(part, home string) error {
	key, value, _ := strings.Cut(part, "=")
	var err error
	switch strings.ToUpper(key) {
	case "":
	case "LAYOUT":
		if l.fs = strings.EqualFold(value, "fs"); !l.fs && !strings.EqualFold(value, "maildir++") {
			return fmt.Errorf("LAYOUT=%s is not supported; use maildir++ or fs", value)
		}
	case "INBOX":
		l.inbox, err = expandPath(value, home)
	case "CONTROL":
		l.control, err = expandPath(value, home)
	case "INDEX":
		if l.noIndex = strings.EqualFold(value, "MEMORY"); !l.noIndex {
			l.index, err = expandPath(value, home)
		}
	case "UTF-8":
		l.utf8 = true
	case "DIRNAME":
		if l.dirname = value; value == "" || strings.Contains(value, "/") {
			return fmt.Errorf("DIRNAME must be one name without slashes")
		}
	case "INDEXPVT", "INDEXCACHE", "LISTINDEX", "ITERINDEX":
		// These place Dovecot's own indexes, which are not used here.
	case "NO-NOSELECT":
		// A name without a mailbox is never kept for its own sake.
	default:
		return fmt.Errorf("unknown option %q; known are LAYOUT, INBOX, CONTROL, INDEX, UTF-8 and DIRNAME", key)
	}
	return err
}

func expandPath(path, home string) (string, error) {
	rest, tilde := strings.CutPrefix(path, "~")
	switch {
	case tilde && rest != "" && rest[0] != '/':
		return "", fmt.Errorf("%q names another user's home; write the path out", path)
	case tilde && home == "":
		return "", fmt.Errorf("%q: the user has no home directory", path)
	case tilde:
		path = home + rest
	}
	if !filepath.IsAbs(path) {
		return "", fmt.Errorf("the path %q is not absolute", path)
	}
	return filepath.Clean(path), nil
}

func (l location) key() string { return fmt.Sprintf("%+v", l) }

// folderPaths is where the parts of one mailbox lie.
type folderPaths struct {
	// mail holds new, cur and tmp; control the UID list and keywords; index the journal ("" keeps it in memory).
	mail, control, index string
}

// Limits of names in octets: of a whole mailbox name, and of one file name on disk.
const (
	maxName     = 4096
	maxFileName = 255
)

func nameError(name, why string) error {
	if len(name) > 60 {
		name = name[:60] + "..."
	}
	return fmt.Errorf("%w: %q %s", store.ErrName, name, why)
}

// checkName tells whether a mailbox may have this name here.
func (l location) checkName(name string) error {
	switch {
	case name == "" || len(name) > maxName:
		return nameError(name, "is empty or too long")
	case !utf8.ValidString(name):
		return nameError(name, "is not UTF-8")
	case strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return nameError(name, "contains a control character")
	case name[0] == '~':
		return nameError(name, "begins with ~")
	}
	for level := range strings.SplitSeq(name, "/") {
		switch {
		case level == "":
			return nameError(name, "has an empty level")
		case !l.fs && strings.Contains(level, "."):
			return nameError(name, "contains a dot, which separates levels on disk")
		case l.fs && (level == "." || level == ".." || level == "cur" || level == "new" || level == "tmp" || level == l.dirname || reservedFile(level)):
			return nameError(name, "contains a reserved name")
		case len(l.encode(level)) > maxFileName-8:
			return nameError(name, "has a level that is too long")
		}
	}
	if !l.fs && len(l.encode(name)) > maxFileName-8 {
		return nameError(name, "is too long")
	}
	return nil
}

// reservedFile tells whether files of ours or of Dovecot have such names in a mail directory.
func reservedFile(name string) bool {
	return strings.HasPrefix(name, "dovecot") || strings.HasPrefix(name, "postilion") || strings.HasPrefix(name, "subscriptions") || strings.HasPrefix(name, trashPrefix) ||
		name == "maildirfolder"
}

func (l location) encode(name string) string {
	if l.utf8 {
		return name
	}
	return encodeUTF7(name)
}

// relative returns the directory of a mailbox below the root: ".a.b" or "a/b".
func (l location) relative(name string) string {
	if l.fs {
		return filepath.Join(l.encode(name), l.dirname)
	}
	return "." + strings.ReplaceAll(l.encode(name), "/", ".")
}

// paths returns where the mailbox lies; the name has been checked.
func (l location) paths(name string) folderPaths {
	p := folderPaths{mail: l.inbox, control: l.control, index: l.index}
	if name != store.Inbox {
		below := l.relative(name)
		p = folderPaths{mail: filepath.Join(l.path, below), control: filepath.Join(l.control, below), index: filepath.Join(l.index, below)}
	} else {
		// Beside the mail only if it is the same directory; else in a directory of its own, as Dovecot has it.
		own := ".INBOX"
		if l.fs {
			own = "INBOX"
		}
		if l.control != l.path {
			p.control = filepath.Join(l.control, own)
		} else {
			p.control = l.inbox
		}
		if l.index != l.path {
			p.index = filepath.Join(l.index, own)
		} else {
			p.index = l.inbox
		}
	}
	if l.noIndex {
		p.index = ""
	}
	return p
}

// decodeFolder returns the mailbox name of a directory of layout Maildir++ ("" when it is none).
func (l location) decodeFolder(dir string) string {
	rest, dot := strings.CutPrefix(dir, ".")
	if !dot {
		return ""
	}
	name, ok := l.decode(rest)
	if !ok {
		return ""
	}
	name = strings.ReplaceAll(name, ".", "/")
	if l.checkName(name) != nil {
		return ""
	}
	return name
}

func (l location) decode(text string) (string, bool) {
	if l.utf8 {
		return text, utf8.ValidString(text)
	}
	return decodeUTF7(text)
}
