package postfix

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Template is the head and text of one kind of delivery status notification, as in bounce(5). Its text holds $names.
type Template struct {
	Name           string // failure, delay, success or verify
	Charset        string
	From           string
	Subject        string
	PostmasterCopy string // subject of the copy to the postmaster; only failure and delay have one
	Text           string // lines, each with its end
	Pos            Position
}

// templateNames in the order in which postconf shows them.
var templateNames = [...]string{"failure", "delay", "success", "verify"}

const usASCII = "us-ascii"

// defaultTemplates are used where bounce_template_file says nothing.
var defaultTemplates = map[string]Template{
	"failure": {
		Name: "failure", Charset: usASCII, From: "Mail Delivery System <MAILER-DAEMON>",
		Subject: "Undelivered Mail Returned to Sender", PostmasterCopy: "Postmaster Copy: Undelivered Mail",
		Text: "The mail server $myhostname could not deliver your message\n" +
			"to the recipients named below, and will not try again.\n" +
			"Your message is attached.\n\n" +
			"If you ask the postmaster for help, please send this report along.\n",
	},
	"delay": {
		Name: "delay", Charset: usASCII, From: "Mail Delivery System <MAILER-DAEMON>",
		Subject: "Delayed Mail (still being retried)", PostmasterCopy: "Postmaster Warning: Delayed Mail",
		Text: "This is only a warning: please do not send your message again.\n\n" +
			"The mail server $myhostname has tried to deliver your message\n" +
			"for $delay_warning_time_hours hour(s) without success, and goes on trying\n" +
			"until it is $maximal_queue_lifetime_days day(s) old.\n\n" +
			"If you ask the postmaster for help, please send this report along.\n",
	},
	"success": {
		Name: "success", Charset: usASCII, From: "Mail Delivery System <MAILER-DAEMON>", Subject: "Successful Mail Delivery Report",
		Text: "The mail server $myhostname has passed your message on for the recipients\n" +
			"named below. Where it was put into a mailbox nothing more will be reported;\n" +
			"elsewhere a report of failure may still follow.\n",
	},
	"verify": {
		Name: "verify", Charset: usASCII, From: "Mail Delivery System <MAILER-DAEMON>", Subject: "Mail Delivery Status Report",
		Text: "The mail server $myhostname encloses the delivery report you asked for.\n",
	},
}

// Templates are the four templates in use.
type Templates struct {
	byName map[string]Template
}

// All gives the templates in a fixed order: failure, delay, success, verify.
func (t *Templates) All() []Template {
	all := make([]Template, 0, len(templateNames))
	for _, name := range templateNames {
		all = append(all, t.byName[name])
	}
	return all
}

// Get gives the template of one kind.
func (t *Templates) Get(name string) (Template, bool) {
	template, ok := t.byName[name]
	return template, ok
}

// ParseTemplates reads a bounce template file over the built-in templates. A template with a defect is left out with a warning, in
// Postfix's words, and the built-in one stays.
func ParseTemplates(path string, text []byte) (*Templates, []Diagnostic, error) {
	t := &Templates{byName: map[string]Template{}}
	for name, template := range defaultTemplates {
		t.byName[name] = template
	}
	if len(text) > MaxValueSize {
		return nil, nil, fmt.Errorf("%s: %w of %d bytes", path, ErrTooLarge, MaxValueSize)
	}
	var found []Diagnostic
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	for i := 0; i < len(lines); i++ {
		start := i
		line := trim(lines[i])
		if line == "" || line[0] == '#' {
			continue
		}
		name, value, err := SplitNameValue(line)
		if err != nil {
			return nil, nil, &SyntaxError{Pos: Position{path, i + 1}, Text: err.Error(), Real: fmt.Sprintf("%s, line %d: %v: \"%s\"", path, i+1, err, line)}
		}
		mark, here := strings.CutPrefix(value, "<<")
		if !here {
			return nil, nil, &SyntaxError{
				Pos: Position{path, i + 1}, Text: "a template starts with: name = <<EOF",
				Real: fmt.Sprintf("%s, line %d: need \"template_name = <<EOF\"", path, i+1),
			}
		}
		mark = trim(mark)
		for i++; i < len(lines) && lines[i] != mark; i++ {
		}
		if i >= len(lines) {
			found = append(found, Diagnostic{Position{path, start + 1}, Warning, fmt.Sprintf("%s, line %d: missing %s end marker", path, len(lines)+1, quote(mark))})
		}
		kind, isTemplate := strings.CutSuffix(name, "_template")
		if _, known := t.byName[kind]; !known || !isTemplate {
			found = append(found, Diagnostic{Position{path, start + 1}, Warning, fmt.Sprintf("%s, line %d: unknown template name: %s -- ignoring this template", path, i+2, name)})
			continue
		}
		template, problem := parseTemplate(path, kind, lines[start+1:min(i, len(lines))])
		if problem != "" {
			found = append(found, Diagnostic{Position{path, start + 1}, Warning, problem})
			continue
		}
		template.Pos = Position{path, start + 1}
		t.byName[kind] = template
	}
	return t, found, nil
}

// parseTemplate reads the head and the text of one template.
func parseTemplate(path, kind string, lines []string) (Template, string) {
	template := defaultTemplates[kind]
	for len(lines) > 0 {
		label, value, isHeader := strings.Cut(lines[0], ":")
		if !isHeader || label == "" || strings.ContainsAny(label, " \t") {
			break
		}
		lines = lines[1:]
		value = trim(value)
		target := map[string]*string{
			"charset": &template.Charset, "from": &template.From, "subject": &template.Subject, "postmaster-subject": &template.PostmasterCopy,
		}[strings.ToLower(label)]
		switch {
		case target == nil:
			return Template{}, fmt.Sprintf(`%s: unknown "%s" header label in %s template -- ignoring this template`, path, label, kind)
		case value == "":
			return Template{}, fmt.Sprintf(`%s: empty "%s" header value in %s template -- ignoring this template`, path, label, kind)
		case !ascii(value):
			return Template{}, fmt.Sprintf(`%s: non-ASCII "%s" header value in %s template -- ignoring this template`, path, label, kind)
		case target == &template.PostmasterCopy && *target == "":
			return Template{}, fmt.Sprintf(`%s: inapplicable "%s" header label in %s template -- ignoring this template`, path, label, kind)
		}
		*target = value
	}
	for len(lines) > 0 && trim(lines[0]) == "" {
		lines = lines[1:]
	}
	if len(lines) == 0 {
		return Template{}, fmt.Sprintf("%s: missing message text in %s template -- ignoring this template", path, kind)
	}
	template.Text = strings.Join(lines, "\n") + "\n"
	if strings.EqualFold(template.Charset, usASCII) && !ascii(template.Text) {
		return Template{}, fmt.Sprintf("%s: 8-bit message text in %s template -- please specify a charset value other than us-ascii -- ignoring this template for now", path, kind)
	}
	return template, ""
}

func ascii(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// timeUnits are the suffixes by which a template names a time parameter in a unit.
var timeUnits = [...]struct {
	suffix string
	unit   time.Duration
}{
	{"_seconds", time.Second},
	{"_minutes", time.Minute},
	{"_hours", time.Hour},
	{"_days", 24 * time.Hour},
	{"_weeks", 7 * 24 * time.Hour},
}

// Expand gives the text of a template with its $names replaced: parameters, and delay_warning_time and maximal_queue_lifetime with
// _seconds, _minutes, _hours, _days or _weeks behind them.
func (t Template) Expand(v *View) (string, error) {
	var out strings.Builder
	for line := range strings.Lines(t.Text) {
		undefined := false
		text, err := expand(line, func(name string) (string, bool) {
			value, ok := v.templateName(name)
			undefined = undefined || !ok
			return value, ok
		})
		path := t.Pos.File
		if path == "" {
			path = "[built-in]"
		}
		var macro *MacroError
		switch {
		case errors.As(err, &macro):
			return "", &SyntaxError{Pos: t.Pos, Text: macro.Text, Real: fmt.Sprintf("%s: bad $name syntax in %s template: %s", path, t.Name, trimRight(line))}
		case undefined:
			real := fmt.Sprintf("%s: undefined $name in %s template: %s", path, t.Name, trimRight(line))
			return "", &SyntaxError{Pos: t.Pos, Text: real, Real: real}
		}
		out.WriteString(text)
	}
	return out.String(), nil
}

func (v *View) templateName(name string) (string, bool) {
	for _, u := range timeUnits {
		parameter, ok := strings.CutSuffix(name, u.suffix)
		if ok && (parameter == "delay_warning_time" || parameter == "maximal_queue_lifetime") {
			return fmt.Sprint(int64(v.Duration(parameter) / u.unit)), true
		}
	}
	return v.text(name)
}
