package check

import (
	"fmt"
	"io"
	"strings"
)

// Write shows the report on a terminal. Without all, what is fine is counted, and what has no effect is listed by name.
func (r *Report) Write(w io.Writer, all bool) error {
	var b strings.Builder
	shown := 2
	if all {
		shown = len(severities)
	}
	for _, f := range r.Findings {
		for _, s := range severities[:shown] {
			if f.Severity == s {
				b.WriteString(f.String() + "\n")
			}
		}
	}
	if !all {
		r.writeGroups(&b, NoEffect, "Accepted, without effect in this version:")
		r.writeGroups(&b, NoMeaning, "Without meaning here:")
	}
	if len(r.Listeners) > 0 {
		fmt.Fprintf(&b, "Would listen at: %s\n", strings.Join(r.Listeners, ", "))
	}
	if len(r.Files) > 0 {
		fmt.Fprintf(&b, "Read: %s\n", strings.Join(r.Files, ", "))
	}
	fmt.Fprintf(&b, "%s, %s; %d settings and parts are fine, %d have no effect, %d no meaning here", count(r.Count(Error), "error"), count(r.Count(Warning), "warning"),
		r.Count(Fine), r.Count(NoEffect), r.Count(NoMeaning))
	if !all {
		b.WriteString(" (--all lists them)")
	}
	b.WriteString("\n")
	_, err := io.WriteString(w, b.String())
	return err
}

func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

// String is FILE:LINE: SEVERITY: TEXT.
func (f Finding) String() string {
	place := ""
	switch {
	case f.Line > 0:
		place = fmt.Sprintf("%s:%d: ", f.File, f.Line)
	case f.File != "":
		place = f.File + ": "
	}
	return place + string(f.Severity) + ": " + f.Text
}

// writeGroups lists the findings of a severity by file, each setting with its lines.
func (r *Report) writeGroups(b *strings.Builder, s Severity, title string) {
	var files []string
	names := map[string][]string{}
	for _, f := range r.Findings {
		if f.Severity != s {
			continue
		}
		if names[f.File] == nil {
			files = append(files, f.File)
		}
		name := f.Setting
		if name == "" {
			name = strings.SplitN(strings.TrimPrefix(f.Text, "service "), " ", 2)[0]
		}
		names[f.File] = append(names[f.File], fmt.Sprintf("%s (%d)", name, f.Line))
	}
	if len(files) == 0 {
		return
	}
	fmt.Fprintln(b, title)
	for _, file := range files {
		line := "  " + file + ":"
		for i, name := range names[file] {
			if i > 0 {
				name = " " + name
				line += ","
			} else {
				name = " " + name
			}
			if len(line)+len(name) > 100 {
				fmt.Fprintln(b, line)
				line = "   "
			}
			line += name
		}
		fmt.Fprintln(b, line)
	}
}
