package table

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"time"
)

// inline is a table written in main.cf: inline:{name=value, {name = value with blanks}}.
func (t *opened) openInline(name string, options *Options) error {
	const need = "need \"inline:{name=value...}\""
	items, ok := bracedList(name)
	if !ok {
		return fmt.Errorf("bad syntax: \"%s\"; "+need, t.spec)
	}
	table := &textTable{path: t.spec, entries: map[string]textEntry{}}
	for _, item := range items {
		var err error
		if item[0] == '{' {
			item, err = stripBraces(item)
		}
		var key, value string
		if err == nil {
			key, value, err = splitNameValue(item)
		}
		if err != nil {
			return fmt.Errorf("%w: \"%s\"; "+need, err, t.spec)
		}
		if options.ValuesAreFiles {
			if value, err = t.readFiles(value, options); err != nil {
				return err
			}
		}
		if t.fold {
			key = foldKey(key, t.utf8)
		}
		if _, double := table.entries[key]; !double {
			table.order = append(table.order, key)
		}
		table.entries[key] = textEntry{value: value}
	}
	t.finder = table
	return nil
}

// static answers every key with one value.
type static struct{ answer answer }

func (s static) find(context.Context, string) (answer, bool, error) { return s.answer, true, nil }

func (t *opened) openStatic(name string, options *Options) (err error) {
	if name[0] == '{' {
		if name, err = stripBraces(name); err != nil {
			return fmt.Errorf("bad static:name syntax: %w", err)
		}
	}
	if options.ValuesAreFiles {
		if name, err = t.readFiles(name, options); err != nil {
			return err
		}
	}
	t.finder = static{answer{value: name, path: t.spec}}
	return nil
}

// environ answers from the process environment.
type environ struct {
	getenv func(string) string
	spec   string
}

func (e environ) find(_ context.Context, key string) (answer, bool, error) {
	if e.getenv == nil {
		return answer{}, false, nil
	}
	value := e.getenv(key)
	return answer{value: value, path: e.spec}, value != "", nil
}

// combined asks several tables: all of them for the same key (unionmap), or each for the answer of the one before
// (pipemap).
type combined struct {
	parts []*opened
	pipe  bool
}

func (t *opened) openCombined(kind, name string, options *Options) error {
	items, ok := bracedList(name)
	for _, item := range items {
		ok = ok && strings.Contains(item, ":")
	}
	if !ok {
		return fmt.Errorf("bad syntax: \"%s\"; need \"%s:{type:name...}\"", t.spec, kind)
	}
	c := combined{pipe: kind == "pipemap"}
	for _, item := range items {
		part, err := open(item, *options)
		if err != nil {
			return err
		}
		c.parts = append(c.parts, part)
	}
	t.finder = c
	return nil
}

func (c combined) inner() []*opened { return c.parts }

func (c combined) find(ctx context.Context, key string) (answer, bool, error) {
	var whole answer
	for _, part := range c.parts {
		a, found, err := part.ask(ctx, key)
		switch {
		case err != nil || !found && c.pipe:
			return answer{}, false, err
		case !found:
			continue
		case c.pipe:
			key, whole.value = a.value, a.value
		case len(whole.parts) > 0:
			whole.value += "," + a.value
		default:
			whole.value = a.value
		}
		whole.parts = append(whole.parts, a)
	}
	return whole, len(whole.parts) > 0, nil
}

// random answers with one of its values.
type random struct {
	values []string
	spec   string
}

func (t *opened) openRandom(name string) error {
	items, ok := bracedList(name)
	if !ok {
		return fmt.Errorf("bad syntax: \"%s\"; need \"randmap:{value...}\"", t.spec)
	}
	t.finder = random{items, t.spec}
	return nil
}

func (r random) find(context.Context, string) (answer, bool, error) {
	return answer{value: r.values[rand.IntN(len(r.values))], path: r.spec}, true, nil
}

// openProxied opens what stands behind proxy:. There is no other process to ask: the prefix is taken off.
func (t *opened) openProxied(name string, options *Options) error {
	inner, err := open(name, *options)
	if err != nil {
		return err
	}
	t.pattern = inner.pattern
	t.finder = proxied{inner}
	return nil
}

type proxied struct{ table *opened }

func (p proxied) inner() []*opened { return []*opened{p.table} }

func (p proxied) find(ctx context.Context, key string) (answer, bool, error) {
	return p.table.ask(ctx, key)
}

// unixTable answers with lines of the user or group database.
type unixTable struct{ database, path string }

func (t *opened) openUnix(name string) error {
	switch name {
	case "passwd.byname":
		t.finder = unixTable{"passwd", "/etc/passwd"}
	case "group.byname":
		t.finder = unixTable{"group", "/etc/group"}
	default:
		return fmt.Errorf("unknown table: %s", t.spec)
	}
	return nil
}

// getentTimeout bounds the wait for a name service.
const getentTimeout = 10 * time.Second

func (u unixTable) find(ctx context.Context, key string) (answer, bool, error) {
	if key == "" || strings.ContainsAny(key, ":\n") || strings.Trim(key, "0123456789") == "" {
		return answer{}, false, nil
	}
	file, err := os.Open(u.path)
	if err != nil {
		return answer{}, false, err
	}
	defer file.Close()
	scanner := bufio.NewScanner(file)
	for line := 1; scanner.Scan(); line++ {
		if text := scanner.Text(); strings.HasPrefix(text, key+":") {
			return answer{value: text, path: u.path, line: line}, true, nil
		}
	}
	if err := scanner.Err(); err != nil {
		return answer{}, false, fmt.Errorf("%s: %w", u.path, err)
	}
	return u.askNameService(ctx, key)
}

// askNameService asks getent(1) for names that are in no local file (SSSD, LDAP). Its exit status 2 means not found.
func (u unixTable) askNameService(ctx context.Context, key string) (answer, bool, error) {
	getent, err := exec.LookPath("getent")
	if err != nil || strings.HasPrefix(key, "-") {
		return answer{}, false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, getentTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, getent, u.database, key).Output()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.ExitCode() == 2:
		return answer{}, false, nil
	case err != nil:
		return answer{}, false, fmt.Errorf("getent %s: %w", u.database, err)
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return answer{value: line, path: "getent " + u.database}, line != "", nil
}
