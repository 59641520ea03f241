package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"

	"postilion/cmd/postilion/manual"
)

func helpCommand() command {
	return command{
		page: manual.Page{
			Name: "help", Section: 1, Summary: "show a page of help for a command",
			Synopsis: []string{"postilion help [COMMAND]"},
			Description: "Without a command the list of commands is shown. `postilion COMMAND --help` does the same as `postilion help COMMAND`. " +
				"Files have pages, too: `postilion help main.cf`.",
			Exit:     []manual.Entry{{Term: "0", Text: "shown"}, {Term: "64", Text: "there is no such page"}},
			Examples: []manual.Entry{{Term: "postilion help quickstart", Text: ""}, {Term: "postilion help access", Text: "the page of a file"}},
			SeeAlso:  []string{"postilion-manual(1)"},
		},
		run: func(_ context.Context, e *environment) int {
			all := commands()
			switch len(e.args) {
			case 0:
				printOverview(e.stdout, all)
				return exitOK
			case 1:
				if c := find(all, e.args[0]); c != nil {
					return report(e, "help", c.page.Help(e.stdout))
				}
				for _, page := range filePages() {
					if page.Name == e.args[0] {
						return report(e, "help", page.Help(e.stdout))
					}
				}
				fmt.Fprintf(e.stderr, "postilion help: there is no command %q%s\n", e.args[0], suggestion(pagesAsCommands(all), e.args[0]))
				return exitUsage
			}
			return usage(e, "help")
		},
	}
}

// pagesAsCommands adds the pages of files to what a word may have meant.
func pagesAsCommands(all []command) []command {
	for _, page := range filePages() {
		all = append(all, command{page: page})
	}
	return all
}

// usage says how a command is called.
func usage(e *environment, name string) int {
	c := find(commands(), name)
	fmt.Fprintf(e.stderr, "postilion %s: usage: %s\n", name, strings.Join(c.page.Synopsis, "\n       or: "))
	return exitUsage
}

func versionCommand() command {
	return command{
		page: manual.Page{
			Name: "version", Section: 1, Summary: "show the version and what it was built with",
			Synopsis:    []string{"postilion version"},
			Description: "Prints one line: the version, the revision of the sources, the Go release and the system it was built for.",
			Exit:        []manual.Entry{{Term: "0", Text: "printed"}, {Term: "64", Text: "wrong usage"}},
			Examples:    []manual.Entry{{Term: "postilion version", Text: ""}},
		},
		run: func(_ context.Context, e *environment) int {
			if len(e.args) > 0 {
				return usage(e, "version")
			}
			revision := ""
			if info, ok := debug.ReadBuildInfo(); ok {
				for _, s := range info.Settings {
					if s.Key == "vcs.revision" {
						revision = " " + s.Value[:min(12, len(s.Value))]
					}
				}
			}
			_, err := fmt.Fprintf(e.stdout, "postilion %s%s (%s, %s/%s)\n", version(), revision, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return report(e, "version", err)
		},
	}
}

func manualCommand() command {
	return command{
		page: manual.Page{
			Name: "manual", Section: 1, Summary: "write the manual pages of all commands and files",
			Synopsis: []string{"postilion manual DIR"},
			Description: "Writes one page a command or file format below DIR, as man1/NAME.1, man5/NAME.5 and man8/NAME.8. " +
				"The pages are made from the same text as the help, and those of main.cf and dovecot.conf from the parameters that this version knows.",
			Exit:     []manual.Entry{{Term: "0", Text: "written"}, {Term: "1", Text: "the disk refuses"}, {Term: "64", Text: "wrong usage"}},
			Examples: []manual.Entry{{Term: "postilion manual /usr/local/share/man", Text: ""}},
		},
		run: func(_ context.Context, e *environment) int {
			if len(e.args) != 1 {
				return usage(e, "manual")
			}
			return report(e, "manual", writeManual(e.args[0]))
		},
	}
}

func allPages() []manual.Page {
	var pages []manual.Page
	for _, c := range commands() {
		pages = append(pages, c.page)
	}
	return append(pages, filePages()...)
}

func writeManual(dir string) error {
	for _, page := range allPages() {
		folder := filepath.Join(dir, fmt.Sprintf("man%d", page.Section))
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return err
		}
		name := page.Name
		if page.Section == 1 || page.Section == 8 {
			if c := find(commands(), page.Name); c != nil && !c.unix {
				name = "postilion-" + page.Name
			}
		}
		page.Name = name
		file, err := os.Create(filepath.Join(folder, fmt.Sprintf("%s.%d", name, page.Section)))
		if err != nil {
			return err
		}
		if err := errors.Join(page.Man(file, version()), file.Close()); err != nil {
			return fmt.Errorf("%s: %w", file.Name(), err)
		}
	}
	return nil
}

func completionCommand() command {
	return command{
		page: manual.Page{
			Name: "completion", Section: 1, Summary: "print the completion script for a shell",
			Synopsis:    []string{"postilion completion bash|zsh|fish"},
			Description: "The script knows the commands and their options, and completes file names elsewhere.",
			Exit:        []manual.Entry{{Term: "0", Text: "printed"}, {Term: "64", Text: "another shell"}},
			Examples: []manual.Entry{
				{Term: "source <(postilion completion bash)", Text: "for this shell only"},
				{Term: "postilion completion fish > ~/.config/fish/completions/postilion.fish", Text: ""},
			},
		},
		run: func(_ context.Context, e *environment) int {
			if len(e.args) != 1 {
				return usage(e, "completion")
			}
			script, ok := completionScript(e.args[0])
			if !ok {
				fmt.Fprintf(e.stderr, "postilion completion: no script for %q: bash, zsh and fish are known\n", e.args[0])
				return exitUsage
			}
			_, err := fmt.Fprint(e.stdout, script)
			return report(e, "completion", err)
		},
	}
}

// optionWords are the options of a page that begin with a dash, without their arguments.
func optionWords(page manual.Page) []string {
	var words []string
	for _, o := range page.Options {
		for _, alternative := range strings.Split(o.Term, ",") {
			if fields := strings.Fields(alternative); len(fields) > 0 && strings.HasPrefix(fields[0], "-") {
				words = append(words, fields[0])
			}
		}
	}
	return words
}

func completionScript(shell string) (string, bool) {
	var b strings.Builder
	all := commands()
	switch shell {
	case "bash":
		var names []string
		for _, c := range all {
			names = append(names, c.page.Name)
		}
		fmt.Fprintf(&b, "_postilion() {\n  local cur=${COMP_WORDS[COMP_CWORD]}\n  if [ \"$COMP_CWORD\" -eq 1 ]; then\n    COMPREPLY=($(compgen -W '%s' -- \"$cur\"))\n    return\n  fi\n  case ${COMP_WORDS[1]} in\n", strings.Join(names, " "))
		for _, c := range all {
			if words := optionWords(c.page); len(words) > 0 {
				fmt.Fprintf(&b, "    %s) [[ $cur == -* ]] && COMPREPLY=($(compgen -W '%s' -- \"$cur\")) && return ;;\n", c.page.Name, strings.Join(words, " "))
			}
		}
		b.WriteString("  esac\n  COMPREPLY=($(compgen -f -- \"$cur\"))\n}\ncomplete -o filenames -F _postilion postilion\n")
	case "zsh":
		b.WriteString("#compdef postilion\n_postilion() {\n  local -a commands\n  commands=(\n")
		for _, c := range all {
			fmt.Fprintf(&b, "    '%s:%s'\n", c.page.Name, strings.ReplaceAll(c.page.Summary, "'", "'\\''"))
		}
		b.WriteString("  )\n  if (( CURRENT == 2 )); then\n    _describe command commands\n    return\n  fi\n  case $words[2] in\n")
		for _, c := range all {
			if words := optionWords(c.page); len(words) > 0 {
				fmt.Fprintf(&b, "    %s) compadd -- %s ;;\n", c.page.Name, strings.Join(words, " "))
			}
		}
		b.WriteString("  esac\n  _files\n}\ncompdef _postilion postilion\n")
	case "fish":
		for _, c := range all {
			fmt.Fprintf(&b, "complete -c postilion -n __fish_use_subcommand -a %s -d '%s'\n", c.page.Name, strings.ReplaceAll(c.page.Summary, "'", "\\'"))
			for _, word := range optionWords(c.page) {
				kind, option := "-o", strings.TrimPrefix(word, "-")
				switch {
				case strings.HasPrefix(word, "--"):
					kind, option = "-l", strings.TrimPrefix(word, "--")
				case len(option) == 1:
					kind = "-s"
				}
				fmt.Fprintf(&b, "complete -c postilion -n '__fish_seen_subcommand_from %s' %s %s\n", c.page.Name, kind, option)
			}
		}
	default:
		return "", false
	}
	return b.String(), true
}
