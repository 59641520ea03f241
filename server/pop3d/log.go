package pop3d

import (
	"fmt"
	"strconv"

	"postilion/server/login"
)

// logEnd writes the line that Dovecot's pop3 process writes when the connection ends.
func (s *session) logEnd() {
	if s.Reason == "" {
		s.Reason = login.ReasonClosed
	}
	s.Log.Info("Disconnected: " + s.Reason + " " + s.statistics())
}

// statistics fills pop3_logout_format.
func (s *session) statistics() string {
	c := &s.count
	var messages uint32
	var total, marked int64
	if s.drop != nil {
		messages, total = s.drop.Count(), s.drop.Total()
		_, marked = s.drop.Marked()
	}
	if !s.quit {
		marked = 0
	}
	if s.opt.LogoutFormat == defaultLogoutFormat {
		return fmt.Sprintf("top=%d/%d, retr=%d/%d, del=%d/%d, size=%d", c.tops, c.topBytes, c.retrievals, c.retrBytes, s.removed, messages, total)
	}
	values := map[string]string{"u": ""}
	for _, v := range []struct {
		short, long string
		value       int64
	}{
		{"i", "input", s.Received},
		{"o", "output", s.Sent},
		{"t", "top_count", int64(c.tops)},
		{"p", "top_bytes", c.topBytes},
		{"r", "retr_count", int64(c.retrievals)},
		{"b", "retr_bytes", c.retrBytes},
		{"d", "deleted_count", int64(s.removed)},
		{"m", "message_count", int64(messages)},
		{"s", "message_bytes", total},
		{"", "deleted_bytes", marked},
	} {
		values[v.long] = strconv.FormatInt(v.value, 10)
		if v.short != "" {
			values[v.short] = values[v.long]
		}
	}
	values["uidl_change"] = ""
	values["session"] = s.Client.Session
	text, err := s.opt.Expand(s.opt.LogoutFormat, values)
	if err != nil {
		s.Log.Error("Failed to expand pop3_logout_format=" + s.opt.LogoutFormat + ": " + err.Error())
		return ""
	}
	return text
}
