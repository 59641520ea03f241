package charset

import (
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/transform"
)

// utf7 is UTF-7 of RFC 2152, for reading only: it encodes as UTF-8.
type utf7 struct{}

func (utf7) NewDecoder() *encoding.Decoder {
	return &encoding.Decoder{Transformer: &utf7Decoder{}}
}

func (utf7) NewEncoder() *encoding.Encoder { return encoding.Nop.NewEncoder() }

type utf7Decoder struct {
	shifted, begun bool
	bits           uint32
	nbits          uint
	high           uint16
}

func (d *utf7Decoder) Reset() { *d = utf7Decoder{} }

func (d *utf7Decoder) Transform(dst, src []byte, _ bool) (nDst, nSrc int, err error) {
	for nSrc < len(src) {
		if nDst+2*utf8.UTFMax > len(dst) {
			return nDst, nSrc, transform.ErrShortDst
		}
		c := src[nSrc]
		nSrc++
		switch value := base64Value[c]; {
		case !d.shifted && c == '+':
			d.shifted, d.begun = true, false
			d.bits, d.nbits = 0, 0
		case !d.shifted && c < utf8.RuneSelf:
			dst[nDst] = c
			nDst++
		case !d.shifted:
			nDst += utf8.EncodeRune(dst[nDst:], utf8.RuneError)
		case value < 64:
			d.begun = true
			d.bits = d.bits<<6 | uint32(value)
			if d.nbits += 6; d.nbits >= 16 {
				d.nbits -= 16
				nDst += d.unit(dst[nDst:], uint16(d.bits>>d.nbits))
			}
		default:
			nDst += d.endShift(dst[nDst:], c)
		}
	}
	return nDst, nSrc, nil
}

// endShift leaves the encoded run at the byte c, which is dropped when it is the run's closing minus sign.
func (d *utf7Decoder) endShift(dst []byte, c byte) (n int) {
	if d.high != 0 {
		n += utf8.EncodeRune(dst, utf8.RuneError)
	}
	begun := d.begun
	*d = utf7Decoder{}
	switch {
	case c == '-' && begun:
	case c == '-':
		dst[n] = '+'
		n++
	case c < utf8.RuneSelf:
		dst[n] = c
		n++
	default:
		n += utf8.EncodeRune(dst[n:], utf8.RuneError)
	}
	return n
}

func (d *utf7Decoder) unit(dst []byte, u uint16) (n int) {
	if d.high != 0 {
		r := utf16.DecodeRune(rune(d.high), rune(u))
		d.high = 0
		n = utf8.EncodeRune(dst, r)
		if r != utf8.RuneError {
			return n
		}
	}
	if u >= 0xD800 && u < 0xDC00 {
		d.high = u
		return n
	}
	return n + utf8.EncodeRune(dst[n:], rune(u))
}
