// Package child starts this same program again as another process in a role of its own, as a user of its own (Start), or another program as a user
// (Become). The child keeps nothing of the parent
// but what it is given: three standard descriptors, the files named, a short environment, and no way to gain privileges (no_new_privs).
//
// It knows no roles; the command line does.
package child

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"os/user"
	"runtime"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// program is the file that this process runs, even when another one has taken its name meanwhile.
const program = "/proc/self/exe"

// FirstFile is the number under which a child finds the first of its files; the others follow.
const FirstFile = 3

// Identity is who a process is.
type Identity struct {
	// Name is the user's name, for messages only.
	Name     string
	UID, GID int
	Groups   []int
}

// Lookup finds a system user by name or number, with the groups.
func Lookup(name string) (*Identity, error) {
	found, err := user.Lookup(name)
	var unknown user.UnknownUserError
	if errors.As(err, &unknown) {
		if number, numberErr := strconv.ParseUint(name, 10, 31); numberErr == nil {
			found, err = user.LookupId(strconv.FormatUint(number, 10))
		}
	}
	if err != nil {
		return nil, err
	}
	groups, err := found.GroupIds()
	if err != nil {
		return nil, fmt.Errorf("groups of user %s: %w", name, err)
	}
	id := &Identity{Name: found.Username}
	var numbers []int
	for _, text := range append([]string{found.Uid, found.Gid}, groups...) {
		number, err := strconv.ParseUint(text, 10, 31)
		if err != nil {
			return nil, fmt.Errorf("user %s: %q is no id", name, text)
		}
		numbers = append(numbers, int(number))
	}
	id.UID, id.GID = numbers[0], numbers[1]
	for _, g := range numbers[2:] {
		// A supplementary group of root would be a piece of root.
		if g != 0 && !slices.Contains(id.Groups, g) {
			id.Groups = append(id.Groups, g)
		}
	}
	return id, nil
}

// Options say what a child is. Role and Args are its command line behind the program's name.
type Options struct {
	Role string
	Args []string
	// As is whom the child runs as from its first instruction; nil leaves it as the parent is.
	As *Identity
	// Env is its environment.
	Env []string
	// Files are open in the child from FirstFile on.
	Files []*os.File
	// Stdout and Stderr are its output; nil is /dev/null.
	Stdout, Stderr io.Writer
	// Dir is its working directory; "" leaves it as the parent's is.
	Dir string
	// OwnSession takes the parent's terminal away from it.
	OwnSession bool
}

// Start starts a child. The caller waits for it.
func Start(o Options) (*exec.Cmd, error) {
	command := exec.Command(program)
	command.Args = append([]string{"postilion", o.Role}, o.Args...)
	command.Env, command.Dir = o.Env, o.Dir
	command.Stdout, command.Stderr, command.ExtraFiles = o.Stdout, o.Stderr, o.Files
	if err := Become(command, o.As, o.OwnSession); err != nil {
		return nil, fmt.Errorf("start %s: %w", o.Role, err)
	}
	return command, nil
}

// Become starts a command, as somebody else unless as is nil, in a session and process group of its own when ownSession says so. It has no way to gain
// privileges, and no descriptor but those that the command names. The caller waits for it.
func Become(command *exec.Cmd, as *Identity, ownSession bool) error {
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: ownSession}
	if as != nil {
		credential := &syscall.Credential{Uid: uint32(as.UID), Gid: uint32(as.GID)}
		for _, g := range as.Groups {
			credential.Groups = append(credential.Groups, uint32(g))
		}
		command.SysProcAttr.Credential = credential
	}
	// What whoever started this process left open is nobody's business; Go's own files have the flag already. An old kernel cannot do it.
	if err := unix.CloseRange(FirstFile, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC); err != nil && !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("close_range: %w", err)
	}
	failed := make(chan error)
	go func() {
		// no_new_privs belongs to a thread and its children: this thread is not used for anything else and ends with the goroutine.
		runtime.LockOSThread()
		err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
		if err == nil {
			err = command.Start()
		}
		failed <- err
	}()
	return <-failed
}

// Environment is the part of this process's environment that children get: variables that change how this program works, not whom it talks to.
func Environment() []string {
	var kept []string
	for _, name := range []string{"PATH", "TZ", "LANG", "LC_ALL", "TMPDIR", "GOMAXPROCS", "GOGC", "GOMEMLIMIT", "GOTRACEBACK", "GODEBUG", "GORACE", "GOCOVERDIR"} {
		if value, ok := os.LookupEnv(name); ok {
			kept = append(kept, name+"="+value)
		}
	}
	return kept
}
