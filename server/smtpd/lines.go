package smtpd

import (
	"context"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"
)

// sessionLines writes log lines with the program's name.
type sessionLines struct {
	smtpd, cleanup *slog.Logger
}

func newSessionLines(log *slog.Logger, program string) sessionLines {
	cleanup := program
	if i := strings.LastIndexByte(program, '/'); i >= 0 {
		cleanup = program[:i] + "/cleanup"
	}
	return sessionLines{smtpd: log.With("program", program), cleanup: log.With("program", cleanup)}
}

// Sessions outlive no context that a log handler would use: lines are written without one.
func (l *sessionLines) info(text string) {
	l.smtpd.LogAttrs(context.Background(), slog.LevelInfo, text)
}

func (l *sessionLines) warning(text string) {
	l.smtpd.LogAttrs(context.Background(), slog.LevelWarn, text)
}

func (l *sessionLines) failure(text, stack string) {
	l.smtpd.LogAttrs(context.Background(), slog.LevelError, text, slog.String("stack", stack))
}

func (l *sessionLines) infoAbout(id, text string) {
	l.smtpd.LogAttrs(context.Background(), slog.LevelInfo, id+": "+text, slog.String("queue_id", id))
}

func (l *sessionLines) cleanupAbout(id, text string) {
	l.cleanup.LogAttrs(context.Background(), slog.LevelInfo, id+": "+text, slog.String("queue_id", id))
}

// disconnectLine counts the commands of the session.
func (x *session) disconnectLine() string {
	var b strings.Builder
	b.WriteString("disconnect from ")
	b.WriteString(x.peer.client)
	good, all := 0, 0
	for _, c := range x.engine.Counts() {
		b.WriteString(" " + c.Command + "=")
		writeCount(&b, c.Good, c.All)
		good += c.Good
		all += c.All
	}
	b.WriteString(" commands=")
	if all == 0 {
		b.WriteString("0/0")
		return b.String()
	}
	writeCount(&b, good, all)
	return b.String()
}

func writeCount(b *strings.Builder, good, all int) {
	b.WriteString(strconv.Itoa(good))
	if good != all {
		b.WriteString("/" + strconv.Itoa(all))
	}
}

// dateCache keeps the text of the last second.
type dateCache struct {
	mutex  sync.Mutex
	second int64
	text   string
}

// format returns a date as mail has it: Wed, 25 Nov 2026 15:33:10 +0000 (UTC).
func (c *dateCache) format(t time.Time) string {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.text == "" || t.Unix() != c.second {
		c.second, c.text = t.Unix(), t.Format("Mon, _2 Jan 2006 15:04:05 -0700 (MST)")
	}
	return c.text
}
