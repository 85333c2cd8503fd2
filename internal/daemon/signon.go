package daemon

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"

	"mailcutover/admin"
	"mailcutover/admin/signon"
	"mailcutover/internal/config"
)

// people returns who may sign in by something other than a token, as the configuration in force
// has it.
func (d *Daemon) people() []signon.Person {
	var all []signon.Person
	for _, p := range d.config.Load().Admin.SignOn.People {
		one := signon.Person{Name: p.Person, Subjects: p.Subjects, Certificates: p.Certificates, Agencies: p.Agencies}
		for _, r := range p.Roles {
			one.Roles = append(one.Roles, admin.Role(r))
		}
		all = append(all, one)
	}
	return all
}

// openIssuer makes the issuer known to the API, if there is one. It isn't asked yet: it may come
// up after this node.
func (d *Daemon) openIssuer(cfg *config.Config, o *admin.Options) error {
	set := &cfg.Admin.SignOn.OIDC
	if set.Issuer == "" {
		return nil
	}
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true}
	if set.CAFile != "" {
		roots, err := certificates(set.CAFile)
		if err != nil {
			return fmt.Errorf("admin.sign_on.oidc.ca_file: %w", err)
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	}
	factor := signon.SecondFactor{Claim: set.SecondFactor.Claim, Values: set.SecondFactor.Values}
	for _, r := range set.SecondFactor.Roles {
		factor.Roles = append(factor.Roles, admin.Role(r))
	}
	d.issuer = signon.NewIssuer(signon.Options{
		Issuer: set.Issuer, ClientID: set.ClientID, ClientSecret: set.ClientSecret.Reveal(), RedirectURL: set.RedirectURL, Label: set.Label,
		Claim: set.Claim, SecondFactor: factor, Client: &http.Client{Transport: transport}, People: d.people,
	})
	o.Bearer = d.issuer.Bearer
	return nil
}

// clientCertificates makes the API ask for people's certificates, if it is to; returns what they
// are checked against, nil: none are asked for.
func (d *Daemon) clientCertificates(cfg *config.Config, o *admin.Options) (*x509.CertPool, error) {
	file := cfg.Admin.SignOn.ClientCAFile
	if file == "" {
		return nil, nil
	}
	roots, err := certificates(file)
	if err != nil {
		return nil, fmt.Errorf("admin.sign_on.client_ca_file: %w", err)
	}
	o.Certificate = func(cert *x509.Certificate) (admin.Identity, error) { return signon.ByCertificate(d.people(), cert) }
	return roots, nil
}
