// Package maillog writes the log lines that administrators and their tools know: Postfix's "Nov 25 10:00:00 mx postfix/smtpd[12]: text" and
// Dovecot's "imap-login: Info: text", to a file, to syslog or to standard error, or as JSON lines. It is a pair of slog handlers over a Sink; what is
// logged is decided by the servers, whose message is the text after the prefix.
//
// Attributes with a meaning here: "program" (the part that speaks, such as postfix/smtpd or imap), "user" and "session" (for Dovecot's
// prefix "imap(user)<pid><session>"), "queue_id". All attributes are kept in JSON; the classic formats show only these. It follows postlogd(8),
// postconf(5) maillog_file, and Dovecot's log_path, info_log_path and log_timestamp settings.
package maillog

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// maxLine is the limit in octets of one line; the rest of a longer one is cut, as syslog would.
const maxLine = 16 << 10

// Format is how lines look.
type Format uint8

// The formats.
const (
	// Postfix lines have time, host and program[pid]; warnings and errors begin with "warning: " and "error: ".
	Postfix Format = iota
	// Dovecot lines have a time stamp and "program: Level: ".
	Dovecot
	// JSON lines hold every attribute.
	JSON
)

// Options configure a handler.
type Options struct {
	Format Format
	Sink   Sink
	// Hostname is shown in Postfix's format.
	Hostname string
	// Program is used when a record has no program attribute.
	Program string
	// TimeFormat is in Go's reference form; the default is "Jan _2 15:04:05".
	TimeFormat string
	// Level is the least level that is written.
	Level slog.Level
	// Now gives the time; nil uses the record's.
	Now func() time.Time
	// PID is shown in prefixes; 0 means this process.
	PID int
}

// New returns a handler. Handlers may be used at the same time.
func New(options Options) slog.Handler {
	if options.TimeFormat == "" {
		options.TimeFormat = "Jan _2 15:04:05"
	}
	if options.PID == 0 {
		options.PID = os.Getpid()
	}
	if options.Program == "" {
		options.Program = "postilion"
	}
	buffers := &sync.Pool{New: func() any {
		b := make([]byte, 0, 512)
		return &b
	}}
	return &handler{options: options, buffers: buffers}
}

type handler struct {
	options Options
	buffers *sync.Pool
	attrs   []slog.Attr
	group   string
}

func (h *handler) Enabled(_ context.Context, level slog.Level) bool { return level >= h.options.Level }

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	next := *h
	next.attrs = append(append([]slog.Attr(nil), h.attrs...), h.named(attrs)...)
	return &next
}

func (h *handler) WithGroup(name string) slog.Handler {
	next := *h
	if name != "" {
		next.group = h.group + name + "."
	}
	return &next
}

func (h *handler) named(attrs []slog.Attr) []slog.Attr {
	if h.group == "" {
		return attrs
	}
	named := make([]slog.Attr, len(attrs))
	for i, a := range attrs {
		named[i] = slog.Attr{Key: h.group + a.Key, Value: a.Value}
	}
	return named
}

func (h *handler) Handle(_ context.Context, record slog.Record) error {
	when := record.Time
	if h.options.Now != nil {
		when = h.options.Now()
	}
	line := line{level: record.Level, message: record.Message, program: h.options.Program}
	for _, a := range h.attrs {
		line.take(a)
	}
	record.Attrs(func(a slog.Attr) bool {
		if h.group != "" {
			a.Key = h.group + a.Key
		}
		line.take(a)
		if h.options.Format == JSON {
			line.attrs = append(line.attrs, a)
		}
		return true
	})
	buffer, _ := h.buffers.Get().(*[]byte)
	defer h.buffers.Put(buffer)
	b := (*buffer)[:0]
	var text int
	switch h.options.Format {
	case JSON:
		b = h.appendJSON(b, when, &line)
	case Dovecot:
		b, text = h.appendDovecot(b, when, &line)
	default:
		b, text = h.appendPostfix(b, when, &line)
	}
	if len(b) > maxLine {
		b = b[:maxLine]
	}
	if h.options.Format != JSON {
		sanitise(b[text:])
	}
	b = append(b, '\n')
	*buffer = b
	return h.options.Sink.Write(record.Level, line.program, b, text)
}

// line is what one record says.
type line struct {
	level                           slog.Level
	message, program, user, session string
	attrs                           []slog.Attr
}

func (l *line) take(a slog.Attr) {
	switch a.Key {
	case "program":
		l.program = a.Value.String()
	case "user":
		l.user = a.Value.String()
	case "session":
		l.session = a.Value.String()
	}
}

// appendPostfix returns the line and where the part after the host name, which syslog takes, begins.
func (h *handler) appendPostfix(b []byte, when time.Time, l *line) ([]byte, int) {
	b = when.AppendFormat(b, h.options.TimeFormat)
	b = append(b, ' ')
	b = append(b, h.options.Hostname...)
	b = append(b, ' ')
	text := len(b)
	b = append(b, l.program...)
	b = append(b, '[')
	b = strconv.AppendInt(b, int64(h.options.PID), 10)
	b = append(b, "]: "...)
	switch {
	case l.level >= slog.LevelError:
		b = append(b, "error: "...)
	case l.level >= slog.LevelWarn:
		b = append(b, "warning: "...)
	}
	return append(b, l.message...), text
}

func (h *handler) appendDovecot(b []byte, when time.Time, l *line) ([]byte, int) {
	b = when.AppendFormat(b, h.options.TimeFormat)
	b = append(b, ' ')
	text := len(b)
	b = append(b, l.program...)
	// Login processes name no user before their text.
	if l.user != "" && !strings.HasSuffix(l.program, "-login") {
		b = append(append(append(b, '('), l.user...), ')')
		b = append(strconv.AppendInt(append(b, '<'), int64(h.options.PID), 10), '>')
		b = append(append(append(b, '<'), l.session...), '>')
	}
	b = append(b, ": "...)
	b = append(b, dovecotLevel(l.level)...)
	b = append(b, ": "...)
	return append(b, l.message...), text
}

func dovecotLevel(level slog.Level) string {
	switch {
	case level >= slog.LevelError:
		return "Error"
	case level >= slog.LevelWarn:
		return "Warning"
	case level >= slog.LevelInfo:
		return "Info"
	}
	return "Debug"
}

func (h *handler) appendJSON(b []byte, when time.Time, l *line) []byte {
	b = append(b, `{"time":"`...)
	b = when.AppendFormat(b, time.RFC3339Nano)
	b = append(b, `","level":"`...)
	b = append(b, strings.ToLower(l.level.String())...)
	b = append(b, `","host":`...)
	b = appendJSONString(b, h.options.Hostname)
	b = append(b, `,"pid":`...)
	b = strconv.AppendInt(b, int64(h.options.PID), 10)
	b = append(b, `,"program":`...)
	b = appendJSONString(b, l.program)
	seen := map[string]bool{"time": true, "level": true, "host": true, "pid": true, "program": true, "message": true}
	for _, attrs := range [][]slog.Attr{l.attrs, h.attrs} {
		for _, a := range attrs {
			if seen[a.Key] {
				continue
			}
			seen[a.Key] = true
			b = append(b, ',')
			b = appendJSONString(b, a.Key)
			b = append(b, ':')
			b = appendJSONValue(b, a.Value.Resolve())
		}
	}
	b = append(b, `,"message":`...)
	b = appendJSONString(b, l.message)
	return append(b, '}')
}

func appendJSONString(b []byte, s string) []byte {
	quoted, err := json.Marshal(strings.ToValidUTF8(s, "?"))
	if err != nil {
		return append(b, `""`...)
	}
	return append(b, quoted...)
}

func appendJSONValue(b []byte, v slog.Value) []byte {
	switch v.Kind() {
	case slog.KindInt64:
		return strconv.AppendInt(b, v.Int64(), 10)
	case slog.KindUint64:
		return strconv.AppendUint(b, v.Uint64(), 10)
	case slog.KindBool:
		return strconv.AppendBool(b, v.Bool())
	}
	return appendJSONString(b, v.String())
}

// sanitise replaces control characters, so that what a client said cannot make lines of its own.
func sanitise(b []byte) {
	for i, c := range b {
		if c < ' ' || c == 0x7f {
			b[i] = '?'
		}
	}
}
