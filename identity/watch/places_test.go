package watch

import (
	"fmt"
	"slices"
	"testing"

	"mailcutover/identity/directory"
	"mailcutover/identity/list"
	"mailcutover/identity/model"
	"mailcutover/identity/register"
	"mailcutover/routing"
)

// What the platforms are told of a mailbox has to be the mailbox's own name, in the source's
// directory and in the target's: else its mail would go to whoever has that name there.
func TestDriftOfWhatPlatformsAreTold(t *testing.T) {
	m, err := model.New(model.Options{
		Rules:  []model.Rule{{Agency: "health", Base: "ou=health,dc=x"}},
		Places: []model.Place{{Platform: "ox", Address: "{account}@ox.internal", Login: "{account}"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	with := func(n byte, account string, addresses ...routing.Address) directory.Object {
		o := mailbox(n, addresses...)
		o.Account = account
		return o
	}
	a, b := with(1, "anna", "a@health.example"), with(2, "bert", "b@health.example")
	agency, err := routing.NewAgency("health", "exchange", "ox")
	if err != nil {
		t.Fatal(err)
	}
	var rows []routing.Row
	l := &list.List{ID: "health-0001", Agency: "health"}
	for _, o := range []directory.Object{a, b} {
		row, err := m.Row(&o, &agency)
		if err != nil {
			t.Fatal(err)
		}
		rows = append(rows, row)
		l.Rows = append(l.Rows, list.Row{ID: o.ID, Address: o.Primary(), Agency: "health"})
	}
	alias := func(o directory.Object, names ...routing.Address) directory.Object {
		o.Addresses = append(slices.Clone(o.Addresses), names...)
		return o
	}
	there := func(n byte, account string, addresses ...routing.Address) directory.Object {
		return alias(with(n, account, addresses...), routing.Address(account+"@ox.internal"))
	}
	for name, c := range map[string]struct {
		source []directory.Object
		more   []routing.Address // that the table gives the first mailbox
		target []directory.Object
		want   []string
	}{
		"all is as it was":                   {source: []directory.Object{a, b}, target: []directory.Object{there(1, "anna", "a@health.example"), there(2, "bert", "b@health.example")}},
		"no target's directory":              {source: []directory.Object{a, b}},
		"accounts exchanged":                 {source: []directory.Object{with(1, "bert", "a@health.example"), with(2, "anna", "b@health.example")}, want: []string{"renamed a", "renamed b"}},
		"an account that is another's now":   {source: []directory.Object{with(1, "berg", "a@health.example"), b}, want: []string{"renamed a"}},
		"only its case is another":           {source: []directory.Object{with(1, "ANNA", "a@health.example"), b}},
		"exchanged on the target":            {source: []directory.Object{a, b}, target: []directory.Object{there(2, "anna", "a@health.example"), there(1, "bert", "b@health.example")}, want: []string{"target a", "target b"}},
		"accounts exchanged on the target":   {source: []directory.Object{a, b}, target: []directory.Object{there(1, "bert", "a@health.example"), there(2, "anna", "b@health.example")}, want: []string{"target a", "target b"}},
		"logins exchanged on the target":     {source: []directory.Object{a, b}, target: []directory.Object{with(1, "bert", "a@health.example"), with(2, "anna", "b@health.example")}, want: []string{"target a", "target b"}},
		"an address of another's there":      {source: []directory.Object{a, b}, target: []directory.Object{there(1, "anna"), there(2, "bert", "b@health.example", "a@health.example")}, want: []string{"target a"}},
		"accounts of two":                    {source: []directory.Object{a, b, with(3, "anna", "c@labour.example")}, want: []string{"renamed a"}},
		"a login of two on the target":       {source: []directory.Object{a, b}, target: []directory.Object{there(1, "anna", "a@health.example"), there(2, "bert", "b@health.example"), with(3, "bert", "c@labour.example")}, want: []string{"target b"}},
		"not there yet":                      {source: []directory.Object{a, b}, target: []directory.Object{there(1, "anna", "a@health.example")}, want: []string{"not-there b"}},
		"a further name that is another's":   {source: []directory.Object{a, alias(b, "boss@health.example")}, more: []routing.Address{"boss@health.example"}, want: []string{"new-name boss", "repaired boss"}},
		"a further name that nobody has now": {source: []directory.Object{a, b}, more: []routing.Address{"boss@health.example"}, want: []string{"lost-name boss"}},
		"a name that two have now":           {source: []directory.Object{a, alias(b, "boss@health.example"), alias(with(3, "carl", "c@labour.example"), "boss@health.example")}, more: []routing.Address{"boss@health.example"}, want: []string{"new-name boss", "repaired boss"}},
	} {
		t.Run(name, func(t *testing.T) {
			now := slices.Clone(rows)
			now[0].Addresses = append(slices.Clone(now[0].Addresses), c.more...)
			if len(c.source) == 3 {
				c.source[2].DN = "cn=3,ou=labour,dc=x"
			}
			var target *View
			if c.target != nil {
				target = viewOf(t, m, c.target...)
			}
			var got []string
			for _, d := range Compare(viewOf(t, m, c.source...), target, m, tableOf(t, now...), "health", []register.Entry{{List: l, Standing: register.Active}}) {
				local, _ := d.Address.Split()
				got = append(got, fmt.Sprint(d.Kind, " ", local))
				if d.Kind.Blocks() != slices.Contains([]Kind{Renamed, Target, Repaired}, d.Kind) {
					t.Errorf("%s: blocks %v", d.Kind, d.Kind.Blocks())
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("drift %q, want %q", got, c.want)
			}
		})
	}
}

// What the directory has as another mailbox's, in whichever agency, isn't added to a mailbox, as an
// address, as a coexistence address or as a login; and what the source is told of a mailbox mustn't be
// somebody else's.
func TestNamesOfOthersDoNotEnter(t *testing.T) {
	m, err := model.New(model.Options{
		Rules:       []model.Rule{{Agency: "health", Base: "ou=health,dc=x"}},
		Places:      []model.Place{{Platform: "exchange", Login: "{local}"}},
		Coexistence: []model.Coexistence{{Pattern: "{local}.tmp@{domain}"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	agency, err := routing.NewAgency("health", "exchange", "ox")
	if err != nil {
		t.Fatal(err)
	}
	anna := mailbox(1, "a@health.example")
	row, err := m.Row(&anna, &agency)
	if err != nil {
		t.Fatal(err)
	}
	row.Addresses, row.Logins = row.Addresses[:1], nil // the coexistence address is new
	mapping, err := routing.NewMapping("health", []routing.Row{row})
	if err != nil {
		t.Fatal(err)
	}
	agency.Mapping = mapping.Digest()
	state, err := routing.NewState(routing.Position{Incarnation: "i", Revision: 1}).Apply(routing.Update{
		Agencies: []routing.Agency{agency}, Mappings: []*routing.Mapping{mapping}, Domains: []routing.Domain{{Name: "health.example"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	other := func(account string, addresses ...routing.Address) directory.Object {
		o := mailbox(2, addresses...)
		o.DN, o.Account = "cn=other,ou=tax,dc=x", account
		return o
	}
	for name, c := range map[string]struct {
		upn     string
		other   directory.Object
		enters  string
		renamed bool
	}{
		"nobody's":              {upn: "a@corp.example", other: other("o", "o@tax.example"), enters: "[a@health.example a.tmp@health.example] [a@corp.example]"},
		"coexistence address":   {upn: "a@corp.example", other: other("o", "a.tmp@health.example"), enters: "[a@health.example] [a@corp.example]"},
		"login":                 {upn: "a@corp.example", other: other("o", "a@corp.example"), enters: "[a@health.example a.tmp@health.example] []"},
		"what the source knows": {other: other("A", "o@tax.example"), enters: "[a@health.example a.tmp@health.example] []", renamed: true},
	} {
		o := anna
		o.UPN = c.upn
		v := viewOf(t, m, o, c.other)
		rows, refused := Additions(v, m, state, "health")
		if len(refused) > 0 || len(rows) != 1 || fmt.Sprint(rows[0].Addresses, " ", rows[0].Logins) != c.enters {
			t.Errorf("%s: %+v, %v; want %s", name, rows, refused, c.enters)
		}
		renamed := slices.ContainsFunc(Compare(v, nil, m, state, "health", nil), func(d Drift) bool { return d.Kind == Renamed })
		if renamed != c.renamed {
			t.Errorf("%s: renamed %v", name, renamed)
		}
	}
}
