// Package haproxy reads the header that a proxy sends before the client's first octet: versions 1 and 2 of the PROXY protocol, as HAProxy's
// proxy-protocol.txt describes them. Who may send one, and how long it is waited for, is the servers' business.
package haproxy

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
)

// Header is what a header tells. Invalid addresses mean that the connection is the proxy's own, such as a health check.
type Header struct {
	Source, Destination netip.AddrPort
	// TLS is true when the proxy says that the client's connection to it is encrypted (version 2, PP2_TYPE_SSL).
	TLS bool
}

const (
	signature = "\r\n\r\n\x00\r\nQUIT\n"
	// maxLine is the longest header of version 1, maxBody the longest that is taken of version 2.
	maxLine = 107
	maxBody = 4096
	// typeSSL is the TLV that tells of encryption; the first bit of its first octet says that the client used it.
	typeSSL   = 0x20
	clientSSL = 0x01
)

// Read reads a header of version 1 or 2 and not one octet more.
func Read(r io.Reader) (Header, error) {
	head := make([]byte, len(signature), maxLine)
	if _, err := io.ReadFull(r, head); err != nil {
		return Header{}, err
	}
	if string(head) == signature {
		return readBinary(r)
	}
	if !bytes.HasPrefix(head, []byte("PROXY ")) {
		return Header{}, fmt.Errorf("no PROXY protocol header: %q", head)
	}
	for head[len(head)-1] != '\n' {
		if len(head) == maxLine {
			return Header{}, fmt.Errorf("PROXY protocol header longer than %d octets", maxLine)
		}
		head = head[:len(head)+1]
		if _, err := io.ReadFull(r, head[len(head)-1:]); err != nil {
			return Header{}, err
		}
	}
	return parseLine(strings.TrimRight(string(head), "\r\n"))
}

func parseLine(line string) (Header, error) {
	fields := strings.Split(line, " ")
	if len(fields) >= 2 && fields[1] == "UNKNOWN" {
		return Header{}, nil
	}
	if len(fields) != 6 || fields[1] != "TCP4" && fields[1] != "TCP6" {
		return Header{}, fmt.Errorf("bad PROXY protocol header: %q", line)
	}
	source, err := addressOf(fields[2], fields[4], fields[1] == "TCP6")
	if err != nil {
		return Header{}, err
	}
	destination, err := addressOf(fields[3], fields[5], fields[1] == "TCP6")
	return Header{Source: source, Destination: destination}, err
}

func addressOf(address, port string, six bool) (netip.AddrPort, error) {
	a, err := netip.ParseAddr(address)
	if err != nil || a.Is6() != six || a.Zone() != "" {
		return netip.AddrPort{}, fmt.Errorf("bad address in PROXY protocol header: %q", address)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("bad port in PROXY protocol header: %q", port)
	}
	return netip.AddrPortFrom(a, uint16(n)), nil
}

func readBinary(r io.Reader) (Header, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return Header{}, err
	}
	size := int(binary.BigEndian.Uint16(head[2:]))
	if size > maxBody {
		return Header{}, fmt.Errorf("PROXY protocol header longer than %d octets", maxBody)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(r, body); err != nil {
		return Header{}, err
	}
	if head[0]>>4 != 2 || head[0]&15 > 1 {
		return Header{}, fmt.Errorf("PROXY protocol version and command %#x", head[0])
	}
	width := 0
	switch {
	case head[0]&15 == 0:
		return Header{}, nil
	case head[1] == 0x11:
		width = 4
	case head[1] == 0x21:
		width = 16
	default:
		return Header{}, fmt.Errorf("PROXY protocol address family %#x", head[1])
	}
	if size < 2*width+4 {
		return Header{}, errors.New("PROXY protocol header is too short for its addresses")
	}
	at := func(offset, port int) netip.AddrPort {
		a, _ := netip.AddrFromSlice(body[offset : offset+width])
		return netip.AddrPortFrom(a, binary.BigEndian.Uint16(body[port:]))
	}
	return Header{Source: at(0, 2*width), Destination: at(width, 2*width+2), TLS: encrypted(body[2*width+4:])}, nil
}

// encrypted looks for the TLV that tells of the client's encryption.
func encrypted(tlvs []byte) bool {
	for len(tlvs) >= 3 {
		size := int(binary.BigEndian.Uint16(tlvs[1:]))
		if size > len(tlvs)-3 {
			return false
		}
		if tlvs[0] == typeSSL && size > 0 {
			return tlvs[3]&clientSSL != 0
		}
		tlvs = tlvs[3+size:]
	}
	return false
}
