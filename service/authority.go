package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"postilion/config/dovecot"
	"postilion/config/postfix"
	"postilion/mta/deliver"
	"postilion/service/child"
	"postilion/service/helper"
	"postilion/service/listen"
	"postilion/service/master"
	"postilion/table"
)

// ErrSingleProcess tells that the configuration wants no division: postilion_single_process = yes.
var ErrSingleProcess = errors.New("postilion_single_process = yes: one process does everything")

// Authority reads a configuration for the master: what of it needs root, and as whom the rest works. It keeps the master's own log.
type Authority struct {
	options Options
	logs    logs
	follow  currentLog

	mu   sync.Mutex
	read []string
}

// NewAuthority returns an authority; options.Root is not used.
func NewAuthority(options Options) *Authority {
	a := &Authority{options: options}
	a.options.Root = nil
	a.logs.stderr = options.Stderr
	return a
}

// recorder is Options.open that notes which files make up the configuration.
func (a *Authority) recorder(name string) (*os.File, error) {
	file, err := os.Open(name)
	if err == nil {
		a.read = append(a.read, name)
	}
	return file, err
}

// Read reads the configuration as it is now. The error is ErrSingleProcess when no master is wanted.
func (a *Authority) Read() (*master.Grants, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.read = nil
	b := &builder{options: a.options}
	if err := b.readBy(a.recorder); err != nil {
		return nil, err
	}
	if b.postfix != nil && b.postfix.View().Bool("postilion_single_process") || b.dovecot != nil && b.dovecot.For(dovecot.Filter{}).Bool("postilion_single_process") {
		return nil, ErrSingleProcess
	}
	g := &master.Grants{Users: helper.Bounds{FirstUID: 500, FirstGID: 1}}
	worker, err := b.worker()
	if err != nil {
		return nil, err
	}
	g.Worker = *worker
	g.PidFiles = b.pidFiles()
	if b.postfix != nil {
		if err := b.grantTransport(g); err != nil {
			return nil, err
		}
	}
	if b.dovecot != nil {
		b.grantMailboxes(g)
	}
	g.AgentArgs = []string{strconv.Itoa(int(b.remember().Seconds()))}
	g.Files = append(g.Files, a.read...)
	return g, a.openLog(b, g)
}

// openLog makes the master's log, which never leads over a name that the worker could turn elsewhere.
func (a *Authority) openLog(b *builder, g *master.Grants) error {
	a.logs.append = func(name string) (*os.File, error) { return master.OpenLog(name, &g.Worker) }
	a.logs.begin()
	err := b.openLogs(&a.logs)
	if err != nil {
		if a.follow.now.Load() != nil {
			return err
		}
		// The worker may be able to open it; the master's few lines go to standard error then.
		b.log = slog.New(slog.NewTextHandler(a.options.Stderr, nil))
		b.log.Warn(err.Error() + ": the master process logs here")
	}
	a.follow.set(b.log)
	g.Log = a.follow.logger()
	return a.logs.keep(a.logs.used())
}

// worker is who does the work: mail_owner, or when there is only a Dovecot half, default_internal_user.
func (b *builder) worker() (*child.Identity, error) {
	name, setting, where := "", "mail_owner", ""
	if b.postfix != nil {
		view := b.postfix.View()
		name, where = view.String("mail_owner"), view.Where("mail_owner").String()
	} else {
		view := b.dovecot.For(dovecot.Filter{})
		setting = "default_internal_user"
		name, where = view.String("default_internal_user"), view.Where("default_internal_user").String()
	}
	id, err := child.Lookup(name)
	if err != nil {
		return nil, fmt.Errorf("%s: %s = %s: %w: the server works as this user and keeps root for what needs it; make the user (useradd --system %s), "+
			"name another one, or set postilion_single_process = yes to do everything as root", where, setting, name, err, name)
	}
	if id.UID == 0 || id.GID == 0 {
		return nil, fmt.Errorf("%s: %s = %s: the server must not work as root or in root's group: name another user, "+
			"or set postilion_single_process = yes to do everything as root", where, setting, name)
	}
	return id, nil
}

// grantTransport adds what main.cf and master.cf need root for.
func (b *builder) grantTransport(g *master.Grants) error {
	view := b.postfix.View()
	views := []*postfix.View{view}
	for _, t := range b.transports() {
		endpoints, err := t.addresses(context.Background())
		if err != nil {
			return err
		}
		for i := range endpoints {
			g.Sockets = append(g.Sockets, endpoints[i].Address)
		}
		views = append(views, t.view)
	}
	for _, service := range b.postfix.Services() {
		views = append(views, service.View())
	}
	for _, v := range views {
		pairs, err := postfixPairs(v)
		if err != nil {
			return err
		}
		for _, pair := range pairs {
			g.Files = addFile(g.Files, pair.CertificateFile, pair.KeyFile)
		}
		g.Files = addFile(g.Files, v.String("smtpd_tls_CAfile"), v.String("lmtp_tls_CAfile"))
		for _, pair := range clientPairs(v) {
			g.Files = addFile(g.Files, pair.CertificateFile, pair.KeyFile)
		}
	}
	b.grantCommands(g)
	for _, a := range b.postfix.Assignments() {
		g.Files = append(g.Files, b.tableFiles(view, a.Value)...)
	}
	for _, service := range b.postfix.Services() {
		for _, override := range service.Overrides {
			g.Files = append(g.Files, b.tableFiles(service.View(), override.Value)...)
		}
	}
	g.Files = append(g.Files, b.tableFiles(view, view.String("alias_maps"))...)
	g.Logs = addFile(g.Logs, view.String("maillog_file"))
	for _, d := range []master.Directory{{Path: view.String("queue_directory"), Where: "queue_directory"}, {Path: view.String("data_directory"), Where: "data_directory", Owned: true}} {
		d.Where = fmt.Sprintf("%s: %s", view.Where(d.Where), d.Where)
		g.Directories = append(g.Directories, d)
	}
	return nil
}

// grantCommands adds the commands of pipe services. What is wrong with one is the worker's to complain about.
func (b *builder) grantCommands(g *master.Grants) {
	for _, service := range b.postfix.Services() {
		if service.Command != "pipe" || service.Type != "unix" {
			continue
		}
		read, err := deliver.ReadPipeCommand(service.Args)
		if err != nil || read.Words[0].Macro {
			continue
		}
		id, err := commandIdentity(read.User, read.Group)
		if err != nil || ownedByMail(id, &g.Worker) != nil {
			continue
		}
		view := service.View()
		c := helper.Command{
			Service: service.Name, As: *id, Directory: first(read.Directory, view.String("queue_directory")),
			Environment: deliver.Environment(view.List("export_environment"), b.getenv), Limit: view.Duration(service.Name + "_time_limit"),
		}
		for _, w := range read.Words {
			c.Words = append(c.Words, helper.Word(w))
		}
		g.Commands = append(g.Commands, c)
	}
}

// addFile adds names that are not empty and not there yet.
func addFile(list []string, names ...string) []string {
	for _, name := range names {
		if name != "" && !slices.Contains(list, name) {
			list = append(list, name)
		}
	}
	return list
}

// tableFiles are the files of the tables that a value names.
func (b *builder) tableFiles(view *postfix.View, value string) []string {
	if !strings.Contains(value, ":") {
		return nil
	}
	if expanded, err := view.Expand(value); err == nil {
		value = expanded
	}
	var files []string
	for _, found := range tableName().FindAllStringSubmatch(value, -1) {
		path := found[2]
		if !filepath.IsAbs(path) {
			path = filepath.Join(absoluteDir(b.options.PostfixDir), path)
		}
		files = addFile(files, path)
		if suffix, ok := table.IndexSuffix(found[1]); ok {
			files = addFile(files, path+suffix)
		}
	}
	return files
}

// tableName finds tables that are files in any text.
func tableName() *regexp.Regexp {
	return regexp.MustCompile(`\b(hash|btree|lmdb|cdb|dbm|sdbm|texthash|regexp|pcre|cidr):([^\s,{}]+)`)
}

// grantMailboxes adds what dovecot.conf needs root for.
func (b *builder) grantMailboxes(g *master.Grants) {
	view := b.dovecot.For(dovecot.Filter{})
	g.Users = helper.Bounds{
		FirstUID: view.Int("first_valid_uid"), LastUID: view.Int("last_valid_uid"),
		FirstGID: view.Int("first_valid_gid"), LastGID: view.Int("last_valid_gid"),
	}
	g.Logs = addFile(g.Logs, view.String("info_log_path"), view.String("log_path"))
	g.Directories = append(g.Directories, master.Directory{Path: view.String("base_dir"), Where: fmt.Sprintf("%s: base_dir", view.Where("base_dir"))})
	for _, s := range view.Sections("passdb") {
		g.Shadow = g.Shadow || s.String("driver") == "shadow" || s.String("driver") == "pam"
		g.Files = addFile(g.Files, passwdFilePath(s))
	}
	for _, s := range view.Sections("userdb") {
		g.Files = addFile(g.Files, passwdFilePath(s))
	}
	for _, protocol := range []string{"", "imap", "pop3", "lmtp"} {
		v := b.dovecot.For(dovecot.Filter{Protocol: protocol})
		for _, name := range []string{"ssl_cert", "ssl_key", "ssl_alt_cert", "ssl_alt_key"} {
			if file, ok := v.File(name); ok {
				g.Files = addFile(g.Files, file)
			}
		}
		grantVault(g, placed(v, v.String("mail_location")), fmt.Sprintf("%s: mail_location", v.Where("mail_location")))
		for _, ns := range v.Sections("namespace") {
			if ns.String("location") == "" {
				continue
			}
			if ns.String("location") == "" {
				continue
			}
			grantVault(g, placed(v, ns.String("location")), fmt.Sprintf("%s: location", ns.Position()))
		}
		for _, name := range []string{"imap-login", "pop3-login", "lmtp", "auth"} {
			if s, ok := v.Section("service", name); ok {
				grantSockets(g, v, s)
			}
		}
	}
}

func grantSockets(g *master.Grants, view *dovecot.View, s *dovecot.Section) {
	add := func(a listen.Address) {
		if !slices.ContainsFunc(g.Sockets, func(have listen.Address) bool { return have.Key() == a.Key() }) {
			g.Sockets = append(g.Sockets, a)
		}
	}
	for _, l := range s.Sections("inet_listener") {
		for _, e := range dovecotAddresses(view, l) {
			add(e.Address)
		}
	}
	for _, l := range s.Sections("unix_listener") {
		// One that cannot be understood is the worker's to complain about.
		if address, err := unixAddress(view, s, l); err == nil {
			add(address)
		}
	}
}

func grantVault(g *master.Grants, location, where string) {
	driver, path, err := splitLocation(location)
	if err != nil || driver != "vault" || !filepath.IsAbs(path) || strings.Contains(path, "%") {
		return
	}
	path = filepath.Clean(path)
	if !slices.ContainsFunc(g.Directories, func(d master.Directory) bool { return d.Path == path }) {
		g.Directories = append(g.Directories, master.Directory{Path: path, Where: where, Owned: true, Required: true})
	}
}

// passwdFilePath is the file of a passwd-file block, with * for each variable, "" for other drivers.
func passwdFilePath(s *dovecot.Section) string {
	if s.String("driver") != "passwd-file" {
		return ""
	}
	rest := strings.TrimSpace(s.String("args"))
	for {
		word, after, more := strings.Cut(rest, " ")
		if !more || strings.HasPrefix(word, "/") || !strings.Contains(word, "=") {
			break
		}
		rest = strings.TrimSpace(after)
	}
	return regexp.MustCompile(`%(\{[^}]*\}|[A-Z0-9.]*[a-z])`).ReplaceAllString(rest, "*")
}
