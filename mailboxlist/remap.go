package mailboxlist

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"mailcutover/routing"
)

// Remap is what bringing a list into force changes where the list is no pure addition:
// the new mappings of all agencies concerned, which have to change together, and every
// answer that would be another one.
type Remap struct {
	Agencies []RemapAgency // by id; only those whose mapping changes
	Changes  []Change      // by agency, then as [Change.String] orders them
	Fixed    int           // rows with fixed addresses that say what is known
}

// RemapAgency is an agency whose mapping changes.
type RemapAgency struct {
	Record  routing.Agency   // as it was read, with the mapping in force
	Before  int              // mailboxes
	Mapping *routing.Mapping // that would be in force
	Added   int              // rows whose mailbox the agency doesn't have
	Gone    int              // mailboxes that go to other agencies
	Changed int              // known mailboxes of which the list says something else
}

// Change is one answer that would be another one.
type Change struct {
	Agency routing.AgencyID // that has the name now; of a name that nobody has, that gets it
	What   string           // address or login, or of a mailbox: kind, or a place such as target address
	Name   string           // address or login; of a place or kind, the mailbox's directory id
	From   string           // who has it, or what it is, now; nobody, if nobody has the name
	To     string           // the same with the list
}

// ChangePlatform is what a [Change] is about where a mailbox goes to an agency that is on another
// platform. A remap moves no mail: what lies on the one has to be brought to the other.
const ChangePlatform = "platform"

// nobody stands in a Change for who doesn't exist.
const nobody = "nobody"

// String returns the change in words.
func (c Change) String() string {
	return fmt.Sprintf("%s %s: %s -> %s", c.What, c.Name, c.From, c.To)
}

// Adds reports whether nobody has had what the change is about.
func (c Change) Adds() bool { return c.From == nobody }

// Takes reports whether nobody will have it.
func (c Change) Takes() bool { return c.To == nobody }

// OnlyAdds reports whether no answer that is given now changes, so that the list may be
// imported as it is.
func (r *Remap) OnlyAdds() bool {
	return !slices.ContainsFunc(r.Changes, func(c Change) bool { return !c.Adds() })
}

// Remap says what bringing l into force changes in a table that stands as s, whatever
// answers that changes. A row says all that its mailbox has: names that the mailbox has
// and the row doesn't name, it loses; a mailbox that another agency has goes to the row's
// agency. What the list doesn't name stays as it is, so a name of a mailbox that isn't in
// the list can't be given to another. Fixed addresses are not changed by it. platforms and
// separator are those of [List.Plan]; the error is *Problems.
func (l *List) Remap(s *routing.State, platforms []routing.PlatformID, separator string) (*Remap, error) {
	p := &planner{
		state: s, separator: separator, lines: make(map[routing.MailboxID]Mailbox, len(l.Mailboxes)),
		exact: make(map[string]claim), folded: make(map[string]claim), concerned: make(map[routing.AgencyID]bool),
	}
	for _, m := range l.Mailboxes {
		if other, twice := p.lines[m.Mailbox]; twice {
			p.add(m.Line, "directory_id %s stands in line %d too, for agency %s", m.Mailbox, other.Line, other.Agency)
			continue
		}
		p.lines[m.Mailbox] = m
	}
	has := p.whereNow()
	plans := p.remapAgencies(has)
	for i := range l.Mailboxes {
		m := &l.Mailboxes[i]
		for _, key := range m.Keys() {
			p.claimNew(key, claim{line: m.Line, agency: m.Agency, mailbox: m.Mailbox}, slices.Contains(m.Addresses, routing.Address(key)))
		}
	}
	known := &Plan{}
	p.fixed(l.Fixed, platforms, known)
	for _, f := range known.Fixed {
		p.add(0, "%s: a remap adds no fixed address; import it by itself", f.Address)
	}
	if p.Total > 0 {
		return nil, p.err()
	}
	r := &Remap{Fixed: known.FixedUnchanged}
	for i := range plans {
		p.remapAgency(r, &plans[i], has)
	}
	if p.Total > 0 || len(r.Agencies) == 0 {
		return r, p.err()
	}
	then := p.checkRemap(r, plans)
	if err := p.err(); err != nil {
		return nil, err
	}
	r.Changes = p.changes(then, has)
	return r, nil
}

// whereNow returns which agency has each mailbox of the list now.
func (p *planner) whereNow() map[routing.MailboxID]routing.AgencyID {
	has := make(map[routing.MailboxID]routing.AgencyID, len(p.lines))
	for _, a := range p.state.Agencies() {
		m := p.state.Mapping(a.ID)
		if m == nil {
			continue
		}
		found := func(id routing.MailboxID) {
			if other, twice := has[id]; twice {
				p.add(p.lines[id].Line, "mailbox %s is in two agencies, %s and %s: release its names from one of them first", id, other, a.ID)
			}
			has[id] = a.ID
		}
		if len(p.lines) < m.Len()/16 {
			for id := range p.lines {
				if _, ok := m.Mailbox(id); ok {
					found(id)
				}
			}
			continue
		}
		for row := range m.Rows() {
			if _, ok := p.lines[row.Mailbox]; ok {
				found(row.Mailbox)
			}
		}
	}
	return has
}

// remapAgencies returns the agencies of the list's rows, and those that have their
// mailboxes now, with the rows as they would be. Names of mailboxes that aren't in the
// list are entered.
func (p *planner) remapAgencies(has map[routing.MailboxID]routing.AgencyID) []AgencyPlan {
	rows := make(map[routing.AgencyID][]Mailbox)
	first := make(map[routing.AgencyID]int) // line that concerns the agency
	for _, m := range p.lines {
		rows[m.Agency] = append(rows[m.Agency], m)
		for _, id := range []routing.AgencyID{m.Agency, has[m.Mailbox]} {
			if line, ok := first[id]; id != "" && (!ok || m.Line < line) {
				first[id] = m.Line
			}
		}
	}
	var plans []AgencyPlan
	for _, id := range slices.Sorted(maps.Keys(first)) {
		record, ok := p.state.Agency(id)
		old := p.state.Mapping(id)
		switch {
		case !ok:
			for _, m := range rows[id] {
				p.add(m.Line, "agency: no agency %q in the table; add it first", id)
			}
			continue
		case old == nil:
			p.add(first[id], "agency %s: its mapping is not on this node", id)
			continue
		case record.Operation != "":
			p.add(first[id], "agency %s: operation %s is under way; come back when it has ended", id, record.Operation)
			continue
		}
		p.concerned[id] = true
		list := rows[id]
		slices.SortFunc(list, func(a, b Mailbox) int { return a.Line - b.Line })
		plan := AgencyPlan{Record: record, rows: list, next: make(map[routing.MailboxID]routing.Row, old.Len()+len(list))}
		for row := range old.Rows() {
			if _, named := p.lines[row.Mailbox]; named {
				continue
			}
			plan.next[row.Mailbox] = row
			for _, key := range row.Keys() {
				p.enter(key, claim{agency: id, mailbox: row.Mailbox})
			}
		}
		for _, m := range list {
			plan.next[m.Mailbox] = m.Row
		}
		plans = append(plans, plan)
	}
	return plans
}

// remapAgency makes the mapping of one agency, and adds it to r if it is another one.
func (p *planner) remapAgency(r *Remap, plan *AgencyPlan, has map[routing.MailboxID]routing.AgencyID) {
	id := plan.Record.ID
	old := p.state.Mapping(id)
	m, err := routing.NewMapping(id, slices.Collect(maps.Values(plan.next)))
	if err != nil {
		p.add(0, "agency %s: %s", id, err)
		return
	}
	plan.Mapping = m
	if m.Digest() == old.Digest() {
		return
	}
	a := RemapAgency{Record: plan.Record, Before: old.Len(), Mapping: m}
	for _, row := range plan.rows {
		is, _ := m.Mailbox(row.Mailbox)
		switch was, ok := old.Mailbox(row.Mailbox); {
		case !ok:
			a.Added++
		case !sameRow(was, is):
			a.Changed++
		}
	}
	for mailbox, agency := range has {
		if agency == id && p.lines[mailbox].Agency != id {
			a.Gone++
		}
	}
	r.Agencies = append(r.Agencies, a)
}

// sameRow compares two rows as mappings return them.
func sameRow(a, b routing.Row) bool {
	return a.Kind == b.Kind && a.Source == b.Source && a.Target == b.Target && slices.Equal(a.Addresses, b.Addresses) && slices.Equal(a.Logins, b.Logins)
}

// checkRemap checks the mappings of r together, in the table as it would be, and returns
// that.
func (p *planner) checkRemap(r *Remap, plans []AgencyPlan) *routing.State {
	var u routing.Update
	for i := range r.Agencies {
		record := r.Agencies[i].Record
		record.Mapping = r.Agencies[i].Mapping.Digest()
		u.Agencies, u.Mappings = append(u.Agencies, record), append(u.Mappings, r.Agencies[i].Mapping)
	}
	then, err := p.state.Apply(u)
	if err != nil {
		p.add(0, "%s", err)
		return nil
	}
	for i := range plans {
		p.fits(then, &plans[i])
	}
	return then
}

// changes lists the answers about the mailboxes of the list that differ between now and
// then.
func (p *planner) changes(then *routing.State, has map[routing.MailboxID]routing.AgencyID) []Change {
	mail, logins := make(map[routing.Address]bool), make(map[routing.Login]bool)
	var all []Change
	names := func(row *routing.Row) {
		for _, key := range row.Keys() {
			if a, err := routing.ParseAddressKey(key); err == nil {
				mail[a] = true
			}
		}
		for _, l := range row.Logins {
			logins[l] = true
		}
	}
	for id, m := range p.lines {
		is, _ := then.Mapping(m.Agency).Mailbox(id)
		names(&is)
		agency, known := has[id]
		if !known {
			continue
		}
		was, _ := p.state.Mapping(agency).Mailbox(id)
		names(&was)
		all = append(all, placeChanges(agency, &was, &is)...)
		before, _ := p.state.Agency(agency)
		after, _ := then.Agency(m.Agency)
		if before.Platform() != after.Platform() {
			all = append(all, Change{Agency: agency, What: ChangePlatform, Name: id.String(), From: string(before.Platform()), To: string(after.Platform())})
		}
	}
	for a := range mail {
		now, next := p.state.DecideAddress(a, p.separator), then.DecideAddress(a, p.separator)
		all = appendChange(all, "address", string(a), p.state, &now, then, &next)
	}
	for l := range logins {
		now, next := p.state.DecideLogin(l), then.DecideLogin(l)
		all = appendChange(all, "login", string(l), p.state, &now, then, &next)
	}
	slices.SortFunc(all, func(a, b Change) int {
		if d := strings.Compare(string(a.Agency), string(b.Agency)); d != 0 {
			return d
		}
		return strings.Compare(a.String(), b.String())
	})
	return all
}

// placeChanges lists what platforms are told of a mailbox otherwise.
func placeChanges(agency routing.AgencyID, was, is *routing.Row) (all []Change) {
	add := func(what, from, to string) {
		if from != to {
			all = append(all, Change{Agency: agency, What: what, Name: was.Mailbox.String(), From: from, To: to})
		}
	}
	add("kind", was.Kind.String(), is.Kind.String())
	add("primary address", string(was.Addresses[0]), string(is.Addresses[0]))
	for side, target := range []bool{false, true} {
		name := []string{"source", "target"}[side]
		before, after := was.At(target), is.At(target)
		add(name+" address", string(before.Address), string(after.Address))
		add(name+" login", before.Login, after.Login)
	}
	return all
}

func appendChange(all []Change, what, name string, s *routing.State, now *routing.Decision, then *routing.State, next *routing.Decision) []Change {
	if now.Agency == next.Agency && now.Mailbox == next.Mailbox {
		return all
	}
	c := Change{Agency: now.Agency, What: what, Name: name, From: holder(s, now), To: holder(then, next)}
	if c.Agency == "" {
		c.Agency = next.Agency
	}
	return append(all, c)
}

// holder says who has the name that d is about.
func holder(s *routing.State, d *routing.Decision) string {
	switch {
	case d.Reason == routing.ReasonFixed:
		return "the fixed address on " + string(d.Platform)
	case d.Reason == routing.ReasonConflict:
		return "nobody, since two claim it"
	case d.Agency == "":
		return nobody
	}
	row, _ := s.Mapping(d.Agency).Mailbox(d.Mailbox)
	return fmt.Sprintf("mailbox %s (%s) of agency %s", d.Mailbox, row.Addresses[0], d.Agency)
}
