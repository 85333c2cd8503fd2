package routing

import (
	"fmt"
	"slices"
)

// Reason says in one word why a decision is what it is.
type Reason uint8

const (
	ReasonUnknown      Reason = iota // not decided: treat as closed
	ReasonOpen                       // the agency is open
	ReasonFixed                      // a fixed address, at its home platform
	ReasonInPhase                    // the agency is in a closed phase
	ReasonUnpublished                // committed, not yet published
	ReasonLocked                     // an operator's lock
	ReasonBadRecord                  // a phase that we don't know, or no mapping: closed
	ReasonConflict                   // two agencies claim the name: closed
	ReasonNoSuchName                 // a served domain, or a login, without a record
	ReasonForeign                    // a domain that isn't served
	ReasonRegressed                  // a record with a higher epoch, or another one with this epoch, was seen: closed
	ReasonTableUnavail               // no table to read from, or no right to decide
)

var reasonWords = [...]string{"not decided", "agency is open", "fixed address", "agency is closed", "committed, not yet published",
	"agency is locked", "agency's record can't be used", "two agencies claim the name", "no record of this name",
	"domain is not served", "agency's record is older than one seen before", "table can't be used"}

// String returns the reason in words.
func (r Reason) String() string {
	if int(r) < len(reasonWords) {
		return reasonWords[r]
	}
	return reasonWords[ReasonUnknown]
}

// Decision is the answer for one address or login, from one State.
type Decision struct {
	Reason   Reason
	Agency   AgencyID   // empty for a fixed address, and where no agency has the name
	Mailbox  MailboxID  // zero for a fixed address
	Platform PlatformID // that holds the mailbox now, or did last; go there only if Deliver
	Address  Address    // the table's canonical address on that platform
	Login    string     // what that platform is told at login; empty for a fixed address
	Phase    Phase
	Epoch    Epoch  // version of the agency's record; kept with whatever is done
	Mapping  Digest // that was in force; with the epoch, it says by which rows this was decided
	Nonce    Nonce
	Armed    bool // a check is due before each final dot or login
	Group    bool // a fixed address that is a group's
}

// Deliver reports whether mail or a login may go to Platform.
func (d *Decision) Deliver() bool { return d.Reason == ReasonOpen || d.Reason == ReasonFixed }

// Closed reports whether the name is known and its agency closed: mail is held, logins
// wait or are sent away.
func (d *Decision) Closed() bool {
	switch d.Reason {
	case ReasonInPhase, ReasonUnpublished, ReasonLocked, ReasonBadRecord, ReasonRegressed, ReasonConflict:
		return true
	}
	return false
}

// Explain returns the decision in words, for people.
func (d *Decision) Explain() string {
	switch d.Reason {
	case ReasonOpen:
		return fmt.Sprintf("agency %s is open in phase %s, epoch %s: mailbox %s is %s on %s", d.Agency, d.Phase, d.Epoch, d.Mailbox, d.Address, d.Platform)
	case ReasonFixed:
		return fmt.Sprintf("fixed address: %s on %s", d.Address, d.Platform)
	case ReasonInPhase, ReasonUnpublished, ReasonLocked, ReasonBadRecord, ReasonRegressed:
		return fmt.Sprintf("%s: %s, phase %s, epoch %s", d.Reason, d.Agency, d.Phase, d.Epoch)
	default:
		return d.Reason.String()
	}
}

// DecideAddress decides for a canonical address. separator is that of sub-addressing,
// or empty: if it is certain that nobody has the whole address, in whatever role, the one
// without the detail is asked. It neither locks nor allocates, but for an address with
// detail.
func (s *State) DecideAddress(a Address, separator string) (d Decision) {
	claimed := s.decide(&d, string(a), true)
	if d.Reason != ReasonNoSuchName && d.Reason != ReasonTableUnavail || !s.loaded() {
		return d
	}
	if _, served := s.domains[a.Domain()]; !served {
		d.Reason = ReasonTableUnavail
		if s.foreign(a.Domain()) {
			d.Reason = ReasonForeign
		}
		return d
	}
	if base, ok := a.WithoutDetail(separator); ok && !claimed && d.Reason == ReasonNoSuchName {
		s.decide(&d, string(base), true)
	}
	return d
}

// DecideLogin decides for a login: a name that a mapping lists as one, or an address.
func (s *State) DecideLogin(l Login) (d Decision) {
	s.decide(&d, string(l), false)
	return d
}

// SameNames reports whether it is certain, without a look at each, that every address leads to
// the same mailbox, or to none, in both. What closes or moves an agency makes no difference.
func (s *State) SameNames(o *State) bool {
	return s.pos.Incarnation == o.pos.Incarnation && s.pos.Term == o.pos.Term && s.pos.Mapped == o.pos.Mapped &&
		s.missing == o.missing && s.doubtful == o.doubtful &&
		slices.EqualFunc(s.agencies, o.agencies, func(a, b *agencyState) bool { return a.ID == b.ID && a.mapping == b.mapping })
}

// loaded reports whether s was read from a table. Of one that wasn't, it isn't known that
// a name has no record or a domain is not served.
func (s *State) loaded() bool { return s.pos.Incarnation != "" }

// decide sets d, whose fields are zero but for Reason, to the decision for a key. claimed
// says that a mailbox or fixed address has the key, though perhaps not in the role that
// was asked for. A key that two have, in whatever roles, is closed: see
// [State.CheckMapping].
func (s *State) decide(d *Decision, key string, mail bool) (claimed bool) {
	d.Reason = ReasonNoSuchName
	if s.missing > 0 || s.doubtful || !s.loaded() {
		d.Reason = ReasonTableUnavail // unless an agency has it, one of those may
	}
	var (
		holder where
		line   string
		found  names
	)
	h := hashKey(key)
	for w, pos := s.index.next(h, h); w.agency >= 0; w, pos = s.index.next(h, pos) {
		if claimed && w == holder {
			continue // entered for another of its keys
		}
		if w.agency == ofFixed {
			if _, ok := s.fixed[Address(key)]; !ok {
				continue
			}
		} else {
			l, ok := s.line(w)
			if !ok {
				continue
			}
			if claimed {
				if lineHas(l, key) {
					d.Reason = ReasonConflict
					return true
				}
				continue
			}
			if found.read(l, key); found.roles == 0 {
				if !lineHas(l, key) {
					found = names{}
					continue
				}
				found.roles = place // a platform's login, which stands there as the platform spells it
			}
			line = l
		}
		if claimed {
			d.Reason = ReasonConflict
			return true
		}
		claimed, holder = true, w
	}
	switch {
	case !claimed:
	case holder.agency == ofFixed:
		if f := s.fixed[Address(key)]; mail {
			d.Reason, d.Platform, d.Address, d.Group = ReasonFixed, f.Platform, f.At, f.Kind == kindGroup
			if d.Address == "" {
				d.Address = f.Address
			}
		}
	case found.roles&address != 0 || !mail && found.roles&login != 0:
		s.agencies[holder.agency].decide(d, line, &found)
	}
	return claimed
}

// decide sets d to the decision for a mailbox of the agency.
func (a *agencyState) decide(d *Decision, line string, n *names) {
	at := n.source
	if a.Phase.OnTarget() {
		at = n.target
	}
	at = at.complete(n.primary, n.first)
	d.Agency, d.Mailbox, d.Platform = a.ID, parseCanonicalID(line[:36]), a.Platform()
	d.Address, d.Login = at.Address, at.Login
	d.Phase, d.Epoch, d.Nonce, d.Armed = a.Phase, a.Epoch, a.Nonce, a.Tightness != Settled
	d.Mapping = a.Mapping
	switch {
	case d.Platform == "":
		d.Reason = ReasonBadRecord
	case a.above != nil:
		d.Reason = ReasonRegressed
	case a.Locked:
		d.Reason = ReasonLocked
	case !a.Phase.Open():
		d.Reason = ReasonInPhase
	case !a.Published:
		d.Reason = ReasonUnpublished
	default:
		d.Reason = ReasonOpen
	}
}
