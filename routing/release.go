package routing

import (
	"errors"
	"fmt"
	"slices"
)

// ErrNotReleased is wrapped by the errors of [State.Release].
var ErrNotReleased = errors.New("can't be taken from it")

// Release returns the mapping of an agency without its claim to a name that another has
// too. No answer that is given now is lost: the name has none, and if nothing else of the
// mailbox depends on it the mailbox keeps the rest; a mailbox of which others have every
// name goes as a whole. The mapping is empty if none is left.
func (s *State) Release(name string, agency AgencyID) (*Mapping, error) {
	old := s.Mapping(agency)
	if old == nil {
		return nil, fmt.Errorf("%s of agency %s: %w: its mapping is not known", name, agency, ErrNotReleased)
	}
	claims := s.Claims(name)
	i := slices.IndexFunc(claims, func(c Claim) bool { return c.Agency == agency })
	if i < 0 || len(claims) < 2 {
		return nil, fmt.Errorf("%s of agency %s: %w: only a name that two claim, and this agency too, is released; %d have it", name, agency, ErrNotReleased, len(claims))
	}
	rows := slices.Collect(old.Rows())
	n := slices.IndexFunc(rows, func(r Row) bool { return r.Mailbox == claims[i].Mailbox })
	alone := slices.IndexFunc(rows[n].Keys(), func(key string) bool { return len(s.Claims(key)) < 2 })
	if alone < 0 {
		return NewMapping(agency, slices.Delete(rows, n, n+1))
	}
	was := rows[n]
	now := was
	now.Addresses = slices.DeleteFunc(slices.Clone(was.Addresses), func(a Address) bool { return string(a) == name })
	now.Logins = slices.DeleteFunc(slices.Clone(was.Logins), func(l Login) bool { return string(l) == name })
	if len(now.Addresses) == 0 || now.Addresses[0] != was.Addresses[0] || now.At(false) != was.At(false) || now.At(true) != was.At(true) || slices.Contains(now.Keys(), name) {
		return nil, fmt.Errorf("%s of agency %s: %w: mailbox %s is known by it on a platform, and has %s, which nobody else claims", name, agency, ErrNotReleased, was.Mailbox, was.Keys()[alone])
	}
	rows[n] = now
	return NewMapping(agency, rows)
}
