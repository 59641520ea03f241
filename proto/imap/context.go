package imap

// Context is RFC 5267's CONTEXT=SEARCH; its result options are read with those of SEARCH.
func Context() Extension {
	return Extension{Commands: []CommandSpec{{Name: "CANCELUPDATE"}}}
}
