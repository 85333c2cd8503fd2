package mailboxlist

import (
	"fmt"
	"maps"
	"slices"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

// Plan is what storing a list changes.
type Plan struct {
	Agencies       []AgencyPlan    // by id; also those for which nothing is new
	Fixed          []routing.Fixed // new ones
	FixedUnchanged int
}

// AgencyPlan is what a list changes for one agency.
type AgencyPlan struct {
	Record    routing.Agency   // as it was read; its Mapping is the new one's digest
	Mapping   *routing.Mapping // in force, with the list's additions
	rows      []Mailbox        // of the list
	next      map[routing.MailboxID]routing.Row
	Added     int // mailboxes
	Extended  int // known mailboxes that get more names
	Unchanged int // rows that say what is known
}

// Changed reports whether the agency gets another mapping.
func (a *AgencyPlan) Changed() bool { return a.Added+a.Extended > 0 }

// Changed reports whether there is anything to store.
func (p *Plan) Changed() bool {
	return len(p.Fixed) > 0 || slices.ContainsFunc(p.Agencies, func(a AgencyPlan) bool { return a.Changed() })
}

// planner collects what is wrong while a plan is made.
type planner struct {
	Problems
	state     *routing.State
	separator string
	lines     map[routing.MailboxID]Mailbox // of the list, by directory id
	exact     map[string]claim              // names of the list and of its agencies
	folded    map[string]claim              // the same by skeleton, those that aren't their own

	// concerned are, for a remap, the agencies that it closes: what they answer may change.
	// nil: nothing may.
	concerned map[routing.AgencyID]bool
}

// claim says who has a name.
type claim struct {
	line    int // 0: the table
	agency  routing.AgencyID
	mailbox routing.MailboxID // zero: a fixed address
}

// fixed reports whether c is that of a fixed address.
func (c claim) fixed() bool { return c.mailbox.IsZero() }

// same reports whether both are claims of one mailbox. One directory id in two agencies
// is two mailboxes, and so are two fixed addresses.
func (c claim) same(o claim) bool {
	return c.agency == o.agency && c.mailbox == o.mailbox && !c.fixed()
}

func (c claim) String() string {
	who := "fixed address"
	if !c.fixed() {
		who = fmt.Sprintf("mailbox %s of agency %s", c.mailbox, c.agency)
	}
	if c.line > 0 {
		return fmt.Sprintf("%s, line %d", who, c.line)
	}
	return who + ", in the table"
}

// Plan says what storing l changes in a table that stands as s; platforms are those that
// are configured, and separator is that of sub-addressing, or empty. The error is
// *Problems with every row that can't be stored.
func (l *List) Plan(s *routing.State, platforms []routing.PlatformID, separator string) (*Plan, error) {
	p := &planner{
		state: s, separator: separator, lines: make(map[routing.MailboxID]Mailbox, len(l.Mailboxes)),
		exact: make(map[string]claim), folded: make(map[string]claim),
	}
	plan := &Plan{}
	rows := make(map[routing.AgencyID][]Mailbox)
	for _, m := range l.Mailboxes {
		rows[m.Agency] = append(rows[m.Agency], m)
	}
	agencies := slices.Sorted(maps.Keys(rows))
	for _, id := range agencies {
		p.claimOld(id)
	}
	for _, id := range agencies {
		if a := p.agency(id, rows[id]); a != nil {
			plan.Agencies = append(plan.Agencies, *a)
		}
	}
	p.fixed(l.Fixed, platforms, plan)
	p.check(plan)
	if n := len(plan.Fixed) + len(plan.Agencies); n > table.MaxRecords {
		p.add(0, "%d agencies and new fixed addresses: want at most %d in a list; split it", n, table.MaxRecords)
	}
	if err := p.err(); err != nil {
		return nil, err
	}
	return plan, nil
}

// claimOld enters the names that an agency has now.
func (p *planner) claimOld(id routing.AgencyID) {
	m := p.state.Mapping(id)
	if m == nil {
		return
	}
	for r := range m.Rows() {
		for _, key := range r.Keys() {
			p.enter(key, claim{agency: id, mailbox: r.Mailbox})
		}
	}
}

func (p *planner) enter(key string, c claim) {
	p.exact[key] = c
	if s := routing.Address(key).Skeleton(); s != key {
		p.folded[s] = c
	}
}

// claimNew enters a name of the list, or reports who has it. mail says that it becomes an
// address, and not only a login or a place.
func (p *planner) claimNew(key string, c claim, mail bool) (mine bool) {
	if has, ok := p.exact[key]; ok {
		if !has.same(c) {
			p.add(c.line, "%s belongs to another: %s%s", key, has, p.unnamed(has))
			return false
		}
		return true
	}
	s := routing.Address(key).Skeleton()
	for _, names := range []map[string]claim{p.folded, p.exact} {
		if has, ok := names[s]; ok && !has.same(c) && !(has.fixed() && c.fixed()) {
			p.add(c.line, "%s folds together with a name of another: %s", key, has)
			return false
		}
	}
	if scripts := routing.MixedScripts(key); scripts != "" && (p.concerned == nil || len(p.state.Claims(key)) == 0) {
		p.add(c.line, "%s has letters of %s side by side: write it in one alphabet", key, scripts)
		return false
	}
	if err := p.state.CheckDetail(routing.Address(key), c.mailbox, mail, p.separator); err != nil && !p.mayChange(key) {
		p.add(c.line, "%s", err)
		return false
	}
	p.enter(key, c)
	return true
}

// mayChange reports whether who has key now, perhaps without its detail, is closed while
// it goes to another.
func (p *planner) mayChange(key string) bool {
	base, _ := routing.Address(key).WithoutDetail(p.separator)
	d := p.state.DecideAddress(base, "")
	return p.concerned[d.Agency]
}

// unnamed says how a remap could take a name from a mailbox that its list leaves alone.
func (p *planner) unnamed(has claim) string {
	if p.concerned == nil || has.line > 0 || has.fixed() {
		return ""
	}
	return "; what the list doesn't name stays: give that mailbox a row too, without the name"
}

// agency plans the rows of one agency; nil if they can't be stored.
func (p *planner) agency(id routing.AgencyID, list []Mailbox) *AgencyPlan {
	before := p.Total
	record, ok := p.state.Agency(id)
	old := p.state.Mapping(id)
	switch {
	case !ok:
		for _, m := range list {
			p.add(m.Line, "agency: no agency %q in the table; add it first", id)
		}
		return nil
	case old == nil:
		p.add(list[0].Line, "agency %s: its mapping is not on this node", id)
		return nil
	case record.Operation != "":
		p.add(list[0].Line, "agency %s: operation %s is under way; import when it has ended", id, record.Operation)
		return nil
	}
	a := &AgencyPlan{Record: record, rows: list}
	next := make(map[routing.MailboxID]routing.Row, old.Len()+len(list))
	for r := range old.Rows() {
		next[r.Mailbox] = r
	}
	for i := range list {
		m := &list[i]
		if other, twice := p.lines[m.Mailbox]; twice {
			p.add(m.Line, "directory_id %s stands in line %d too, for agency %s", m.Mailbox, other.Line, other.Agency)
			continue
		}
		p.lines[m.Mailbox] = *m
		for _, key := range m.Keys() {
			p.claimNew(key, claim{line: m.Line, agency: id, mailbox: m.Mailbox}, slices.Contains(m.Addresses, routing.Address(key)))
		}
		was, known := next[m.Mailbox]
		if !known {
			next[m.Mailbox] = m.Row
			a.Added++
			continue
		}
		row, changed := p.merge(was, m)
		next[m.Mailbox] = row
		if changed {
			a.Extended++
		} else {
			a.Unchanged++
		}
	}
	if p.Total > before {
		return nil
	}
	a.Mapping = old
	if !a.Changed() {
		return a
	}
	var err error
	if a.Mapping, err = routing.NewMapping(id, slices.Collect(maps.Values(next))); err != nil {
		p.add(list[0].Line, "agency %s: %s", id, err)
		return nil
	}
	a.next = next
	a.Record.Mapping = a.Mapping.Digest()
	return a
}

// merge adds a row's names to those of the mailbox as it is known. What would change an
// answer that is given now is reported.
func (p *planner) merge(was routing.Row, m *Mailbox) (row routing.Row, changed bool) {
	row = was
	row.Addresses, row.Logins = slices.Clone(was.Addresses), slices.Clone(was.Logins)
	if m.Kind != was.Kind {
		p.add(m.Line, "kind: mailbox %s is a %s; a list only adds", m.Mailbox, was.Kind)
	}
	if m.Addresses[0] != was.Addresses[0] {
		p.add(m.Line, "address: mailbox %s has the primary address %s; a list only adds", m.Mailbox, was.Addresses[0])
	}
	for _, a := range m.Addresses {
		if !slices.Contains(row.Addresses, a) {
			row.Addresses, changed = append(row.Addresses, a), true
		}
	}
	for _, l := range m.Logins {
		if !slices.Contains(row.Logins, l) {
			row.Logins, changed = append(row.Logins, l), true
		}
	}
	for _, side := range []struct {
		column string
		target bool
		says   routing.Place
	}{{"source", false, m.Source}, {"target", true, m.Target}} {
		is, now := was.At(side.target), row.At(side.target)
		if side.says.Address != "" && side.says.Address != is.Address {
			p.add(m.Line, "%s_address: mailbox %s is %s there; a list only adds", side.column, m.Mailbox, is.Address)
		}
		if side.says.Login != "" && side.says.Login != is.Login {
			p.add(m.Line, "%s_login: mailbox %s logs in there as %s; a list only adds", side.column, m.Mailbox, is.Login)
		}
		if now != is {
			p.add(m.Line, "logins: mailbox %s would log in on its %s platform as %s instead of %s; a list only adds", m.Mailbox, side.column, now.Login, is.Login)
		}
	}
	return row, changed
}

// check compares the mappings of a plan with the table as it would be with all of them,
// so that they are compared with each other too.
func (p *planner) check(plan *Plan) {
	u := routing.Update{Fixed: plan.Fixed}
	for _, a := range plan.Agencies {
		if a.Changed() {
			u.Agencies = append(u.Agencies, a.Record)
			u.Mappings = append(u.Mappings, a.Mapping)
		}
	}
	if len(u.Agencies) == 0 {
		return
	}
	then, err := p.state.Apply(u)
	if err != nil {
		p.add(0, "%s", err)
		return
	}
	for i := range plan.Agencies {
		if a := &plan.Agencies[i]; a.Changed() {
			p.compare(then, a)
		}
	}
}

// compare checks a new mapping in the table as it would be, and that it only adds.
func (p *planner) compare(then *routing.State, a *AgencyPlan) {
	if !p.fits(then, a) {
		return
	}
	if err := p.state.CheckAddition(a.Mapping, p.separator); err != nil {
		p.add(0, "agency %s: %s", a.Record.ID, err)
	}
}

// fits checks a new mapping in the table as it would be. The rows are checked one by
// one, to name their lines, only if something is wrong.
func (p *planner) fits(then *routing.State, a *AgencyPlan) bool {
	before := p.Total
	if errs := then.CheckMapping(a.Mapping); len(errs) > 0 {
		for _, row := range a.rows {
			one, err := routing.NewMapping(row.Agency, []routing.Row{a.next[row.Mailbox]})
			if err != nil {
				p.add(row.Line, "%s", err)
				continue
			}
			for _, err := range then.CheckMapping(one) {
				p.add(row.Line, "%s", err)
			}
		}
		if p.Total == before {
			p.add(0, "agency %s: mailboxes that are in the table already don't fit it: %s", a.Record.ID, errs[0])
		}
	}
	return p.Total == before
}

// fixed plans the fixed addresses.
func (p *planner) fixed(list []Fixed, platforms []routing.PlatformID, plan *Plan) {
	if len(list) == 0 {
		return
	}
	known := make(map[routing.Address]routing.Fixed)
	for f := range p.state.FixedAddresses() {
		known[f.Address] = f
	}
	for _, f := range list {
		if !slices.Contains(platforms, f.Platform) {
			p.add(f.Line, "platform: %q is not configured; there are %v", f.Platform, platforms)
			continue
		}
		if !p.claimNew(string(f.Address), claim{line: f.Line}, true) {
			continue
		}
		is, ok := known[f.Address]
		switch {
		case !ok:
			if err := p.state.CheckFixed(f.Fixed); err != nil {
				p.add(f.Line, "%s", err)
			}
			plan.Fixed = append(plan.Fixed, f.Fixed)
		case is.Kind != f.Kind || is.Platform != f.Platform:
			p.add(f.Line, "%s is a %s on %s; a list only adds", f.Address, is.Kind, is.Platform)
		default:
			plan.FixedUnchanged++
		}
	}
}
