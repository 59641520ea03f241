package imap

import "bytes"

// readArg reads one argument, or the end of a list or of the line.
func (d *Decoder) readArg() (Event, bool) {
	for d.pos < len(d.buf) && d.buf[d.pos] == ' ' {
		d.pos++
	}
	d.scan = max(d.scan, d.pos)
	if d.pos == len(d.buf) {
		return d.wait()
	}
	switch c := d.buf[d.pos]; c {
	case '\n':
		return d.endOfLine(1)
	case '\r':
		if d.pos+1 == len(d.buf) {
			return NeedInput, false
		}
		if d.buf[d.pos+1] == '\n' {
			return d.endOfLine(2)
		}
		return d.bad("CR sent without LF")
	case '"':
		return d.readQuoted()
	case '{':
		return d.readLiteral(d.pos)
	case '~':
		if d.pos+1 == len(d.buf) {
			return NeedInput, false
		}
		if d.buf[d.pos+1] == '{' {
			return d.readLiteral(d.pos + 1)
		}
		return d.readAtom()
	case '(':
		if len(d.lists) == d.limits.Depth {
			return d.bad("Too many nested lists")
		}
		d.lists = append(d.lists, d.args)
		d.args = nil
		d.pos++
		d.scan = d.pos
		return 0, true
	case ')':
		n := len(d.lists)
		if n == 0 {
			return d.bad("Unexpected ')'")
		}
		list := Arg{Kind: List, List: d.args}
		d.args, d.lists = d.lists[n-1], d.lists[:n-1]
		d.pos++
		return d.add(list)
	default:
		return d.readAtom()
	}
}

// wait asks for input unless the command is as long as it may be.
func (d *Decoder) wait() (Event, bool) {
	if d.tooLong() {
		return d.overlong()
	}
	return NeedInput, false
}

// add puts an argument where it belongs and ends the command when it has as many as it takes.
func (d *Decoder) add(arg Arg) (Event, bool) {
	d.args = append(d.args, arg)
	d.scan = d.pos
	if n := d.cmd.Spec.Args; n > 0 && len(d.lists) == 0 && len(d.args) == n {
		d.phase, d.emit = passing, true
	}
	if d.pos-d.command > d.limits.Line {
		return d.overlong()
	}
	return 0, true
}

func (d *Decoder) endOfLine(n int) (Event, bool) {
	if len(d.lists) > 0 {
		return d.bad("Missing ')'")
	}
	d.pos += n
	d.scan, d.phase = d.pos, atTag
	d.cmd.Args = d.args
	return Ready, false
}

func (d *Decoder) readAtom() (Event, bool) {
	for i := d.scan; i < len(d.buf); i++ {
		switch c := d.buf[i]; {
		case c == ' ' || c == ')' || c == '\r' || c == '\n':
			arg := Arg{Kind: Atom, Text: d.buf[d.pos:i:i]}
			d.pos = i
			return d.add(arg)
		case c == '(' || c == '{' || c == '"' || c < ' ' || c == 0x7f:
			return d.bad("Invalid characters in atom")
		case c >= 0x80:
			return d.bad("8bit data in atom")
		}
	}
	d.scan = len(d.buf)
	return d.wait()
}

func (d *Decoder) readQuoted() (Event, bool) {
	escaped := false
	for i := d.pos + 1; i < len(d.buf); i++ {
		switch c := d.buf[i]; {
		case c == '\\' && i+1 < len(d.buf) && d.buf[i+1] != '\r' && d.buf[i+1] != '\n':
			i++
			escaped = true
		case c == '\\' && i+1 == len(d.buf):
			return d.wait()
		case c == '"':
			text := d.buf[d.pos+1 : i : i]
			if escaped {
				text = unescape(text)
			}
			d.pos = i + 1
			return d.add(Arg{Kind: Quoted, Text: text})
		case c == '\r' || c == '\n':
			return d.bad(`Missing '"'`)
		case c == 0:
			return d.bad("NULs not allowed in strings")
		}
	}
	return d.wait()
}

// unescape removes backslashes in place.
func unescape(text []byte) []byte {
	to := text[:0]
	for i := 0; i < len(text); i++ {
		if text[i] == '\\' && i+1 < len(text) {
			i++
		}
		to = append(to, text[i])
	}
	return to
}

// readLiteral reads a literal's head, whose brace is at brace.
func (d *Decoder) readLiteral(brace int) (Event, bool) {
	var size uint64
	i, digits, tooLarge, nonSync := brace+1, 0, false, false
	for ; i < len(d.buf) && '0' <= d.buf[i] && d.buf[i] <= '9'; i++ {
		if digits++; size > (1<<63)/10 {
			tooLarge = true
		} else {
			size = size*10 + uint64(d.buf[i]-'0')
		}
		if digits > 64 {
			return d.fatal(d.tooLargeText())
		}
	}
	if i < len(d.buf) && d.buf[i] == '+' {
		nonSync = true
		i++
	}
	if i == len(d.buf) {
		return d.wait()
	}
	if digits == 0 || d.buf[i] != '}' {
		return d.bad("Invalid literal size")
	}
	end := i + 1
	if end < len(d.buf) && d.buf[end] == '\r' {
		end++
	}
	if end == len(d.buf) {
		return d.wait()
	}
	if d.buf[end] != '\n' {
		return d.bad("Missing LF after literal size")
	}
	if tooLarge || nonSync && d.limits.LiteralMinus && size > literalMinusLimit {
		return d.fatal(d.tooLargeText())
	}
	d.binary = brace > d.pos
	d.pos = end + 1
	d.scan, d.literal = d.pos, size
	if spec := d.cmd.Spec; spec.Stream > 0 && (len(d.lists) > 0 || len(d.args) >= spec.Stream || d.resumed) {
		return d.pend(nonSync)
	}
	if d.literalTooLarge(size) {
		return d.fatal(d.tooLargeText())
	}
	d.phase = inLiteral
	if !nonSync {
		return Continue, false
	}
	return 0, true
}

func (d *Decoder) tooLargeText() string {
	if d.limits.LiteralMinus {
		return "[TOOBIG] Literal size too large"
	}
	return "Literal size too large"
}

// pend hands a command on up to a literal that is not kept. Lists that are open are closed in what is told.
func (d *Decoder) pend(nonSync bool) (Event, bool) {
	args := append(d.args, Arg{Kind: Pending, Size: d.literal, Binary: d.binary})
	for i := len(d.lists) - 1; i >= 0; i-- {
		args = append(d.lists[i], Arg{Kind: List, List: args})
	}
	d.cmd.Args, d.cmd.Literal, d.emit = args, true, nonSync
	d.phase = streaming
	return Ready, false
}

// keepLiteral waits until the whole literal is there.
func (d *Decoder) keepLiteral() (Event, bool) {
	if uint64(len(d.buf)-d.pos) < d.literal {
		return NeedInput, false
	}
	end := d.pos + int(d.literal)
	arg := Arg{Kind: Literal, Binary: d.binary, Text: d.buf[d.pos:end:end]}
	d.pos, d.phase = end, atArgs
	if !d.binary && bytes.IndexByte(arg.Text, 0) >= 0 {
		return d.bad("NULs not allowed in strings")
	}
	return d.add(arg)
}
