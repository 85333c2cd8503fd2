package check

import (
	"cmp"
	"slices"
	"time"

	"mailcutover/identity/directory"
	"mailcutover/identity/list"
	"mailcutover/routing"
)

// Input is what a list is compared with.
type Input struct {
	List   *list.List
	Key    *list.Key // of its rows' digests; nil: they are not looked at, as of a foreign list
	Source *Facts    // the source's directory; nil: no list is clean
	Target *Facts    // the target's; nil: there is none
	State  *routing.State
	// Stored returns the row that activating the list would store for a mailbox, with its other
	// names and what the platforms are told of it; ok is false if none can be made. nil: that isn't
	// compared.
	Stored func(routing.MailboxID) (row routing.Row, ok bool)

	// Earlier are the agency's lists that were approved before, the newest first.
	Earlier []*list.List
}

// Result is a check of one list.
type Result struct {
	List         string           `json:"list"`
	Agency       routing.AgencyID `json:"agency"`
	Digest       routing.Digest   `json:"digest"` // of the list
	At           time.Time        `json:"at"`     // when the source's directory was read
	Rows         []Verdict        `json:"rows"`
	Permutations []Permutation    `json:"permutations,omitempty"`

	Right, Warnings, Wrong int
}

// Clean reports whether the list may be proposed: no row is wrong.
func (r *Result) Clean() bool { return r.Wrong == 0 && len(r.Permutations) == 0 && len(r.Rows) > 0 }

// Crossed returns how many mailboxes would get another one's mail if the list came into
// force: the rows whose address or account is another mailbox's.
func (r *Result) Crossed() int {
	n := 0
	for i := range r.Rows {
		for _, f := range r.Rows[i].Findings {
			if f.Code == CodeOtherMailbox || f.Code == CodeOtherAccount {
				n++
				break
			}
		}
	}
	return n
}

// Disabled are the mailboxes of the list whose accounts are disabled.
func (r *Result) Disabled() []routing.MailboxID {
	var out []routing.MailboxID
	for i := range r.Rows {
		if slices.ContainsFunc(r.Rows[i].Findings, func(f Finding) bool { return f.Code == CodeDisabled }) {
			out = append(out, r.Rows[i].Row.ID)
		}
	}
	return out
}

// Check compares in.List with everything.
func Check(in Input) *Result {
	r := &Result{List: in.List.ID, Agency: in.List.Agency, Digest: in.List.Digest(), Rows: make([]Verdict, len(in.List.Rows))}
	if in.Source != nil {
		r.At = in.Source.At
	}
	earlier := pairsOf(in.Earlier)
	for i := range in.List.Rows {
		v := &r.Rows[i]
		v.Row = in.List.Rows[i]
		in.compare(v, earlier)
		switch v.Severity() {
		case Wrong:
			r.Wrong++
		case Warning:
			r.Warnings++
		default:
			r.Right++
		}
	}
	r.Permutations = permutations(&in, earlier)
	return r
}

// compare finds what is to be said of one row.
func (in *Input) compare(v *Verdict, earlier *pairs) {
	row := &v.Row
	add := func(f Finding) { v.Findings = append(v.Findings, f) }
	if in.Key != nil && !in.Key.Holds(in.List.ID, row) {
		add(Finding{Code: CodeDigest})
	}
	if row.Agency != in.List.Agency {
		add(Finding{Code: CodeOtherAgency, Source: in.List.ID, Agency: in.List.Agency})
	}
	if in.Source == nil {
		add(Finding{Code: CodeUnknown})
	} else {
		in.compareSource(row, add)
		in.compareStored(row, add)
	}
	if in.Target != nil {
		in.compareTarget(row, add)
	}
	if in.State != nil {
		compareTable(in.State, row, add)
	}
	if f, ok := earlier.compare(row); ok {
		add(f)
	}
	if len(v.Findings) == 0 {
		add(Finding{Code: CodeRight})
	}
	slices.SortStableFunc(v.Findings, func(a, b Finding) int { return cmp.Compare(a.Code.Rank(), b.Code.Rank()) })
}

// compareSource compares a row with the directory that is the truth.
func (in *Input) compareSource(row *list.Row, add func(Finding)) {
	f := in.Source
	has, hasID := f.id(row.ID)
	switch hasID {
	case foundMany:
		add(Finding{Code: CodeTwice, Source: f.Name, Owner: row.ID})
	case foundNone:
		add(Finding{Code: CodeNoID, Source: f.Name})
	}
	owner, known := f.address(row.Address)
	switch {
	case row.Address == "" && row.Account != "": // a list of accounts
	case known == foundMany:
		add(Finding{Code: CodeTwice, Source: f.Name, Address: row.Address})
	case known == foundNone:
		add(Finding{Code: CodeNoAddress, Source: f.Name})
	case owner.id != row.ID:
		wrong := Finding{Code: CodeOtherMailbox, Source: f.Name, Owner: owner.id, Of: owner.primary}
		if hasID == foundOne {
			wrong.Address = has.primary
		}
		add(wrong)
	case owner.primary != row.Address:
		add(Finding{Code: CodeAlias, Source: f.Name, Address: owner.primary})
	}
	if row.Account != "" {
		owner, known := f.account(row.Account)
		switch {
		case known == foundMany:
			add(Finding{Code: CodeTwice, Source: f.Name})
		case known == foundNone:
			add(Finding{Code: CodeNoAccount, Source: f.Name})
		case owner.id != row.ID:
			wrong := Finding{Code: CodeOtherAccount, Source: f.Name, Owner: owner.id, Of: owner.primary}
			if hasID == foundOne {
				wrong.Address = has.primary
			}
			add(wrong)
		}
	}
	if hasID != foundOne {
		return
	}
	if has.agency != row.Agency {
		add(Finding{Code: CodeOtherAgency, Source: f.Name, Agency: has.agency})
	}
	if !has.kind.Mailbox() {
		add(Finding{Code: CodeNotMailbox, Source: f.Name})
	}
	// Shared mailboxes and rooms are disabled accounts in Active Directory.
	if has.kind == directory.KindUser && !has.enabled {
		add(Finding{Code: CodeDisabled, Source: f.Name})
	}
}

// compareStored looks whether another name that the mailbox would get, or one that the source is
// told of it, is another's in the source's directory, or two objects have it: a list says one
// address of a mailbox, and brings all of them into force.
func (in *Input) compareStored(row *list.Row, add func(Finding)) {
	if in.Stored == nil {
		return
	}
	stored, ok := in.Stored(row.ID)
	if !ok {
		return
	}
	f := in.Source
	for _, a := range stored.Addresses {
		if a == row.Address {
			continue
		}
		if owner, known := f.address(a); known == foundMany {
			add(Finding{Code: CodeOtherName, Source: f.Name, Name: string(a)})
		} else if known == foundOne && owner.id != row.ID {
			add(Finding{Code: CodeOtherName, Source: f.Name, Name: string(a), Owner: owner.id, Of: owner.primary})
		}
	}
	names := make([]string, 0, len(stored.Logins)+2)
	for _, l := range stored.Logins {
		names = append(names, string(l))
	}
	told := stored.At(false) // how the target calls mailboxes, its own directory says
	names = append(names, string(told.Address), told.Login)
	seen := make(map[string]bool, len(names))
	for _, name := range names {
		if seen[name] {
			continue
		}
		seen[name] = true
		switch owner, known := f.user(name); {
		case known == foundMany && (name == told.Login || name == string(told.Address)) && name != string(row.Address):
			// Of the listed address it is said already; a login that no platform is told may be two accounts'
			// of two domains, and a password says whose.
			add(Finding{Code: CodeOtherName, Source: f.Name, Name: name})
		case known == foundOne && owner.id != row.ID:
			add(Finding{Code: CodeOtherName, Source: f.Name, Name: name, Owner: owner.id, Of: owner.primary})
		}
	}
}

// compareTarget compares a row with the target's directory, which may not have the mailbox
// yet.
func (in *Input) compareTarget(row *list.Row, add func(Finding)) {
	f := in.Target
	has, hasID := f.id(row.ID)
	owner, known := f.address(row.Address)
	switch {
	case hasID == foundMany || known == foundMany:
		add(Finding{Code: CodeTwice, Source: f.Name})
	case known == foundOne && owner.id != row.ID:
		add(Finding{Code: CodeTarget, Source: f.Name, Owner: owner.id})
	case hasID == foundNone:
		add(Finding{Code: CodeNotOnTarget, Source: f.Name})
		in.comparePlace(row, add)
	case known == foundNone && row.Address != "":
		add(Finding{Code: CodeTarget, Source: f.Name, Address: has.primary})
	case has.agency != "" && has.agency != row.Agency:
		add(Finding{Code: CodeTarget, Source: f.Name, Agency: has.agency})
	default:
		in.comparePlace(row, add)
	}
}

// comparePlace looks whether what the target would be told of the mailbox is another's there.
func (in *Input) comparePlace(row *list.Row, add func(Finding)) {
	if in.Stored == nil {
		return
	}
	stored, ok := in.Stored(row.ID)
	if !ok {
		return
	}
	told := stored.At(true)
	if in.Target.Shared(told.Address) || in.Target.TwoHave(told.Login) {
		add(Finding{Code: CodeTwice, Source: in.Target.Name})
		return
	}
	if owner, known := in.Target.Owner(told.Address); known && owner != row.ID {
		add(Finding{Code: CodeTarget, Source: in.Target.Name, Owner: owner})
		return
	}
	if user, known := in.Target.User(told.Login); known && user != row.ID {
		add(Finding{Code: CodeTarget, Source: in.Target.Name, Owner: user})
	}
}

// compareTable compares a row with what is routed today. What the table doesn't have is new.
func compareTable(s *routing.State, row *list.Row, add func(Finding)) {
	for _, c := range s.Claims(string(row.Address)) {
		switch {
		case c.Mailbox != row.ID:
			add(Finding{Code: CodeTable, Source: table, Owner: c.Mailbox, Agency: c.Agency})
			return
		case c.Agency != row.Agency:
			add(Finding{Code: CodeTable, Source: table, Agency: c.Agency})
			return
		}
	}
	for _, a := range s.Agencies() {
		if m := s.Mapping(a.ID); m != nil && a.ID != row.Agency {
			if _, elsewhere := m.Mailbox(row.ID); elsewhere {
				add(Finding{Code: CodeTable, Source: table, Agency: a.ID})
				return
			}
		}
	}
}

const table = "table"
