package postilion_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// floors gives every folder its floor, longest prefix first wins. An import may go to a lower floor,
// to the same family (the same first folder), or along an arrow of sameFloor.
var floors = []struct {
	prefix string
	floor  int
}{
	{"cmd", 6},
	{"service", 5},
	{"web", 5},
	{"server", 4},
	{"mta", 3},
	{"filter", 3},
	{"store", 2},
	{"account", 2},
	{"table", 2},
	{"resolve", 2},
	{"kv", 1},
	{"config", 1},
	{"proto", 1},
	{"mail", 0},
	{"rx", 0},
}

// family tells which packages of one floor may know each other without an arrow in the map.
var family = map[string]bool{"cmd": true, "service": true, "web": true, "store": true, "account": true, "table": true, "kv": true, "mail": true, "rx": true}

// sameFloor lists the arrows within a floor that ARCHITECTURE.md draws.
var sameFloor = map[[2]string]bool{
	{"mta/deliver", "mta/route"}: true,
	{"mta/policy", "mta/route"}:  true,
	{"account", "table"}:         true,
	// LMTP is SMTP's session in another form.
	{"server/lmtpd", "server/smtpd"}: true,
	// What IMAP and POP3 share before and around a login.
	{"server/imapd", "server/login"}: true,
	{"server/pop3d", "server/login"}: true,
}

const (
	maxFileLines     = 650
	maxFunctionLines = 90
)

type sourceFile struct {
	path   string
	folder string
	fset   *token.FileSet
	syntax *ast.File
	lines  int
}

func sources(t *testing.T) []sourceFile {
	t.Helper()
	var files []sourceFile
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if base := d.Name(); name != "." && (strings.HasPrefix(base, ".") || base == "testdata" || base == "dist") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		fset := token.NewFileSet()
		syntax, err := parser.ParseFile(fset, name, text, parser.ParseComments)
		if err != nil {
			return err
		}
		files = append(files, sourceFile{
			path: filepath.ToSlash(name), folder: path.Dir(filepath.ToSlash(name)),
			fset: fset, syntax: syntax, lines: strings.Count(string(text), "\n"),
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func floorOf(folder string) (int, error) {
	for _, f := range floors {
		if folder == f.prefix || strings.HasPrefix(folder, f.prefix+"/") {
			return f.floor, nil
		}
	}
	return 0, fmt.Errorf("folder %s stands on no floor: draw it in ARCHITECTURE.md and name it in house_test.go", folder)
}

func allowed(from, to string) error {
	f, err := floorOf(from)
	if err != nil {
		return err
	}
	g, err := floorOf(to)
	if err != nil {
		return err
	}
	if g < f || sameFloor[[2]string{from, to}] {
		return nil
	}
	top := strings.SplitN(from, "/", 2)[0]
	if g == f && top == strings.SplitN(to, "/", 2)[0] && (family[top] || strings.HasPrefix(to, from+"/") || strings.HasPrefix(from, to+"/")) {
		return nil
	}
	return fmt.Errorf("%s (floor %d) may not import %s (floor %d)", from, f, to, g)
}

func TestImportsGoDown(t *testing.T) {
	for _, file := range sources(t) {
		if strings.HasPrefix(file.folder, "bench") {
			continue
		}
		for _, spec := range file.syntax.Imports {
			target, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			inner, ours := strings.CutPrefix(target, "postilion/")
			if target == "C" {
				t.Errorf("%s: cgo is never used", file.path)
			}
			if !ours || inner == file.folder {
				continue
			}
			if err := allowed(file.folder, inner); err != nil {
				t.Errorf("%s: %v", file.fset.Position(spec.Pos()), err)
			}
		}
	}
}

func TestAllowedArrows(t *testing.T) {
	for _, arrow := range []struct {
		from, to string
		ok       bool
	}{
		{"server/imapd", "store", true},
		{"store/vault", "store", true},
		{"store", "server/imapd", false},
		{"server/imapd", "server/smtpd", false},
		{"mail/mime", "config/postfix", false},
		{"proto/imap", "mail", true},
		{"nowhere", "mail", false},
	} {
		if err := allowed(arrow.from, arrow.to); (err == nil) != arrow.ok {
			t.Errorf("%s -> %s: %v", arrow.from, arrow.to, err)
		}
	}
}

func TestEveryPackageHasAComment(t *testing.T) {
	comments := map[string]string{}
	for _, file := range sources(t) {
		comments[file.folder] += file.syntax.Doc.Text()
	}
	folders := make([]string, 0, len(comments))
	for folder := range comments {
		folders = append(folders, folder)
	}
	slices.Sort(folders)
	for _, folder := range folders {
		if len(comments[folder]) < 60 {
			t.Errorf("package %s: its comment does not say what it is, what it is not and what it follows", folder)
		}
	}
}

func TestSizes(t *testing.T) {
	for _, file := range sources(t) {
		if file.lines > maxFileLines && !strings.HasPrefix(path.Base(file.path), "table_") {
			t.Errorf("%s: %d lines; at most %d", file.path, file.lines, maxFileLines)
		}
		for _, decl := range file.syntax.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok || f.Body == nil {
				continue
			}
			if f.Name.Name == "init" && f.Recv == nil {
				t.Errorf("%s: no init functions", file.fset.Position(f.Pos()))
			}
			if n := file.fset.Position(f.End()).Line - file.fset.Position(f.Pos()).Line; n > maxFunctionLines && !isPlainSwitch(f) {
				t.Errorf("%s: %s has %d lines; at most %d", file.fset.Position(f.Pos()), f.Name.Name, n, maxFunctionLines)
			}
		}
	}
}

// isPlainSwitch accepts a long function whose body is one table or switch, which reads as a list.
func isPlainSwitch(f *ast.FuncDecl) bool {
	long := 0
	for _, statement := range f.Body.List {
		switch statement.(type) {
		case *ast.SwitchStmt, *ast.TypeSwitchStmt, *ast.ReturnStmt:
			long++
		}
	}
	return long > 0 && len(f.Body.List) <= 3
}
