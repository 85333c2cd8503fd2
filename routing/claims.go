package routing

import (
	"fmt"
	"slices"
)

// Claim says who has a name: a mailbox of an agency, or a fixed address.
type Claim struct {
	Agency   AgencyID   // empty for a fixed address
	Mailbox  MailboxID  // zero for a fixed address
	Kind     FixedKind  // of a fixed address
	Platform PlatformID // of a fixed address
}

// String returns the claim in words.
func (c Claim) String() string {
	if c.Agency == "" {
		return fmt.Sprintf("the fixed address of a %s on %s", c.Kind, c.Platform)
	}
	return fmt.Sprintf("mailbox %s of agency %s", c.Mailbox, c.Agency)
}

// Claims returns who has a name, in whatever role. More than one is a conflict: the name
// is closed, see [State.DecideAddress].
func (s *State) Claims(name string) []Claim {
	var claims []Claim
	h := hashKey(name)
	for w, pos := s.index.next(h, h); w.agency >= 0; w, pos = s.index.next(h, pos) {
		var c Claim
		if w.agency == ofFixed {
			f, ok := s.fixed[Address(name)]
			if !ok {
				continue
			}
			c = Claim{Kind: f.Kind, Platform: f.Platform}
		} else {
			line, ok := s.line(w)
			if !ok || !lineHas(line, name) {
				continue
			}
			c = Claim{Agency: s.agencies[w.agency].ID, Mailbox: parseCanonicalID(line[:36])}
		}
		if !slices.Contains(claims, c) {
			claims = append(claims, c)
		}
	}
	return claims
}

// Conflicts returns names that two have, in order, at most limit of them, and how many
// there are. Mail and logins under them are closed; [State.Claims] says who has one. No
// import makes such a name; a table that has one was written by other means.
func (s *State) Conflicts(limit int) (names []string, total int) {
	return slices.Clone(s.conflicts[:min(limit, len(s.conflicts))]), len(s.conflicts)
}

// noteConflicts keeps those names that still have, or now have, more than one claim.
// Names in two mappings share a place in the index, where a new entry finds the older
// one: so only suspects need a look, and those that were in conflict before.
func (s *State) noteConflicts(suspects []string) {
	suspects = slices.Concat(s.conflicts, suspects)
	slices.Sort(suspects)
	s.conflicts = nil
	for _, name := range slices.Compact(suspects) {
		if len(s.Claims(name)) > 1 {
			s.conflicts = append(s.conflicts, name)
		}
	}
}
