package certificate

import (
	"crypto/tls"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func makePair(t *testing.T, name string) Pair {
	t.Helper()
	dir := t.TempDir()
	pair := Pair{CertificateFile: filepath.Join(dir, "cert.pem"), KeyFile: filepath.Join(dir, "key.pem")}
	if err := MakeSelfSigned(pair, time.Hour, name, "127.0.0.1"); err != nil {
		t.Fatal(err)
	}
	return pair
}

func move(t *testing.T, from, to Pair) {
	t.Helper()
	for _, names := range [][2]string{{from.CertificateFile, to.CertificateFile}, {from.KeyFile, to.KeyFile}} {
		if err := os.Rename(names[0], names[1]); err != nil {
			t.Fatal(err)
		}
	}
}

// served does a handshake and returns the name of the certificate that came.
func served(t *testing.T, keeper *Keeper) string {
	t.Helper()
	client, server := net.Pipe()
	done := make(chan error, 1)
	go func() { done <- tls.Server(server, &tls.Config{GetCertificate: keeper.Get}).Handshake() }()
	conn := tls.Client(client, &tls.Config{InsecureSkipVerify: true})
	if err := conn.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return conn.ConnectionState().PeerCertificates[0].Subject.CommonName
}

func TestRenewedPairIsTakenUpAndBrokenOneRefused(t *testing.T) {
	pair := makePair(t, "old.example")
	keeper, err := New(slog.New(slog.DiscardHandler), pair)
	if err != nil {
		t.Fatal(err)
	}
	if got := served(t, keeper); got != "old.example" {
		t.Errorf("served %s", got)
	}
	move(t, makePair(t, "new.example"), pair)
	if err := keeper.Refresh(); err != nil {
		t.Fatal(err)
	}
	if got := served(t, keeper); got != "new.example" {
		t.Errorf("after renewal served %s", got)
	}
	if err := os.WriteFile(pair.CertificateFile, []byte("-----BEGIN CERTIFICATE-----\nnot one\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := keeper.Refresh(); err == nil || !strings.Contains(err.Error(), pair.CertificateFile) {
		t.Errorf("broken certificate: %v", err)
	}
	if err := keeper.Refresh(); err != nil {
		t.Errorf("the same broken certificate is told twice: %v", err)
	}
	if got := served(t, keeper); got != "new.example" {
		t.Errorf("after a broken one served %s", got)
	}
	// A certificate whose key is not there yet: both files change, one after the other.
	next := makePair(t, "next.example")
	if err := os.Rename(next.CertificateFile, pair.CertificateFile); err != nil {
		t.Fatal(err)
	}
	if err := keeper.Refresh(); err == nil {
		t.Error("a certificate with another one's key is taken")
	}
	if err := os.Rename(next.KeyFile, pair.KeyFile); err != nil {
		t.Fatal(err)
	}
	if err := keeper.Refresh(); err != nil {
		t.Error(err)
	}
	if got := served(t, keeper); got != "next.example" {
		t.Errorf("served %s", got)
	}
}

func TestUnusableFiles(t *testing.T) {
	pair := makePair(t, "a.example")
	large := filepath.Join(t.TempDir(), "large")
	if err := os.WriteFile(large, make([]byte, maxFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	encrypted := filepath.Join(t.TempDir(), "encrypted")
	if err := os.WriteFile(encrypted, []byte("-----BEGIN ENCRYPTED PRIVATE KEY-----\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		pair Pair
		want string
	}{
		{Pair{"/no/such", pair.KeyFile}, "/no/such"},
		{Pair{pair.CertificateFile, "/no/key"}, "/no/key"},
		{Pair{large, pair.KeyFile}, large},
		{Pair{pair.CertificateFile, encrypted}, "decrypt it"},
		{Pair{pair.CertificateFile, makePair(t, "b.example").KeyFile}, pair.CertificateFile},
	} {
		if _, err := New(slog.New(slog.DiscardHandler), row.pair); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%v: %v", row.pair, err)
		}
	}
	if err := MakeSelfSigned(pair, time.Hour, "a.example"); err == nil {
		t.Error("files are replaced")
	}
}
