package tabletool_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"postilion/table"
	"postilion/table/tabletool"
)

// parameters are plain "name = value" lines of a main.cf.
type parameters map[string]string

func (p parameters) Value(name string) (string, bool) {
	value, ok := p[name]
	return value, ok
}

func load(dir string) (tabletool.Parameters, error) {
	p := parameters{}
	if dir == "" {
		return p, nil
	}
	path := filepath.Join(dir, "main.cf")
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, table.SystemError(err))
	}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, "=")
		p[strings.TrimSpace(name)] = strings.TrimSpace(value)
	}
	return p, nil
}

func invocation(args []string) tabletool.Invocation {
	return tabletool.Invocation{Args: args, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv, Load: load}
}

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"postmap":   func() { os.Exit(tabletool.Postmap(invocation(os.Args[1:]))) },
		"postalias": func() { os.Exit(tabletool.Postalias(invocation(os.Args[1:]))) },
	})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata/script"})
}

// result is what a command did.
type result struct {
	status int
	stdout string
	stderr []string // lines, sorted, each once
}

func linesOf(text string) []string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	slices.Sort(lines)
	return slices.Compact(lines)
}

func ours(dir string, args ...string) result {
	var stdout, stderr bytes.Buffer
	in := tabletool.Invocation{Args: append([]string{"-c", dir}, args...), Stdin: strings.NewReader(""), Stdout: &stdout, Stderr: &stderr, Getenv: func(string) string { return "" }, Load: load}
	status := tabletool.Postmap(in)
	return result{status, stdout.String(), linesOf(stderr.String())}
}

// realPostmap finds the installed program. PATH is no help: testscript puts our own commands there.
func realPostmap() string {
	for _, path := range []string{"/usr/sbin/postmap", "/usr/local/sbin/postmap"} {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return ""
}

func theirs(t *testing.T, dir string, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	command := exec.Command(realPostmap(), append([]string{"-c", dir}, args...)...)
	command.Stdout, command.Stderr = &stdout, &stderr
	err := command.Run()
	status := 0
	if err != nil {
		exit, ok := err.(*exec.ExitError)
		if !ok {
			t.Fatal(err)
		}
		status = exit.ExitCode()
	}
	return result{status, stdout.String(), linesOf(stderr.String())}
}

var ruleLines = map[string][]string{
	"texthash": strings.Split(`a 1|b  2 |"c d" 3|c x|A up|  lead 4|# note|	cont|lonely|"open 5|k: v|é 6|"q\"r" 7|x"y z" 8|"" 9|a	tab|`+"\xff bad", "|"),
	"regexp":   strings.Split(`/a/ 1~/^b$/i 2~/(a)(b)?/ <$1$2>~!/c/ not~if /a/~if !/b/~endif~endif x~/x(/ 3~/[z-a]/ 4~/a/q 5~/(a)/ $2~/(a)/ ${1}x$(1) $$~/b/ $1~!/(a)/ $1~/a/m y~/A/i A~/a/!/b/ butnot~if /a/ trailing~ifx~/a{2}/ two~/a\+/ plus~/a/x bre~/a\{2\}/x bretwo~  /lead/~#c~/no end~/\// slash~|a/b| bar~if~/a b/ sp~/(/x paren~/a*?/ odd~/\bb\b/ word~/$/ $~/a/~/a/ ${1~/a/ $x~/[[:alpha:]]+/ alpha~/\s/ space~if /b/i~`, "~"),
	"pcre":     strings.Split(`/a/ 1~/^b$/i 2~/(a)(b)?/ <$1$2>~!/c/ not~if /a/~if !/b/~endif~endif x~/x(/ 3~/[z-a]/ 4~/a/q 5~/(a)/ $2~/(?=a)./ look~/(?<n>b)/ n=$1~/a/X x~/a/A anch~/a$/E end~/a+?/U un~/ a b /x ext~/a.b/s dots~/\d+/ num~/(?<=a+)b/ lb~/\p{Lu}/ upper~/(?i)A/i both~/^\Qa.b\E/ q~/(a)\1/ $1~/(?R)/ rec~/a{2,1}/ bad~/\x{41}/ hex~/(?<!x)b/ nlb~if /b/m~`, "~"),
	"cidr":     strings.Split(`1.2.3.4 host~1.2.3.0/24 net~!1.2.3.0/24 other~if 1.0.0.0/8~if !1.0.0.0/8~endif~endif x~::1 six~2001:db8::/32 v6~1.2.3.4/24 bits~1.2.3.4/33 len~1.2.3/8 short~300.1.1.1 big~1.2.3.4/x mask~1.2.3.4~[1.2.3.4] br~[::1]/128 br6~[::1 open~::/0 any6~0.0.0.0/0 any4~name x~if~  1.1.1.1 lead~#c~! 5.5.5.5 sp~01.2.3.4 oct~1.2.3.4/ slash~::ffff:1.2.3.4 mapped~fe80::1%lo zone~if 9.9.9.9 extra`, "~"),
}

var queryKeys = map[string][]string{
	"texthash": {"a", "A", `"c d"`, "c", "k:", "é", "", "x"},
	"regexp":   {"a", "b", "ab", "B", "aab", "a/b", "x b y", "", "a+", "c"},
	"pcre":     {"a", "b", "ab", "B", "aab", "a.b", "12", "", "aa", "c"},
	"cidr":     {"1.2.3.4", "1.2.3.5", "9.9.9.9", "::1", "2001:db8::9", "name", "::ffff:1.2.3.4"},
}

// unlike holds texts in which we differ from the real program on purpose: what PCRE2 can do and rx refuses.
var unlike = []string{"(?R)"}

// TestAgainstRealPostmap asks generated tables the same questions as the real postmap.
func TestAgainstRealPostmap(t *testing.T) {
	if realPostmap() == "" {
		t.Skip("postmap is not installed: no comparison with the real program")
	}
	dir := t.TempDir()
	config := "compatibility_level = 3.7\nmyhostname = mail.example.com\nqueue_directory = " + dir + "\nmaillog_file =\n"
	for name, text := range map[string]string{"main.cf": config, "master.cf": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	rounds := 60
	if testing.Short() {
		rounds = 5
	}
	r := rand.New(rand.NewPCG(3, 4))
	for _, kind := range []string{"texthash", "regexp", "pcre", "cidr"} {
		lines := slices.DeleteFunc(slices.Clone(ruleLines[kind]), func(line string) bool {
			return slices.ContainsFunc(unlike, func(text string) bool { return strings.Contains(line, text) })
		})
		for range rounds {
			var text strings.Builder
			for range 1 + r.IntN(6) {
				text.WriteString(lines[r.IntN(len(lines))] + "\n")
			}
			path := filepath.Join(dir, "t")
			if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
				t.Fatal(err)
			}
			// The real program waits until a file is older than a second before it trusts it.
			past := time.Now().Add(-time.Hour)
			if err := os.Chtimes(path, past, past); err != nil {
				t.Fatal(err)
			}
			key := queryKeys[kind][r.IntN(len(queryKeys[kind]))]
			args := []string{"-q", key, kind + ":" + path}
			want, got := theirs(t, dir, args...), ours(dir, args...)
			if want.status != got.status || want.stdout != got.stdout || !slices.Equal(want.stderr, got.stderr) {
				t.Errorf("%s table %q, key %q:\n they say %d %q %q\n we say   %d %q %q", kind, text.String(), key,
					want.status, want.stdout, want.stderr, got.status, got.stdout, got.stderr)
			}
		}
	}
}
