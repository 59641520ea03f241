package postfix

import "strings"

// transportSuffixes are the parameters that exist for each delivery transport, with their defaults.
var transportSuffixes = [...]struct {
	suffix, value string
	kind          Type
	unit          byte
}{
	{"_delivery_slot_cost", "$default_delivery_slot_cost", NumberType, 0},
	{"_delivery_slot_discount", "$default_delivery_slot_discount", NumberType, 0},
	{"_delivery_slot_loan", "$default_delivery_slot_loan", NumberType, 0},
	{"_destination_concurrency_failed_cohort_limit", "$default_destination_concurrency_failed_cohort_limit", NumberType, 0},
	{"_destination_concurrency_limit", "$default_destination_concurrency_limit", NumberType, 0},
	{"_destination_concurrency_negative_feedback", "$default_destination_concurrency_negative_feedback", StringType, 0},
	{"_destination_concurrency_positive_feedback", "$default_destination_concurrency_positive_feedback", StringType, 0},
	{"_destination_rate_delay", "$default_destination_rate_delay", TimeType, 's'},
	{"_destination_recipient_limit", "$default_destination_recipient_limit", NumberType, 0},
	{"_extra_recipient_limit", "$default_extra_recipient_limit", NumberType, 0},
	{"_initial_destination_concurrency", "$initial_destination_concurrency", NumberType, 0},
	{"_minimum_delivery_slots", "$default_minimum_delivery_slots", NumberType, 0},
	{"_recipient_limit", "$default_recipient_limit", NumberType, 0},
	{"_recipient_refill_delay", "$default_recipient_refill_delay", TimeType, 's'},
	{"_recipient_refill_limit", "$default_recipient_refill_limit", NumberType, 0},
	{"_transport_rate_delay", "$default_transport_rate_delay", TimeType, 's'},
}

// commandTimeSuffix tells whether a program runs commands for a service and bounds their time.
func commandTimeSuffix(command string) bool { return command == "pipe" || command == "spawn" }

// deliversMail tells whether a program takes mail from the queue.
func deliversMail(command string) bool {
	switch command {
	case "discard", "error", "lmtp", "local", "pipe", "smtp", "virtual":
		return true
	}
	return false
}

// serviceParameters gives the parameters that a master.cf entry brings into being: those of a transport and the time limit of a
// pipe(8) or spawn(8) service.
func serviceParameters(s *Service, known *Registry) []*Parameter {
	var made []*Parameter
	add := func(suffix, value string, kind Type, unit byte) {
		name := s.Name + suffix
		if _, ok := known.Lookup(name); ok {
			return
		}
		made = append(made, &Parameter{
			Name: name, Type: kind, Default: value, Unit: unit, Prefix: s.Name,
			Meaning: "as " + strings.TrimPrefix(value, "$") + ", for the service " + s.Name,
		})
	}
	if s.Type == "unix" && deliversMail(s.Command) {
		for _, p := range transportSuffixes {
			add(p.suffix, p.value, p.kind, p.unit)
		}
	}
	if commandTimeSuffix(s.Command) {
		add("_time_limit", "$command_time_limit", TimeType, 's')
	}
	return made
}
