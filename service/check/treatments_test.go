package check

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"postilion/config/dovecot"
	"postilion/config/postfix"
)

// source is what the program's own code says about the settings it reads.
type source struct {
	// words are all string constants, accessed those that stand in a call of an accessor, kinds those in a call of Section or Sections.
	words, accessed, kinds map[string]bool
}

// accessors are the methods and functions that are given a setting's name in order to read it.
var accessors = []string{
	"String", "Bool", "Int", "Int64", "Duration", "Size", "List", "Value", "File", "Plugin", "sizeOrZero", "settled", "parameter",
}

// otherwise are words of the code that are settings' names and mean something else there.
var otherwise = map[string]string{
	"max_idle": "an option of check_policy_service", "service.type": "namespace.type", "mailbox.driver": "passdb.driver", "userdb.mechanisms": "passdb.mechanisms",
}

// withoutEffect are parameters and settings that the code reads and that make no difference yet, with what is missing.
var withoutEffect = map[string]string{
	"canonical_maps": "rewriting", "recipient_canonical_maps": "rewriting", "sender_canonical_maps": "rewriting",
	"resolve_null_domain": "route knows no such address", "resolve_numeric_domain": "route knows no such address",
	"smtpd_tls_req_ccert": "verification",

	"auth_debug": "debug lines", "mail_debug": "debug lines", "auth_ssl_require_client_cert": "a refusal", "userdb.skip": "found and notfound",
}

// elsewhere are settings that are read by way of a loop over names, or by a package below service.
var elsewhere = map[string]string{
	"protocols": "Config.Protocols", "ssl_key": "dovecotTLS", "ssl_alt_cert": "dovecotTLS", "ssl_alt_key": "dovecotTLS",
}

// parts are files of mta that count only when service makes what they hold.
var parts = map[string]string{"mta/policy/content.go": "NewContentChecks", "mta/policy/limits.go": "NewLimits"}

// idleParts are the files of parts that service makes nothing of.
func idleParts(t *testing.T) []string {
	t.Helper()
	var text strings.Builder
	files, err := filepath.Glob("../*.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("no sources of service: %v", err)
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text.Write(content)
	}
	var idle []string
	for file, maker := range parts {
		if !strings.Contains(text.String(), maker+"(") {
			idle = append(idle, file)
		}
	}
	return idle
}

func readSource(t *testing.T, roots ...string) source {
	t.Helper()
	idle := idleParts(t)
	s := source{map[string]bool{}, map[string]bool{}, map[string]bool{}}
	for _, root := range roots {
		err := filepath.WalkDir(filepath.Join("../..", root), func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() && d.Name() == "postconf" {
				return filepath.SkipDir
			}
			if name, inside := strings.CutPrefix(filepath.ToSlash(path), "../../"); inside && slices.Contains(idle, name) {
				return nil
			}
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err == nil {
				ast.Inspect(file, s.note)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func (s *source) note(n ast.Node) bool {
	if text, ok := constant(n); ok {
		s.words[text] = true
	}
	call, ok := n.(*ast.CallExpr)
	if !ok {
		return true
	}
	name := ""
	switch f := call.Fun.(type) {
	case *ast.SelectorExpr:
		name = f.Sel.Name
	case *ast.Ident:
		name = f.Name
	}
	for _, argument := range call.Args {
		text, ok := constant(argument)
		switch {
		case !ok:
		case name == "Section" || name == "Sections":
			s.kinds[text] = true
		case slices.Contains(accessors, name):
			s.accessed[text] = true
		}
	}
	return true
}

func constant(n ast.Node) (string, bool) {
	literal, ok := n.(*ast.BasicLit)
	if !ok || literal.Kind != token.STRING {
		return "", false
	}
	text, err := strconv.Unquote(literal.Value)
	return text, err == nil
}

var macroName = regexp.MustCompile(`\$[{(]?([a-z0-9_]+)`)

// withDefaults adds what the defaults of read parameters refer to.
func withDefaults(read map[string]bool) {
	var follow func(name string)
	follow = func(name string) {
		p, ok := postfix.Builtin().Lookup(name)
		if !ok {
			return
		}
		for _, m := range macroName.FindAllStringSubmatch(p.Default, -1) {
			if !read[m[1]] {
				read[m[1]] = true
				follow(m[1])
			}
		}
	}
	for name := range read {
		follow(name)
	}
}

// TestPostfixTreatments holds parameters.tsv to what the code reads, so that what check says of a parameter is true.
func TestPostfixTreatments(t *testing.T) {
	read := map[string]bool{}
	note := func(words map[string]bool) {
		for word := range words {
			if _, ok := postfix.Builtin().Lookup(word); ok && otherwise[word] == "" {
				read[word] = true
			}
		}
	}
	note(readSource(t, "service", "server/smtpd", "mta").words)
	note(readSource(t, "config/postfix", "table/tabletool").accessed)
	withDefaults(read)
	for _, name := range postfix.Builtin().Names() {
		p, _ := postfix.Builtin().Lookup(name)
		switch {
		case p.Treatment == postfix.Honoured && withoutEffect[name] != "":
			t.Errorf("%s is honoured by parameters.tsv and without effect here", name)
		case read[name] && p.Treatment != postfix.Honoured && !p.Past && withoutEffect[name] == "":
			t.Errorf("%s is read by the code; parameters.tsv says %q", name, p.Treatment)
		case !read[name] && p.Treatment == postfix.Honoured:
			t.Errorf("%s is honoured by parameters.tsv; nothing reads it", name)
		case p.Treatment == postfix.Honoured && p.Meaning == "":
			t.Errorf("%s is honoured and has no meaning in parameters.tsv", name)
		}
	}
}

// TestDovecotTreatments holds settings.tsv to what the code reads.
func TestDovecotTreatments(t *testing.T) {
	s := readSource(t, "service")
	for _, setting := range dovecot.Settings() {
		name := setting.Name
		read := s.accessed[name] && (setting.Section == "" || s.kinds[setting.Section]) && otherwise[setting.Section+"."+name] == "" ||
			setting.Section == "" && elsewhere[name] != ""
		missing := withoutEffect[strings.TrimPrefix(setting.Section+"."+name, ".")]
		switch {
		case setting.Treatment == dovecot.Honoured && missing != "":
			t.Errorf("%s.%s is honoured by settings.tsv and without effect here", setting.Section, name)
		case read && setting.Treatment != dovecot.Honoured && missing == "":
			t.Errorf("%s.%s is read by the code; settings.tsv says %q", setting.Section, name, setting.Treatment)
		case !read && setting.Treatment == dovecot.Honoured:
			t.Errorf("%s.%s is honoured by settings.tsv; nothing reads it", setting.Section, name)
		case setting.Treatment == dovecot.Honoured && setting.Meaning == "":
			t.Errorf("%s.%s is honoured and has no meaning in settings.tsv", setting.Section, name)
		}
	}
}
