package postfix

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Override is one -o option of a service.
type Override struct {
	Name, Value string
}

// Field columns of a master.cf entry, as written.
const (
	FieldService = iota
	FieldType
	FieldPrivate
	FieldUnprivileged
	FieldChroot
	FieldWakeup
	FieldProcessLimit
	FieldCommand // and its arguments
	fieldCount
)

// FieldNames are the names that postconf -F gives the columns.
var fieldNames = [fieldCount]string{"service", "type", "private", "unprivileged", "chroot", "wakeup", "process_limit", "command"}

// FieldNames gives the names of the columns of master.cf, in order.
func FieldNames() []string { return fieldNames[:] }

// Service is one entry of master.cf.
type Service struct {
	Name      string // first column: a port, host:port or name
	Type      string // inet, unix, fifo, pass or unix-dgram
	Private   bool
	Unpriv    bool
	Chroot    bool         // "-" counts as y below compatibility level 1
	Wakeup    int          // seconds; 0: never
	WakeupIf  bool         // "?": wake up only a service that is in use
	MaxProc   int          // 0: no limit; -1: default_process_limit
	Command   string       // program name
	Args      []string     // arguments without the -o options, outer braces taken off
	Overrides []Override   // the -o options in order; the last one of a name counts
	Pos       Position     // first line of the entry
	Raw       [7]string    // the first seven columns as written
	RawArgs   []string     // the arguments in the form that postconf shows, an option and its value apart
	config    *Config      // set when the configuration is complete
	made      *mainFile    // the overrides as assignments
	problems  []Diagnostic // about this entry
	view      *View        // main.cf overlaid with the overrides
}

// parseMaster reads the text of a master.cf.
func parseMaster(path string, text []byte) ([]*Service, []Diagnostic, error) {
	var (
		services    []*Service
		diagnostics []Diagnostic
	)
	if len(text) > MaxFileSize {
		return nil, nil, fmt.Errorf("%s: %w of %d bytes", path, ErrTooLarge, MaxFileSize)
	}
	text, _ = cutMark(text)
	lines, err := splitLogical(text)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	for _, line := range lines {
		pos := Position{path, line.first}
		if isSpace(line.text[0]) {
			diagnostics = append(diagnostics, Diagnostic{pos, Warning, "logical line must not start with whitespace: " + quote(shorten(line.text))})
			continue
		}
		s, err := ParseService(line.text, pos)
		var syntax *SyntaxError
		if errors.As(err, &syntax) && syntax.Real == badFieldCount {
			syntax.Real = fmt.Sprintf("file %s: line %d: %s", path, line.first, badFieldCount)
		}
		if err != nil {
			return nil, nil, err
		}
		diagnostics = append(diagnostics, s.problems...)
		services = append(services, s)
	}
	return services, diagnostics, nil
}

const badFieldCount = "bad field count"

// ParseService reads one logical line of master.cf. The error is a *SyntaxError.
func ParseService(line string, pos Position) (*Service, error) {
	s := &Service{Pos: pos}
	rest := line
	for i := range s.Raw {
		rest = strings.TrimLeft(rest, blanks)
		end := strings.IndexAny(rest, blanks)
		if end < 0 {
			end = len(rest)
		}
		s.Raw[i], rest = rest[:end], rest[end:]
	}
	rest = strings.TrimLeft(rest, blanks)
	if rest == "" {
		return nil, &SyntaxError{Pos: pos, Text: "bad field count: a service has eight columns or more: " + quote(shorten(line)), Real: badFieldCount}
	}
	end := strings.IndexAny(rest, blanks)
	if end < 0 {
		end = len(rest)
	}
	s.Command, rest = rest[:end], rest[end:]
	if err := s.columns(line); err != nil {
		return nil, err
	}
	words, closed := SplitQuoted(rest, blanks)
	if !closed {
		s.problem("missing '}' in " + quote(words[len(words)-1]))
		words[len(words)-1] = strings.TrimPrefix(words[len(words)-1], "{")
	}
	s.arguments(words)
	return s, nil
}

func (s *Service) problem(text string) {
	s.problems = append(s.problems, Diagnostic{s.Pos, Warning, s.Name + "/" + s.Type + ": " + text})
}

// columns takes the values of the first seven columns.
func (s *Service) columns(line string) error {
	invalid := func(field int) error {
		text := fmt.Sprintf("invalid %s field %s in %s", fieldNames[field], quote(s.Raw[field]), quote(Printable(line)))
		return &SyntaxError{Pos: s.Pos, Text: text, Real: text}
	}
	s.Name, s.Type = s.Raw[FieldService], s.Raw[FieldType]
	switch s.Type {
	case "inet", "unix", "fifo", "pass", "unix-dgram":
	default:
		return invalid(FieldType)
	}
	for field, value := range map[int]*bool{FieldPrivate: &s.Private, FieldUnprivileged: &s.Unpriv, FieldChroot: &s.Chroot} {
		switch s.Raw[field] {
		case "y", "-":
			*value = true
		case "n":
			*value = false
		default:
			return invalid(field)
		}
	}
	wakeup := s.Raw[FieldWakeup]
	wakeup, s.WakeupIf = strings.CutSuffix(wakeup, "?")
	if wakeup != "-" && wakeup != "" {
		if !allDigits(wakeup) {
			return invalid(FieldWakeup)
		}
		s.Wakeup = clampedInt(wakeup)
	}
	s.MaxProc = -1
	if limit := s.Raw[FieldProcessLimit]; limit != "-" {
		if !allDigits(limit) {
			return invalid(FieldProcessLimit)
		}
		s.MaxProc = clampedInt(limit)
	}
	return nil
}

// Printable puts "?" for bytes outside printable ASCII, as Postfix does in its messages.
func Printable(s string) string {
	text := []byte(s)
	for i, c := range text {
		if c < ' ' || c > '~' {
			text[i] = '?'
		}
	}
	return string(text)
}

// clampedInt reads digits; a number that does not fit counts as the greatest.
func clampedInt(digits string) int {
	const greatest = 1<<31 - 1
	n, err := strconv.Atoi(digits)
	if err != nil || n > greatest {
		return greatest
	}
	return n
}

// arguments splits options from arguments: options end at the first word that does not start with "-", or at "--".
func (s *Service) arguments(words []string) {
	s.made = &mainFile{last: map[string]int{}}
	for i := 0; i < len(words); i++ {
		word := words[i]
		if !strings.HasPrefix(word, "-") || word == "--" {
			for _, argument := range words[i:] {
				plain, problem := Unbrace(argument)
				s.RawArgs = append(s.RawArgs, plain)
				if problem != "" {
					s.problem(problem)
				}
				s.Args = append(s.Args, plain)
			}
			return
		}
		flags, value, found := cutOption(word)
		for _, flag := range flags {
			s.RawArgs = append(s.RawArgs, flag)
			s.Args = append(s.Args, flag)
		}
		switch {
		case !found:
			continue
		case value == "" && i+1 < len(words):
			i++
			value = words[i]
		case value == "":
			s.RawArgs = append(s.RawArgs, "-o")
			s.problems = append(s.problems, Diagnostic{s.Pos, Notice, s.Name + "/" + s.Type + ": -o without name=value"})
			return
		}
		s.override(value)
	}
}

// cutOption takes a word of option letters apart: those without value, and what follows "o" in the same word.
func cutOption(word string) (flags []string, value string, found bool) {
	before, value, found := strings.Cut(word[1:], "o")
	if !found || strings.Trim(before, "cdDlSuvVz") != "" {
		return []string{word}, "", false
	}
	for _, letter := range before {
		flags = append(flags, "-"+string(letter))
	}
	return flags, value, true
}

func (s *Service) override(text string) {
	plain, problem := Unbrace(text)
	if problem != "" {
		s.problem(problem)
	}
	name, value, err := SplitNameValue(plain)
	if err != nil {
		if plain != text {
			s.problem(err.Error() + ": " + quote(plain))
		}
		s.RawArgs = append(s.RawArgs, "-o", plain)
		return
	}
	s.RawArgs = append(s.RawArgs, "-o", name+"="+value)
	s.Overrides = append(s.Overrides, Override{name, value})
	s.made.set(entry{name, value, s.Pos})
}

// View gives main.cf's values overlaid with the service's own -o values, its name and its program's name.
func (s *Service) View() *View { return s.view }
