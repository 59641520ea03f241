package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"postilion/cmd/postilion/manual"
	"postilion/service/check"
)

// Exit codes of check beside exitOK.
const (
	exitCheckWarnings = 1
	exitCheckErrors   = 2
)

func checkCommand() command {
	return command{
		page: manual.Page{
			Name: "check", Section: 8, Summary: "say what of a configuration is honoured, what is not, and what is wrong",
			Synopsis: []string{"postilion check [-c DIR] [--all] [--strict] [--json]"},
			Description: "Reads main.cf, master.cf and dovecot.conf as the server does and says for file and line: mistakes that keep it from starting; what is accepted and hardly does what is meant " +
				"(certificates that are missing, expired, for another name or about to expire, tables that cannot be opened, services that are not served, an open relay, sockets at whose other end nobody listens); " +
				"and settings that have no effect in this version or no meaning here. Nothing is opened for others, written or sent.\n\n" +
				"An unknown parameter of main.cf is no error, as in Postfix, but the nearest known name is shown.",
			Options: []manual.Entry{
				{Term: "-c DIR", Text: "the directory of the files; without it /etc/postfix and /etc/dovecot/dovecot.conf"},
				{Term: "--all", Text: "also list, line by line, what is fine and what has no effect or no meaning"},
				{Term: "--strict", Text: "warnings and settings without effect make the exit status 1"},
				{Term: "--json", Text: "one JSON object: files, findings (file, line, severity, setting, text), listeners"},
			},
			Exit: []manual.Entry{
				{Term: "0", Text: "the server would start"}, {Term: "1", Text: "it would, and with --strict something is not as it looks"},
				{Term: "2", Text: "it would not start"}, {Term: "64", Text: "wrong usage"},
			},
			Examples: []manual.Entry{{Term: "postilion check -c /etc/postfix && systemctl reload postilion", Text: ""}},
			SeeAlso:  []string{"postilion-explain(8)", "postilion-serve(8)", "main.cf(5)", "dovecot.conf(5)"},
		},
		run: runCheck,
	}
}

func runCheck(ctx context.Context, e *environment) int {
	var dir string
	var all, strict, asJSON bool
	set := optionSet{texts: map[string]*string{"-c": &dir}, flags: map[string]*bool{"--all": &all, "--strict": &strict, "--json": &asJSON}}
	rest, err := set.parse(e.args)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("what is %q? a directory is named with -c", rest[0])
	}
	if err != nil {
		return wrongUsage(e, "check", err)
	}
	options := configuration(e, dir)
	if options.PostfixDir == "" && options.DovecotFile == "" {
		return report(e, "check", errors.New("neither main.cf nor dovecot.conf is there: name their directory with -c"))
	}
	found := check.Run(ctx, check.Options{PostfixDir: options.PostfixDir, DovecotFile: options.DovecotFile, Getenv: e.getenv, Now: time.Now()})
	if asJSON {
		encoder := json.NewEncoder(e.stdout)
		encoder.SetIndent("", "  ")
		err = encoder.Encode(found)
	} else {
		err = found.Write(e.stdout, all)
	}
	switch {
	case err != nil:
		return report(e, "check", err)
	case found.Count(check.Error) > 0:
		return exitCheckErrors
	case strict && found.Count(check.Warning)+found.Count(check.NoEffect) > 0:
		return exitCheckWarnings
	}
	return exitOK
}
