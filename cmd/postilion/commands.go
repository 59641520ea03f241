package main

// commands lists every name that the program answers to.
func commands() []command {
	return []command{
		quickstartCommand(),
		serveCommand(),
		initCommand(),
		checkCommand(),
		explainCommand(),
		vaultCommand(),
		helpCommand(),
		versionCommand(),
		manualCommand(),
		completionCommand(),
		postfixCommand(),
		dovecotCommand(),
		doveconfCommand(),
		doveadmCommand(),
		postconfCommand(),
		postmapCommand(),
		postaliasCommand(),
	}
}
