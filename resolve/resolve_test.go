package resolve

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

const zone = `
example.com.             300 IN MX    20 mx2.example.com.
example.com.             300 IN MX    10 mx1.example.com.
example.com.             300 IN TXT   "v=spf1 " "-all"
example.com.             300 IN NS    ns1.example.com.
mx1.example.com.         300 IN A     192.0.2.1
mx1.example.com.         300 IN AAAA  2001:db8::1
alias.example.com.       300 IN CNAME mx1.example.com.
1.2.0.192.in-addr.arpa.  300 IN PTR   mx1.example.com.
null.example.com.        300 IN MX    0 .
`

// nameserver serves the zone on loopback and counts questions.
func nameserver(t *testing.T) (address string, asked *atomic.Int64) {
	t.Helper()
	asked = new(atomic.Int64)
	var records []dns.RR
	for parser := dns.NewZoneParser(strings.NewReader(zone), "", ""); ; {
		rr, ok := parser.Next()
		if !ok {
			if err := parser.Err(); err != nil {
				t.Fatal(err)
			}
			break
		}
		records = append(records, rr)
	}
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		asked.Add(1)
		_ = w.WriteMsg(answerFrom(records, q, w.RemoteAddr().Network() == "udp"))
	})
	conn, listener := listenOnOnePort(t)
	for _, server := range []*dns.Server{{PacketConn: conn, Handler: handler}, {Listener: listener, Handler: handler}} {
		done, serving := make(chan error, 1), make(chan struct{})
		server.NotifyStartedFunc = func() { close(serving) }
		go func() { done <- server.ActivateAndServe() }()
		<-serving
		t.Cleanup(func() {
			if err := server.Shutdown(); err != nil {
				t.Error(err)
			}
			<-done
		})
	}
	return conn.LocalAddr().String(), asked
}

// listenOnOnePort finds a port that is free for UDP and TCP alike.
func listenOnOnePort(t *testing.T) (net.PacketConn, net.Listener) {
	t.Helper()
	for attempt := 1; ; attempt++ {
		conn, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		listener, err := net.Listen("tcp", conn.LocalAddr().String())
		if err == nil {
			return conn, listener
		}
		_ = conn.Close()
		if attempt == 20 {
			t.Fatal(err)
		}
	}
}

func answerFrom(records []dns.RR, q *dns.Msg, udp bool) *dns.Msg {
	response := new(dns.Msg)
	response.SetReply(q)
	name, kind := q.Question[0].Name, q.Question[0].Qtype
	if name == "broken.example.com." {
		response.Rcode = dns.RcodeServerFailure
		return response
	}
	if name == "large.example.com." {
		response.Truncated = udp
		if !udp {
			for i := range 1000 {
				response.Answer = append(response.Answer, &dns.TXT{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 1}, Txt: []string{fmt.Sprint(i)}})
			}
		}
		return response
	}
	exists := false
	for range 2 {
		asked := name
		for _, rr := range records {
			if rr.Header().Name != asked {
				continue
			}
			exists = true
			switch {
			case rr.Header().Rrtype == kind:
				response.Answer = append(response.Answer, rr)
			case rr.Header().Rrtype == dns.TypeCNAME:
				response.Answer = append(response.Answer, rr)
				if cname, ok := rr.(*dns.CNAME); ok {
					name = cname.Target
				}
			}
		}
		if name == asked {
			break
		}
	}
	if !exists {
		response.Rcode = dns.RcodeNameError
	}
	return response
}

func testResolver(t *testing.T, change func(o *Options)) (*Resolver, *atomic.Int64) {
	t.Helper()
	address, asked := nameserver(t)
	options := Options{Servers: []string{address}, Hosts: "-", Timeout: time.Second, Attempts: 1}
	if change != nil {
		change(&options)
	}
	return New(options), asked
}

func TestAnswers(t *testing.T) {
	r, _ := testResolver(t, nil)
	ctx := t.Context()
	if got, err := r.Addresses(ctx, "MX1.example.com."); err != nil || fmt.Sprint(got) != "[192.0.2.1 2001:db8::1]" {
		t.Errorf("addresses: %v, %v", got, err)
	}
	if got, err := r.Addresses(ctx, "alias.example.com"); err != nil || len(got) != 2 {
		t.Errorf("through CNAME: %v, %v", got, err)
	}
	if got, err := r.Names(ctx, netip.MustParseAddr("192.0.2.1")); err != nil || fmt.Sprint(got) != "[mx1.example.com]" {
		t.Errorf("names: %v, %v", got, err)
	}
	if got, err := r.Exchangers(ctx, "example.com"); err != nil || fmt.Sprint(got) != "[{mx2.example.com 20} {mx1.example.com 10}]" {
		t.Errorf("exchangers: %v, %v", got, err)
	}
	if got, err := r.Exchangers(ctx, "null.example.com"); err != nil || len(got) != 1 || got[0].Host != "" {
		t.Errorf("null MX: %v, %v", got, err)
	}
	if got, err := r.Texts(ctx, "example.com"); err != nil || fmt.Sprint(got) != "[v=spf1 -all]" {
		t.Errorf("texts: %v, %v", got, err)
	}
	if got, err := r.Nameservers(ctx, "example.com"); err != nil || len(got) != 1 {
		t.Errorf("name servers: %v, %v", got, err)
	}
	if got, err := r.Texts(ctx, "large.example.com"); err != nil || len(got) != maxRecords {
		t.Errorf("truncated answer: %d records, %v", len(got), err)
	}
}

func TestFailures(t *testing.T) {
	r, _ := testResolver(t, nil)
	for _, row := range []struct {
		name       string
		kind       error
		nameExists bool
	}{
		{"nosuch.example.com", ErrNotFound, false},
		{"example.com", ErrNotFound, true},
		{"broken.example.com", ErrTemporary, false},
		{"a b", ErrInvalid, false},
		{"x\x00y", ErrInvalid, false},
		{string(make([]byte, 300)), ErrInvalid, false},
	} {
		_, err := r.Addresses(t.Context(), row.name)
		var failure *Error
		if !errors.Is(err, row.kind) || !errors.As(err, &failure) || failure.NameExists != row.nameExists {
			t.Errorf("%q: %v", row.name, err)
		}
	}
	if exists, err := r.Exists(t.Context(), "nosuch.example.com"); exists || err != nil {
		t.Errorf("nosuch exists: %v, %v", exists, err)
	}
	if _, err := r.Exists(t.Context(), "broken.example.com"); !errors.Is(err, ErrTemporary) {
		t.Errorf("broken: %v", err)
	}
	deaf := New(Options{Servers: []string{"127.0.0.1:1"}, Hosts: "-", Timeout: 100 * time.Millisecond, Attempts: 1})
	if _, err := deaf.Exchangers(t.Context(), "example.com"); !errors.Is(err, ErrTemporary) {
		t.Errorf("no server: %v", err)
	}
	missing := New(Options{ResolvConf: "/no/such/file", Hosts: "-"})
	if _, err := missing.Exchangers(t.Context(), "example.com"); !errors.Is(err, ErrTemporary) {
		t.Errorf("no resolv.conf: %v", err)
	}
}

func TestCacheIsUsedAndBounded(t *testing.T) {
	now := time.Now()
	r, asked := testResolver(t, func(o *Options) { o.CacheSize = 8; o.Now = func() time.Time { return now } })
	for range 3 {
		if _, err := r.Exchangers(t.Context(), "example.com"); err != nil {
			t.Fatal(err)
		}
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
	now = now.Add(301 * time.Second)
	if _, err := r.Exchangers(t.Context(), "example.com"); err != nil || asked.Load() != 2 {
		t.Errorf("after the TTL asked %d times, %v", asked.Load(), err)
	}
	for i := range 100 {
		_, _ = r.Texts(t.Context(), fmt.Sprintf("n%d.example.com", i))
	}
	if len(r.cache) > 8 {
		t.Errorf("%d answers are kept", len(r.cache))
	}
}

func TestHostsFileComesFirst(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hosts")
	if err := os.WriteFile(path, []byte("# c\n198.51.100.7 box Box.example.com # here\nbad line\n::1 six\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, asked := testResolver(t, func(o *Options) { o.Hosts = path })
	if got, err := r.Addresses(t.Context(), "BOX"); err != nil || fmt.Sprint(got) != "[198.51.100.7]" {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := r.Names(t.Context(), netip.MustParseAddr("198.51.100.7")); err != nil || !slices.Equal(got, []string{"box", "Box.example.com"}) {
		t.Errorf("%v, %v", got, err)
	}
	if asked.Load() != 0 {
		t.Error("the DNS was asked")
	}
}

func TestServersOfResolvConf(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(path, []byte("nameserver 127.0.0.9\nnameserver ::1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	list := serverList{path: path}
	if got, err := list.get(); err != nil || fmt.Sprint(got) != "[127.0.0.9:53 [::1]:53]" {
		t.Errorf("%v, %v", got, err)
	}
}
