package main

import (
	"context"

	"postilion/cmd/postilion/manual"
	"postilion/config/postfix"
	"postilion/config/postfix/postconf"
	"postilion/table/tabletool"
)

func postconfCommand() command {
	return command{
		unix: true,
		page: manual.Page{
			Name: "postconf", Section: 1, Summary: "show and change parameters of main.cf and master.cf",
			Synopsis: []string{
				"postconf [-dfhHnopqtvx] [-c DIR] [-C CLASS] [PARAMETER ...]", "postconf -e | -# | -X [-c DIR] PARAMETER[=VALUE] ...",
				"postconf -M [-efX#] [-c DIR] [SERVICE/TYPE ...]", "postconf -F | -P [-efX] [-c DIR] [SERVICE/TYPE[/NAME] ...]", "postconf -a | -A | -l | -m | -b | -T MODE",
			},
			Description: "Works on the configuration by the rules and in the form of Postfix 3.7's postconf(1). Files are replaced atomically when they are changed.",
			Options: []manual.Entry{
				{Term: "-n", Text: "parameters that are set"},
				{Term: "-d", Text: "defaults"},
				{Term: "-x", Text: "expand $names"},
				{Term: "-h", Text: "values without names"},
				{Term: "-e", Text: "set"},
				{Term: "-#", Text: "comment out"},
				{Term: "-X", Text: "remove"},
				{Term: "-M", Text: "master.cf entries"},
				{Term: "-F", Text: "fields of master.cf entries"},
				{Term: "-P", Text: "-o parameters of master.cf entries"},
				{Term: "-m", Text: "table types"},
				{Term: "-o NAME=VALUE", Text: "override a parameter"},
				{Term: "-c DIR", Text: "the configuration directory; without it $MAIL_CONFIG or /etc/postfix"},
			},
			Exit:     []manual.Entry{{Term: "0", Text: "done"}, {Term: "1", Text: "a file cannot be read or written, or a parameter is not known"}},
			Examples: []manual.Entry{{Term: "postconf -n", Text: "what is set"}, {Term: "postconf -e 'message_size_limit = 50000000'", Text: ""}, {Term: "postconf -Mf", Text: "the services"}},
			SeeAlso:  []string{"postmap(1)", "main.cf(5)", "master.cf(5)", "postilion-check(8)"},
		},
		run: func(_ context.Context, e *environment) int {
			return postconf.Run(e.args, e.stdin, e.stdout, e.stderr, e.getenv)
		},
	}
}

func postmapCommand() command {
	return command{
		unix: true,
		page: manual.Page{
			Name: "postmap", Section: 1, Summary: "make, change and query lookup tables",
			Synopsis:    []string{"postmap [-bfFhimnNoprsuUvw] [-c DIR] [-d KEY] [-q KEY] [TYPE:]FILE ..."},
			Description: "Queries any table by the rules of Postfix 3.7's postmap(1), and makes indexed files from their text source.",
			Options: []manual.Entry{
				{Term: "-q KEY", Text: "print the value; - reads keys from standard input"},
				{Term: "-d KEY", Text: "remove"},
				{Term: "-i", Text: "add entries from standard input"},
				{Term: "-r", Text: "replace without a warning"},
				{Term: "-s", Text: "print all entries"},
				{Term: "-F", Text: "values are file names, their contents count"},
				{Term: "-h, -b, -m", Text: "query headers and bodies of a message"},
				{Term: "-c DIR", Text: "the configuration directory"},
			},
			Exit:     []manual.Entry{{Term: "0", Text: "done; with -q or -d: found"}, {Term: "1", Text: "not found, or an error"}},
			Examples: []manual.Entry{{Term: "postmap hash:/etc/postfix/virtual", Text: ""}, {Term: "postmap -q alice@example.org hash:/etc/postfix/virtual", Text: ""}},
			SeeAlso:  []string{"postalias(1)", "postconf(1)", "tables(5)"},
		},
		run: func(_ context.Context, e *environment) int {
			return tabletool.Postmap(tableInvocation(e))
		},
	}
}

func postaliasCommand() command {
	return command{
		unix: true,
		page: manual.Page{
			Name: "postalias", Section: 1, Summary: "make, change and query alias tables",
			Synopsis:    []string{"postalias [-finNoprsuvw] [-c DIR] [-d KEY] [-q KEY] [TYPE:]FILE ..."},
			Description: "Does for files in the form of aliases(5) what postmap(1) does for others, by the rules of Postfix 3.7's postalias(1).",
			Options: []manual.Entry{
				{Term: "-q KEY", Text: "print the value; - reads keys from standard input"},
				{Term: "-d KEY", Text: "remove"},
				{Term: "-i", Text: "add entries from standard input"},
				{Term: "-r", Text: "replace without a warning"},
				{Term: "-s", Text: "print all entries"},
				{Term: "-c DIR", Text: "the configuration directory"},
			},
			Exit:     []manual.Entry{{Term: "0", Text: "done; with -q or -d: found"}, {Term: "1", Text: "not found, or an error"}},
			Examples: []manual.Entry{{Term: "postalias hash:/etc/aliases", Text: ""}, {Term: "postalias -q postmaster hash:/etc/aliases", Text: ""}},
			SeeAlso:  []string{"postmap(1)", "aliases(5)"},
		},
		run: func(_ context.Context, e *environment) int {
			return tabletool.Postalias(tableInvocation(e))
		},
	}
}

const defaultPostfixDir = "/etc/postfix"

// mainCF gives the table tools main.cf's values.
type mainCF struct{ view *postfix.View }

// Value implements tabletool.Parameters.
func (m mainCF) Value(name string) (string, bool) {
	if !m.view.IsSet(name) {
		return "", false
	}
	return m.view.String(name), true
}

func tableInvocation(e *environment) tabletool.Invocation {
	return tabletool.Invocation{
		Args: e.args, Stdin: e.stdin, Stdout: e.stdout, Stderr: e.stderr, Getenv: e.getenv,
		Load: func(dir string) (tabletool.Parameters, error) {
			if dir == "" {
				dir = defaultPostfixDir
			}
			config, err := postfix.LoadWith(postfix.Options{Dir: dir, AllowMissing: dir == defaultPostfixDir})
			if err != nil {
				return nil, err
			}
			return mainCF{config.View()}, nil
		},
	}
}
