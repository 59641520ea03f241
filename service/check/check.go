// Package check reads a configuration as the server does and tells, with file and line, what is honoured, what is not, what that means, and what is
// wrong: syntax and values, certificates, tables, services, relaying, and whether the two halves meet.
//
// It judges with the code that serves (service.Inspect) and with the registries of settings; it opens no socket, database or network connection and
// writes nothing.
package check

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"postilion/config/dovecot"
	"postilion/config/postfix"
	"postilion/service"
)

// Severity says how much a finding matters.
type Severity string

// The severities, the gravest first.
const (
	// Error: the server would not start.
	Error Severity = "error"
	// Warning: it starts and hardly does what is meant.
	Warning Severity = "warning"
	// NoEffect: the setting is accepted and changes nothing in this version.
	NoEffect Severity = "no effect"
	// NoMeaning: nothing here depends on the setting.
	NoMeaning Severity = "no meaning"
	// Fine: honoured, or a part that works.
	Fine Severity = "fine"
)

var severities = []Severity{Error, Warning, NoEffect, NoMeaning, Fine}

// Finding is one remark.
type Finding struct {
	// File is "" for what belongs to no place, Line 0 for a file as a whole.
	File     string   `json:"file,omitempty"`
	Line     int      `json:"line,omitempty"`
	Severity Severity `json:"severity"`
	// Setting is the parameter or setting, or "".
	Setting string `json:"setting,omitempty"`
	Text    string `json:"text"`
}

// Report is all that is to be said of a configuration.
type Report struct {
	// Files are the configuration files that were found.
	Files    []string  `json:"files"`
	Findings []Finding `json:"findings"`
	// Listeners are the sockets that would be served.
	Listeners []string `json:"listeners,omitempty"`
}

// Count gives the number of findings of a severity.
func (r *Report) Count(s Severity) int {
	n := 0
	for _, f := range r.Findings {
		if f.Severity == s {
			n++
		}
	}
	return n
}

// Options say what to check.
type Options struct {
	// PostfixDir and DovecotFile are as in service.Options.
	PostfixDir, DovecotFile string
	Getenv                  func(string) string
	// Now is the time certificates are judged by.
	Now time.Time
}

type run struct {
	options Options
	report  Report
	postfix *postfix.Config
	dovecot *dovecot.Config
}

// Run checks a configuration.
func Run(ctx context.Context, o Options) *Report {
	r := &run{options: o}
	r.readPostfix()
	r.readDovecot()
	if r.postfix != nil || r.dovecot != nil {
		r.inspect(ctx)
	}
	r.tidy()
	return &r.report
}

// tidy sorts by severity, file and line, and drops what was said before.
func (r *run) tidy() {
	slices.SortStableFunc(r.report.Findings, func(a, b Finding) int {
		if d := slices.Index(severities, a.Severity) - slices.Index(severities, b.Severity); d != 0 {
			return d
		}
		if d := r.fileOrder(a.File) - r.fileOrder(b.File); d != 0 {
			return d
		}
		if d := strings.Compare(a.File, b.File); d != 0 {
			return d
		}
		return a.Line - b.Line
	})
	seen := map[Finding]bool{}
	r.report.Findings = slices.DeleteFunc(r.report.Findings, func(f Finding) bool {
		if seen[f] {
			return true
		}
		seen[f] = true
		return false
	})
}

func (r *run) fileOrder(file string) int {
	if i := slices.Index(r.report.Files, file); i >= 0 {
		return i
	}
	return len(r.report.Files)
}

func (r *run) add(severity Severity, file string, line int, setting, text string) {
	r.report.Findings = append(r.report.Findings, Finding{File: file, Line: line, Severity: severity, Setting: setting, Text: text})
}

// addPlaced adds a text that may begin with "file:line: ".
func (r *run) addPlaced(severity Severity, setting, text string) {
	file, line, rest := splitPlace(text)
	r.add(severity, file, line, setting, rest)
}

// splitPlace divides "file:line: text".
func splitPlace(text string) (file string, line int, rest string) {
	place, rest, found := strings.Cut(text, ": ")
	if !found {
		return "", 0, text
	}
	at := strings.LastIndexByte(place, ':')
	if at <= 0 || strings.ContainsAny(place, " \t") {
		return "", 0, text
	}
	line, err := strconv.Atoi(place[at+1:])
	if err != nil {
		return "", 0, text
	}
	return place[:at], line, rest
}

func (r *run) readPostfix() {
	dir := r.options.PostfixDir
	if dir == "" {
		return
	}
	for _, name := range []string{"main.cf", "master.cf"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			r.report.Files = append(r.report.Files, filepath.Join(dir, name))
		}
	}
	config, err := postfix.Load(dir)
	if err != nil {
		var syntax *postfix.SyntaxError
		if errors.As(err, &syntax) {
			r.add(Error, syntax.Pos.File, syntax.Pos.Line, "", syntax.Text)
		} else {
			r.addPlaced(Error, "", err.Error())
		}
		return
	}
	fatal := false
	for _, d := range config.Check() {
		severity, setting := r.judgePostfix(config, d)
		fatal = fatal || severity == Error
		r.add(severity, d.Pos.File, d.Pos.Line, setting, d.Text)
	}
	r.honouredPostfix(config)
	if !fatal {
		r.postfix = config
	}
}

// judgePostfix turns a diagnostic's severity into ours: what a registry says of a parameter is no mistake.
func (r *run) judgePostfix(config *postfix.Config, d postfix.Diagnostic) (severity Severity, setting string) {
	name, _, _ := strings.Cut(d.Text, " ")
	name = strings.TrimSuffix(name, ":")
	p, known := config.Parameter(name)
	if known {
		setting = name
	}
	switch {
	case d.Severity >= postfix.Fatal:
		return Error, setting
	case d.Severity == postfix.Warning, !known, !strings.HasPrefix(d.Text, name+" has no meaning") && !strings.HasPrefix(d.Text, name+" is accepted"):
		return Warning, setting
	case p.Treatment == postfix.NoMeaning:
		return NoMeaning, setting
	case p.Reason != "":
		return Warning, setting
	}
	return NoEffect, setting
}

// honouredPostfix lists what is set and honoured, in main.cf and for each service.
func (r *run) honouredPostfix(config *postfix.Config) {
	note := func(view, base *postfix.View, service string) {
		for _, name := range config.Names() {
			p, _ := config.Parameter(name)
			where := view.Where(name)
			if p == nil || p.Treatment != postfix.Honoured || where.File == "" || strings.HasPrefix(where.File, "(") || base != nil && base.Where(name) == where {
				continue
			}
			r.add(Fine, where.File, where.Line, name, strings.TrimSpace(service+name+": "+p.Meaning))
		}
	}
	note(config.View(), nil, "")
	for _, s := range config.Services() {
		note(s.View(), config.View(), "service "+s.Name+": ")
	}
}

func (r *run) readDovecot() {
	file := r.options.DovecotFile
	if file == "" {
		return
	}
	r.report.Files = append(r.report.Files, file)
	config, err := dovecot.Load(file)
	var mistakes *dovecot.ConfigError
	switch {
	case errors.As(err, &mistakes):
		for _, d := range mistakes.Diagnostics {
			r.addDovecot(Error, d)
		}
		return
	case err != nil:
		r.add(Error, file, 0, "", err.Error())
		return
	}
	fatal := false
	for _, d := range config.Check() {
		if d.Setting == "name" {
			// A section's name counts as a setting of it.
			continue
		}
		severity := Warning
		switch {
		case d.Severity == dovecot.Error:
			severity, fatal = Error, true
		case d.Severity == dovecot.Note:
			severity = NoMeaning
		case strings.Contains(d.Text, "is not honoured yet"):
			severity = NoEffect
		}
		r.addDovecot(severity, d)
	}
	r.honouredDovecot(config)
	if !fatal {
		r.dovecot = config
	}
}

func (r *run) addDovecot(severity Severity, d dovecot.Diagnostic) {
	text := d.Text
	if d.Hint != "" {
		text += " (" + d.Hint + ")"
	}
	r.add(severity, d.Position.File, d.Position.Line, d.Setting, text)
}

// honouredDovecot lists what is set and honoured, everywhere and for each protocol.
func (r *run) honouredDovecot(config *dovecot.Config) {
	for _, protocol := range []string{"", "imap", "pop3", "lmtp"} {
		view := config.For(dovecot.Filter{Protocol: protocol})
		for _, s := range dovecot.Settings() {
			if where := view.Where(s.Name); s.Section == "" && s.Treatment == dovecot.Honoured && view.Set(s.Name) {
				r.add(Fine, where.File, where.Line, s.Name, s.Name+": "+s.Meaning)
			}
		}
		for _, kind := range []string{"passdb", "userdb", "namespace", "service"} {
			for _, s := range view.Sections(kind) {
				r.honouredSection(s)
			}
		}
	}
}

func (r *run) honouredSection(s *dovecot.Section) {
	for _, name := range s.Names() {
		if setting, ok := dovecot.Lookup(s.Kind(), name); ok && s.Set(name) && setting.Treatment == dovecot.Honoured {
			where := s.Where(name)
			r.add(Fine, where.File, where.Line, name, s.Kind()+" "+name+": "+setting.Meaning)
		}
	}
	for _, kind := range []string{"inet_listener", "unix_listener", "mailbox"} {
		for _, inner := range s.Sections(kind) {
			r.honouredSection(inner)
		}
	}
}

// inspect builds the configuration without serving it and looks at the parts.
func (r *run) inspect(ctx context.Context) {
	var notes service.Notes
	i := service.Inspect(ctx, service.InspectOptions{
		Postfix: r.postfix, PostfixDir: r.options.PostfixDir, Dovecot: r.dovecot, Getenv: r.options.Getenv, Log: notes.Logger(),
	})
	known := r.certificates(i)
	known = append(known, r.tables(i)...)
	for _, p := range i.Relay() {
		r.add(Warning, p.Where.File, p.Where.Line, "", "service "+p.Service+": "+p.Text)
		known = append(known, p.Text)
	}
	r.junctions(i)
	r.services()
	for _, err := range i.Errors {
		if !saidBefore(err.Error(), known) {
			r.addPlaced(Error, "", err.Error())
		}
	}
	for _, text := range notes.Texts() {
		if !saidBefore(text, known) {
			r.addPlaced(Warning, "", text)
		}
	}
	for _, e := range i.Endpoints() {
		r.report.Listeners = append(r.report.Listeners, e.String())
	}
}

// saidBefore tells that a text says what one of the others said, with other words around it.
func saidBefore(text string, known []string) bool {
	return slices.ContainsFunc(known, func(k string) bool { return k != "" && (strings.Contains(text, k) || strings.Contains(k, text)) })
}
