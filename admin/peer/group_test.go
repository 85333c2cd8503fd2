package peer_test

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"mailcutover/admin/peer"
	"mailcutover/internal/platformtest"
)

const secret = "correct horse battery staple"

var anna = peer.Behalf{Node: "mx1", Request: "r1", Person: "Anna Berg", Token: "anna-laptop", Roles: []string{"operator"}, Agencies: []string{"tax"}}

// member is a node that answers for whom it was called.
func member(t *testing.T, secret string) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, ok := peer.Open(r, secret)
		if !ok {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		body, _ := io.ReadAll(r.Body)
		_ = json.NewEncoder(w).Encode(map[string]any{"behalf": b, "path": r.URL.String(), "body": string(body)})
	}))
	t.Cleanup(s.Close)
	return s
}

func address(s *httptest.Server) string { return s.Listener.Addr().String() }

func group(t *testing.T, set peer.Settings, timeout time.Duration) *peer.Group {
	t.Helper()
	g := peer.New(peer.Options{Settings: func() peer.Settings { return set }, Timeout: timeout})
	t.Cleanup(g.Close)
	return g
}

func TestCallSaysOnWhoseBehalf(t *testing.T) {
	one, two := member(t, secret), member(t, secret)
	g := group(t, peer.Settings{Secret: secret}, time.Minute)
	answers := g.Call(t.Context(), []peer.Member{{"mx3", address(two)}, {"mx2", address(one)}}, anna,
		peer.Call{Method: http.MethodPost, Path: "/v1/x y", Query: url.Values{"agency": {"tax"}}, Body: map[string]string{"reason": "why"}})
	if len(answers) != 2 || answers[0].Node != "mx2" || answers[1].Node != "mx3" {
		t.Fatalf("answers are %+v, want those of mx2 and mx3 in this order", answers)
	}
	for _, a := range answers {
		var got struct {
			Behalf peer.Behalf
			Path   string
			Body   string
		}
		if err := json.Unmarshal(a.Body, &got); a.Err != nil || a.Status != http.StatusOK || err != nil {
			t.Fatalf("node %s: status %d, %v, %v", a.Node, a.Status, a.Err, err)
		}
		if !reflect.DeepEqual(got.Behalf, anna) || got.Path != "/v1/x%20y?agency=tax" || got.Body != `{"reason":"why"}` {
			t.Errorf("node %s was told %+v", a.Node, got)
		}
	}
}

// Each node that doesn't answer is there with its reason, and keeps the others from nothing.
func TestWhoDidNotAnswer(t *testing.T) {
	t.Parallel() // waits for its timeout
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	good, strange := member(t, secret), member(t, "another secret")
	g := group(t, peer.Settings{Secret: secret}, 3*time.Second)
	began := time.Now()
	answers := g.Call(t.Context(), []peer.Member{
		{"a-silent", silent.Addr().String()}, {"b-gone", gone.Addr().String()}, {"c-no-address", ""},
		{"d-far", "192.0.2.1:8025"}, {"e-good", address(good)}, {"f-strange", address(strange)}, {"g-bad", "no port"},
	}, anna, peer.Call{Method: http.MethodGet, Path: "/v1/sessions"})
	if took := time.Since(began); took > time.Minute {
		t.Errorf("took %s with a timeout of 3 s", took)
	}
	for i, want := range []string{"no answer within 3s", "refused", "doesn't have its address", "admin.tls", "", "", "missing port"} {
		a := answers[i]
		if (a.Err == nil) != (want == "") || a.Err != nil && !strings.Contains(a.Err.Error(), want) {
			t.Errorf("node %s: %v, want %q", a.Node, a.Err, want)
		}
	}
	if answers[4].Status != http.StatusOK || answers[5].Status != http.StatusUnauthorized {
		t.Errorf("the good node answered %d, the one with another secret %d; want 200 and 401", answers[4].Status, answers[5].Status)
	}
}

func TestNoSecretCallsNobody(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a node was called") }))
	defer s.Close()
	a := group(t, peer.Settings{}, 0).Call(t.Context(), []peer.Member{{"mx2", address(s)}}, anna, peer.Call{Method: http.MethodGet, Path: "/"})
	if a[0].Err != peer.ErrNoSecret {
		t.Errorf("error is %v, want ErrNoSecret", a[0].Err)
	}
}

// Beyond loopback a certificate has to be right. 0.0.0.0 leads to this host, and is not
// loopback by its number.
func TestCertificateIsChecked(t *testing.T) {
	ca, err := platformtest.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	serve := func(name string) string {
		config, err := ca.ServerConfig(name)
		if err != nil {
			t.Fatal(err)
		}
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if _, ok := peer.Open(r, secret); !ok {
				w.WriteHeader(http.StatusUnauthorized)
			}
		}))
		s.TLS = config
		s.Config.ErrorLog = log.New(io.Discard, "", 0)
		s.StartTLS()
		t.Cleanup(s.Close)
		_, port, err := net.SplitHostPort(address(s))
		if err != nil {
			t.Fatal(err)
		}
		return port
	}
	right, other := serve("0.0.0.0"), serve("mx2.example.org")
	for _, c := range []struct {
		name, address string
		roots         *x509.CertPool
		want          string // in the error; empty: it works
	}{
		{"right", "0.0.0.0:" + right, ca.Pool(), ""},
		{"unknown CA", "0.0.0.0:" + right, nil, "unknown authority"},
		{"another name", "0.0.0.0:" + other, ca.Pool(), "0.0.0.0"},
		{"loopback", "127.0.0.1:" + other, nil, ""},
		{"loopback in IPv6", "[::ffff:127.0.0.1]:" + other, nil, ""},
	} {
		a := group(t, peer.Settings{Secret: secret, TLS: true, Roots: c.roots}, time.Minute).
			Call(t.Context(), []peer.Member{{"mx2", c.address}}, anna, peer.Call{Method: http.MethodGet, Path: "/"})[0]
		switch {
		case c.want == "" && (a.Err != nil || a.Status != http.StatusOK):
			t.Errorf("%s: status %d, %v; want 200", c.name, a.Status, a.Err)
		case c.want != "" && (a.Err == nil || !strings.Contains(a.Err.Error(), c.want)):
			t.Errorf("%s: status %d, %v; want an error with %q", c.name, a.Status, a.Err, c.want)
		}
	}
}

func TestOpen(t *testing.T) {
	request := func(authorization, behalf string) *http.Request {
		r := httptest.NewRequestWithContext(context.Background(), http.MethodGet, "/", nil)
		r.Header.Set("Authorization", authorization)
		r.Header.Set("Mailcutover-On-Behalf", behalf)
		return r
	}
	const good = "eyJub2RlIjoibXgxIiwicGVyc29uIjoiQW5uYSJ9" // {"node":"mx1","person":"Anna"}
	for _, c := range []struct {
		name, authorization, behalf, secret string
		ok                                  bool
	}{
		{"right", "Mailcutover-Peer " + secret, good, secret, true},
		{"upper case", "MAILCUTOVER-PEER " + secret, good, secret, true},
		{"wrong secret", "Mailcutover-Peer x", good, secret, false},
		{"no secret here", "Mailcutover-Peer ", good, "", false},
		{"no secret there", "Mailcutover-Peer", good, secret, false},
		{"a token", "Bearer " + secret, good, secret, false},
		{"nobody", "Mailcutover-Peer " + secret, "eyJub2RlIjoibXgxIn0=", secret, false},
		{"no base64", "Mailcutover-Peer " + secret, "{}", secret, false},
		{"no JSON", "Mailcutover-Peer " + secret, "e30", secret, false},
		{"empty", "Mailcutover-Peer " + secret, "", secret, false},
		{"too long", "Mailcutover-Peer " + secret, strings.Repeat("A", 9<<10), secret, false},
	} {
		b, ok := peer.Open(request(c.authorization, c.behalf), c.secret)
		if ok != c.ok || ok && (b.Person != "Anna" || b.Node != "mx1") {
			t.Errorf("%s: %+v, %t; want %t", c.name, b, ok, c.ok)
		}
	}
	if r := request("Bearer x", ""); peer.Claims(r) {
		t.Error("a token is taken for a node's call")
	}
}
