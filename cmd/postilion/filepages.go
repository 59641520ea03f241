package main

import (
	"fmt"
	"strings"

	"postilion/cmd/postilion/manual"
	"postilion/config/dovecot"
	"postilion/config/postfix"
)

// filePages documents the files that are read. The lists of parameters come from the registries, so that they cannot differ from what is read.
func filePages() []manual.Page {
	return []manual.Page{mainPage(), masterPage(), dovecotPage(), passwdFilePage(), aliasesPage(), accessPage(), tablesPage()}
}

func mainPage() manual.Page {
	page := manual.Page{
		Name: "main.cf", Section: 5, Summary: "parameters of the mail transport",
		Synopsis: []string{"name = value"},
		Description: "main.cf is read by the rules of Postfix 3.7. A line that begins with a blank goes on with the line before, also across comments; a line that begins with # is a comment, a # behind a value is a part of it. " +
			"Of two lines with one name the last holds, with a warning. An unknown name is a variable of the administrator's own.\n\n" +
			"$name, ${name}, $(name), ${name?text} (when it is not empty), ${name:text} (when it is) and ${name?{a}:{b}} stand for other values; ${{a} == {b} ? {c} : {d}} compares. " +
			"yes and no in any case are the values of switches; a time is a number with s, m, h, d or w.\n\n" +
			"compatibility_level decides which version's defaults hold; a file that does not set it has those of old Postfix. `postconf -n` shows what is set, `postconf -x NAME` what it comes to, " +
			"`postilion check` what each line does here. Names that begin with postilion_ are this program's own.\n\n" +
			"Each parameter below has its type, its default and what is done with it. One that has no effect is accepted, and named by check when it is set.",
		Examples: []manual.Entry{
			{Term: "smtpd_relay_restrictions = permit_mynetworks, permit_sasl_authenticated, reject_unauth_destination", Text: "who may send to other hosts"},
			{Term: "virtual_transport = lmtp:unix:private/dovecot-lmtp", Text: "mail of virtual_mailbox_domains goes to the mailboxes of dovecot.conf"},
		},
		Files:   []manual.Entry{{Term: "/etc/postfix/main.cf", Text: "where it is without -c"}},
		SeeAlso: []string{"postconf(1)", "master.cf(5)", "tables(5)", "access(5)", "postilion-check(8)"},
	}
	registry := postfix.Builtin()
	for _, name := range registry.Names() {
		if p, _ := registry.Lookup(name); !p.Past {
			page.Entries = append(page.Entries, manual.Entry{Term: name, Text: parameterText(p)})
		}
	}
	return page
}

var postfixTypes = map[postfix.Type]string{postfix.StringType: "text", postfix.BoolType: "yes or no", postfix.NumberType: "number", postfix.TimeType: "time"}

func parameterText(p *postfix.Parameter) string {
	text := postfixTypes[p.Type]
	if p.Kind != "" {
		text = p.Kind
	}
	switch {
	case p.Dynamic:
		text += ", found out on the host"
	case p.Default == "":
		text += ", empty by default"
	default:
		text += ", default: " + p.Default
	}
	text += ". "
	if p.Meaning != "" {
		text += sentence(p.Meaning)
	}
	switch p.Treatment {
	case postfix.NotYet:
		text += "No effect in this version"
		if p.Reason != "" {
			text += ": " + p.Reason
		}
		text += "."
	case postfix.NoMeaning:
		text += "No meaning here: " + p.Reason + "."
	case postfix.Refused:
		text += "Not supported: " + p.Reason + "."
	}
	return strings.TrimSpace(text)
}

// sentence begins with a capital, unless the first word is a name, and ends with a stop.
func sentence(text string) string {
	first, _, _ := strings.Cut(text, " ")
	if strings.Trim(first, "abcdefghijklmnopqrstuvwxyz") == "" {
		text = strings.ToUpper(text[:1]) + text[1:]
	}
	return text + ". "
}

func masterPage() manual.Page {
	return manual.Page{
		Name: "master.cf", Section: 5, Summary: "services of the mail transport",
		Synopsis: []string{"name  type  private  unprivileged  chroot  wakeup  maxproc  command + arguments"},
		Description: "master.cf is read by the rules of Postfix 3.7: a service a line, which goes on where the next line begins with a blank. - stands for a column's default. " +
			"-o name=value and -o { name = value with blanks } set parameters for that service alone; -v is taken and without effect.\n\n" +
			"Every smtpd service of type inet is served, at [host:]port or the addresses of inet_interfaces. maxproc bounds its sessions: ten for each process, and at least 1,000. " +
			"Of the other daemons, local, lmtp, error and discard are what transports in main.cf can name; those that belong to Postfix's division of work are parts of this program. " +
			"private, unprivileged, chroot and wakeup have no meaning, as there are no processes of their own. `postilion check` says of each entry whether it is served.",
		Entries: []manual.Entry{
			{Term: "smtpd", Text: "SMTP and submission; with smtpd_tls_wrappermode=yes TLS from the first octet"},
			{Term: "lmtp", Text: "delivery by LMTP; a nexthop that dovecot.conf serves is reached within the program"},
			{Term: "local", Text: "aliases, then mailbox_transport"},
			{Term: "error", Text: "refuses with the nexthop as its text"},
			{Term: "discard", Text: "throws mail away"},
		},
		Examples: []manual.Entry{
			{Term: "smtp inet n - n - - smtpd", Text: ""},
			{Term: "submission inet n - n - - smtpd -o smtpd_tls_security_level=encrypt -o smtpd_sasl_auth_enable=yes -o smtpd_relay_restrictions=permit_sasl_authenticated,reject", Text: ""},
		},
		Files:   []manual.Entry{{Term: "/etc/postfix/master.cf", Text: "where it is without -c"}},
		SeeAlso: []string{"main.cf(5)", "postconf(1)", "postfix(1)"},
	}
}

func dovecotPage() manual.Page {
	page := manual.Page{
		Name: "dovecot.conf", Section: 5, Summary: "settings of the mailboxes and of logins",
		Synopsis: []string{"name = value", "section [name] {", "  name = value", "}"},
		Description: "dovecot.conf is read by the rules of Dovecot 2.3.19, with the settings of 1.x that it still translates; a file that begins with dovecot_config_version = 2.4 is read in the grammar of 2.4. " +
			"!include FILE and !include_try FILE take in other files; <FILE as a value means the file's contents, <FILE for certificates is watched and taken up again when it changes; $name stands for what was set before; %-variables are filled in for each user.\n\n" +
			"protocol NAME { }, local NET { }, local_name NAME { } and remote NET { } hold for connections of that kind. Where nothing is said, imap, pop3 and lmtp are served.\n\n" +
			"mail_location = vault:DIR, which is this program's own and the default, keeps the mail of all users in one database; maildir:PATH keeps each user's in files as Dovecot does.\n\n" +
			"Settings below are in the order of their sections. One that has no effect is accepted, and named by `postilion check` when it is set.",
		Examples: []manual.Entry{
			{Term: "passdb { driver = passwd-file args = /etc/postilion/users }", Text: "each word on a line of its own"},
			{Term: "mail_location = maildir:/var/vmail/%d/%n", Text: ""},
		},
		Files:   []manual.Entry{{Term: defaultDovecotConf, Text: "where it is without -c"}},
		SeeAlso: []string{"doveconf(1)", "dovecot(1)", "passwd-file(5)", "postilion-check(8)"},
	}
	for _, s := range dovecot.Settings() {
		page.Entries = append(page.Entries, settingEntry(s))
	}
	return page
}

var dovecotTypes = map[dovecot.Type]string{
	dovecot.String: "text", dovecot.Bool: "yes or no", dovecot.Uint: "number", dovecot.Octal: "octal number", dovecot.Port: "port", dovecot.Size: "size",
	dovecot.Time: "time", dovecot.Msecs: "time",
}

func settingEntry(s dovecot.Setting) manual.Entry {
	term := s.Name
	if s.Section != "" {
		term = s.Section + " { " + s.Name + " }"
	}
	text := dovecotTypes[s.Type]
	if len(s.Values) > 0 {
		text = "one of " + strings.Join(s.Values, ", ")
	}
	if s.Default != "" {
		text += ", default: " + s.Default
	}
	text += ". "
	switch s.Treatment {
	case dovecot.Honoured:
		text += sentence(s.Meaning)
	case dovecot.NotYet:
		text += "No effect in this version."
		if s.Meaning != "" && s.Meaning != strings.ReplaceAll(s.Name, "_", " ") {
			text = strings.TrimSuffix(text, "No effect in this version.") + sentence(s.Meaning) + "No effect in this version."
		}
	case dovecot.NoMeaning:
		text += "No meaning here: " + s.Because + "."
	case dovecot.Refused:
		text += "Refused: " + s.Because + "."
	}
	return manual.Entry{Term: term, Text: strings.TrimSpace(text)}
}

func passwdFilePage() manual.Page {
	return manual.Page{
		Name: "passwd-file", Section: 5, Summary: "users and their passwords in a text file",
		Synopsis: []string{"user:{SCHEME}password:uid:gid:gecos:home:shell:extra fields"},
		Description: "A user a line, as Dovecot's passwd-file driver reads it in passdb and userdb; fields that are not needed may be empty or left out. Lines that begin with # are comments. " +
			"Extra fields are name=value with blanks between, such as userdb_mail=maildir:~/Maildir or userdb_quota_rule=*:storage=1G. A file that changed is read again.\n\n" +
			"A password without {SCHEME} is in the scheme that the driver's arguments name (scheme=), by default CRYPT. `postilion doveadm pw -s SCHEME` makes the second field.",
		Entries: []manual.Entry{
			{Term: "SCRAM-SHA-256", Text: "serves PLAIN, LOGIN and SCRAM-SHA-256, and does not give the password away; what init writes"},
			{Term: "ARGON2ID, BLF-CRYPT, SHA512-CRYPT", Text: "slow hashes, for PLAIN and LOGIN"},
			{Term: "PLAIN", Text: "in clear, for every mechanism"},
		},
		Examples: []manual.Entry{{Term: "alice@example.org:{SHA512-CRYPT}$6$...::::::userdb_quota_rule=*:storage=2G", Text: ""}},
		SeeAlso:  []string{"dovecot.conf(5)"},
	}
}

func aliasesPage() manual.Page {
	return manual.Page{
		Name: "aliases", Section: 5, Summary: "other names of local recipients",
		Synopsis: []string{"name: target, target ..."},
		Description: "The tables of alias_maps have this form. A name is a local part without domain, in any case; it stands in double quotes when it holds blanks or # or :. " +
			"A line that begins with a blank goes on with the line before, a line that begins with # is a comment. Targets are followed until nothing changes; \\name stops that.\n\n" +
			"The text file is read itself when postalias(1) has made no index of it.",
		Entries: []manual.Entry{
			{Term: "address", Text: "another recipient, here or elsewhere"},
			{Term: "|command, /file, :include:/file", Text: "known, and not delivered to in this version: such mail is refused with 451"},
		},
		Examples: []manual.Entry{{Term: "postmaster: root", Text: ""}, {Term: "root: alice, bob@example.org", Text: ""}},
		Files:    []manual.Entry{{Term: "/etc/aliases", Text: "the usual file"}},
		SeeAlso:  []string{"postalias(1)", "tables(5)", "main.cf(5)"},
	}
}

func accessPage() manual.Page {
	return manual.Page{
		Name: "access", Section: 5, Summary: "tables that permit and refuse",
		Synopsis: []string{"pattern  action"},
		Description: "What check_client_access, check_helo_access, check_sender_access, check_recipient_access and their like look up, by the rules of Postfix 3.7. " +
			"An address is looked for whole, then its domain, the domains above it, and user@; with recipient_delimiter also without its extension. " +
			"A client is looked for by its name, the domains above it, its address and the networks above that. Tables of patterns (regexp:, pcre:, cidr:) are asked for the whole only.\n\n" +
			"`postmap -q KEY TABLE` asks for one key, `postilion explain rcpt` shows which entry decided.",
		Entries: []manual.Entry{
			{Term: "OK, or digits alone", Text: "permit"},
			{Term: "DUNNO", Text: "no opinion: go on"},
			{Term: "REJECT text, 4NN text, 5NN text", Text: "refuse"},
			{Term: "DEFER text", Text: "refuse for now"},
			{Term: "DEFER_IF_REJECT text", Text: "refuse for now what would be refused later in the list"},
			{Term: "DEFER_IF_PERMIT text", Text: "refuse for now what would be permitted"},
			{Term: "DISCARD text", Text: "take the mail and throw it away"},
			{Term: "PREPEND header: text", Text: "add a header"},
			{Term: "WARN text, INFO text", Text: "a log line"},
			{Term: "HOLD, FILTER, REDIRECT, BCC", Text: "need a queue: the message is refused with 451 in this version"},
			{Term: "restriction, restriction ...", Text: "go on with these"},
		},
		Examples: []manual.Entry{{Term: "example.com  REJECT no mail from there", Text: ""}, {Term: "198.51.100  OK", Text: ""}},
		SeeAlso:  []string{"main.cf(5)", "tables(5)", "postmap(1)", "postilion-explain(8)"},
	}
}

func tablesPage() manual.Page {
	return manual.Page{
		Name: "tables", Section: 5, Summary: "types of lookup tables",
		Synopsis: []string{"type:name"},
		Description: "Wherever main.cf takes a table it takes any of these types, by the rules of Postfix 3.7. A table that cannot be opened does not keep a server from starting: what needs it is answered with 451. " +
			"Files are read again at reload.\n\n" +
			"A text source has a key and a value a line, with blanks between; lines that begin with a blank go on, lines that begin with # are comments. Keys are compared without regard to case.",
		Entries: []manual.Entry{
			{Term: "hash, btree, lmdb, cdb, dbm, sdbm", Text: "the index that postmap(1) made beside the text source; without one the text source itself"},
			{Term: "texthash", Text: "the text source"},
			{Term: "regexp, pcre", Text: "/pattern/flags value: POSIX or Perl expressions in order; if, endif and ! as in Postfix; $1 in the value"},
			{Term: "cidr", Text: "network value, in order"},
			{Term: "inline", Text: "inline:{ key = value, { key = value with blanks } }"},
			{Term: "static", Text: "static:value answers every key with it"},
			{Term: "fail", Text: "every look-up fails for now"},
			{Term: "pipemap", Text: "pipemap:{type:name, type:name}: the value of one is the key of the next"},
			{Term: "unionmap", Text: "unionmap:{type:name, type:name}: the values of all, with commas between"},
			{Term: "randmap", Text: "randmap:{value, value}: one of them"},
			{Term: "unix", Text: "unix:passwd.byname and unix:group.byname: system users and groups"},
			{Term: "tcp, socketmap", Text: "a server that answers look-ups"},
			{Term: "proxy", Text: "proxy:type:name is type:name"},
		},
		Examples: []manual.Entry{
			{Term: "virtual_alias_maps = hash:/etc/postfix/virtual", Text: ""},
			{Term: fmt.Sprintf("postmap -q alice@example.org hash:%s/virtual", defaultPostfixDir), Text: ""},
		},
		SeeAlso: []string{"main.cf(5)", "postmap(1)", "access(5)", "aliases(5)"},
	}
}
