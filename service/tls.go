package service

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"postilion/config/dovecot"
	"postilion/config/postfix"
	"postilion/service/certificate"
)

// tlsVersions are the protocol versions in rising order, by the names that both configurations use.
var tlsVersions = [...]struct {
	name    string
	version uint16
}{
	{"SSLv2", 0}, {"SSLv3", 0}, {"TLSv1", tls.VersionTLS10}, {"TLSv1.1", tls.VersionTLS11}, {"TLSv1.2", tls.VersionTLS12}, {"TLSv1.3", tls.VersionTLS13},
}

// safeMinimum is the oldest version that is spoken unless postilion_tls_minimum says otherwise.
const safeMinimum = tls.VersionTLS12

func tlsVersion(name string) (uint16, error) {
	for _, v := range tlsVersions {
		if strings.EqualFold(v.name, name) {
			return v.version, nil
		}
	}
	return 0, fmt.Errorf("%q is no TLS version: SSLv2, SSLv3, TLSv1, TLSv1.1, TLSv1.2 and TLSv1.3 are", name)
}

// tlsRange reads a list as smtpd_tls_protocols has it: names, !names, >=name and <=name, with commas, colons or blanks between them.
func tlsRange(list string) (oldest, newest uint16, err error) {
	allowed, hasPositive := map[uint16]bool{}, false
	excluded := map[uint16]bool{}
	oldest, newest = tls.VersionTLS10, tls.VersionTLS13
	for _, word := range strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ':' || r == ' ' || r == '\t' || r == '\n' }) {
		name := strings.TrimLeft(word, "!<>=")
		version, err := tlsVersion(name)
		if err != nil {
			return 0, 0, err
		}
		switch word[:len(word)-len(name)] {
		case "!":
			excluded[version] = true
		case ">=":
			oldest = max(oldest, version)
		case "<=":
			newest = version
		case "":
			allowed[version], hasPositive = true, true
		default:
			return 0, 0, fmt.Errorf("%q: only !, >= and <= go before a TLS version", word)
		}
	}
	permitted := func(v uint16) bool { return !excluded[v] && (!hasPositive || allowed[v]) }
	for oldest < newest && !permitted(oldest) {
		oldest++
	}
	for newest > oldest && !permitted(newest) {
		newest--
	}
	if !permitted(oldest) || newest < oldest {
		return 0, 0, fmt.Errorf("%q leaves no TLS version", list)
	}
	return oldest, newest, nil
}

// certificateSource opens the pairs of files that a configuration names and keeps an eye on them.
type certificateSource struct {
	log      *slog.Logger
	openFile certificate.Opener
	keepers  []*certificate.Keeper
}

func (s *certificateSource) open(pairs []certificate.Pair) (*certificate.Keeper, error) {
	keeper, err := certificate.NewBy(s.openFile, s.log, pairs...)
	if err != nil {
		return nil, err
	}
	s.keepers = append(s.keepers, keeper)
	return keeper, nil
}

// maxAuthorities is the limit in octets of a file of certificates.
const maxAuthorities = 16 << 20

func (s *certificateSource) read(name string) ([]byte, error) {
	file, err := s.openFile(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, maxAuthorities))
}

// dovecotTLS is the TLS configuration of a view, nil for ssl = no or when there is no certificate.
func dovecotTLS(view *dovecot.View, source *certificateSource) (*tls.Config, error) {
	if view.String("ssl") == "no" || view.String("ssl_cert") == "" {
		return nil, nil
	}
	var pairs []certificate.Pair
	for _, names := range [][2]string{{"ssl_cert", "ssl_key"}, {"ssl_alt_cert", "ssl_alt_key"}} {
		cert, ok := view.File(names[0])
		if !ok {
			if view.String(names[0]) != "" {
				return nil, fmt.Errorf("%s: %s: write the file's name with < before it", view.Where(names[0]), names[0])
			}
			continue
		}
		key, _ := view.File(names[1])
		pairs = append(pairs, certificate.Pair{CertificateFile: cert, KeyFile: first(key, cert)})
	}
	keeper, err := source.open(pairs)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", view.Where("ssl_cert"), err)
	}
	oldest, newest, err := tlsRange(">=" + first(view.String("ssl_min_protocol"), "TLSv1.2"))
	if view.String("ssl_min_protocol") == "ANY" || view.String("ssl_min_protocol") == "LATEST" {
		oldest, newest, err = safeMinimum, tls.VersionTLS13, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: ssl_min_protocol: %w", view.Where("ssl_min_protocol"), err)
	}
	config := &tls.Config{MinVersion: max(oldest, safeMinimum), MaxVersion: newest, GetCertificate: keeper.Get}
	if view.Bool("ssl_verify_client_cert") || view.Bool("auth_ssl_require_client_cert") {
		config.ClientAuth = tls.VerifyClientCertIfGiven
		if config.ClientCAs, err = certificatePool(view.String("ssl_ca")); err != nil {
			return nil, fmt.Errorf("%s: ssl_ca: %w", view.Where("ssl_ca"), err)
		}
	}
	return config, nil
}

func certificatePool(text string) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(text)) {
		return nil, errors.New("there is no certificate in PEM form")
	}
	return pool, nil
}

// postfixTLS is the TLS configuration of an smtpd service, nil when TLS is off there.
func postfixTLS(view *postfix.View, source *certificateSource) (*tls.Config, error) {
	if smtpdTLSLevel(view) == "none" {
		return nil, nil
	}
	pairs, err := postfixPairs(view)
	if err != nil || len(pairs) == 0 {
		return nil, err
	}
	keeper, err := source.open(pairs)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", view.Where("smtpd_tls_cert_file"), err)
	}
	name := "smtpd_tls_protocols"
	if smtpdTLSLevel(view) == "encrypt" {
		name = "smtpd_tls_mandatory_protocols"
	}
	oldest, newest, err := tlsRange(view.String(name))
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", view.Where(name), name, err)
	}
	minimum := uint16(safeMinimum)
	if text := view.String("postilion_tls_minimum"); text != "" {
		if minimum, err = tlsVersion(text); err != nil {
			return nil, fmt.Errorf("%s: postilion_tls_minimum: %w", view.Where("postilion_tls_minimum"), err)
		}
	}
	config := &tls.Config{MinVersion: max(oldest, minimum), MaxVersion: max(newest, minimum), GetCertificate: keeper.Get}
	if view.Bool("smtpd_tls_ask_ccert") || view.Bool("smtpd_tls_req_ccert") {
		config.ClientAuth = tls.RequestClientCert
		if file := view.String("smtpd_tls_CAfile"); file != "" {
			text, err := source.read(file)
			if err != nil {
				return nil, fmt.Errorf("%s: smtpd_tls_CAfile: %w", view.Where("smtpd_tls_CAfile"), err)
			}
			if config.ClientCAs, err = certificatePool(string(text)); err != nil {
				return nil, fmt.Errorf("%s: smtpd_tls_CAfile %s: %w", view.Where("smtpd_tls_CAfile"), file, err)
			}
		}
	}
	return config, nil
}

// postfixPairs lists the certificate files that main.cf names: chain files, or the pairs for RSA, DSA and ECDSA.
func postfixPairs(view *postfix.View) ([]certificate.Pair, error) {
	var pairs []certificate.Pair
	for _, chain := range view.List("smtpd_tls_chain_files") {
		pairs = append(pairs, certificate.Pair{CertificateFile: chain, KeyFile: chain})
	}
	if len(pairs) > 0 {
		return pairs, nil
	}
	for _, names := range [][2]string{
		{"smtpd_tls_cert_file", "smtpd_tls_key_file"}, {"smtpd_tls_eccert_file", "smtpd_tls_eckey_file"}, {"smtpd_tls_dcert_file", "smtpd_tls_dkey_file"},
	} {
		cert := view.String(names[0])
		if cert == "" || cert == "none" {
			continue
		}
		pairs = append(pairs, certificate.Pair{CertificateFile: cert, KeyFile: first(view.String(names[1]), cert)})
	}
	return pairs, nil
}

// smtpdTLSLevel is smtpd_tls_security_level, or what the older smtpd_use_tls, smtpd_enforce_tls and smtpd_tls_wrappermode mean.
func smtpdTLSLevel(view *postfix.View) string {
	level := view.String("smtpd_tls_security_level")
	switch {
	case view.Bool("smtpd_tls_wrappermode") && level != "encrypt":
		return "encrypt"
	case level != "":
		return level
	case view.Bool("smtpd_enforce_tls"):
		return "encrypt"
	case view.Bool("smtpd_use_tls"):
		return "may"
	}
	return "none"
}
