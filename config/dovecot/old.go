package dovecot

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// oldGrammar translates what Dovecot 2.3 still understands of 1.x and of its own early releases, with a warning each. Values read
// from files are not translated, as there.
type oldGrammar struct {
	baseDir string
	warned  bool
	auth    int // depth inside of "auth NAME { }": 1 in it, 2 in a section of it
	listen  int // depth inside of "socket listen { }"
	socket  oldSocket
}

// oldSocket is "socket listen { client { path mode user group } }".
type oldSocket struct {
	master bool
	values map[string]string
}

func (o *oldGrammar) obsolete(r *reader, format string, args ...any) {
	if !o.warned {
		o.warned = true
		r.warn("", "NOTE: You can get a new clean config file with: doveconf -Pn > dovecot-new.conf")
	}
	r.warn("", fmt.Sprintf("Obsolete setting in %s: %s", r.pos(), fmt.Sprintf(format, args...)))
}

// handle takes a line of the old grammar; false leaves it to be applied as it stands.
func (o *oldGrammar) handle(r *reader, l line) bool {
	switch l.kind {
	case lineValue:
		if !r.inFiltersOnly() && o.auth == 0 {
			return false
		}
		return o.server(r, l.key, l.value) || o.setting(r, l.key, l.value)
	case lineSectionBegin:
		return o.begin(r, l.key, l.value)
	case lineSectionEnd:
		return o.end(r)
	}
	return false
}

// inFiltersOnly tells whether no section but filters is open.
func (r *reader) inFiltersOnly() bool {
	f := r.top()
	return f.node != nil && f.node.kind == ""
}

func (o *oldGrammar) begin(r *reader, key, name string) bool {
	switch {
	case o.auth > 0:
		return o.beginInAuth(r, key, name)
	case !r.inFiltersOnly():
		return false
	case key == "auth":
		o.obsolete(r, "add auth_ prefix to all settings inside auth {} and remove the auth {} section completely")
		o.auth = 1
		return true
	case key == "protocol" && name == "managesieve":
		o.obsolete(r, "protocol managesieve {} has been replaced by protocol sieve { }")
		r.begin("protocol", "sieve")
		return true
	}
	return false
}

func (o *oldGrammar) beginInAuth(r *reader, key, name string) bool {
	o.auth++
	switch {
	case o.auth == 2 && (key == "passdb" || key == "userdb"):
		o.obsolete(r, "%s %s {} has been replaced by %s { driver=%s }", key, name, key, name)
		r.begin(key, "")
		r.set(line{kind: lineValue, key: "driver", value: name})
		return true
	case o.auth == 2 && key == "socket" && name == "listen":
		o.listen = 1
		return true
	case o.auth == 2 && key == "socket" && name == "connect":
		o.obsolete(r, "socket connect {} is no longer supported, configure external auth server separately")
	case o.auth == 3 && o.listen == 1 && (key == "master" || key == "client"):
		o.listen = 2
		o.socket = oldSocket{master: key == "master", values: map[string]string{}}
		return true
	}
	return false
}

func (o *oldGrammar) end(r *reader) bool {
	if o.auth == 0 {
		return false
	}
	o.auth--
	switch {
	case o.auth == 0:
		return true
	case o.listen == 2:
		o.listen = 1
		o.makeSocket(r)
		return true
	case o.listen == 1:
		o.listen = 0
		return true
	}
	return false
}

func (o *oldGrammar) makeSocket(r *reader) {
	path := o.socket.values["path"]
	if path == "" {
		r.fail("", "socket listen {} is missing path")
		return
	}
	for _, dir := range []string{o.baseDir, "/var" + o.baseDir} {
		if inner, ok := strings.CutPrefix(path, dir+"/"); ok {
			path = inner
			break
		}
	}
	forMaster := strings.HasSuffix(path, "-master") || strings.HasSuffix(path, "-userdb")
	switch {
	case o.socket.master && !forMaster:
		r.fail("", "socket listen { master { path=.. } } must end with -master (or -userdb) suffix")
		return
	case !o.socket.master && forMaster:
		r.fail("", "socket listen { client { path=.. } } must end not with -master or -userdb suffix")
		return
	}
	r.inRoot(func() {
		r.begin("service", "auth")
		r.begin("unix_listener", path)
		for _, key := range []string{"mode", "user", "group"} {
			if text, ok := o.socket.values[key]; ok {
				r.set(line{kind: lineValue, key: key, value: text})
			}
		}
	})
}

// inRoot does something as if no section were open.
func (r *reader) inRoot(do func()) {
	saved := r.stack
	r.stack = saved[:1:1]
	do()
	r.stack = saved
}

// setHere is setIn within the filters that are open.
func (r *reader) setHere(service, listener, key, text string) {
	depth := len(r.stack)
	r.begin("service", service)
	r.begin("inet_listener", listener)
	r.set(line{kind: lineValue, key: key, value: text})
	r.stack = r.stack[:depth]
}

// setIn sets a value in a service or a listener of it, outside of all filters.
func (r *reader) setIn(service, listener, key, text string) {
	r.inRoot(func() {
		r.begin("service", service)
		if listener != "" {
			r.begin("inet_listener", listener)
		}
		r.set(line{kind: lineValue, key: key, value: text})
	})
}

// removedSettings are passed over.
var removedSettings = map[string]string{
	"login_dir": "has been removed", "dbox_rotate_min_size": "has been removed", "dbox_rotate_days": "has been removed",
	"mail_log_max_lines_per_sec": "has been removed", "maildir_copy_preserve_filename": "has been removed",
	"director_consistent_hashing": "has been removed", "ssl_dh_parameters_length": "is no longer needed",
	"ssl_parameters_regenerate": "is no longer needed",
}

// setting translates what is independent of the protocol.
func (o *oldGrammar) setting(r *reader, key, text string) bool {
	if o.listen == 2 {
		switch key {
		case "path", "mode", "user", "group":
			o.socket.values[key] = text
			return true
		}
	}
	if how, ok := removedSettings[key]; ok {
		o.obsolete(r, "%s %s", key, how)
		return true
	}
	set := func(key, text string) bool {
		r.set(line{kind: lineValue, key: key, value: text})
		return true
	}
	switch key {
	case "base_dir":
		o.baseDir = strings.TrimSuffix(text, "/")
	case "protocols":
		return set(key, o.protocols(r, text))
	case "ssl_cert_file", "ssl_key_file", "ssl_ca_file":
		if text != "" {
			name := strings.TrimSuffix(key, "_file")
			o.obsolete(r, "%s has been replaced by %s = <file", key, name)
			r.set(line{kind: lineFile, key: name, value: text})
		}
		return true
	case "ssl_protocols":
		o.sslProtocols(r, text)
		return true
	case "ssl_disable", "fsync_disable":
		name, yes, no := "ssl", "no", "yes"
		if key == "fsync_disable" {
			name, yes, no = "mail_fsync", "never", "optimized"
		}
		o.obsolete(r, "%s has been renamed to %s", key, name)
		switch {
		case strings.EqualFold(text, "yes"):
			text = yes
		case strings.EqualFold(text, "no"):
			text = no
		}
		return set(name, text)
	case "dbox_rotate_size":
		o.obsolete(r, "%s has been renamed to mdbox_rotate_size", key)
		return set("mdbox_rotate_size", text)
	case "sieve", "sieve_storage":
		o.intoPlugin(r, key, text)
		return true
	case "imap_client_workarounds":
		return set(key, o.workarounds(r, text))
	}
	if o.auth == 1 {
		if !strings.HasPrefix(key, "auth_") {
			key = "auth_" + key
		}
		return set(key, text)
	}
	return false
}

func (o *oldGrammar) intoPlugin(r *reader, key, text string) {
	if key == "sieve_storage" {
		o.obsolete(r, "sieve_storage has been moved into plugin { sieve_dir }")
		key = "sieve_dir"
	} else {
		o.obsolete(r, "%s has been moved into plugin {} section", key)
	}
	depth := len(r.stack)
	r.begin("plugin", "")
	r.set(line{kind: lineValue, key: key, value: text})
	r.stack = r.stack[:depth]
}

func (o *oldGrammar) workarounds(r *reader, text string) string {
	var kept []string
	for _, w := range strings.FieldsFunc(text, func(c rune) bool { return c == ' ' || c == ',' }) {
		switch w {
		case "outlook-idle":
			o.obsolete(r, "imap_client_workarounds=outlook-idle is no longer necessary")
		case "netscape-eoh":
			o.obsolete(r, "imap_client_workarounds=netscape-eoh is no longer supported")
		default:
			kept = append(kept, w)
		}
	}
	return strings.Join(kept, " ")
}

// protocols drops imaps and pop3s, which are listeners since 2.0.
func (o *oldGrammar) protocols(r *reader, text string) string {
	names := strings.Fields(text)
	have := map[string]bool{}
	var kept []string
	for _, p := range names {
		have[p] = true
		switch p {
		case "imaps", "pop3s":
		case "managesieve":
			o.obsolete(r, "protocols=managesieve has been renamed to protocols=sieve")
			kept = append(kept, "sieve")
		default:
			kept = append(kept, p)
		}
	}
	for _, p := range []string{"imap", "pop3"} {
		switch {
		case have[p+"s"] && have[p]:
			o.obsolete(r, "'%ss' protocol is no longer necessary, remove it", p)
		case have[p+"s"]:
			o.obsolete(r, "'%ss' protocol can no longer be specified (use protocols=%s). to disable non-ssl %s, use service %s-login { inet_listener %s { port=0 } }", p, p, p, p, p)
			kept = append(kept, p)
			r.setHere(p+"-login", p, "port", "0")
		}
	}
	return strings.Join(kept, " ")
}

var sslVersions = []string{"SSLv3", "TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"}

// sslProtocols finds the oldest version that a list of ssl_protocols leaves. SSLv2 cannot occur, so excluding it says nothing.
func (o *oldGrammar) sslProtocols(r *reader, text string) {
	o.obsolete(r, "ssl_protocols has been replaced by ssl_min_protocol")
	named, excluded := map[string]bool{}, map[string]bool{}
	for _, word := range strings.FieldsFunc(text, func(c rune) bool { return c == ' ' || c == ',' || c == ':' }) {
		version, not := strings.CutPrefix(word, "!")
		known := version == "SSLv2"
		for _, v := range sslVersions {
			known = known || v == version
		}
		switch {
		case !known:
			r.warn("ssl_protocols", fmt.Sprintf("Could not find a minimum ssl_min_protocol setting from ssl_protocols = %s: Unrecognized protocol '%s'", text, version))
			return
		case not:
			excluded[version] = true
		default:
			named[version] = true
		}
	}
	for _, v := range sslVersions {
		if !excluded[v] && (len(named) == 0 || named[v]) {
			if len(named)+len(excluded) > 0 && v != "SSLv3" {
				r.set(line{kind: lineValue, key: "ssl_min_protocol", value: v})
			}
			return
		}
	}
}

// serviceSetting says which setting of a service an old one became.
type serviceSetting struct {
	suffix string // of the service: "-login" or "" for PROTOCOL-login and PROTOCOL; "auth" for that service
	name   string
	value  func(string) string
}

func megabytes(text string) string { return text + " M" }

var serviceSettings = map[string]serviceSetting{
	"login_chroot": {"-login", "chroot", func(s string) string {
		if s == "no" {
			return ""
		}
		return "login"
	}},
	"login_user":         {"-login", "user", nil},
	"login_executable":   {"-login", "executable", nil},
	"login_process_size": {"-login", "vsz_limit", megabytes},
	"login_process_per_connection": {"-login", "service_count", func(s string) string {
		if s == "no" {
			return "0"
		}
		return "1"
	}},
	"login_processes_count":     {"-login", "process_min_avail", nil},
	"login_max_processes_count": {"-login", "process_limit", nil},
	"login_max_connections":     {"-login", "client_limit", nil},
	"max_mail_processes":        {"", "process_limit", nil},
	"mail_executable":           {"", "executable", nil},
	"mail_process_size":         {"", "vsz_limit", megabytes},
	"mail_drop_priv_before_exec": {
		"", "drop_priv_before_exec", nil,
	},
	"auth_executable":   {"auth", "executable", nil},
	"auth_process_size": {"auth", "vsz_limit", megabytes},
	"auth_user":         {"auth", "user", nil},
	"auth_chroot":       {"auth", "chroot", nil},
}

// server translates what belongs to services now; the protocol sections around it say to which.
func (o *oldGrammar) server(r *reader, key, text string) bool {
	filter := r.top().layer.filter
	if key == "ssl_listen" || key == "listen" && (hasPort(text) || !filter.isZero()) {
		o.listeners(r, filter, key, text)
		return true
	}
	if o.auth == 1 && !strings.HasPrefix(key, "auth_") {
		key = "auth_" + key
	}
	switch key {
	case "auth_cache_size":
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil || n == 0 || n >= 1024 {
			return false
		}
		o.obsolete(r, "auth_cache_size value no longer defaults to megabytes. Use %sM", text)
		r.inRoot(func() { r.set(line{kind: lineValue, key: key, value: text + "M"}) })
		return true
	case "auth_count":
		o.obsolete(r, "auth_count has been removed, and its value must be 1")
		return true
	}
	s, ok := serviceSettings[key]
	if !ok {
		return false
	}
	if s.value != nil {
		text = s.value(text)
	}
	if s.suffix == "auth" {
		o.obsolete(r, "%s has been replaced by service auth { %s }", key, s.name)
		r.setIn("auth", "", s.name, text)
		return true
	}
	o.obsolete(r, "%s has been replaced by service { %s }", key, s.name)
	for _, p := range oldProtocols {
		if filter.matchesProtocol(Filter{Protocol: p.name}) && !filter.hasNetwork() {
			r.setIn(p.service+s.suffix, "", s.name, text)
		}
	}
	return true
}

var oldProtocols = []struct{ name, service, listener, tls string }{
	{"imap", "imap", "imap", "imaps"},
	{"pop3", "pop3", "pop3", "pop3s"},
	{"sieve", "managesieve", "sieve", ""},
}

// hasPort tells whether a listen value holds addresses with ports.
func hasPort(text string) bool {
	for _, a := range strings.FieldsFunc(text, func(c rune) bool { return c == ' ' || c == ',' }) {
		if _, err := netip.ParseAddr(strings.Trim(a, "[]")); err != nil && strings.Contains(a, ":") {
			return true
		}
	}
	return false
}

func (o *oldGrammar) listeners(r *reader, filter Filter, key, text string) {
	if text == "" {
		return
	}
	each := func(name, text string) {
		for _, p := range oldProtocols {
			listener := p.listener
			if key == "ssl_listen" {
				listener = p.tls
			}
			if p.name == "sieve" && filter.isZero() || listener == "" {
				continue
			}
			if filter.matchesProtocol(Filter{Protocol: p.name}) && !filter.hasNetwork() {
				r.setIn(p.service+"-login", listener, name, text)
			}
		}
	}
	if i := strings.LastIndexByte(text, ':'); i >= 0 && hasPort(text) {
		o.obsolete(r, "%s=..:port has been replaced by service { inet_listener { port } }", key)
		each("port", text[i+1:])
		text = text[:i]
	}
	if filter.isZero() && key == "listen" {
		r.set(line{kind: lineValue, key: key, value: text})
		return
	}
	o.obsolete(r, "protocol { %s } has been replaced by service { inet_listener { address } }", key)
	each("address", text)
}
