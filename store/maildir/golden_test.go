package maildir

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"postilion/store"
)

// recordedCases finds the recorded Maildir cases beside the module, or skips.
func recordedCases(t *testing.T) []string {
	t.Helper()
	shared := os.Getenv("POSTILION_SHARED")
	if shared == "" {
		at, err := os.Getwd()
		if err != nil {
			t.Fatal(err)
		}
		for ; at != "/"; at = filepath.Dir(at) {
			if info, err := os.Stat(filepath.Join(at, "shared", "golden")); err == nil && info.IsDir() {
				shared = filepath.Join(at, "shared")
				break
			}
		}
	}
	cases, err := filepath.Glob(filepath.Join(shared, "golden/dovecot/migrate/*.json"))
	if err != nil {
		t.Fatal(err)
	}
	if shared == "" || len(cases) == 0 {
		t.Skip("there are no recorded cases in ../shared")
	}
	return cases
}

func unpack(t *testing.T, coded, dir string) {
	t.Helper()
	packed, err := gzip.NewReader(base64.NewDecoder(base64.StdEncoding, strings.NewReader(coded)))
	if err != nil {
		t.Fatal(err)
	}
	for files := tar.NewReader(packed); ; {
		header, err := files.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, filepath.Clean("/"+header.Name))
		switch header.Typeflag {
		case tar.TypeDir:
			err = os.MkdirAll(path, 0o700)
		case tar.TypeLink:
			err = os.Link(filepath.Join(dir, filepath.Clean("/"+header.Linkname)), path)
		case tar.TypeReg:
			var content bytes.Buffer
			if _, err = content.ReadFrom(files); err == nil {
				put(t, path, content.String(), header.ModTime.Unix())
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestRecorded opens Maildirs that Dovecot wrote, changes files as recorded, and wants the UIDs, flags, dates and sizes that Dovecot told. A case is followed
// up to the first step that needs a server.
func TestRecorded(t *testing.T) {
	compared := 0
	for _, path := range recordedCases(t) {
		t.Run(filepath.Base(path), func(t *testing.T) { compared += followRecorded(t, path) })
	}
	t.Logf("%d answers compared", compared)
}

func followRecorded(t *testing.T, path string) (compared int) {
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var recorded struct {
		Tar      string
		Dialogue [][]any
	}
	if err := json.Unmarshal(text, &recorded); err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	unpack(t, recorded.Tar, home)
	_, account := openHome(t, filepath.Join(home, "alice"))
	selected := store.Inbox
	for _, step := range recorded.Dialogue {
		command, _ := step[0].(string)
		var answers []string
		if len(step) > 1 {
			list, _ := step[1].([]any)
			for _, answer := range list {
				line, _ := answer.(string)
				answers = append(answers, line)
			}
		}
		_, imap, _ := strings.Cut(command, " ")
		verb, argument, _ := strings.Cut(imap, " ")
		switch {
		case strings.HasPrefix(command, "! "):
			if !changeRecorded(t, home, imap) {
				return compared
			}
		case !strings.Contains(command, "> "):
			return compared
		case verb == "SELECT" || verb == "EXAMINE":
			if slices.ContainsFunc(answers, func(line string) bool { return strings.Contains(line, " NO") }) {
				if _, err := account.Mailbox(t.Context(), strings.Trim(argument, `"`)); !errors.Is(err, store.ErrNotFound) {
					t.Errorf("%s: %v", command, err)
				}
				continue
			}
			name, ok := decodeUTF7(strings.Trim(argument, `"`))
			if !ok {
				t.Fatalf("name in %q", command)
			}
			selected = name
			compared += compareSelect(t, account, selected, answers)
		case verb == "FETCH" && strings.HasPrefix(argument, "1:*"):
			compared += compareFetch(t, account, selected, answers)
		case verb != "LOGIN" && verb != "LIST" && verb != "LSUB" && verb != "FETCH" && verb != "NOOP" && verb != "LOGOUT":
			return compared
		}
	}
	return compared
}

// changeRecorded does a step on files; false for one that is not known here.
func changeRecorded(t *testing.T, home, step string) bool {
	t.Helper()
	words := strings.Fields(step)
	folder := func(name string) string {
		dir := filepath.Join(home, words[1], "Maildir")
		if name != store.Inbox {
			dir = filepath.Join(dir, "."+name)
		}
		return dir
	}
	found := func() string {
		files, err := filepath.Glob(filepath.Join(folder(words[2]), "[cn][ue][rw]", "*."+words[3]+"*"))
		if err != nil || len(files) != 1 {
			t.Fatalf("%s: files %q, %v", step, files, err)
		}
		return files[0]
	}
	var err error
	switch words[0] {
	case "write", "append":
		_, rest, _ := strings.Cut(step, " ")
		quoted := regexp.MustCompile(`'([^']*)'|"([^"]*)"|(\S+)`).FindAllStringSubmatch(rest, -1)
		if len(quoted) != 2 {
			return false
		}
		content := strings.ReplaceAll(quoted[1][1]+quoted[1][2], `\n`, "\n")
		path := filepath.Join(home, quoted[0][1]+quoted[0][2]+quoted[0][3])
		if words[0] == "append" {
			before, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			content = string(before) + content
		}
		err = os.WriteFile(path, []byte(content), 0o600)
	case "rm":
		err = os.Remove(found())
	case "flag":
		letters := strings.Join(words[4:], "")
		base, _, _ := strings.Cut(filepath.Base(found()), ":")
		err = os.Rename(found(), filepath.Join(folder(words[2]), "cur", base+":2,"+letters))
	case "mvbox":
		err = os.Rename(folder(words[2]), folder(words[3]))
	case "rmbox":
		err = os.RemoveAll(folder(words[2]))
	default:
		return false
	}
	if err != nil {
		t.Fatal(err)
	}
	return true
}

func compareSelect(t *testing.T, account store.Account, name string, answers []string) int {
	t.Helper()
	status, err := account.Status(t.Context(), name)
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return 0
	}
	all := strings.Join(answers, "\n")
	for pattern, got := range map[string]uint64{
		`\* (\d+) EXISTS`: uint64(status.Messages), `UIDNEXT (\d+)`: uint64(status.UIDNext), `UIDVALIDITY (\d+)`: uint64(status.UIDValidity),
	} {
		if want := regexp.MustCompile(pattern).FindStringSubmatch(all); want != nil && want[1] != strconv.FormatUint(got, 10) {
			t.Errorf("%s: %s is %d, Dovecot said %s", name, pattern, got, want[1])
		}
	}
	return 1
}

func compareFetch(t *testing.T, account store.Account, name string, answers []string) int {
	t.Helper()
	lines := ourState(t, account, name)
	n := 0
	for _, answer := range answers {
		if !strings.HasPrefix(answer, "* ") || !strings.Contains(answer, " FETCH ") {
			continue
		}
		if n >= len(lines)-1 {
			t.Errorf("%s: we have %q, Dovecot said %s", name, lines, answer)
			return 1
		}
		uid, rest, _ := strings.Cut(lines[n], " ")
		n++
		if want := regexp.MustCompile(`UID (\d+)`).FindStringSubmatch(answer); want != nil && want[1] != uid {
			t.Errorf("%s: UID %s, Dovecot said %s", name, uid, answer)
		}
		if want := regexp.MustCompile(`FLAGS \(([^)]*)\)`).FindStringSubmatch(answer); want != nil {
			flags := slices.DeleteFunc(strings.Fields(want[1]), func(flag string) bool { return flag == `\Recent` })
			slices.Sort(flags)
			if !strings.HasPrefix(rest, "["+strings.Join(flags, " ")+"]") {
				t.Errorf("%s: UID %s is %s, Dovecot said %s", name, uid, rest, answer)
			}
		}
		if want := regexp.MustCompile(`RFC822.SIZE (\d+)`).FindStringSubmatch(answer); want != nil && !strings.HasSuffix(rest, " "+want[1]) {
			t.Errorf("%s: UID %s is %s, Dovecot said %s", name, uid, rest, answer)
		}
	}
	return 1
}
