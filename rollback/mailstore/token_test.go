package mailstore_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"mailcutover/rollback/mailstore"
)

// tokenServer gives a new token each time, for a client with the right secret.
func tokenServer(t *testing.T, life int) (*httptest.Server, *atomic.Int32) {
	t.Helper()
	var n atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("grant_type") != "client_credentials" || r.FormValue("client_id") != "id" || r.FormValue("client_secret") != "s3cret" || r.FormValue("scope") != "imap" {
			http.Error(w, "no "+r.FormValue("client_secret"), http.StatusUnauthorized)
			return
		}
		fmt.Fprintf(w, `{"access_token": "token%d", "expires_in": %d, "token_type": "Bearer"}`, n.Add(1), life)
	}))
	t.Cleanup(s.Close)
	return s, &n
}

func credentials(s *httptest.Server, secret string) *mailstore.Credentials {
	return mailstore.NewClientCredentials(mailstore.ClientCredentials{URL: s.URL, ClientID: "id", Secret: secret, Scope: "imap", Client: s.Client()})
}

// A token is asked for once as long as it lasts, and again when it was refused.
func TestClientCredentials(t *testing.T) {
	s, asked := tokenServer(t, 3600)
	c := credentials(s, "s3cret")
	for _, want := range []struct{ refused, token string }{{"", "token1"}, {"", "token1"}, {"token1", "token2"}, {"token1", "token2"}} {
		if got, err := c.Token(t.Context(), want.refused); err != nil || got != want.token {
			t.Errorf("after %q: %q, %v, want %q", want.refused, got, err, want.token)
		}
	}
	if asked.Load() != 2 {
		t.Errorf("asked %d times", asked.Load())
	}
	short, asked := tokenServer(t, 30) // over before it is used
	c = credentials(short, "s3cret")
	for range 2 {
		if _, err := c.Token(t.Context(), ""); err != nil {
			t.Error(err)
		}
	}
	if asked.Load() != 2 {
		t.Errorf("asked %d times", asked.Load())
	}
	_, err := credentials(s, "wr0ng").Token(t.Context(), "")
	if err == nil || strings.Contains(err.Error(), "wr0ng") {
		t.Errorf("%v", err)
	}
}

func TestTokenFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	if _, err := mailstore.TokenFile(path).Token(t.Context(), ""); err == nil {
		t.Error("no file, and no error")
	}
	for _, text := range []string{"one\n", "two\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := mailstore.TokenFile(path).Token(t.Context(), ""); err != nil || got+"\n" != text {
			t.Errorf("%q, %v", got, err)
		}
	}
}

// A mailbox is opened with a token, and with a fresh one if the first was refused.
func TestOAuth(t *testing.T) {
	tokens, _ := tokenServer(t, 3600)
	var seen []string
	s := startScript(t, func(command string, n int) (string, bool) {
		ir, ok := strings.CutPrefix(command, "AUTHENTICATE XOAUTH2 ")
		if !ok {
			return "", false
		}
		raw, _ := base64.StdEncoding.DecodeString(ir)
		seen = append(seen, string(raw))
		if n == 1 {
			return "% NO AUTHENTICATE failed.\r\n", true
		}
		return "% OK [CAPABILITY IMAP4rev1] in\r\n", true
	})
	s.caps = "IMAP4rev1 AUTH=XOAUTH2 SASL-IR"
	session, err := s.store(func(o *mailstore.Options) {
		o.Access = mailstore.Access{Mode: mailstore.ModeOAuth, Token: credentials(tokens, "s3cret")}
	}).Open(t.Context(), row(t, "anna@example.org"), mailstore.Source)
	if err != nil {
		t.Fatal(err)
	}
	session.Close()
	for i, raw := range seen {
		if want := fmt.Sprintf("user=anna@example.org\x01auth=Bearer token%d\x01\x01", i+1); raw != want {
			t.Errorf("told %q, want %q", raw, want)
		}
	}
	if len(seen) != 2 {
		t.Errorf("tried %d times", len(seen))
	}
	_, err = s.store(func(o *mailstore.Options) {
		o.Access = mailstore.Access{Mode: mailstore.ModeOAuth, Token: credentials(tokens, "wr0ng")}
	}).Open(t.Context(), row(t, "anna@example.org"), mailstore.Source)
	if !errors.Is(err, mailstore.ErrAuth) || !mailstore.Platform(err) {
		t.Errorf("without a token: %v", err)
	}
}
