package service_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"postilion/config/postfix"
	"postilion/service"
	"postilion/table/tabletool"
)

// systemProofs are the parameters of main.cf that hold for a whole system. A line of theirs that begins with ! takes that parameter out of the file.
func systemProofs() []proof {
	ours := rcpt("a@good.test", "USER")
	logFile := func(p *probe) string {
		ours(p)
		text, err := os.ReadFile(filepath.Join(p.s.dir, "maillog"))
		if err != nil {
			return "no file\n" + p.logged("connect from")
		}
		return "in the file:\n" + string(text)
	}
	return []proof{
		{"mynetworks_style", "host", "class", "!mynetworks", rcpt("", "x@elsewhere.test"), "\n554 5.7.1", "\n250 2.1.5"},
		{"compatibility_level", "0", "3.6", "!compatibility_level\n!mydomain\nmydomain = test", rcpt("", "u0@example"), "\n250 2.1.5", "\n554 5.7.1"},
		{"maillog_file", "/dev/stderr", "DIR/maillog", "", logFile, "no file", "in the file:"},
		{"enable_long_queue_ids", "no", "yes", "", queueID, "short", "long"},
		{"postilion_log_format", "classic", "json", "", withLog(ours), "postfix/smtpd[", `"program":"postfix/smtpd"`},
	}
}

// queueID tells which form the id of a message has: short ones are hexadecimal.
func queueID(p *probe) string {
	saw := lettered(stranger, "Subject: x", "", "x")(p)
	_, rest, found := strings.Cut(saw, "queued as ")
	id, _, _ := strings.Cut(rest, "\n")
	switch {
	case !found || id == "":
		return saw
	case strings.Trim(id, "0123456789ABCDEF") == "":
		return "short"
	}
	return "long"
}

// fileProofs are the parameters of main.cf that show without a running system, or in that none can be started.
func fileProofs() []proof {
	return []proof{
		{"inet_interfaces", "127.0.0.1", "127.0.0.3", "", endpoints, "127.0.0.1:2525 ", "127.0.0.3:2525 "},
		{"inet_protocols", "ipv4", "all", "!inet_interfaces\ninet_interfaces = loopback-only", endpoints, "", "[::1]:2525 "},
		{"syslog_facility", "local1", "nosuch", "!maillog_file", started, "", `"nosuch"`},
		{"smtpd_tls_key_file", "DIR/tls/ecdsa.key", "DIR/tls/other.key", "smtpd_tls_cert_file = DIR/tls/ecdsa.pem", started, "started", "other.key"},
		{"smtpd_tls_eckey_file", "DIR/tls/ecdsa.key", "DIR/tls/other.key", "smtpd_tls_eccert_file = DIR/tls/ecdsa.pem", started, "started", "other.key"},
		{"smtpd_tls_dkey_file", "DIR/tls/ecdsa.key", "DIR/tls/other.key", "smtpd_tls_dcert_file = DIR/tls/ecdsa.pem", started, "started", "other.key"},
		{"smtpd_sasl_type", "dovecot", "cyrus", "smtpd_sasl_auth_enable = yes", started, "started", "smtpd_sasl_type = cyrus is not supported"},
		{"default_database_type", "hash", "texthash", "", queried, "", "the value"},
	}
}

// endpoints are the sockets that would be opened, with a service that has no address of its own.
func endpoints(p *probe) string {
	p.s.write("master.cf", "2525 inet n - n - - smtpd\n")
	options, err := service.InspectOptionsOf(service.Options{PostfixDir: p.s.dir, Getenv: p.s.getenv})
	if err != nil {
		return err.Error()
	}
	var notes service.Notes
	options.Log = notes.Logger()
	var text strings.Builder
	for _, e := range service.Inspect(p.t.Context(), options).Endpoints() {
		fmt.Fprintln(&text, e.String())
	}
	return text.String()
}

// started tells whether a system with these files starts.
func started(p *probe) string {
	server, err := service.Start(p.t.Context(), service.Options{
		PostfixDir: p.s.dir, DovecotFile: filepath.Join(p.s.dir, "dovecot.conf"), Getenv: p.s.getenv, Stderr: p.s.log,
	})
	if err != nil {
		return err.Error()
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := server.Stop(ctx); err != nil {
		p.t.Error(err)
	}
	return "started"
}

// queried asks a table without a type by postmap. There is only its text, so that types that need an index fail.
func queried(p *probe) string {
	p.s.write("table", "key the value\n")
	var out bytes.Buffer
	status := tabletool.Postmap(tabletool.Invocation{
		Args: []string{"-c", p.s.dir, "-q", "key", filepath.Join(p.s.dir, "table")}, Stdin: strings.NewReader(""), Stdout: &out, Stderr: &out, Getenv: p.s.getenv,
		Load: func(dir string) (tabletool.Parameters, error) {
			config, err := postfix.Load(dir)
			if err != nil {
				return nil, err
			}
			return parametersOf{config.View()}, nil
		},
	})
	return fmt.Sprintf("%s(exit %d)", out.String(), status)
}

type parametersOf struct{ view *postfix.View }

// Value implements tabletool.Parameters.
func (p parametersOf) Value(name string) (string, bool) {
	return p.view.String(name), p.view.IsSet(name)
}

// crowded opens more connections than a service with the least process limit takes, and tells what becomes of the first.
func crowded(p *probe) string {
	first := p.connect(friend)
	defer first.close()
	first.hear()
	for range 1000 {
		k := p.connect(friend)
		defer k.close()
		k.hear()
	}
	return first.await()
}
