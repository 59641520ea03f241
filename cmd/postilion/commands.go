package main

import "postilion/cmd/postilion/manual"

// commands lists every name that the program answers to.
func commands() []command {
	return []command{
		quickstartCommand(),
		serveCommand(),
		initCommand(),
		checkCommand(),
		explainCommand(),
		helpCommand(),
		versionCommand(),
		manualCommand(),
		completionCommand(),
		dovecotCommand(),
		doveconfCommand(),
		doveadmCommand(),
		postconfCommand(),
		postmapCommand(),
		postaliasCommand(),
	}
}

// filePages documents the files that are read.
func filePages() []manual.Page { return nil }
