package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"

	"postilion/cmd/postilion/manual"
	"postilion/kv"
	"postilion/service"
	"postilion/service/care"
	"postilion/service/control"
	"postilion/store/vault"
)

// exitUndone is the exit code of vault for what could not be done; exitFailure means that something is wrong with the mail.
const exitUndone = 2

func vaultCommand() command {
	return command{
		page: manual.Page{
			Name: "vault", Section: 8, Summary: "check, compact, back up, restore and export the mail store",
			Synopsis: []string{
				"postilion vault check [-c DIR | --vault PATH] [--repair] [--salvage DIR] [--json]",
				"postilion vault compact [-c DIR | --vault PATH] [--json]",
				"postilion vault backup [-c DIR | --vault PATH] [--previous DIR] [--json] DIR",
				"postilion vault restore [-c DIR | --vault PATH] [--account USER] [--mailbox NAME] [--into NAME] [--json] DIR",
				"postilion vault export [-c DIR | --vault PATH] [--format FORMAT] [--account USER] [--mailbox NAME] [--json] DIR",
			},
			Description: "Looks after the vault that mail_location names. While a server has it open, the server does the work, asked through its control socket, and serves meanwhile; " +
				"paths are then written and read by the server's user. Otherwise the command opens the vault itself. Long work tells how far it is, on a terminal in one line.\n\n" +
				"check reads every file and compares its checksums, then every row: bodies are there and are what came in, counts are right, UIDs and mod-sequences lie below what was promised. " +
				"Each problem is a line with account, mailbox and UID. --repair puts right what can be put right without losing mail and says what it did; messages that were in no mailbox any more are put into the mailbox " +
				"Recovered. --salvage reads around damaged files into a new vault in DIR and repairs it; the damaged one is not changed, and no server may have it open.\n\n" +
				"compact rewrites the tables, which drops what was deleted.\n\n" +
				"backup writes the vault as it is at one moment to DIR, which must not exist, with a list of digests, and reads it back. On the same disk tables and blob files are links; on another one those that " +
				"the backup before has, named with --previous, are links to that.\n\n" +
				"restore brings a whole backup back to a place where nothing is, when no server has it open. With --account it brings the mail of one user, or with --mailbox of one mailbox, of the backup beside what the user " +
				"has now: below the name given with --into, `Restored` and the date of the backup without it.\n\n" +
				"export writes a directory for each user: Maildir folders with dovecot-uidlist and dovecot-keywords, or mbox files with X-UID, Status and X-Keywords, so that UIDs, flags, keywords and dates stay.",
			Options: []manual.Entry{
				{Term: "-c DIR", Text: "the directory of the configuration; without it /etc/postfix and /etc/dovecot/dovecot.conf"},
				{Term: "--vault PATH", Text: "the directory of the vault, which no server has open"},
				{Term: "--repair", Text: "put right what can be put right"},
				{Term: "--salvage DIR", Text: "save what can be read of a damaged vault to a new one in DIR"},
				{Term: "--previous DIR", Text: "an earlier backup on the same disk as the new one"},
				{Term: "--account USER", Text: "this user only"},
				{Term: "--mailbox NAME", Text: "this mailbox only, / between the levels"},
				{Term: "--into NAME", Text: "the name below which mailboxes come back"},
				{Term: "--format FORMAT", Text: "maildir, which is the default, or mbox"},
				{Term: "--json", Text: "JSON lines: {\"event\": ...} while it works, then one {\"result\": ...} or {\"error\": ...}"},
			},
			Exit: []manual.Entry{
				{Term: "0", Text: "done, and nothing is wrong, or all that was wrong is repaired"},
				{Term: "1", Text: "done, and something is wrong: problems that are not repaired, mail that cannot be read"},
				{Term: "2", Text: "not done"},
				{Term: "64", Text: "wrong usage"},
			},
			Examples: []manual.Entry{
				{Term: "postilion vault backup --previous /backup/monday /backup/tuesday", Text: "while the server runs"},
				{Term: "postilion vault restore --account alice@example.org --mailbox INBOX /backup/monday", Text: "what alice deleted by mistake"},
				{Term: "postilion vault export --format maildir /tmp/mail", Text: "Dovecot opens /tmp/mail/USER with mail_location = maildir:"},
			},
			SeeAlso: []string{"postilion-serve(8)", "dovecot.conf(5)"},
		},
		run: runVault,
	}
}

// vaultCall is one call of the command.
type vaultCall struct {
	e       *environment
	name    string
	request care.Request
	salvage string
	sockets []string
	report  *vaultReport
}

func runVault(ctx context.Context, e *environment) int {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	var dir, path, format string
	var asJSON bool
	c := &vaultCall{e: e}
	r := &c.request
	set := optionSet{
		texts: map[string]*string{
			"-c": &dir, "--vault": &path, "--salvage": &c.salvage, "--previous": &r.Previous, "--account": &r.Account, "--mailbox": &r.Mailbox, "--into": &r.Into, "--format": &format,
		},
		flags: map[string]*bool{"--repair": &r.Repair, "--json": &asJSON},
	}
	rest, err := set.parse(e.args)
	if err == nil {
		err = c.understand(rest, format)
	}
	if err == nil {
		err = misplaced(rest[0], map[string]bool{
			"--repair": r.Repair, "--salvage": c.salvage != "", "--previous": r.Previous != "", "--account": r.Account != "", "--mailbox": r.Mailbox != "",
			"--into": r.Into != "", "--format": format != "",
		})
	}
	if err != nil {
		return wrongUsage(e, "vault", err)
	}
	c.report = newVaultReport(e, asJSON)
	if err := c.find(dir, path); err != nil {
		return c.report.end(care.Result{}, err)
	}
	result, err := c.do(ctx)
	return c.report.end(result, err)
}

// understand takes the arguments that are no options.
func (c *vaultCall) understand(rest []string, format string) error {
	if len(rest) == 0 {
		return errors.New("say what to do: check, compact, backup, restore or export")
	}
	verbs := map[string]string{"check": care.Check, "compact": care.Compact, "backup": care.Backup, "restore": care.Restore, "export": care.Export}
	name, ok := verbs[rest[0]]
	if !ok {
		return fmt.Errorf("it cannot %s: check, compact, backup, restore and export are there", rest[0])
	}
	c.name = name
	wanted := 1
	if name == care.Check || name == care.Compact {
		wanted = 0
	}
	if len(rest)-1 != wanted {
		return fmt.Errorf("%s takes %d directories, not %d", rest[0], wanted, len(rest)-1)
	}
	if wanted == 1 {
		c.request.Dir = rest[1]
	}
	if c.request.Format = format; format == "" {
		c.request.Format = "maildir"
	}
	if c.request.Format != "maildir" && c.request.Format != "mbox" {
		return fmt.Errorf("there is no format %s: maildir and mbox are known", format)
	}
	var errs []error
	for _, name := range []*string{&c.request.Dir, &c.request.Previous, &c.salvage} {
		if *name != "" {
			absolute, err := filepath.Abs(*name)
			*name = absolute
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// misplaced tells of an option that another verb has.
func misplaced(verb string, given map[string]bool) error {
	allowed := map[string][]string{
		"check": {"--repair", "--salvage"}, "compact": nil, "backup": {"--previous"}, "restore": {"--account", "--mailbox", "--into"}, "export": {"--account", "--mailbox", "--format"},
	}
	for name, is := range given {
		if is && !slices.Contains(allowed[verb], name) {
			return fmt.Errorf("%s has no option %s", verb, name)
		}
	}
	if given["--into"] && !given["--account"] || given["--mailbox"] && !given["--account"] && verb == "restore" {
		return errors.New("restore: --mailbox and --into go with --account")
	}
	return nil
}

// find finds the vault, and the control sockets of who may serve it.
func (c *vaultCall) find(dir, path string) error {
	if path != "" {
		absolute, err := filepath.Abs(path)
		c.request.Vault = absolute
		return err
	}
	options := configuration(c.e, dir)
	if options.DovecotFile == "" {
		return fmt.Errorf("there is no dovecot.conf in %s: name its directory with -c or the vault with --vault", first(dir, filepath.Dir(defaultDovecotConf)))
	}
	places, err := service.FindPlaces(options)
	if err != nil {
		return err
	}
	if places.Vault == "" {
		return fmt.Errorf("mail_location in %s names no vault", options.DovecotFile)
	}
	c.request.Vault, c.sockets = places.Vault, places.ControlSockets
	return nil
}

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

// do asks the process that serves the vault, or opens it.
func (c *vaultCall) do(ctx context.Context) (care.Result, error) {
	whole := c.name == care.Restore && c.request.Account == ""
	if c.salvage == "" && !whole {
		for _, socket := range c.sockets {
			var result care.Result
			err := control.Call(ctx, socket, c.name, c.request, c.report.eventJSON, &result)
			if !errors.Is(err, control.ErrNobody) {
				return result, err
			}
		}
	}
	switch {
	case whole:
		return c.restoreWhole(ctx)
	case c.salvage != "":
		return c.saveDamaged(ctx)
	}
	if _, err := os.Stat(c.request.Vault); err != nil {
		return care.Result{}, fmt.Errorf("there is no vault: %w", err)
	}
	return c.direct(ctx)
}

// direct opens a vault that nobody serves.
func (c *vaultCall) direct(ctx context.Context) (care.Result, error) {
	defer giveBack(c.request.Vault)
	fatal := make(chan error, 1)
	db, err := kv.Open(c.request.Vault, kv.Options{OnFatal: func(err error) { fatal <- err }})
	if errors.Is(err, kv.ErrLocked) {
		return care.Result{}, fmt.Errorf("%w; that process answers on no control socket that this command knows: name its configuration with -c", err)
	}
	if errors.Is(err, kv.ErrDamaged) && c.name == care.Check {
		files, filesErr := care.CheckFiles(ctx, vfs.Default, c.request.Vault, false, nil, func(p vault.Problem) { c.report.event(care.Event{Problem: &p}) })
		return care.Result{Files: &files}, errors.Join(fmt.Errorf("%w; save what can be read with --salvage", err), filesErr)
	}
	if err != nil {
		return care.Result{}, err
	}
	store, err := vault.Open(db, vault.Options{})
	if err != nil {
		return care.Result{}, errors.Join(err, db.Close())
	}
	result, err := care.Run(ctx, &care.Vault{Path: c.request.Vault, DB: db, Store: store}, c.name, c.request, c.report.event)
	return result, errors.Join(err, store.Close(), db.Close())
}

func (c *vaultCall) restoreWhole(ctx context.Context) (care.Result, error) {
	b, err := kv.Restore(ctx, vfs.Default, c.request.Dir, c.request.Vault, func(done, of int64) {
		c.report.event(care.Event{Step: "copying", Done: done, Of: of, Unit: "octets"})
	})
	if err != nil {
		return care.Result{}, err
	}
	giveTo(c.request.Vault, c.request.Dir)
	return care.Result{Backup: &care.BackedUp{Dir: c.request.Dir, Made: b.Made, Files: len(b.Files), Octets: b.Octets()}}, nil
}

func (c *vaultCall) saveDamaged(ctx context.Context) (care.Result, error) {
	lock, err := vfs.Default.Lock(filepath.Join(c.request.Vault, "LOCK.postilion"))
	if err != nil {
		return care.Result{}, fmt.Errorf("the vault is in use: stop the server first: %w", err)
	}
	defer lock.Close()
	var damaged care.Files
	checked, err := vault.Salvage(ctx, c.request.Vault, c.salvage, vault.SalvageOptions{
		Progress: func(rows int64) { c.report.event(care.Event{Step: "saving", Done: rows, Unit: "rows"}) },
		Damage: func(text string) {
			damaged.Damaged++
			c.report.event(care.Event{Problem: &vault.Problem{Text: text}})
		},
		Problem: func(p vault.Problem) { c.report.event(care.Event{Problem: &p}) },
	})
	if err == nil {
		giveTo(c.salvage, c.request.Vault)
	}
	return care.Result{Checked: &checked, Files: &damaged}, err
}

// giveBack gives files that root made in a directory to its owner.
func giveBack(dir string) { giveTo(dir, dir) }

func giveTo(dir, like string) {
	info, err := os.Stat(like)
	if err != nil || os.Geteuid() != 0 {
		return
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); ok {
		_ = filepath.WalkDir(dir, func(name string, _ os.DirEntry, err error) error {
			if err == nil {
				_ = os.Lchown(name, int(owner.Uid), int(owner.Gid))
			}
			return nil
		})
	}
}

// eventJSON takes an event from the control socket.
func (r *vaultReport) eventJSON(text json.RawMessage) {
	var e care.Event
	if json.Unmarshal(text, &e) == nil {
		r.event(e)
	}
}

// isTerminal tells whether a writer is a terminal.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && !strings.HasSuffix(f.Name(), "null")
}
