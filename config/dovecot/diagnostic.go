package dovecot

import (
	"fmt"
	"strings"
)

// Severity orders diagnostics.
type Severity int

// An Error keeps a server from starting, a Warning does not, a Note only informs.
const (
	Note Severity = iota
	Warning
	Error
)

func (s Severity) String() string { return [...]string{"note", "warning", "error"}[s] }

// Diagnostic is one remark about a configuration. Line is 0 when the file as a whole is meant.
type Diagnostic struct {
	Severity Severity
	Position Position
	Setting  string // the setting it is about, or ""
	Text     string // what is wrong, and for an error what Dovecot says of it
	Hint     string // what to do, or ""

	mail bool // found by a check of mail users' settings
	late bool // found after the first error
}

// Late tells whether the remark was found after the first error, where Dovecot has stopped reading.
func (d Diagnostic) Late() bool { return d.late }

// OfMailUsers tells whether the mistake is one of the settings of mail users, which a process that reads only those refuses too.
func (d Diagnostic) OfMailUsers() bool { return d.mail }

// Error writes FILE:LINE: TEXT (HINT).
func (d Diagnostic) Error() string {
	var b strings.Builder
	if d.Position.File != "" {
		fmt.Fprintf(&b, "%s: ", d.Position)
	}
	b.WriteString(d.Text)
	if d.Hint != "" {
		fmt.Fprintf(&b, " (%s)", d.Hint)
	}
	return b.String()
}

// ConfigError is the error of Load: every mistake of the configuration, in the order found.
type ConfigError struct {
	File        string
	Diagnostics []Diagnostic // at least one; the first is the one Dovecot names
}

func (e *ConfigError) Error() string {
	texts := make([]string, len(e.Diagnostics))
	for i, d := range e.Diagnostics {
		texts[i] = d.Error()
	}
	return strings.Join(texts, "\n")
}

// Refusal is an error in the words of Dovecot, which scripts and people know: it begins with a capital.
type Refusal string

// Error gives the words.
func (r Refusal) Error() string { return string(r) }

// Refuse makes a Refusal.
func Refuse(format string, args ...any) error { return Refusal(fmt.Sprintf(format, args...)) }

// Warn writes a warning in the words of Dovecot's log.
func (d Diagnostic) Warn() string {
	if strings.HasPrefix(d.Text, "Obsolete setting") || strings.HasPrefix(d.Text, "NOTE:") || d.Position.Line == 0 {
		return d.Text
	}
	if strings.HasPrefix(d.Text, "Ambiguous") {
		return fmt.Sprintf("Configuration file %s line %d: %s", d.Position.File, d.Position.Line, d.Text)
	}
	return fmt.Sprintf("%s line %d: %s", d.Position.File, d.Position.Line, d.Text)
}
