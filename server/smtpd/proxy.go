package smtpd

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

// proxied is what a PROXY protocol header tells; invalid addresses mean that the connection is the proxy's own.
type proxied struct {
	source, destination netip.AddrPort
}

const (
	proxySignature = "\r\n\r\n\x00\r\nQUIT\n"
	// proxyLineLimit is the longest header of version 1, proxyBodyLimit the longest that is taken of version 2.
	proxyLineLimit = 107
	proxyBodyLimit = 4096
)

// readProxyHeader reads a header of version 1 or 2 of the PROXY protocol and not one octet more.
func readProxyHeader(r io.Reader) (proxied, error) {
	head := make([]byte, len(proxySignature), proxyLineLimit)
	if _, err := io.ReadFull(r, head); err != nil {
		return proxied{}, err
	}
	if string(head) == proxySignature {
		return readProxyBinary(r)
	}
	if !bytes.HasPrefix(head, []byte("PROXY ")) {
		return proxied{}, fmt.Errorf("no PROXY protocol header: %q", head)
	}
	for head[len(head)-1] != '\n' {
		if len(head) == proxyLineLimit {
			return proxied{}, fmt.Errorf("PROXY protocol header longer than %d octets", proxyLineLimit)
		}
		head = head[:len(head)+1]
		if _, err := io.ReadFull(r, head[len(head)-1:]); err != nil {
			return proxied{}, err
		}
	}
	return parseProxyLine(strings.TrimRight(string(head), "\r\n"))
}

func parseProxyLine(line string) (proxied, error) {
	fields := strings.Split(line, " ")
	if len(fields) >= 2 && fields[1] == "UNKNOWN" {
		return proxied{}, nil
	}
	if len(fields) != 6 || fields[1] != "TCP4" && fields[1] != "TCP6" {
		return proxied{}, fmt.Errorf("bad PROXY protocol header: %q", line)
	}
	source, err := proxyAddress(fields[2], fields[4], fields[1] == "TCP6")
	if err != nil {
		return proxied{}, err
	}
	destination, err := proxyAddress(fields[3], fields[5], fields[1] == "TCP6")
	return proxied{source, destination}, err
}

func proxyAddress(address, port string, six bool) (netip.AddrPort, error) {
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

func readProxyBinary(r io.Reader) (proxied, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return proxied{}, err
	}
	size := int(binary.BigEndian.Uint16(head[2:]))
	if size > proxyBodyLimit {
		return proxied{}, fmt.Errorf("PROXY protocol header longer than %d octets", proxyBodyLimit)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(r, body); err != nil {
		return proxied{}, err
	}
	if head[0]>>4 != 2 || head[0]&15 > 1 {
		return proxied{}, fmt.Errorf("PROXY protocol version and command %#x", head[0])
	}
	width := 0
	switch {
	case head[0]&15 == 0:
		return proxied{}, nil
	case head[1] == 0x11:
		width = 4
	case head[1] == 0x21:
		width = 16
	default:
		return proxied{}, fmt.Errorf("PROXY protocol address family %#x", head[1])
	}
	if size < 2*width+4 {
		return proxied{}, errors.New("PROXY protocol header is too short for its addresses")
	}
	at := func(offset, port int) netip.AddrPort {
		a, _ := netip.AddrFromSlice(body[offset : offset+width])
		return netip.AddrPortFrom(a, binary.BigEndian.Uint16(body[port:]))
	}
	return proxied{at(0, 2*width), at(width, 2*width+2)}, nil
}
