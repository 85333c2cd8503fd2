package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"mailcutover/notice"
)

func event() *notice.Event {
	e := notice.NewTest("lab", "mx1.example.org", "1", "Anna", "is it there?\r\nX-Evil: 1", time.Unix(1_700_000_000, 0))
	return &e
}

// verified checks a call as Standard Webhooks 1.0.0 tells receivers to, independently of sign.
func verified(secret []byte, h http.Header, body []byte) bool {
	mac := hmac.New(sha256.New, secret)
	fmt.Fprintf(mac, "%s.%s.%s", h.Get("Webhook-Id"), h.Get("Webhook-Timestamp"), body)
	for one := range strings.FieldsSeq(h.Get("Webhook-Signature")) {
		version, coded, _ := strings.Cut(one, ",")
		got, err := base64.StdEncoding.DecodeString(coded)
		if version == "v1" && err == nil && hmac.Equal(got, mac.Sum(nil)) {
			return true
		}
	}
	return false
}

func TestSignedOverTLS(t *testing.T) {
	old, fresh := []byte("an old secret of enough bytes"), []byte("a newer secret of enough bytes")
	calls := 0
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls++
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		if !verified(old, r.Header, body) || !verified(fresh, r.Header, body) {
			t.Errorf("signature %q fits not both secrets", r.Header.Get("webhook-signature"))
		}
		if verified([]byte("somebody else's secret, long"), r.Header, body) || verified(old, r.Header, append(body, ' ')) {
			t.Error("the signature fits what it shouldn't")
		}
		if got := r.Header.Get("webhook-timestamp"); got != "1700000001" {
			t.Errorf("timestamp %q", got)
		}
		var e notice.Event
		if err := json.Unmarshal(body, &e); err != nil || e.ID != r.Header.Get("webhook-id") || e.Type != notice.Test || e.SpecVersion != "1.0" {
			t.Errorf("event %+v, error %v", e, err)
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	defer server.Close()
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	o := Options{URL: server.URL + "/hook", Secrets: [][]byte{fresh, old}, Roots: roots, Timeout: time.Minute, AllowLoopback: true,
		Now: func() time.Time { return time.Unix(1_700_000_001, 0) }}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Send(t.Context(), event()); err != nil || calls != 1 {
		t.Fatalf("%d calls, error %v", calls, err)
	}

	// Another certificate authority, or the address of this host not allowed: nothing is sent.
	o.Roots = x509.NewCertPool()
	stranger, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := stranger.Send(t.Context(), event()); err == nil {
		t.Error("a certificate of nobody was believed")
	}
	o.AllowLoopback = false
	if _, err := New(o); !errors.Is(err, ErrForbidden) {
		t.Errorf("error %v", err)
	}
	if calls != 1 {
		t.Errorf("%d calls", calls)
	}
}

func TestAnswers(t *testing.T) {
	var elsewhere atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	defer other.Close()
	for _, test := range []struct {
		name     string
		code     int
		ok       bool
		rejected bool
	}{
		{"taken", 200, true, false}, {"accepted", 202, true, false}, {"redirect", 307, false, false}, {"moved", 301, false, false},
		{"bad", 400, false, true}, {"too large", 413, false, true}, {"unprocessable", 422, false, true},
		{"no right", 401, false, false}, {"nothing there", 404, false, false}, {"gone", 410, false, false}, {"too many", 429, false, false}, {"down", 503, false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Location", other.URL)
				w.WriteHeader(test.code)
				_, _ = io.WriteString(w, "SECRET ANSWER")
			}))
			defer server.Close()
			s, err := New(Options{URL: server.URL, Secrets: [][]byte{make([]byte, 32)}, Timeout: time.Minute, AllowLoopback: true, AllowPlaintext: true})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			err = s.Send(t.Context(), event())
			if (err == nil) != test.ok || errors.Is(err, notice.ErrRejected) != test.rejected {
				t.Errorf("error %v", err)
			}
			if err != nil && (strings.Contains(err.Error(), "SECRET") || strings.Contains(err.Error(), server.URL)) {
				t.Errorf("the error tells what only the receiver should: %v", err)
			}
		})
	}
	if elsewhere.Load() != 0 {
		t.Error("a redirect was followed")
	}
}

func TestURLs(t *testing.T) {
	for text, ok := range map[string]bool{
		"https://hooks.example.org/x?y=1": true, "https://192.0.2.7/": true, "https://[2001:db8::1]:8443/": true,
		"http://hooks.example.org/": false, "https://localhost/": false, "https://127.0.0.1/": false, "https://[::1]/": false, "https://[::ffff:127.0.0.1]/": false,
		"https://169.254.169.254/": false, "https://[fe80::1]/": false, "https://0.0.0.0/": false, "ftp://hooks.example.org/": false, "https://": false,
		"https://user:pass@hooks.example.org/": false, "hooks.example.org": false, "https:hooks": false, "https://hooks.example.org/#x": false,
	} {
		if err := CheckURL(text, false, false); (err == nil) != ok {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// A name that leads to this host is refused where it is dialled.
func TestNameOfThisHost(t *testing.T) {
	s, err := New(Options{URL: "http://ip6-loopback.invalid/", Secrets: [][]byte{make([]byte, 32)}, Timeout: time.Minute, AllowPlaintext: true})
	if err != nil {
		t.Fatal(err)
	}
	s.o.URL = "http://localhost:1/" // past the first look, as a name that changed would be
	if err := s.Send(t.Context(), event()); !errors.Is(err, ErrForbidden) {
		t.Errorf("error %v", err)
	}
}

func TestSecrets(t *testing.T) {
	coded := "whsec_" + base64.StdEncoding.EncodeToString([]byte(strings.Repeat("k", 24)))
	for text, ok := range map[string]bool{coded: true, strings.Repeat("x", 24): true, "short": false, "whsec_!": false, "whsec_a2s=": false, "": false} {
		secret, err := ParseSecret(text)
		if (err == nil) != ok || ok && len(secret) != 24 {
			t.Errorf("%q: %d bytes, %v", text, len(secret), err)
		}
		if err != nil && text != "" && strings.Contains(err.Error(), text) {
			t.Errorf("the error shows the secret: %v", err)
		}
	}
}
