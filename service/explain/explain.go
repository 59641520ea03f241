// Package explain shows on a terminal why a mail would be accepted or refused and where it would go. What it shows is the trace that the deciding code
// returned (service.Explain); it decides nothing.
package explain

import (
	"fmt"
	"io"
	"strings"

	"postilion/service"
)

// Write shows an explanation: who asks, each restriction with its place and result, the reply, and each destination with the steps that led there.
func Write(w io.Writer, x *service.Explanation) error {
	var b strings.Builder
	fmt.Fprintf(&b, "Service    %s (%s)\n", x.Service, x.Where)
	names := x.ClientName
	if x.ReverseName != x.ClientName {
		names += ", reverse name " + x.ReverseName
	}
	fmt.Fprintf(&b, "Client     %s (%s), HELO %s", x.Client, names, x.Helo)
	if x.TLS {
		b.WriteString(", TLS")
	}
	if x.User != "" {
		fmt.Fprintf(&b, ", login %s", x.User)
	}
	fmt.Fprintf(&b, "\nFrom       <%s>\nTo         <%s>\n", x.Sender, x.Recipient)
	for _, stage := range x.Stages {
		writeStage(&b, stage)
	}
	verdict := "Accepted"
	if !x.Accepted {
		verdict = "Refused"
	}
	if strings.HasPrefix(x.Reply, "250") {
		verdict = "Accepted"
	}
	fmt.Fprintf(&b, "\n%s: %s\n", verdict, x.Reply)
	for _, d := range x.Destinations {
		fmt.Fprintf(&b, "\n<%s>: %s\n", d.Recipient, d.Delivery)
		writeSteps(&b, d.Steps)
	}
	for _, problem := range x.Problems {
		for line := range strings.SplitSeq(problem, "\n") {
			fmt.Fprintf(&b, "\nProblem: %s\n", line)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func writeStage(b *strings.Builder, stage service.ExplainedStage) {
	fmt.Fprintf(b, "\nAt %s:\n", stage.Stage)
	writeSteps(b, stage.Steps)
	for _, e := range stage.Effects {
		fmt.Fprintf(b, "  effect: %s\n", e)
	}
	for _, warning := range stage.Warnings {
		fmt.Fprintf(b, "  only logged: %s\n", warning)
	}
	if stage.Problem != "" {
		fmt.Fprintf(b, "  problem: %s\n", stage.Problem)
	}
}

// writeSteps sets what and result in columns, with the place behind.
func writeSteps(b *strings.Builder, steps []service.ExplainedStep) {
	what, result := 0, 0
	for _, s := range steps {
		what, result = max(what, min(len(s.What), 44)), max(result, min(len(s.Result), 40))
	}
	for _, s := range steps {
		line := fmt.Sprintf("  %-*s  %-*s", what, s.What, result, s.Result)
		if s.Detail != "" {
			line += "  " + s.Detail
		}
		where := s.Where
		if where == "" {
			where = "default"
		}
		fmt.Fprintf(b, "%s  [%s]\n", line, where)
	}
}
