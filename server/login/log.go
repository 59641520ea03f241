package login

import (
	"fmt"
	"os"
	"strings"
)

// maxLogged is how much of a name that a client gave is logged.
const maxLogged = 255

// Peer is the part of a login line that says who and from where.
func (c *Conn) Peer() string {
	user := c.Name
	if c.User != nil {
		user = c.User.Name
	}
	text := "user=<" + printable(user) + ">"
	if c.Method != "" {
		text += ", method=" + printable(c.Method)
	}
	if addr := c.Client.Remote.Addr(); addr.IsValid() {
		text += fmt.Sprintf(", rip=%s, lip=%s", addr, c.Client.Local.Addr())
	}
	if c.User != nil {
		text += fmt.Sprintf(", mpid=%d", os.Getpid())
	}
	switch {
	case c.Client.TLS != nil:
		text += ", TLS"
	case c.Client.Secured:
		text += ", secured"
	}
	return text + ", session=<" + c.Client.Session + ">"
}

// printable is what a client said, fit for a line of the log.
func printable(text string) string {
	if len(text) > maxLogged {
		text = text[:maxLogged] + "..."
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
}

// LogLogin writes the line of a login; the lines after it are those of the service.
func (c *Conn) LogLogin() {
	c.Log.Info("Login: "+c.Peer(), "user", c.User.Name, "method", c.Method, "rip", c.Client.Remote.Addr().String())
	c.Log = c.gate.opt.Log.With("program", c.gate.opt.Service, "user", c.User.Name, "session", c.Client.Session)
}

// logStranger writes the line that Dovecot's login process writes when a connection ends without a login.
func (c *Conn) logStranger() {
	if c.Reason == "" {
		c.Reason = ReasonClosed
	}
	if c.surplus {
		c.Log.Info("Disconnected: " + c.Reason + ": " + c.Peer())
		return
	}
	attempts := "no auth attempts"
	if c.Attempts > 0 {
		attempts = fmt.Sprintf("auth failed, %d attempts", c.Attempts)
	}
	c.Log.Info("Disconnected: " + c.Reason + " (" + attempts + " in " + c.secs() + "): " + c.Peer())
}
