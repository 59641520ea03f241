package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"postilion/cmd/postilion/manual"
	"postilion/service"
	"postilion/service/firststart"
)

const (
	defaultQuickstartDir = "postilion-quickstart"
	defaultPortBase      = 10000
)

func quickstartCommand() command {
	return command{
		page: manual.Page{
			Name: "quickstart", Section: 1, Summary: "try the whole thing on loopback, without root",
			Synopsis: []string{"postilion quickstart [--dir DIR] [--once] [--port-base N]"},
			Description: "Makes a certificate, a main.cf, master.cf and dovecot.conf and two users in DIR, serves SMTP, submission, IMAP and POP3 on 127.0.0.1, " +
				"sends a first message and reads it back by IMAP and POP3, shows each step, and serves until it is interrupted. " +
				"A DIR that was made before is served as it is; `postilion serve -c DIR` does the same.",
			Options: []manual.Entry{
				{Term: "--dir DIR", Text: "where the files go; " + defaultQuickstartDir + " in the current directory, or with --once a directory that is removed afterwards"},
				{Term: "--once", Text: "end after the round trip: status 0, or 1 and the step that failed"},
				{Term: "--port-base N", Text: fmt.Sprintf("added to the usual ports; %d gives SMTP on %d", defaultPortBase, defaultPortBase+25)},
			},
			Exit:    []manual.Entry{{Term: "0", Text: "the round trip worked"}, {Term: "1", Text: "a step failed"}, {Term: "64", Text: "wrong usage"}},
			SeeAlso: []string{"postilion-serve(8)", "postilion-init(8)"},
		},
		run: quickstart,
	}
}

func quickstart(ctx context.Context, e *environment) int {
	flags := flag.NewFlagSet("postilion quickstart", flag.ContinueOnError)
	flags.SetOutput(e.stderr)
	flags.Usage = func() { usage(e, "quickstart") }
	dir := flags.String("dir", "", "")
	once := flags.Bool("once", false, "")
	base := flags.Int("port-base", defaultPortBase, "")
	if err := flags.Parse(e.args); err != nil {
		return exitUsage
	}
	if flags.NArg() > 0 {
		return usage(e, "quickstart")
	}
	err := runQuickstart(ctx, e, *dir, *once, *base)
	if err != nil {
		fmt.Fprintf(e.stderr, "postilion quickstart: %v\n", err)
		return exitFailure
	}
	return exitOK
}

func runQuickstart(ctx context.Context, e *environment, dir string, once bool, base int) (err error) {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	switch {
	case dir == "" && once:
		if dir, err = os.MkdirTemp("", "postilion-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	case dir == "":
		dir = defaultQuickstartDir
	}
	setup, err := firststart.Quickstart(dir, base)
	if err != nil {
		return err
	}
	if setup.Present() {
		if err := setup.ReadPasswords(); err != nil {
			return err
		}
		fmt.Fprintf(e.stdout, "Serving the files in %s as they are.\n", setup.Dir)
	} else {
		if err := setup.Write(); err != nil {
			return err
		}
		fmt.Fprintf(e.stdout, "Wrote main.cf, master.cf, dovecot.conf, users and a self-signed certificate in %s\n", setup.Dir)
	}
	begun := time.Now()
	server, err := service.Start(ctx, service.Options{
		PostfixDir: setup.Dir, DovecotFile: filepath.Join(setup.Dir, "dovecot.conf"), Getenv: e.getenv, Stderr: e.stderr,
	})
	if err != nil {
		return err
	}
	defer func() {
		patience, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopPatience)
		defer cancel()
		err = errors.Join(err, server.Stop(patience))
	}()
	fmt.Fprintf(e.stdout, "%s (%d ms)\n\nA first message:\n", server.Ready(), time.Since(begun).Milliseconds())
	if err := setup.RoundTrip(ctx, func(step string) { fmt.Fprintf(e.stdout, "  %s\n", step) }); err != nil {
		return err
	}
	if once {
		fmt.Fprintln(e.stdout, "\nThe round trip worked.")
		return nil
	}
	printClients(e.stdout, setup)
	if watch(ctx, e, server, nil) != exitOK {
		return errors.New("the server ended")
	}
	fmt.Fprintln(e.stdout, "\nEnded in order.")
	return nil
}

// printClients shows how to send and read with programs that people have.
func printClients(w io.Writer, s *firststart.Setup) {
	alice, bob := s.Accounts[0], s.Accounts[1]
	fmt.Fprintf(w, `
Send (users log in for submission; anybody may send to %[1]s):
  swaks --to %[2]s --server 127.0.0.1:%[3]d --tls
  swaks --from %[4]s --to %[2]s --server 127.0.0.1:%[5]d --tls --auth-user %[4]s --auth-password %[6]s
  curl --ssl-reqd -k --url smtp://127.0.0.1:%[5]d --user '%[4]s:%[6]s' --mail-from %[4]s --mail-rcpt %[2]s -T message.eml

Read:
  curl -k --user '%[2]s:%[7]s' 'imaps://127.0.0.1:%[8]d/INBOX;MAILINDEX=1'
  mutt -e 'set ssl_starttls=yes' -f imaps://%[2]s@127.0.0.1:%[8]d/INBOX
  Thunderbird: account %[2]s, password %[7]s; IMAP 127.0.0.1 port %[8]d SSL/TLS,
    outgoing 127.0.0.1 port %[5]d STARTTLS; accept the self-signed certificate.

Users: %[2]s %[7]s
       %[4]s %[6]s
The files are in %[9]s; postilion serve -c %[9]s serves them unchanged.
Press Ctrl-C to end.
`, s.Domain, alice.Address, s.Ports["smtp"], bob.Address, s.Ports["submission"], bob.Password, alice.Password, s.Ports["imaps"], s.Dir)
}
