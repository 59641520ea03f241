// Package tabletool is postmap(1) and postalias(1): it builds, updates, lists and queries lookup tables.
//
// Built tables have the form of package table's indexes, under the names that the real programs use (FILE.db and so
// on). postmap replaces a whole index at once; readers see the old or the new one.
//
// Two things differ from the real programs. Privileges are not dropped to the owner of the source file (option -o is
// accepted): the index gets that owner instead. An index of another program is never changed: building replaces it,
// updating refuses it.
package tabletool

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"postilion/table"
)

// Parameters gives main.cf values, expanded. Not ok means that the parameter has its built-in default.
type Parameters interface {
	Value(name string) (value string, ok bool)
}

// Invocation is what a command is given.
type Invocation struct {
	Args   []string // without the command's name
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
	Getenv func(string) string
	// Load reads the configuration in dir, "" for the usual place. A nil Load means built-in defaults.
	Load func(dir string) (Parameters, error)
}

// Postmap runs postmap(1) and returns its exit status.
func Postmap(in Invocation) int {
	return run(in, &command{
		name: "postmap", options: "bc:d:fFhimnNopq:rsuUvw",
		usage: "usage: postmap [-bfFhimnNoprsuUvw] [-c config_dir] [-d key] [-q key] [map_type:]file...",
	})
}

// Postalias runs postalias(1) and returns its exit status.
func Postalias(in Invocation) int {
	return run(in, &command{
		name: "postalias", options: "Nc:d:finopq:rsuvw", aliases: true,
		usage: "usage: postalias [-Nfinoprsuvw] [-c config_dir] [-d key] [-q key] [map_type:]file...",
	})
}

// command is one run.
type command struct {
	name    string
	options string
	usage   string
	aliases bool

	in     Invocation
	out    *bufio.Writer
	set    map[byte]bool
	values map[byte]string
	files  []string

	parameters Parameters
}

// exitStatus ends a run that has said all there is to say.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

const notFound = exitStatus(1)

func run(in Invocation, c *command) int {
	c.in = in
	c.out = bufio.NewWriter(in.Stdout)
	err := c.parse(in.Args)
	if err == nil {
		err = c.configure()
	}
	if err == nil {
		err = c.act()
	}
	if flushed := c.out.Flush(); err == nil {
		err = flushed
	}
	var status exitStatus
	switch {
	case err == nil:
		return 0
	case errors.As(err, &status):
		return int(status)
	}
	fmt.Fprintf(in.Stderr, "%s: fatal: %v\n", c.name, err)
	return 1
}

func (c *command) warn(text string) {
	_ = c.out.Flush()
	fmt.Fprintf(c.in.Stderr, "%s: warning: %s\n", c.name, text)
}

// parse reads the options as getopt(3) does, letters gathered or not.
func (c *command) parse(args []string) error {
	c.set, c.values = map[byte]bool{}, map[byte]string{}
	for len(args) > 0 && len(args[0]) > 1 && args[0][0] == '-' {
		word := args[0]
		args = args[1:]
		if word == "--" {
			break
		}
		for i := 1; i < len(word); i++ {
			letter := word[i]
			at := strings.IndexByte(c.options, letter)
			if at < 0 || letter == ':' {
				fmt.Fprintf(c.in.Stderr, "%s: invalid option -- '%c'\n", c.name, letter)
				return errors.New(c.usage)
			}
			if !strings.HasPrefix(c.options[at+1:], ":") {
				c.set[letter] = true
				continue
			}
			value := word[i+1:]
			if value == "" {
				if len(args) == 0 {
					fmt.Fprintf(c.in.Stderr, "%s: option requires an argument -- '%c'\n", c.name, letter)
					return errors.New(c.usage)
				}
				value, args = args[0], args[1:]
			}
			if err := c.modeConflict(letter); err != nil {
				return err
			}
			c.set[letter], c.values[letter] = true, value
			break
		}
		if c.set['s'] && (c.set['q'] || c.set['d']) {
			return errors.New("specify only one of -s or -q or -d")
		}
	}
	c.files = args
	return nil
}

func (c *command) modeConflict(letter byte) error {
	if (letter == 'q' || letter == 'd') && (c.set['q'] || c.set['d'] || c.set['s']) {
		return errors.New("specify only one of -s -q or -d")
	}
	return nil
}

// configure reads main.cf and checks what getopt does not.
func (c *command) configure() error {
	dir := c.values['c']
	if dir == "" && c.in.Getenv != nil {
		dir = c.in.Getenv("MAIL_CONFIG")
	}
	if c.in.Load != nil {
		parameters, err := c.in.Load(dir)
		if err != nil {
			return err
		}
		c.parameters = parameters
	}
	message := c.set['b'] || c.set['h']
	switch {
	case (message || c.set['m']) && c.values['q'] != "-":
		return errors.New("specify -b -h or -m only with \"-q -\"")
	case len(c.files) == 0:
		return errors.New(c.usage)
	case c.set['m'] && !message:
		c.warn("ignoring -m option without -b or -h")
	}
	return nil
}

func (c *command) parameter(name, standard string) string {
	if c.parameters != nil {
		if value, ok := c.parameters.Value(name); ok {
			return value
		}
	}
	return standard
}

func (c *command) act() error {
	switch {
	case c.set['s']:
		return c.list()
	case c.set['q']:
		return c.query(c.values['q'])
	case c.set['d']:
		return c.remove(c.values['d'])
	}
	for _, file := range c.files {
		if err := c.build(c.spec(file)); err != nil {
			return err
		}
	}
	return nil
}

// spec completes a name without a type.
func (c *command) spec(file string) string {
	if strings.Contains(file, ":") && !strings.HasPrefix(file, "/") {
		return file
	}
	return c.parameter("default_database_type", "hash") + ":" + file
}

// tableOptions are those of a query or listing.
func (c *command) tableOptions() table.Options {
	message := (c.set['b'] || c.set['h']) && !c.set['U']
	return table.Options{
		NoFold:         c.set['f'],
		NoUTF8:         c.set['u'] || message || c.parameter("smtputf8_enable", "yes") == "no",
		ValuesAreFiles: c.set['F'],
		RequireIndex:   true,
		Warn:           c.warn,
		Getenv:         c.in.Getenv,
	}
}

func (c *command) list() error {
	for _, file := range c.files {
		t, err := table.Open(c.spec(file), c.tableOptions())
		if err != nil {
			return err
		}
		separator := "\t"
		if c.aliases {
			separator = ":\t"
		}
		err = table.Each(t, func(key, value string) bool {
			_, err = c.out.WriteString(key + separator + value + "\n")
			return err == nil
		})
		if errors.Is(err, table.ErrApplication) {
			return fmt.Errorf("table %s: sequence error: %w", t.Spec(), err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// forKeys calls each for the key, or for every line of standard input when it is "-".
func (c *command) forKeys(key string, each func(key string) error) error {
	if key != "-" {
		return each(key)
	}
	lines := bufio.NewScanner(c.in.Stdin)
	lines.Buffer(nil, table.MaxKey+1)
	for lines.Scan() {
		if err := each(lines.Text()); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read standard input: %w", err)
	}
	return nil
}

// remove deletes keys from indexes; the exit status tells whether any was there.
func (c *command) remove(key string) error {
	removed := false
	for _, file := range c.files {
		spec := c.spec(file)
		kind, name, _ := strings.Cut(spec, ":")
		suffix, ok := table.IndexSuffix(kind)
		if !ok {
			return c.cannotRemove(spec, kind)
		}
		found, err := c.update(name+suffix, func(index *table.Index) (bool, error) {
			changed := false
			err := c.forKeys(key, func(key string) error {
				options := c.tableOptions()
				changed = index.Delete(table.FoldKey(key, &options)) || changed
				return nil
			})
			return changed, err
		})
		if err != nil {
			return err
		}
		removed = removed || found
	}
	if !removed {
		return notFound
	}
	return nil
}

func (c *command) cannotRemove(spec, kind string) error {
	switch kind {
	case "fail":
		return fmt.Errorf("table %s: delete error: %w", spec, table.ErrApplication)
	case "texthash", "regexp", "pcre", "cidr":
		return fmt.Errorf("%s map requires O_RDONLY access mode", spec)
	}
	if _, err := table.Open(spec, c.tableOptions()); err != nil {
		return err
	}
	return fmt.Errorf("table %s: delete operation is not supported", spec)
}

// update changes an index file that exists.
func (c *command) update(path string, change func(*table.Index) (bool, error)) (bool, error) {
	unlock, err := table.LockIndex(path)
	if err != nil {
		return false, err
	}
	defer unlock()
	index, err := table.LoadIndex(path)
	if err != nil {
		return false, err
	}
	changed, err := change(index)
	if err != nil || !changed {
		return changed, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return false, err
	}
	return true, index.Save(path, info)
}
