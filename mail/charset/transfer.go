package charset

import (
	"bytes"
	"io"
	"strings"

	"golang.org/x/text/transform"
)

// base64Value maps the characters of base64 to their values and all others to 64.
var base64Value = func() (t [256]byte) {
	for i := range t {
		t[i] = 64
	}
	for i, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/") {
		t[c] = byte(i)
	}
	return t
}()

// KnownTransfer tells whether a Content-Transfer-Encoding is one that NewTransferReader takes off or that leaves text as it is.
func KnownTransfer(name string) bool {
	switch strings.ToLower(name) {
	case "", "7bit", "8bit", "binary", "base64", "quoted-printable", "x-uuencode", "x-uue", "uuencode":
		return true
	}
	return false
}

// NewTransferReader returns a reader of r without its content transfer encoding. Encodings it does not know are left on. It is lenient:
// base64 skips what is not of its alphabet and goes on after padding; quoted-printable keeps a "=" that starts nothing; uuencode skips what
// is not between begin and end.
func NewTransferReader(r io.Reader, name string) io.Reader {
	switch strings.ToLower(strings.TrimSpace(name)) {
	case "base64":
		return transform.NewReader(r, &base64Decoder{})
	case "quoted-printable":
		return transform.NewReader(r, &quotedPrintable{})
	case "x-uuencode", "x-uue", "uuencode":
		return transform.NewReader(r, &uudecoder{})
	}
	return r
}

// base64Decoder reads base64 wherever its characters stand.
type base64Decoder struct {
	bits  uint32
	nbits uint
}

func (d *base64Decoder) Reset() { *d = base64Decoder{} }

func (d *base64Decoder) Transform(dst, src []byte, _ bool) (nDst, nSrc int, err error) {
	for ; nSrc < len(src); nSrc++ {
		if d.nbits == 0 {
			n, m := decodeQuads(dst[nDst:], src[nSrc:])
			nDst, nSrc = nDst+n, nSrc+m
			if nSrc == len(src) {
				break
			}
		}
		value := base64Value[src[nSrc]]
		if src[nSrc] == '=' {
			d.nbits = 0
		}
		if value == 64 {
			continue
		}
		if nDst == len(dst) {
			return nDst, nSrc, transform.ErrShortDst
		}
		d.bits = d.bits<<6 | uint32(value)
		if d.nbits += 6; d.nbits >= 8 {
			d.nbits -= 8
			dst[nDst] = byte(d.bits >> d.nbits)
			nDst++
		}
	}
	return nDst, nSrc, nil
}

// decodeQuads decodes whole groups of four as long as nothing else stands between them.
func decodeQuads(dst, src []byte) (nDst, nSrc int) {
	for len(src)-nSrc >= 4 && len(dst)-nDst >= 3 {
		s := src[nSrc : nSrc+4]
		a, b, c, e := base64Value[s[0]], base64Value[s[1]], base64Value[s[2]], base64Value[s[3]]
		if (a|b|c|e)&64 != 0 {
			return nDst, nSrc
		}
		dst[nDst], dst[nDst+1], dst[nDst+2] = a<<2|b>>4, b<<4|c>>2, c<<6|e
		nDst += 3
		nSrc += 4
	}
	return nDst, nSrc
}

// quotedPrintable takes off the encoding of RFC 2045 section 6.7.
type quotedPrintable struct{ transform.NopResetter }

// trailingMax is how much white space at the end of a line is looked through for the line end. RFC 2045 lines have 76 characters.
const trailingMax = 1000

func (q *quotedPrintable) Transform(dst, src []byte, atEOF bool) (nDst, nSrc int, err error) {
	for nSrc < len(src) {
		if nDst == len(dst) {
			return nDst, nSrc, transform.ErrShortDst
		}
		c := src[nSrc]
		if c > '=' || c != '=' && c != ' ' && c != '\t' || c == ' ' && nSrc+1 < len(src) && src[nSrc+1] > ' ' {
			dst[nDst] = c
			nDst++
			nSrc++
			continue
		}
		if c == '=' && len(src)-nSrc >= 3 {
			if high, low := hexValue(src[nSrc+1]), hexValue(src[nSrc+2]); high < 16 && low < 16 {
				dst[nDst] = high<<4 | low
				nDst++
				nSrc += 3
				continue
			}
		}
		piece, used := q.special(src[nSrc:], atEOF)
		if used == 0 {
			return nDst, nSrc, transform.ErrShortSrc
		}
		if len(piece) > len(dst)-nDst {
			return nDst, nSrc, transform.ErrShortDst
		}
		nDst += copy(dst[nDst:], piece)
		nSrc += used
	}
	return nDst, nSrc, nil
}

// special decodes what begins with white space or with a "=" that stands for no byte. It uses nothing when it needs to see more.
func (q *quotedPrintable) special(src []byte, atEOF bool) (piece []byte, used int) {
	if src[0] != '=' {
		i := blankRun(src)
		switch {
		case !atEOF && i < trailingMax && (i == len(src) || i+1 == len(src) && src[i] == '\r'):
			return nil, 0
		case i == len(src) && atEOF, i < len(src) && (src[i] == '\n' || src[i] == '\r' && i+1 < len(src) && src[i+1] == '\n'):
			return nil, i // white space at the end of a line was added on the way
		}
		return src[:i], i
	}
	i := 1 + blankRun(src[1:])
	switch {
	case i < len(src) && src[i] == '\n':
		return nil, i + 1
	case i+1 < len(src) && src[i] == '\r' && src[i+1] == '\n':
		return nil, i + 2
	case len(src) < 3 && !atEOF, i == len(src) && !atEOF && i < trailingMax, i+1 == len(src) && src[i] == '\r' && !atEOF:
		return nil, 0
	case i == len(src) && atEOF:
		return nil, i
	}
	return src[:1], 1
}

func blankRun(src []byte) int {
	for i, c := range src {
		if c != ' ' && c != '\t' || i == trailingMax {
			return i
		}
	}
	return len(src)
}

func hexValue(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	}
	return 16
}

// uudecoder takes off the encoding of uuencode(1): lines between "begin" and "end", each with its length first.
type uudecoder struct{ inside bool }

// uuLineMax is how long a line is looked at. A line of uuencode has 61 characters.
const uuLineMax = 200

func (d *uudecoder) Reset() { d.inside = false }

func (d *uudecoder) Transform(dst, src []byte, atEOF bool) (nDst, nSrc int, err error) {
	for nSrc < len(src) {
		i := bytes.IndexByte(src[nSrc:], '\n')
		used := i + 1
		if i < 0 {
			i = len(src) - nSrc
			used = i
			if !atEOF && i < uuLineMax {
				return nDst, nSrc, transform.ErrShortSrc
			}
		}
		line := bytes.TrimRight(src[nSrc:nSrc+i], "\r")
		switch {
		case bytes.HasPrefix(line, []byte("begin ")):
			d.inside = true
		case bytes.Equal(line, []byte("end")):
			d.inside = false
		case d.inside:
			piece := uuLine(line)
			if len(piece) > len(dst)-nDst {
				return nDst, nSrc, transform.ErrShortDst
			}
			nDst += copy(dst[nDst:], piece)
		}
		nSrc += used
	}
	return nDst, nSrc, nil
}

func uuLine(line []byte) []byte {
	if len(line) == 0 || line[0] <= ' ' || line[0] > '`' {
		return nil
	}
	length := int(line[0]-' ') & 63
	out := make([]byte, 0, 48)
	value := func(i int) byte {
		if i < len(line) {
			return (line[i] - ' ') & 63
		}
		return 0
	}
	for i := 1; i < len(line) && len(out) < length; i += 4 {
		a, b, c, e := value(i), value(i+1), value(i+2), value(i+3)
		out = append(out, a<<2|b>>4, b<<4|c>>2, c<<6|e)
	}
	return out[:min(length, len(out))]
}
