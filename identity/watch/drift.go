package watch

import (
	"cmp"
	"fmt"
	"slices"

	"mailcutover/identity/model"
	"mailcutover/identity/register"
	"mailcutover/routing"
)

// Kind is how the directory and the table differ.
type Kind string

const (
	Gone       Kind = "gone"        // the directory doesn't know the mailbox any more
	Moved      Kind = "moved"       // the directory counts it to another agency, or to none
	Disabled   Kind = "disabled"    // its account is disabled
	Readdress  Kind = "readdressed" // the address that it was listed with is not its own any more
	Repaired   Kind = "repaired"    // that address is another mailbox's now
	Unlisted   Kind = "unlisted"    // a mailbox of the agency that no list in force names
	NewName    Kind = "new-name"    // the directory gives it an address that the table doesn't have
	LostName   Kind = "lost-name"   // the table gives it an address that the directory doesn't
	Renamed    Kind = "renamed"     // what the platforms are told of the mailbox isn't its name any more
	Target     Kind = "target"      // the target's directory has another pair
	NotThere   Kind = "not-there"   // the target's directory doesn't know the mailbox
	Unreadable Kind = "unreadable"  // an object of the agency that no row can be made of
)

// Blocks reports whether it keeps an agency from being cut over until a new list is approved.
// New names enter by themselves, and a name that is gone stays until a list takes it away:
// both are only told.
func (k Kind) Blocks() bool { return k != NewName && k != LostName && k != NotThere }

// Drift is one difference between the directory and what was approved or is routed.
type Drift struct {
	Kind    Kind              `json:"kind"`
	Agency  routing.AgencyID  `json:"agency"`
	Mailbox routing.MailboxID `json:"mailbox"`
	Address routing.Address   `json:"address,omitempty"` // concerned
	Owner   routing.MailboxID `json:"owner,omitzero"`    // of Repaired and Target: whose it is now; zero: two objects have it
	To      routing.AgencyID  `json:"to,omitempty"`      // of Moved
	Text    string            `json:"text,omitempty"`    // of Unreadable; of Renamed, what is told and what is right
}

// Compare returns how the directory differs from the mapping of an agency and from its lists
// in force, by address. target is the target's directory, or nil: what the target's platform
// would be told of a mailbox has to be that mailbox's there.
func Compare(v, target *View, m *model.Model, s *routing.State, agency routing.AgencyID, entries []register.Entry) []Drift {
	record, known := s.Agency(agency)
	mapping := s.Mapping(agency)
	if !known || mapping == nil {
		return nil
	}
	var out []Drift
	add := func(d Drift) {
		d.Agency = agency
		out = append(out, d)
	}
	listed := make(map[routing.MailboxID]routing.Address)
	disabled := make(map[routing.MailboxID]bool) // as was seen when its list was approved
	for _, e := range slices.Backward(entries) { // the newest last
		if e.Standing == register.Active && e.List.Agency == agency {
			for _, r := range e.List.Rows {
				listed[r.ID], disabled[r.ID] = r.Address, slices.Contains(e.Disabled, r.ID)
			}
		}
	}
	for row := range mapping.Rows() {
		o, ok := v.object(row.Mailbox)
		if !ok {
			add(Drift{Kind: Gone, Mailbox: row.Mailbox, Address: row.Addresses[0]})
			continue
		}
		if o.agency != agency {
			add(Drift{Kind: Moved, Mailbox: row.Mailbox, Address: row.Addresses[0], To: o.agency})
			continue
		}
		if !o.object.Enabled && row.Kind == routing.KindUser && !disabled[row.Mailbox] {
			add(Drift{Kind: Disabled, Mailbox: row.Mailbox, Address: row.Addresses[0]})
		}
		was, isListed := listed[row.Mailbox]
		if !isListed {
			add(Drift{Kind: Unlisted, Mailbox: row.Mailbox, Address: row.Addresses[0]})
		} else if was != "" && !slices.Contains(o.object.Addresses, was) {
			if v.Facts.Knows(was) {
				owner, _ := v.Facts.Owner(was) // zero: two have it
				add(Drift{Kind: Repaired, Mailbox: row.Mailbox, Address: was, Owner: owner})
			} else {
				add(Drift{Kind: Readdress, Mailbox: row.Mailbox, Address: was})
			}
		}
		wanted, err := m.Row(&o.object, &record)
		if err != nil {
			add(Drift{Kind: Unreadable, Mailbox: row.Mailbox, Address: row.Addresses[0], Text: err.Error()})
			continue
		}
		for _, a := range wanted.Addresses {
			if !slices.Contains(row.Addresses, a) {
				add(Drift{Kind: NewName, Mailbox: row.Mailbox, Address: a})
			}
		}
		for _, a := range row.Addresses {
			switch {
			case a == was || slices.Contains(wanted.Addresses, a):
			case v.Facts.Knows(a):
				owner, _ := v.Facts.Owner(a)
				add(Drift{Kind: Repaired, Mailbox: row.Mailbox, Address: a, Owner: owner})
			default:
				add(Drift{Kind: LostName, Mailbox: row.Mailbox, Address: a})
			}
		}
		if text := renamed(v, &row, &wanted); text != "" {
			add(Drift{Kind: Renamed, Mailbox: row.Mailbox, Address: row.Addresses[0], Text: text})
		}
		if target != nil {
			if d, differs := onTarget(target, &row); differs {
				add(d)
			}
		}
	}
	for i := range v.seen {
		o := &v.seen[i]
		if o.agency != agency || !o.object.Kind.Mailbox() {
			continue
		}
		if _, routed := mapping.Mailbox(o.object.ID); !routed {
			add(Drift{Kind: Unlisted, Mailbox: o.object.ID, Address: o.object.Primary()})
		}
	}
	slices.SortStableFunc(out, func(a, b Drift) int {
		return cmp.Or(cmp.Compare(a.Address, b.Address), cmp.Compare(a.Kind, b.Kind))
	})
	return out
}

// renamed says what the platforms are told of a mailbox that is none of its names any more, or is
// somebody else's: mail or logins would go there. Empty: nothing.
func renamed(v *View, row, wanted *routing.Row) string {
	told := row.At(false)
	for _, name := range []string{string(told.Address), told.Login} {
		if v.Facts.TwoHave(name) {
			return fmt.Sprintf("the source is told %s of the mailbox, which two objects of the directory have", name)
		}
		if owner, known := v.Facts.User(name); known && owner != row.Mailbox {
			return fmt.Sprintf("the source is told %s of the mailbox, which by the directory is mailbox %s", name, owner)
		}
	}
	for _, target := range []bool{false, true} {
		platform := map[bool]string{false: "source", true: "target"}[target]
		is, should := row.At(target), wanted.At(target)
		if is.Address != should.Address && !slices.Contains(wanted.Addresses, is.Address) {
			return fmt.Sprintf("the %s is told %s of the mailbox, by the directory it is %s", platform, is.Address, should.Address)
		}
		if is.Login != should.Login && !hasLogin(wanted, is.Login) {
			return fmt.Sprintf("the %s is told the login %s, by the directory it is %s", platform, is.Login, should.Login)
		}
	}
	return ""
}

// hasLogin reports whether a row's mailbox is logged in to by a name.
func hasLogin(row *routing.Row, name string) bool {
	l, err := routing.ParseLogin(name)
	return err == nil && (slices.Contains(row.Logins, l) || slices.Contains(row.Addresses, routing.Address(l)))
}

// onTarget compares a mailbox with the target's directory.
func onTarget(target *View, row *routing.Row) (d Drift, differs bool) {
	told := row.At(true)
	d = Drift{Kind: Target, Mailbox: row.Mailbox, Address: row.Addresses[0]}
	if target.Facts.Shared(told.Address) || target.Facts.TwoHave(told.Login) {
		return d, true
	}
	var known bool
	if d.Owner, known = target.Facts.Owner(told.Address); known && d.Owner != row.Mailbox {
		return d, true
	}
	if d.Owner, known = target.Facts.User(told.Login); known && d.Owner != row.Mailbox {
		return d, true
	}
	d.Owner = routing.MailboxID{}
	for _, a := range row.Addresses {
		if owner, known := target.Facts.Owner(a); known && owner != row.Mailbox {
			d.Address, d.Owner = a, owner
			return d, true
		}
	}
	d.Kind = NotThere
	return d, !target.Facts.Has(row.Mailbox)
}

// Additions returns the rows of an agency with what the directory has more than its mapping:
// new mailboxes of the agency, and new names of known ones. Nothing is taken from anybody;
// what another mailbox has, in the table or in the directory, isn't among them.
func Additions(v *View, m *model.Model, s *routing.State, agency routing.AgencyID) (rows []routing.Row, refused []error) {
	record, known := s.Agency(agency)
	if !known {
		return nil, nil
	}
	mapping := s.Mapping(agency)
	free := func(name string, id routing.MailboxID) bool {
		if !v.Facts.Free(name, id) {
			return false
		}
		for _, c := range s.Claims(name) {
			if c.Mailbox != id || c.Agency != agency {
				return false
			}
		}
		return true
	}
	for i := range v.seen {
		o := &v.seen[i]
		if o.agency != agency || !o.object.Kind.Mailbox() {
			continue
		}
		wanted, err := m.Row(&o.object, &record)
		if err != nil {
			refused = append(refused, err)
			continue
		}
		now, routed := routing.Row{}, false
		if mapping != nil {
			now, routed = mapping.Mailbox(o.object.ID)
		}
		if !routed {
			now = wanted
			now.Addresses, now.Logins = nil, nil
		}
		before := len(now.Addresses) + len(now.Logins)
		now.Addresses, now.Logins = slices.Clone(now.Addresses), slices.Clone(now.Logins)
		for _, a := range wanted.Addresses {
			if !slices.Contains(now.Addresses, a) && free(string(a), o.object.ID) {
				now.Addresses = append(now.Addresses, a)
			}
		}
		for _, l := range wanted.Logins {
			if !slices.Contains(now.Logins, l) && free(string(l), o.object.ID) {
				now.Logins = append(now.Logins, l)
			}
		}
		switch {
		case len(now.Addresses)+len(now.Logins) == before:
		case !routed && (len(now.Addresses) == 0 || now.Addresses[0] != wanted.Addresses[0]):
			// Its own address is somebody else's in the table: that needs a list.
		default:
			rows = append(rows, now)
		}
	}
	return rows, refused
}
