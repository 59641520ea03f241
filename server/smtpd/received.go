package smtpd

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"strconv"
	"strings"

	"postilion/mail/envelope"
	"postilion/proto/smtp"
)

// received appends the trace header of RFC 5321 section 4.4 as Postfix writes it.
func (x *session) received(out []byte, mail *envelope.Envelope, id string) []byte {
	helo := x.engine.Helo()
	if helo == "" {
		helo = x.peer.name
	}
	out = append(out, "Received: from "...)
	out = append(out, helo...)
	out = append(out, " ("...)
	out = append(out, x.peer.name...)
	out = append(out, " ["...)
	out = append(out, x.peer.literal()...)
	out = append(out, "])\r\n"...)
	if x.options.TLSReceivedHeader && x.tls != nil {
		out = x.receivedTLS(out)
	}
	if x.options.SASLAuthenticatedHeader && x.peer.user != "" {
		out = append(out, "\t(Authenticated sender: "...)
		out = append(out, sanitizeComment(x.peer.user)...)
		out = append(out, ")\r\n"...)
	}
	out = append(out, "\tby "...)
	out = append(out, x.options.Hostname...)
	out = append(out, " ("...)
	out = append(out, x.options.MailName...)
	out = append(out, ") with "...)
	protocol := x.engine.Protocol()
	if mail.UTF8 && protocol == "ESMTP" {
		protocol = "UTF8SMTP"
	}
	out = append(out, protocol...)
	if protocol != "SMTP" {
		if x.tls != nil {
			out = append(out, 'S')
		}
		if x.peer.user != "" {
			out = append(out, 'A')
		}
	}
	out = append(out, " id "...)
	out = append(out, id...)
	if len(mail.Recipients) == 1 {
		out = append(out, "\r\n\tfor <"...)
		out = append(out, smtp.QuoteLocal(mail.Recipients[0].Address)...)
		out = append(out, ">; "...)
	} else {
		out = append(out, ";\r\n\t"...)
	}
	out = append(out, x.server.dates.format(x.message.arrival)...)
	return append(out, '\r', '\n')
}

// sanitizeComment keeps a text from leaving the comment it stands in.
func sanitizeComment(text string) string {
	return strings.Map(func(r rune) rune {
		if r == '(' || r == ')' || r == '\\' || r < ' ' || r == 127 {
			return '?'
		}
		return r
	}, text)
}

func (x *session) receivedTLS(out []byte) []byte {
	d := describeTLS(x.tls)
	out = fmt.Appendf(out, "\t(using %s with cipher %s (%d/%d bits)", d.version, d.cipher, d.bits, d.bits)
	if keys := x.handshakeKeys(d); keys != "" {
		out = append(append(out, "\r\n\t"...), keys...)
	}
	out = append(out, ")\r\n"...)
	switch {
	case len(x.tls.VerifiedChains) > 0:
		certificate := x.tls.PeerCertificates[0]
		return fmt.Appendf(out, "\t(Client CN %q, Issuer %q (verified OK))\r\n",
			sanitizeComment(certificate.Subject.CommonName), sanitizeComment(certificate.Issuer.CommonName))
	case len(x.tls.PeerCertificates) > 0:
		certificate := x.tls.PeerCertificates[0]
		return fmt.Appendf(out, "\t(Client CN %q, Issuer %q (not verified))\r\n",
			sanitizeComment(certificate.Subject.CommonName), sanitizeComment(certificate.Issuer.CommonName))
	case x.options.TLSAskClientCertificate:
		return append(out, "\t(Client did not present a certificate)\r\n"...)
	}
	return append(out, "\t(No client certificate requested)\r\n"...)
}

// handshakeKeys tells how a TLS 1.3 handshake was keyed and signed; "" for older versions.
func (x *session) handshakeKeys(d tlsDescription) string {
	if d.exchange == "" {
		return ""
	}
	keys := " key-exchange " + d.exchange
	if signature := x.serverSignature(); signature != "" {
		keys += " server-signature " + signature
	}
	return keys
}

// serverSignature describes the key that signed the handshake, which TLS of Go does not tell: it is known when there is one certificate.
func (x *session) serverSignature() string {
	config, err := x.options.TLS()
	if err != nil || len(config.Certificates) != 1 || len(config.Certificates[0].Certificate) == 0 {
		return ""
	}
	leaf := config.Certificates[0].Leaf
	if leaf == nil {
		if leaf, err = x509.ParseCertificate(config.Certificates[0].Certificate[0]); err != nil {
			return ""
		}
	}
	switch key := leaf.PublicKey.(type) {
	case *rsa.PublicKey:
		return "RSA-PSS (" + strconv.Itoa(key.N.BitLen()) + " bits) server-digest SHA256"
	case *ecdsa.PublicKey:
		switch key.Curve.Params().BitSize {
		case 256:
			return "ECDSA (prime256v1) server-digest SHA256"
		case 384:
			return "ECDSA (secp384r1) server-digest SHA384"
		case 521:
			return "ECDSA (secp521r1) server-digest SHA512"
		}
	case ed25519.PublicKey:
		return "Ed25519"
	}
	return ""
}

type tlsDescription struct {
	version, cipher string
	bits            int
	// exchange is the key exchange group, for TLS 1.3 alone as in Postfix.
	exchange string
}

// describeTLS names a session's encryption as OpenSSL does.
func describeTLS(state *tls.ConnectionState) tlsDescription {
	d := tlsDescription{bits: 128}
	switch state.Version {
	case tls.VersionTLS10:
		d.version = "TLSv1"
	case tls.VersionTLS11:
		d.version = "TLSv1.1"
	case tls.VersionTLS12:
		d.version = "TLSv1.2"
	default:
		d.version = "TLSv1.3"
	}
	name := tls.CipherSuiteName(state.CipherSuite)
	if strings.Contains(name, "256_GCM") || strings.Contains(name, "CHACHA20") || strings.Contains(name, "AES_256") {
		d.bits = 256
	}
	if state.Version == tls.VersionTLS13 {
		d.cipher = name
		d.exchange = groupName(state.CurveID)
		return d
	}
	d.cipher = openSSLName(name)
	return d
}

// openSSLName turns TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 into ECDHE-RSA-AES256-GCM-SHA384.
func openSSLName(name string) string {
	name = strings.TrimPrefix(name, "TLS_")
	name = strings.TrimPrefix(name, "RSA_WITH_")
	name = strings.NewReplacer("_WITH_", "-", "AES_128_CBC", "AES128", "AES_256_CBC", "AES256", "AES_128", "AES128", "AES_256", "AES256",
		"CHACHA20_POLY1305_SHA256", "CHACHA20-POLY1305", "3DES_EDE_CBC", "DES-CBC3", "_", "-").Replace(name)
	return name
}

func groupName(id tls.CurveID) string {
	switch id {
	case 0:
		return ""
	case tls.CurveP256:
		return "ECDHE (P-256)"
	case tls.CurveP384:
		return "ECDHE (P-384)"
	case tls.CurveP521:
		return "ECDHE (P-521)"
	}
	return id.String()
}

// tlsLine is what smtpd_tls_loglevel = 1 logs of a handshake.
func (x *session) tlsLine() string {
	d := describeTLS(x.tls)
	trust := "Anonymous"
	if len(x.tls.VerifiedChains) > 0 {
		trust = "Trusted"
	} else if len(x.tls.PeerCertificates) > 0 {
		trust = "Untrusted"
	}
	return fmt.Sprintf("%s TLS connection established from %s: %s with cipher %s (%d/%d bits)%s",
		trust, x.peer.client, d.version, d.cipher, d.bits, d.bits, x.handshakeKeys(d))
}
