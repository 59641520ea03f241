package postconf

import (
	"fmt"
	"strings"
)

// optionLetters is the option string of postconf(1); a colon follows an option with a value.
const optionLetters = "aAbc:C:deEfFhHlmMno:pPtT:vxX#"

// majorModes say what is shown or edited; only one of them may be given. The order is that of messages.
const majorModes = "aAbFlmMpPtT"

// modifiers of a major mode, in the order of messages.
const modifiers = "defhHnoxX#"

// refused are the modifiers that a major mode does not take; those not named take all.
var refused = map[byte]string{
	'a': modifiers, 'A': modifiers, 'b': modifiers, 'l': modifiers, 'm': modifiers, 't': modifiers, 'T': modifiers,
	'F': "dnX#", 'M': "dhHn", 'P': "dn#",
}

// conflicts are the modifiers that cannot go with one another.
var conflicts = map[byte]string{
	'd': "enoX#", 'e': "fhHnoxX#", 'f': "X#", 'h': "HX#", 'H': "X#", 'n': "X#", 'o': "X#", 'x': "X#", 'X': "#",
}

type options struct {
	given     map[byte]bool
	dir       string
	class     string
	overrides []string
	tlsMode   string
	arguments []string
}

func (o *options) has(letter byte) bool { return o.given[letter] }

// major gives the mode, "p" unless another one is given.
func (o *options) major() byte {
	for i := range majorModes {
		if o.given[majorModes[i]] {
			return majorModes[i]
		}
	}
	return 'p'
}

const usage = "usage: postconf [-a (server SASL types)] [-A (client SASL types)] [-b (bounce templates)] [-c config_dir] " +
	"[-c param_class] [-d (parameter defaults)] [-e (edit configuration)] [-f (fold lines)] [-F (master.cf fields)] [-h (no names)] " +
	"[-H (no values)] [-l (lock types)] [-m (map types)] [-M (master.cf)] [-n (non-default parameters)] " +
	"[-o name=value (override parameter value)] [-p (main.cf, default)] [-P (master.cf parameters)] [-t (bounce templates)] " +
	"[-T compile-version|run-version|public-key-algorithms] [-v (verbose)] [-x (expand parameter values)] [-X (exclude)] " +
	"[-# (comment-out)] [name...]"

// parseOptions reads options as getopt(3) does: they may be joined and may stand anywhere before "--".
func (r *run) parseOptions(args []string) (*options, error) {
	o := &options{given: map[byte]bool{}, class: "all"}
	for len(args) > 0 {
		word := args[0]
		if word == "--" {
			args = args[1:]
			break
		}
		if len(word) < 2 || word[0] != '-' {
			break
		}
		args = args[1:]
		for i := 1; i < len(word); i++ {
			at := strings.IndexByte(optionLetters, word[i])
			switch {
			case at < 0 || word[i] == ':':
				fmt.Fprintf(r.stderr, "postconf: invalid option -- '%c'\n", word[i])
				return nil, fatalf("%s", usage)
			case at+1 == len(optionLetters) || optionLetters[at+1] != ':':
				o.given[word[i]] = true
				continue
			}
			value := word[i+1:]
			if value == "" {
				if len(args) == 0 {
					fmt.Fprintf(r.stderr, "postconf: option requires an argument -- '%c'\n", word[i])
					return nil, fatalf("%s", usage)
				}
				value, args = args[0], args[1:]
			}
			if err := o.value(word[i], value); err != nil {
				return nil, err
			}
			break
		}
	}
	o.arguments = args
	return o, nil
}

func (o *options) value(letter byte, value string) error {
	switch letter {
	case 'c':
		o.dir = value
	case 'C':
		o.given['C'] = true
		o.class = value
	case 'o':
		o.given['o'] = true
		o.overrides = append(o.overrides, value)
	case 'T':
		if o.given['T'] {
			return fatalf("At most one -T <mode> option may be specified")
		}
		o.given['T'] = true
		o.tlsMode = value
	}
	return nil
}

// compatible refuses options that do not go together.
func (o *options) compatible() error {
	if o.has('b') && o.has('t') {
		return fatalf("specify one of -b and -t")
	}
	if err := o.oneOf(majorModes); err != nil {
		return err
	}
	for i := range modifiers {
		if !o.given[modifiers[i]] {
			continue
		}
		for j := range conflicts[modifiers[i]] {
			if other := conflicts[modifiers[i]][j]; o.given[other] {
				return fatalf("specify one of -%c -%c", modifiers[i], other)
			}
		}
	}
	mode := o.major()
	for i := range refused[mode] {
		if letter := refused[mode][i]; o.given[letter] {
			return fatalf("with option -%c, do not specify -%c", mode, letter)
		}
	}
	return nil
}

func (o *options) oneOf(letters string) error {
	var given []string
	for i := range letters {
		if o.given[letters[i]] {
			given = append(given, "-"+letters[i:i+1])
		}
	}
	if len(given) > 1 {
		return fatalf("specify one of %s", strings.Join(given, " "))
	}
	return nil
}

// classes gives the parameter classes of -C.
func (o *options) classes() (builtin, service, user bool, err error) {
	for _, name := range strings.FieldsFunc(o.class, func(c rune) bool { return strings.ContainsRune(", \t\r\n", c) }) {
		switch strings.ToLower(name) {
		case "builtin":
			builtin = true
		case "service":
			service = true
		case "user":
			user = true
		case "all":
			builtin, service, user = true, true, true
		default:
			return false, false, false, fatalf("unknown -C value %q in %q", name, o.class)
		}
	}
	return builtin, service, user, nil
}
