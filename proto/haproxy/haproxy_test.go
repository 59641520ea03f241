package haproxy_test

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"postilion/proto/haproxy"
)

const signature = "\r\n\r\n\x00\r\nQUIT\n"

var headers = []struct {
	name, text, source, destination string
	tls, bad                        bool
}{
	{name: "IPv4", text: "PROXY TCP4 192.0.2.1 198.51.100.2 4711 143\r\n", source: "192.0.2.1:4711", destination: "198.51.100.2:143"},
	{name: "IPv6", text: "PROXY TCP6 2001:db8::1 2001:db8::2 4711 143\r\n", source: "[2001:db8::1]:4711", destination: "[2001:db8::2]:143"},
	{name: "unknown", text: "PROXY UNKNOWN\r\n"},
	{name: "unknown with more", text: "PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n"},
	{name: "wrong family", text: "PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n", bad: true},
	{name: "zone", text: "PROXY TCP6 fe80::1%eth0 fe80::2 1 2\r\n", bad: true},
	{name: "port", text: "PROXY TCP4 192.0.2.1 192.0.2.2 70000 2\r\n", bad: true},
	{name: "missing field", text: "PROXY TCP4 192.0.2.1 192.0.2.2 7\r\n", bad: true},
	{name: "endless", text: "PROXY TCP4 " + strings.Repeat("1", 300), bad: true},
	{name: "no header", text: "a001 LOGIN alice secret\r\n", bad: true},
	{name: "cut short", text: "PROXY TCP4 192.0.2.1", bad: true},
	{name: "nothing", text: "", bad: true},
	{
		name: "version 2", text: signature + "\x21\x11\x00\x0c\xc0\x00\x02\x01\xc6\x33\x64\x02\x12\x67\x00\x8f",
		source: "192.0.2.1:4711", destination: "198.51.100.2:143",
	},
	{
		name: "version 2 with TLS", text: signature + "\x21\x11\x00\x17\xc0\x00\x02\x01\xc6\x33\x64\x02\x12\x67\x00\x8f\x04\x00\x00\x20\x00\x05\x01\x00\x00\x00\x00",
		source: "192.0.2.1:4711", destination: "198.51.100.2:143", tls: true,
	},
	{
		name: "version 2 with a field that is cut short", text: signature + "\x21\x11\x00\x0f\xc0\x00\x02\x01\xc6\x33\x64\x02\x12\x67\x00\x8f\x20\xff\xff",
		source: "192.0.2.1:4711", destination: "198.51.100.2:143",
	},
	{name: "health check", text: signature + "\x20\x00\x00\x00"},
	{name: "too large", text: signature + "\x21\x11\xff\xff", bad: true},
	{name: "too short for addresses", text: signature + "\x21\x21\x00\x04aaaa", bad: true},
	{name: "datagrams", text: signature + "\x21\x12\x00\x0c\xc0\x00\x02\x01\xc6\x33\x64\x02\x12\x67\x00\x8f", bad: true},
	{name: "version 3", text: signature + "\x31\x11\x00\x00", bad: true},
}

func TestRead(t *testing.T) {
	for _, c := range headers {
		const rest = "a CAPABILITY\r\n"
		r := bytes.NewBufferString(c.text)
		if !c.bad {
			r.WriteString(rest)
		}
		h, err := haproxy.Read(r)
		if (err != nil) != c.bad {
			t.Errorf("%s: error %v", c.name, err)
			continue
		}
		if c.bad {
			continue
		}
		if left, _ := io.ReadAll(r); string(left) != rest {
			t.Errorf("%s: %q is left for the protocol", c.name, left)
		}
		if c.source == "" {
			if h.Source.IsValid() {
				t.Errorf("%s: %v", c.name, h)
			}
			continue
		}
		if h.Source.String() != c.source || h.Destination.String() != c.destination || h.TLS != c.tls {
			t.Errorf("%s: %v", c.name, h)
		}
	}
}

func FuzzRead(f *testing.F) {
	for _, c := range headers {
		f.Add([]byte(c.text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		r := bytes.NewReader(text)
		h, err := haproxy.Read(r)
		if err == nil && h.Source.IsValid() != h.Destination.IsValid() {
			t.Errorf("half an answer: %v", h)
		}
		if read := len(text) - r.Len(); read > 16+4096 {
			t.Errorf("%d octets were read", read)
		}
	})
}
