package signon

import (
	"crypto/rand"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"mailcutover/admin"
)

const (
	flowLife    = 10 * time.Minute // from our page to the issuer's and back
	maxFlows    = 1000
	flowCookie  = "mailcutover-signon"
	sessionLife = 12 * time.Hour
)

// attempt is somebody who was sent to the issuer's page.
type attempt struct {
	nonce    string
	verifier string // PKCE, RFC 7636
	began    time.Time
}

// pending are those who were sent, by the state that comes back with them.
type pending struct {
	mu  sync.Mutex
	all map[string]attempt
}

// begin returns the state of a new attempt; false if there are too many.
func (p *pending) begin(a attempt) (string, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for s, o := range p.all {
		if time.Since(o.began) > flowLife {
			delete(p.all, s)
		}
	}
	if len(p.all) >= maxFlows {
		return "", false
	}
	state := rand.Text()
	p.all[state] = a
	return state, true
}

// end takes an attempt: each state is good for once.
func (p *pending) end(state string) (attempt, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	a, ok := p.all[state]
	delete(p.all, state)
	return a, ok && time.Since(a.began) <= flowLife
}

var errFlow = errors.New("this answer belongs to no sign-in of this browser; begin again")

// ServeHTTP implements page.SignOn: /signon/begin sends the browser to the issuer, and
// /signon/callback takes it back (OpenID Connect Core 1.0 section 3.1).
func (i *Issuer) ServeHTTP(w http.ResponseWriter, r *http.Request, done func(id admin.Identity, ends time.Time)) {
	switch r.URL.Path {
	case "/signon/begin":
		i.begin(w, r)
	case "/signon/callback":
		id, ends, err := i.callback(w, r)
		if err != nil {
			code := http.StatusForbidden
			if errors.Is(err, ErrIssuer) {
				code = http.StatusBadGateway
			}
			http.Error(w, "not signed in: "+err.Error(), code)
			return
		}
		done(id, ends)
	default:
		http.NotFound(w, r)
	}
}

func (i *Issuer) begin(w http.ResponseWriter, r *http.Request) {
	p, err := i.discover()
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	a := attempt{nonce: rand.Text(), verifier: oauth2.GenerateVerifier(), began: time.Now()}
	state, ok := i.pending.begin(a)
	if !ok {
		http.Error(w, "too many are signing in at the moment", http.StatusServiceUnavailable)
		return
	}
	// Lax, since the browser comes back from another site. It ties the answer to this browser.
	http.SetCookie(w, &http.Cookie{Name: flowCookie, Value: state, Path: "/signon/", MaxAge: int(flowLife.Seconds()), HttpOnly: true, Secure: strings.HasPrefix(i.RedirectURL, "https:"), SameSite: http.SameSiteLaxMode})
	c := i.client(p)
	http.Redirect(w, r, c.AuthCodeURL(state, oidc.Nonce(a.nonce), oauth2.S256ChallengeOption(a.verifier)), http.StatusSeeOther)
}

func (i *Issuer) callback(w http.ResponseWriter, r *http.Request) (admin.Identity, time.Time, error) {
	q := r.URL.Query()
	cookie, err := r.Cookie(flowCookie)
	if err != nil || cookie.Value == "" || cookie.Value != q.Get("state") {
		return admin.Identity{}, time.Time{}, errFlow
	}
	http.SetCookie(w, &http.Cookie{Name: flowCookie, Path: "/signon/", MaxAge: -1})
	a, ok := i.pending.end(cookie.Value)
	if !ok {
		return admin.Identity{}, time.Time{}, errFlow
	}
	if e := q.Get("error"); e != "" {
		return admin.Identity{}, time.Time{}, errors.New("the issuer says: " + url.QueryEscape(e))
	}
	p, err := i.discover()
	if err != nil {
		return admin.Identity{}, time.Time{}, err
	}
	c := i.client(p)
	token, err := c.Exchange(oidc.ClientContext(r.Context(), i.Client), q.Get("code"), oauth2.VerifierOption(a.verifier))
	if err != nil {
		return admin.Identity{}, time.Time{}, errors.Join(ErrIssuer, err)
	}
	raw, _ := token.Extra("id_token").(string)
	id, err := i.verify(r.Context(), raw)
	if err != nil {
		return admin.Identity{}, time.Time{}, err
	}
	if id.Nonce != a.nonce {
		return admin.Identity{}, time.Time{}, errFlow
	}
	who, err := i.person(id)
	return who, time.Now().Add(sessionLife), err
}
