package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"postilion/cmd/postilion/manual"
	"postilion/service"
	"postilion/service/explain"
)

func explainCommand() command {
	return command{
		page: manual.Page{
			Name: "explain", Section: 8, Summary: "show why a mail would be accepted or refused, and where it would go",
			Synopsis: []string{"postilion explain rcpt ADDRESS [--from ADDRESS] [--client IP] [--helo NAME] [--sasl USER] [--service NAME] [-c DIR] [--json]"},
			Description: "Asks the rules, tables, routes and mailboxes of a configuration what they would do with a mail for ADDRESS, and shows each restriction with its file, line and result, " +
				"the reply, and each destination with the rewrites and routes that lead there. The answer comes from the code that serves, which returns its reasons; nothing is sent, stored or counted.\n\n" +
				"The DNS is asked when a restriction needs it. What only a real session shows (the pace of a client, its commands, the message) is not looked at; policy servers are asked when a restriction names one.",
			Options: []manual.Entry{
				{Term: "--from ADDRESS", Text: "the sender; without it the null sender <>"},
				{Term: "--client IP", Text: "the client's address; without it 192.0.2.1, a stranger"},
				{Term: "--helo NAME", Text: "what the client calls itself; without it its address in brackets"},
				{Term: "--sasl USER", Text: "the user who logged in; the session counts as encrypted then"},
				{Term: "--service NAME", Text: "the smtpd service: its name in master.cf, with or without /inet, or smtp, submission or submissions; without it the first one"},
				{Term: "-c DIR", Text: "the directory of main.cf, master.cf and dovecot.conf; without it the usual places"},
				{Term: "--json", Text: "the answer as one JSON object"},
			},
			Exit: []manual.Entry{
				{Term: "0", Text: "the recipient would be accepted"}, {Term: "1", Text: "the configuration cannot be used"},
				{Term: "2", Text: "the recipient would be refused"}, {Term: "64", Text: "wrong usage"},
			},
			Examples: []manual.Entry{
				{Term: "postilion explain rcpt alice@example.com --from bob@example.org --client 198.51.100.7", Text: "why does Bob's mail not arrive?"},
				{Term: "postilion explain rcpt bob@example.org --service submission --sasl alice@example.com", Text: "may Alice send to Bob?"},
			},
			SeeAlso: []string{"postilion-check(8)", "access(5)", "main.cf(5)"},
		},
		run: runExplain,
	}
}

// exitRefused tells scripts that the recipient would not be accepted.
const exitRefused = 2

func runExplain(ctx context.Context, e *environment) int {
	var from, client, helo, user, name, dir string
	var asJSON bool
	set := optionSet{
		texts: map[string]*string{"--from": &from, "--client": &client, "--helo": &helo, "--sasl": &user, "--service": &name, "-c": &dir},
		flags: map[string]*bool{"--json": &asJSON},
	}
	rest, err := set.parse(e.args)
	if err != nil {
		return wrongUsage(e, "explain", err)
	}
	if len(rest) != 2 || rest[0] != "rcpt" {
		return wrongUsage(e, "explain", errors.New("what is to be explained? `explain rcpt ADDRESS` is known"))
	}
	q := service.Question{Service: name, Helo: helo, User: user, Sender: plainAddress(from), Recipient: plainAddress(rest[1])}
	if q.Recipient == "" || strings.ContainsAny(q.Recipient+q.Sender, "\r\n\x00") {
		return wrongUsage(e, "explain", fmt.Errorf("%q is no address", rest[1]))
	}
	if client != "" {
		if q.Client, err = netip.ParseAddr(strings.Trim(client, "[]")); err != nil {
			return wrongUsage(e, "explain", fmt.Errorf("--client %s is no IP address", client))
		}
	}
	x, err := explainQuestion(ctx, e, dir, q)
	if err != nil {
		for line := range strings.Lines(err.Error()) {
			fmt.Fprintf(e.stderr, "postilion explain: %s\n", strings.TrimRight(line, "\n"))
		}
		return exitFailure
	}
	if asJSON {
		encoder := json.NewEncoder(e.stdout)
		encoder.SetIndent("", "  ")
		err = encoder.Encode(x)
	} else {
		err = explain.Write(e.stdout, x)
	}
	if code := report(e, "explain", err); code != exitOK || x.Accepted {
		return code
	}
	return exitRefused
}

func explainQuestion(ctx context.Context, e *environment, dir string, q service.Question) (*service.Explanation, error) {
	options := configuration(e, dir)
	if options.PostfixDir == "" {
		return nil, errors.New("there is no main.cf: name its directory with -c")
	}
	inspect, err := service.InspectOptionsOf(options)
	if err != nil {
		return nil, err
	}
	var notes service.Notes
	inspect.Log = notes.Logger()
	x, err := service.Explain(ctx, inspect, q)
	if err != nil {
		return nil, err
	}
	x.Problems = append(x.Problems, notes.Texts()...)
	return x, nil
}

// plainAddress takes the angle brackets from an address.
func plainAddress(text string) string {
	return strings.TrimSuffix(strings.TrimPrefix(text, "<"), ">")
}
