// Package certificate keeps a server's certificate and key as the files hold them now: a renewed pair is taken up without a restart and without a
// session noticing, and a broken one is refused while the old one stays in use. It also makes self-signed certificates for a first start.
//
// It does not obtain certificates from an authority, and it knows no configuration language.
package certificate

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
)

// maxFile is the limit in octets of a certificate or key file.
const maxFile = 1 << 20

// CheckEvery is how often Watch looks at the files.
const CheckEvery = 5 * time.Second

// Pair names a certificate file (the server's own first, then the chain) and a key file; both may be the same file.
type Pair struct {
	CertificateFile, KeyFile string
}

// Keeper serves the pairs' certificates. Make it with New.
type Keeper struct {
	log     *slog.Logger
	open    Opener
	current atomic.Pointer[loaded]
	pairs   []Pair
}

// Opener opens a file for reading, such as os.Open.
type Opener func(name string) (*os.File, error)

type loaded struct {
	certificates []tls.Certificate
	stamps       []stamp
}

// stamp tells whether a file changed.
type stamp struct {
	modified time.Time
	size     int64
	inode    os.FileInfo
}

// New loads the pairs; the first that cannot be used is the error. With several pairs the client's offer decides (RSA beside ECDSA, or SNI).
func New(log *slog.Logger, pairs ...Pair) (*Keeper, error) { return NewBy(os.Open, log, pairs...) }

// NewBy is New for files that open opens.
func NewBy(open Opener, log *slog.Logger, pairs ...Pair) (*Keeper, error) {
	if len(pairs) == 0 {
		return nil, errors.New("certificate: no files are named")
	}
	k := &Keeper{log: log, open: open, pairs: pairs}
	now, err := k.load()
	if err != nil {
		return nil, err
	}
	k.current.Store(now)
	return k, nil
}

func (k *Keeper) load() (*loaded, error) {
	now := &loaded{stamps: k.stamps()}
	for _, pair := range k.pairs {
		certificate, err := load(pair, k.open)
		if err != nil {
			return nil, err
		}
		now.certificates = append(now.certificates, certificate)
	}
	return now, nil
}

// Load reads a pair and checks that the key belongs to the certificate.
func Load(pair Pair) (tls.Certificate, error) { return load(pair, os.Open) }

func load(pair Pair, open Opener) (tls.Certificate, error) {
	certificate, err := readLimited(pair.CertificateFile, open)
	if err != nil {
		return tls.Certificate{}, err
	}
	key := certificate
	if pair.KeyFile != "" && pair.KeyFile != pair.CertificateFile {
		if key, err = readLimited(pair.KeyFile, open); err != nil {
			return tls.Certificate{}, err
		}
	}
	if bytes.Contains(key, []byte("ENCRYPTED")) {
		return tls.Certificate{}, fmt.Errorf("certificate: key file %s is encrypted: decrypt it with openssl pkey", pair.KeyFile)
	}
	loaded, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("certificate %s with key %s: %w", pair.CertificateFile, pair.KeyFile, err)
	}
	return loaded, nil
}

func readLimited(name string, open Opener) ([]byte, error) {
	file, err := open(name)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	defer file.Close()
	stat, err := file.Stat()
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	if stat.Size() > maxFile {
		return nil, fmt.Errorf("certificate: %s has %d octets, more than %d", name, stat.Size(), maxFile)
	}
	text, err := io.ReadAll(io.LimitReader(file, maxFile))
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	return text, nil
}

// stat looks at a file; one in a directory that this process cannot pass is opened for that.
func (k *Keeper) stat(name string) (fs.FileInfo, error) {
	info, err := os.Stat(name)
	if !errors.Is(err, fs.ErrPermission) {
		return info, err
	}
	file, err := k.open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return file.Stat()
}

func (k *Keeper) stamps() []stamp {
	var stamps []stamp
	for _, pair := range k.pairs {
		for _, name := range []string{pair.CertificateFile, pair.KeyFile} {
			var s stamp
			if info, err := k.stat(name); err == nil {
				s = stamp{info.ModTime(), info.Size(), info}
			}
			stamps = append(stamps, s)
		}
	}
	return stamps
}

func unchanged(a, b []stamp) bool {
	for i := range a {
		same := a[i].modified.Equal(b[i].modified) && a[i].size == b[i].size &&
			(a[i].inode == nil) == (b[i].inode == nil) && (a[i].inode == nil || os.SameFile(a[i].inode, b[i].inode))
		if !same {
			return false
		}
	}
	return true
}

// Refresh takes up changed files now. On an error the certificates in use stay; the same broken files are told once.
func (k *Keeper) Refresh() error {
	current := k.current.Load()
	stamps := k.stamps()
	if unchanged(current.stamps, stamps) {
		return nil
	}
	now, err := k.load()
	if err != nil {
		kept := *current
		kept.stamps = stamps
		k.current.Store(&kept)
		return fmt.Errorf("%w; the certificate in use stays (valid until %s)", err, k.NotAfter().Format(time.DateOnly))
	}
	now.stamps = stamps
	k.current.Store(now)
	k.log.Info("took up changed certificate " + k.pairs[0].CertificateFile + ", valid until " + k.NotAfter().Format(time.DateOnly))
	return nil
}

// Watch calls Refresh every CheckEvery until ctx ends and logs what cannot be used.
func (k *Keeper) Watch(ctx context.Context) {
	ticker := time.NewTicker(CheckEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			if err := k.Refresh(); err != nil {
				k.log.Error(err.Error())
			}
		}
	}
}

// NotAfter is when the first certificate in use expires.
func (k *Keeper) NotAfter() time.Time {
	certificates := k.current.Load().certificates
	if len(certificates) == 0 || certificates[0].Leaf == nil {
		return time.Time{}
	}
	return certificates[0].Leaf.NotAfter
}

// Get is for tls.Config.GetCertificate.
func (k *Keeper) Get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	certificates := k.current.Load().certificates
	for i := range certificates {
		if hello.SupportsCertificate(&certificates[i]) == nil {
			return &certificates[i], nil
		}
	}
	return &certificates[0], nil
}

// MakeSelfSigned writes a new ECDSA certificate for the names (host names or IP addresses) and its key, readable by the owner only. It
// refuses to replace files.
func MakeSelfSigned(pair Pair, validFor time.Duration, names ...string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: names[0]},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(validFor),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true, IsCA: true,
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	if err := writeNew(pair.KeyFile, 0o600, &pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}); err != nil {
		return err
	}
	return writeNew(pair.CertificateFile, 0o644, &pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func writeNew(name string, mode os.FileMode, block *pem.Block) error {
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	if err := errors.Join(pem.Encode(file, block), file.Sync(), file.Close()); err != nil {
		return fmt.Errorf("certificate: %s: %w", name, err)
	}
	directory, err := os.Open(filepath.Dir(name))
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	return errors.Join(directory.Sync(), directory.Close())
}
