package forgetful

import (
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"
)

// session does the steps of a test; each is a word and names.
func session(t *testing.T, f *FS, steps string) {
	t.Helper()
	for line := range strings.Lines(steps) {
		words := strings.Fields(line)
		var err error
		switch words[0] {
		case "mkdir":
			err = f.Mkdir(words[1], 0o700)
		case "write":
			var file *File
			if file, err = f.OpenFile(words[1], os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600); err == nil {
				_, err = file.Write([]byte(words[2]))
			}
		case "sync":
			var file *File
			if file, err = f.OpenFile(words[1], os.O_RDONLY, 0); err == nil {
				err = file.Sync()
			}
		case "rename":
			err = f.Rename(words[1], words[2])
		case "link":
			err = f.Link(words[1], words[2])
		case "remove":
			err = f.Remove(words[1])
		default:
			t.Fatalf("step %q", line)
		}
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
	}
}

// show lists the files below a directory with their contents.
func show(t *testing.T, f *FS, dir string) string {
	t.Helper()
	handle, err := f.OpenFile(dir, os.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	names, err := handle.Readdirnames(-1)
	if err != nil {
		t.Fatal(err)
	}
	var words []string
	for _, name := range names {
		path := strings.TrimSuffix(dir, "/") + "/" + name
		info, err := f.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.IsDir() {
			words = append(words, path+"/")
			if below := show(t, f, path); below != "" {
				words = append(words, below)
			}
			continue
		}
		file, err := f.OpenFile(path, os.O_RDONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(file)
		if err != nil {
			t.Fatal(err)
		}
		words = append(words, path+"="+string(content))
	}
	return strings.Join(words, " ")
}

// TestPromises says what is on the disk after a cut that loses all that it may.
func TestPromises(t *testing.T) {
	for _, test := range []struct{ name, steps, ext4, strict string }{
		{"nothing flushed", "write /a x\nmkdir /d", "", ""},
		{"a file alone", "write /a x\nsync /a", "/a=x", ""},
		{"file and directory", "write /a x\nsync /a\nsync /", "/a=x", "/a=x"},
		{"a name without content", "write /a x\nsync /", "/a=", "/a="},
		{"appended and not flushed", "write /a x\nsync /a\nsync /\nwrite /a y", "/a=x", "/a=x"},
		{"a file below new directories", "mkdir /d\nmkdir /d/e\nwrite /d/e/a x\nsync /d/e/a", "/d/ /d/e/ /d/e/a=x", ""},
		{"its directories too", "mkdir /d\nwrite /d/a x\nsync /d/a\nsync /d\nsync /", "/d/ /d/a=x", "/d/ /d/a=x"},
		{"rename, the directory flushed", "write /a x\nsync /a\nsync /\nrename /a /b\nsync /", "/b=x", "/b=x"},
		{"rename, not flushed", "write /a x\nsync /a\nsync /\nrename /a /b", "/a=x", "/a=x"},
		{"rename over another, not flushed", "write /a x\nwrite /b y\nsync /a\nsync /b\nsync /\nrename /a /b", "/a=x /b=y", "/a=x /b=y"},
		{"renamed to another directory", "mkdir /d\nsync /\nwrite /a x\nsync /a\nsync /\nrename /a /d/a\nsync /", "/d/ /d/a=x", "/d/ /d/a=x"},
		{"one of two names", "write /a x\nsync /a\nlink /a /b\nsync /\nremove /a", "/a=x /b=x", "/a=x /b=x"},
		{"removed", "write /a x\nsync /a\nsync /\nremove /a\nsync /", "", ""},
		{"another file is not flushed along", "write /a x\nwrite /b y\nsync /b", "/b=y", ""},
	} {
		for order, want := range map[Order]string{Ext4Like: test.ext4, Strict: test.strict} {
			f := New(order)
			session(t, f, test.steps)
			if got := show(t, f.Cut(LoseAll, nil), "/"); got != want {
				t.Errorf("%s, order %d: %q, want %q", test.name, order, got, want)
			}
			if _, err := f.Stat("/"); !errors.Is(err, ErrPowerOff) {
				t.Errorf("%s: after the cut %v", test.name, err)
			}
		}
	}
}

// TestRandomSurvival wants every outcome that is allowed to happen, and no other.
func TestRandomSurvival(t *testing.T) {
	const steps = "write /a xx\nsync /a\nsync /\nwrite /a yy\nrename /a /b\nwrite /c z"
	for order, allowed := range map[Order]string{
		Ext4Like: "/a=xx,/a=xxyy,/b=xx,/b=xxyy,/b=xx /c=,/b=xx /c=z,/b=xxyy /c=,/b=xxyy /c=z",
		Strict:   "/a=xx,/a=xxyy,/b=xx,/b=xxyy,/b=xx /c=,/b=xx /c=z,/b=xxyy /c=,/b=xxyy /c=z,/a=xx /c=,/a=xx /c=z,/a=xxyy /c=,/a=xxyy /c=z",
	} {
		missing := map[string]bool{}
		for _, state := range strings.Split(allowed, ",") {
			missing[state] = true
		}
		all := len(missing)
		random := rand.New(rand.NewPCG(1, uint64(order)))
		found := map[string]bool{}
		for range 1000 {
			f := New(order)
			session(t, f, steps)
			state := show(t, f.Cut(RandomSubset, random), "/")
			if !missing[state] {
				t.Fatalf("order %d: %q", order, state)
			}
			found[state] = true
		}
		if len(found) != all {
			t.Errorf("order %d: %d of %d outcomes: %v", order, len(found), all, found)
		}
	}
}

func TestTorn(t *testing.T) {
	sizes := map[int64]bool{}
	random := rand.New(rand.NewPCG(1, 1))
	for range 300 {
		f := New(Ext4Like)
		session(t, f, "write /a "+strings.Repeat("x", 700)+"\nsync /a\nwrite /a "+strings.Repeat("y", 700))
		info, err := f.Cut(Torn, random).Stat("/a")
		if err != nil {
			t.Fatal(err)
		}
		sizes[info.Size()] = true
	}
	if !sizes[700] || !sizes[1024] || !sizes[1400] || len(sizes) != 3 {
		t.Errorf("sizes %v", sizes)
	}
}

func TestCutAfter(t *testing.T) {
	f := New(Ext4Like)
	f.CutAfter(3)
	session(t, f, "mkdir /a\nmkdir /b")
	if err := f.Mkdir("/c", 0o700); !errors.Is(err, ErrPowerOff) || !f.Off() {
		t.Errorf("the third: %v", err)
	}
	if _, err := f.Stat("/a"); !errors.Is(err, ErrPowerOff) {
		t.Errorf("afterwards: %v", err)
	}
}

// TestErrors holds the errors to the ones of a real file system.
func TestErrors(t *testing.T) {
	f := New(Strict)
	session(t, f, "mkdir /d\nmkdir /d/e\nwrite /a x\nmkdir /empty")
	opened, err := f.OpenFile("/a", os.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct{ got, want error }{
		"make what is there":         {f.Mkdir("/d", 0), fs.ErrExist},
		"below what is not there":    {f.Mkdir("/x/y", 0), fs.ErrNotExist},
		"remove what is not there":   {f.Remove("/x"), fs.ErrNotExist},
		"remove a full directory":    {f.Remove("/d"), nil},
		"link over a name":           {f.Link("/a", "/d"), fs.ErrExist},
		"rename what is not there":   {f.Rename("/x", "/y"), fs.ErrNotExist},
		"rename a directory into it": {f.Rename("/d", "/d/e/f"), nil},
		"rename over an empty one":   {f.Rename("/d/e", "/empty"), errNone},
		"remove all":                 {f.RemoveAll("/d"), errNone},
		"remove all of nothing":      {f.RemoveAll("/d"), errNone},
		"time":                       {f.Chtimes("/a", time.Unix(5, 0)), errNone},
	} {
		if test.want == errNone && test.got != nil || test.want != errNone && (test.got == nil || (test.want != nil && !errors.Is(test.got, test.want))) {
			t.Errorf("%s: %v", name, test.got)
		}
	}
	if err := f.Remove("/a"); err != nil {
		t.Fatal(err)
	}
	if content, err := io.ReadAll(opened); err != nil || string(content) != "x" {
		t.Errorf("a file that was removed while open holds %q, %v", content, err)
	}
	if _, err := f.OpenFile("/empty", os.O_RDONLY|os.O_CREATE|os.O_EXCL, 0o600); !errors.Is(err, fs.ErrExist) {
		t.Errorf("exclusive: %v", err)
	}
}

var errNone = errors.New("none")

func TestFaults(t *testing.T) {
	f := New(Ext4Like)
	session(t, f, "write /a x\nsync /a\nwrite /a y")
	f.Fail(func(operation, _ string) error {
		if operation == "sync" {
			return os.ErrDeadlineExceeded
		}
		return nil
	})
	file, err := f.OpenFile("/a", os.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := file.Sync(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("sync: %v", err)
	}
	f.Fail(nil)
	session(t, f, "write /a z\nsync /a")
	if got := show(t, f, "/"); got != "/a=xyz" {
		t.Errorf("seen %q", got)
	}
	if got := show(t, f.Cut(LoseAll, nil), "/"); got != "/a=x\x00z" {
		t.Errorf("what failed to be flushed reached the disk: %q", got)
	}
}
