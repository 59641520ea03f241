package dovecot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Options say what is read and how. The zero value of all but File is what a server wants.
type Options struct {
	File      string   // the configuration file
	Overrides []string // "name=value" or "section/name/setting=value" of the command line's -o, applied last
	Hostname  string   // the host's name where "hostname" is not set; "": the system's

	// Unexpanded keeps $variables and "<file" values as they were written, as doveconf does without -x.
	Unexpanded bool
	// RequireFiles makes a "<file" value that cannot be read a mistake; else Check tells of it.
	RequireFiles bool
	// Modules are the parts of Dovecot whose files RequireFiles is about; none: all.
	Modules []string
	// DefaultsOnly reads no file at all.
	DefaultsOnly bool
	// Env gives environment variables for %{env:NAME}; nil: the process's own.
	Env func(name string) (string, bool)
	// ReadFile reads "<file" values; nil: from the disk.
	ReadFile func(path string) (string, error)
	// Open opens the configuration files, and "<file" values unless ReadFile is set; nil: os.Open.
	Open func(path string) (*os.File, error)
	// LookupHost resolves host names in local and remote; nil: the system's resolver.
	LookupHost func(ctx context.Context, host string) ([]netip.Addr, error)
	// UserExists tells whether the system knows a user; nil: not asked.
	UserExists func(name string) bool
}

// layer is what was set under one combination of filters.
type layer struct {
	filter Filter
	root   *node
	pos    Position
}

// frame is one open section.
type frame struct {
	layer  *layer
	node   *node // nil: the section is unknown or misplaced, and what stands in it is passed over
	key    string
	path   string // names of the open sections without filters, each followed by "/"
	filter bool
	pos    Position
}

type input struct {
	path string
	line int
	prev *input
}

type reader struct {
	opts     Options
	registry *registry
	layers   []*layer
	stack    []frame
	input    *input
	lines    lineParser
	errors   []Diagnostic
	warnings []Diagnostic
	first    map[string]Position // where a setting first stood inside a section
	old      oldGrammar
	modern   modernGrammar
	settings int
	files    int
	failed   bool // a limit was reached; nothing more is read
}

func newReader(opts Options, registry *registry) *reader {
	root := &layer{root: newNode("", "", Position{})}
	r := &reader{opts: opts, registry: registry, layers: []*layer{root}, first: map[string]Position{}}
	r.stack = []frame{{layer: root, node: root.root}}
	r.old.baseDir = "/run/dovecot"
	return r
}

func (r *reader) top() *frame { return &r.stack[len(r.stack)-1] }

func (r *reader) pos() Position { return Position{File: r.input.path, Line: r.input.line} }

func (r *reader) fail(setting, text string) { r.failHint(setting, text, "") }

func (r *reader) failHint(setting, text, hint string) {
	if len(r.errors) < MaxDiagnostics {
		r.errors = append(r.errors, Diagnostic{Severity: Error, Position: r.pos(), Setting: setting, Text: text, Hint: hint})
	}
}

// giveUp reports a limit and ends the reading.
func (r *reader) giveUp(text string) {
	if !r.failed {
		r.errors = r.errors[:min(len(r.errors), MaxDiagnostics-1)]
		r.fail("", text)
	}
	r.failed = true
}

func (r *reader) warn(setting, text string) {
	if len(r.warnings) < MaxDiagnostics {
		r.warnings = append(r.warnings, Diagnostic{Severity: Warning, Position: r.pos(), Setting: setting, Text: text, late: len(r.errors) > 0})
	}
}

// errno words the errors of the system as Dovecot's log does.
func errno(err error) string {
	var no syscall.Errno
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "No such file or directory"
	case errors.Is(err, fs.ErrPermission):
		return "Permission denied"
	case errors.As(err, &no) && no == syscall.EISDIR:
		return "Is a directory"
	}
	return err.Error()
}

// readLimited reads a file of at most MaxFileSize octets.
func (o *Options) readLimited(path string) (string, error) {
	open := o.Open
	if open == nil {
		open = os.Open
	}
	f, err := open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, MaxFileSize+1))
	if err != nil {
		return "", err
	}
	if len(text) > MaxFileSize {
		return "", fmt.Errorf("the file is longer than %d octets", MaxFileSize)
	}
	return string(text), nil
}

// readText reads the lines of one file, which r.input names. The last line needs no end; a CR before the end is dropped.
func (r *reader) readText(text string) {
	for text != "" && !r.failed {
		one, rest, _ := strings.Cut(text, "\n")
		text = rest
		r.input.line++
		r.readLine(strings.TrimSuffix(one, "\r"))
	}
}

func (r *reader) readLine(text string) {
	if len(text)+r.lines.joined.Len() > MaxLineLength {
		r.giveUp(fmt.Sprintf("the line is longer than %d octets", MaxLineLength))
		return
	}
	l := r.lines.parse(text)
	if l.ambiguous {
		r.warn("", "Ambiguous '#' character in line, treating it as comment. Add a space before it to remove this warning.")
	}
	if l.kind == lineSkip || l.kind == lineContinues {
		return
	}
	if r.settings++; r.settings > MaxSettings {
		r.giveUp(fmt.Sprintf("the configuration sets more than %d settings", MaxSettings))
		return
	}
	if r.modern.handle(r, &l) || r.old.handle(r, l) {
		return
	}
	r.apply(l)
}

func (r *reader) apply(l line) {
	switch l.kind {
	case lineMalformed:
		r.fail("", l.value)
	case lineValue, lineFile, lineVariable:
		r.set(l)
	case lineSectionBegin:
		r.begin(l.key, l.value)
	case lineSectionEnd:
		if len(r.stack) == 1 {
			r.fail("", "Unexpected '}'")
			return
		}
		r.stack = r.stack[:len(r.stack)-1]
	case lineInclude, lineIncludeTry:
		r.include(l.value, l.kind == lineIncludeTry)
	}
}

// sectionPath names the open sections for "Unknown setting: service { name".
func (r *reader) sectionPath(key string) string {
	var b strings.Builder
	for _, f := range r.stack {
		if !f.filter && f.key != "" {
			b.WriteString(f.key + " { ")
		}
	}
	return b.String() + key
}

func (r *reader) inNetworkFilter() bool { return r.top().layer.filter.hasNetwork() }

// isAuth tells whether the authentication server reads a setting; what it reads no address filter may change.
func isAuth(s *Setting) bool {
	switch s.Name {
	case "base_dir", "first_valid_uid", "last_valid_uid", "first_valid_gid", "last_valid_gid", "ssl_client_ca_dir", "ssl_client_ca_file", "verbose_proctitle":
		return s.Section == ""
	}
	return s.Section == "passdb" || s.Section == "userdb" || strings.HasPrefix(s.Name, "auth_") && s.Name != "auth_socket_path"
}

func (r *reader) set(l line) {
	f := r.top()
	r.noteOrder(f, l.key)
	if f.node == nil {
		return
	}
	if isList(f.node.kind) {
		if strings.Contains(l.key, "/") {
			r.unknown(l.key)
			return
		}
		if v, ok := r.valueOf(l, nil); ok {
			f.node.values[l.key] = v
		}
		return
	}
	s := r.registry.lookup(f.node.kind, l.key)
	if s == nil {
		r.unknown(l.key)
		return
	}
	if isAuth(s) && r.inNetworkFilter() {
		r.fail(l.key, "Auth settings not supported inside local/remote blocks: "+l.key)
		return
	}
	if v, ok := r.valueOf(l, s); ok {
		f.node.values[s.Name] = v
	}
}

func (r *reader) unknown(key string) {
	hint := r.modern.hint(key)
	if strings.HasPrefix(key, byteOrderMark) {
		hint = "the line begins with a byte order mark, which editors do not show: save the file as UTF-8 without one"
	}
	r.failHint(key, "Unknown setting: "+r.sectionPath(key), hint)
}

// byteOrderMark is U+FEFF in UTF-8.
const byteOrderMark = "\ufeff"

// noteOrder warns of a global setting below a filter that set the same: the filter keeps its value.
func (r *reader) noteOrder(f *frame, key string) {
	path := f.path + key
	first, seen := r.first[path]
	switch {
	case len(r.stack) > 1 && !seen:
		r.first[path] = r.pos()
	case len(r.stack) == 1 && seen:
		at := fmt.Sprintf("%s line %d", first.File, first.Line)
		r.warn(key, fmt.Sprintf("Global setting %s won't change the setting inside an earlier filter at %s "+
			"(if this is intentional, avoid this warning by moving the global setting before %s)", key, at, at))
	}
}

// valueOf makes the value of a line; s is nil for settings of any name. It reports what is wrong.
func (r *reader) valueOf(l line, s *Setting) (value, bool) {
	v := value{text: l.value, pos: r.pos()}
	switch l.kind {
	case lineFile:
		v.text = "<" + l.value
		v.path = r.relative(l.value)
		if !r.opts.Unexpanded {
			read := r.opts.ReadFile
			if read == nil {
				read = r.opts.readLimited
			}
			if v.contents, v.fileErr = read(v.path); v.fileErr != nil {
				v.fileErr = fmt.Errorf("%s: Can't open file %s: %s", r.fileKey(l.key), v.path, errno(v.fileErr))
				if r.opts.RequireFiles && r.wantsFile(l.key, s) {
					r.fail(l.key, v.fileErr.Error())
					return value{}, false
				}
			}
		}
	case lineVariable:
		text, err := r.variables(l.key, l.value)
		if err != nil {
			r.fail(l.key, err.Error())
			return value{}, false
		}
		v.text = text
	}
	if len(v.text) > MaxValueLength {
		r.fail(l.key, fmt.Sprintf("%s: the value is longer than %d octets", l.key, MaxValueLength))
		return value{}, false
	}
	if s == nil {
		return v, true
	}
	text := v.text
	if s.Type != String && v.path != "" && v.fileErr == nil && !r.opts.Unexpanded {
		text = strings.TrimSpace(v.contents)
		v.path = ""
	}
	text, err := s.normal(text)
	if err != nil {
		r.failHint(l.key, err.Error(), hintFor(err))
		return value{}, false
	}
	v.text = text
	return v, true
}

// fileKey is the name of a setting in messages about its file.
func (r *reader) fileKey(key string) string {
	if isList(r.top().node.kind) {
		return r.top().node.kind + "/0/" + key
	}
	return key
}

// wantsFile tells whether the modules that are asked for read the setting.
func (r *reader) wantsFile(key string, s *Setting) bool {
	if len(r.opts.Modules) == 0 {
		return true
	}
	if s == nil {
		s = r.registry.byKey[settingKey{"", "mail_location"}]
	}
	return s.inAnyModule(r.opts.Modules)
}

func hintFor(err error) string {
	if strings.HasSuffix(err.Error(), "is missing units (add e.g. 's' for seconds)") {
		return "Dovecot 1.x took the number as seconds"
	}
	return ""
}

// variables replaces words that begin with "$". A setting named in its own value means what holds so far and is always
// replaced; others only when values are expanded, by what this section sets or the default.
func (r *reader) variables(key, text string) (string, error) {
	words := strings.Split(text, " ")
	length := len(text)
	for i, word := range words {
		name, ok := strings.CutPrefix(word, "$")
		if !ok || r.opts.Unexpanded && name != key {
			continue
		}
		v, found := r.variable(name, name == key)
		if !found {
			return "", Refuse("Unknown variable: $%s", name)
		}
		words[i] = v
		if length += len(v); length > MaxValueLength {
			return "", fmt.Errorf("%s: the value is longer than %d octets with its variables", key, MaxValueLength)
		}
	}
	return strings.Join(words, " "), nil
}

func (r *reader) variable(name string, fromParents bool) (string, bool) {
	s := r.registry.lookup("", name)
	if s == nil {
		return "", false
	}
	for i := len(r.stack) - 1; i >= 0; i-- {
		if v, ok := r.stack[i].layer.root.values[s.Name]; ok {
			if r.opts.Unexpanded {
				return v.text, true
			}
			return v.string(), true
		}
		if !fromParents {
			break
		}
	}
	return s.Default, true
}

func (r *reader) begin(kind, name string) {
	if len(r.stack) > MaxSectionDepth {
		r.giveUp(fmt.Sprintf("sections are nested more than %d deep", MaxSectionDepth))
		return
	}
	outer := *r.top()
	f := frame{layer: outer.layer, key: kind, path: outer.path, pos: r.pos()}
	switch {
	case outer.node == nil:
	case isFilter(kind) && outer.node.kind == "":
		f.filter = true
		f.layer, f.node = r.filterLayer(outer.layer.filter, kind, name)
	default:
		f.node = r.section(&outer, kind, name)
		f.path = fmt.Sprintf("%s%s/%s/", outer.path, kind, name)
	}
	r.stack = append(r.stack, f)
}

func (r *reader) filterLayer(outer Filter, kind, name string) (*layer, *node) {
	filter, err := r.narrow(outer, kind, name)
	if err != nil {
		r.fail("", err.Error())
		return r.layers[0], nil
	}
	for _, l := range r.layers {
		if l.filter == filter && !filter.isZero() {
			return l, l.root
		}
	}
	l := &layer{filter: filter, root: newNode("", "", r.pos()), pos: r.pos()}
	r.layers = append(r.layers, l)
	return l, l.root
}

func (r *reader) section(outer *frame, kind, name string) *node {
	if isList(outer.node.kind) {
		r.fail("", "Section not allowed here")
		return nil
	}
	known := false
	for _, k := range sectionKinds[outer.node.kind] {
		known = known || k == kind
	}
	if !known {
		r.failHint(kind, "Unknown setting: "+r.sectionPath(kind+" { "+kind), r.modern.hint(kind))
		return nil
	}
	if (kind == "passdb" || kind == "userdb") && r.inNetworkFilter() {
		r.fail(kind, "Auth settings not supported inside local/remote blocks: "+kind)
		return nil
	}
	if isList(kind) {
		name = ""
	}
	if n := outer.node.child(kind, name); n != nil {
		if kind == "passdb" || kind == "userdb" {
			r.fail(kind, fmt.Sprintf("%s/%s already exists", kind, name))
		}
		return n
	}
	n := newNode(kind, name, r.pos())
	if kind == "passdb" || kind == "userdb" {
		n.values["name"] = value{text: name, pos: r.pos()}
	}
	outer.node.children = append(outer.node.children, n)
	return n
}

// relative takes a file name relative to the file that is read.
func (r *reader) relative(path string) string {
	if strings.HasPrefix(path, "/") {
		return path
	}
	dir, _ := filepath.Split(r.input.path)
	return dir + path
}

func (r *reader) include(pattern string, try bool) {
	pattern = r.relative(pattern)
	paths, err := expandGlob(pattern)
	if err != nil || len(paths) == 0 {
		if !try {
			r.failHint("", "No matches", "!include "+pattern+": there is no such file; !include_try would not mind")
		}
		return
	}
	for _, path := range paths {
		r.includeFile(path, try)
	}
}

func (r *reader) includeFile(path string, try bool) {
	depth := 0
	for in := r.input; in != nil; in = in.prev {
		if in.path == path {
			r.fail("", "Recursive include file: "+path)
			return
		}
		depth++
	}
	if r.files++; r.files > MaxFiles || depth > MaxIncludeDepth {
		r.giveUp(fmt.Sprintf("more than %d files, or files included more than %d deep", MaxFiles, MaxIncludeDepth))
		return
	}
	if st, err := os.Stat(path); err == nil && st.IsDir() {
		return
	}
	text, err := r.opts.readLimited(path)
	if err != nil {
		if !try {
			r.fail("", fmt.Sprintf("Couldn't open include file %s: %s", path, errno(err)))
		}
		return
	}
	r.input = &input{path: path, prev: r.input}
	r.readText(text)
	r.input = r.input.prev
}
