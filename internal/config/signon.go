package config

import (
	"net/url"
	"strings"

	"mailcutover/routing"
)

const peopleKey = "admin.sign_on.people"

// SignOn says who may sign in by something other than a token.
type SignOn struct {
	OIDC         OIDC     `config:"oidc" restart:"yes"`
	ClientCAFile string   `config:"client_ca_file" path:"yes" restart:"yes"` // of people's certificates for the API; empty: none is asked for
	People       []Person `config:"people"`
}

// OIDC is an OpenID Connect issuer.
type OIDC struct {
	Issuer       string       `config:"issuer"` // URL; empty: there is none
	ClientID     string       `config:"client_id"`
	ClientSecret Secret       `config:"client_secret"` // none: a public client
	RedirectURL  string       `config:"redirect_url"`  // https://HOST/signon/callback of the page; empty: the API takes its tokens, the page doesn't lead there
	Label        string       `config:"label"`         // of the button
	Claim        string       `config:"claim"`         // that names a person
	CAFile       string       `config:"ca_file" path:"yes"`
	SecondFactor SecondFactor `config:"second_factor"`
}

// SecondFactor says how the issuer tells of one, and which roles want it.
type SecondFactor struct {
	Claim  string   `config:"claim"` // amr or acr; empty: no role wants one
	Values []string `config:"values"`
	Roles  []Role   `config:"roles"`
}

// Person is somebody who may sign in.
type Person struct {
	Person       string             `config:"person"`       // as in the tokens: a person is known by one name
	Subjects     []string           `config:"subjects"`     // what the issuer says in the claim; but for sub, without the case of ASCII letters
	Certificates []string           `config:"certificates"` // subjects of certificates, or their e-mail addresses
	Roles        []Role             `config:"roles"`
	Agencies     []routing.AgencyID `config:"agencies"` // that it may act on; empty: all
}

// signOn checks who may sign in, and by what.
func (c *checker) signOn(cfg *Config) {
	s := &cfg.Admin.SignOn
	const key = "admin.sign_on"
	o := &s.OIDC
	if o.Issuer != "" {
		c.oidc(key+".oidc", o, cfg)
	} else {
		c.noOIDC(key+".oidc", o)
	}
	if s.ClientCAFile != "" {
		c.roots(key+".client_ca_file", s.ClientCAFile)
	}
	if s.ClientCAFile != "" && cfg.Admin.TLS.CertFile == "" {
		c.add(Problem{Key: key + ".client_ca_file", Value: show(s.ClientCAFile), Want: "admin.tls too", Hint: "without TLS there are no certificates"}, "admin.tls.cert_file")
	}
	c.people(peopleKey, s)
}

// noOIDC checks that nothing is said of an issuer that isn't there.
func (c *checker) noOIDC(key string, o *OIDC) {
	is, plain := *o, Default().Admin.SignOn.OIDC
	for _, one := range []struct{ key, is, plain string }{
		{"client_id", is.ClientID, ""}, {"client_secret", is.ClientSecret.Reveal(), ""}, {"redirect_url", is.RedirectURL, ""}, {"label", is.Label, plain.Label},
		{"claim", is.Claim, plain.Claim}, {"ca_file", is.CAFile, ""}, {"second_factor.claim", is.SecondFactor.Claim, ""},
	} {
		if one.is != one.plain {
			c.add(Problem{Key: key + "." + one.key, Want: "issuer too, or not this", Hint: "without an issuer nobody signs in by it"})
		}
	}
}

func (c *checker) oidc(key string, o *OIDC, cfg *Config) {
	if u, err := url.Parse(o.Issuer); err != nil || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.Scheme != "https" && !(u.Scheme == "http" && isLoopback(u.Hostname())) {
		c.add(Problem{Key: key + ".issuer", Value: show(o.Issuer), Want: "its URL with https, as its tokens have it"})
	}
	c.missing(key+".client_id", o.ClientID, "the id under which the issuer knows mailcutover")
	c.missing(key+".claim", o.Claim, "the claim that names a person: sub, email or preferred_username")
	if o.RedirectURL != "" {
		u, err := url.Parse(o.RedirectURL)
		if err != nil || u.Path != "/signon/callback" || u.RawQuery != "" || u.Scheme != "https" && !(u.Scheme == "http" && isLoopback(u.Hostname())) {
			c.add(Problem{Key: key + ".redirect_url", Value: show(o.RedirectURL), Want: "https://HOST/signon/callback, where HOST is the page's name for browsers"})
		}
		if cfg.Page.Address == "" {
			c.add(Problem{Key: key + ".redirect_url", Value: show(o.RedirectURL), Want: "page.address too", Hint: "without a page nobody comes back to it"}, "page.address")
		}
	}
	if o.CAFile != "" {
		c.roots(key+".ca_file", o.CAFile)
	}
	f := &o.SecondFactor
	if f.Claim != "" && (len(f.Values) == 0 || len(f.Roles) == 0) {
		c.add(Problem{Key: key + ".second_factor", Want: "claim, values and roles together", Hint: "such as {claim: amr, values: [mfa], roles: [approver]}"})
	}
	if f.Claim == "" && len(f.Roles) > 0 {
		c.add(Problem{Key: key + ".second_factor.claim", Want: "amr or acr", Hint: "without it the roles would never be there"})
	}
}

// people checks that each is one person, by whatever they sign in.
func (c *checker) people(key string, s *SignOn) {
	ids := make([]string, len(s.People))
	for i := range s.People {
		ids[i] = s.People[i].Person
	}
	taken := make(map[string]string) // what stands for a person, and for whom
	for i, p := range s.People {
		k := itemKey(key, ids, i)
		c.missing(k+".person", strings.TrimSpace(p.Person), "the name as it is to stand in the log, and as in the person's tokens")
		if len(p.Roles) == 0 {
			c.add(Problem{Key: k + ".roles", Want: "one or more of viewer, planner, operator, approver, releaser, admin"})
		}
		if len(p.Subjects)+len(p.Certificates) == 0 {
			c.add(Problem{Key: k + ".subjects", Want: "what the issuer says of the person, or certificates"})
		}
		c.alone(k+".subjects", p.Subjects, taken, p.Person)
		c.alone(k+".certificates", p.Certificates, taken, p.Person)
	}
}

// alone checks that names stand for one person; taken has those of all before.
func (c *checker) alone(key string, names []string, taken map[string]string, person string) {
	for j, name := range names {
		id := key[strings.LastIndexByte(key, '.'):] + strings.ToLower(name)
		other, ok := taken[id]
		switch {
		case strings.TrimSpace(name) == "":
			c.add(Problem{Key: index(key, j), Want: "something that stands for this person alone"})
		case ok:
			c.add(Problem{Key: index(key, j), Value: show(name), Want: "something that stands for this person alone", Hint: "it stands for " + other})
		}
		taken[id] = person
	}
}
