package postfix

import (
	"fmt"
	"strconv"
)

// Position is the place where a value was written. The zero Position stands for a built-in default.
type Position struct {
	File string
	Line int // first line of the logical line, counted from 1; 0 when the value came from a command line
}

// String gives "file:line", the file alone when there is no line, and "(default)" for the zero Position.
func (p Position) String() string {
	switch {
	case p.File == "":
		return "(default)"
	case p.Line == 0:
		return p.File
	}
	return p.File + ":" + strconv.Itoa(p.Line)
}

// IsZero tells whether p stands for a built-in default.
func (p Position) IsZero() bool { return p == Position{} }

// Severity tells what Postfix would do about a finding.
type Severity int

// The severities, mildest first.
const (
	Notice  Severity = iota // Postfix says nothing; we think an administrator wants to know
	Warning                 // Postfix goes on after a warning
	Fatal                   // the Postfix program that reads the parameter stops
)

// String gives the word that a log line carries.
func (s Severity) String() string {
	switch s {
	case Notice:
		return "notice"
	case Warning:
		return "warning"
	case Fatal:
		return "fatal"
	}
	return "severity " + strconv.Itoa(int(s))
}

// Diagnostic is one finding about a configuration.
type Diagnostic struct {
	Pos      Position
	Severity Severity
	Text     string // one line, without position and severity; it names the parameter
}

// String gives "file:line: severity: text".
func (d Diagnostic) String() string {
	if d.Pos.IsZero() {
		return fmt.Sprintf("%s: %s", d.Severity, d.Text)
	}
	return fmt.Sprintf("%s: %s: %s", d.Pos, d.Severity, d.Text)
}

// SyntaxError is a defect of main.cf or master.cf that keeps Postfix from starting.
type SyntaxError struct {
	Pos  Position
	Text string
	// Real is the text of the same complaint as Postfix's own programs print it, for commands whose output is parsed.
	Real string
}

func (e *SyntaxError) Error() string { return e.Pos.String() + ": " + e.Text }
