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
	Added     int              // mailboxes
	Extended  int              // known mailboxes that get more names
	Unchanged int              // rows that say what is known
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
	state  *routing.State
	exact  map[string]claim // names of the list and of its agencies
	folded map[string]claim // the same by skeleton, those that aren't their own
}

// claim says who has a name.
type claim struct {
	line    int // 0: the table
	agency  routing.AgencyID
	mailbox routing.MailboxID // zero: a fixed address
}

func (c claim) String() string {
	who := "fixed address"
	if !c.mailbox.IsZero() {
		who = fmt.Sprintf("mailbox %s of agency %s", c.mailbox, c.agency)
	}
	if c.line > 0 {
		return fmt.Sprintf("%s, line %d", who, c.line)
	}
	return who + ", in the table"
}

// Plan says what storing l changes in a table that stands as s; platforms are those that
// are configured. The error is *Problems with every row that can't be stored.
func (l *List) Plan(s *routing.State, platforms []routing.PlatformID) (*Plan, error) {
	p := &planner{state: s, exact: make(map[string]claim), folded: make(map[string]claim)}
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
		for _, key := range keys(&r) {
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

// claimNew enters a name of the list, or reports who has it.
func (p *planner) claimNew(key string, c claim) (mine bool) {
	if has, ok := p.exact[key]; ok {
		if has.mailbox != c.mailbox || c.mailbox.IsZero() {
			p.add(c.line, "%s belongs to another: %s", key, has)
			return false
		}
		return true
	}
	s := routing.Address(key).Skeleton()
	has, ok := p.folded[s]
	if !ok && s != key {
		has, ok = p.exact[s]
	}
	if ok && has.mailbox != c.mailbox {
		p.add(c.line, "%s folds together with a name of another: %s", key, has)
		return false
	}
	p.enter(key, c)
	return true
}

// keys returns all names under which a mailbox is known anywhere.
func keys(r *routing.Row) []string {
	out := make([]string, 0, len(r.Addresses)+len(r.Logins)+4)
	for _, a := range r.Addresses {
		out = append(out, string(a))
	}
	for _, l := range r.Logins {
		out = append(out, string(l))
	}
	for _, at := range []routing.Place{r.Source, r.Target} {
		if at.Address != "" {
			out = append(out, string(at.Address))
		}
		if l, err := routing.ParseLogin(at.Login); err == nil {
			out = append(out, string(l))
		}
	}
	return out
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
	a := &AgencyPlan{Record: record}
	next := make(map[routing.MailboxID]routing.Row, old.Len()+len(list))
	for r := range old.Rows() {
		next[r.Mailbox] = r
	}
	lines := make(map[routing.MailboxID]int, len(list))
	for i := range list {
		m := &list[i]
		if line := lines[m.Mailbox]; line != 0 {
			p.add(m.Line, "directory_id %s stands in line %d too", m.Mailbox, line)
			continue
		}
		lines[m.Mailbox] = m.Line
		for _, key := range keys(&m.Row) {
			p.claimNew(key, claim{line: m.Line, agency: id, mailbox: m.Mailbox})
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
	p.compare(a.Mapping, list, next)
	if p.Total > before {
		return nil
	}
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

// compare checks a mapping against the rest of the table. The rows are checked one by
// one, to name their lines, only if something is wrong.
func (p *planner) compare(m *routing.Mapping, list []Mailbox, next map[routing.MailboxID]routing.Row) {
	before := p.Total
	if len(p.state.CheckMapping(m)) > 0 {
		for _, row := range list {
			one, err := routing.NewMapping(m.Agency(), []routing.Row{next[row.Mailbox]})
			if err != nil {
				p.add(row.Line, "%s", err)
				continue
			}
			for _, err := range p.state.CheckMapping(one) {
				p.add(row.Line, "%s", err)
			}
		}
		if p.Total == before {
			p.add(0, "agency %s: mailboxes that are in the table already don't fit it: %s", m.Agency(), p.state.CheckMapping(m)[0])
		}
		return
	}
	if err := p.state.CheckAddition(m); err != nil {
		p.add(0, "agency %s: %s", m.Agency(), err)
	}
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
		if !p.claimNew(string(f.Address), claim{line: f.Line}) {
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
