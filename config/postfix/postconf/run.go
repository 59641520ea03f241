package postconf

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"postilion/config/postfix"
)

// DefaultDir is the configuration directory when neither -c nor MAIL_CONFIG names one.
const DefaultDir = "/etc/postfix"

// fatalError ends the command with one message and status 1.
type fatalError struct{ text string }

func (e *fatalError) Error() string { return e.text }

func fatalf(format string, args ...any) error { return &fatalError{fmt.Sprintf(format, args...)} }

// run is one run of the command.
type run struct {
	*options
	stdin  io.Reader
	stdout *bufio.Writer
	stderr io.Writer
	config *postfix.Config
	usage  *postfix.Usage
}

// Run does what "postconf args..." does and gives its exit status. args do not hold the command's name. env gives an environment
// variable, of which MAIL_CONFIG is looked at.
func Run(args []string, stdin io.Reader, stdout, stderr io.Writer, env func(string) string) int {
	r := &run{stdin: stdin, stdout: bufio.NewWriter(stdout), stderr: stderr}
	err := r.do(args, env)
	if err != nil {
		// What is still in the buffer is not shown, as a failing postconf does not show it either.
		fmt.Fprintf(stderr, "postconf: fatal: %s\n", postfix.Printable(message(err)))
		return 1
	}
	if err := r.stdout.Flush(); err != nil {
		fmt.Fprintf(stderr, "postconf: fatal: write error: %v\n", err)
		return 1
	}
	return 0
}

// message gives an error in the words of the real program where it has its own.
func message(err error) string {
	var syntax *postfix.SyntaxError
	if errors.As(err, &syntax) {
		return syntax.Real
	}
	return err.Error()
}

func (r *run) warn(format string, args ...any) {
	fmt.Fprintf(r.stderr, "postconf: warning: %s\n", postfix.Printable(fmt.Sprintf(format, args...)))
}

func (r *run) do(args []string, env func(string) string) error {
	var err error
	if r.options, err = r.parseOptions(args); err != nil {
		return err
	}
	if r.dir == "" {
		r.dir = env("MAIL_CONFIG")
	}
	if r.dir == "" {
		r.dir = DefaultDir
	}
	if err := r.compatible(); err != nil {
		return err
	}
	mode := r.major()
	editable := strings.IndexByte("pMFP", mode) >= 0
	if editable && len(r.arguments) > 0 && strings.Contains(r.arguments[0], "=") && !r.has('e') {
		r.given['e'] = true
		if err := r.compatible(); err != nil {
			return err
		}
	}
	switch {
	case r.has('e') && len(r.arguments) == 0:
		return fatalf("-e requires name=value argument")
	case (r.has('X') || r.has('#')) && len(r.arguments) == 0:
		return fatalf("missing service argument")
	case r.has('e') || r.has('X') || r.has('#'):
		if mode == 'p' {
			return r.editMain()
		}
		return r.editMaster(mode)
	}
	switch mode {
	case 'p':
		return r.showMain()
	case 'M', 'F', 'P':
		return r.showMaster(mode)
	case 'b', 't':
		return r.templates(mode)
	}
	return r.showCapabilities(mode)
}

// load reads the configuration. missingMaster says whether an absent master.cf is worth a warning only.
func (r *run) load(missingMaster bool) error {
	opts := postfix.Options{Dir: r.dir, Overrides: nil, AllowMissing: true, ProcessName: "postconf", IgnoreMain: r.has('d')}
	for _, override := range r.overrides {
		if _, _, err := postfix.SplitNameValue(override); err != nil {
			return fatalf("invalid parameter override: %s: %v", override, err)
		}
		opts.Overrides = append(opts.Overrides, override)
	}
	if !r.has('d') {
		if err := readable(r.dir + "/main.cf"); err != nil {
			return err
		}
	}
	if err := readable(r.dir + "/master.cf"); err != nil {
		if !missingMaster {
			return err
		}
		r.warn("%v", err)
	}
	config, err := postfix.LoadWith(opts)
	if err != nil {
		return err
	}
	r.config = config
	r.readingWarnings()
	return nil
}

// readingWarnings prints what the readers of the files complain about.
func (r *run) readingWarnings() {
	for _, d := range r.config.Warnings() {
		switch {
		case strings.HasPrefix(d.Text, "logical line must"):
			r.warn("%s: %s", d.Pos.File, d.Text)
		case d.Pos.File == r.config.MasterFile() && d.Severity == postfix.Warning:
			_, text, _ := strings.Cut(d.Text, ": ")
			r.warn("master.cf: %s", text)
		}
	}
	seen := map[string]string{"config_directory": r.dir}
	for _, a := range r.config.Assignments() {
		if before, again := seen[a.Name]; again && before != a.Value && a.Pos.Line != 0 {
			r.warn("%s, line %d: overriding earlier entry: %s=%s", a.Pos.File, a.Pos.Line, a.Name, before)
		}
		seen[a.Name] = a.Value
	}
}

// follow works out the names in use and warns about undefined ones.
func (r *run) follow() error {
	// Postfix looks at the level, for the default of mynetworks_style, before it looks at any other value.
	if _, err := r.expand(r.config.View(), "$mynetworks_style"); err != nil {
		return err
	}
	usage, err := r.config.Usage()
	r.flagReadOnly()
	for _, u := range usage.Undefined {
		r.warn("%s: undefined parameter: %s", r.file(u.Service), u.Name)
	}
	for _, note := range usage.Notes {
		r.warn("%s", note)
	}
	r.usage = usage
	var macro *postfix.MacroError
	if errors.As(err, &macro) && !strings.HasPrefix(macro.Text, "mac_exp_eval") {
		r.warn("%s", macro.Text)
		return fatalf("macro processing error")
	}
	return err
}

// flagReadOnly warns about assignments to what the program sets itself.
func (r *run) flagReadOnly() {
	value := map[string]string{}
	for _, a := range r.config.Assignments() {
		value[a.Name] = a.Value
	}
	for _, name := range slices.Sorted(maps.Keys(value)) {
		if postfix.ReadOnly(name) {
			r.warn("%s: read-only parameter assignment: %s=%s", r.config.MainFile(), name, value[name])
		}
	}
	for _, s := range r.config.Services() {
		for _, o := range s.Overrides {
			if postfix.ReadOnly(o.Name) {
				r.warn("%s: read-only parameter assignment: %s=%s", r.config.MasterFile(), o.Name, o.Value)
			}
		}
	}
}

// flagUnused warns about assignments that nothing uses.
func (r *run) flagUnused(mainToo bool) {
	for _, u := range r.usage.Unused {
		if u.Service != nil || mainToo {
			r.warn("%s: unused parameter: %s=%s", r.file(u.Service), u.Name, u.Value)
		}
	}
}

func (r *run) file(s *postfix.Service) string {
	if s == nil {
		return r.config.MainFile()
	}
	return r.config.MasterFile()
}
