package imapd

import (
	"fmt"
	"os"
	"time"
)

// peer is the part of a login line that says who and from where.
func (s *session) peer() string {
	user := ""
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
	s.log.Info("Login: "+s.peer(), "user", s.user.Name, "method", s.method, "rip", s.client.Remote.Addr().String())
	s.log = s.opt.Log.With("program", "imap", "user", s.user.Name, "session", s.client.Session)
}

// logEnd writes the line that Dovecot's login or imap process writes when the connection ends.
func (s *session) logEnd() {
	if s.reason == "" {
		s.reason = "Connection closed"
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
	why := "Disconnected: " + s.reason
	if s.reason == "Connection closed" && s.lastCommand != "" {
		why += fmt.Sprintf(" (%s finished %.3f secs ago)", s.lastCommand, time.Since(s.lastTime).Seconds())
	} else if s.reason == "Connection closed" {
		why += " (No commands sent)"
	}
	c := &s.count
	s.log.Info(fmt.Sprintf("%s in=%d out=%d deleted=%d expunged=%d trashed=%d hdr_count=%d hdr_bytes=%d body_count=%d body_bytes=%d",
		why, c.in, c.out, c.deleted, c.expunged, c.trashed, c.headers, c.headerBytes, c.bodies, c.bodyBytes))
}
