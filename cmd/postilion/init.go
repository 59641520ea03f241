package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"postilion/cmd/postilion/manual"
	"postilion/service/firststart"
)

const (
	defaultInitDir   = "/etc/postilion"
	defaultInitState = "/var/lib/postilion"
)

func initCommand() command {
	return command{
		page: manual.Page{
			Name: "init", Section: 8, Summary: "write the configuration of a mail host",
			Synopsis: []string{"postilion init DOMAIN [--config DIR] [--state DIR] [--cert FILE --key FILE]"},
			Description: "Writes main.cf, master.cf, dovecot.conf and a file of users for the host mail.DOMAIN, with comments that say what each setting does and safe defaults: " +
				"TLS for logins, no relaying for strangers, ports 25, 465, 587, 143, 993, 110 and 995. Without a certificate a self-signed one is made. " +
				"The first user is postmaster@DOMAIN; its password is shown once and kept nowhere. The DNS records to publish are printed.\n\n" +
				"A file that is there is never replaced.",
			Options: []manual.Entry{
				{Term: "--config DIR", Text: "where the files go; " + defaultInitDir + " without it"},
				{Term: "--state DIR", Text: "where mail and sockets go; " + defaultInitState + " without it"},
				{Term: "--cert FILE", Text: "the certificate with its chain, in PEM form"},
				{Term: "--key FILE", Text: "its private key"},
			},
			Exit: []manual.Entry{
				{Term: "0", Text: "the files are written"}, {Term: "1", Text: "they are not: the name is no domain, a file is in the way, or the disk refuses"}, {Term: "64", Text: "wrong usage"},
			},
			Examples: []manual.Entry{
				{Term: "postilion init example.org", Text: "then check, publish the records, and serve -c " + defaultInitDir},
				{Term: "postilion init example.org --cert /etc/ssl/mail.pem --key /etc/ssl/mail.key", Text: ""},
			},
			SeeAlso: []string{"postilion-check(8)", "postilion-serve(8)", "postilion-quickstart(1)"},
		},
		run: runInit,
	}
}

func runInit(_ context.Context, e *environment) int {
	dir, state := defaultInitDir, defaultInitState
	var cert, key string
	set := optionSet{texts: map[string]*string{"--config": &dir, "--state": &state, "--cert": &cert, "--key": &key}}
	rest, err := set.parse(e.args)
	if err == nil && len(rest) != 1 {
		err = errors.New("one domain must be named, such as example.org")
	}
	if err != nil {
		return wrongUsage(e, "init", err)
	}
	setup, err := firststart.Host(rest[0], dir, state, cert, key)
	if err == nil {
		err = setup.Write()
	}
	if err == nil {
		err = printHost(e.stdout, setup)
	}
	return report(e, "init", err)
}

func printHost(w io.Writer, s *firststart.Setup) error {
	_, err := fmt.Fprintf(w, "Wrote main.cf, master.cf, dovecot.conf and users in %s; mail will be kept in %s.\n", s.Dir, s.State)
	if s.SelfSigned {
		_, made := fmt.Fprintf(w, "The certificate %s is self-signed: other servers take it, mail programs ask. Put a real one in its place; it is taken up by itself.\n", s.Certificate)
		err = errors.Join(err, made)
	}
	user := s.Accounts[0]
	_, shown := fmt.Fprintf(w, "\nFirst user (the password is shown this once; postilion doveadm pw makes others):\n  %s  %s\n\nPublish in the DNS:\n", user.Address, user.Password)
	err = errors.Join(err, shown)
	for _, record := range s.Records(firststart.PublicAddresses()) {
		_, line := fmt.Fprintf(w, "  %s\n", record)
		err = errors.Join(err, line)
	}
	_, next := fmt.Fprintf(w, `
Ask whoever gave you the addresses to make their reverse names (PTR) %[1]s: many servers refuse mail from hosts without.

Next:
  postilion check -c %[2]s
  postilion serve -c %[2]s
`, s.Hostname, s.Dir)
	return errors.Join(err, next)
}
