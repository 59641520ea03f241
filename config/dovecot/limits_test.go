package dovecot

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestLimits(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"line":     {"login_greeting = " + strings.Repeat("x", MaxLineLength), "the line is longer than"},
		"joined":   {strings.Repeat("login_greeting = "+strings.Repeat("x", 1000)+" \\\n", 1100), "the line is longer than"},
		"nesting":  {strings.Repeat("remote 10.0.0.0/8 {\n", MaxSectionDepth+2), "sections are nested more than"},
		"settings": {strings.Repeat("a=b\n", MaxSettings+2), "the configuration sets more than"},
		"growth":   {"login_greeting = " + strings.Repeat("x", 1000) + "\n" + strings.Repeat("login_greeting = $login_greeting $login_greeting\n", 20), "the value is longer than"},
		"braces":   {"!include " + strings.Repeat("{a,b}", 20) + "\n", "No matches"},
		"deep":     {"!include self/0.conf\n", "included more than"},
	} {
		t.Run(name, func(t *testing.T) {
			file := write(t, c.text)
			if name == "deep" {
				dir := filepath.Join(filepath.Dir(file), "self")
				if err := os.Mkdir(dir, 0o755); err != nil {
					t.Fatal(err)
				}
				for i := range MaxIncludeDepth + 2 {
					if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d.conf", i)), fmt.Appendf(nil, "!include %d.conf\n", i+1), 0o644); err != nil {
						t.Fatal(err)
					}
				}
			}
			_, err := Load(file)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%.300v, want %q", err, c.want)
			}
		})
	}
}

func TestFileSizeLimit(t *testing.T) {
	if _, err := Load(write(t, strings.Repeat("#\n", MaxFileSize/2+1))); err == nil || !strings.Contains(err.Error(), "is longer than") {
		t.Error(err)
	}
	load(t, strings.Repeat("#\n", MaxFileSize/2))
}

func TestManyMistakes(t *testing.T) {
	c, err := LoadWith(Options{File: write(t, strings.Repeat("nosuch = 1\n", 3*MaxDiagnostics))})
	if err == nil || len(c.Errors()) != MaxDiagnostics {
		t.Error(len(c.Errors()))
	}
}

func TestRecursiveInclude(t *testing.T) {
	_, err := Load(write(t, "!include a.conf\n", "a.conf", "!include dovecot.conf\n"))
	if err == nil || !strings.Contains(err.Error(), "a.conf:1: Recursive include file: ") {
		t.Error(err)
	}
}
