package routing

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
)

// Position returns where in the table's life s stands.
func (s *State) Position() Position { return s.pos }

// Agency returns an agency's record.
func (s *State) Agency(id AgencyID) (Agency, bool) {
	i, ok := s.byID[id]
	if !ok {
		return Agency{}, false
	}
	return s.agencies[i].Agency, true
}

// Agencies returns all records, by id.
func (s *State) Agencies() []Agency {
	all := make([]Agency, 0, len(s.agencies))
	for _, id := range slices.Sorted(maps.Keys(s.byID)) {
		all = append(all, s.agencies[s.byID[id]].Agency)
	}
	return all
}

// Mapping returns the mapping in force of an agency; nil if the agency is unknown or
// its mapping could not be loaded.
func (s *State) Mapping(id AgencyID) *Mapping {
	i, ok := s.byID[id]
	if !ok {
		return nil
	}
	return s.agencies[i].mapping
}

// Len returns the number of agencies.
func (s *State) Len() int { return len(s.agencies) }

// Mailboxes returns the number of mailboxes in the mappings that are there.
func (s *State) Mailboxes() int {
	n := 0
	for _, a := range s.agencies {
		if a.mapping != nil {
			n += a.mapping.Len()
		}
	}
	return n
}

// Missing returns the agencies whose mapping isn't there, by id. While there is one, a
// name without a record may be one of theirs.
func (s *State) Missing() []AgencyID {
	var ids []AgencyID
	for _, a := range s.agencies {
		if a.mapping == nil {
			ids = append(ids, a.ID)
		}
	}
	slices.Sort(ids)
	return ids
}

// Seen returns the record that the agency's doesn't follow: one with a higher epoch, or
// with the same epoch and another answer. The agency reads as closed until its epoch is
// above it. ok is false where all is well.
func (s *State) Seen(id AgencyID) (record Agency, ok bool) {
	if i, known := s.byID[id]; known && s.agencies[i].above != nil {
		return *s.agencies[i].above, true
	}
	return Agency{}, false
}

// Regressed returns the agencies for which [State.Seen] knows a record, by id.
func (s *State) Regressed() []AgencyID {
	var ids []AgencyID
	for _, a := range s.agencies {
		if a.above != nil {
			ids = append(ids, a.ID)
		}
	}
	slices.Sort(ids)
	return ids
}

// Domains returns the served domains, by name.
func (s *State) Domains() []Domain {
	all := make([]Domain, 0, len(s.domains))
	for _, name := range slices.Sorted(maps.Keys(s.domains)) {
		all = append(all, s.domains[name])
	}
	return all
}

// LostDomains returns, by name, the domains that the table no longer names though nobody
// removed them: it came back with less than it had. Each is marked as lost.
func (s *State) LostDomains() []Domain {
	var all []Domain
	for _, name := range slices.Sorted(maps.Keys(s.lost)) {
		d := s.lost[name]
		d.Lost = true
		all = append(all, d)
	}
	return all
}

// foreign reports whether it is certain that a domain is not served. An empty table proves
// nothing: it may be in the place of one that was lost.
func (s *State) foreign(domain string) bool {
	_, served := s.domains[domain]
	_, lost := s.lost[domain]
	return !served && !lost && !s.doubtful && len(s.domains) > 0
}

// Domain returns a served domain.
func (s *State) Domain(name string) (Domain, bool) {
	d, ok := s.domains[name]
	return d, ok
}

// Members returns the nodes that the table knows, by name, the evicted ones too.
func (s *State) Members() []Member {
	return slices.SortedFunc(maps.Values(s.members), func(a, b Member) int { return strings.Compare(string(a.Node), string(b.Node)) })
}

// Member returns a node's record.
func (s *State) Member(id NodeID) (Member, bool) {
	m, ok := s.members[id]
	return m, ok
}

// Unconfirmed returns an ErrUnconfirmed while one person's word that a node is dead waits for
// a second one's; nil: none does.
func (s *State) Unconfirmed() error {
	for _, m := range s.Members() {
		if m.Unconfirmed != "" {
			return fmt.Errorf("%w: %s, in which node %s was attested dead", ErrUnconfirmed, m.Unconfirmed, m.Node)
		}
	}
	return nil
}

// Freezes returns the freezes in force, that of all agencies first.
func (s *State) Freezes() []Freeze {
	return slices.SortedFunc(maps.Values(s.freezes), func(a, b Freeze) int { return strings.Compare(string(a.Agency), string(b.Agency)) })
}

// Frozen returns the freeze that forbids an agency's operations to begin.
func (s *State) Frozen(id AgencyID) (Freeze, bool) {
	if f, ok := s.freezes[""]; ok {
		return f, true
	}
	f, ok := s.freezes[id]
	return f, ok
}

// Operations returns the operations that have not ended, the oldest first.
func (s *State) Operations() []Operation {
	return slices.SortedFunc(maps.Values(s.running), func(a, b Operation) int {
		return cmp.Or(a.Started.Compare(b.Started), strings.Compare(string(a.ID), string(b.ID)))
	})
}

// Operation returns an operation that has not ended.
func (s *State) Operation(id OperationID) (Operation, bool) {
	o, ok := s.running[id]
	return o, ok
}

// FixedAddresses returns the fixed addresses in no order.
func (s *State) FixedAddresses() iter.Seq[Fixed] { return maps.Values(s.fixed) }

// line returns the line that the index named, if it is in one of this State's mappings.
func (s *State) line(w where) (line string, ok bool) {
	if w.agency >= len(s.agencies) {
		return "", false // fixed, or an agency that a newer State knows
	}
	a := s.agencies[w.agency]
	if a.mapping == nil || a.generation != w.generation {
		return "", false
	}
	return a.mapping.line(w.offset), true
}
