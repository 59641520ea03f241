package main

import (
	"fmt"
	"path/filepath"
	"strings"

	"postilion/service"
)

// optionSet are the options of one of our own commands: names with their dashes, in any place among the arguments.
type optionSet struct {
	texts map[string]*string
	flags map[string]*bool
}

// parse takes the options out of the arguments and returns the rest. Both "--name value" and "--name=value" do; "--" ends the options.
func (o optionSet) parse(args []string) (rest []string, err error) {
	for i := 0; i < len(args); i++ {
		name, value, hasValue := strings.Cut(args[i], "=")
		switch {
		case args[i] == "--":
			return append(rest, args[i+1:]...), nil
		case len(name) < 2 || name[0] != '-':
			rest = append(rest, args[i])
		case o.flags[name] != nil && !hasValue:
			*o.flags[name] = true
		case o.texts[name] != nil && hasValue:
			*o.texts[name] = value
		case o.texts[name] != nil:
			if i++; i == len(args) {
				return nil, fmt.Errorf("option %s needs a value", name)
			}
			*o.texts[name] = args[i]
		default:
			return nil, fmt.Errorf("unknown option %s%s", args[i], o.suggest(name))
		}
	}
	return rest, nil
}

func (o optionSet) suggest(name string) string {
	best, distance := "", 4
	consider := func(known string) {
		if d := editDistance(name, known); d < distance || d == distance && known < best {
			best, distance = known, d
		}
	}
	for known := range o.texts {
		consider(known)
	}
	for known := range o.flags {
		consider(known)
	}
	if best == "" || distance > 3 {
		return ""
	}
	return "; did you mean " + best + "?"
}

// wrongUsage says what was wrong with the arguments and how the command is called.
func wrongUsage(e *environment, name string, err error) int {
	fmt.Fprintf(e.stderr, "postilion %s: %v\n", name, err)
	return usage(e, name)
}

// configuration finds the files of a directory, or of the usual places when dir is "".
func configuration(e *environment, dir string) service.Options {
	options := service.Options{Getenv: e.getenv, Stderr: e.stderr}
	if dir == "" {
		options.PostfixDir = presentDir(defaultPostfixDir, "main.cf")
		options.DovecotFile = presentFile(defaultDovecotConf)
		return options
	}
	options.PostfixDir = presentDir(dir, "main.cf")
	options.DovecotFile = presentFile(filepath.Join(dir, "dovecot.conf"))
	return options
}
