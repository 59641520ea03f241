package doveadm

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"postilion/account/password"
)

// pwTries is how often the two new passwords may differ.
const pwTries = 3

// pw makes and checks password hashes.
func (r *run) pw(args []string) error {
	options, rest, err := getopt("pw", args, "lp:r:s:t:u:V")
	if err != nil {
		return err
	}
	var scheme, hash, user, secret string
	var given, list, check, verify bool
	rounds := 0
	for _, o := range options {
		switch o.letter {
		case 'l':
			list = true
		case 'p':
			secret, given = o.value, true
		case 'r':
			// What is no number counts as the default, as in Dovecot.
			rounds, _ = strconv.Atoi(o.value)
		case 's':
			scheme = o.value
		case 't':
			hash, check = o.value, true
		case 'u':
			user = o.value
		case 'V':
			verify = true
		}
	}
	switch {
	case list:
		fmt.Fprintln(r.stdout, strings.Join(password.Schemes(), " "))
		return nil
	case len(rest) > 0:
		return commandUsage("pw")
	case check && !strings.HasPrefix(hash, "{"):
		return fatal("Missing {scheme} prefix from hash")
	}
	if !given {
		if secret, err = r.newPassword(check); err != nil {
			return err
		}
	}
	if !check {
		if scheme == "" {
			scheme = "CRYPT"
		}
		if hash, err = password.Generate(scheme, user, secret, rounds); err != nil {
			return fatal("%v", err)
		}
		if !verify {
			fmt.Fprintln(r.stdout, hash)
			return nil
		}
	}
	stored, err := password.Parse(hash, "")
	if err != nil {
		return fatal("%v", err)
	}
	ok, err := stored.Verify(user, secret)
	switch {
	case err != nil:
		return fatal("reverse password verification check failed: %v", err)
	case !ok:
		return fatal("reverse password verification check failed: Password mismatch")
	}
	fmt.Fprintf(r.stdout, "%s (verified)\n", hash)
	return nil
}

func (r *run) newPassword(check bool) (string, error) {
	if check {
		return r.ask("Enter password to verify: ")
	}
	for range pwTries {
		first, err := r.ask("Enter new password: ")
		if err != nil {
			return "", err
		}
		second, err := r.ask("Retype new password: ")
		if err != nil {
			return "", err
		}
		if first == second {
			return first, nil
		}
		fmt.Fprintln(r.stderr, "Error: Passwords don't match!")
	}
	return "", &exit{code: exitMismatch}
}

// ask reads one line, without echo when it comes from a terminal.
func (r *run) ask(prompt string) (string, error) {
	if file, ok := r.terminal.(*os.File); ok {
		if before, err := unix.IoctlGetTermios(int(file.Fd()), unix.TCGETS); err == nil {
			fmt.Fprint(r.stderr, prompt)
			silent := *before
			silent.Lflag &^= unix.ECHO
			if err := unix.IoctlSetTermios(int(file.Fd()), unix.TCSETS, &silent); err != nil {
				return "", fatal("cannot switch the terminal's echo off: %v", err)
			}
			defer func() {
				// Nothing better can be done for a terminal that went away.
				_ = unix.IoctlSetTermios(int(file.Fd()), unix.TCSETS, before)
				fmt.Fprintln(r.stderr)
			}()
		}
	}
	line, err := r.stdin.ReadString('\n')
	if err != nil && (!errors.Is(err, io.EOF) || line == "") {
		return "", fatal("read(stdin) failed: %v", err)
	}
	return strings.TrimRight(line, "\r\n"), nil
}
