package dovecot

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// checker looks for what Dovecot refuses or warns of once all is read. Its messages are Dovecot's.
type checker struct {
	config *Config
	view   *View
	mail   bool // what is checked belongs to the settings of mail users, which every mail process checks for itself
}

// checkValues checks what holds everywhere and under each filter, and stops at the first layer that is wrong, as Dovecot does.
func (c *Config) checkValues() {
	before := len(c.errors)
	defer func() { c.warnings = uniqueTexts(c.warnings) }()
	for _, l := range c.layers {
		k := checker{config: c, view: c.For(l.filter)}
		if k.all(l); len(c.errors) > before {
			return
		}
	}
}

// uniqueTexts drops what was said before.
func uniqueTexts(all []Diagnostic) []Diagnostic {
	seen := map[Diagnostic]bool{}
	return slices.DeleteFunc(all, func(d Diagnostic) bool {
		if seen[d] {
			return true
		}
		seen[d] = true
		return false
	})
}

func (k *checker) fail(text string) {
	k.config.errors = append(k.config.errors, Diagnostic{
		Severity: Error, Position: Position{File: k.config.file}, Text: text, mail: k.mail,
	})
}

func (k *checker) warn(text string) {
	k.config.warnings = append(k.config.warnings, Diagnostic{Severity: Warning, Position: Position{File: k.config.file}, Text: text})
}

func (k *checker) all(l *layer) {
	k.tls(l)
	k.mail = true
	k.words()
	k.storage()
	k.uidlFormat()
	k.namespaces()
	k.mail = false
	k.databases()
	k.authentication()
	k.others()
	k.events()
	k.services()
	k.accounts()
}

func (k *checker) tls(l *layer) {
	v := k.view
	global, here := "", ""
	if set, ok := k.config.layers[0].root.values["ssl"]; ok {
		global = set.text
	}
	if set, ok := l.root.values["ssl"]; ok {
		here = set.text
	}
	if global == "no" && here != "" && here != "no" {
		k.warn(fmt.Sprintf("SSL is disabled because global ssl=no, ignoring ssl=%s for subsection", here))
	}
	if v.Bool("ssl_verify_client_cert") && v.String("ssl") != "no" && v.String("ssl_ca") == "" {
		k.fail("ssl_verify_client_cert set, but ssl_ca not")
	}
	for _, o := range v.List("ssl_options") {
		if !slices.Contains([]string{"compression", "no_compression", "no_ticket"}, o) {
			k.fail(fmt.Sprintf("ssl_options: unknown flag: '%s'", o))
		}
	}
}

// wordLists are settings made of words of a fixed list.
var wordLists = []struct {
	name, what string
	words      []string
	mail       bool
}{
	{"managesieve_client_workarounds", "workaround", nil, true},
	{"imapc_features", "feature", []string{
		"rfc822.size", "guid-forced", "fetch-headers", "gmail-migration", "search", "zimbra-workarounds", "no-examine", "proxyauth",
		"fetch-msn-workarounds", "fetch-fix-broken-mails", "modseq", "delay-login", "fetch-bodystructure", "send-id", "fetch-empty-is-expunged",
		"no-msn-updates", "acl", "no-metadata", "no-qresync", "no-imap4rev2", "no-search", "no-fetch-size", "no-fetch-headers",
		"no-fetch-bodystructure", "no-acl", "no-modseq", "throttle",
	}, true},
	{"imap_client_workarounds", "workaround", []string{"delay-newmail", "tb-extra-mailbox-sep", "tb-lsub-flags"}, false},
	{"pop3_client_workarounds", "workaround", []string{"outlook-no-nuls", "oe-ns-eoh"}, false},
	{"lmtp_client_workarounds", "workaround", []string{"whitespace-before-path", "mailbox-for-path"}, false},
	{"submission_client_workarounds", "workaround", []string{"whitespace-before-path", "mailbox-for-path", "implicit-auth-external", "exotic-backend"}, false},
	{"pop3c_features", "feature", []string{"no-pipelining"}, false},
	{"dsync_features", "feature", []string{"empty-header-workaround"}, false},
	{"mail_attachment_detection_options", "option", []string{"add-flags", "add-flags-on-save", "add-flags-no-fetch", "exclude-inlined"}, true},
}

func (k *checker) words() {
	for _, mail := range []bool{true, false} {
		k.mail = mail
		for _, l := range wordLists {
			if l.mail != mail {
				continue
			}
			for _, w := range k.view.List(l.name) {
				name, _, hasValue := strings.Cut(w, ":")
				if l.name == "mail_attachment_detection_options" && strings.HasPrefix(w, "content-type=") {
					continue
				}
				if !slices.Contains(l.words, w) && !(hasValue && name == "throttle") {
					k.fail(fmt.Sprintf("%s: Unknown %s: %s", l.name, l.what, w))
					break
				}
			}
		}
	}
	k.mail = true
}

var syslogFacilities = strings.Fields("auth authpriv cron daemon kern local0 local1 local2 local3 local4 local5 local6 local7 lpr mail news syslog user uucp ftp")

func (k *checker) storage() {
	v := k.view
	if v.Bool("mail_nfs_index") {
		switch {
		case !v.Bool("mmap_disable"):
			k.fail("mail_nfs_index=yes requires mmap_disable=yes")
		case v.String("mail_fsync") != "always":
			k.fail("mail_nfs_index=yes requires mail_fsync=always")
		}
	}
	if v.Duration("mailbox_idle_check_interval") == 0 {
		k.fail("mailbox_idle_check_interval must not be 0")
	}
	if v.Int("mail_cache_purge_delete_percentage") > 100 {
		k.fail("mail_cache_purge_delete_percentage can't be over 100")
	}
	if v.Duration("imapc_max_idle_time") == 0 {
		k.fail("imapc_max_idle_time must not be 0")
	}
	if f := v.String("syslog_facility"); !slices.Contains(syslogFacilities, f) {
		k.fail("Unknown syslog_facility: " + f)
	}
	k.attachmentHash(v.String("mail_attachment_hash"))
}

func (k *checker) attachmentHash(format string) {
	switch {
	case strings.Contains(format, "/"):
		k.fail("mail_attachment_hash setting must not contain '/' characters")
		return
	case strings.Contains(format, "-"):
		k.fail("mail_attachment_hash setting must not contain '-' characters")
		return
	}
	for {
		_, rest, found := strings.Cut(format, "%{")
		if !found {
			return
		}
		method, after, closed := strings.Cut(rest, "}")
		if !closed {
			k.fail("Invalid mail_attachment_hash setting: Missing '}'")
			return
		}
		method, _, _ = strings.Cut(method, ":")
		if _, _, ok := hashOf(method); !ok && method != "md4" && method != "size" {
			k.fail("Invalid mail_attachment_hash setting: Unknown hash method: " + method)
			return
		}
		format = after
	}
}

func (k *checker) uidlFormat() {
	format := k.view.String("pop3_uidl_format")
	found := false
	for {
		_, rest, any := strings.Cut(format, "%")
		if !any {
			break
		}
		v, after, err := parseVariable(rest)
		if err != nil {
			break
		}
		format = after
		if v.name == "%" {
			continue
		}
		if !v.long && strings.Contains("vumfg", v.name) || v.long {
			found = true
			continue
		}
		k.fail("Unknown pop3_uidl_format variable: %" + v.name)
		return
	}
	if !found {
		k.fail("pop3_uidl_format setting doesn't contain any %% variables.")
	}
}

var specialUses = []string{`\All`, `\Archive`, `\Drafts`, `\Flagged`, `\Important`, `\Junk`, `\Sent`, `\Trash`}

func (k *checker) namespaces() {
	all := k.view.Sections("namespace")
	for _, ns := range all {
		prefix := ns.String("prefix")
		if len(ns.String("separator")) > 1 {
			k.fail(fmt.Sprintf("Namespace '%s': Hierarchy separator must be only one character long", prefix))
		}
		if alias, ok := ns.Value("alias_for"); ok && !slices.ContainsFunc(all, func(o *Section) bool {
			_, isAlias := o.Value("alias_for")
			return o.String("prefix") == alias && !isAlias
		}) {
			k.fail(fmt.Sprintf("Namespace '%s': alias_for points to unknown namespace: %s", prefix, alias))
		}
		for _, box := range ns.Sections("mailbox") {
			for _, use := range strings.Fields(box.String("special_use")) {
				if !slices.ContainsFunc(specialUses, func(s string) bool { return strings.EqualFold(s, use) }) {
					k.fail(fmt.Sprintf("mailbox %s: unknown special_use: %s", box.Name(), use))
				}
			}
		}
	}
}

func (k *checker) databases() {
	for _, kind := range []string{"passdb", "userdb"} {
		for _, db := range k.view.Sections(kind) {
			if db.String("driver") == "" {
				k.fail(kind + " is missing driver")
			}
		}
	}
}

func (k *checker) authentication() {
	v := k.view
	if v.Int("auth_worker_max_count") == 0 {
		k.fail("auth_worker_max_count must be above zero")
	}
	switch kind, cut, hasCut := strings.Cut(v.String("auth_verbose_passwords"), ":"); {
	case hasCut && (cut == "" || strings.Trim(cut, "0123456789") != ""):
		k.fail(fmt.Sprintf("auth_verbose_passwords: Invalid truncation number: '%s'", cut))
	case kind != "no" && kind != "plain" && kind != "sha1" && kind != "yes":
		k.fail("auth_verbose_passwords: Invalid value")
	}
	if v.String("auth_policy_server_url") != "" {
		_, size, known := hashOf(v.String("auth_policy_hash_mech"))
		switch {
		case v.String("auth_policy_hash_nonce") == "":
			k.fail("auth_policy_hash_nonce must be set when policy server is used")
		case !known:
			k.fail("invalid auth_policy_hash_mech given")
		case v.Int("auth_policy_hash_truncate") >= 8*size:
			k.fail(fmt.Sprintf("policy_hash_truncate is not smaller than digest size (%d >= %d)", v.Int("auth_policy_hash_truncate"), 8*size))
		}
	}
}

func (k *checker) others() {
	v := k.view
	if first, last := v.Int("first_valid_uid"), v.Int("last_valid_uid"); last != 0 && first > last {
		k.fail("first_valid_uid can't be larger than last_valid_uid")
	}
	if first, last := v.Int("first_valid_gid"), v.Int("last_valid_gid"); last != 0 && first > last {
		k.fail("first_valid_gid can't be larger than last_valid_gid")
	}
	if v.String("listen") == "" {
		k.fail("listen can't be set empty")
	}
	for _, name := range []string{"dsync_alt_char", "dsync_hashed_headers"} {
		if v.String(name) == "" {
			k.fail(name + " must not be empty")
		}
	}
	if v.String("pop3_delete_type") == "flag" && v.String("pop3_deleted_flag") == "" {
		k.fail("pop3_delete_type=flag, but pop3_deleted_flag not set")
	}
}

func (k *checker) events() {
	for _, e := range k.view.Sections("event_exporter") {
		transport, format := e.String("transport"), e.String("format")
		switch {
		case transport == "":
			k.fail("Exporter transport name can't be empty")
		case !slices.Contains([]string{"drop", "log", "http-post", "http"}, transport):
			k.fail(fmt.Sprintf("Unknown transport type '%s'", transport))
		case format == "":
			k.fail("Exporter format name can't be empty")
		case !slices.Contains([]string{"none", "json", "tab-text"}, format):
			k.fail(fmt.Sprintf("Unknown exporter format '%s'", format))
		case format != "none" && !strings.Contains(e.String("format_args"), "time-"):
			k.fail(format + " exporter format requires a time-* argument")
		}
	}
	for _, m := range k.view.Sections("metric") {
		if m.String("filter") == "" {
			k.fail(fmt.Sprintf("metric %s { filter } is empty - will not match anything", m.Name()))
		}
	}
}

// accounts checks that the accounts Dovecot's processes run under exist.
func (k *checker) accounts() {
	exists := k.config.opts.UserExists
	if exists == nil {
		return
	}
	for _, name := range []string{"default_internal_user", "default_login_user"} {
		if user := k.view.String(name); !exists(user) {
			k.fail(fmt.Sprintf("%s doesn't exist: %s", name, user))
		}
	}
}

var serviceTypes = []string{"", "log", "config", "anvil", "login", "startup", "worker"}

func (k *checker) services() {
	protocols := k.view.List("protocols")
	services := k.view.Sections("service")
	for _, p := range protocols {
		if !slices.ContainsFunc(services, func(s *Section) bool { return s.String("protocol") == p }) && !(p == "none" && len(protocols) == 1) {
			k.fail("protocols: Unknown protocol: " + p)
			return
		}
	}
	seen := map[string]bool{}
	var enabled []*Section
	for i, s := range services {
		if s.Name() == "" {
			k.fail(fmt.Sprintf("Service #%d is missing name", i))
			return
		}
		if t := s.String("type"); !slices.Contains(serviceTypes, t) {
			k.fail("Unknown service type: " + t)
		}
		if p := s.String("protocol"); p != "" && !slices.Contains(protocols, p) {
			continue
		}
		k.service(s, seen)
		enabled = append(enabled, s)
	}
	k.clientLimits(enabled)
}

// clientLimits warns when the processes that may run have more connections to auth and anvil than those take.
func (k *checker) clientLimits(enabled []*Section) {
	var auth, anvil strings.Builder
	authLoad, anvilLoad := 0, 2
	limits := map[string]int{}
	count := func(b *strings.Builder, load *int, name string, limit int) {
		if b.Len() > 0 {
			b.WriteString(" + ")
		}
		fmt.Fprintf(b, "service %s { process_limit=%d }", name, limit)
		*load += limit
	}
	for _, s := range enabled {
		limit := s.Int("process_limit")
		if limit == 0 {
			limit = k.view.Int("default_process_limit")
		}
		if limits[s.Name()] = s.Int("client_limit"); limits[s.Name()] == 0 {
			limits[s.Name()] = k.view.Int("default_client_limit")
		}
		login := s.String("type") == "login" && s.String("protocol") != ""
		if login || s.String("protocol") != "" && s.Int("client_limit") == 1 && s.Int("service_count") != 1 {
			count(&auth, &authLoad, s.Name(), limit)
		}
		if login || s.Name() == "auth" {
			count(&anvil, &anvilLoad, s.Name(), limit)
		}
	}
	if have, ok := limits["auth"]; ok && have < authLoad {
		k.warn(fmt.Sprintf("service auth { client_limit=%d } is lower than required under max. load (%d). "+
			"Counted for protocol services with service_count != 1: %s", have, authLoad, &auth))
	}
	if have, ok := limits["anvil"]; ok && have < anvilLoad {
		k.warn(fmt.Sprintf("service anvil { client_limit=%d } is lower than required under max. load (%d). Counted with: %s",
			have, anvilLoad, &anvil))
	}
}

// single are the services that must have one process.
var single = strings.Fields("auth anvil log indexer ipc director replicator old-stats")

func (k *checker) service(s *Section, seen map[string]bool) {
	limit := s.Int("process_limit")
	if limit > 1 && slices.Contains(single, s.Name()) {
		k.fail(fmt.Sprintf("service(%s): process_limit must be 1", s.Name()))
	}
	if limit == 0 {
		limit = k.view.Int("default_process_limit")
	}
	if s.Int("process_min_avail") > limit {
		k.fail(fmt.Sprintf("service(%s): process_min_avail is higher than process_limit", s.Name()))
	}
	base := strings.TrimSuffix(k.view.String("base_dir"), "/")
	for _, kind := range []string{"unix_listener", "fifo_listener"} {
		for _, l := range s.Sections(kind) {
			path := l.Name()
			if path == "" {
				k.fail(fmt.Sprintf("service(%s): %s: path must not be empty", s.Name(), kind))
				continue
			}
			if l.Int("mode") == 0 {
				continue
			}
			if !strings.HasPrefix(path, "/") {
				path = base + "/" + path
			} else if strings.HasPrefix(path, base+"/") {
				k.warn(fmt.Sprintf("You should remove base_dir prefix from %s: %s", kind, path))
			}
			k.listener(path, seen)
		}
	}
	for _, l := range s.Sections("inet_listener") {
		if port := l.Int("port"); port != 0 {
			k.listener(fmt.Sprintf("%d:%s", port, l.String("address")), seen)
		}
	}
}

func (k *checker) listener(name string, seen map[string]bool) {
	if seen[name] {
		k.fail("duplicate listener: " + name)
	}
	seen[name] = true
}

// Check names, with file, line and consequence, what the configuration sets and this program does not do as Dovecot would: what is
// not built yet, has no meaning here, or is refused. Conflicting filters are errors.
func (c *Config) Check() []Diagnostic {
	out := slices.Concat(c.errors, c.warnings)
	seen := map[string]bool{}
	for _, l := range c.layers {
		c.checkNode(l.root, &out, seen)
		if text := c.Conflict(probe(l.filter)); text != "" && !seen[text] {
			seen[text] = true
			out = append(out, Diagnostic{Severity: Error, Position: l.pos, Text: text, Hint: "put one of the filters inside the other"})
		}
	}
	return out
}

// probe is a connection that a filter surely matches.
func probe(f Filter) Filter {
	if not, ok := strings.CutPrefix(f.Protocol, "!"); ok {
		f.Protocol = "imap"
		if not == "imap" {
			f.Protocol = "pop3"
		}
	}
	for _, p := range []*netip.Prefix{&f.LocalNet, &f.RemoteNet} {
		if p.IsValid() {
			*p = netip.PrefixFrom(p.Addr(), p.Addr().BitLen())
		}
	}
	return f
}

func (c *Config) checkNode(n *node, out *[]Diagnostic, seen map[string]bool) {
	for _, name := range sortedNames(n) {
		v := n.values[name]
		if v.fileErr != nil {
			*out = append(*out, Diagnostic{Severity: Error, Position: v.pos, Setting: name, Text: v.fileErr.Error()})
		}
		s := c.registry.lookup(n.kind, name)
		if s == nil || v.pos.File == builtIn || s.Treatment == Honoured {
			continue
		}
		d := Diagnostic{Severity: Note, Position: v.pos, Setting: name}
		switch s.Treatment {
		case NotYet:
			d.Severity, d.Text = Warning, name+" is not honoured yet; its default holds"
		case NoMeaning:
			d.Text = name + " has no meaning here: " + s.Because
		case Refused:
			d.Severity, d.Text = Warning, name+" is refused: "+s.Because
		}
		*out = append(*out, d)
	}
	for _, child := range n.children {
		c.checkNode(child, out, seen)
	}
}
