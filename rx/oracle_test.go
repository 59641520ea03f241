package rx

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// question asks a real regular expression library for the match of a pattern in a text.
type question struct {
	notation Syntax
	flags    Flags
	pattern  string
	text     string
}

func (q question) String() string {
	return fmt.Sprintf("notation %d flags %b pattern %q text %q", q.notation, q.flags, q.pattern, q.text)
}

// answer is "error REASON", "no", or the offsets or texts of the groups.
func ours(q question, asText bool) string {
	re, err := Compile(q.notation, q.pattern, q.flags)
	if err != nil {
		return "error " + err.(*Error).Reason
	}
	caps, err := re.Captures([]byte(q.text))
	matched, matchErr := re.Match([]byte(q.text))
	if err != nil || matchErr != nil {
		return "budget"
	}
	if matched != (caps != nil) {
		return fmt.Sprintf("Match %v, Captures %v", matched, caps)
	}
	if caps == nil {
		return "no"
	}
	var out []string
	for i := 0; i < len(caps); i += 2 {
		switch {
		case caps[i+1] < 0:
			out = append(out, "-")
		case asText:
			out = append(out, "="+q.text[caps[i]:caps[i+1]])
		default:
			out = append(out, fmt.Sprintf("%d,%d", caps[i], caps[i+1]))
		}
	}
	for len(out) > 0 && out[len(out)-1] == "-" {
		out = out[:len(out)-1]
	}
	return strings.Join(out, " ")
}

const glibcProgram = `
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static char *unhex(char *s) {
	size_t n = strlen(s) / 2; char *out = malloc(n + 1);
	for (size_t i = 0; i < n; i++) { unsigned v; sscanf(s + 2 * i, "%2x", &v); out[i] = v; }
	out[n] = 0; return out;
}
int main(void) {
	static char line[1 << 20];
	while (fgets(line, sizeof line, stdin)) {
		char *save, *f = strtok_r(line, " \n", &save), *p = strtok_r(0, " \n", &save), *t = strtok_r(0, " \n", &save);
		char *pattern = unhex(p + 1), *text = unhex(t + 1);
		regex_t re; regmatch_t m[40]; int rc;
		if ((rc = regcomp(&re, pattern, atoi(f)))) { char buf[256]; regerror(rc, &re, buf, sizeof buf); printf("error %s\n", buf); }
		else {
			if (regexec(&re, text, 40, m, 0)) printf("no\n");
			else {
				size_t last = 0;
				for (size_t i = 0; i <= re.re_nsub && i < 40; i++) if (m[i].rm_so >= 0) last = i;
				for (size_t i = 0; i <= last; i++) if (m[i].rm_so < 0) printf(i ? " -" : "-"); else printf(i ? " %d,%d" : "%d,%d", m[i].rm_so, m[i].rm_eo);
				printf("\n");
			}
			regfree(&re);
		}
		fflush(stdout); free(pattern); free(text);
	}
	return 0;
}
`

// askGlibc answers questions with the C library's regcomp and regexec.
func askGlibc(t *testing.T, questions []question) []string {
	t.Helper()
	cc, err := exec.LookPath("gcc")
	if err != nil {
		t.Skip("gcc is not installed: no comparison with the C library")
	}
	dir := t.TempDir()
	source, program := filepath.Join(dir, "oracle.c"), filepath.Join(dir, "oracle")
	if err := os.WriteFile(source, []byte(glibcProgram), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(cc, "-O1", "-o", program, source).CombinedOutput(); err != nil {
		t.Skipf("gcc cannot build the comparison program: %v\n%s", err, out)
	}
	var input bytes.Buffer
	for _, q := range questions {
		flags := 0
		if q.notation == POSIXExtended {
			flags |= 1
		}
		if q.flags&FoldCase != 0 {
			flags |= 2
		}
		if q.flags&MultiLine != 0 {
			flags |= 4
		}
		fmt.Fprintf(&input, "%d x%s x%s\n", flags, hex.EncodeToString([]byte(q.pattern)), hex.EncodeToString([]byte(q.text)))
	}
	command := exec.Command(program)
	command.Stdin = &input
	out, err := command.Output()
	if err != nil {
		t.Fatalf("comparison program: %v", err)
	}
	return strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
}

// askPCRE answers questions with pcre2test. Texts must be printable or newlines.
func askPCRE(t *testing.T, questions []question) []string {
	t.Helper()
	program, err := exec.LookPath("pcre2test")
	if err != nil {
		t.Skip("pcre2test is not installed: no comparison with PCRE2")
	}
	var input bytes.Buffer
	for _, q := range questions {
		modifiers := "hex"
		for flag, name := range map[Flags]string{FoldCase: "caseless", MultiLine: "multiline", DotAll: "dotall", Extended: "extended", Anchored: "anchored", DollarEndOnly: "dollar_endonly", Ungreedy: "ungreedy"} {
			if q.flags&flag != 0 {
				modifiers += "," + name
			}
		}
		fmt.Fprintf(&input, "/% x/%s\n", q.pattern, modifiers)
		fmt.Fprintf(&input, "    %s\\=\n\n", strings.ReplaceAll(escapeSubject(q.text), "\n", `\n`))
	}
	command := exec.Command(program, "-q")
	command.Stdin = &input
	out, err := command.Output()
	if err != nil && len(out) == 0 {
		t.Skipf("pcre2test: %v", err)
	}
	return readPCRE(out, len(questions))
}

func escapeSubject(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c == '\n' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, `\x{%02x}`, c)
		}
	}
	return b.String()
}

func readPCRE(out []byte, n int) []string {
	answers := make([]string, 0, n)
	var groups []string
	flush := func() {
		for len(groups) > 0 && groups[len(groups)-1] == "-" {
			groups = groups[:len(groups)-1]
		}
		answers[len(answers)-1] = strings.Join(groups, " ")
		groups = nil
	}
	scanner := bufio.NewScanner(bytes.NewReader(out))
	scanner.Buffer(nil, 1<<22)
	for scanner.Scan() {
		line := scanner.Text()
		switch {
		case strings.HasPrefix(line, "/"):
			if groups != nil {
				flush()
			}
			answers = append(answers, "?")
		case len(answers) == 0:
		case strings.HasPrefix(line, "Failed: error "):
			_, reason, _ := strings.Cut(line, ": error ")
			_, reason, _ = strings.Cut(reason, ": ")
			answers[len(answers)-1] = "error " + reason
		case strings.HasPrefix(line, "No match"):
			answers[len(answers)-1] = "no"
		default:
			number, text, ok := strings.Cut(line, ": ")
			if _, err := strconv.Atoi(strings.TrimSpace(number)); !ok || err != nil {
				continue
			}
			if text == "<unset>" {
				groups = append(groups, "-")
			} else {
				groups = append(groups, "="+unescapeSubject(text))
			}
		}
	}
	if groups != nil {
		flush()
	}
	return answers
}

func unescapeSubject(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if strings.HasPrefix(s[i:], `\x`) && i+4 <= len(s) {
			if v, err := strconv.ParseUint(s[i+2:i+4], 16, 8); err == nil {
				b.WriteByte(byte(v))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
