package postconf

import "strings"

const (
	lineLimit = 80 // columns of a folded line
	indent    = 4  // columns before its continuation
	blanks    = " \t\r\n"
)

// printWords prints a line with one space between words, folded with -f.
func (r *run) printWords(line string) {
	column := 0
	for _, word := range strings.FieldsFunc(line, func(c rune) bool { return strings.ContainsRune(blanks, c) }) {
		switch {
		case column == 0:
		case r.has('f') && column+1+len(word) > lineLimit:
			r.stdout.WriteString("\n" + strings.Repeat(" ", indent))
			column = indent
		default:
			r.stdout.WriteByte(' ')
			column++
		}
		r.stdout.WriteString(word)
		column += len(word)
	}
	r.stdout.WriteByte('\n')
}
