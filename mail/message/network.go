package message

import (
	"bytes"
	"io"
)

// NetworkForm returns text with every bare LF as CRLF; text itself when there is none.
func NetworkForm(text []byte) []byte {
	bare := bytes.Count(text, newline) - bytes.Count(text, crlf)
	if bare == 0 {
		return text
	}
	return appendNetwork(make([]byte, 0, len(text)+bare), text, false)
}

// appendNetwork appends text in network form; lastCR tells that a CR stood before it.
func appendNetwork(dst, text []byte, lastCR bool) []byte {
	for len(text) > 0 {
		i := bytes.IndexByte(text, '\n')
		if i < 0 {
			return append(dst, text...)
		}
		dst = append(dst, text[:i]...)
		if i > 0 && text[i-1] != '\r' || i == 0 && !lastCR {
			dst = append(dst, '\r')
		}
		dst = append(dst, '\n')
		text, lastCR = text[i+1:], false
	}
	return dst
}

// NewNetworkReader returns a reader of r's text in network form, for messages that lie with bare LF: what it reads is what the offsets of a
// Message point into.
func NewNetworkReader(r io.Reader) io.Reader {
	return &networkReader{r: r, in: make([]byte, 16<<10)}
}

type networkReader struct {
	r       io.Reader
	in      []byte
	out     []byte
	pending []byte
	lastCR  bool
	err     error
}

func (n *networkReader) Read(p []byte) (int, error) {
	for len(n.pending) == 0 {
		if n.err != nil {
			return 0, n.err
		}
		var size int
		size, n.err = n.r.Read(n.in)
		piece := n.in[:size]
		n.out = appendNetwork(n.out[:0], piece, n.lastCR)
		n.pending = n.out
		if size > 0 {
			n.lastCR = piece[size-1] == '\r'
		}
	}
	size := copy(p, n.pending)
	n.pending = n.pending[size:]
	return size, nil
}
