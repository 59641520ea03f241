package policy

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"postilion/config/postfix"
	"postilion/table"
)

// program is a parsed restriction list.
type program struct {
	name, where string
	members     []member
}

// member is one restriction with its argument.
type member struct {
	// text is as written, for traces; name in small letters.
	text, name string
	// warn: this is warn_if_reject.
	warn  bool
	apply func(e *evaluation, about subject) verdict
}

// lists are the parameters that hold restrictions.
var lists = []struct {
	parameter string
	place     func(r *Rules) **program
}{
	{"smtpd_client_restrictions", func(r *Rules) **program { return &r.client }},
	{"smtpd_helo_restrictions", func(r *Rules) **program { return &r.helo }},
	{"smtpd_sender_restrictions", func(r *Rules) **program { return &r.sender }},
	{"smtpd_relay_restrictions", func(r *Rules) **program { return &r.relay }},
	{"smtpd_recipient_restrictions", func(r *Rules) **program { return &r.recipient }},
	{"smtpd_data_restrictions", func(r *Rules) **program { return &r.data }},
	{"smtpd_end_of_data_restrictions", func(r *Rules) **program { return &r.endOfData }},
	{"smtpd_etrn_restrictions", func(r *Rules) **program { return &r.etrn }},
}

// compile reads all lists and classes of the configuration.
func (r *Rules) compile() {
	for _, name := range r.view.List("smtpd_restriction_classes") {
		r.classes[strings.ToLower(name)] = &program{name: name, where: r.view.Where(name).String()}
	}
	for _, class := range r.classes {
		class.members = r.parse(class.name, class.where, r.view.List(class.name))
	}
	r.wheres = map[string]string{}
	for _, parameter := range []string{"smtpd_reject_unlisted_sender", "smtpd_reject_unlisted_recipient"} {
		r.wheres[parameter] = r.where(parameter)
	}
	for _, l := range lists {
		p := &program{name: l.parameter, where: r.where(l.parameter)}
		p.members = r.parse(l.parameter, p.where, r.view.List(l.parameter))
		*l.place(r) = p
	}
	if !r.closes(r.relay, 0) && !r.closes(r.recipient, 0) {
		r.openRelay = fmt.Errorf("%s: in parameter smtpd_relay_restrictions or smtpd_recipient_restrictions, specify at least one working instance of: "+
			"reject_unauth_destination, defer_unauth_destination, reject, defer, defer_if_permit or check_relay_domains", r.relay.where)
		r.options.Warn(r.openRelay.Error())
	}
}

func (r *Rules) where(parameter string) string {
	position := r.view.Where(parameter)
	if position.IsZero() {
		return ""
	}
	return position.String()
}

// closes tells whether a list refuses strangers' mail to strangers.
func (r *Rules) closes(p *program, depth int) bool {
	if depth > maxDepth {
		return false
	}
	for i := 0; i < len(p.members); i++ {
		m := &p.members[i]
		switch m.name {
		case "warn_if_reject":
			i++
		case "permit":
			return false
		case "reject_unauth_destination", "defer_unauth_destination", "reject", "defer", "defer_if_permit", "check_relay_domains":
			return true
		default:
			if class, ok := r.classes[m.name]; ok && r.closes(class, depth+1) {
				return true
			}
		}
	}
	return false
}

// parse reads the words of a list.
func (r *Rules) parse(list, where string, words []string) []member {
	members := make([]member, 0, len(words))
	for i := 0; i < len(words); i++ {
		word := words[i]
		name := strings.ToLower(word)
		if strings.Contains(word, ":") {
			members = append(members, r.bareTable(list, word, where))
			continue
		}
		if name == "warn_if_reject" {
			members = append(members, member{text: word, name: name, warn: true})
			continue
		}
		if needsArgument(name) {
			argument := ""
			if i+1 < len(words) {
				i++
				argument = words[i]
			}
			members = append(members, r.withArgument(word, name, argument, where))
			continue
		}
		m := r.plain(word, name, where)
		if (name == "permit" || name == "reject" || name == "defer") && i+1 < len(words) {
			r.options.Warn(fmt.Sprintf("%s: %s: restriction `%s' after `%s' is ignored", where, list, words[i+1], word))
		}
		members = append(members, m)
	}
	return members
}

// bareTable is a type:table without the name of a check; the list that leads here says which one it is.
func (r *Rules) bareTable(list, word, where string) member {
	t := r.table(word)
	problem := fmt.Errorf("%s: specify one of (check_client_access, check_reverse_client_hostname_access, check_helo_access, check_sender_access, "+
		"check_recipient_access, check_etrn_access) before %s restriction %q", where, list, word)
	return member{text: word, apply: func(e *evaluation, about subject) verdict {
		if e.bare == "" {
			return e.serverError(problem)
		}
		return tableRestriction(e.bare)(e, t, about)
	}}
}

// plain is a restriction without argument, or a class.
func (r *Rules) plain(word, name, where string) member {
	if apply := plainRestriction(name); apply != nil {
		return member{text: word, name: name, apply: apply}
	}
	if class, ok := r.classes[name]; ok {
		return member{text: word, name: name, apply: func(e *evaluation, about subject) verdict { return e.run(class, about) }}
	}
	return broken(word, fmt.Errorf("%s: unknown smtpd restriction: %q", where, word))
}

func broken(text string, problem error) member {
	return member{text: text, name: "", apply: func(e *evaluation, _ subject) verdict { return e.serverError(problem) }}
}

func needsArgument(name string) bool {
	return tableRestriction(name) != nil || dnsListRestriction(name) != nil || name == "check_policy_service" || name == "sleep"
}

func (r *Rules) withArgument(word, name, argument, where string) member {
	text := word + " " + argument
	if apply := tableRestriction(name); apply != nil {
		if !strings.Contains(argument, ":") {
			return broken(text, fmt.Errorf("%s: restriction %s: bad argument %q: need maptype:mapname", where, name, argument))
		}
		t := r.table(argument)
		return member{text: text, name: name, apply: func(e *evaluation, about subject) verdict { return apply(e, t, about) }}
	}
	if apply := dnsListRestriction(name); apply != nil {
		if argument == "" {
			r.options.Warn(fmt.Sprintf("%s: restriction %s requires domain name argument", where, word))
			return member{text: text, name: name, apply: func(*evaluation, subject) verdict { return dunno }}
		}
		zone, err := parseZone(argument)
		if err != nil {
			return broken(text, fmt.Errorf("%s: restriction %s: %w", where, name, err))
		}
		return member{text: text, name: name, apply: func(e *evaluation, _ subject) verdict { return apply(e, zone) }}
	}
	if name == "sleep" {
		seconds, err := strconv.ParseUint(argument, 10, 31)
		if err != nil {
			return broken(text, fmt.Errorf("%s: restriction %s must be followed by a number of seconds, not %q", where, word, argument))
		}
		return member{text: text, name: name, apply: func(e *evaluation, _ subject) verdict {
			e.rules.options.Sleep(e.ctx, time.Duration(seconds)*time.Second)
			return dunno
		}}
	}
	service, err := r.service(argument)
	if err != nil {
		return broken(text, fmt.Errorf("%s: restriction %s: %w", where, name, err))
	}
	return member{text: text, name: name, apply: func(e *evaluation, about subject) verdict { return service.check(e, about) }}
}

// parseAction reads a list of restrictions that an access table answers with. Tables inside it are refused, as in Postfix.
func (r *Rules) parseAction(entry table.Entry) (*program, error) {
	words, _ := postfix.SplitQuoted(entry.Value, postfix.ListSeparators)
	for _, word := range words {
		if strings.Contains(word, ":") {
			return nil, fmt.Errorf("%s: access table entry names a lookup table: %s: define a restriction class and specify its name instead", entry.Source, entry.Value)
		}
	}
	return &program{name: entry.Value, where: entry.Source, members: r.parse("access table", entry.Source, words)}, nil
}
