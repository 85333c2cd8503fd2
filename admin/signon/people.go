package signon

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"

	"mailcutover/admin"
	"mailcutover/routing"
)

// ErrNobody is about somebody whom the configuration doesn't name.
var ErrNobody = errors.New("nobody here is known by that")

// Person is somebody who may sign in.
type Person struct {
	Name         string   // as in the tokens and in all logs
	Subjects     []string // what the issuer says in the configured claim; compared without the case of ASCII letters, but for sub
	Certificates []string // of client certificates: an e-mail address among their alternative names, or the whole subject as RFC 2253 has it
	Roles        []admin.Role
	Agencies     []routing.AgencyID // that it may act on; none: all
}

func (p *Person) identity(by string) admin.Identity {
	return admin.Identity{Person: p.Name, By: by, Roles: slices.Clone(p.Roles), Agencies: p.Agencies}
}

// find returns the one person that fits; two that do are an error of the configuration.
func find(people []Person, fits func(p *Person) bool) (*Person, error) {
	var found *Person
	for i := range people {
		if !fits(&people[i]) {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("%w: it stands for %s and for %s", ErrNobody, found.Name, people[i].Name)
		}
		found = &people[i]
	}
	if found == nil || found.Name == "" {
		return nil, ErrNobody
	}
	return found, nil
}

// ByCertificate returns whose certificate this is. It must have been verified for client
// authentication (RFC 5280 section 4.2.1.12); this only looks at the name.
func ByCertificate(people []Person, cert *x509.Certificate) (admin.Identity, error) {
	p, err := find(people, func(p *Person) bool {
		return slices.ContainsFunc(p.Certificates, func(name string) bool {
			return name != "" && (name == cert.Subject.String() || slices.ContainsFunc(cert.EmailAddresses, func(a string) bool { return strings.EqualFold(a, name) }))
		})
	})
	if err != nil {
		return admin.Identity{}, fmt.Errorf("certificate of %q: %w", cert.Subject.String(), err)
	}
	return p.identity("certificate"), nil
}
