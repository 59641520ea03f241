package policy

import (
	"fmt"
	"net/netip"
	"strings"

	"postilion/table"
)

// found is what an access table gave: a verdict, when there was an entry.
type found struct {
	verdict verdict
	ok      bool
}

// access asks a table for one key. partial keys are not shown to tables of patterns.
func (e *evaluation) access(t table.Table, key string, partial bool, about subject) found {
	if partial && t.Pattern() {
		return found{}
	}
	entry, ok, err := t.Find(e.ctx, key)
	if err != nil {
		e.decision.Problem = fmt.Errorf("%s: table lookup problem: %w", t.Spec(), err)
		return found{e.act(table.Entry{Value: "451 4.3.5 Server configuration error", Source: t.Spec()}, t.Spec(), key, about), true}
	}
	if !ok {
		return found{}
	}
	result := e.act(entry, t.Spec(), key, about)
	e.detail = key + " " + entry.Value + " (" + entry.Source + ")"
	return found{result, true}
}

// accessDomain asks for a domain and, except for addresses, its parents.
func (e *evaluation) accessDomain(t table.Table, domain string, partial bool, about subject) found {
	name := strings.ToLower(strings.TrimSuffix(domain, "."))
	numeric := isAddress(name)
	for {
		if f := e.access(t, name, partial, about); f.ok {
			return f
		}
		partial = true
		start := 0
		if strings.HasPrefix(name, ".") {
			start = 1
		}
		dot := strings.IndexByte(name[start:], '.')
		if dot < 0 || numeric {
			return found{}
		}
		name = name[start+dot:]
		if e.rules.accessParents {
			name = name[1:]
		}
		if name == "" {
			return found{}
		}
	}
}

// accessAddress asks for an address and its networks at octet, or colon, boundaries.
func (e *evaluation) accessAddress(t table.Table, address netip.Addr, about subject) found {
	key := address.Unmap().String()
	separator := byte('.')
	if strings.IndexByte(key, ':') >= 0 {
		separator = ':'
	}
	for partial := false; ; partial = true {
		if f := e.access(t, key, partial, about); f.ok {
			return f
		}
		at := strings.LastIndexByte(key, separator)
		if at <= 0 {
			return found{}
		}
		key = key[:at]
	}
}

// accessHost asks for a client's name, then its address.
func (e *evaluation) accessHost(t table.Table, name string, about subject) verdict {
	if f := e.accessDomain(t, name, false, about); f.ok {
		return f.verdict
	}
	return e.accessAddress(t, e.session.ClientAddress, about).verdict
}

// accessMail asks for an address, its domain and its local part.
func (e *evaluation) accessMail(t table.Table, address string, about subject) verdict {
	resolved, err := e.resolve(address)
	if err != nil {
		return e.lookupError(address, err)
	}
	f := e.accessMailKeys(t, resolved.Recipient, about)
	if f.verdict == permit && resolved.Routed && !e.rules.untrustedRouting && about.class == recipientClass {
		return dunno
	}
	return f.verdict
}

func (e *evaluation) accessMailKeys(t table.Table, address string, about subject) found {
	at := strings.LastIndexByte(address, '@')
	if at < 0 {
		return found{}
	}
	local, domain := address[:at], address[at+1:]
	if f := e.accessLocal(t, local, "@"+domain, false, about); f.ok {
		return f
	}
	base, _, extended := e.rules.router.SplitExtension(local)
	if extended {
		if f := e.accessLocal(t, base, "@"+domain, true, about); f.ok {
			return f
		}
	}
	if f := e.accessDomain(t, domain, true, about); f.ok {
		return f
	}
	if f := e.accessLocal(t, local, "@", true, about); f.ok {
		return f
	}
	if extended {
		return e.accessLocal(t, base, "@", true, about)
	}
	return found{}
}

// accessLocal asks for a local part with what stands behind it, in quotes first when it needs them.
func (e *evaluation) accessLocal(t table.Table, local, rest string, partial bool, about subject) found {
	if quoted := quoteLocal(local); quoted != local {
		if f := e.access(t, quoted+rest, partial, about); f.ok {
			return f
		}
	}
	return e.access(t, local+rest, partial, about)
}

// quoteLocal gives the form that a local part has in a message (RFC 5322 section 3.4.1).
func quoteLocal(local string) string {
	atom := local != "" && local[0] != '.' && local[len(local)-1] != '.' && !strings.Contains(local, "..")
	for i := 0; atom && i < len(local); i++ {
		c := local[i]
		atom = c > ' ' && c != 0x7f && strings.IndexByte(`()<>@,;:\"[]`, c) < 0
	}
	if atom {
		return local
	}
	b := make([]byte, 0, len(local)+4)
	b = append(b, '"')
	for i := range len(local) {
		if c := local[i]; c == '"' || c == '\\' || c == '\r' {
			b = append(b, '\\')
		}
		b = append(b, local[i])
	}
	return string(append(b, '"'))
}

// act does what the right-hand side of an access table says.
func (e *evaluation) act(entry table.Entry, tableName, key string, about subject) verdict {
	value := entry.Value
	word, text, _ := strings.Cut(strings.ReplaceAll(value, "\t", " "), " ")
	text = strings.TrimLeft(text, " ")
	action := strings.ToUpper(word)
	switch action {
	case "REJECT":
		return e.rejectBy(e.rules.codes.accessReject, "5.7.1", text, "Access denied", about)
	case "DEFER":
		return e.rejectBy(e.rules.codes.accessDefer, "4.7.1", text, "Access denied", about)
	case "DEFER_IF_PERMIT":
		status, text := splitStatus("4.7.1", text)
		return e.deferIfPermit(true, 450, fitStatus(status, about.class), "<%s>: %s rejected: %s", about.name, about.class, orElse(text, "Service unavailable"))
	case "DEFER_IF_REJECT":
		status, text := splitStatus("4.7.1", text)
		return e.deferIfReject(450, fitStatus(status, about.class), "<%s>: %s rejected: %s", about.name, about.class, orElse(text, "Service unavailable"))
	case "DUNNO":
		return dunno
	case "OK", "RELAY":
		return permit
	case "WARN", "INFO":
		e.effect(action, text, text)
		return dunno
	case "DISCARD":
		return e.discardMessage(text, tableName, about)
	case "HOLD", "FILTER", "REDIRECT", "BCC", "PREPEND":
		e.delegate(action, text, tableName, key, about)
		return dunno
	}
	if allDigits(value) {
		return permit
	}
	if code, rest, ok := replyCode(value); ok {
		class := "4.7.1"
		if code/100 == 5 {
			class = "5.7.1"
		}
		return e.rejectBy(code, class, rest, "Access denied", about)
	}
	return e.actByRestrictions(entry, about)
}

func (e *evaluation) actByRestrictions(entry table.Entry, about subject) verdict {
	list, err := e.rules.parseAction(entry)
	if err != nil {
		return e.serverError(err)
	}
	return e.run(list, about)
}

func (e *evaluation) rejectBy(code int, status, text, otherwise string, about subject) verdict {
	status, text = splitStatus(status, text)
	return e.reject(code, fitStatus(status, about.class), "<%s>: %s rejected: %s", about.name, about.class, orElse(text, otherwise))
}

func (e *evaluation) discardMessage(text, tableName string, about subject) verdict {
	if !e.canDelegate("DISCARD", tableName, about) {
		return dunno
	}
	e.discard = true
	e.decision.Action = DiscardMessage
	e.decision.Reply = "<" + about.name + ">: " + about.class + " " + orElse(text, "triggers DISCARD action")
	return permit
}

// canDelegate tells whether there is a message, or will be one in the same evaluation, that an action can be about.
func (e *evaluation) canDelegate(action, tableName string, about subject) bool {
	switch {
	case about.class == etrnClass:
		e.warn("access table %s: action %s is unavailable in smtpd_etrn_restrictions", tableName, action)
		return false
	case e.stage == Connect || e.stage == Helo:
		e.warn("access table %s: with smtpd_delay_reject=no, action %s is always skipped in %s or %s restrictions", tableName, action, clientClass, heloClass)
		return false
	}
	return true
}

// delegate keeps an action for the time when the message is accepted.
func (e *evaluation) delegate(action, text, tableName, key string, about subject) {
	if !e.canDelegate(action, tableName, about) {
		return
	}
	log := "<" + about.name + ">: " + about.class + " triggers " + action + " " + text
	switch action {
	case "HOLD":
		log = "<" + about.name + ">: " + about.class + " " + orElse(text, "triggers HOLD action")
	case "FILTER":
		if text == "" {
			e.warn("access table %s entry %q has FILTER entry without value", tableName, key)
			return
		}
		if !strings.Contains(text, ":") {
			e.warn("access table %s entry %q requires transport:destination", tableName, key)
			return
		}
	case "REDIRECT", "BCC":
		if !strings.Contains(text, "@") {
			e.warn("access table %s entry %q requires user@domain target", tableName, key)
			return
		}
	case "PREPEND":
		if e.stage == EndOfData {
			e.warn("access table %s: action PREPEND must be used before smtpd_end_of_data_restrictions", tableName)
			return
		}
		if !isHeader(text) {
			e.warn("access table %s entry %q requires header: text", tableName, key)
			return
		}
		log = ""
	}
	e.effect(action, text, log)
}

// isHeader tells whether a text begins with a header name and a colon.
func isHeader(text string) bool {
	name, _, ok := strings.Cut(text, ":")
	name = strings.TrimRight(name, " \t")
	if !ok || name == "" {
		return false
	}
	for i := range len(name) {
		if name[i] <= ' ' || name[i] >= 0x7f {
			return false
		}
	}
	return true
}

func orElse(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}

func allDigits(text string) bool {
	for i := range len(text) {
		if text[i] < '0' || text[i] > '9' {
			return false
		}
	}
	return text != ""
}

// replyCode takes a three-digit reply code off a text.
func replyCode(text string) (code int, rest string, ok bool) {
	if len(text) < 3 || !allDigits(text[:3]) || (len(text) > 3 && text[3] >= '0' && text[3] <= '9') {
		return 0, "", false
	}
	code = int(text[0]-'0')*100 + int(text[1]-'0')*10 + int(text[2]-'0')
	return code, strings.TrimLeft(text[3:], " \t"), true
}

// splitStatus takes an enhanced status code (RFC 3463) off a text; without one it is the given one.
func splitStatus(status, text string) (string, string) {
	n := statusLength(text)
	if n == 0 {
		return status, text
	}
	return text[:n], strings.TrimLeft(text[n:], " \t")
}

// statusLength is how much of a text is an enhanced status code that ends in white space or with the text.
func statusLength(text string) int {
	if len(text) < 5 || (text[0] != '2' && text[0] != '4' && text[0] != '5') || text[1] != '.' {
		return 0
	}
	i := 2
	for part := range 2 {
		digits := 0
		for i < len(text) && text[i] >= '0' && text[i] <= '9' {
			i, digits = i+1, digits+1
		}
		if digits == 0 || digits > 3 {
			return 0
		}
		if part == 0 {
			if i >= len(text) || text[i] != '.' {
				return 0
			}
			i++
		}
	}
	if i < len(text) && text[i] != ' ' && text[i] != '\t' {
		return 0
	}
	return i
}

// fitStatus changes the codes about addresses (x.1.y) into ones that fit what is refused.
func fitStatus(status, class string) string {
	if len(status) < 5 || status[1:4] != ".1." {
		return status
	}
	// fitting has the detail for each detail from 0 to 8; others become 0.
	fitting := ""
	switch class {
	case senderClass:
		fitting = "078770778"
	case recipientClass:
		fitting = "012345632"
	default:
		return status[:1] + ".0.0"
	}
	detail := byte('0')
	if n := status[4] - '0'; len(status) == 5 && int(n) < len(fitting) {
		detail = fitting[n]
	}
	return status[:4] + string(detail)
}
