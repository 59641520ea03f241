package firststart

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// maxDomain is the longest domain name (RFC 1035 section 2.3.4) that leaves room for "mail." and "_submissions._tcp.".
const maxDomain = 235

// checkDomain refuses what cannot be a mail domain in the public DNS.
func checkDomain(domain string) error {
	if len(domain) > maxDomain {
		return fmt.Errorf("domain name of %d characters: at most %d are possible", len(domain), maxDomain)
	}
	labels := strings.Split(domain, ".")
	if len(labels) < 2 {
		return fmt.Errorf("%q is no domain name such as example.org", domain)
	}
	for _, label := range labels {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return fmt.Errorf("%q is no domain name: part %q must have 1 to 63 characters and no hyphen at its ends", domain, label)
		}
		for _, c := range []byte(label) {
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
				return fmt.Errorf("%q is no domain name: %q holds something else than letters, digits and hyphens (write other alphabets in their xn-- form)", domain, label)
			}
		}
	}
	if last := labels[len(labels)-1]; strings.Trim(last, "0123456789") == "" {
		return fmt.Errorf("%q is an address, not a domain name", domain)
	}
	return nil
}

// PublicAddresses are the addresses of this host that the DNS may name: no loopback, link-local or private ones.
func PublicAddresses() []netip.Addr {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var found []netip.Addr
	for _, a := range all {
		prefix, err := netip.ParsePrefix(a.String())
		if err != nil {
			continue
		}
		if addr := prefix.Addr().Unmap(); addr.IsGlobalUnicast() && !addr.IsPrivate() {
			found = append(found, addr)
		}
	}
	return found
}

// Records are the DNS records to publish for the host, in the form of a zone file: mail exchanger and addresses (RFC 5321), senders (SPF, RFC 7208),
// DMARC (RFC 7489) and the services that mail clients look for (RFC 6186, RFC 8314).
func (s *Setup) Records(addresses []netip.Addr) []string {
	zone := s.Domain + "."
	host := s.Hostname + "."
	records := []string{fmt.Sprintf("%s IN MX 10 %s", zone, host)}
	for _, a := range addresses {
		kind := "A"
		if a.Is6() {
			kind = "AAAA"
		}
		records = append(records, fmt.Sprintf("%s IN %s %s", host, kind, a))
	}
	if len(addresses) == 0 {
		records = append(records, host+" IN A <the host's public IPv4 address>", host+" IN AAAA <its IPv6 address, if it has one>")
	}
	records = append(records,
		zone+` IN TXT "v=spf1 mx -all"`,
		fmt.Sprintf(`_dmarc.%s IN TXT "v=DMARC1; p=quarantine; rua=mailto:postmaster@%s"`, zone, s.Domain),
	)
	for _, service := range []struct {
		name string
		port int
	}{{"_submissions", 465}, {"_submission", 587}, {"_imaps", 993}, {"_pop3s", 995}} {
		records = append(records, fmt.Sprintf("%s._tcp.%s IN SRV 0 1 %d %s", service.name, zone, service.port, host))
	}
	// "." says that the service is not there without TLS (RFC 6186 section 3.4).
	return append(records, fmt.Sprintf("_imap._tcp.%s IN SRV 0 0 0 .", zone), fmt.Sprintf("_pop3._tcp.%s IN SRV 0 0 0 .", zone))
}
