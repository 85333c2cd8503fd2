package signon_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oauth2-proxy/mockoidc"

	"mailcutover/admin"
	"mailcutover/admin/signon"
)

// world is an issuer, and our page's side of it.
type world struct {
	t      *testing.T
	op     *mockoidc.MockOIDC
	issuer *signon.Issuer
	page   *httptest.Server
	got    chan admin.Identity
}

var people = []signon.Person{
	{Name: "Anna Berg", Subjects: []string{"anna@example.org"}, Roles: []admin.Role{admin.RoleOperator, admin.RoleViewer}},
	{Name: "Ben Kurz", Subjects: []string{"Ben@Example.org"}, Roles: []admin.Role{admin.RoleApprover}},
	{Name: "Kim Kern", Subjects: []string{"kim@example.org"}, Roles: []admin.Role{admin.RoleApprover}}, // the first letter has a Unicode twin
	{Name: "Twin One", Subjects: []string{"twin@example.org"}}, {Name: "Twin Two", Subjects: []string{"twin@example.org"}},
}

func newWorld(t *testing.T, change func(o *signon.Options)) *world {
	t.Helper()
	op, err := mockoidc.Run()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = op.Shutdown() })
	w := &world{t: t, op: op, got: make(chan admin.Identity, 1)}
	w.page = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.issuer.ServeHTTP(rw, r, func(id admin.Identity, ends time.Time) {
			if !ends.After(time.Now()) {
				t.Errorf("the sign-on has ended at %s", ends)
			}
			w.got <- id
		})
	}))
	t.Cleanup(w.page.Close)
	o := signon.Options{
		Issuer: op.Issuer(), ClientID: op.Config().ClientID, ClientSecret: op.Config().ClientSecret, RedirectURL: w.page.URL + "/signon/callback",
		Label: "Test", Claim: "email", Client: http.DefaultClient, People: func() []signon.Person { return people },
	}
	if change != nil {
		change(&o)
	}
	w.issuer = signon.NewIssuer(o)
	return w
}

// signOn goes through the issuer's page as a browser does, and returns what our page says.
func (w *world) signOn(email string, verified bool) (*http.Response, *admin.Identity) {
	w.t.Helper()
	w.op.QueueUser(&mockoidc.MockUser{Subject: "sub-" + email, Email: email, EmailVerified: verified, PreferredUsername: email})
	jar, err := cookiejar.New(nil)
	if err != nil {
		w.t.Fatal(err)
	}
	res, err := (&http.Client{Jar: jar}).Get(w.page.URL + "/signon/begin")
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	select {
	case id := <-w.got:
		return res, &id
	default:
		return res, nil
	}
}

func TestSignOn(t *testing.T) {
	w := newWorld(t, nil)
	if _, id := w.signOn("anna@example.org", true); id == nil || id.Person != "Anna Berg" || !slices.Equal(id.Roles, people[0].Roles) {
		t.Errorf("signed on as %+v, want Anna Berg", id)
	}
	if _, id := w.signOn("BEN@example.ORG", true); id == nil || id.Person != "Ben Kurz" {
		t.Errorf("signed on as %+v, want Ben Kurz", id)
	}
	for email, verified := range map[string]bool{"\u212aim@example.org": true, "stranger@example.org": true, "anna@example.org": false, "twin@example.org": true, "": true} {
		res, id := w.signOn(email, verified)
		if id != nil || res.StatusCode != http.StatusForbidden {
			t.Errorf("%q signed on as %+v with %s, want 403", email, id, res.Status)
		}
	}
}

// What comes back must be the answer to what this browser has asked, once.
func TestCallbackOfAnother(t *testing.T) {
	w := newWorld(t, nil)
	direct := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	for _, query := range []string{"", "?state=x&code=y", "?error=access_denied&state=x"} {
		res, err := direct.Get(w.page.URL + "/signon/callback" + query)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusForbidden {
			t.Errorf("callback %q is answered %s, want 403", query, res.Status)
		}
	}
	// The attacker's own answer in the victim's browser: the state is right, the cookie is not there.
	w.op.QueueUser(&mockoidc.MockUser{Subject: "a", Email: "anna@example.org", EmailVerified: true})
	res, err := direct.Get(w.page.URL + "/signon/begin")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	to := res.Header.Get("Location")
	cookies := res.Cookies()
	if res, err = direct.Get(to); err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	back := res.Header.Get("Location")
	if !strings.Contains(back, "code=") {
		t.Fatalf("the issuer answered %s, to %q", res.Status, back)
	}
	if res, err = direct.Get(back); err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusForbidden {
		t.Errorf("an answer without the cookie is answered %s, want 403", res.Status)
	}
	use := func() int {
		req, err := http.NewRequest(http.MethodGet, back, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range cookies {
			req.AddCookie(c)
		}
		res, err := direct.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return res.StatusCode
	}
	if code := use(); code != http.StatusOK {
		t.Errorf("the answer with its cookie is answered %d, want 200", code)
	}
	if code := use(); code != http.StatusForbidden {
		t.Errorf("the answer a second time is answered %d, want 403", code)
	}
}

func (w *world) token(email string, change func(c *mockoidc.Session)) string {
	w.t.Helper()
	s, err := w.op.SessionStore.NewSession("openid email profile", "n", &mockoidc.MockUser{Subject: "s", Email: email, EmailVerified: true, PreferredUsername: "anna@example.org"}, "", "")
	if err != nil {
		w.t.Fatal(err)
	}
	if change != nil {
		change(s)
	}
	token, err := s.IDToken(w.op.Config(), w.op.Keypair, time.Now())
	if err != nil {
		w.t.Fatal(err)
	}
	return token
}

func TestBearer(t *testing.T) {
	w := newWorld(t, nil)
	id, err := w.issuer.Bearer(t.Context(), w.token("anna@example.org", nil))
	if err != nil || id.Person != "Anna Berg" {
		t.Errorf("bearer is %+v, error %v", id, err)
	}
	token := w.token("anna@example.org", nil)
	other := newWorld(t, nil)
	for name, token := range map[string]string{
		"another issuer": other.token("anna@example.org", nil), "nobody": w.token("stranger@example.org", nil), "ours": "a-token-of-ours", "nothing": "",
		"changed": token[:len(token)-8] + "AAAAAAAA", "no signature": token[:strings.LastIndexByte(token, '.')+1], "huge": strings.Repeat("a", 20_000) + ".b.c",
	} {
		if id, err := w.issuer.Bearer(t.Context(), token); err == nil {
			t.Errorf("%s: bearer is %+v, want an error", name, id)
		}
	}
	w.op.AccessTTL = -time.Minute
	if _, err := w.issuer.Bearer(t.Context(), w.token("anna@example.org", nil)); err == nil {
		t.Error("a token that has expired is taken")
	}
}

func TestOtherAudience(t *testing.T) {
	w := newWorld(t, func(o *signon.Options) { o.ClientID = "another-client" })
	if id, err := w.issuer.Bearer(t.Context(), w.token("anna@example.org", nil)); err == nil {
		t.Errorf("a token for another client signs on %+v", id)
	}
}

// Roles that want a second factor aren't there without the issuer's word for one.
func TestSecondFactor(t *testing.T) {
	w := newWorld(t, func(o *signon.Options) {
		o.SecondFactor = signon.SecondFactor{Claim: "preferred_username", Values: []string{"mfa", "anna@example.org"}, Roles: []admin.Role{admin.RoleApprover}}
	})
	id, err := w.issuer.Bearer(t.Context(), w.token("ben@example.org", nil))
	if err != nil || !slices.Contains(id.Roles, admin.RoleApprover) {
		t.Errorf("with the claim: %+v, error %v", id, err)
	}
	w = newWorld(t, func(o *signon.Options) {
		o.SecondFactor = signon.SecondFactor{Claim: "amr", Values: []string{"mfa"}, Roles: []admin.Role{admin.RoleApprover}}
	})
	id, err = w.issuer.Bearer(t.Context(), w.token("ben@example.org", nil))
	if err != nil || slices.Contains(id.Roles, admin.RoleApprover) || len(id.Roles) == 0 || !strings.Contains(id.By, "without a second factor") {
		t.Errorf("without the claim: %+v, error %v", id, err)
	}
}

func TestIssuerIsAway(t *testing.T) {
	w := newWorld(t, func(o *signon.Options) { o.Issuer = "http://127.0.0.1:1/nobody" })
	if _, err := w.issuer.Bearer(context.Background(), "a.b.c"); !errors.Is(err, signon.ErrIssuer) {
		t.Errorf("error is %v, want ErrIssuer", err)
	}
	if again, ok := w.issuer.Again(admin.Identity{Person: "Ben Kurz", By: "sign-on", Subject: "ben@example.org"}); !ok || again.Person != "Ben Kurz" || again.Subject != "ben@example.org" {
		t.Errorf("who has signed on is %+v, %v", again, ok) // without the issuer's help
	}
	if again, ok := w.issuer.Again(admin.Identity{Person: "Ben Kurz", By: "sign-on", Subject: "taken-away@example.org"}); ok {
		t.Errorf("who has signed on by what was taken out of the configuration is %+v", again)
	}
	if again, ok := w.issuer.Again(admin.Identity{Person: "Nobody", By: "sign-on"}); ok {
		t.Errorf("nobody is %+v", again)
	}
	res, id := w.signOn("anna@example.org", true)
	if id != nil || res.StatusCode != http.StatusBadGateway {
		t.Errorf("signed on as %+v with %s, want 502", id, res.Status)
	}
}

func TestByCertificate(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Anna", Organization: []string{"Example"}}, EmailAddresses: []string{"anna@example.org"}, NotAfter: time.Now().Add(time.Hour), URIs: []*url.URL{}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"ANNA@example.org", "CN=Anna,O=Example"} {
		id, err := signon.ByCertificate([]signon.Person{{Name: "Anna Berg", Certificates: []string{name}}, {Name: "Other", Certificates: []string{""}}}, cert)
		if err != nil || id.Person != "Anna Berg" {
			t.Errorf("%s: %+v, error %v", name, id, err)
		}
	}
	for _, name := range []string{"", "Anna", "CN=Anna", "cn=anna,o=example"} {
		if id, err := signon.ByCertificate([]signon.Person{{Name: "Anna Berg", Certificates: []string{name}}}, cert); err == nil {
			t.Errorf("%q stands for %+v, want nobody", name, id)
		}
	}
}
