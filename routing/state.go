package routing

import (
	"fmt"
	"iter"
	"maps"
	"slices"
	"unsafe"
)

// FixedKind is what a fixed address is: something whose home no agency's switch moves.
type FixedKind string

// kindGroup is the kind of groups, which may have rules on who writes to them.
const kindGroup FixedKind = "group"

// FixedKinds lists the kinds of fixed addresses.
func FixedKinds() []FixedKind {
	return []FixedKind{kindGroup, "folder", "contact", "application", "scanner"}
}

// Fixed is a fixed address and its home platform.
type Fixed struct {
	Address  Address    `json:"address"`
	Kind     FixedKind  `json:"kind"`
	Platform PlatformID `json:"platform"`
	At       Address    `json:"at,omitempty"` // address on the platform; empty: the same
	Removed  bool       `json:"removed,omitempty"`
	Revision Revision   `json:"revision"` // of the last change; set by the table
}

// Domain is a served domain.
type Domain struct {
	Name     string   `json:"name"`     // lower-case A-labels
	Complete bool     `json:"complete"` // all its addresses are in the table; a condition for "no such mailbox", not yet the proof
	Removed  bool     `json:"removed,omitempty"`
	Revision Revision `json:"revision"` // of the last change; set by the table

	// Lost is for a node's copy only: the table no longer names the domain, though nobody
	// removed it.
	Lost bool `json:"lost,omitempty"`
}

// Position is where in the life of a table a State stands.
type Position struct {
	Incarnation Incarnation `json:"incarnation"`
	Revision    Revision    `json:"revision"`
	Mapped      Revision    `json:"mapped"` // last revision that changed a mapping, a fixed address or a domain

	// Term is that of new epochs: it grows when another server takes over the table, or
	// the table comes back from a backup, so that what was lost is never taken for newer.
	Term uint32 `json:"term"`
}

// State is one consistent read of the whole table, immutable and safe for concurrent
// use. Successive States share what didn't change.
type State struct {
	pos       Position
	agencies  []*agencyState // by number, which an agency keeps in all later States
	byID      map[AgencyID]int
	domains   map[string]Domain
	lost      map[string]Domain // that a whole reading of the table didn't name any more; nil: none
	fixed     map[Address]Fixed
	members   map[NodeID]Member
	freezes   map[AgencyID]Freeze
	running   map[OperationID]Operation // that have not ended
	documents map[string]Document       // by key
	lineage   Lineage                   // of the last whole reading
	index     *keyIndex
	conflicts []string // names that two have, in order
	missing   int      // agencies without their mapping: nothing can be said to have no record
	lostNames bool     // this copy had names in a change that the table lost
	doubtful  bool     // so the table says, or lostNames: likewise
}

type agencyState struct {
	Agency
	mapping    *Mapping
	generation int     // of mapping, in the State's index
	above      *Agency // a record seen before that this one doesn't follow; nil if all is well
}

// follows makes a the successor of the record was. An epoch below one that was seen, or
// the same epoch with another answer, means that the table lost changes or that there
// are two histories: the agency reads as closed until its epoch is above what was seen.
func (a *agencyState) follows(was *agencyState) {
	top := &was.Agency
	if was.above != nil {
		top = was.above
	}
	switch c := a.Epoch.Compare(top.Epoch); {
	case c > 0 || c == 0 && a.answersAs(top):
	default:
		a.above = top
	}
}

// answersAs reports whether everything is equal that can't change within an epoch.
func (a *Agency) answersAs(o *Agency) bool {
	return a.Nonce == o.Nonce && a.Phase == o.Phase && a.Published == o.Published && a.Locked == o.Locked &&
		a.Source == o.Source && a.Target == o.Target
}

// NewState returns the State of a table without agencies.
func NewState(pos Position) *State {
	return &State{pos: pos, byID: map[AgencyID]int{}, domains: map[string]Domain{}, fixed: map[Address]Fixed{},
		members: map[NodeID]Member{}, freezes: map[AgencyID]Freeze{}, running: map[OperationID]Operation{}, documents: map[string]Document{}, index: newKeyIndex(0)}
}

// Update is what one revision, or a snapshot, sets. Records that it doesn't name stay.
type Update struct {
	Position Position // after it; the zero Position leaves that of the State
	// Whole says that this is all the table has: fixed addresses that are not named are
	// gone. An agency that isn't named stays, closed, since agencies are never removed: the
	// table lost it. So does a domain, as one of which it isn't known whether it is served.
	Whole    bool
	Agencies []Agency
	Mappings []*Mapping // those that Agencies name and that the State doesn't have
	Domains  []Domain
	Fixed    []Fixed

	Members    []Member
	Freezes    []Freeze
	Operations []Operation
	Documents  []Document

	// Above are records that some node has seen and that the table lost: an agency whose
	// record doesn't follow the one here is closed, see [State.Seen].
	Above []Agency

	// Lineage is, in a whole reading, how the table came to where it stands: with it a copy
	// knows what of its own the table lost.
	Lineage Lineage

	// LostNames says that names were seen in a change that the table lost: see
	// [State.LosesNames].
	LostNames bool
}

// Apply returns the State after u; s stays as it is, and so do its readers. Who keeps the
// copy of a table applies to the newest State only; a State may also be made to try
// something, and dropped. An agency whose record names a mapping that was neither there
// nor given has none: none of its names is known, see [State.Missing].
func (s *State) Apply(u Update) (*State, error) {
	n := *s
	if u.Position != (Position{}) {
		n.pos = u.Position
	}
	n.agencies = slices.Clone(s.agencies)
	if slices.ContainsFunc(u.Agencies, func(a Agency) bool { _, ok := s.byID[a.ID]; return !ok }) {
		n.byID = maps.Clone(s.byID)
	}
	given := make(map[AgencyID]*Mapping, len(u.Mappings))
	for _, m := range u.Mappings {
		given[m.Agency()] = m
	}
	if u.Whole {
		named := make(map[AgencyID]bool, len(u.Agencies))
		for _, a := range u.Agencies {
			named[a.ID] = true
		}
		for i, a := range n.agencies {
			if a.above == nil && !named[a.ID] {
				n.agencies[i] = &agencyState{Agency: a.Agency, mapping: a.mapping, generation: a.generation, above: &a.Agency}
			}
		}
	}
	var added []int // numbers of agencies with a mapping that wasn't there
	keys := 0
	for _, a := range u.Agencies {
		next := &agencyState{Agency: a}
		i, known := n.byID[a.ID]
		if known {
			was := n.agencies[i]
			next.follows(was)
			next.mapping, next.generation = was.mapping, was.generation
			n.agencies[i] = next
		} else {
			i = len(n.agencies)
			n.byID[a.ID] = i
			n.agencies = append(n.agencies, next)
		}
		if next.mapping != nil && next.mapping.Digest() == a.Mapping {
			continue
		}
		m := given[a.ID]
		if a.Mapping.IsZero() {
			m = &Mapping{agency: a.ID}
		}
		if m == nil || m.Digest() != a.Mapping {
			next.mapping = nil
			continue
		}
		next.mapping = m
		added = append(added, i)
		keys += m.Keys()
	}
	n.sawAbove(u.Above)
	n.missing = 0
	for _, a := range n.agencies {
		if a.mapping == nil {
			n.missing++
		}
	}
	n.setDomains(u.Domains, u.Whole)
	if len(u.Fixed) > 0 || u.Whole {
		n.fixed = maps.Clone(s.fixed)
		if u.Whole {
			n.fixed = make(map[Address]Fixed, len(u.Fixed))
		}
		for _, f := range u.Fixed {
			n.fixed[f.Address] = f
			if f.Removed {
				delete(n.fixed, f.Address)
			}
		}
	}
	n.members = updated(s.members, u.Members, u.Whole, func(m Member) (NodeID, bool) { return m.Node, true })
	n.freezes = updated(s.freezes, u.Freezes, u.Whole, func(f Freeze) (AgencyID, bool) { return f.Agency, !f.Removed })
	n.running = updated(s.running, u.Operations, u.Whole, func(o Operation) (OperationID, bool) { return o.ID, !o.Ended })
	n.documents = updated(s.documents, u.Documents, u.Whole, func(d Document) (string, bool) { return d.Key, !d.Removed })
	_, told := n.documents[NamesLost]
	if u.Whole || u.Lineage != nil {
		n.lineage = u.Lineage
	}
	n.lostNames = (s.lostNames || u.LostNames) && !told && !u.removes(NamesLost)
	n.doubtful = n.lostNames || told
	if len(n.agencies) > maxAgencies {
		return nil, fmt.Errorf("apply revision %d: more than %d agencies", u.Position.Revision, maxAgencies)
	}
	n.enter(added, u.Fixed, keys+len(u.Fixed))
	return &n, nil
}

// removes reports whether u removes a document.
func (u *Update) removes(key string) bool {
	return slices.ContainsFunc(u.Documents, func(d Document) bool { return d.Key == key && d.Removed })
}

// setDomains sets these domains; whole says that the table has no others.
func (s *State) setDomains(domains []Domain, whole bool) {
	if len(domains) == 0 && !whole {
		return
	}
	served, lost := maps.Clone(s.domains), maps.Clone(s.lost)
	if lost == nil {
		lost = make(map[string]Domain)
	}
	if whole {
		maps.Copy(lost, served)
		clear(served)
	}
	for _, d := range domains {
		delete(served, d.Name)
		delete(lost, d.Name)
		switch {
		case d.Removed:
		case d.Lost:
			lost[d.Name] = d
		default:
			served[d.Name] = d
		}
	}
	s.domains, s.lost = served, lost
}

// updated returns m with these records set, those that don't stay removed, and where they
// are all there is, nothing else. m stays as it is.
func updated[K comparable, V any](m map[K]V, records []V, whole bool, key func(V) (k K, stays bool)) map[K]V {
	if len(records) == 0 && !whole {
		return m
	}
	n := make(map[K]V, len(m)+len(records))
	if !whole {
		maps.Copy(n, m)
	}
	for _, r := range records {
		k, stays := key(r)
		if n[k] = r; !stays {
			delete(n, k)
		}
	}
	return n
}

// sawAbove takes note of records that the table lost. n.agencies is n's own.
func (n *State) sawAbove(records []Agency) {
	for i := range records {
		seen := &records[i]
		number, known := n.byID[seen.ID]
		if !known {
			continue // a whole record that is lost, which nobody routes by
		}
		was := n.agencies[number]
		if was.above != nil && was.above.Epoch.Compare(seen.Epoch) >= 0 {
			continue
		}
		next := *was
		if next.follows(&agencyState{Agency: *seen}); next.above != nil {
			n.agencies[number] = &next
		}
	}
}

// enter adds the mappings of these agencies and these fixed addresses to the index, or
// makes a new one when the old one has no room. The agencies' states are new.
func (s *State) enter(agencies []int, fixed []Fixed, keys int) {
	s.index.mu.Lock()
	defer s.index.mu.Unlock()
	room := s.index.hasRoom(keys)
	var suspects []string // names that two may have
	for _, i := range agencies {
		room = room && s.index.generations[i] < maxGenerations
	}
	if room {
		for _, i := range agencies {
			s.agencies[i].generation = s.index.addMapping(i, s.agencies[i].mapping, &suspects)
		}
		for _, f := range fixed {
			if s.index.add(hashKey(string(f.Address)), where{agency: ofFixed}) {
				suspects = append(suspects, string(f.Address))
			}
		}
		s.noteConflicts(suspects)
		return
	}
	total := len(s.fixed)
	for _, a := range s.agencies {
		if a.mapping != nil {
			total += a.mapping.Keys()
		}
	}
	fresh := newKeyIndex(total + total/8)
	for i, a := range s.agencies {
		if a.mapping != nil {
			renewed := *a // older States have a, with the older index
			renewed.generation = fresh.addMapping(i, a.mapping, &suspects)
			s.agencies[i] = &renewed
		}
	}
	for key := range s.fixed {
		if fresh.add(hashKey(string(key)), where{agency: ofFixed}) {
			suspects = append(suspects, string(key))
		}
	}
	s.index = fresh
	s.noteConflicts(suspects)
}

// Memory returns the stretches of memory that decisions look into, so that a program can
// ask the kernel for large pages there. They must not be written.
func (s *State) Memory() iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		slots := s.index.slots
		if !yield(unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(slots))), len(slots)*int(unsafe.Sizeof(slots[0])))) {
			return
		}
		for _, a := range s.agencies {
			if a.mapping != nil && !yield(unsafe.Slice(unsafe.StringData(a.mapping.text), len(a.mapping.text))) {
				return
			}
		}
	}
}
