package postfix

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// Options say what to load, and what to ask instead of the machine in tests.
type Options struct {
	Dir string // holds main.cf and master.cf
	// Overrides are name=value settings that count before main.cf, as -o on a command line.
	Overrides []string
	// AllowMissing takes an absent main.cf or master.cf for an empty one.
	AllowMissing bool
	// IgnoreMain leaves main.cf unread, as if it were empty, for those who ask for defaults only.
	IgnoreMain bool
	// Hostname gives the machine's name; nil: the system's.
	Hostname func() (string, error)
	// Interfaces gives the machine's addresses with their masks; nil: the system's.
	Interfaces func() ([]netip.Prefix, error)
	// Registry holds the known parameters; nil: Builtin.
	Registry *Registry
	// Open opens the files for reading; nil: os.Open.
	Open func(path string) (*os.File, error)
	// ProcessName is the value of process_name for main.cf's own view; empty: "postilion".
	ProcessName string
}

// Config is a main.cf and a master.cf. It does not change after it is loaded and may be used by many goroutines.
type Config struct {
	dir         string
	options     Options
	registry    *Registry
	main        *mainFile // overrides included
	set         *mainFile // what the program sets itself
	services    []*Service
	made        map[string]*Parameter // by the names of services
	view        *View
	diagnostics []Diagnostic
	network     networkFacts
}

// Load reads main.cf and master.cf of a directory. A file that is missing or malformed is an error, as in Postfix; a bad value is
// reported by Check.
func Load(dir string) (*Config, error) { return LoadWith(Options{Dir: dir}) }

// LoadWith is Load with options.
func LoadWith(opts Options) (*Config, error) {
	c := &Config{dir: opts.Dir, options: opts, registry: opts.Registry, made: map[string]*Parameter{}}
	if c.registry == nil {
		c.registry = Builtin()
	}
	text, err := c.read("main.cf")
	if err != nil {
		return nil, err
	}
	if c.main, err = parseMain(c.MainFile(), text); err != nil {
		return nil, err
	}
	c.diagnostics = append(c.diagnostics, c.main.diagnostics...)
	for _, override := range opts.Overrides {
		name, value, err := SplitNameValue(override)
		if err != nil {
			return nil, fmt.Errorf("invalid parameter override: %s: %w", override, err)
		}
		c.main.set(entry{name, value, Position{File: "(command line)"}})
	}
	if text, err = c.read("master.cf"); err != nil {
		return nil, err
	}
	services, diagnostics, err := parseMaster(c.MasterFile(), text)
	if err != nil {
		return nil, err
	}
	c.services = services
	c.diagnostics = append(c.diagnostics, diagnostics...)
	c.assemble()
	return c, nil
}

func (c *Config) read(name string) ([]byte, error) {
	path := strings.TrimSuffix(c.dir, "/") + "/" + name
	if name == "main.cf" && c.options.IgnoreMain {
		return nil, nil
	}
	open := c.options.Open
	if open == nil {
		open = os.Open
	}
	file, err := open(path)
	if errors.Is(err, fs.ErrNotExist) && c.options.AllowMissing {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() > MaxFileSize {
		return nil, fmt.Errorf("%s: %w of %d bytes", path, ErrTooLarge, MaxFileSize)
	}
	text, err := io.ReadAll(io.LimitReader(file, MaxFileSize))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return text, nil
}

// assemble makes the views once all files are read.
func (c *Config) assemble() {
	process := c.options.ProcessName
	if process == "" {
		process = "postilion"
	}
	c.set = &mainFile{last: map[string]int{}}
	c.set.set(entry{name: "config_directory", value: c.dir, pos: Position{File: "(command line)"}})
	for _, s := range c.services {
		for _, p := range serviceParameters(s, c.registry) {
			if c.made[p.Name] == nil {
				c.made[p.Name] = p
			}
		}
	}
	c.view = newView(c, "", c.main, c.set, processNames(process, ""))
	oldDefaults := !c.view.Level().AtLeast(Level{Major: 1})
	for _, s := range c.services {
		s.config = c
		if s.Raw[FieldChroot] == "-" {
			s.Chroot = oldDefaults
		}
		s.view = newView(c, s.Name+"/"+s.Type, s.made, c.main, c.set, processNames(s.Command, s.Name))
	}
}

func processNames(process, service string) *mainFile {
	m := &mainFile{last: map[string]int{}}
	m.set(entry{name: "process_name", value: process})
	m.set(entry{name: "service_name", value: service})
	m.set(entry{name: "process_id", value: strconv.Itoa(os.Getpid())})
	return m
}

// Dir gives the directory that was loaded.
func (c *Config) Dir() string { return c.dir }

// MainFile gives the path of main.cf.
func (c *Config) MainFile() string { return strings.TrimSuffix(c.dir, "/") + "/main.cf" }

// MasterFile gives the path of master.cf.
func (c *Config) MasterFile() string { return strings.TrimSuffix(c.dir, "/") + "/master.cf" }

// View gives main.cf's values.
func (c *Config) View() *View { return c.view }

// Services gives the entries of master.cf in order.
func (c *Config) Services() []*Service { return c.services }

// Service gives the first entry of that name and type.
func (c *Config) Service(name, kind string) (*Service, bool) {
	for _, s := range c.services {
		if s.Name == name && s.Type == kind {
			return s, true
		}
	}
	return nil, false
}

// Parameter gives what is known about a name: built in, or made by a service of master.cf.
func (c *Config) Parameter(name string) (*Parameter, bool) {
	if p, ok := c.registry.Lookup(name); ok {
		return p, true
	}
	p, ok := c.made[name]
	return p, ok
}
