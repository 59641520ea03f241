package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// figure is one line of a report: a measure of ours beside a peer's.
type figure struct {
	Case    string    `json:"case"`
	Measure string    `json:"measure"`
	Ours    []float64 `json:"ours"`
	Peer    string    `json:"peer,omitempty"`
	Theirs  []float64 `json:"theirs,omitempty"`
	// Ratio is ours over theirs, by medians; 0 without a peer.
	Ratio float64 `json:"ratio,omitempty"`
	// Target is what was to be reached, empty when there is none; Met tells whether it was.
	Target string `json:"target,omitempty"`
	Met    bool   `json:"met"`
}

// report is what one command found.
type report struct {
	name    string
	figures []figure
	notes   []string
	// others are the shares of the machine that neither the measured server nor the load used, one a run.
	others []float64
}

// bound is a target: on the ratio to the peer when there is one, else on our figure.
type bound struct {
	least, most float64
	// share shows a ratio below one as 1/n.
	share bool
	unit  string
}

func atLeast(x float64) bound        { return bound{least: x} }
func atMost(x float64) bound         { return bound{most: x} }
func atMostOf(x float64) bound       { return bound{most: x, share: true} }
func (b bound) in(unit string) bound { b.unit = unit; return b }
func (b bound) holds(x float64) bool {
	return (b.least == 0 || x >= b.least) && (b.most == 0 || x <= b.most)
}
func (b bound) none() bool { return b.least == 0 && b.most == 0 }
func (b bound) text(ratio bool) string {
	unit := b.unit
	if ratio {
		unit = "x"
	}
	switch {
	case b.none():
		return ""
	case b.least > 0:
		return "at least " + number(b.least) + unit
	case b.share:
		return "at most 1/" + number(1/b.most)
	}
	return "at most " + number(b.most) + unit
}

// compare adds a line with a peer's figure; target is on the ratio.
func (r *report) compare(name, measure string, ours []float64, peer string, theirs []float64, target bound) {
	f := figure{Case: name, Measure: measure, Ours: ours, Peer: peer, Theirs: theirs, Target: target.text(true)}
	if m := median(theirs); m > 0 {
		f.Ratio = median(ours) / m
	}
	f.Met = f.Ratio > 0 && target.holds(f.Ratio)
	r.figures = append(r.figures, f)
}

// state adds a line of ours alone, or with a peer's figure that is only shown; target is on our figure.
func (r *report) state(name, measure string, ours []float64, peer string, theirs []float64, target bound) {
	f := figure{Case: name, Measure: measure, Ours: ours, Peer: peer, Theirs: theirs, Target: target.text(false), Met: target.holds(median(ours))}
	if m := median(theirs); m > 0 {
		f.Ratio = median(ours) / m
	}
	r.figures = append(r.figures, f)
}

func (r *report) note(format string, args ...any) {
	r.notes = append(r.notes, fmt.Sprintf(format, args...))
}

func (r *report) print(out io.Writer, asJSON bool) error {
	if asJSON {
		encoder := json.NewEncoder(out)
		for _, f := range r.figures {
			if err := encoder.Encode(f); err != nil {
				return err
			}
		}
		return nil
	}
	if len(r.figures) == 0 {
		return nil
	}
	rows := [][]string{{"case", "measure", "Postilion", "beside", "theirs", "ratio", "target", ""}}
	for _, f := range r.figures {
		verdict := ""
		if f.Target != "" {
			verdict = "NOT met"
			if f.Met {
				verdict = "met"
			}
		}
		rows = append(rows, []string{f.Case, f.Measure, spread(f.Ours), f.Peer, spread(f.Theirs), ratio(f.Ratio), f.Target, verdict})
	}
	if _, err := fmt.Fprintf(out, "\n%s, %s\n\n%s", r.name, circumstances(r.others), table(rows)); err != nil {
		return err
	}
	for _, n := range r.notes {
		if _, err := fmt.Fprintln(out, "\n"+n); err != nil {
			return err
		}
	}
	return nil
}

// circumstances say how busy the machine was.
func circumstances(others []float64) string {
	text := time.Now().UTC().Format("2006-01-02 15:04 UTC")
	if len(others) > 0 {
		text += fmt.Sprintf(", %.0f %% of the CPU used by others meanwhile (median; at most %.0f %%)", 100*median(others), 100*slices.Max(others))
	}
	return text
}

// table lays rows out as a Markdown table that can be read as it is.
func table(rows [][]string) string {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], len([]rune(cell)))
		}
	}
	var b strings.Builder
	line := func(row []string, fill string) {
		b.WriteString("|")
		for i, cell := range row {
			b.WriteString(" " + cell + strings.Repeat(fill, widths[i]-len([]rune(cell))) + " |")
		}
		b.WriteString("\n")
	}
	line(rows[0], " ")
	rule := make([]string, len(widths))
	line(rule, "-")
	for _, row := range rows[1:] {
		line(row, " ")
	}
	return b.String()
}

// spread shows a median and the range behind it.
func spread(v []float64) string {
	switch {
	case len(v) == 0:
		return ""
	case len(v) == 1 || slices.Min(v) == slices.Max(v):
		return number(v[0])
	}
	return fmt.Sprintf("%s (%s-%s)", number(median(v)), number(slices.Min(v)), number(slices.Max(v)))
}

// number shows three digits that matter.
func number(x float64) string {
	switch size := math.Abs(x); {
	case size >= 100:
		return strconv.FormatFloat(x, 'f', 0, 64)
	case size >= 10:
		return trim(strconv.FormatFloat(x, 'f', 1, 64))
	case size >= 1:
		return trim(strconv.FormatFloat(x, 'f', 2, 64))
	}
	return trim(strconv.FormatFloat(x, 'f', 3, 64))
}

func trim(s string) string { return strings.TrimSuffix(strings.TrimRight(s, "0"), ".") }

// ratio shows a ratio, small ones as a share.
func ratio(x float64) string {
	switch {
	case x == 0:
		return ""
	case x < 0.5:
		return "1/" + number(1/x)
	}
	return number(x) + "x"
}
