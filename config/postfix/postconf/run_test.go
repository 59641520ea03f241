package postconf

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func command(t *testing.T, main, master string, args ...string) (code int, stdout, stderr, mainAfter, masterAfter string) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"main.cf": main, "master.cf": master} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	var out, diagnostics bytes.Buffer
	code = Run(append([]string{"-c", dir}, args...), strings.NewReader(""), &out, &diagnostics, func(string) string { return "" })
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	clean := func(s string) string { return strings.ReplaceAll(s, dir, "DIR") }
	return code, clean(out.String()), clean(diagnostics.String()), read("main.cf"), read("master.cf")
}

func TestShow(t *testing.T) {
	const main = "compatibility_level = 3.6\nmyhostname = a.example.com\nmydestination = $myhostname,\n   b\nspare = 1\ndov_destination_recipient_limit = 1\n"
	const master = "smtp inet n - n - - smtpd\n  -o smtpd_banner=$myhostname -o { mynetworks = a b } -v\ndov unix - n n - - pipe flags=R {argv=x y}\n"
	for _, test := range []struct{ args, stdout, stderr string }{
		{"mydestination", "mydestination = $myhostname, b\n", "postconf: warning: DIR/main.cf: unused parameter: spare=1\n"},
		{"-hx mydestination", "a.example.com, b\n", "postconf: warning: DIR/main.cf: unused parameter: spare=1\n"},
		{"-n -C service", "dov_destination_recipient_limit = 1\n", "postconf: warning: DIR/main.cf: unused parameter: spare=1\n"},
		{"-d relayhost append_dot_mydomain", "relayhost =\nappend_dot_mydomain = ${{$compatibility_level} <level {1} ? {yes} : {no}}\n", ""},
		{"-Mf dov", "dov        unix  -       n       n       -       -       pipe flags=R\n    {argv=x y}\n", ""},
		{"-Px smtp/inet", "smtp/inet/mynetworks = a b\nsmtp/inet/smtpd_banner = a.example.com\n", ""},
		{"-F dov/unix/chroot", "dov/unix/chroot = n\n", ""},
		{"-P dov", "", "postconf: warning: unmatched request: \"dov\"\n"},
	} {
		code, stdout, stderr, _, _ := command(t, main, master, strings.Fields(test.args)...)
		if code != 0 || stdout != test.stdout || stderr != test.stderr {
			t.Errorf("%s: %d\n%s%s", test.args, code, stdout, stderr)
		}
	}
}

func TestEdit(t *testing.T) {
	const main = "# c\na = 1\n  2\n# d\nb = 3\n"
	const master = "smtp inet n - n - - smtpd\n  # c\n  -o x=y\ndov unix - n n - - pipe\n"
	for _, test := range []struct {
		args         []string
		main, master string
	}{
		{[]string{"a=9", "c=8"}, "# c\na = 9\n# d\nb = 3\nc = 8\n", master},
		{[]string{"-X", "a"}, "# c\n# d\nb = 3\n", master},
		{[]string{"-#", "a"}, "# c\n#a = 1\n#  2\n# d\nb = 3\n", master},
		{[]string{"-P", "smtp/inet/z=1"}, main, "  # c\nsmtp       inet  n       -       n       -       -       smtpd\n    -o x=y\n    -o z=1\ndov unix - n n - - pipe\n"},
		{[]string{"-PX", "smtp/inet/x"}, main, "  # c\nsmtp       inet  n       -       n       -       -       smtpd\ndov unix - n n - - pipe\n"},
		{[]string{"-F", "dov/unix/chroot=y"}, main, "smtp inet n - n - - smtpd\n  # c\n  -o x=y\ndov        unix  -       n       y       -       -       pipe\n"},
		{[]string{"-M#", "smtp/inet"}, main, "#smtp inet n - n - - smtpd\n  # c\n#  -o x=y\ndov unix - n n - - pipe\n"},
		{[]string{"-Me", "new/unix=new unix - - - - - smtp"}, main, master + "new        unix  -       -       -       -       -       smtp\n"},
	} {
		code, _, stderr, mainAfter, masterAfter := command(t, main, master, test.args...)
		if code != 0 || mainAfter != test.main || masterAfter != test.master {
			t.Errorf("%q: %d %s\n%s\n%s", test.args, code, stderr, mainAfter, masterAfter)
		}
	}
}

func TestFailures(t *testing.T) {
	for _, test := range []struct {
		main, args, stderr string
	}{
		{"", "-X a=b", "postconf: fatal: specify one of -e -X\n"},
		{"", "-M -F", "postconf: fatal: specify one of -F -M\n"},
		{"", "-e", "postconf: fatal: -e requires name=value argument\n"},
		{"a b\n", "-n", "postconf: fatal: DIR/main.cf, line 1: missing '=' after attribute name: \"a b\"\n"},
		{"relayhost = $relayhost\n", "-x relayhost", "postconf: warning: unreasonable macro call nesting: \"relayhost\"\npostconf: fatal: macro processing error\n"},
	} {
		code, stdout, stderr, mainAfter, _ := command(t, test.main, "", strings.Fields(test.args)...)
		if code != 1 || stdout != "" || stderr != test.stderr || mainAfter != test.main {
			t.Errorf("%s: %d %q %q", test.args, code, stdout, stderr)
		}
	}
}
