package master

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"postilion/service/child"
	"postilion/service/listen"
)

// workerUID is a user that these tests give files to; nobody has this number.
const workerUID = 41235

// ground makes a directory of root with files of all kinds, for which the test must be root.
func ground(t *testing.T) (dir string, worker *child.Identity) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, which gives files to another user")
	}
	dir = t.TempDir()
	worker = &child.Identity{Name: "tester", UID: workerUID, GID: workerUID}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.WriteFile(filepath.Join(dir, "key"), []byte("secret"), 0o600))
	must(os.WriteFile(filepath.Join(dir, "other"), []byte("not named"), 0o600))
	must(os.Symlink("key", filepath.Join(dir, "link")))
	must(os.Symlink("loop", filepath.Join(dir, "loop")))
	must(os.Mkdir(filepath.Join(dir, "theirs"), 0o755))
	must(os.Symlink("../other", filepath.Join(dir, "theirs", "key")))
	must(os.Lchown(filepath.Join(dir, "theirs"), workerUID, workerUID))
	must(os.Symlink("other", filepath.Join(dir, "theirlink")))
	must(os.Lchown(filepath.Join(dir, "theirlink"), workerUID, workerUID))
	must(syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	must(os.MkdirAll(filepath.Join(dir, "vmail", "example.org"), 0o755))
	must(os.WriteFile(filepath.Join(dir, "vmail", "example.org", "passwd"), []byte("users"), 0o600))
	return dir, worker
}

// TestWhatIsOpened: files that the configuration names and that nobody but root can put something else in the place of, and no others.
func TestWhatIsOpened(t *testing.T) {
	dir, worker := ground(t)
	at := func(name string) string { return filepath.Join(dir, name) }
	g := &Grants{Worker: *worker, Files: []string{
		at("key"), at("link"), at("loop"), at("theirs/key"), at("theirlink"), at("fifo"), at("missing"), dir, at("vmail/*/passwd"), "relative",
	}}
	for _, c := range []struct{ name, want string }{
		{at("key"), ""},
		{at("link"), ""},
		{at("vmail/example.org/passwd"), ""},
		{at("other"), "does not name"},
		{at("vmail/../other/passwd"), "does not name"},
		{at("vmail/a/b/passwd"), "does not name"},
		{dir + "/./key", "does not name"},
		{"relative", "no absolute path"},
		{at("loop"), "too many levels"},
		{at("theirs/key"), "belongs to user 41235"},
		{at("theirlink"), "belongs to user 41235"},
		{at("fifo"), "no regular file"},
		{dir, "no regular file"},
		{at("missing"), "no such file"},
	} {
		file, err := openFile([]*Grants{g}, c.name)
		if file != nil {
			_ = file.Close()
		}
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

func TestLogs(t *testing.T) {
	dir, worker := ground(t)
	name, theirs := filepath.Join(dir, "log"), filepath.Join(dir, "theirs", "log")
	g := []*Grants{{Worker: *worker, Logs: []string{name, theirs}}}
	for range 2 {
		file, err := appendFile(g, name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := file.WriteString("line\n"); err != nil {
			t.Error(err)
		}
		_ = file.Close()
	}
	if text, err := os.ReadFile(name); err != nil || string(text) != "line\nline\n" {
		t.Errorf("%q, %v", text, err)
	}
	for _, refused := range []string{theirs, filepath.Join(dir, "other")} {
		if _, err := appendFile(g, refused); err == nil {
			t.Errorf("%s was opened", refused)
		}
	}
}

// TestDirectories: what is missing is made, an empty directory of root is given to the worker, and what the worker cannot use is told with what to do.
func TestDirectories(t *testing.T) {
	dir, worker := ground(t)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	up := filepath.Dir(dir)
	if info, err := os.Stat(up); err != nil || info.Mode().Perm()&0o001 == 0 {
		if err := os.Chmod(up, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	made, empty, full, closed := filepath.Join(dir, "a/b/vault"), filepath.Join(dir, "empty"), filepath.Join(dir, "full"), filepath.Join(dir, "closed")
	for _, d := range []string{empty, full, closed, filepath.Join(closed, "in"), filepath.Join(full, "in")} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ path, want string }{
		{made, ""}, {empty, ""}, {full, "chown -R tester"}, {filepath.Join(closed, "in"), "cannot pass the directory " + closed},
	} {
		d := Directory{Path: c.path, Where: "dovecot.conf:7: mail_location", Owned: true, Required: true}
		err := d.prepare(worker)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), d.Where)) {
			t.Errorf("%s: %v, want %q", c.path, err, c.want)
		}
	}
	for path, uid := range map[string]int{made: workerUID, filepath.Dir(made): 0, empty: workerUID, full: 0} {
		if info, err := os.Stat(path); err != nil || owner(info) != uid {
			t.Errorf("%s: owner %v, %v, want %d", path, info, err, uid)
		}
	}
}

// TestRequests: the worker's words lead to what is granted and to errors with the number that the system gave.
func TestRequests(t *testing.T) {
	dir, worker := ground(t)
	address := listen.TCP("tcp4", "127.0.0.1", "0")
	m := &master{host: listen.NewHost(nil), sockets: map[string]net.Listener{}, grants: &Grants{Worker: *worker, Files: []string{filepath.Join(dir, "missing")}, Sockets: []listen.Address{address}}}
	defer m.closeSockets()
	for _, c := range []struct {
		request string
		want    error
	}{
		{"open " + filepath.Join(dir, "missing"), fs.ErrNotExist},
		{"open " + filepath.Join(dir, "key"), fs.ErrPermission},
		{"listen tcp4 127.0.0.1:1", fs.ErrPermission},
		{"shadow root", fs.ErrPermission},
		{"exec /bin/sh", fs.ErrPermission},
		{"", fs.ErrPermission},
		{"listen " + address.Key(), nil},
	} {
		_, file, err := m.perform(c.request)
		if file != nil {
			_ = file.Close()
		}
		if number := errno(err); c.want == nil && err != nil || c.want != nil && !errors.Is(number, c.want) {
			t.Errorf("%q: %v (%v), want %v", c.request, err, number, c.want)
		}
	}
}
