package dovecot

import (
	"fmt"
	"path/filepath"
	"strings"
)

// maxAlternatives bounds what braces in one include pattern may expand to.
const maxAlternatives = 256

// expandGlob gives the files an include pattern names, in the order of glob(3) with GLOB_BRACE: braces first, then names
// sorted. A leading "*" does not match a dot file.
func expandGlob(pattern string) ([]string, error) {
	alternatives, err := expandBraces(pattern)
	if err != nil {
		return nil, err
	}
	var paths []string
	for _, p := range alternatives {
		found, err := filepath.Glob(p)
		if err != nil {
			return nil, fmt.Errorf("pattern %s: %w", p, err)
		}
		for _, f := range found {
			base, want := filepath.Base(f), filepath.Base(p)
			if strings.HasPrefix(base, ".") && !strings.HasPrefix(want, ".") {
				continue
			}
			paths = append(paths, f)
		}
	}
	return paths, nil
}

func expandBraces(pattern string) ([]string, error) {
	done, pending := []string{}, []string{pattern}
	for len(pending) > 0 {
		p := pending[0]
		pending = pending[1:]
		before, choices, after, ok := splitBraces(p)
		if !ok {
			done = append(done, p)
			continue
		}
		more := make([]string, len(choices))
		for i, c := range choices {
			more[i] = before + c + after
		}
		pending = append(more, pending...)
		if len(done)+len(pending) > maxAlternatives {
			return nil, fmt.Errorf("pattern %s stands for more than %d others", pattern, maxAlternatives)
		}
	}
	return done, nil
}

// splitBraces finds the first outermost {a,b}. "{}" is no choice.
func splitBraces(p string) (before string, choices []string, after string, ok bool) {
	start, depth, from := -1, 0, 0
	for i := range len(p) {
		switch p[i] {
		case '{':
			if depth == 0 {
				start, from, choices = i, i+1, nil
			}
			depth++
		case ',':
			if depth == 1 {
				choices = append(choices, p[from:i])
				from = i + 1
			}
		case '}':
			if depth == 0 {
				continue
			}
			if depth--; depth == 0 && i > start+1 {
				return p[:start], append(choices, p[from:i]), p[i+1:], true
			}
		}
	}
	return "", nil, "", false
}
