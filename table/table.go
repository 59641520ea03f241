// Package table looks keys up in the tables that main.cf names: "hash:/etc/postfix/virtual", "pcre:/etc/postfix/checks",
// "inline:{a=1}". It follows Postfix 3.7: DATABASE_README, regexp_table(5), pcre_table(5), cidr_table(5), aliases(5),
// tcp_table(5), socketmap_table(5), and the real program where the manual is silent.
//
// A lookup is literal: which keys an access map or an alias map tries, and in which order, is the caller's matter.
//
// # Indexed types
//
// hash, btree, lmdb, cdb, dbm and sdbm name a text source beside an index that postmap(1) writes. The index has a form of
// our own (see index.go) under the name that the real program would use; Berkeley DB and LMDB files are not read. When
// there is no index of ours the text source is read, so a table works before postmap has run; Options.RequireIndex
// turns that off. An index older than its source is used, with a warning, as Postfix does.
//
// # Reload
//
// A Table is a snapshot. Changed says whether the files behind it are other ones by now (device, inode, size or time);
// the service asks at reload, or when it likes, and opens the table anew. A table that could not be opened counts as
// changed.
package table

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/cases"
)

// Table answers lookups. It may be used by any number of goroutines at once.
type Table interface {
	// Lookup returns the value of key. An error is temporary: the client is asked to try again (451 4.3.0).
	Lookup(ctx context.Context, key string) (value string, found bool, err error)
	// Find is Lookup that also tells where the entry stands.
	Find(ctx context.Context, key string) (entry Entry, found bool, err error)
	// Spec is the "type:name" that the table was opened with.
	Spec() string
	// Pattern says that entries are patterns or answers are computed: such a table is asked for whole keys only, never
	// for parts of an address or a parent domain.
	Pattern() bool
}

// Entry is what a lookup found.
type Entry struct {
	Value string
	// Source is "file:line" of the entry that decided, or the specification for tables that are no files.
	Source string
}

// Options is what the configuration adds to a specification. The zero value suits a server.
type Options struct {
	// Directory is where relative file names begin; empty means the working directory.
	Directory string
	// Aliases makes text sources be read in the form of aliases(5).
	Aliases bool
	// NoFold keeps keys of fixed-string tables from being folded to lower case.
	NoFold bool
	// NoUTF8 takes keys and values as bytes: no check that they are UTF-8, folding of ASCII only (smtputf8_enable = no).
	NoUTF8 bool
	// ValuesAreFiles takes values as file names and answers with the files' contents (postmap -F).
	ValuesAreFiles bool
	// RequireIndex refuses indexed types that have no index.
	RequireIndex bool
	// Warn receives what Postfix would log as a warning; nil drops it.
	Warn func(text string)
	// Lint receives what is valid but most likely does not mean what it seems to; nil drops it.
	Lint func(text string)
	// Getenv is the environment of environ tables; nil means an empty one.
	Getenv func(name string) string
	// OpenFile opens table files for reading; nil: os.Open.
	OpenFile func(path string) (*os.File, error)

	depth int
}

func (o *Options) warn(format string, args ...any) {
	if o.Warn != nil {
		o.Warn(fmt.Sprintf(format, args...))
	}
}

func (o *Options) path(name string) string {
	if o.Directory == "" || filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(o.Directory, name)
}

// Limits of what is read.
const (
	// MaxFileSize is the greatest table file in bytes.
	MaxFileSize = 512 << 20
	// MaxLine is the greatest logical line in bytes.
	MaxLine = 1 << 20
	// MaxEntries is the greatest number of entries of one table.
	MaxEntries = 20_000_000
	// MaxKey is the greatest key in bytes; a longer one is not found.
	MaxKey = 1 << 20
	// MaxNesting is the greatest depth of tables that name tables.
	MaxNesting = 16
)

// OpenError tells that a table cannot be used. Its text is Postfix's.
type OpenError struct {
	Spec string
	Err  error
}

func (e *OpenError) Error() string { return e.Err.Error() }

// Unwrap gives the cause.
func (e *OpenError) Unwrap() error { return e.Err }

// QueryError tells that a lookup failed.
type QueryError struct {
	Spec string
	Err  error
}

func (e *QueryError) Error() string { return fmt.Sprintf("table %s: query error: %v", e.Spec, e.Err) }

// Unwrap gives the cause.
func (e *QueryError) Unwrap() error { return e.Err }

// ErrApplication is the cause of every failure of a fail: table.
//
//lint:ignore ST1005 the text is what scripts see
var ErrApplication = errors.New("Application error")

// finder is one type of table.
type finder interface {
	find(ctx context.Context, key string) (answer, bool, error)
}

// answer is an entry whose place is written out only when somebody asks for it.
type answer struct {
	value string
	path  string
	line  int      // 0: the path is the whole place
	parts []answer // the answers that this one is made of
}

func (a answer) source() string {
	switch {
	case len(a.parts) > 0:
		sources := make([]string, len(a.parts))
		for i, part := range a.parts {
			sources[i] = part.source()
		}
		return strings.Join(sources, " ")
	case a.line > 0:
		return a.path + ":" + strconv.Itoa(a.line)
	}
	return a.path
}

// lister is a finder that can list its entries.
type lister interface {
	each(yield func(key, value string) bool)
}

// opened is the one implementation of Table: a finder with what all types share.
type opened struct {
	spec    string
	finder  finder
	pattern bool
	fold    bool
	utf8    bool
	warn    func(string)
	files   []stamp
	file    func(path string) (*os.File, error)
}

// Open opens a table. The error is an *OpenError.
func Open(spec string, options Options) (Table, error) {
	t, err := open(spec, options)
	if err != nil {
		return nil, err
	}
	return t, nil
}

func open(spec string, options Options) (*opened, error) {
	kind, name, ok := strings.Cut(spec, ":")
	if !ok || kind == "" || name == "" {
		return nil, &OpenError{spec, fmt.Errorf("open dictionary: expecting \"type:name\" form instead of %q", spec)}
	}
	if options.depth++; options.depth > MaxNesting {
		return nil, &OpenError{spec, fmt.Errorf("table %.40s...: tables are nested deeper than %d", spec, MaxNesting)}
	}
	t := &opened{spec: spec, utf8: !options.NoUTF8, warn: options.Warn, file: options.OpenFile}
	if t.file == nil {
		t.file = os.Open
	}
	if err := t.open(kind, name, &options); err != nil {
		var open *OpenError
		if errors.As(err, &open) {
			return nil, err
		}
		return nil, &OpenError{spec, err}
	}
	return t, nil
}

// OpenLazily opens a table, or gives one whose every lookup fails with the reason why it could not be opened.
func OpenLazily(spec string, options Options) Table {
	t, err := Open(spec, options)
	if err != nil {
		return Broken(spec, err)
	}
	return t
}

// Broken gives a table whose every lookup fails with err.
func Broken(spec string, err error) Table { return &opened{spec: spec, finder: broken{err}} }

type broken struct{ err error }

func (b broken) find(context.Context, string) (answer, bool, error) { return answer{}, false, b.err }

// nothing is a map of a NIS domain that is not set, which is what every host without NIS has. The default
// alias_maps names one, so no warning is made of it.
type nothing struct{}

func (nothing) find(context.Context, string) (answer, bool, error) { return answer{}, false, nil }

// open finds the type. Types whose keys are fixed strings fold them unless told otherwise.
func (t *opened) open(kind, name string, options *Options) (err error) {
	fold := !options.NoFold
	switch kind {
	case "texthash":
		t.fold = fold
		err = t.openText(name, options)
	case "hash", "btree", "lmdb", "cdb", "dbm", "sdbm":
		t.fold = fold
		err = t.openIndexed(kind, name, options)
	case "regexp", "pcre":
		t.pattern = true
		err = t.openPatterns(kind, name, options)
	case "cidr":
		t.pattern = true
		err = t.openCIDR(name, options)
	case "inline":
		t.fold = fold
		err = t.openInline(name, options)
	case "static":
		t.pattern = true
		err = t.openStatic(name, options)
	case "fail":
		t.pattern = true
		t.finder = broken{ErrApplication}
	case "nis":
		t.finder = nothing{}
	case "environ":
		t.fold = fold
		t.finder = environ{options.Getenv, t.spec}
	case "unix":
		t.fold = fold
		err = t.openUnix(name)
	case "unionmap", "pipemap":
		t.pattern = true
		err = t.openCombined(kind, name, options)
	case "randmap":
		t.pattern = true
		err = t.openRandom(name)
	case "proxy":
		err = t.openProxied(name, options)
	case "tcp":
		t.pattern = true
		err = t.openTCP(name)
	case "socketmap":
		t.pattern = true
		err = t.openSocketmap(name)
	default:
		return fmt.Errorf("unsupported dictionary type: %s", kind)
	}
	return err
}

// Types lists the types that Open knows.
func Types() []string {
	return []string{
		"btree", "cdb", "cidr", "dbm", "environ", "fail", "hash", "inline", "lmdb", "nis", "pcre", "pipemap", "proxy", "randmap",
		"regexp", "sdbm", "socketmap", "static", "tcp", "texthash", "unionmap", "unix",
	}
}

func (t *opened) Spec() string  { return t.spec }
func (t *opened) Pattern() bool { return t.pattern }

func (t *opened) Lookup(ctx context.Context, key string) (string, bool, error) {
	a, found, err := t.ask(ctx, key)
	return a.value, found, err
}

func (t *opened) Find(ctx context.Context, key string) (Entry, bool, error) {
	a, found, err := t.ask(ctx, key)
	if !found || err != nil {
		return Entry{}, false, err
	}
	return Entry{Value: a.value, Source: a.source()}, true, nil
}

// ask prepares the key, and makes errors name the table.
func (t *opened) ask(ctx context.Context, key string) (answer, bool, error) {
	if len(key) > MaxKey {
		return answer{}, false, nil
	}
	if t.utf8 && !utf8.ValidString(key) {
		t.warning(fmt.Sprintf("%s: non-UTF-8 key \"%s\": malformed UTF-8 or invalid codepoint", t.spec, Printable(key)))
		return answer{}, false, nil
	}
	if t.fold {
		key = foldKey(key, t.utf8)
	}
	a, found, err := t.finder.find(ctx, key)
	if err == nil {
		return a, found, nil
	}
	var open *OpenError
	var query *QueryError
	if errors.As(err, &open) {
		return answer{}, false, err
	}
	if errors.As(err, &query) {
		err = query.Err
	}
	return answer{}, false, &QueryError{t.spec, err}
}

// foldKey folds to lower case, beyond ASCII only when the bytes are known to be UTF-8.
func foldKey(key string, wide bool) string {
	for i := range len(key) {
		if c := key[i]; c >= utf8.RuneSelf && wide {
			return cases.Fold().String(key)
		} else if 'A' <= c && c <= 'Z' {
			return foldFrom(key, i, wide)
		}
	}
	return key
}

func foldFrom(key string, from int, wide bool) string {
	out := []byte(key)
	for i := from; i < len(out); i++ {
		if out[i] >= utf8.RuneSelf && wide {
			return cases.Fold().String(key)
		}
		if 'A' <= out[i] && out[i] <= 'Z' {
			out[i] += 'a' - 'A'
		}
	}
	return string(out)
}

// Printable replaces control characters and bytes that are not UTF-8 by question marks, for messages.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == utf8.RuneError {
			return '?'
		}
		return r
	}, s)
}

// ErrNoList is returned by Each for types that cannot list their entries.
var ErrNoList = errors.New("sequence operation is not supported")

// Each calls yield for every entry, until it returns false.
func Each(t Table, yield func(key, value string) bool) error {
	if o, ok := t.(*opened); ok {
		if l, ok := o.finder.(lister); ok {
			l.each(yield)
			return nil
		}
		if b, ok := o.finder.(broken); ok {
			return b.err
		}
	}
	return fmt.Errorf("table %s: %w", t.Spec(), ErrNoList)
}

// FoldKey folds a key as a fixed-string table opened with options does.
func FoldKey(key string, options *Options) string {
	if options.NoFold {
		return key
	}
	return foldKey(key, !options.NoUTF8)
}
