// Package doveconf is the logic of the command doveconf(1): it shows a Dovecot configuration or single settings of it, in the words
// and with the exit codes of doveconf 2.3.19. It reads by package dovecot and has no knowledge of settings of its own.
//
// The options -p, -k, -L and -o have no effect, as with doveconf. Of its options -H (compare the hashes of host names), -i (another
// instance) and -w are not known, and -e (run a command with the settings in its environment) is refused: nothing here takes its settings from an
// environment.
package doveconf

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"

	"postilion/config/dovecot"
)

// Exit codes of doveconf.
const (
	exitOK     = 0
	exitConfig = 89 // the configuration is broken, or an option is unknown
)

// DefaultFile is read when no -c names another.
const DefaultFile = "/etc/dovecot/dovecot.conf"

type options struct {
	file        string
	filter      dovecot.Filter
	scope       dovecot.Scope
	modules     []string
	defaults    bool
	hideName    bool
	expand      bool
	machine     bool
	showSecrets bool
	names       []string
}

// Env is what the command knows of its surroundings.
type Env struct {
	Hostname   string
	System     string // the line about the operating system, without "# "
	Version    string // of the program, for the first line
	UserExists func(name string) bool
	Getenv     func(name string) (string, bool)
}

type command struct {
	opts   options
	env    Env
	stdout *bufio.Writer
	stderr io.Writer

	conflicting bool // filters contradict each other for the connection asked for: nothing holds for it
}

// Run carries out doveconf with the arguments after its name and gives the exit code.
func Run(args []string, _ io.Reader, stdout, stderr io.Writer, env Env) int {
	c := &command{env: env, stdout: bufio.NewWriter(stdout), stderr: stderr}
	code := c.run(args)
	if err := c.stdout.Flush(); err != nil && code == exitOK {
		fmt.Fprintf(stderr, "doveconf: Error: write(stdout) failed: %v\n", err)
		return exitConfig
	}
	return code
}

func (c *command) fatal(format string, args ...any) int {
	c.stdout.Flush()
	fmt.Fprintf(c.stderr, "doveconf: Fatal: "+format+"\n", args...)
	return exitConfig
}

func (c *command) run(args []string) int {
	if err := c.parse(args); err != nil {
		var usage usageError
		if errors.As(err, &usage) {
			fmt.Fprintf(c.stderr, "doveconf: %v\n", err)
			return exitConfig
		}
		return c.fatal("%v", err)
	}
	o := &c.opts
	if o.scope == dovecot.ScopeAll && len(o.names) > 0 {
		o.scope = dovecot.ScopeHidden
	}
	if len(o.names) == 0 && !o.machine {
		c.banner()
	}
	conf, err := dovecot.LoadWith(dovecot.Options{
		File: o.file, Unexpanded: !o.expand, DefaultsOnly: o.defaults, RequireFiles: o.expand, UserExists: c.env.UserExists, Env: c.env.Getenv,
	})
	if conf == nil {
		return c.fatal("%v", err)
	}
	c.warnings(conf)
	broken := c.broken(conf)
	if broken.parse {
		return c.report(conf, broken.all)
	}
	if text := conf.Conflict(o.filter); text != "" {
		fmt.Fprintf(c.stderr, "doveconf: Error: %s\n", text)
		if len(o.names) > 0 && !o.machine {
			return c.fatal("Errors in configuration")
		}
		c.conflicting = true
	}
	c.expansion()
	switch {
	case o.machine:
		c.machine(conf)
	case len(o.names) > 0:
		c.single(conf)
	default:
		c.readable(conf)
	}
	if len(broken.all) > 0 && len(o.names) == 0 {
		return c.report(conf, broken.all)
	}
	return exitOK
}

func (c *command) banner() {
	version := c.env.Version
	if version == "" {
		version = "2.3.19.1"
	}
	fmt.Fprintf(c.stdout, "# %s: %s\n", version, c.opts.file)
	if c.env.System != "" {
		fmt.Fprintf(c.stdout, "# %s\n", c.env.System)
	}
	if c.env.Hostname != "" {
		fmt.Fprintf(c.stdout, "# Hostname: %s\n", c.env.Hostname)
	}
	if c.opts.scope <= dovecot.ScopeHidden {
		fmt.Fprintf(c.stdout, "# NOTE: Send doveconf -n output instead when asking for help.\n")
	}
}

func (c *command) warnings(conf *dovecot.Config) {
	for _, d := range conf.Warnings() {
		if d.Late() {
			continue
		}
		fmt.Fprintf(c.stderr, "doveconf: Warning: %s\n", d.Warn())
	}
}

type breakage struct {
	parse bool // the text could not be understood, so nothing is shown
	all   []dovecot.Diagnostic
}

func (c *command) broken(conf *dovecot.Config) breakage {
	b := breakage{all: conf.Errors()}
	for _, d := range b.all {
		b.parse = b.parse || d.Position.Line > 0
	}
	return b
}

// report names the first mistake as doveconf does, and the others in lines of their own.
func (c *command) report(conf *dovecot.Config, all []dovecot.Diagnostic) int {
	for _, d := range all[1:] {
		c.stdout.Flush()
		fmt.Fprintf(c.stderr, "doveconf: also: %v\n", d)
	}
	return c.fatal("%s", inFile(conf, all[0]))
}

// expansion tells what reading the configuration for a mail process would refuse; the settings are shown all the same. doveconf
// finds it because it starts managesieve-login to learn its capabilities, whenever no module is named.
func (c *command) expansion() {
	if c.opts.expand || c.opts.defaults || len(c.opts.modules) > 0 {
		return
	}
	conf, err := dovecot.LoadWith(dovecot.Options{
		File: c.opts.file, RequireFiles: true, Modules: []string{"managesieve"}, UserExists: c.env.UserExists, Env: c.env.Getenv,
	})
	if err == nil || conf == nil {
		return
	}
	for _, d := range conf.Errors() {
		if d.Position.Line > 0 || d.OfMailUsers() {
			c.stdout.Flush()
			fmt.Fprintf(c.stderr, "doveconf: Error: %s\n", inFile(conf, d))
			return
		}
	}
}

// inFile says where a mistake is as doveconf does.
func inFile(conf *dovecot.Config, d dovecot.Diagnostic) string {
	where := conf.File()
	if d.Position.Line > 0 {
		where = fmt.Sprintf("%s line %d", d.Position.File, d.Position.Line)
	}
	text := d.Text
	if d.Hint != "" {
		text += " (" + d.Hint + ")"
	}
	return fmt.Sprintf("Error in configuration file %s: %s", where, text)
}

type usageError struct{ error }

const (
	plainOptions    = "adhknNpPxsSL"
	argumentOptions = "cfmo"
)

func (c *command) parse(args []string) error {
	c.opts.file = DefaultFile
	c.opts.scope = dovecot.ScopeAll
	for len(args) > 0 {
		arg := args[0]
		if arg == "--" {
			args = args[1:]
			break
		}
		if len(arg) < 2 || arg[0] != '-' {
			c.opts.names = append(c.opts.names, arg)
			args = args[1:]
			continue
		}
		rest, err := c.cluster(arg[1:], args[1:])
		if err != nil {
			return err
		}
		args = rest
	}
	c.opts.names = append(c.opts.names, args...)
	return nil
}

// cluster reads the letters of one argument and gives the arguments left.
func (c *command) cluster(letters string, args []string) ([]string, error) {
	for i := range len(letters) {
		o := letters[i]
		switch {
		case strings.IndexByte(argumentOptions, o) >= 0:
			value := letters[i+1:]
			if value == "" {
				if len(args) == 0 {
					return nil, usageError{fmt.Errorf("option requires an argument -- '%c'", o)}
				}
				value, args = args[0], args[1:]
			}
			return args, c.argument(o, value)
		case strings.IndexByte(plainOptions, o) >= 0:
			c.flag(o)
		case o == 'e':
			return nil, usageError{errors.New("-e is not done: no program here takes its settings from the environment")}
		default:
			return nil, usageError{fmt.Errorf("invalid option -- '%c'", o)}
		}
	}
	return args, nil
}

func (c *command) flag(o byte) {
	switch o {
	case 'a':
		c.opts.scope = dovecot.ScopeAll
	case 'd':
		c.opts.defaults = true
	case 'h':
		c.opts.hideName = true
	case 'n':
		c.opts.scope = dovecot.ScopeChanged
	case 'N':
		c.opts.scope = dovecot.ScopeSet
	case 's':
		c.opts.scope = dovecot.ScopeHidden
	case 'P':
		c.opts.showSecrets = true
	case 'x':
		c.opts.expand = true
	case 'S':
		c.opts.machine = true
	}
}

func (c *command) argument(o byte, value string) error {
	switch o {
	case 'c':
		c.opts.file = value
	case 'm':
		c.opts.modules = append(c.opts.modules, value)
	case 'f':
		return c.filter(value)
	}
	return nil
}

func (c *command) filter(arg string) error {
	name, value, _ := strings.Cut(arg, "=")
	f := &c.opts.filter
	switch name {
	case "service", "protocol":
		f.Protocol = value
	case "lname":
		f.LocalName = value
	case "local", "remote":
		net, err := dovecot.ParseNet(value)
		if err != nil {
			return fmt.Errorf("%s filter: %w", name, err)
		}
		if name == "local" {
			f.LocalNet = net
		} else {
			f.RemoteNet = net
		}
	default:
		return dovecot.Refuse("Unknown filter argument: %s", arg)
	}
	return nil
}
