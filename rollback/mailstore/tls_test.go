package mailstore_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http/httptest"
	"testing"

	"mailcutover/rollback/mailstore"
)

// TLS from the first byte on, with the certificate checked; without it nothing is said.
func TestTLS(t *testing.T) {
	certified := httptest.NewTLSServer(nil) // for its certificate, of 127.0.0.1
	defer certified.Close()
	roots := x509.NewCertPool()
	roots.AddCert(certified.Certificate())
	for name, c := range map[string]struct {
		settings *tls.Config
		ok       bool
	}{
		"right":       {&tls.Config{RootCAs: roots, ServerName: "127.0.0.1"}, true},
		"another CA":  {&tls.Config{RootCAs: x509.NewCertPool(), ServerName: "127.0.0.1"}, false},
		"other names": {&tls.Config{RootCAs: roots, ServerName: "mail.example.org"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			said := make(chan string, 10)
			s := startScriptOn(t, tls.NewListener(l, &tls.Config{Certificates: certified.TLS.Certificates}), func(command string, _ int) (string, bool) {
				select {
				case said <- command:
				default:
				}
				return "", false
			})
			p := s.store(func(o *mailstore.Options) {
				o.TLS, o.Implicit = func(string) *tls.Config { return c.settings }, true
			})
			session, err := p.Open(t.Context(), row(t, "anna@example.org"), mailstore.Source)
			if c.ok {
				if err != nil {
					t.Fatal(err)
				}
				session.Close()
				return
			}
			if !errors.Is(err, mailstore.ErrUnavailable) || !mailstore.Platform(err) {
				t.Errorf("%v", err)
			}
			if len(said) > 0 {
				t.Errorf("said %q", <-said)
			}
		})
	}
	t.Run("STARTTLS that isn't there", func(t *testing.T) {
		plain := startScript(t, func(command string, _ int) (string, bool) { return "% BAD what\r\n", command == "STARTTLS" })
		p := plain.store(func(o *mailstore.Options) {
			o.TLS = func(string) *tls.Config { return &tls.Config{RootCAs: roots, ServerName: "127.0.0.1"} }
		})
		if _, err := p.Open(t.Context(), row(t, "anna@example.org"), mailstore.Source); !errors.Is(err, mailstore.ErrUnavailable) {
			t.Errorf("%v", err)
		}
		plain.mu.Lock()
		defer plain.mu.Unlock()
		for command := range plain.count {
			if command != "STARTTLS" && command != "CAPABILITY" {
				t.Errorf("said %q in plain text", command)
			}
		}
	})
}
