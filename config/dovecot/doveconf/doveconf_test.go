package doveconf

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

// run gives exit code, errors, warnings and settings of one call in the form of the test files.
func run(t *testing.T, dir string, args []string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	env := Env{UserExists: func(name string) bool { return name != "nosuchuser" }}
	code := Run(append([]string{"-c", filepath.Join(dir, "dovecot.conf")}, args...), nil, &stdout, &stderr, env)
	lines := []string{"exit " + itoa(code)}
	seen := map[string]bool{}
	for _, l := range strings.Split(stderr.String(), "\n") {
		l = strings.ReplaceAll(l, dir+"/", "")
		if _, text, ok := strings.Cut(l, "Error in configuration file "); ok {
			l = "! Error in configuration file " + text
		} else if _, text, ok := strings.Cut(l, "Warning: "); ok {
			l = "? " + text
		} else {
			continue
		}
		if !seen[l] {
			seen[l] = true
			lines = append(lines, l)
		}
	}
	for _, l := range strings.Split(strings.TrimRight(stdout.String(), "\n"), "\n") {
		if l != "" && !strings.HasPrefix(l, "#") || l == "" && stdout.Len() > 1 {
			lines = append(lines, strings.ReplaceAll(l, dir+"/", ""))
		}
	}
	return strings.Join(lines, "\n") + "\n"
}

func itoa(n int) string {
	if n == exitConfig {
		return "89"
	}
	return string(rune('0' + n))
}

// The files hold configurations with what doveconf 2.3.19 says of them: "! " before errors, "? " before warnings.
func TestAsDoveconf(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no test files", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			for _, f := range archive.Files {
				args, isCall := strings.CutPrefix(f.Name, "doveconf")
				if !isCall {
					name := filepath.Join(dir, f.Name)
					if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
						t.Fatal(err)
					}
					if err := os.WriteFile(name, f.Data, 0o644); err != nil {
						t.Fatal(err)
					}
					continue
				}
				got := run(t, dir, strings.Fields(args))
				if want := string(f.Data); hintless(got) != want {
					t.Errorf("doveconf%s: got\n%swant\n%s", args, got, want)
				}
			}
		})
	}
}

var hint = regexp.MustCompile(`(?m)^(! .*?) \((Dovecot 1\.x|a setting of|!include )[^\n]*\)$`)

// hintless drops what we add to Dovecot's messages.
func hintless(text string) string { return hint.ReplaceAllString(text, "$1") }

func TestWholeOutput(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "dovecot.conf")
	if err := os.WriteFile(file, []byte("mail_debug = yes\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	env := Env{Hostname: "mx.example.com", System: "OS: test", Version: "9.9"}
	if code := Run([]string{"-nc", file}, nil, &stdout, &stderr, env); code != 0 || stderr.Len() > 0 {
		t.Fatal(code, stderr.String())
	}
	if want := "# 9.9: " + file + "\n# OS: test\n# Hostname: mx.example.com\nmail_debug = yes\n"; stdout.String() != want {
		t.Errorf("%q, want %q", stdout.String(), want)
	}
	stdout.Reset()
	if code := Run([]string{"-c", filepath.Join(dir, "none.conf"), "ssl"}, nil, &stdout, &stderr, env); code != exitConfig || !strings.Contains(stderr.String(), "doveconf: Fatal: open(") {
		t.Error(code, stderr.String())
	}
}

func TestAllMistakesAreTold(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "dovecot.conf")
	if err := os.WriteFile(file, []byte("mail_debug = maybe\nnosuch = 1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	code := Run([]string{"-c", file, "-n"}, nil, &stdout, &stderr, Env{})
	want := "doveconf: also: " + file + ":2: Unknown setting: nosuch\ndoveconf: Fatal: Error in configuration file " + file + " line 1: Invalid boolean value: maybe (use yes or no)\n"
	if code != exitConfig || stderr.String() != want {
		t.Errorf("%d %q, want %q", code, stderr.String(), want)
	}
}

func TestHideSecrets(t *testing.T) {
	for _, c := range []struct{ name, value, want string }{
		{"doveadm_password", "x", hiddenValue},
		{"ssl_dh", "<x", hiddenValue},
		{"mail_home", "x", ""},
		{"doveadm_password", "", ""},
		{"a", "key=v;x", "key=" + hiddenPart + ";x"},
		{"a", "http://u:p@h/", "http://" + hiddenPart + "@h/"},
		{"a", "nopassword=y", "nopassword=y"},
		{"a", "pass", "pass"},
		{"a", "https://h/x", "https://h/x"},
	} {
		got, hidden := hideSecrets(c.name, c.value)
		if got != c.want || hidden != (c.want != "") {
			t.Errorf("%s = %s: %q, %v; want %q", c.name, c.value, got, hidden, c.want)
		}
	}
}
