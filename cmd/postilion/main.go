// Command postilion is the whole UNIX mail stack as one program: mail transport, mailboxes, filtering and the commands that administrators know.
// The first argument, or the name under which the program is called, picks the command; each has a small file here that reads its options and makes one
// call down. It holds no mail logic.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"

	"postilion/cmd/postilion/manual"
	"postilion/service/roles"
)

// Exit codes of our own commands; the UNIX names keep theirs.
const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 64
)

// environment is what a command may touch of the process.
type environment struct {
	args           []string
	stdin          io.Reader
	stdout, stderr io.Writer
	getenv         func(string) string
	// detach is called by a server that is ready, to let go of the terminal; nil keeps it.
	detach func() error
}

// command is one name that the program answers to.
type command struct {
	page manual.Page
	run  func(ctx context.Context, e *environment) int
	// shown is false for UNIX names, which the overview lists by themselves.
	unix bool
}

func main() {
	// The parts of a server that was started by root: see service/roles.
	if code, ok := roles.Run(os.Args[1:], os.Stderr); ok {
		os.Exit(code)
	}
	os.Exit(run(context.Background(), filepath.Base(os.Args[0]), &environment{
		args: os.Args[1:], stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, getenv: os.Getenv,
	}))
}

func run(ctx context.Context, program string, e *environment) int {
	all := commands()
	if c := find(all, program); c != nil {
		return invoke(ctx, c, e)
	}
	if len(e.args) == 0 {
		printOverview(e.stderr, all)
		return exitUsage
	}
	name := e.args[0]
	switch name {
	case "-h", "-help", "--help":
		name = "help"
	case "-V", "--version":
		name = "version"
	}
	c := find(all, name)
	if c == nil {
		fmt.Fprintf(e.stderr, "postilion: there is no command %q%s\n", name, suggestion(all, name))
		return exitUsage
	}
	e.args = e.args[1:]
	return invoke(ctx, c, e)
}

func invoke(ctx context.Context, c *command, e *environment) int {
	if len(e.args) == 1 && e.args[0] == "--help" {
		return report(e, c.page.Name, c.page.Help(e.stdout))
	}
	return c.run(ctx, e)
}

// report ends a command that can only fail by not being able to write.
func report(e *environment, name string, err error) int {
	if err != nil {
		fmt.Fprintf(e.stderr, "postilion %s: %v\n", name, err)
		return exitFailure
	}
	return exitOK
}

func find(all []command, name string) *command {
	for i := range all {
		if all[i].page.Name == name {
			return &all[i]
		}
	}
	return nil
}

// suggestion names the command that was probably meant.
func suggestion(all []command, name string) string {
	best, distance := "", 3
	for _, c := range all {
		if d := editDistance(name, c.page.Name); d < distance {
			best, distance = c.page.Name, d
		}
	}
	if best == "" {
		return "; `postilion help` lists them"
	}
	return fmt.Sprintf("; did you mean `postilion %s`?", best)
}

// editDistance counts the insertions, removals and replacements between two words.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		previous := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := previous
			if a[i] != b[j] {
				cost++
			}
			previous = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

func printOverview(w io.Writer, all []command) {
	fmt.Fprint(w, "Postilion: the UNIX mail stack in one program.\n\nUsage: postilion COMMAND [ARGUMENTS]\n\nCommands:\n")
	var unix []string
	for _, c := range all {
		if c.unix {
			unix = append(unix, c.page.Name)
			continue
		}
		fmt.Fprintf(w, "  %-12s %s\n", c.page.Name, c.page.Summary)
	}
	slices.Sort(unix)
	fmt.Fprintf(w, "\nCommands that keep their own name, options and habits (also as links to this program):\n  %s\n", strings.Join(unix, " "))
	fmt.Fprint(w, "\n`postilion help COMMAND` shows a page for each. To see mail go in and out: postilion quickstart\n")
}

// version is the module's version as built, or "devel".
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "devel"
}
