// Package resolve asks the DNS: addresses, names of addresses, mail exchangers and texts, with a bounded cache and the difference between "there is no
// such thing" and "no answer now", which decides between a permanent and a temporary reply. Names and addresses of the hosts file come first,
// as with the C library.
//
// It is a stub resolver: it asks the servers of resolv.conf(5) and trusts their AD bit only as far as the configuration says. Wire format and
// transport are github.com/miekg/dns. RFC 1034, 1035, 2308 (negative caching), 6891 (EDNS).
package resolve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/net/idna"
)

// Kinds of failure, to be told apart with errors.Is.
var (
	// ErrNotFound: the name does not exist, or has no record of the type asked for.
	ErrNotFound = errors.New("host not found")
	// ErrTemporary: no server gave an answer.
	ErrTemporary = errors.New("host name lookup failed for now")
	// ErrInvalid: the name cannot be a domain name.
	ErrInvalid = errors.New("invalid domain name")
)

// Error says which question failed and why; Err is one of the kinds above.
type Error struct {
	Name string
	Type string
	// NameExists tells, with ErrNotFound, that the name is there but has no record of the type.
	NameExists bool
	Err        error
	// Cause is what the last server or the network said.
	Cause error
}

func (e *Error) Error() string {
	text := fmt.Sprintf("%s (type %s): %v", e.Name, e.Type, e.Err)
	if e.Cause != nil {
		text += ": " + e.Cause.Error()
	}
	return text
}

func (e *Error) Unwrap() []error { return []error{e.Err, e.Cause} }

// MX is a mail exchanger.
type MX struct {
	Host       string
	Preference uint16
}

// Options configure a Resolver.
type Options struct {
	// Servers are host:port; empty reads ResolvConf at every change of the file.
	Servers []string
	// ResolvConf is the path of resolv.conf, "" for /etc/resolv.conf.
	ResolvConf string
	// Hosts is the path of the hosts file, "" for /etc/hosts, "-" for none.
	Hosts string
	// Timeout bounds one question to one server; 0 is 5 seconds. Attempts is how often all servers are asked; 0 is 2.
	Timeout  time.Duration
	Attempts int
	// CacheSize is how many answers are kept; 0 is 20,000.
	CacheSize int
	Now       func() time.Time
}

// Resolver asks and remembers. Its methods may be called at the same time.
type Resolver struct {
	options Options
	servers serverList
	hosts   hostsFile
	udp     dns.Client
	tcp     dns.Client

	mu    sync.Mutex
	cache map[question]*answer
}

type question struct {
	name string
	kind uint16
}

type answer struct {
	records []dns.RR
	// authentic is the AD bit.
	authentic bool
	err       *Error
	until     time.Time
}

// Limits of what is kept: answers are remembered for at least a second and at most a day, negative ones for at most five minutes, and an
// answer has at most maxRecords records.
const (
	minTTL         = time.Second
	maxTTL         = 24 * time.Hour
	maxNegativeTTL = 5 * time.Minute
	maxRecords     = 256
	ednsSize       = 1232
)

// New returns a resolver. Nothing is read or asked before the first question.
func New(options Options) *Resolver {
	if options.Timeout <= 0 {
		options.Timeout = 5 * time.Second
	}
	if options.Attempts <= 0 {
		options.Attempts = 2
	}
	if options.CacheSize <= 0 {
		options.CacheSize = 20_000
	}
	if options.Now == nil {
		options.Now = time.Now
	}
	r := &Resolver{options: options, cache: map[question]*answer{}}
	r.servers.path, r.servers.fixed = options.ResolvConf, options.Servers
	if r.servers.path == "" {
		r.servers.path = "/etc/resolv.conf"
	}
	r.hosts.path = options.Hosts
	if r.hosts.path == "" {
		r.hosts.path = "/etc/hosts"
	}
	r.udp = dns.Client{Net: "udp", Timeout: options.Timeout, UDPSize: ednsSize}
	r.tcp = dns.Client{Net: "tcp", Timeout: options.Timeout}
	return r
}

// Addresses returns the IPv4 and IPv6 addresses of a host, the hosts file's first. Without any the error tells why.
func (r *Resolver) Addresses(ctx context.Context, host string) ([]netip.Addr, error) {
	if found := r.hosts.addresses(host); len(found) > 0 {
		return found, nil
	}
	var found []netip.Addr
	var failed error
	for _, kind := range []uint16{dns.TypeA, dns.TypeAAAA} {
		addresses, err := r.AddressesOfType(ctx, host, kind == dns.TypeAAAA)
		found = append(found, addresses...)
		if err != nil && (failed == nil || errors.Is(err, ErrTemporary)) {
			failed = err
		}
	}
	if len(found) > 0 {
		return found, nil
	}
	return nil, failed
}

// AddressesOfType asks the DNS for A records, or for AAAA records.
func (r *Resolver) AddressesOfType(ctx context.Context, host string, ipv6 bool) ([]netip.Addr, error) {
	kind := dns.TypeA
	if ipv6 {
		kind = dns.TypeAAAA
	}
	a, err := r.ask(ctx, host, kind)
	if err != nil {
		return nil, err
	}
	var found []netip.Addr
	for _, rr := range a.records {
		var ip net.IP
		switch record := rr.(type) {
		case *dns.A:
			ip = record.A
		case *dns.AAAA:
			ip = record.AAAA
		}
		if addr, ok := netip.AddrFromSlice(ip); ok {
			found = append(found, addr.Unmap())
		}
	}
	if len(found) == 0 {
		return nil, &Error{Name: host, Type: dns.TypeToString[kind], NameExists: true, Err: ErrNotFound}
	}
	return found, nil
}

// Names returns the names of an address, without the final dot.
func (r *Resolver) Names(ctx context.Context, address netip.Addr) ([]string, error) {
	if found := r.hosts.names(address); len(found) > 0 {
		return found, nil
	}
	reverse, err := dns.ReverseAddr(address.Unmap().String())
	if err != nil {
		return nil, &Error{Name: address.String(), Type: "PTR", Err: ErrInvalid, Cause: err}
	}
	a, err := r.ask(ctx, reverse, dns.TypePTR)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, rr := range a.records {
		if record, ok := rr.(*dns.PTR); ok {
			found = append(found, strings.TrimSuffix(record.Ptr, "."))
		}
	}
	if len(found) == 0 {
		return nil, &Error{Name: reverse, Type: "PTR", NameExists: true, Err: ErrNotFound}
	}
	return found, nil
}

// Exchangers returns the MX records in the order in which the answer has them, not sorted. A null MX (RFC 7505) is one with an empty host.
func (r *Resolver) Exchangers(ctx context.Context, domain string) ([]MX, error) {
	a, err := r.ask(ctx, domain, dns.TypeMX)
	if err != nil {
		return nil, err
	}
	var found []MX
	for _, rr := range a.records {
		if record, ok := rr.(*dns.MX); ok {
			found = append(found, MX{Host: strings.TrimSuffix(record.Mx, "."), Preference: record.Preference})
		}
	}
	if len(found) == 0 {
		return nil, &Error{Name: domain, Type: "MX", NameExists: true, Err: ErrNotFound}
	}
	return found, nil
}

// Texts returns the TXT records, the strings of each joined.
func (r *Resolver) Texts(ctx context.Context, name string) ([]string, error) {
	a, err := r.ask(ctx, name, dns.TypeTXT)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, rr := range a.records {
		if record, ok := rr.(*dns.TXT); ok {
			found = append(found, strings.Join(record.Txt, ""))
		}
	}
	if len(found) == 0 {
		return nil, &Error{Name: name, Type: "TXT", NameExists: true, Err: ErrNotFound}
	}
	return found, nil
}

// Nameservers returns the NS records of a domain.
func (r *Resolver) Nameservers(ctx context.Context, domain string) ([]string, error) {
	a, err := r.ask(ctx, domain, dns.TypeNS)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, rr := range a.records {
		if record, ok := rr.(*dns.NS); ok {
			found = append(found, strings.TrimSuffix(record.Ns, "."))
		}
	}
	if len(found) == 0 {
		return nil, &Error{Name: domain, Type: "NS", NameExists: true, Err: ErrNotFound}
	}
	return found, nil
}

// Exists tells whether the name has any record of the kinds a mail domain needs; the error is temporary only.
func (r *Resolver) Exists(ctx context.Context, name string) (bool, error) {
	for _, kind := range []uint16{dns.TypeA, dns.TypeAAAA} {
		_, err := r.ask(ctx, name, kind)
		if err == nil {
			return true, nil
		}
		if errors.Is(err, ErrTemporary) {
			return false, err
		}
	}
	return false, nil
}

// ask answers from the cache or from a server.
func (r *Resolver) ask(ctx context.Context, name string, kind uint16) (*answer, error) {
	ascii, err := toASCII(name)
	if err != nil {
		return nil, &Error{Name: name, Type: dns.TypeToString[kind], Err: ErrInvalid, Cause: err}
	}
	q := question{strings.ToLower(ascii), kind}
	now := r.options.Now()
	r.mu.Lock()
	known, ok := r.cache[q]
	r.mu.Unlock()
	if ok && now.Before(known.until) {
		if known.err != nil {
			return nil, known.err
		}
		return known, nil
	}
	a := r.exchange(ctx, q)
	if a.err != nil && errors.Is(a.err.Err, ErrTemporary) {
		return nil, a.err
	}
	r.remember(q, a, now)
	if a.err != nil {
		return nil, a.err
	}
	return a, nil
}

func toASCII(name string) (string, error) {
	name = strings.TrimSuffix(name, ".")
	if name == "" {
		return ".", nil
	}
	for i := range len(name) {
		if name[i] >= 0x80 {
			ascii, err := idna.Lookup.ToASCII(name)
			if err != nil {
				return "", err
			}
			name = ascii
			break
		}
	}
	if _, ok := dns.IsDomainName(name); !ok || strings.ContainsAny(name, " \t\r\n\x00\\\"") {
		return "", errors.New("not a domain name")
	}
	return name, nil
}

func (r *Resolver) remember(q question, a *answer, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.cache) >= r.options.CacheSize {
		for key, old := range r.cache {
			if !now.Before(old.until) {
				delete(r.cache, key)
			}
		}
		// Still full of what is valid: an arbitrary part goes, which map order picks and nobody outside can.
		for key := range r.cache {
			if len(r.cache) < r.options.CacheSize*3/4 {
				break
			}
			delete(r.cache, key)
		}
	}
	r.cache[q] = a
}

// exchange asks the servers in turn.
func (r *Resolver) exchange(ctx context.Context, q question) *answer {
	servers, err := r.servers.get()
	failure := &Error{Name: strings.TrimSuffix(q.name, "."), Type: dns.TypeToString[q.kind], Err: ErrTemporary, Cause: err}
	if err != nil {
		return &answer{err: failure}
	}
	message := new(dns.Msg)
	message.SetQuestion(dns.Fqdn(q.name), q.kind)
	message.SetEdns0(ednsSize, false)
	message.AuthenticatedData = true
	for range r.options.Attempts {
		for _, server := range servers {
			response, err := r.send(ctx, message, server)
			if err != nil {
				failure.Cause = err
				if ctx.Err() != nil {
					return &answer{err: failure}
				}
				continue
			}
			if a := r.read(q, response); a != nil {
				return a
			}
			failure.Cause = fmt.Errorf("server %s: %s", server, dns.RcodeToString[response.Rcode])
		}
	}
	return &answer{err: failure}
}

func (r *Resolver) send(ctx context.Context, message *dns.Msg, server string) (*dns.Msg, error) {
	response, _, err := r.udp.ExchangeContext(ctx, message, server)
	if err == nil && response.Truncated {
		response, _, err = r.tcp.ExchangeContext(ctx, message, server)
	}
	if err == nil && response.Rcode == dns.RcodeFormatError && message.IsEdns0() != nil {
		plain := message.Copy()
		plain.Extra = nil
		response, _, err = r.udp.ExchangeContext(ctx, plain, server)
	}
	return response, err
}

// read makes an answer of a response; nil when the server could not tell.
func (r *Resolver) read(q question, response *dns.Msg) *answer {
	now := r.options.Now()
	notFound := &Error{Name: strings.TrimSuffix(q.name, "."), Type: dns.TypeToString[q.kind], Err: ErrNotFound}
	switch response.Rcode {
	case dns.RcodeNameError:
		return &answer{err: notFound, until: now.Add(negativeTTL(response))}
	case dns.RcodeSuccess:
	default:
		return nil
	}
	a := &answer{authentic: response.AuthenticatedData}
	ttl := maxTTL
	for _, rr := range response.Answer {
		if rr.Header().Rrtype == q.kind && len(a.records) < maxRecords {
			a.records = append(a.records, rr)
			ttl = min(ttl, time.Duration(rr.Header().Ttl)*time.Second)
		}
	}
	if len(a.records) == 0 {
		notFound.NameExists = true
		return &answer{err: notFound, until: now.Add(negativeTTL(response))}
	}
	a.until = now.Add(max(ttl, minTTL))
	return a
}

func negativeTTL(response *dns.Msg) time.Duration {
	for _, rr := range response.Ns {
		if soa, ok := rr.(*dns.SOA); ok {
			return max(minTTL, min(maxNegativeTTL, time.Duration(min(soa.Hdr.Ttl, soa.Minttl))*time.Second))
		}
	}
	return minTTL
}
