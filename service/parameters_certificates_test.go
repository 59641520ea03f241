package service_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// issued are files by name: an authority, certificates that it signed, and their keys.
type issued map[string][]byte

// certificateFiles are made once: authority.pem; rsa, ecdsa, other and lmtp (for all names below lmtp.test) for servers; client and u0, whose common name is that account's.
var certificateFiles = sync.OnceValues(func() (issued, error) {
	files := issued{}
	authorityKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	authority := certificateFor("authority.test", 1)
	authority.IsCA, authority.KeyUsage = true, x509.KeyUsageCertSign
	root, err := x509.CreateCertificate(rand.Reader, authority, authority, authorityKey.Public(), authorityKey)
	if err != nil {
		return nil, err
	}
	files["authority.pem"] = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root})
	for i, name := range []string{"rsa", "ecdsa", "other", "client", "u0", "lmtp"} {
		var key crypto.Signer
		if name == "rsa" {
			key, err = rsa.GenerateKey(rand.Reader, 2048)
		} else {
			key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		}
		if err != nil {
			return nil, err
		}
		leaf := certificateFor(name+".test", int64(i+2))
		if name == "u0" {
			leaf.Subject.CommonName, leaf.EmailAddresses = user(0), []string{user(1)}
		}
		if name == "lmtp" {
			leaf.DNSNames = []string{"*.lmtp.test"}
		}
		der, err := x509.CreateCertificate(rand.Reader, leaf, authority, key.Public(), authorityKey)
		if err != nil {
			return nil, err
		}
		keyDER, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return nil, err
		}
		files[name+".pem"] = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
		files[name+".key"] = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
		files[name+".both"] = append(append([]byte{}, files[name+".key"]...), files[name+".pem"]...)
		sum := sha256.Sum256(der)
		files[name+".fingerprint"] = []byte(strings.Trim(strings.ReplaceAll(fmt.Sprintf("% X", sum), " ", ":"), ":") + " ours\n")
	}
	return files, nil
})

func certificateFor(name string, serial int64) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(serial), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		Subject:  pkix.Name{CommonName: name, Organization: []string{"Proofs"}},
		DNSNames: []string{name}, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, BasicConstraintsValid: true,
	}
}

// writeCertificates puts the files into the system's tls directory.
func (s *system) writeCertificates() {
	s.t.Helper()
	files, err := certificateFiles()
	if err != nil {
		s.t.Fatal(err)
	}
	for name, text := range files {
		s.write(filepath.Join("tls", name), string(text))
	}
	if err := os.Mkdir(filepath.Join(s.dir, "authorities"), 0o755); err != nil {
		s.t.Fatal(err)
	}
	s.write("authorities/authority.pem", string(files["authority.pem"]))
}

// clientCertificate is the one of that name.
func clientCertificate(t testing.TB, name string) tls.Certificate {
	t.Helper()
	files, err := certificateFiles()
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(files[name+".pem"], files[name+".key"])
	if err != nil {
		t.Fatal(err)
	}
	return pair
}
