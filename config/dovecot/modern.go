package dovecot

import (
	"fmt"
	"strings"
)

// modernGrammar translates a file in the grammar of 2.4, which says so in its first setting, into that of 2.3.
type modernGrammar struct {
	on    bool
	begun bool // a setting was read
	mail  map[*node]*mailStorage
	skip  int // depth inside of a section that has no equivalent
	list  *modernList
}

// modernList is a setting written as a section: protocols { imap = yes }, userdb_fields { uid = vmail }.
type modernList struct {
	key    string
	fields bool // the words are name=value
	words  []string
}

// mailStorage gathers what 2.3 writes as one mail_location.
type mailStorage struct{ driver, path, inbox, index, control string }

func (m mailStorage) location() string {
	text := m.driver
	if m.path != "" {
		text += ":" + m.path
	}
	for _, part := range []struct{ name, value string }{{"INBOX", m.inbox}, {"INDEX", m.index}, {"CONTROL", m.control}} {
		if part.value != "" {
			text += ":" + part.name + "=" + part.value
		}
	}
	return text
}

// modernNames are settings of 2.4 that only changed their names.
var modernNames = map[string]string{
	"ssl_server_prefer_ciphers":      "ssl_prefer_server_ciphers",
	"ssl_server_cert_username_field": "ssl_cert_username_field",
	"auth_internal_failure_delay":    "auth_failure_delay",
}

// modernFiles are settings of 2.4 that name a file where 2.3 takes its contents.
var modernFiles = map[string]string{
	"ssl_server_cert_file":     "ssl_cert",
	"ssl_server_key_file":      "ssl_key",
	"ssl_server_ca_file":       "ssl_ca",
	"ssl_server_dh_file":       "ssl_dh",
	"ssl_server_alt_cert_file": "ssl_alt_cert",
	"ssl_server_alt_key_file":  "ssl_alt_key",
	"ssl_client_cert_file":     "ssl_client_cert",
	"ssl_client_key_file":      "ssl_client_key",
}

// modernOnly are further settings of 2.4, named so that the message about an unknown setting can say what is wrong.
var modernOnly = []string{
	"dovecot_config_version", "dovecot_storage_version", "auth_allow_cleartext", "mail_driver", "mail_path", "mail_inbox_path", "mail_index_path",
	"mail_control_path", "passdb_static_password", "passwd_file_path", "passdb_default_password_scheme", "sql_driver",
}

// hint says why a setting that 2.3 does not know stands there.
func (m *modernGrammar) hint(key string) string {
	known := modernNames[key] != "" || modernFiles[key] != ""
	for _, k := range modernOnly {
		known = known || k == key
	}
	if known && !m.on {
		return "a setting of Dovecot 2.4; a file in that grammar begins with dovecot_config_version = 2.4.0"
	}
	return ""
}

// handle rewrites a line of 2.4, or takes it whole and says so with true.
func (m *modernGrammar) handle(r *reader, l *line) bool {
	first := !m.begun
	m.begun = m.begun || l.kind != lineInclude && l.kind != lineIncludeTry
	if l.kind == lineValue && l.key == "dovecot_config_version" && (m.on || first) && strings.HasPrefix(l.value, "2.4") {
		m.on = true
		m.mail = map[*node]*mailStorage{}
		r.warn(l.key, "the file is in the grammar of Dovecot 2.4 and is translated; settings without an equivalent are named and have no effect")
		return true
	}
	if !m.on {
		return false
	}
	switch l.kind {
	case lineSectionBegin:
		return m.begin(r, l)
	case lineSectionEnd:
		return m.end(r)
	case lineValue, lineFile, lineVariable:
		return m.skip > 0 || m.inList(l) || m.setting(r, l)
	}
	return false
}

func (m *modernGrammar) begin(r *reader, l *line) bool {
	if m.skip > 0 || m.list != nil {
		m.skip++
		return true
	}
	kind := r.sectionKind()
	switch {
	case kind == "" && r.registry.lookup("", l.key) != nil:
		m.list = &modernList{key: l.key}
		return true
	case (kind == "passdb" || kind == "userdb") && (l.key == "fields" || l.key == kind+"_fields"):
		m.list = &modernList{key: "default_fields", fields: true}
		return true
	case kind == "" && (l.key == "passdb" || l.key == "userdb"):
		r.begin(l.key, "")
		if l.value != "" {
			r.set(line{kind: lineValue, key: "driver", value: modernDriver(l.value)})
		}
		return true
	case isFilter(l.key), kind == "" && contains(sectionKinds[""], l.key), contains(sectionKinds[kind], l.key):
		return false
	}
	m.unknown(r, l.key+" { }")
	m.skip = 1
	return true
}

func (m *modernGrammar) end(r *reader) bool {
	switch {
	case m.skip > 0:
		m.skip--
		return true
	case m.list != nil:
		l := line{kind: lineValue, key: m.list.key, value: strings.Join(m.list.words, " ")}
		m.list = nil
		r.set(l)
		return true
	}
	return false
}

func (m *modernGrammar) inList(l *line) bool {
	if m.list == nil {
		return false
	}
	switch on, err := parseBool(l.value); {
	case m.list.fields:
		m.list.words = append(m.list.words, l.key+"="+modernVariables(l.value))
	case err == nil && on:
		m.list.words = append(m.list.words, l.key)
	}
	return true
}

// sectionKind is the kind of the innermost section that is no filter.
func (r *reader) sectionKind() string {
	if n := r.top().node; n != nil {
		return n.kind
	}
	return ""
}

func contains(words []string, word string) bool {
	for _, w := range words {
		if w == word {
			return true
		}
	}
	return false
}

func modernDriver(name string) string {
	known := []string{"static", "passwd", "passwd-file", "pam", "sql", "ldap", "oauth2", "lua", "imap", "bsdauth"}
	if contains(known, name) {
		return name
	}
	return "passwd-file"
}

func (m *modernGrammar) unknown(r *reader, what string) {
	r.warn(what, what+" of Dovecot 2.4 has no equivalent here and no effect")
}

func (m *modernGrammar) setting(r *reader, l *line) bool {
	kind := r.sectionKind()
	if l.kind == lineValue {
		l.value = modernVariables(l.value)
	}
	switch {
	case kind == "passdb" || kind == "userdb":
		return m.database(r, l, kind)
	case isList(kind):
		return false
	case m.storage(r, l, kind):
		return true
	}
	if name, ok := modernFiles[l.key]; ok && l.kind == lineValue {
		l.key, l.kind = name, lineFile
		return false
	}
	switch l.key {
	case "dovecot_storage_version":
		return true
	case "auth_allow_cleartext":
		if allowed, err := parseBool(l.value); err == nil {
			r.set(line{kind: lineValue, key: "disable_plaintext_auth", value: formatBool(!allowed)})
			return true
		}
	}
	if name, ok := modernNames[l.key]; ok {
		l.key = name
	}
	if r.registry.lookup(kind, l.key) == nil {
		m.unknown(r, l.key)
		return true
	}
	if list, ok := strings.CutPrefix(l.value, "{"); ok && l.kind == lineValue {
		l.value = strings.TrimSpace(strings.TrimSuffix(list, "}"))
	}
	return false
}

// storage gathers mail_driver, mail_path and so on into mail_location, or location in a namespace.
func (m *modernGrammar) storage(r *reader, l *line, kind string) bool {
	n := r.top().node
	if n == nil || kind != "" && kind != "namespace" {
		return false
	}
	s := m.mail[n]
	if s == nil {
		s = &mailStorage{}
	}
	switch l.key {
	case "mail_driver":
		s.driver = l.value
	case "mail_path":
		s.path = l.value
	case "mail_inbox_path":
		s.inbox = l.value
	case "mail_index_path":
		s.index = l.value
	case "mail_control_path":
		s.control = l.value
	default:
		return false
	}
	m.mail[n] = s
	key := "mail_location"
	if kind == "namespace" {
		key = "location"
	}
	if s.driver != "" {
		r.set(line{kind: lineValue, key: key, value: s.location()})
	}
	return true
}

// database translates the settings of passdb and userdb, which became words of args.
func (m *modernGrammar) database(r *reader, l *line, kind string) bool {
	name := strings.TrimPrefix(l.key, kind+"_")
	word := ""
	switch name {
	case "driver":
		l.key, l.value = "driver", modernDriver(l.value)
		return false
	case "static_password", "password":
		word = "password=" + l.value
	case "passwd_file_path":
		word = l.value
	case "default_password_scheme":
		word = "scheme=" + l.value
	case "static_user":
		word = "user=" + l.value
	case "fields", "static_fields":
		return true
	}
	if r.registry.lookup(kind, name) != nil {
		l.key = name
		return false
	}
	if word == "" {
		m.unknown(r, l.key)
		return true
	}
	n := r.top().node
	if n == nil {
		return true
	}
	old := n.values["args"].text
	if name == "passwd_file_path" || old == "" {
		old = strings.TrimSpace(old + " " + word)
	} else {
		old = fmt.Sprintf("%s %s", word, old)
	}
	r.set(line{kind: lineValue, key: "args", value: old})
	return true
}

// modernVariables writes %{user | username} as %{user|username}; Expand does both.
func modernVariables(text string) string {
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(text, "%{")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		name, after, closed := strings.Cut(rest, "}")
		if !closed {
			b.WriteString("%{" + rest)
			return b.String()
		}
		parts := strings.Split(name, "|")
		for i := range parts {
			parts[i] = strings.TrimSpace(parts[i])
		}
		b.WriteString("%{" + strings.Join(parts, "|") + "}")
		text = after
	}
}
