package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mailcutover/internal/platformtest"
)

func TestCertificates(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	ca, err := platformtest.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	cert, key, roots, err := ca.WriteFiles(dir, "mx1.example.org")
	if err != nil {
		t.Fatal(err)
	}
	otherCert, _, _, err := ca.WriteFiles(other, "mx2.example.org")
	if err != nil {
		t.Fatal(err)
	}
	open := filepath.Join(dir, "open.pem")
	b, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(open, b, 0o600), os.Chmod(open, 0o644), os.Chmod(key, 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, cert, key, ca string
		problem             string // a part of it; empty: none
	}{
		{"all fits", cert, key, roots, ""},
		{"another certificate's key", otherCert, key, roots, "fits the key_file"},
		{"key and certificate swapped", key, cert, roots, "fits the key_file"},
		{"key for everybody", cert, open, roots, "only its owner"},
		{"no certificate", filepath.Join(dir, "none.pem"), key, roots, "no such file"},
		{"no key", cert, filepath.Join(dir, "none.pem"), roots, "no such file"},
		{"no CA", cert, key, filepath.Join(dir, "none.pem"), "no such file"},
		{"CA is a key", cert, key, key, "CA certificates in PEM"},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := strings.Replace(minimal(t), `":25"`, `":25", tls: {mode: starttls, required: true, cert_file: "`+c.cert+`", key_file: "`+c.key+`"}`, 1)
			text = strings.Replace(text, `exchange.example.org:25"]`, `exchange.example.org:25"], tls: {policy: verified, ca_file: "`+c.ca+`"}`, 1)
			_, err := Load(write(t, text), nil)
			switch {
			case c.problem == "" && err != nil:
				t.Error(err)
			case c.problem != "" && (err == nil || !strings.Contains(err.Error(), c.problem)):
				t.Errorf("error is %v, want one with %q", err, c.problem)
			}
		})
	}
}
