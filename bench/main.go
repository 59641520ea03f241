// Command bench measures Postilion beside the programs it takes the place of, in one run on one machine: inbound mail beside Postfix with virtual(8),
// LMTP and idle IMAP sessions beside Dovecot, and all of it beside the floor, a loop that answers blindly and commits durably. Rounds are interleaved,
// medians are compared, CPU time stands beside every rate, and the targets of the project stand beside the figures.
//
// It is not a part of the server and holds no mail logic. The peers are started and loaded by the scripts of the peer lab, the folder shared/peers beside
// the checkout (POSTILION_SHARED names another shared folder); without it nothing can be compared, and bench says so.
//
//	go run ./bench inbound|flushes|lmtp|idle|start|stored|all [-quick] [-json] [-rounds N]
//	go run ./bench ci
//	go run ./bench profile [-lmtp|-idle] [-sessions N] [-o FILE]
//
// README.md beside this file keeps the last figures.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

const usageText = `usage: go run ./bench COMMAND [OPTIONS]

  inbound   SMTP until the message is in its mailbox, beside Postfix with virtual(8) and the floor
  flushes   disk flushes a message at 50 sessions, counted by strace
  lmtp      LMTP alone, beside Dovecot's
  idle      memory of idle IMAP sessions, plain and with TLS, beside Dovecot's
  start     memory of the idle server, and the time from exec until it is ready
  stored    the rate with many messages stored (-stored N), beside an empty store
  all       all of these; stored only with -stored N
  ci        the short form that CI runs: figures that noise cannot touch, with their bounds; status 1 when one is beyond
  profile   where the CPU goes at -sessions N (-lmtp: by LMTP), or the memory of idle sessions (-idle); the profile stays in -o FILE
  serve     what profile starts: postilion serve with a profile of itself; -c DIR

Options:
`

// errBeyond is returned when a figure of ci is beyond its bound; the figures have been printed.
var errBeyond = errors.New("a figure is beyond its bound")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	o := options{}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), usageText)
		flags.PrintDefaults()
	}
	flags.BoolVar(&o.quick, "quick", false, "few messages and one round: to see that everything works, not to compare")
	flags.BoolVar(&o.json, "json", false, "print one JSON object a line instead of tables")
	flags.IntVar(&o.rounds, "rounds", 5, "interleaved rounds; the medians are compared")
	flags.IntVar(&o.portBase, "port-base", 28000, "first of the 600 loopback ports that the servers use")
	flags.StringVar(&o.dir, "dir", "", "where servers keep their data (default: a temporary folder, removed afterwards)")
	flags.IntVar(&o.stored, "stored", 0, "messages of the filled store for stored; 0 leaves the case out of all")
	flags.StringVar(&o.program, "postilion", "", "the server to measure (default: built from this checkout as it ships)")
	flags.IntVar(&o.sessions, "sessions", 10, "sessions of profile")
	flags.BoolVar(&o.idle, "idle", false, "profile the memory of idle IMAP sessions instead")
	flags.BoolVar(&o.lmtp, "lmtp", false, "profile LMTP instead of SMTP")
	flags.StringVar(&o.profile, "o", "cpu.prof", "where profile puts the CPU profile")
	flags.StringVar(&o.config, "c", "", "configuration folder of serve")
	if len(args) == 0 {
		flags.Usage()
		return errors.New("no command")
	}
	command := args[0]
	if strings.HasPrefix(command, "-") {
		flags.Usage()
		return errors.New("the command comes first")
	}
	if err := flags.Parse(args[1:]); err != nil || flags.NArg() > 0 {
		return errors.Join(err, argumentError(flags.Args()))
	}
	if o.quick && !isSet(flags, "rounds") {
		o.rounds = 1
	}
	if command == "serve" {
		return serveProfiled(ctx, o.config)
	}
	l, err := openLab(ctx, o)
	if err != nil {
		return err
	}
	err = l.command(ctx, command, out)
	return errors.Join(err, l.close())
}

func argumentError(args []string) error {
	if len(args) == 0 {
		return nil
	}
	return fmt.Errorf("unexpected %q", args)
}

func isSet(flags *flag.FlagSet, name string) bool {
	found := false
	flags.Visit(func(f *flag.Flag) { found = found || f.Name == name })
	return found
}

type options struct {
	quick, json, lmtp, idle            bool
	rounds, portBase, stored, sessions int
	dir, program, profile, config      string
}

// command measures and prints.
func (l *lab) command(ctx context.Context, name string, out io.Writer) error {
	cases := map[string]func(context.Context, *report) error{
		"inbound": l.inbound, "flushes": l.flushes, "lmtp": l.lmtpAlone, "idle": l.idle, "start": l.start, "stored": l.storedRate,
	}
	switch measure, ok := cases[name]; {
	case ok:
		return l.measure(ctx, out, name, measure)
	case name == "all":
		for _, each := range []string{"start", "inbound", "flushes", "lmtp", "idle", "stored"} {
			if each == "stored" && l.options.stored == 0 {
				continue
			}
			if err := l.measure(ctx, out, each, cases[each]); err != nil {
				return err
			}
		}
		return nil
	case name == "ci":
		return l.ci(ctx, out)
	case name == "profile" && l.options.idle:
		return l.profileIdle(ctx, out)
	case name == "profile":
		return l.profileInbound(ctx, out)
	}
	return fmt.Errorf("there is no command %q; go run ./bench -h lists them", name)
}

func (l *lab) measure(ctx context.Context, out io.Writer, name string, measure func(context.Context, *report) error) error {
	r := &report{name: name}
	err := measure(ctx, r)
	if err != nil {
		err = fmt.Errorf("%s: %w", name, err)
	}
	return errors.Join(err, r.print(out, l.options.json))
}
