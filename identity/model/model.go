package model

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"mailcutover/identity/directory"
	"mailcutover/routing"
)

// Rule says which objects are an agency's: by exactly one of Base, Group and Attribute.
type Rule struct {
	Agency    routing.AgencyID
	Base      string // DN of an organizational unit
	Group     string // DN of a group, of which they are direct members
	Attribute string // name of an attribute that has Value, without case
	Value     string
}

// Place is how a platform calls mailboxes.
type Place struct {
	Platform routing.PlatformID
	Address  string // pattern; empty: the primary address
	Login    string // pattern; empty: the first of UPN, account and primary address
}

// Coexistence is the pattern of a further address of each mailbox.
type Coexistence struct {
	Agency  routing.AgencyID // empty: all
	Pattern string           // such as {local}.tmp@{domain}
}

// Home is the platform on which fixed addresses of a kind are.
type Home struct {
	Kind     directory.Kind
	Platform routing.PlatformID
}

// Options are what a model is made of.
type Options struct {
	Rules       []Rule
	Places      []Place
	Coexistence []Coexistence
	Homes       []Home
}

// Model is immutable; its methods are safe for concurrent use. Use [New].
type Model struct{ o Options }

// New returns a model. The error names all that is wrong with the options.
func New(o Options) (*Model, error) {
	var errs []error
	for i, r := range o.Rules {
		given := 0
		for _, s := range []string{r.Base, r.Group, r.Attribute} {
			if s != "" {
				given++
			}
		}
		if r.Agency == "" || given != 1 || (r.Attribute == "") != (r.Value == "") {
			errs = append(errs, fmt.Errorf("rule %d: want an agency, and a base, a group, or an attribute with its value", i+1))
		}
	}
	for _, p := range o.Places {
		errs = append(errs, checkPattern(p.Address), checkPattern(p.Login))
	}
	for _, c := range o.Coexistence {
		if c.Pattern == "" || !strings.Contains(c.Pattern, "{local}") {
			errs = append(errs, fmt.Errorf("coexistence pattern %q: want one with {local}, such as {local}.tmp@{domain}", c.Pattern))
		}
		errs = append(errs, checkPattern(c.Pattern))
	}
	for _, h := range o.Homes {
		if h.Kind.Mailbox() || h.Kind == directory.KindUnknown || h.Platform == "" {
			errs = append(errs, fmt.Errorf("home of %s: want the platform of groups, folders, contacts or applications", h.Kind))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("agencies of the directory: %w", err)
	}
	return &Model{o: o}, nil
}

// Attributes are those that the rules need besides the usual ones.
func (m *Model) Attributes() []string {
	var out []string
	for _, r := range m.o.Rules {
		if r.Attribute != "" && !slices.Contains(out, r.Attribute) {
			out = append(out, r.Attribute)
		}
	}
	return out
}

// Agencies are all that a rule names, in the order of the rules.
func (m *Model) Agencies() []routing.AgencyID {
	var out []routing.AgencyID
	for _, r := range m.o.Rules {
		if !slices.Contains(out, r.Agency) {
			out = append(out, r.Agency)
		}
	}
	return out
}

// Agency returns the agency that an object belongs to; empty if to none.
func (m *Model) Agency(o *directory.Object) routing.AgencyID {
	for i := range m.o.Rules {
		if m.o.Rules[i].fits(o) {
			return m.o.Rules[i].Agency
		}
	}
	return ""
}

func (r *Rule) fits(o *directory.Object) bool {
	switch {
	case r.Base != "":
		return directory.Below(o.DN, r.Base)
	case r.Group != "":
		return slices.ContainsFunc(o.Groups, func(g string) bool { return directory.SameDN(g, r.Group) })
	}
	return slices.ContainsFunc(o.Attributes[strings.ToLower(r.Attribute)], func(v string) bool { return strings.EqualFold(v, r.Value) })
}

// ErrNoRow is wrapped by the error for an object of which no row can be made.
var ErrNoRow = errors.New("no row can be made of it")

// Row returns the row that an object's mailbox should have in the mapping of its agency, which
// is between these platforms.
func (m *Model) Row(o *directory.Object, agency *routing.Agency) (routing.Row, error) {
	row := routing.Row{Mailbox: o.ID, Addresses: slices.Clone(o.Addresses)}
	refuse := func(format string, args ...any) (routing.Row, error) {
		return routing.Row{}, fmt.Errorf("%s: %w: %s", o.DN, ErrNoRow, fmt.Sprintf(format, args...))
	}
	switch o.Kind {
	case directory.KindUser:
		row.Kind = routing.KindUser
	case directory.KindShared:
		row.Kind = routing.KindShared
	case directory.KindRoom:
		row.Kind = routing.KindRoom
	default:
		return refuse("it is a %s, not a mailbox", o.Kind)
	}
	switch {
	case o.ID.IsZero():
		return refuse("it has no directory id")
	case len(o.Addresses) == 0:
		return refuse("it has no address")
	}
	for _, name := range names(o) {
		l, err := routing.ParseLogin(name)
		if err != nil {
			return refuse("login %q: %v", name, err)
		}
		if !slices.Contains(row.Logins, l) && !slices.Contains(row.Addresses, routing.Address(l)) {
			row.Logins = append(row.Logins, l)
		}
	}
	further, err := m.Coexistence(o, agency.ID)
	if err != nil {
		return refuse("coexistence address: %v", err)
	}
	for _, a := range further {
		if !slices.Contains(row.Addresses, a) {
			row.Addresses = append(row.Addresses, a)
		}
	}
	if row.Source, err = m.place(agency.Source, o); err != nil {
		return refuse("platform %s: %v", agency.Source, err)
	}
	if row.Target, err = m.place(agency.Target, o); err != nil {
		return refuse("platform %s: %v", agency.Target, err)
	}
	return row, nil
}

// Coexists reports whether the mailboxes of an agency have addresses under which the other
// platform reaches them.
func (m *Model) Coexists(agency routing.AgencyID) bool {
	return slices.ContainsFunc(m.o.Coexistence, func(c Coexistence) bool { return c.Agency == "" || c.Agency == agency })
}

// Coexistence returns these addresses of an object's mailbox, in the order of the patterns. The
// error is about a pattern that wants what the object lacks.
func (m *Model) Coexistence(o *directory.Object, agency routing.AgencyID) (out []routing.Address, err error) {
	for _, c := range m.o.Coexistence {
		if c.Agency != "" && c.Agency != agency {
			continue
		}
		a, err := fillAddress(c.Pattern, o)
		if err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	return out, nil
}

// names are what a mailbox's user may log in with besides its addresses.
func names(o *directory.Object) []string {
	var out []string
	if o.UPN != "" {
		out = append(out, o.UPN)
	}
	if o.Account != "" {
		out = append(out, o.Account)
		if o.Domain != "" {
			out = append(out, o.Domain+`\`+o.Account)
		}
	}
	return out
}

// place is how a platform calls an object.
func (m *Model) place(platform routing.PlatformID, o *directory.Object) (out routing.Place, err error) {
	for _, p := range m.o.Places {
		if p.Platform != platform {
			continue
		}
		if p.Address != "" {
			if out.Address, err = fillAddress(p.Address, o); err != nil {
				return out, fmt.Errorf("address: %w", err)
			}
		}
		if p.Login != "" {
			if out.Login, err = fill(p.Login, o); err != nil {
				return out, fmt.Errorf("login: %w", err)
			}
		}
	}
	return out, nil
}

// Fixed returns the fixed addresses of an object that is no mailbox: all of its addresses;
// none for a kind without a home.
func (m *Model) Fixed(o *directory.Object) []routing.Fixed {
	var out []routing.Fixed
	for _, h := range m.o.Homes {
		if h.Kind != o.Kind {
			continue
		}
		for _, a := range o.Addresses {
			out = append(out, routing.Fixed{Address: a, Kind: routing.FixedKind(o.Kind.String()), Platform: h.Platform, At: o.Primary()})
		}
	}
	return out
}
