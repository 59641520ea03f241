package imapd

import (
	"fmt"
	"time"

	"postilion/server/login"
)

// logEnd writes the line that Dovecot's imap process writes when the connection ends.
func (s *session) logEnd() {
	if s.Reason == "" {
		s.Reason = login.ReasonClosed
	}
	why := "Disconnected: " + s.Reason
	if s.Reason == login.ReasonClosed && s.lastCommand != "" {
		why += fmt.Sprintf(" (%s finished %.3f secs ago)", s.lastCommand, time.Since(s.lastTime).Seconds())
	} else if s.Reason == login.ReasonClosed {
		why += " (No commands sent)"
	}
	c := &s.count
	s.Log.Info(fmt.Sprintf("%s in=%d out=%d deleted=%d expunged=%d trashed=%d hdr_count=%d hdr_bytes=%d body_count=%d body_bytes=%d",
		why, s.Received, s.Sent, c.deleted, c.expunged, c.trashed, c.headers, c.headerBytes, c.bodies, c.bodyBytes))
}
