package maildir

import "strings"

const subscriptionsName = "subscriptions"

// subscriptions is the content of a subscriptions file: names with "/" between levels. The old form has the layout's separator
// between levels and modified UTF-7; version 2 separates by TAB.
type subscriptions struct {
	version2 bool
	names    []string
}

// maxSubscriptionLine bounds a line in octets: a mailbox name with every octet coded.
const maxSubscriptionLine = 4 * maxName

const subscriptionsHeader = "V\t2\n\n"

// parseSubscriptions reads either form. Lines that are no name are left out.
func parseSubscriptions(text []byte, l location) subscriptions {
	var s subscriptions
	known := map[string]bool{}
	body := string(text)
	if body, s.version2 = strings.CutPrefix(body, subscriptionsHeader); len(text) == 0 {
		s.version2 = true
	}
	for line := range strings.Lines(body) {
		line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
		if len(line) > maxSubscriptionLine {
			continue
		}
		var levels []string
		switch {
		case s.version2:
			levels = strings.Split(line, "\t")
			for i, level := range levels {
				levels[i] = unescapeTab(level)
			}
		case l.fs:
			levels = strings.Split(line, "/")
		default:
			levels = strings.Split(line, ".")
		}
		name, ok := l.decode(strings.Join(levels, "/"))
		if ok && line != "" && !known[name] {
			known[name] = true
			s.names = append(s.names, name)
		}
	}
	return s
}

func (s subscriptions) format(l location) []byte {
	var out strings.Builder
	if s.version2 {
		out.WriteString(subscriptionsHeader)
	}
	for _, name := range s.names {
		coded := l.encode(name)
		switch {
		case s.version2:
			levels := strings.Split(coded, "/")
			for i, level := range levels {
				levels[i] = escapeTab(level)
			}
			coded = strings.Join(levels, "\t")
		case !l.fs:
			coded = strings.ReplaceAll(coded, "/", ".")
		}
		out.WriteString(coded)
		out.WriteByte('\n')
	}
	return []byte(out.String())
}

// escapeTab and unescapeTab are Dovecot's way to write a field between tabs.
func escapeTab(text string) string {
	return strings.NewReplacer("\x01", "\x011", "\t", "\x01t", "\n", "\x01n", "\r", "\x01r", "\x00", "\x010").Replace(text)
}

func unescapeTab(text string) string {
	return strings.NewReplacer("\x011", "\x01", "\x01t", "\t", "\x01n", "\n", "\x01r", "\r", "\x010", "\x00").Replace(text)
}
