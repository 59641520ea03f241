package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"postilion/config/dovecot"
	"postilion/config/postfix"
)

// TestPages holds every command and file to having a whole page.
func TestPages(t *testing.T) {
	seen := map[string]bool{}
	for _, page := range allPages() {
		if seen[page.Name] {
			t.Errorf("%s has two pages", page.Name)
		}
		seen[page.Name] = true
		if page.Summary == "" || strings.HasSuffix(page.Summary, ".") || page.Description == "" || len(page.Synopsis) == 0 {
			t.Errorf("%s: summary %q (no stop), %d synopses, description of %d bytes", page.Name, page.Summary, len(page.Synopsis), len(page.Description))
		}
		for _, line := range page.Synopsis {
			for word := range strings.FieldsSeq(strings.NewReplacer("[", " ", "]", " ").Replace(line)) {
				if strings.HasPrefix(word, "--") && !slices.Contains(optionWords(page), word) {
					t.Errorf("%s: option %s is not explained", page.Name, word)
				}
			}
		}
		if c := find(commands(), page.Name); c != nil && !c.unix && (len(page.Exit) == 0 || len(page.Examples) == 0) {
			t.Errorf("%s: %d exit statuses, %d examples", page.Name, len(page.Exit), len(page.Examples))
		}
	}
}

// TestEverySettingHasAnEntry compares the pages of main.cf and dovecot.conf with the registries.
func TestEverySettingHasAnEntry(t *testing.T) {
	entries := map[string]string{}
	for _, page := range filePages() {
		for _, e := range page.Entries {
			entries[page.Name+" "+e.Term] = e.Text
		}
	}
	for _, name := range postfix.Builtin().Names() {
		p, _ := postfix.Builtin().Lookup(name)
		text := entries["main.cf "+name]
		switch {
		case text == "" && !p.Past:
			t.Errorf("main.cf(5) lacks %s", name)
		case p.Treatment == postfix.Honoured && p.Meaning == "":
			t.Errorf("%s is honoured and has no meaning", name)
		case p.Treatment == postfix.NotYet && !p.Past && !strings.Contains(text, "No effect"):
			t.Errorf("main.cf(5) does not say that %s has no effect", name)
		}
	}
	for _, s := range dovecot.Settings() {
		term := settingEntry(s).Term
		if entries["dovecot.conf "+term] == "" {
			t.Errorf("dovecot.conf(5) lacks %s", term)
		}
	}
}

// TestManualLints has every page formatted by the programs that are there.
func TestManualLints(t *testing.T) {
	dir := t.TempDir()
	if err := writeManual(dir); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "man*", "*"))
	if err != nil || len(files) != len(allPages()) {
		t.Fatalf("%d files for %d pages: %v", len(files), len(allPages()), err)
	}
	linted := false
	for _, lint := range [][]string{{"mandoc", "-T", "lint", "-W", "error"}, {"groff", "-man", "-ww", "-z", "-K", "utf8"}} {
		if _, err := exec.LookPath(lint[0]); err != nil {
			continue
		}
		linted = true
		for _, file := range files {
			out, err := exec.Command(lint[0], append(lint[1:], file)...).CombinedOutput()
			// That a long word leaves no blanks to adjust is the typesetter's matter.
			complaints := slices.DeleteFunc(strings.Split(strings.TrimSpace(string(out)), "\n"), func(line string) bool {
				return line == "" || strings.Contains(line, "adjust line") || strings.Contains(line, "can't break line") || strings.Contains(line, "cannot break line")
			})
			if err != nil || len(complaints) > 0 {
				t.Errorf("%s %s: %v\n%s", lint[0], filepath.Base(file), err, strings.Join(complaints, "\n"))
			}
		}
	}
	if !linted {
		t.Skip("neither mandoc nor groff is installed")
	}
}

// TestCompletionScripts lets each shell that is there parse its script.
func TestCompletionScripts(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		script, ok := completionScript(shell)
		if !ok || !strings.Contains(script, "quickstart") || !strings.Contains(script, "port-base") {
			t.Errorf("the script for %s lacks quickstart or its options", shell)
		}
		if _, err := exec.LookPath(shell); err != nil {
			t.Logf("%s is not installed", shell)
			continue
		}
		file := filepath.Join(t.TempDir(), "script")
		if err := os.WriteFile(file, []byte(script), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(shell, "-n", file).CombinedOutput(); err != nil {
			t.Errorf("%s -n: %v\n%s", shell, err, out)
		}
	}
}

// TestBashCompletes asks the script what it would offer.
func TestBashCompletes(t *testing.T) {
	if _, err := exec.LookPath("bash"); err != nil {
		t.Skip("bash is not installed")
	}
	script, _ := completionScript("bash")
	for words, want := range map[string]string{"postilion qui": "quickstart", "postilion quickstart --o": "--once", "postilion check --st": "--strict"} {
		fields := strings.Fields(words)
		shell := exec.Command("bash", "-c", script+`
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _postilion; printf '%s\n' "${COMPREPLY[@]}"`, "-")
		shell.Args = append(shell.Args, fields...)
		out, err := shell.Output()
		if err != nil || strings.TrimSpace(string(out)) != want {
			t.Errorf("%s: offered %q, %v, want %s", words, out, err, want)
		}
	}
}

func TestOptions(t *testing.T) {
	var dir string
	var all bool
	set := optionSet{texts: map[string]*string{"-c": &dir}, flags: map[string]*bool{"--all": &all}}
	rest, err := set.parse([]string{"a", "-c", "d", "--all", "--", "--b"})
	if err != nil || dir != "d" || !all || !slices.Equal(rest, []string{"a", "--b"}) {
		t.Errorf("parse: %v %v %q %v", rest, err, dir, all)
	}
	for arguments, want := range map[string]string{"--al": "did you mean --all?", "-c": "needs a value", "--nothing-like-it": "unknown option", "--all=no": "unknown option"} {
		if _, err := set.parse([]string{arguments}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", arguments, err, want)
		}
	}
}

// TestHelpOfEveryPage writes each page for a terminal.
func TestHelpOfEveryPage(t *testing.T) {
	for _, page := range allPages() {
		var b bytes.Buffer
		if err := page.Help(&b); err != nil || !strings.HasPrefix(b.String(), page.Name+" - ") {
			t.Errorf("help of %s: %v", page.Name, err)
		}
	}
}
