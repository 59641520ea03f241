package account

import (
	"path"
	"slices"
	"strings"
)

// outcome is what the databases asked so far came to, by the result_success, result_failure and result_internalfail rules.
type outcome struct {
	ok  bool
	err error
}

// runs tells whether a block with that skip setting is asked.
func (o *outcome) runs(skip string) bool {
	switch skip {
	case "authenticated":
		return !o.ok
	case "unauthenticated":
		return o.ok
	}
	return true
}

// step books one database's answer and tells whether it was the last to ask.
func (o *outcome) step(ok bool, err error, success, failure, internal string) (last bool) {
	rule := first(failure, "continue")
	switch {
	case err != nil:
		o.err = err
		rule = first(internal, "continue")
	case ok:
		rule = first(success, "return-ok")
	}
	switch rule {
	case "return-ok":
		o.ok = true
		return true
	case "return":
		return true
	case "return-fail":
		o.ok = false
		return true
	case "continue-ok":
		o.ok = true
	case "continue-fail":
		o.ok = false
	}
	return false
}

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

// serves tells whether the block is meant for the mechanism and the name.
func (p *passdb) serves(mechanism, name string) bool {
	if len(p.Mechanisms) > 0 && !slices.ContainsFunc(p.Mechanisms, func(m string) bool {
		return strings.EqualFold(m, mechanism) || (mechanism == "" && strings.EqualFold(m, "none"))
	}) {
		return false
	}
	included, hasInclude := false, false
	for _, pattern := range p.UsernameFilter {
		exclude := strings.HasPrefix(pattern, "!")
		matched, err := path.Match(strings.TrimPrefix(pattern, "!"), name)
		if err == nil && matched && exclude {
			return false
		}
		if !exclude {
			hasInclude = true
			included = included || (err == nil && matched)
		}
	}
	return included || !hasInclude
}
