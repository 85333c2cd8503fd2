package check

import (
	"slices"
	"testing"
	"time"

	"mailcutover/identity/directory"
	"mailcutover/identity/list"
	"mailcutover/routing"
)

// Each finding of a row says where, whose and what. The row is anna's of health.
func TestFindings(t *testing.T) {
	anna, bert := routing.MailboxID{1}, routing.MailboxID{2}
	user := func(id routing.MailboxID, account string, addresses ...routing.Address) *directory.Object {
		return &directory.Object{ID: id, Kind: directory.KindUser, Enabled: true, Account: account, Addresses: addresses}
	}
	type in struct {
		object *directory.Object
		agency routing.AgencyID
	}
	facts := func(name string, objects ...in) *Facts {
		f := NewFacts(name, time.Unix(1e9, 0))
		for _, o := range objects {
			f.Add(o.object, o.agency)
		}
		return f
	}
	itself := in{user(anna, "anna", "a@health.example", "a2@health.example"), "health"}
	other := in{user(bert, "bert", "b@health.example"), "health"}
	source := facts("ad", itself, other)
	told := func(p routing.Place) func(routing.MailboxID) (routing.Row, bool) {
		return func(id routing.MailboxID) (routing.Row, bool) {
			return routing.Row{Mailbox: id, Kind: routing.KindUser, Addresses: []routing.Address{"a@health.example"}, Target: p}, true
		}
	}
	routed := func(agency routing.AgencyID, id routing.MailboxID, address routing.Address) *routing.State {
		m, err := routing.NewMapping(agency, []routing.Row{{Mailbox: id, Kind: routing.KindUser, Addresses: []routing.Address{address}}})
		if err != nil {
			t.Fatal(err)
		}
		u := routing.Update{Position: routing.Position{Incarnation: "i", Revision: 1, Mapped: 1}, Whole: true, Mappings: []*routing.Mapping{m}}
		for _, name := range []routing.AgencyID{"health", "tax"} {
			a, err := routing.NewAgency(name, "exchange", "ox")
			if err != nil {
				t.Fatal(err)
			}
			if name == agency {
				a.Mapping = m.Digest()
			}
			u.Agencies = append(u.Agencies, a)
		}
		s, err := routing.NewState(u.Position).Apply(u)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	before := func(lists ...[]list.Row) (all []*list.List) {
		for i, rows := range lists {
			all = append(all, &list.List{ID: []string{"newer", "older"}[i], Agency: "health", Rows: rows})
		}
		return all
	}
	row := list.Row{Address: "a@health.example", ID: anna, Agency: "health"}
	with := func(change func(*list.Row)) list.Row { r := row; change(&r); return r }
	right := []Finding{{Code: CodeRight}}
	for _, c := range []struct {
		name string
		row  list.Row
		in   Input
		want []Finding
	}{
		{"right everywhere", row, Input{Target: facts("ucs", itself, other), State: routed("health", anna, "a@health.example"), Earlier: before([]list.Row{row})}, right},

		{"an agency that isn't the list's", with(func(r *list.Row) { r.Agency = "tax" }), Input{},
			[]Finding{{Code: CodeOtherAgency, Source: "health-0002", Agency: "health"}, {Code: CodeOtherAgency, Source: "ad", Agency: "health"}}},
		{"another's address", with(func(r *list.Row) { r.Address = "b@health.example" }), Input{},
			[]Finding{{Code: CodeOtherMailbox, Source: "ad", Owner: bert, Of: "b@health.example", Address: "a@health.example"}}},
		{"another's address, and an id of nobody", with(func(r *list.Row) { r.ID = routing.MailboxID{9} }), Input{},
			[]Finding{{Code: CodeOtherMailbox, Source: "ad", Owner: anna, Of: "a@health.example"}, {Code: CodeNoID, Source: "ad"}}},
		{"another's account", with(func(r *list.Row) { r.Account = "bert" }), Input{},
			[]Finding{{Code: CodeOtherAccount, Source: "ad", Owner: bert, Of: "b@health.example", Address: "a@health.example"}}},
		{"another's account, and an id of nobody", list.Row{Account: "bert", ID: routing.MailboxID{9}, Agency: "health"}, Input{},
			[]Finding{{Code: CodeOtherAccount, Source: "ad", Owner: bert, Of: "b@health.example"}, {Code: CodeNoID, Source: "ad"}}},
		{"an alias", with(func(r *list.Row) { r.Address = "a2@health.example" }), Input{}, []Finding{{Code: CodeAlias, Source: "ad", Address: "a@health.example"}}},
		{"an account of two", with(func(r *list.Row) { r.Account = "anna" }), Input{Source: facts("ad", itself, in{user(bert, "ANNA", "b@health.example"), "health"})},
			[]Finding{{Code: CodeTwice, Source: "ad"}}},

		{"the target has the address for another", row, Input{Target: facts("ucs", in{user(anna, "", "x@health.example"), ""}, in{user(bert, "", "a@health.example"), ""})},
			[]Finding{{Code: CodeTarget, Source: "ucs", Owner: bert}}},
		{"the target has the id with another address", row, Input{Target: facts("ucs", in{user(anna, "", "x@health.example"), ""})},
			[]Finding{{Code: CodeTarget, Source: "ucs", Address: "x@health.example"}}},
		{"the target has the id twice", row, Input{Target: facts("ucs", itself, in{user(anna, "", "x@health.example"), ""})}, []Finding{{Code: CodeTwice, Source: "ucs"}}},
		{"the target has it in another agency", row, Input{Target: facts("ucs", in{itself.object, "tax"})}, []Finding{{Code: CodeTarget, Source: "ucs", Agency: "tax"}}},
		{"the target counts it to no agency", row, Input{Target: facts("ucs", in{itself.object, ""})}, right},
		{"the target doesn't have it", row, Input{Target: facts("ucs", other)}, []Finding{{Code: CodeNotOnTarget, Source: "ucs"}}},
		{"the target doesn't have it, and would be told another's address", row, Input{Target: facts("ucs", other), Stored: told(routing.Place{Address: "b@health.example"})},
			[]Finding{{Code: CodeTarget, Source: "ucs", Owner: bert}, {Code: CodeNotOnTarget, Source: "ucs"}}},
		{"it would be told another's login", row, Input{Target: facts("ucs", itself, other), Stored: told(routing.Place{Login: "bert"})}, []Finding{{Code: CodeTarget, Source: "ucs", Owner: bert}}},

		{"the address is routed to another", row, Input{State: routed("health", bert, "a@health.example")}, []Finding{{Code: CodeTable, Source: "table", Owner: bert, Agency: "health"}}},
		{"the address is routed in another agency", row, Input{State: routed("tax", anna, "a@health.example")}, []Finding{{Code: CodeTable, Source: "table", Agency: "tax"}}},
		{"the mailbox is in another agency", row, Input{State: routed("tax", anna, "x@health.example")}, []Finding{{Code: CodeTable, Source: "table", Agency: "tax"}}},
		{"the mailbox has another address in its agency", row, Input{State: routed("health", anna, "x@health.example")}, right},

		{"an earlier list had another id", row, Input{Earlier: before([]list.Row{{Address: "a@health.example", ID: bert}})}, []Finding{{Code: CodeEarlier, Source: "newer", Owner: bert}}},
		{"an earlier list had another address", row, Input{Earlier: before([]list.Row{{Address: "x@health.example", ID: anna}})}, []Finding{{Code: CodeEarlier, Source: "newer", Address: "x@health.example"}}},
		{"the newest list counts", row, Input{Earlier: before([]list.Row{row}, []list.Row{{Address: "a@health.example", ID: bert}, {Address: "x@health.example", ID: anna}})}, right},
		{"what the newest doesn't have, an older one says", row, Input{Earlier: before(nil, []list.Row{{Address: "a@health.example", ID: bert}})}, []Finding{{Code: CodeEarlier, Source: "older", Owner: bert}}},
		{"a row of accounts has no earlier pair", list.Row{Account: "anna", ID: anna, Agency: "health"}, Input{Earlier: before([]list.Row{{Address: "x@health.example", ID: anna}})}, right},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.in.List = &list.List{ID: "health-0002", Agency: "health", Rows: []list.Row{c.row}}
			if c.in.Source == nil {
				c.in.Source = source
			}
			if got := Check(c.in).Rows[0].Findings; !slices.Equal(got, c.want) {
				t.Errorf("%+v, want %+v", got, c.want)
			}
		})
	}
}

// How many would get another's mail, and which accounts are disabled: each row counts once.
func TestWhatAResultCounts(t *testing.T) {
	w := newWorld(rng(7), map[routing.AgencyID]int{"health": 5})
	h := w.objects["health"]
	w.source = NewFacts("ad", time.Unix(1e9, 0))
	for i, o := range h {
		o.Enabled = i != 4
		w.source.Add(o, "health")
	}
	l := w.list(true, "health")
	l.Rows[0].Address, l.Rows[0].Account = h[1].Primary(), h[1].Account // both
	l.Rows[2].Account = h[3].Account
	r := Check(Input{List: l, Source: w.source})
	if r.Crossed() != 2 || r.Wrong != 2 || r.Right != 2 || r.Warnings != 1 || !slices.Equal(r.Disabled(), []routing.MailboxID{h[4].ID}) {
		t.Errorf("%d crossed, %d wrong, %d right, %d warnings, disabled %v", r.Crossed(), r.Wrong, r.Right, r.Warnings, r.Disabled())
	}
}
