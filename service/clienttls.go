package service

import (
	"context"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"postilion/config/postfix"
	"postilion/mta/deliver"
	"postilion/service/certificate"
)

// clientTLS tells what TLS means for the servers that an lmtp(8) service talks to.
func (b *builder) clientTLS(view *postfix.View) func(ctx context.Context, nexthop, host string) (deliver.ClientTLS, error) {
	c := &clientTLS{builder: b, view: view, level: clientTLSLevel(view)}
	if c.level != "none" || len(view.List("lmtp_tls_policy_maps")) > 0 {
		c.failed = c.load()
	}
	return c.forServer
}

// clientTLSLevel is lmtp_tls_security_level, or what the older lmtp_use_tls and lmtp_enforce_tls mean.
func clientTLSLevel(view *postfix.View) string {
	level := view.String("lmtp_tls_security_level")
	switch {
	case level != "":
		return level
	case view.Bool("lmtp_enforce_tls") && view.Bool("lmtp_tls_enforce_peername"):
		return "verify"
	case view.Bool("lmtp_enforce_tls"):
		return "encrypt"
	case view.Bool("lmtp_use_tls"):
		return "may"
	}
	return "none"
}

type clientTLS struct {
	builder     *builder
	view        *postfix.View
	level       string
	authorities *x509.CertPool
	certificate *certificate.Keeper
	failed      error
}

// clientPairs lists the certificate files of an lmtp(8) service: chain files, or the one pair.
func clientPairs(view *postfix.View) []certificate.Pair {
	var pairs []certificate.Pair
	for _, chain := range view.List("lmtp_tls_chain_files") {
		pairs = append(pairs, certificate.Pair{CertificateFile: chain, KeyFile: chain})
	}
	if cert := view.String("lmtp_tls_cert_file"); cert != "" && len(pairs) == 0 {
		pairs = append(pairs, certificate.Pair{CertificateFile: cert, KeyFile: first(view.String("lmtp_tls_key_file"), cert)})
	}
	return pairs
}

// load reads certificates: our own, and those of the authorities.
func (c *clientTLS) load() error {
	pairs := clientPairs(c.view)
	if len(pairs) > 0 {
		keeper, err := c.builder.certificates.open(pairs)
		if err != nil {
			return fmt.Errorf("%s: %w", c.view.Where("lmtp_tls_cert_file"), err)
		}
		c.certificate = keeper
	}
	c.authorities = x509.NewCertPool()
	if c.view.Bool("tls_append_default_CA") {
		system, err := x509.SystemCertPool()
		if err != nil {
			return fmt.Errorf("tls_append_default_CA: %w", err)
		}
		c.authorities = system
	}
	files := []string{c.view.String("lmtp_tls_CAfile")}
	if dir := c.view.String("lmtp_tls_CApath"); dir != "" {
		found, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil {
			return fmt.Errorf("lmtp_tls_CApath: %w", err)
		}
		files = append(files, found...)
	}
	for i, file := range files {
		if file == "" {
			continue
		}
		text, err := c.readFile(file)
		if err != nil && i == 0 {
			return fmt.Errorf("%s: lmtp_tls_CAfile: %w", c.view.Where("lmtp_tls_CAfile"), err)
		}
		c.authorities.AppendCertsFromPEM(text)
	}
	return nil
}

// readFile reads a file by the process's own rights, or with Root's help.
func (c *clientTLS) readFile(name string) ([]byte, error) {
	file, err := c.builder.options.open(name)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(file)
	return text, errors.Join(err, file.Close())
}

// tlsPolicy is what is asked of one server.
type tlsPolicy struct {
	level     string
	match     []string
	protocols string
}

// policyFor is the table's entry for the next hop, or what the parameters say.
func (c *clientTLS) policyFor(ctx context.Context, nexthop string) (tlsPolicy, error) {
	p := tlsPolicy{level: c.level}
	for _, spec := range c.view.List("lmtp_tls_policy_maps") {
		value, found, err := c.builder.tables().get(spec, false).Lookup(ctx, strings.TrimPrefix(nexthop, "inet:"))
		if err != nil {
			return p, fmt.Errorf("lmtp_tls_policy_maps: %w", err)
		}
		if !found {
			continue
		}
		for i, word := range strings.FieldsFunc(value, func(r rune) bool { return r == ' ' || r == '\t' || r == ',' }) {
			name, text, _ := strings.Cut(word, "=")
			switch {
			case i == 0:
				p.level = word
			case name == "match":
				p.match = append(p.match, strings.FieldsFunc(text, func(r rune) bool { return r == ':' || r == '|' })...)
			case name == "protocols":
				p.protocols = text
			}
		}
		break
	}
	if len(p.match) == 0 {
		switch p.level {
		case "verify":
			p.match = c.view.List("lmtp_tls_verify_cert_match")
		case "secure":
			p.match = c.view.List("lmtp_tls_secure_cert_match")
		case "fingerprint":
			p.match = c.view.List("lmtp_tls_fingerprint_cert_match")
		}
	}
	return p, nil
}

func (c *clientTLS) forServer(ctx context.Context, nexthop, host string) (deliver.ClientTLS, error) {
	p, err := c.policyFor(ctx, nexthop)
	if err != nil || p.level == "none" {
		return deliver.ClientTLS{Level: "none"}, err
	}
	if c.failed != nil {
		return deliver.ClientTLS{}, c.failed
	}
	name := "lmtp_tls_mandatory_protocols"
	if p.level == "may" {
		name = "lmtp_tls_protocols"
	}
	oldest, newest, err := tlsRange(first(p.protocols, c.view.String(name)))
	if err != nil {
		return deliver.ClientTLS{}, fmt.Errorf("%s: %s: %w", c.view.Where(name), name, err)
	}
	minimum := uint16(safeMinimum)
	if text := c.view.String("postilion_tls_minimum"); text != "" {
		if minimum, err = tlsVersion(text); err != nil {
			return deliver.ClientTLS{}, fmt.Errorf("%s: postilion_tls_minimum: %w", c.view.Where("postilion_tls_minimum"), err)
		}
	}
	// Which certificate is good enough is decided below: Go's own check knows neither of Postfix's levels nor of several names.
	config := &tls.Config{
		MinVersion: max(oldest, minimum), MaxVersion: max(newest, minimum), InsecureSkipVerify: true, ServerName: first(c.view.String("lmtp_tls_servername"), host),
	}
	if config.ServerName == "hostname" || config.ServerName == "nexthop" {
		config.ServerName = host
	}
	if c.certificate != nil {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return c.certificate.Get(&tls.ClientHelloInfo{SupportedVersions: []uint16{tls.VersionTLS13, tls.VersionTLS12}})
		}
	}
	switch p.level {
	case "may", "encrypt":
	case "verify", "secure":
		config.VerifyConnection = func(state tls.ConnectionState) error { return c.trusted(&state, p.match, nexthop, host) }
	case "fingerprint":
		config.VerifyConnection = func(state tls.ConnectionState) error { return c.known(&state, p.match) }
	default:
		return deliver.ClientTLS{}, fmt.Errorf("%s: lmtp_tls_security_level: %q is not supported: use none, may, encrypt, fingerprint, verify or secure",
			c.view.Where("lmtp_tls_security_level"), p.level)
	}
	return deliver.ClientTLS{Level: p.level, Config: config}, nil
}

// trusted wants a certificate of a known authority with a name of the list: a name, .domain for all below it, hostname, nexthop or dot-nexthop.
func (c *clientTLS) trusted(state *tls.ConnectionState, match []string, nexthop, host string) error {
	leaf := state.PeerCertificates[0]
	others := x509.NewCertPool()
	for _, other := range state.PeerCertificates[1:] {
		others.AddCert(other)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: c.authorities, Intermediates: others}); err != nil {
		return fmt.Errorf("Server certificate not trusted: %w", err)
	}
	domain := strings.Trim(strings.TrimPrefix(nexthop, "inet:"), "[]")
	if i := strings.IndexAny(domain, "]:"); i >= 0 {
		domain = domain[:i]
	}
	for _, name := range match {
		switch name {
		case "hostname":
			name = host
		case "nexthop":
			name = domain
		case "dot-nexthop":
			name = "." + domain
		}
		if strings.HasPrefix(name, ".") {
			if slices.ContainsFunc(leaf.DNSNames, func(n string) bool { return strings.HasSuffix(strings.ToLower(n), strings.ToLower(name)) }) {
				return nil
			}
			continue
		}
		if leaf.VerifyHostname(name) == nil {
			return nil
		}
	}
	return errors.New("Server certificate not verified: no name of it matches")
}

// known wants a certificate or public key with a fingerprint of the list.
func (c *clientTLS) known(state *tls.ConnectionState, match []string) error {
	leaf := state.PeerCertificates[0]
	digest := func(data []byte) string {
		var sum []byte
		switch c.view.String("lmtp_tls_fingerprint_digest") {
		case "md5":
			s := md5.Sum(data)
			sum = s[:]
		case "sha1":
			s := sha1.Sum(data)
			sum = s[:]
		default:
			s := sha256.Sum256(data)
			sum = s[:]
		}
		return hex.EncodeToString(sum)
	}
	certificate, key := digest(leaf.Raw), digest(leaf.RawSubjectPublicKeyInfo)
	for _, text := range match {
		text = strings.ToLower(strings.ReplaceAll(text, ":", ""))
		if text == certificate || text == key {
			return nil
		}
	}
	return errors.New("Server certificate fingerprint not matched")
}
