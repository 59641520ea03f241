package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
)

func TestReportSaysWhetherTargetsAreMet(t *testing.T) {
	r := &report{name: "inbound"}
	r.compare("4 KiB", "messages/s", []float64{500, 700, 600}, "Postfix", []float64{100, 90, 200}, atLeast(6))
	r.compare("4 KiB", "CPU ms/message", []float64{0.5}, "Postfix", []float64{4}, atMostOf(0.1))
	r.compare("4 KiB", "messages/s", []float64{600}, "floor", []float64{1000}, bound{})
	r.compare("4 KiB", "messages/s", []float64{600}, "nobody", nil, atLeast(1))
	r.state("start", "ms", []float64{99.5}, "", nil, atMost(100).in(" ms"))
	var out bytes.Buffer
	if err := r.print(&out, false); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(out.String(), "\n")[3:]
	for i, want := range []string{
		"| case  | measure        | Postilion     | beside  | theirs       | ratio | target        |         |",
		"| ----- | -------------- | ------------- | ------- | ------------ | ----- | ------------- | ------- |",
		"| 4 KiB | messages/s     | 600 (500-700) | Postfix | 100 (90-200) | 6x    | at least 6x   | met     |",
		"| 4 KiB | CPU ms/message | 0.5           | Postfix | 4            | 1/8   | at most 1/10  | NOT met |",
		"| 4 KiB | messages/s     | 600           | floor   | 1000         | 0.6x  |               |         |",
		"| 4 KiB | messages/s     | 600           | nobody  |              |       | at least 1x   | NOT met |",
		"| start | ms             | 99.5          |         |              |       | at most 100 ms | met     |",
	} {
		if squeeze(lines[i]) != squeeze(want) {
			t.Errorf("line %d:\n%s\nwant\n%s", i, lines[i], want)
		}
	}
	if len(lines[0]) != len(lines[3]) {
		t.Error("the columns do not stand under each other")
	}
}

func squeeze(s string) string {
	return strings.ReplaceAll(strings.Join(strings.Fields(s), " "), "-", "")
}

func TestCasesNameTheLoad(t *testing.T) {
	for want, d := range map[string]load{"4 KiB, 1 session": {sessions: 1, size: 4 << 10}, "64 KiB, 50 sessions": {sessions: 50, size: 64 << 10}} {
		if d.String() != want {
			t.Errorf("%q, want %q", d, want)
		}
	}
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		of   []float64
		want float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{4, 1}, 2.5}, {[]float64{9, 1, 2}, 2}} {
		if m := median(c.of); m != c.want {
			t.Errorf("median of %v is %v", c.of, m)
		}
	}
}

func TestWithoutThePeerLabItSaysSo(t *testing.T) {
	t.Setenv("POSTILION_SHARED", t.TempDir())
	err := run(context.Background(), []string{"inbound"}, &bytes.Buffer{})
	if err == nil || !strings.Contains(err.Error(), "peer lab is not here") {
		t.Errorf("got %v", err)
	}
}

func TestWrongUsage(t *testing.T) {
	for _, args := range [][]string{{}, {"-quick"}, {"inbound", "outbound"}} {
		if err := run(context.Background(), args, &bytes.Buffer{}); err == nil {
			t.Errorf("%q is taken", args)
		}
	}
}
