// Package doveadm is the logic of the command doveadm(1), by the words and exit codes of Dovecot 2.3: pw, user, auth and help. It asks the passdbs and
// userdbs of a configuration in this process, so that it needs no server.
package doveadm

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"

	"postilion/account"
	"postilion/config/dovecot"
	"postilion/service"
)

// Exit codes of doveadm, from sysexits.h.
const (
	exitOK       = 0
	exitMismatch = 1
	exitUsage    = 64
	exitNoUser   = 67
	exitTemp     = 75
	exitNoPerm   = 77
	exitConfig   = 89
)

// DefaultFile is read when no -c names another.
const DefaultFile = "/etc/dovecot/dovecot.conf"

// Environment is what the command may touch of the process.
type Environment struct {
	Args           []string
	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

// run is one call of the command.
type run struct {
	ctx       context.Context
	stdin     *bufio.Reader
	terminal  io.Reader
	stdout    *bufio.Writer
	stderr    io.Writer
	file      string
	overrides []string
	format    string
	debug     bool
	// rows counts what row printed.
	rows int
}

// exit ends the command with a code; text, if any, goes to standard error.
type exit struct {
	code int
	text string
}

func (e *exit) Error() string { return e.text }

func fatal(format string, args ...any) error {
	return &exit{exitTemp, "Fatal: " + fmt.Sprintf(format, args...)}
}

type subcommand struct {
	name, usage string
	run         func(r *run, args []string) error
}

func subcommands() []subcommand {
	return []subcommand{
		{"auth", "cache|login|lookup|test", (*run).auth},
		{"help", "[<cmd>]", (*run).help},
		{"pw", "[-l] [-p plaintext] [-r rounds] [-s scheme] [-t hash] [-u user] [-V]", (*run).pw},
		{"user", "[-a <userdb socket path>] [-x <auth info>] [-f field] [-e <value>] [-u] <user mask> [<user mask> [...]]", (*run).user},
	}
}

// Run carries out doveadm with the arguments after its name and gives the exit code.
func Run(ctx context.Context, e Environment) int {
	r := &run{ctx: ctx, stdin: bufio.NewReader(e.Stdin), terminal: e.Stdin, stdout: bufio.NewWriter(e.Stdout), stderr: e.Stderr, file: DefaultFile}
	err := r.start(e.Args)
	if flushErr := r.stdout.Flush(); flushErr != nil && err == nil {
		err = fatal("write(stdout) failed: %v", flushErr)
	}
	if err == nil {
		return exitOK
	}
	end := &exit{exitTemp, "Fatal: " + err.Error()}
	errors.As(err, &end)
	if end.text != "" {
		fmt.Fprintln(e.Stderr, end.text)
	}
	return end.code
}

func (r *run) start(args []string) error {
	options, rest, err := getopt("doveadm", args, "c:Df:hi:o:v")
	if err != nil {
		return err
	}
	for _, o := range options {
		switch o.letter {
		case 'c':
			r.file = o.value
		case 'D':
			r.debug = true
		case 'f':
			if !slices.Contains([]string{"flow", "json", "pager", "tab", "table"}, o.value) {
				return &exit{exitTemp, "doveadm: Fatal: Unknown print formatter: " + o.value}
			}
			r.format = o.value
		case 'i':
			return fatal("Unknown instance name: %s: name the configuration file with -c", o.value)
		case 'o':
			r.overrides = append(r.overrides, o.value)
		}
	}
	if len(rest) == 0 {
		return r.usage()
	}
	for _, c := range subcommands() {
		if c.name == rest[0] {
			return c.run(r, rest[1:])
		}
	}
	return r.usage()
}

// usage lists the commands.
func (r *run) usage() error {
	var b strings.Builder
	b.WriteString("usage: doveadm [-Dv] [-f <formatter>] <command> [<args>]\n")
	for _, c := range subcommands() {
		fmt.Fprintf(&b, "  %-12s %s\n", c.name, c.usage)
	}
	return &exit{exitUsage, strings.TrimSuffix(b.String(), "\n")}
}

func commandUsage(name string) error {
	for _, c := range subcommands() {
		if c.name == name {
			return &exit{exitUsage, "doveadm " + c.name + " " + c.usage}
		}
	}
	return &exit{code: exitUsage}
}

func (r *run) help(args []string) error {
	if len(args) == 0 {
		return r.usage()
	}
	for _, c := range subcommands() {
		if c.name == args[0] {
			fmt.Fprintf(r.stdout, "doveadm %s %s\n", c.name, c.usage)
			return nil
		}
	}
	return r.usage()
}

// option is one option of a command line.
type option struct {
	letter byte
	value  string
}

// getopt reads options as getopt(3) does: a letter with a colon takes a value. Options end at the first other word.
func getopt(name string, args []string, letters string) (options []option, rest []string, err error) {
	for len(args) > 0 && len(args[0]) > 1 && args[0][0] == '-' {
		word := args[0]
		args = args[1:]
		if word == "--" {
			break
		}
		for i := 1; i < len(word); i++ {
			at := strings.IndexByte(letters, word[i])
			if at < 0 || word[i] == ':' {
				return nil, nil, &exit{exitUsage, fmt.Sprintf("%s: invalid option -- '%c'", name, word[i])}
			}
			if at+1 == len(letters) || letters[at+1] != ':' {
				options = append(options, option{letter: word[i]})
				continue
			}
			value := word[i+1:]
			if value == "" {
				if len(args) == 0 {
					return nil, nil, &exit{exitUsage, fmt.Sprintf("%s: option requires an argument -- '%c'", name, word[i])}
				}
				value, args = args[0], args[1:]
			}
			options = append(options, option{word[i], value})
			break
		}
	}
	return options, args, nil
}

// config reads the configuration.
func (r *run) config() (*dovecot.View, error) {
	config, err := dovecot.LoadWith(dovecot.Options{File: r.file, Overrides: r.overrides})
	var broken *dovecot.ConfigError
	switch {
	case errors.As(err, &broken):
		return nil, &exit{exitConfig, "doveconf: Fatal: " + err.Error()}
	case err != nil:
		return nil, fatal("Error reading configuration: %v", err)
	}
	return config.For(dovecot.Filter{}), nil
}

func (r *run) accounts() (*dovecot.View, *account.Accounts, error) {
	view, err := r.config()
	if err != nil {
		return nil, nil, err
	}
	level := slog.LevelError
	if r.debug {
		level = slog.LevelDebug
	}
	accounts, err := service.Accounts(view, slog.New(slog.NewTextHandler(r.stderr, &slog.HandlerOptions{Level: level})))
	if err != nil {
		return nil, nil, fatal("%v", err)
	}
	return view, accounts, nil
}
