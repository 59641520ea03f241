package imap

// Base is the commands of RFC 3501 and RFC 9051 and of those extensions that are commands without a grammar of their own: ID (RFC 2971),
// NAMESPACE (RFC 2342), UNSELECT (RFC 3691), IDLE (RFC 2177), ENABLE (RFC 5161), UIDPLUS (RFC 4315).
func Base() Extension {
	return Extension{
		Commands: []CommandSpec{
			{Name: "CAPABILITY", Args: NoArgs},
			{Name: "NOOP", Args: NoArgs},
			{Name: "LOGOUT", Args: NoArgs},
			{Name: "ID"},
			{Name: "ENABLE"},
			{Name: "SELECT"},
			{Name: "EXAMINE"},
			{Name: "CREATE"},
			{Name: "DELETE", Args: 1},
			{Name: "RENAME", Args: 2},
			{Name: "SUBSCRIBE", Args: 1},
			{Name: "UNSUBSCRIBE", Args: 1},
			{Name: "NAMESPACE", Args: NoArgs},
			{Name: "STATUS"},
			{Name: "APPEND", Stream: 1},
			{Name: "IDLE", Args: NoArgs},
			{Name: "CHECK", Args: NoArgs},
			{Name: "CLOSE", Args: NoArgs},
			{Name: "UNSELECT", Args: NoArgs},
			{Name: "EXPUNGE", Args: NoArgs},
			{Name: "UID EXPUNGE", Args: 1},
			{Name: "SEARCH"},
			{Name: "UID SEARCH"},
			{Name: "FETCH"},
			{Name: "UID FETCH"},
			{Name: "STORE"},
			{Name: "UID STORE"},
			{Name: "COPY", Args: 2},
			{Name: "UID COPY", Args: 2},
		},
		Fetch:  baseFetch(),
		Search: baseSearch(),
		Status: []string{"MESSAGES", "RECENT", "UIDNEXT", "UIDVALIDITY", "UNSEEN", "SIZE", "DELETED", "APPENDLIMIT", "MAILBOXID"},
	}
}

// Prelogin is what a client may say before it has logged in.
func Prelogin() Extension {
	return Extension{Commands: []CommandSpec{
		{Name: "CAPABILITY", Args: NoArgs},
		{Name: "NOOP", Args: NoArgs},
		{Name: "LOGOUT", Args: NoArgs},
		{Name: "ID"},
		{Name: "ENABLE"},
		{Name: "STARTTLS", Args: NoArgs},
		{Name: "LOGIN"},
		{Name: "AUTHENTICATE"},
	}}
}

// Listing is LIST with its extensions (RFC 5258, RFC 5819, RFC 6154) and LSUB.
func Listing() Extension {
	return Extension{Commands: []CommandSpec{{Name: "LIST"}, {Name: "XLIST"}, {Name: "LSUB", Args: 2}}}
}

// Move is RFC 6851.
func Move() Extension {
	return Extension{Commands: []CommandSpec{{Name: "MOVE", Args: 2}, {Name: "UID MOVE", Args: 2}}}
}

// ESearch is the further SEARCH keys of RFC 5182; the result options of RFC 4731 and RFC 5267 are read by ParseSearch.
func ESearch() Extension {
	return Extension{Search: []SearchSpec{{Name: "$"}}}
}

// Condstore is RFC 7162 without QRESYNC.
func Condstore() Extension {
	return Extension{
		Fetch:  []FetchSpec{{Name: "MODSEQ"}},
		Search: []SearchSpec{{Name: "MODSEQ", Parse: parseModSeqKey}},
		Status: []string{"HIGHESTMODSEQ"},
	}
}

// Binary is RFC 3516.
func Binary() Extension {
	return Extension{Fetch: []FetchSpec{
		{Name: "BINARY[", Parse: parseBinary(false)},
		{Name: "BINARY.PEEK[", Parse: parseBinary(true)},
		{Name: "BINARY.SIZE[", Parse: parseBinary(true)},
	}}
}

// Within is RFC 5032.
func Within() Extension {
	return Extension{Search: []SearchSpec{{Name: "OLDER", Parse: parseInterval}, {Name: "YOUNGER", Parse: parseInterval}}}
}

// SaveDate is RFC 8514.
func SaveDate() Extension {
	return Extension{
		Fetch: []FetchSpec{{Name: "SAVEDATE"}},
		Search: []SearchSpec{
			{Name: "SAVEDBEFORE", Parse: parseDateKey},
			{Name: "SAVEDON", Parse: parseDateKey},
			{Name: "SAVEDSINCE", Parse: parseDateKey},
			{Name: "SAVEDATESUPPORTED"},
		},
	}
}

// Preview is RFC 8970.
func Preview() Extension {
	return Extension{Fetch: []FetchSpec{{Name: "PREVIEW", Parse: parsePreview}, {Name: "SNIPPET", Parse: parsePreview}}}
}
