package service_test

import (
	"net"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// proofZone is the DNS of the proofs. Names below broken.test have a server that fails; others that are not here do not exist.
const proofZone = `
client.test.             300 IN A    127.0.0.2
2.0.0.127.in-addr.arpa.  300 IN PTR  client.test.
2.0.0.127.rbl.test.      300 IN A    127.0.0.9
2.0.0.127.rbl.test.      300 IN TXT  "the reason"
backup.test.             300 IN MX   10 primary.test.
backup.test.             300 IN MX   20 mail.example.test.
primary.test.            300 IN A    192.0.2.10
mail.example.test.       300 IN A    127.0.0.1
good.test.               300 IN A    192.0.2.20
`

// nameServer serves proofZone on loopback, by UDP, and returns its address.
func nameServer(t *testing.T) string {
	t.Helper()
	var records []dns.RR
	parser := dns.NewZoneParser(strings.NewReader(proofZone), "", "")
	for rr, ok := parser.Next(); ok; rr, ok = parser.Next() {
		records = append(records, rr)
	}
	if err := parser.Err(); err != nil {
		t.Fatal(err)
	}
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done, serving := make(chan error, 1), make(chan struct{})
	server := &dns.Server{PacketConn: conn, NotifyStartedFunc: func() { close(serving) }, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		_ = w.WriteMsg(answerTo(q, records))
	})}
	go func() { done <- server.ActivateAndServe() }()
	<-serving
	t.Cleanup(func() {
		if err := server.Shutdown(); err != nil {
			t.Error(err)
		}
		<-done
	})
	return conn.LocalAddr().String()
}

func answerTo(q *dns.Msg, records []dns.RR) *dns.Msg {
	response := new(dns.Msg)
	response.SetReply(q)
	asked := q.Question[0]
	if strings.HasSuffix(strings.ToLower(asked.Name), "broken.test.") {
		response.Rcode = dns.RcodeServerFailure
		return response
	}
	exists := false
	// The peers' names tell their addresses.
	if numbers, below := strings.CutSuffix(asked.Name, ".lmtp.test."); below {
		exists = true
		address := net.ParseIP("127.20." + strings.ReplaceAll(strings.TrimPrefix(numbers, "a"), "-", "."))
		if asked.Qtype == dns.TypeA && address != nil {
			response.Answer = append(response.Answer, &dns.A{Hdr: dns.RR_Header{Name: asked.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 300}, A: address})
		}
	}
	for _, rr := range records {
		if strings.EqualFold(rr.Header().Name, asked.Name) {
			exists = true
			if rr.Header().Rrtype == asked.Qtype {
				response.Answer = append(response.Answer, rr)
			}
		}
	}
	if !exists {
		response.Rcode = dns.RcodeNameError
	}
	return response
}
