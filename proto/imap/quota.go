package imap

// Quota is RFC 2087.
func Quota() Extension {
	return Extension{Commands: []CommandSpec{{Name: "GETQUOTAROOT", Args: 1}, {Name: "GETQUOTA", Args: 1}, {Name: "SETQUOTA", Args: 2}}}
}
