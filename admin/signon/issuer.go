package signon

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"mailcutover/admin"
)

const (
	callTimeout  = 10 * time.Second // for each call of the issuer
	askAgain     = 5 * time.Second  // before an issuer that couldn't be reached is asked anew
	maxTokenText = 16 << 10
)

// ErrIssuer is about an issuer that can't be reached or says nonsense.
var ErrIssuer = errors.New("issuer can't be used")

// Options say who the issuer is, and what is wanted of it.
type Options struct {
	Issuer       string // its URL, as its tokens have it
	ClientID     string
	ClientSecret string // empty: we are a public client
	RedirectURL  string // of the page: https://HOST/signon/callback
	Label        string // what the button says
	Claim        string // that names a person: email, preferred_username, sub
	SecondFactor SecondFactor
	Client       *http.Client // for calls of the issuer
	People       func() []Person
}

// SecondFactor says how an issuer tells of one, and which roles want it.
type SecondFactor struct {
	Claim  string   // amr or acr; empty: no role wants one
	Values []string // of which the claim must have one
	Roles  []admin.Role
}

// Issuer makes sure of people by an issuer's word. Use [NewIssuer].
type Issuer struct {
	Options
	pending pending

	mu       sync.Mutex
	provider *oidc.Provider
	failed   error
	asked    time.Time
}

// NewIssuer returns one that has asked nothing yet: the issuer may come up after this node.
func NewIssuer(o Options) *Issuer {
	c := *o.Client
	c.Timeout = callTimeout
	o.Client = &c
	return &Issuer{Options: o, pending: pending{all: make(map[string]attempt)}}
}

// Name implements page.SignOn.
func (i *Issuer) Name() string { return i.Label }

// discover returns what the issuer says of itself (OpenID Connect Discovery 1.0).
func (i *Issuer) discover() (*oidc.Provider, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.provider != nil {
		return i.provider, nil
	}
	if i.failed != nil && time.Since(i.asked) < askAgain {
		return nil, i.failed
	}
	// Not the request's context: the provider keeps it for later calls.
	p, err := oidc.NewProvider(oidc.ClientContext(context.Background(), i.Client), i.Issuer)
	i.asked = time.Now()
	if err != nil {
		i.failed = fmt.Errorf("%w: %s: %w", ErrIssuer, i.Issuer, err)
		return nil, i.failed
	}
	i.provider, i.failed = p, nil
	return p, nil
}

// Bearer returns who has a token of the issuer: three parts (RFC 7519), while ours have one.
func (i *Issuer) Bearer(ctx context.Context, token string) (admin.Identity, error) {
	if strings.Count(token, ".") != 2 || len(token) > maxTokenText {
		return admin.Identity{}, ErrNobody
	}
	id, err := i.verify(ctx, token)
	if err != nil {
		return admin.Identity{}, err
	}
	return i.person(id)
}

func (i *Issuer) verify(ctx context.Context, token string) (*oidc.IDToken, error) {
	p, err := i.discover()
	if err != nil {
		return nil, err
	}
	id, err := p.Verifier(&oidc.Config{ClientID: i.ClientID}).Verify(oidc.ClientContext(ctx, i.Client), token)
	if err != nil {
		return nil, fmt.Errorf("token of %s: %w", i.Issuer, err)
	}
	return id, nil
}

// person returns whom a verified token is about.
func (i *Issuer) person(id *oidc.IDToken) (admin.Identity, error) {
	var claims map[string]any
	if err := id.Claims(&claims); err != nil {
		return admin.Identity{}, fmt.Errorf("token of %s: %w", i.Issuer, err)
	}
	name, _ := claims[i.Claim].(string)
	if name == "" {
		return admin.Identity{}, fmt.Errorf("token of %s: it has no claim %q: %w", i.Issuer, i.Claim, ErrNobody)
	}
	// Not said is not verified: there are issuers where everybody may set an address.
	if verified, _ := claims["email_verified"].(bool); i.Claim == "email" && !verified {
		return admin.Identity{}, fmt.Errorf("token of %s: the address isn't verified: %w", i.Issuer, ErrNobody)
	}
	p, err := find(i.People(), func(p *Person) bool { return i.knows(p, name) })
	if err != nil {
		return admin.Identity{}, fmt.Errorf("%s %q of %s: %w", i.Claim, name, i.Issuer, err)
	}
	return i.granted(p, name, i.SecondFactor.Claim == "" || i.SecondFactor.in(claims[i.SecondFactor.Claim])), nil
}

// knows reports whether the issuer's word is for a person, as it is configured. A sub is compared as
// it is (OpenID Connect Core 1.0 section 2: case sensitive); other claims without the case of
// ASCII's letters alone: Unicode folds a Kelvin sign to a k, and whoever may choose his name at
// the issuer would be somebody else here.
func (i *Issuer) knows(p *Person, said string) bool {
	return slices.ContainsFunc(p.Subjects, func(s string) bool {
		return s != "" && (s == said || i.Claim != "sub" && lower(s) == lower(said))
	})
}

// lower returns s with the capital letters of ASCII made small.
func lower(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			r += 'a' - 'A'
		}
		return r
	}, s)
}

// What an identity is made sure of by.
const (
	bySignOn = "sign-on"
	byOne    = "sign-on without a second factor"
)

// granted returns a person with the roles that the configuration gives; said is the issuer's word,
// and factor says that there was a second factor, or that none is wanted.
func (i *Issuer) granted(p *Person, said string, factor bool) admin.Identity {
	if factor {
		who := p.identity(bySignOn)
		who.Subject = said
		return who
	}
	who := p.identity(byOne)
	who.Subject = said
	who.Roles = slices.DeleteFunc(who.Roles, func(r admin.Role) bool { return slices.Contains(i.SecondFactor.Roles, r) })
	if len(who.Roles) == 0 { // none at all would be everything, in a lab
		who.Roles = []admin.Role{admin.RoleViewer}
	}
	return who
}

// Again implements page.SignOn: it returns who was signed on, with the rights that the
// configuration in force gives; false if it no longer names the person by what the issuer said.
func (i *Issuer) Again(id admin.Identity) (admin.Identity, bool) {
	p, err := find(i.People(), func(p *Person) bool { return p.Name == id.Person && i.knows(p, id.Subject) })
	if err != nil {
		return admin.Identity{}, false
	}
	return i.granted(p, id.Subject, id.By == bySignOn), true
}

// in reports whether a claim tells of a second factor: a word, or a list of them.
func (f *SecondFactor) in(claim any) bool {
	switch c := claim.(type) {
	case string:
		return slices.Contains(f.Values, c)
	case []any:
		return slices.ContainsFunc(c, func(one any) bool { s, ok := one.(string); return ok && slices.Contains(f.Values, s) })
	}
	return false
}

// client returns what is said to the issuer on our part.
func (i *Issuer) client(p *oidc.Provider) oauth2.Config {
	return oauth2.Config{
		ClientID: i.ClientID, ClientSecret: i.ClientSecret, Endpoint: p.Endpoint(), RedirectURL: i.RedirectURL,
		Scopes: []string{oidc.ScopeOpenID, "profile", "email"},
	}
}
