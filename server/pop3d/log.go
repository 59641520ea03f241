package pop3d

import (
	"fmt"
	"os"
	"strconv"
	"time"
)

// peer is the part of a login line that says who and from where.
func (s *session) peer() string {
	user := s.tried
	if s.user != nil {
		user = s.user.Name
	}
	text := "user=<" + user + ">"
	if s.method != "" {
		text += ", method=" + s.method
	}
	if addr := s.client.Remote.Addr(); addr.IsValid() {
		text += fmt.Sprintf(", rip=%s, lip=%s", addr, s.client.Local.Addr())
	}
	if s.user != nil {
		text += fmt.Sprintf(", mpid=%d", os.Getpid())
	}
	switch {
	case s.client.TLS != nil:
		text += ", TLS"
	case s.client.Secured:
		text += ", secured"
	}
	return text + ", session=<" + s.client.Session + ">"
}

func (s *session) logLogin() {
	s.log.Info("Login: "+s.peer(), "method", s.method, "rip", s.client.Remote.Addr().String())
	s.log = s.opt.Log.With("program", "pop3", "user", s.user.Name, "session", s.client.Session)
}

// logEnd writes the line that Dovecot's login or pop3 process writes when the connection ends.
func (s *session) logEnd() {
	if s.reason == "" {
		s.reason = reasonClosed
	}
	if s.surplus {
		s.log.Info("Disconnected: " + s.reason + ": " + s.peer())
		return
	}
	if s.user == nil {
		secs := int(time.Since(s.began).Seconds())
		attempts := fmt.Sprintf("no auth attempts in %d secs", secs)
		if s.attempts > 0 {
			attempts = fmt.Sprintf("auth failed, %d attempts in %d secs", s.attempts, secs)
		}
		s.log.Info("Disconnected: " + s.reason + " (" + attempts + "): " + s.peer())
		return
	}
	s.log.Info("Disconnected: " + s.reason + " " + s.statistics())
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
		{"i", "input", c.in},
		{"o", "output", c.out},
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
	values["session"] = s.client.Session
	text, err := s.opt.Expand(s.opt.LogoutFormat, values)
	if err != nil {
		s.log.Error("Failed to expand pop3_logout_format=" + s.opt.LogoutFormat + ": " + err.Error())
		return ""
	}
	return text
}
