package config

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"slices"
	"time"

	"mailcutover/identity/directory"
	"mailcutover/identity/ldapdir"
	"mailcutover/identity/list"
	"mailcutover/identity/model"
	"mailcutover/routing"
)

// Identity is where it is read whose mailbox is whose. Without directories no agency is cut
// over, except in a lab.
type Identity struct {
	Key         Secret         `config:"key"` // of the rows of lists; the same on all nodes
	Directories []Directory    `config:"directories"`
	Agencies    []AgencyRule   `config:"agencies"`
	Places      []MailboxPlace `config:"places"`
	Coexistence []Coexistence  `config:"coexistence"`
	Homes       []FixedHome    `config:"homes"`

	CheckAge   time.Duration `config:"check_age"`   // how old a reading may be for lists and cutovers
	CheckEvery time.Duration `config:"check_every"` // between two readings
	ListRows   int           `config:"list_rows"`

	Additions Additions `config:"additions"`
	Unknown   Unknown   `config:"unknown"`
}

// Configured reports whether there is a directory.
func (i *Identity) Configured() bool { return len(i.Directories) > 0 }

// DirectoryRole says whose directory it is.
type DirectoryRole string

const (
	DirectorySource DirectoryRole = "source" // its word counts
	DirectoryTarget DirectoryRole = "target" // is compared as well
)

func (DirectoryRole) words() []string { return []string{"source", "target"} }

// Preset names a map of attributes.
type Preset string

func (Preset) words() []string { return []string{"ad", "ucs", "openldap"} }

// Directory is an LDAP directory.
type Directory struct {
	Name    string        `config:"name"`
	Role    DirectoryRole `config:"role"`
	Preset  Preset        `config:"preset"`
	Servers []string      `config:"servers"` // ldaps://HOST:PORT or ldap://HOST:PORT, the preferred one first
	TLS     DirectoryTLS  `config:"tls"`
	Bind    Bind          `config:"bind"`
	Base    string        `config:"base"`
	Filter  string        `config:"filter"` // empty: the preset's
	Domain  string        `config:"domain"` // NetBIOS domain of the accounts
	Page    int           `config:"page"`
	Timeout time.Duration `config:"timeout"`

	// Replication is after how long a change at one of its servers is seen at the others: for
	// that long forwards are read back again.
	Replication time.Duration `config:"replication"`

	Attributes Attributes `config:"attributes"`
}

// DirectoryTLS is the TLS towards a directory.
type DirectoryTLS struct {
	StartTLS   bool   `config:"starttls"`
	CAFile     string `config:"ca_file" path:"yes"`   // empty: the system's
	ServerName string `config:"server_name"`          // empty: the server's host
	CertFile   string `config:"cert_file" path:"yes"` // our certificate, with KeyFile; empty: none
	KeyFile    string `config:"key_file" path:"yes"`
}

// Bind is how we log in at a directory.
type Bind struct {
	DN       string `config:"dn"`
	Password Secret `config:"password"`
	External bool   `config:"external"` // by our certificate (RFC 4422 appendix A)
}

// IDForm is how a directory writes an object's id.
type IDForm string

func (IDForm) words() []string { return []string{"", "binary", "plain", "ad"} }

// Attributes replace those of a preset; empty: the preset's.
type Attributes struct {
	ID      string   `config:"id"`
	IDForm  IDForm   `config:"id_form"`
	Mail    string   `config:"mail"`
	Aliases []string `config:"aliases"`
	UPN     string   `config:"upn"`
	Account string   `config:"account"`
	Kind    string   `config:"kind"`
	Groups  string   `config:"groups"`
	Members []string `config:"members"`
	Forward string   `config:"forward"`

	Forwards []string `config:"forwards"`
	Target   string   `config:"target"`
	Redirect string   `config:"redirect"`
}

// AgencyRule says which objects of the directories are an agency's: those below one of Bases,
// members of one of Groups, and those whose Attribute has one of Values.
type AgencyRule struct {
	Agency    routing.AgencyID `config:"agency"`
	Bases     []string         `config:"bases"`
	Groups    []string         `config:"groups"`
	Attribute string           `config:"attribute"`
	Values    []string         `config:"values"`
}

// MailboxPlace is how a platform calls mailboxes.
type MailboxPlace struct {
	Platform routing.PlatformID `config:"platform"`
	Address  string             `config:"address"` // pattern; empty: the primary address
	Login    string             `config:"login"`   // pattern; empty: the first of UPN, account and primary address
}

// Coexistence is further addresses of each mailbox.
type Coexistence struct {
	Agency   routing.AgencyID `config:"agency"` // empty: all
	Patterns []string         `config:"patterns"`
}

// FixedKind is a kind of objects that stay where they are.
type FixedKind string

func (FixedKind) words() []string { return []string{"group", "folder", "contact", "application"} }

// FixedHome is the platform on which fixed addresses of a kind are.
type FixedHome struct {
	Kind     FixedKind          `config:"kind"`
	Platform routing.PlatformID `config:"platform"`
}

// Additions bound what enters the table by itself after one reading of a directory. Beyond
// either bound nothing of the agency enters.
type Additions struct {
	MostRows    int `config:"most_rows"`    // of an agency; 0: nothing enters
	MostPercent int `config:"most_percent"` // of its mailboxes; of a small agency, 5 rows may enter all the same
}

// Unknown says when an address is denied for good.
type Unknown struct {
	MaxRate     int           `config:"max_rate"` // questions to the directory a second
	SnapshotAge time.Duration `config:"snapshot_age"`
}

// DefaultDirectory returns the settings of a directory that sets none. Name, servers and base
// have no default.
func DefaultDirectory() Directory {
	return Directory{Role: DirectorySource, Preset: "ad", Page: 500, Timeout: 10 * time.Second, Replication: 30 * time.Second}
}

func (d *Directory) setDefaults() { *d = DefaultDirectory() }

// defaultIdentity are the settings of a section that sets none.
func defaultIdentity() Identity {
	return Identity{
		CheckAge: 24 * time.Hour, CheckEvery: 6 * time.Hour, ListRows: list.DefaultRows,
		Additions: Additions{MostRows: 200, MostPercent: 10},
		Unknown:   Unknown{MaxRate: 20, SnapshotAge: time.Hour},
	}
}

// Model returns what makes agencies and rows of a directory's objects.
func (i *Identity) Model() (*model.Model, error) {
	var o model.Options
	for _, a := range i.Agencies {
		for _, base := range a.Bases {
			o.Rules = append(o.Rules, model.Rule{Agency: a.Agency, Base: base})
		}
		for _, group := range a.Groups {
			o.Rules = append(o.Rules, model.Rule{Agency: a.Agency, Group: group})
		}
		for _, value := range a.Values {
			o.Rules = append(o.Rules, model.Rule{Agency: a.Agency, Attribute: a.Attribute, Value: value})
		}
	}
	for _, p := range i.Places {
		o.Places = append(o.Places, model.Place{Platform: p.Platform, Address: p.Address, Login: p.Login})
	}
	for _, c := range i.Coexistence {
		for _, pattern := range c.Patterns {
			o.Coexistence = append(o.Coexistence, model.Coexistence{Agency: c.Agency, Pattern: pattern})
		}
	}
	for _, h := range i.Homes {
		kind, err := directory.ParseKind(string(h.Kind))
		if err != nil {
			return nil, err
		}
		o.Homes = append(o.Homes, model.Home{Kind: kind, Platform: h.Platform})
	}
	return model.New(o)
}

// Forwards returns the directory that shows the forwards of an agency on its target, or on its
// source; the error is why there is none.
func (i *Identity) Forwards(agency routing.AgencyID, onTarget bool) (*Directory, error) {
	role := DirectorySource
	if onTarget {
		role = DirectoryTarget
	}
	n := slices.IndexFunc(i.Directories, func(d Directory) bool { return d.Role == role })
	switch {
	case n < 0:
		return nil, fmt.Errorf("no directory with the role %s is configured", role)
	case !slices.ContainsFunc(i.Coexistence, func(c Coexistence) bool { return c.Agency == "" || c.Agency == agency }):
		return nil, fmt.Errorf("identity.coexistence has no pattern for agency %s, so nobody knows where they should go", agency)
	}
	d := &i.Directories[n]
	if m := d.attributes(); !m.ShowsForwards() {
		return nil, fmt.Errorf("no attribute of directory %s shows them", d.Name)
	}
	return d, nil
}

// Options returns the settings of a directory's client, but for its logger. extra are
// attributes that the model needs.
func (d *Directory) Options(extra []string) (ldapdir.Options, error) {
	o := ldapdir.Options{
		Name: d.Name, Servers: d.Servers, StartTLS: d.TLS.StartTLS, External: d.Bind.External, BindDN: d.Bind.DN,
		Base: d.Base, Domain: d.Domain, Map: d.attributes(), Extra: extra, Page: d.Page, Timeout: d.Timeout,
		TLS: &tls.Config{MinVersion: tls.VersionTLS12, ServerName: d.TLS.ServerName},
	}
	if d.Bind.Password.IsSet() {
		password := d.Bind.Password.Reveal()
		o.Password = func() (string, error) { return password, nil }
	}
	if d.TLS.CAFile != "" {
		pem, err := os.ReadFile(d.TLS.CAFile)
		if err != nil {
			return o, fmt.Errorf("directory %s: %w", d.Name, err)
		}
		o.TLS.RootCAs = x509.NewCertPool()
		if !o.TLS.RootCAs.AppendCertsFromPEM(pem) {
			return o, fmt.Errorf("directory %s: no certificate in %s", d.Name, d.TLS.CAFile)
		}
	}
	if d.TLS.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(d.TLS.CertFile, d.TLS.KeyFile)
		if err != nil {
			return o, fmt.Errorf("directory %s: %w", d.Name, err)
		}
		o.TLS.Certificates = []tls.Certificate{pair}
	}
	return o, nil
}

// attributes are those of the preset, with those that are set in their places.
func (d *Directory) attributes() ldapdir.Map {
	m, a := ldapdir.Presets()[string(d.Preset)], &d.Attributes
	for _, one := range []struct {
		set string
		to  *string
	}{
		{a.ID, &m.ID}, {string(a.IDForm), (*string)(&m.IDForm)}, {a.Mail, &m.Mail}, {a.UPN, &m.UPN}, {a.Account, &m.Account},
		{a.Kind, &m.Kind}, {a.Groups, &m.Groups}, {a.Forward, &m.Forward}, {a.Target, &m.Target}, {a.Redirect, &m.Redirect}, {d.Filter, &m.Filter},
	} {
		if one.set != "" {
			*one.to = one.set
		}
	}
	if len(a.Aliases) > 0 {
		m.Aliases = a.Aliases
	}
	if len(a.Forwards) > 0 {
		m.Forwards = a.Forwards
	}
	if len(a.Members) > 0 {
		m.Members = a.Members
	}
	return m
}
