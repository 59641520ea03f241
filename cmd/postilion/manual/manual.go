// Package manual is the form in which Postilion's commands and files are documented: one Page each, shown as help text on a terminal and written as a
// manual page. What a page says stands beside what it describes; this package only lays it out. Manual pages are in the man(7) macros.
package manual

import (
	"fmt"
	"io"
	"strings"
)

// Page documents one command or one file format.
type Page struct {
	// Name is the command's or the file's name.
	Name string
	// Section is the manual's: 1 for commands, 5 for files, 8 for administration.
	Section int
	// Summary is one line without a full stop.
	Summary string
	// Synopsis holds one or more ways to call, without the name of the program itself when Name stands first.
	Synopsis []string
	// Description is paragraphs with an empty line between them; a paragraph that begins with four blanks is shown as it is.
	Description string
	Options     []Entry
	// Entries are parameters or parts of a file.
	Entries  []Entry
	Exit     []Entry
	Examples []Entry
	Files    []Entry
	SeeAlso  []string
}

// Entry is a term and what is said of it.
type Entry struct {
	Term, Text string
}

// Help writes the page for a terminal.
func (p *Page) Help(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s - %s\n", p.Name, p.Summary)
	for i, line := range p.Synopsis {
		lead := "Usage:"
		if i > 0 {
			lead = "      "
		}
		fmt.Fprintf(&b, "%s %s\n", lead, line)
	}
	if p.Description != "" {
		b.WriteByte('\n')
		for paragraph := range strings.SplitSeq(strings.TrimSpace(p.Description), "\n\n") {
			b.WriteString(wrap(paragraph, 0, 78))
			b.WriteByte('\n')
		}
		text := strings.TrimSuffix(b.String(), "\n")
		b.Reset()
		b.WriteString(text)
	}
	for _, part := range p.parts() {
		if len(part.entries) == 0 {
			continue
		}
		fmt.Fprintf(&b, "\n%s:\n", part.title)
		for _, e := range part.entries {
			writeEntry(&b, e)
		}
	}
	if len(p.SeeAlso) > 0 {
		fmt.Fprintf(&b, "\nSee also: %s\n", strings.Join(p.SeeAlso, ", "))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

type part struct {
	title   string
	entries []Entry
}

func (p *Page) parts() []part {
	return []part{
		{"Options", p.Options}, {"Parameters", p.Entries}, {"Exit status", p.Exit}, {"Examples", p.Examples}, {"Files", p.Files},
	}
}

const termWidth = 22

func writeEntry(b *strings.Builder, e Entry) {
	text := wrap(e.Text, termWidth+4, 78)
	if len(e.Term) > termWidth {
		fmt.Fprintf(b, "  %s\n", e.Term)
		if e.Text != "" {
			b.WriteString(text)
		}
		return
	}
	if e.Text == "" {
		fmt.Fprintf(b, "  %s\n", e.Term)
		return
	}
	fmt.Fprintf(b, "  %-*s  %s", termWidth, e.Term, strings.TrimLeft(text, " "))
}

// wrap breaks a paragraph into lines of at most width characters that begin with indent blanks, each ended by a line feed.
func wrap(text string, indent, width int) string {
	if strings.HasPrefix(text, "    ") {
		return text + "\n"
	}
	var b strings.Builder
	column := 0
	for word := range strings.FieldsSeq(text) {
		if column > 0 && column+1+len(word) > width {
			b.WriteByte('\n')
			column = 0
		}
		if column == 0 {
			b.WriteString(strings.Repeat(" ", indent))
			column = indent
		} else {
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += len(word)
	}
	b.WriteByte('\n')
	return b.String()
}

// Man writes the page in man(7) form.
func (p *Page) Man(w io.Writer, version string) error {
	var b strings.Builder
	fmt.Fprintf(&b, ".TH %s %d \"\" \"Postilion %s\" \"Postilion\"\n", strings.ToUpper(escape(p.Name)), p.Section, escape(version))
	fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n", escape(p.Name), escape(p.Summary))
	if len(p.Synopsis) > 0 {
		b.WriteString(".SH SYNOPSIS\n.nf\n")
		for _, line := range p.Synopsis {
			b.WriteString(guard(escape(line)) + "\n")
		}
		b.WriteString(".fi\n")
	}
	if p.Description != "" {
		b.WriteString(".SH DESCRIPTION\n")
		for i, paragraph := range strings.Split(strings.TrimSpace(p.Description), "\n\n") {
			if i > 0 {
				b.WriteString(".PP\n")
			}
			if strings.HasPrefix(paragraph, "    ") {
				b.WriteString(".nf\n")
				for line := range strings.Lines(paragraph) {
					b.WriteString(guard(escape(strings.TrimRight(line, "\n"))) + "\n")
				}
				b.WriteString(".fi\n")
				continue
			}
			b.WriteString(guard(escape(strings.Join(strings.Fields(paragraph), " "))) + "\n")
		}
	}
	for _, part := range p.parts() {
		if len(part.entries) == 0 {
			continue
		}
		fmt.Fprintf(&b, ".SH %s\n", strings.ToUpper(part.title))
		for _, e := range part.entries {
			fmt.Fprintf(&b, ".TP\n.B %s\n%s\n", strings.ReplaceAll(escape(e.Term), `"`, `\(dq`), guard(escape(strings.Join(strings.Fields(e.Text), " "))))
		}
	}
	if len(p.SeeAlso) > 0 {
		fmt.Fprintf(&b, ".SH SEE ALSO\n%s\n", escape(strings.Join(p.SeeAlso, ", ")))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func escape(text string) string {
	return strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(text)
}

// guard keeps a line from being taken for a request.
func guard(line string) string {
	if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
		return `\&` + line
	}
	return line
}
