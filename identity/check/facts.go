package check

import (
	"iter"
	"time"

	"mailcutover/identity/directory"
	"mailcutover/identity/list"
	"mailcutover/routing"
)

// Facts are what one source knows of mailboxes: a directory as it was read, the table, or
// earlier lists. Fill it with Add, then only read it; reading is safe for concurrent use.
type Facts struct {
	Name  string    // of the directory, for people
	At    time.Time // when reading it began
	facts []fact
	byID  map[routing.MailboxID]int32
	names map[string]int32 // addresses and folded accounts; ambiguous for two owners
}

// fact is what is known of one object.
type fact struct {
	id      routing.MailboxID
	primary routing.Address
	account string
	agency  routing.AgencyID
	kind    directory.Kind
	enabled bool
}

// ambiguous marks what two objects have.
const ambiguous = -1

// NewFacts returns empty facts of a source, which was read from at on.
func NewFacts(name string, at time.Time) *Facts {
	return &Facts{Name: name, At: at, byID: make(map[routing.MailboxID]int32), names: make(map[string]int32)}
}

// Add notes an object, which the model counts to agency; empty if to none. It keeps
// nothing of o. An object without an id or an address is noted as far as it goes.
func (f *Facts) Add(o *directory.Object, agency routing.AgencyID) {
	n := int32(len(f.facts))
	f.facts = append(f.facts, fact{
		id: o.ID, primary: o.Primary(), account: o.Account, agency: agency, kind: o.Kind, enabled: o.Enabled,
	})
	if !o.ID.IsZero() {
		if _, twice := f.byID[o.ID]; twice {
			n = ambiguous
		}
		f.byID[o.ID] = n
		n = int32(len(f.facts) - 1)
	}
	for _, a := range o.Addresses {
		f.name(string(a), n)
	}
	if o.Account != "" {
		f.name(account(o.Account), n)
	}
}

func (f *Facts) name(name string, n int32) {
	if before, twice := f.names[name]; twice && before != n {
		n = ambiguous
	}
	f.names[name] = n
}

// account is the key of an account, apart from addresses.
func account(name string) string { return string(accountMark) + list.AccountKey(name) }

// accountMark is the first byte of an account's key, which no address has.
const accountMark = '\x00'

// Len returns the number of objects.
func (f *Facts) Len() int { return len(f.facts) }

// Addresses yields every address that some object has, in no order.
func (f *Facts) Addresses() iter.Seq[routing.Address] {
	return func(yield func(routing.Address) bool) {
		for name := range f.names {
			if name[0] != accountMark && !yield(routing.Address(name)) {
				return
			}
		}
	}
}

// Knows reports whether some object has an address.
func (f *Facts) Knows(a routing.Address) bool {
	_, ok := f.names[string(a)]
	return ok
}

// Shared reports whether two objects have an address.
func (f *Facts) Shared(a routing.Address) bool {
	n, ok := f.names[string(a)]
	return ok && n == ambiguous
}

// Free reports whether a name, an address or a login, may become a mailbox's: no other object has it.
func (f *Facts) Free(name string, id routing.MailboxID) bool {
	if a, err := routing.ParseAddress(name); err == nil {
		if owner, found := f.address(a); found == foundMany || found == foundOne && owner.id != id {
			return false
		}
	}
	owner, found := f.user(name)
	return found == foundNone || found == foundOne && owner.id == id
}

// Owner returns whose an address is; ok is false if it is nobody's, or two objects have it.
func (f *Facts) Owner(a routing.Address) (id routing.MailboxID, ok bool) {
	one, found := f.address(a)
	if found != foundOne {
		return id, false
	}
	return one.id, true
}

// User returns who logs in with a name, an address or an account; ok is false if it is nobody,
// or two objects have it.
func (f *Facts) User(login string) (id routing.MailboxID, ok bool) {
	one, found := f.user(login)
	if found != foundOne {
		return id, false
	}
	return one.id, true
}

// TwoHave reports whether two objects have a login, so that a platform may take it for either.
func (f *Facts) TwoHave(login string) bool {
	_, found := f.user(login)
	return found == foundMany
}

// user is whose a login is, an address or an account.
func (f *Facts) user(login string) (*fact, found) {
	if a, err := routing.ParseAddress(login); err == nil {
		if one, found := f.address(a); found != foundNone {
			return one, found
		}
	}
	return f.account(login)
}

// Has reports whether an object has a directory id.
func (f *Facts) Has(id routing.MailboxID) bool {
	_, ok := f.byID[id]
	return ok
}

// found is the outcome of a look-up.
type found uint8

const (
	foundNone found = iota
	foundOne
	foundMany // two objects have it
)

func (f *Facts) look(n int32, ok bool) (*fact, found) {
	switch {
	case !ok:
		return nil, foundNone
	case n == ambiguous:
		return nil, foundMany
	}
	return &f.facts[n], foundOne
}

func (f *Facts) address(a routing.Address) (*fact, found) {
	n, ok := f.names[string(a)]
	return f.look(n, ok)
}

func (f *Facts) account(name string) (*fact, found) {
	n, ok := f.names[account(name)]
	return f.look(n, ok)
}

func (f *Facts) id(id routing.MailboxID) (*fact, found) {
	n, ok := f.byID[id]
	return f.look(n, ok)
}
