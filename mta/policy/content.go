package policy

import (
	"context"
	"fmt"
	"strings"

	"postilion/config/postfix"
	"postilion/table"
)

// ContentChecks are header_checks, mime_header_checks, nested_header_checks and body_checks (header_checks(5)). They do not change; a Scan is one
// message's run through them.
type ContentChecks struct {
	header, mime, nested, body contentTables
	bodyLimit, headerLimit     int
	lineLimit, nesting         int
	boundaryLimit              int
	plain                      bool
	warn                       func(string)
}

// contentTables are the tables of one parameter.
type contentTables struct {
	parameter string
	tables    []table.Table
}

// ContentOptions are what content checks are made of.
type ContentOptions struct {
	// View gives the parameters of the cleanup service. Required.
	View *postfix.View
	// Open opens a table. Required.
	Open func(spec string) table.Table
	// Warn receives what Postfix would log as a warning; nil drops it.
	Warn func(text string)
}

// NewContentChecks reads the parameters.
func NewContentChecks(options ContentOptions) *ContentChecks {
	v := options.View
	c := &ContentChecks{
		bodyLimit: v.Int("body_checks_size_limit"), headerLimit: v.Int("header_size_limit"), lineLimit: max(v.Int("line_length_limit"), 80),
		nesting: v.Int("mime_nesting_limit"), boundaryLimit: v.Int("mime_boundary_length_limit"), plain: v.Bool("disable_mime_input_processing"),
		warn: options.Warn,
	}
	if c.warn == nil {
		c.warn = func(string) {}
	}
	opened := map[string]table.Table{}
	for parameter, place := range map[string]*contentTables{
		"header_checks": &c.header, "mime_header_checks": &c.mime, "nested_header_checks": &c.nested, "body_checks": &c.body,
	} {
		place.parameter = parameter
		for _, spec := range v.List(parameter) {
			if opened[spec] == nil {
				opened[spec] = options.Open(spec)
			}
			place.tables = append(place.tables, opened[spec])
		}
	}
	return c
}

// Empty tells that there is nothing to check.
func (c *ContentChecks) Empty() bool {
	return len(c.header.tables)+len(c.mime.tables)+len(c.nested.tables)+len(c.body.tables) == 0
}

// ContentEvent is a line for the log of cleanup: "reject: header Subject: x from ...: 5.7.1 text".
type ContentEvent struct {
	// Verb is reject, warning, info, filter, discard, hold, prepend, replace, redirect, bcc, strip or pass.
	Verb string
	// What is "header" or "body" and the text that matched, made printable and cut at 200 octets.
	What string
	// Text is the action's text, with REJECT its enhanced status code in front; may be empty.
	Text string
}

// maxContentText is how much of a matched text an event shows, in octets.
const maxContentText = 200

// what words the place of a match for the log.
func what(kind, text string) string {
	if len(text) > maxContentText {
		text = text[:maxContentText]
	}
	b := []byte(kind + " " + text)
	for i, c := range b {
		if c < ' ' || c == 0x7f {
			b[i] = '?'
		}
	}
	return string(b)
}

// outcome is what becomes of a header or a line.
type outcome struct {
	drop bool
	// before goes in front, instead takes the place; neither has a line end.
	before, instead string
	replaced        bool
}

// check asks the tables about a text and does what they say.
func (s *Scan) check(tables *contentTables, kind, text string) outcome {
	for _, t := range tables.tables {
		entry, ok, err := t.Find(s.ctx, text)
		if err != nil {
			s.fail(fmt.Errorf("%s: %w", tables.parameter, err))
			return outcome{}
		}
		if ok {
			return s.act(tables.parameter, entry.Value, kind, text)
		}
	}
	return outcome{}
}

func (s *Scan) fail(err error) {
	if s.Err == nil {
		s.Err = err
	}
}

func (s *Scan) event(verb, kind, text, argument string) {
	if s.log != nil {
		s.log(ContentEvent{Verb: verb, What: what(kind, text), Text: argument})
	}
}

// act does what the right-hand side of a table says.
func (s *Scan) act(parameter, value, kind, text string) outcome {
	word, argument, _ := strings.Cut(strings.ReplaceAll(value, "\t", " "), " ")
	argument = strings.TrimLeft(argument, " ")
	action := strings.ToUpper(word)
	switch action {
	case "DUNNO", "OK":
	case "REJECT":
		s.reject(kind, text, argument)
	case "WARN":
		s.event("warning", kind, text, argument)
	case "INFO":
		s.event("info", kind, text, argument)
	case "PASS":
		s.event("pass", kind, text, argument)
		s.off = true
	case "DISCARD":
		s.event("discard", kind, text, argument)
		s.Discard, s.off = true, true
	case "HOLD":
		if !s.held && !s.Discard {
			s.event("hold", kind, text, argument)
			s.Effects = append(s.Effects, Effect{Kind: action, Argument: argument})
		}
		s.held = true
	case "STRIP":
		s.event("strip", kind, text, argument)
		return outcome{drop: true}
	case "IGNORE":
		return outcome{drop: true}
	case "FILTER", "REDIRECT", "BCC":
		s.delegate(parameter, action, kind, text, argument)
	case "PREPEND", "REPLACE":
		return s.change(parameter, action, kind, text, argument)
	default:
		s.checks.warn(fmt.Sprintf("unknown command in %s map: %s", parameter, value))
	}
	return outcome{}
}

// reject refuses the message; the first reason counts, because nothing is checked behind it.
func (s *Scan) reject(kind, text, argument string) {
	status, reason := splitStatus("5.7.1", argument)
	if argument == "" {
		reason = "message content rejected"
	}
	code := "550"
	switch status[0] {
	case '4':
		code = "450"
	case '2':
		s.checks.warn(fmt.Sprintf("bad DSN action in %s -- need 4.x.x or 5.x.x", argument))
		code, status = "450", "4"+status[1:]
	}
	s.Refusal, s.off = code+" "+status+" "+reason, true
	s.event("reject", kind, text, status+" "+reason)
}

func (s *Scan) delegate(parameter, action, kind, text, argument string) {
	switch {
	case action == "FILTER" && argument == "":
		s.checks.warn(fmt.Sprintf("missing FILTER argument in %s map", parameter))
		return
	case action == "FILTER" && !strings.Contains(argument, ":"):
		s.checks.warn(fmt.Sprintf("bad FILTER command %s in %s -- need transport:destination", argument, parameter))
		return
	case action != "FILTER" && !strings.Contains(argument, "@"):
		s.checks.warn(fmt.Sprintf("bad %s target %q in %s map -- need user@domain", action, argument, parameter))
		return
	}
	s.event(strings.ToLower(action), kind, text, argument)
	s.Effects = append(s.Effects, Effect{Kind: action, Argument: argument})
	if action == "REDIRECT" {
		s.off = true
	}
}

func (s *Scan) change(parameter, action, kind, text, argument string) outcome {
	if argument == "" {
		s.checks.warn(fmt.Sprintf("%s action without text in %s map", action, parameter))
		return outcome{}
	}
	if kind == "header" && !isHeader(argument) {
		s.checks.warn(fmt.Sprintf("bad %s header text %q in %s map -- need \"headername: headervalue\"", action, argument, parameter))
		return outcome{}
	}
	s.event(strings.ToLower(action), kind, text, argument)
	if action == "PREPEND" {
		return outcome{before: argument}
	}
	return outcome{instead: argument, replaced: true}
}

// Scan begins a message. What is kept of it goes to put, in pieces that end anywhere; log may be nil.
func (c *ContentChecks) Scan(ctx context.Context, put func([]byte), log func(ContentEvent)) *Scan {
	return &Scan{ctx: ctx, checks: c, put: put, log: log, header: true}
}
