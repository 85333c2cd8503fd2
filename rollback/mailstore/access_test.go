package mailstore_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"mailcutover/rollback/mailstore"
	"mailcutover/test/peers"
)

// tokens gives one token after the other.
type tokens struct {
	all   []string
	asked atomic.Int32
}

func (s *tokens) Token(_ context.Context, refused string) (string, error) {
	n := int(s.asked.Add(1)) - 1
	if n == 0 && refused != "" || n > 0 && refused != s.all[n-1] {
		return "", fmt.Errorf("refused is %q", refused)
	}
	if n >= len(s.all) {
		return "", errors.New("there are no more tokens")
	}
	return s.all[n], nil
}

// noPenalty has Dovecot 2.3 answer at once. Else the logins of an address wait 4 s after one of them was refused,
// then 8 and 15, also those that would succeed.
const noPenalty = "\nservice anvil {\n unix_listener anvil-auth-penalty {\n  mode = 0\n }\n}"

// Dovecot asks a server whether a token is valid (RFC 7662), and lets in whom it names, by either
// mechanism. A token that is refused is replaced once.
func TestOAuthAtDovecot(t *testing.T) {
	introspection := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := map[string]any{"active": false}
		if r.FormValue("token") == "valid" || r.Header.Get("Authorization") == "Bearer valid" {
			answer = map[string]any{"active": true, "username": "anna@example.org"}
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(answer)
	}))
	defer introspection.Close()
	conf := filepath.Join(peers.TempDir(t, "oauth2"), "oauth2.conf")
	text := fmt.Sprintf("introspection_mode = post\nintrospection_url = %s/\nusername_attribute = username\nactive_attribute = active\nactive_value = true\n", introspection.URL)
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, mechanism := range []string{"oauthbearer", "xoauth2"} {
		t.Run(mechanism, func(t *testing.T) {
			d := peers.StartDovecot(t, peers.DovecotOptions{
				First: "passdb {\n  driver = oauth2\n  mechanisms = oauthbearer xoauth2\n  args = " + conf + "\n}", Extra: "auth_mechanisms = " + mechanism + noPenalty,
			})
			with := func(all ...string) (*mailstore.IMAP, *tokens) {
				source := &tokens{all: all}
				return store(t, d, func(o *mailstore.Options) {
					o.Access = mailstore.Access{Mode: mailstore.ModeOAuth, Token: source}
				}), source
			}
			fresh, asked := with("stale", "valid")
			s := open(t, fresh, "anna@example.org")
			appendOne(t, s, "INBOX", message("1", 100), time.Now())
			if err := s.Close(); err != nil || asked.asked.Load() != 2 {
				t.Errorf("%v after %d tokens", err, asked.asked.Load())
			}
			for name, all := range map[string][]string{"never valid": {"stale", "stale again"}, "no more": {"stale"}} {
				stale, _ := with(all...)
				if _, err := stale.Open(t.Context(), row(t, "anna@example.org"), mailstore.Source); !errors.Is(err, mailstore.ErrAuth) || !mailstore.Platform(err) || strings.Contains(err.Error(), "stale") {
					t.Errorf("%s: %v", name, err)
				}
			}
			another, _ := with("valid", "valid")
			if _, err := another.Open(t.Context(), row(t, "ben@example.org"), mailstore.Source); err == nil {
				t.Error("a token for one mailbox opened another")
			}
		})
	}
}

// STARTTLS at a Dovecot that takes no password without it, and says so before.
func TestStartTLSAtDovecot(t *testing.T) {
	certified := httptest.NewTLSServer(nil) // for its certificate, of 127.0.0.1
	defer certified.Close()
	roots := x509.NewCertPool()
	roots.AddCert(certified.Certificate())
	dir := peers.TempDir(t, "tls")
	pair := certified.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: pair.Certificate[0]}, "key.pem": {Type: "PRIVATE KEY", Bytes: key}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d := peers.StartDovecot(t, peers.DovecotOptions{First: masterPassdb, Extra: fmt.Sprintf(
		"ssl = required\nssl_cert = <%s/cert.pem\nssl_key = <%[1]s/key.pem\ndisable_plaintext_auth = yes\nauth_mechanisms = plain", dir)})
	byName := func(settings *tls.Config) func(*mailstore.Options) {
		return func(o *mailstore.Options) {
			o.Access = mailstore.Access{Mode: mailstore.ModeMasterName, User: "admin", Password: "master"}
			if settings != nil {
				o.TLS = func(string) *tls.Config { return settings }
			}
		}
	}
	s := open(t, store(t, d, byName(&tls.Config{RootCAs: roots, ServerName: "127.0.0.1"})), "anna@example.org")
	appendOne(t, s, "INBOX", message("1", 50_000), time.Now())
	if _, err := s.Select(t.Context(), "INBOX", false); err != nil || len(list(t, s, 1, 0)) != 1 {
		t.Errorf("after STARTTLS: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := store(t, d, byName(&tls.Config{RootCAs: x509.NewCertPool(), ServerName: "127.0.0.1"})).Open(t.Context(), row(t, "anna@example.org"), mailstore.Source); !errors.Is(err, mailstore.ErrUnavailable) {
		t.Errorf("a certificate of an unknown CA: %v", err)
	}
}

// What a platform says in plain text doesn't count after STARTTLS: Exchange and Dovecot take no
// password before it, and say so.
func TestStartTLSChangesCapabilities(t *testing.T) {
	certified := httptest.NewTLSServer(nil)
	defer certified.Close()
	roots := x509.NewCertPool()
	roots.AddCert(certified.Certificate())
	s := startScript(t, func(string, int) (string, bool) { return "", false })
	s.caps, s.tls = "IMAP4rev1 STARTTLS LOGINDISABLED", certified.TLS
	session, err := s.store(func(o *mailstore.Options) {
		o.TLS = func(string) *tls.Config { return &tls.Config{RootCAs: roots, ServerName: "127.0.0.1"} }
	}).Open(t.Context(), row(t, "anna@example.org"), mailstore.Source)
	if err != nil {
		t.Fatal(err)
	}
	session.Close()
}

// Where AUTH=PLAIN isn't there, a name and our password go by LOGIN, unless that is disabled.
func TestLoginCommand(t *testing.T) {
	for caps, want := range map[string]string{"IMAP4rev1 NAMESPACE": `LOGIN "anna@example.org*admin" "master"`, "IMAP4rev1 LOGINDISABLED": ""} {
		said := make(chan string, 1)
		s := startScript(t, func(command string, _ int) (string, bool) {
			if strings.HasPrefix(command, "LOGIN") {
				said <- command
			}
			return "", false
		})
		s.caps = caps
		session, err := s.store(func(o *mailstore.Options) { o.Access.Mode = mailstore.ModeMasterName }).Open(t.Context(), row(t, "anna@example.org"), mailstore.Source)
		if want == "" {
			if !errors.Is(err, mailstore.ErrAuth) || len(said) > 0 {
				t.Errorf("with LOGINDISABLED: %v", err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		session.Close()
		if got := <-said; strings.ReplaceAll(got, `"`, "") != strings.ReplaceAll(want, `"`, "") {
			t.Errorf("said %s, want %s", got, want)
		}
	}
}

// A platform that says BYE in the middle of something isn't there: it costs what was begun, and is
// nobody's mailbox's fault. It is asked for time where it has a limit.
func TestBye(t *testing.T) {
	for command, call := range calls {
		t.Run(command, func(t *testing.T) {
			s := startScript(t, func(c string, _ int) (string, bool) {
				return "* BYE Server shutting down\r\n", strings.HasPrefix(c, command)
			})
			session, err := s.store(nil).Open(t.Context(), row(t, "anna@example.org"), mailstore.Source)
			if err != nil {
				t.Fatal(err)
			}
			defer session.Close()
			if err := call(t.Context(), session); !errors.Is(err, mailstore.ErrUnavailable) || !mailstore.Platform(err) {
				t.Errorf("%v", err)
			}
		})
	}
	for _, answer := range []string{"% NO [LIMIT] too many\r\n", "% NO [THROTTLED] wait\r\n", "% NO Server Unavailable. 15\r\n"} {
		s := startScript(t, func(c string, n int) (string, bool) { return answer, strings.HasPrefix(c, "EXAMINE") && n < 3 })
		session, err := s.store(nil).Open(t.Context(), row(t, "anna@example.org"), mailstore.Source)
		if err != nil {
			t.Fatal(err)
		}
		if err := calls["EXAMINE"](t.Context(), session); err != nil || s.count["EXAMINE"] != 3 {
			t.Errorf("%q: %v after %d", answer, err, s.count["EXAMINE"])
		}
		session.Close()
	}
}

// Without LITERAL+ each message waits until the platform wants it.
func TestWithoutLiteralPlus(t *testing.T) {
	s := startScript(t, func(string, int) (string, bool) { return "", false })
	s.caps = "IMAP4rev1 AUTH=PLAIN SASL-IR NAMESPACE"
	session, err := s.store(nil).Open(t.Context(), row(t, "anna@example.org"), mailstore.Source)
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	a := session.AppendMany(t.Context(), "INBOX")
	taken := 0
	for range 5 {
		if err := a.Add(mailstore.Append{Size: 10, Body: strings.NewReader("0123456789")}, func(_ mailstore.Appended, err error) {
			if err == nil {
				taken++
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Close(); err != nil || taken != 5 || s.count["APPEND"] != 5 {
		t.Errorf("%d of 5 taken, %d sent: %v", taken, s.count["APPEND"], err)
	}
	if err := session.Move(t.Context(), []uint32{1}, "A"); !errors.Is(err, mailstore.ErrNoMove) {
		t.Errorf("moved without MOVE: %v", err)
	}
}
