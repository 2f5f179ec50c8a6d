package models_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"tollgate/models"
	"tollgate/models/modelstest"
)

// A server that stops after PostgreSQL did has nothing to report: its connections over TLS are closed
// already.
func TestCloseAfterPostgresStopped(t *testing.T) {
	certificate, key := serverCertificate(t)
	c, err := modelstest.StartPostgres(t.Context(), modelstest.PostgresOptions{
		Settings: map[string]string{"ssl": "on", "ssl_cert_file": certificate, "ssl_key_file": key},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	db, err := models.Open(t.Context(), strings.Replace(c.URL("postgres"), "sslmode=disable", "sslmode=require", 1))
	if err != nil {
		t.Fatal(err)
	}
	var encrypted bool
	if err := db.NewRaw("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").Scan(t.Context(), &encrypted); err != nil || !encrypted {
		t.Fatalf("the connection uses no TLS (%v)", err)
	}
	if err := c.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Errorf("closing the database: %v", err)
	}
}

// serverCertificate returns files with a certificate for PostgreSQL and its key, which PostgreSQL's
// account may read.
func serverCertificate(t *testing.T) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	public, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "tollgate-certificate-") // t.TempDir is in a folder that other accounts may not enter
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	write := func(name, kind string, der []byte) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	certificate, key = write("server.crt", "CERTIFICATE", public), write("server.key", "PRIVATE KEY", secret)
	if os.Geteuid() == 0 {
		owner, err := user.Lookup("postgres")
		if err != nil {
			owner, err = user.Lookup("nobody")
		}
		if err != nil {
			t.Fatal(err)
		}
		uid, err := strconv.Atoi(owner.Uid)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{dir, certificate, key} {
			if err := os.Chown(path, uid, -1); err != nil {
				t.Fatal(err)
			}
		}
	}
	return certificate, key
}
