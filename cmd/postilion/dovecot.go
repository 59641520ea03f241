package main

import (
	"context"
	"fmt"

	"postilion/cmd/postilion/manual"
	"postilion/config/dovecot/doveconf"
	"postilion/service"
)

const defaultDovecotConf = "/etc/dovecot/dovecot.conf"

func dovecotCommand() command {
	return command{
		unix: true,
		page: manual.Page{
			Name: "dovecot", Section: 1, Summary: "serve the mailboxes of a dovecot.conf",
			Synopsis: []string{"dovecot [-F] [-c FILE]", "dovecot [-c FILE] stop|reload"},
			Description: "Serves IMAP, POP3 and LMTP as dovecot.conf says, in the foreground. It is what `postilion serve` does for the mailbox half alone. " +
				"SIGHUP reloads, SIGTERM ends in order; `dovecot reload` and `dovecot stop` send them to the process whose number is in master.pid in base_dir.",
			Exit: []manual.Entry{
				{Term: "0", Text: "ended in order, or the signal was sent"}, {Term: "1", Text: "could not start, a fatal error, or no server runs"}, {Term: "64", Text: "wrong usage"},
			},
			Examples: []manual.Entry{{Term: "dovecot -F -c /etc/dovecot/dovecot.conf", Text: ""}},
			Options: []manual.Entry{
				{Term: "-F", Text: "stay in the foreground; this is always so"},
				{Term: "-c FILE", Text: "the configuration file; without it " + defaultDovecotConf},
			},
			SeeAlso: []string{"doveconf(1)", "postilion-serve(8)"},
		},
		run: func(ctx context.Context, e *environment) int {
			file := defaultDovecotConf
			for i := 0; i < len(e.args); i++ {
				switch {
				case e.args[i] == "-F":
				case e.args[i] == "-c" && i+1 < len(e.args):
					i++
					file = e.args[i]
				case (e.args[i] == "stop" || e.args[i] == "reload") && i+1 == len(e.args):
					return controlDovecot(e, file, e.args[i])
				default:
					fmt.Fprintf(e.stderr, "dovecot: unknown argument %q: usage: dovecot [-F] [-c FILE] [stop|reload]\n", e.args[i])
					return exitUsage
				}
			}
			return serveUntilSignal(ctx, e, "dovecot", service.Options{DovecotFile: file, Getenv: e.getenv, Stderr: e.stderr})
		},
	}
}

func doveconfCommand() command {
	return command{
		unix: true,
		page: manual.Page{
			Name: "doveconf", Section: 1, Summary: "show the settings of a dovecot.conf",
			Synopsis:    []string{"doveconf [-adnNPSx] [-c FILE] [-f FILTER] [-m MODULE] [-h] [SETTING ...]"},
			Description: "Prints the settings that hold, by the rules and in the form of Dovecot 2.3's doveconf(1). Errors name the file and line; the exit status is 89 then.",
			Options: []manual.Entry{
				{Term: "-a", Text: "all settings"},
				{Term: "-n", Text: "those that differ from their defaults"},
				{Term: "-N", Text: "those that are set"},
				{Term: "-d", Text: "the defaults"},
				{Term: "-h", Text: "values without names"},
				{Term: "-S", Text: "a line each, for scripts"},
				{Term: "-x", Text: "contents of <files"},
				{Term: "-P", Text: "show passwords"},
				{Term: "-c FILE", Text: "the configuration file; without it " + defaultDovecotConf},
				{Term: "-f FILTER", Text: "as for a connection: protocol=imap, local=, remote=, name="},
				{Term: "-m MODULE", Text: "settings of one part only"},
			},
			Exit: []manual.Entry{{Term: "0", Text: "printed"}, {Term: "64", Text: "wrong usage"}, {Term: "89", Text: "the configuration has an error"}},
			Examples: []manual.Entry{
				{Term: "doveconf -n", Text: "what is set"}, {Term: "doveconf -f protocol=imap mail_plugins", Text: "one setting, as IMAP has it"},
			},
			SeeAlso: []string{"dovecot(1)", "dovecot.conf(5)", "postilion-check(8)"},
		},
		run: func(_ context.Context, e *environment) int {
			return doveconf.Run(e.args, e.stdin, e.stdout, e.stderr, doveconf.Env{Version: version()})
		},
	}
}
