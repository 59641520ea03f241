package main

import (
	"context"

	"postilion/cmd/postilion/manual"
	"postilion/service/doveadm"
)

func doveadmCommand() command {
	return command{
		unix: true,
		page: manual.Page{
			Name: "doveadm", Section: 1, Summary: "make password hashes, look users up, try logins",
			Synopsis: []string{
				"doveadm [-Dv] [-c FILE] [-f FORMATTER] [-o SETTING=VALUE] COMMAND [ARGUMENTS]", "doveadm pw [-lV] [-s SCHEME] [-p PASSWORD] [-r ROUNDS] [-t HASH] [-u USER]",
				"doveadm user [-u] [-f FIELD | -e TEMPLATE] [-x NAME=VALUE] USER ...", "doveadm auth test|login [-M MASTER] [-x NAME=VALUE] USER [PASSWORD]",
				"doveadm auth lookup [-f FIELD] [-x NAME=VALUE] USER ...",
			},
			Description: "Works by the rules and in the form of Dovecot 2.3's doveadm(1). user and auth ask the passdbs and userdbs of the configuration themselves and need no server. " +
				"The exit status is 67 for a user who does not exist, 77 for a login that fails, 75 for other failures.",
			Options: []manual.Entry{
				{Term: "-c FILE", Text: "the configuration file; without it " + doveadm.DefaultFile},
				{Term: "-D", Text: "tell more"},
				{Term: "-f FORMATTER", Text: "tab, table, flow, pager or json"},
				{Term: "-o SETTING=VALUE", Text: "override a setting"},
			},
			SeeAlso: []string{"doveconf(1)", "dovecot(1)"},
		},
		run: func(ctx context.Context, e *environment) int {
			return doveadm.Run(ctx, doveadm.Environment{Args: e.args, Stdin: e.stdin, Stdout: e.stdout, Stderr: e.stderr})
		},
	}
}
