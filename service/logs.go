package service

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"sync"

	"postilion/config/dovecot"
	"postilion/config/postfix"
	"postilion/service/maillog"
)

// syslogSocket is where syslogd and journald listen.
const syslogSocket = "/dev/log"

// logs holds the open log destinations of a process by what names them; they outlive reloads.
type logs struct {
	stderr io.Writer
	// append opens a log file.
	append func(name string) (*os.File, error)

	mu    sync.Mutex
	sinks map[string]maillog.Sink
	// asked names the destinations that were asked for since begin.
	asked map[string]bool
}

// begin starts to note which destinations are asked for.
func (l *logs) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked = map[string]bool{}
}

// used names the destinations that were asked for since begin.
func (l *logs) used() map[string]bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.asked)
}

// keep closes the destinations that are not used.
func (l *logs) keep(used map[string]bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	for name, s := range l.sinks {
		if !used[name] {
			errs = append(errs, s.Close())
			delete(l.sinks, name)
		}
	}
	return errors.Join(errs...)
}

// sink returns the destination of that name, opened when it is new.
func (l *logs) sink(name string, open func() (maillog.Sink, error)) (maillog.Sink, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.asked != nil {
		l.asked[name] = true
	}
	if s, ok := l.sinks[name]; ok {
		return s, nil
	}
	s, err := open()
	if err != nil {
		return nil, err
	}
	if l.sinks == nil {
		l.sinks = map[string]maillog.Sink{}
	}
	l.sinks[name] = s
	return s, nil
}

func (l *logs) file(path string) (maillog.Sink, error) {
	switch path {
	case "/dev/stderr", "":
		return maillog.Writer(l.stderr), nil
	case "/dev/stdout":
		return l.sink(path, func() (maillog.Sink, error) { return maillog.Writer(os.Stdout), nil })
	}
	return l.sink(path, func() (maillog.Sink, error) {
		return maillog.FileBy(path, func() (*os.File, error) { return l.append(path) })
	})
}

// syslog falls back to standard error where no syslog daemon listens, as in containers.
func (l *logs) syslog(facility, tag string) (maillog.Sink, error) {
	return l.sink("syslog "+facility+" "+tag, func() (maillog.Sink, error) {
		s, err := maillog.Syslog(syslogSocket, facility, tag)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) || isRefused(err) {
			return maillog.Writer(l.stderr), nil
		}
		return s, err
	})
}

func (l *logs) reopen() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	for _, s := range l.sinks {
		errs = append(errs, s.Reopen())
	}
	return errors.Join(errs...)
}

func (l *logs) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	for name, s := range l.sinks {
		errs = append(errs, s.Close())
		delete(l.sinks, name)
	}
	return errors.Join(errs...)
}

// postfixLog is the log of the Postfix half: maillog_file, else syslog.
func (l *logs) postfixLog(view *postfix.View, hostname string) (*slog.Logger, error) {
	var sink maillog.Sink
	var err error
	if path := view.String("maillog_file"); path != "" {
		sink, err = l.file(path)
	} else {
		sink, err = l.syslog(view.String("syslog_facility"), "")
	}
	if err != nil {
		return nil, fmt.Errorf("%s: maillog_file: %w", view.Where("maillog_file"), err)
	}
	format := maillog.Postfix
	if view.String("postilion_log_format") == "json" {
		format = maillog.JSON
	}
	return slog.New(maillog.New(maillog.Options{
		Format: format, Sink: sink, Hostname: hostname, Program: first(view.String("syslog_name"), "postfix") + "/master",
	})), nil
}

// dovecotLog is the log of the Dovecot half: log_path, which is syslog by default, and info_log_path.
func (l *logs) dovecotLog(view *dovecot.View, hostname string) (*slog.Logger, error) {
	path := first(view.String("info_log_path"), view.String("log_path"))
	var sink maillog.Sink
	var err error
	if path == "" || path == "syslog" {
		sink, err = l.syslog(first(view.String("syslog_facility"), "mail"), "dovecot: ")
	} else {
		sink, err = l.file(path)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: log_path: %w", view.Where("log_path"), err)
	}
	format := maillog.Dovecot
	if view.String("postilion_log_format") == "json" {
		format = maillog.JSON
	}
	level := slog.LevelInfo
	if view.Bool("mail_debug") || view.Bool("auth_debug") {
		level = slog.LevelDebug
	}
	return slog.New(maillog.New(maillog.Options{Format: format, Sink: sink, Hostname: hostname, Program: "master", Level: level})), nil
}
