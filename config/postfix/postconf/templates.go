package postconf

import (
	"fmt"
	"os"

	"postilion/config/postfix"
)

// templates shows the bounce templates: -t as they are written, -b their text with $names replaced.
func (r *run) templates(mode byte) error {
	if len(r.arguments) > 1 {
		return fatalf("options -b and -t require at most one template file")
	}
	if err := r.load(true); err != nil {
		return err
	}
	view := r.config.View()
	path := view.String("bounce_template_file")
	if len(r.arguments) == 1 {
		path = r.arguments[0]
	}
	var text []byte
	if path != "" {
		if err := readable(path); err != nil {
			return err
		}
		var err error
		if text, err = os.ReadFile(path); err != nil {
			return err
		}
	}
	templates, found, err := postfix.ParseTemplates(path, text)
	if err != nil {
		return err
	}
	for _, d := range found {
		fmt.Fprintf(r.stderr, "postfix/bounce: warning: %s\n", d.Text)
	}
	for i, t := range templates.All() {
		if i > 0 {
			fmt.Fprintln(r.stdout)
		}
		if mode == 't' {
			r.showTemplate(t)
			continue
		}
		expanded, err := t.Expand(view)
		if err != nil {
			return err
		}
		fmt.Fprintf(r.stdout, "expanded_%s_text = <<EOF\n%sEOF\n", t.Name, expanded)
	}
	return nil
}

func (r *run) showTemplate(t postfix.Template) {
	fmt.Fprintf(r.stdout, "%s_template = <<EOF\nCharset: %s\nFrom: %s\nSubject: %s\n", t.Name, t.Charset, t.From, t.Subject)
	if t.PostmasterCopy != "" {
		fmt.Fprintf(r.stdout, "Postmaster-Subject: %s\n", t.PostmasterCopy)
	}
	fmt.Fprintf(r.stdout, "\n%sEOF\n", t.Text)
}
