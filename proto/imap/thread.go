package imap

// Thread is RFC 5256's THREAD.
func Thread() Extension {
	return Extension{Commands: []CommandSpec{{Name: "THREAD"}, {Name: "UID THREAD"}}}
}

// ParseThread reads the arguments of THREAD: an algorithm's name in capitals, a charset, and the keys of a search.
func (g *Grammar) ParseThread(args []Arg) (algorithm string, search *Search, err error) {
	if len(args) < 1 || !args[0].IsString() {
		return "", nil, SyntaxError("Missing thread algorithm.")
	}
	if len(args) < 2 || !args[1].IsString() {
		return "", nil, SyntaxError("Missing charset argument.")
	}
	if len(args) < 3 {
		return "", nil, SyntaxError("Missing search parameters")
	}
	search = &Search{Charset: args[1].Upper()}
	p := &SearchParser{grammar: g, search: search, args: args[2:]}
	search.Key, err = p.all()
	return args[0].Upper(), search, err
}
