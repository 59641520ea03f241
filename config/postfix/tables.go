package postfix

import (
	"fmt"
	"os"
	"strings"
)

// tableSettings are the settings of table types whose reference may be a prefix of main.cf parameters ("ldap:accounts" is set up
// by accounts_server_host and so on) or a file of name = value lines.
var tableSettings = map[string]string{
	"ldap": "bind bind_dn bind_pw cache cache_expiry cache_size chase_referrals debuglevel dereference domain expansion_limit " +
		"leaf_result_attribute query_filter recursion_limit result_attribute result_filter result_format scope search_base server_host " +
		"server_port size_limit special_result_attribute terminal_result_attribute timeout version sasl_mechs sasl_realm sasl_authz_id " +
		"sasl_minssf start_tls tls_ca_cert_dir tls_ca_cert_file tls_cert tls_cipher_suite tls_key tls_random_file tls_require_cert",
	"mysql": "additional_conditions dbname domain expansion_limit hosts option_file option_group password query require_result_set " +
		"result_format select_field table tls_CAfile tls_CApath tls_cert_file tls_ciphers tls_key_file tls_verify_cert user where_field",
	"pgsql": "additional_conditions dbname domain expansion_limit hosts password query result_format select_field select_function " +
		"table user where_field",
	"sqlite":   "additional_conditions dbpath domain expansion_limit query result_format select_field table where_field",
	"memcache": "backup data_size_limit domain key_format line_size_limit max_try memcache retry_pause timeout ttl",
}

// tables finds the tables that a value names, and makes their settings valid.
func (u *usageScan) tables(s *Service, value string) {
	words, closed := SplitQuoted(value, ListSeparators)
	for i, word := range words {
		if strings.HasPrefix(word, "{") || (!closed && i == len(words)-1) {
			inner, problem := Unbrace(word)
			if problem != "" {
				u.note(s, problem)
			}
			if strings.HasPrefix(word, "{") {
				u.tables(s, inner)
				continue
			}
		}
		kind, name, found := strings.Cut(word, ":")
		for found && kind == "proxy" {
			kind, name, found = strings.Cut(name, ":")
		}
		if !found || name == "" {
			continue
		}
		if name[0] == '{' {
			inner, problem := Unbrace(name)
			if problem != "" {
				u.note(s, problem)
			}
			u.tables(s, inner)
			continue
		}
		settings, known := tableSettings[kind]
		switch {
		case !known:
		case name[0] == '/' || name[0] == '.':
			u.tableFile(kind, name, settings)
		default:
			for _, setting := range strings.Fields(settings) {
				u.flag(s, name+"_"+setting)
			}
		}
	}
}

func (u *usageScan) note(s *Service, problem string) {
	file := "main.cf"
	if s != nil {
		file = "master.cf"
	}
	u.usage.Notes = append(u.usage.Notes, file+": "+problem)
}

// tableFile looks for settings that the table type does not know.
func (u *usageScan) tableFile(kind, path, settings string) {
	file, err := os.ReadFile(path)
	if err != nil {
		u.usage.Notes = append(u.usage.Notes, fmt.Sprintf("open %s configuration %s: %v", quote(kind), quote(path), underlying(err)))
		return
	}
	parsed, err := parseMain(path, file)
	if err != nil {
		u.usage.Notes = append(u.usage.Notes, err.Error())
		return
	}
	known := " " + settings + " "
	for i, e := range parsed.entries {
		if parsed.last[e.name] == i && !strings.Contains(known, " "+e.name+" ") {
			u.usage.Notes = append(u.usage.Notes, fmt.Sprintf("%s: unused parameter: %s=%s", path, e.name, e.value))
		}
	}
}
