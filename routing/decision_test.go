package routing

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"unicode"

	"golang.org/x/text/unicode/norm"
	"pgregory.net/rapid"
)

// townRow is a mailbox of an agency in the tests of decisions.
func townRow(agency AgencyID, n int) Row {
	name := fmt.Sprintf("p%d.%s", n, agency)
	return Row{
		Mailbox: MailboxID{0: byte(len(agency)), 1: agency[0], 2: agency[len(agency)-1], 14: byte(n >> 8), 15: byte(n)}, Kind: KindUser,
		Addresses: []Address{Address(name + "@town.example"), Address("alias." + name + "@town.example")},
		Logins:    []Login{Login(`town\` + name)},
		Target:    Place{Address: Address("u-" + name + "@ox.internal")},
	}
}

func townMapping(t testing.TB, agency AgencyID, mailboxes int) *Mapping {
	rows := make([]Row, mailboxes)
	for n := range rows {
		rows[n] = townRow(agency, n)
	}
	return mustMapping(t, agency, rows...)
}

// town is a State of these agencies with three mailboxes each.
func town(t testing.TB, agencies ...AgencyID) *State {
	t.Helper()
	u := Update{Position: Position{Incarnation: "test", Revision: 1}, Domains: []Domain{{Name: "town.example"}}}
	for _, id := range agencies {
		a, err := NewAgency(id, "exchange", "ox")
		if err != nil {
			t.Fatal(err)
		}
		m := townMapping(t, id, 3)
		a.Mapping = m.Digest()
		u.Agencies, u.Mappings = append(u.Agencies, a.Arm()), append(u.Mappings, m)
	}
	return mustApply(t, NewState(Position{}), u)
}

func mustApply(t testing.TB, s *State, u Update) *State {
	t.Helper()
	s, err := s.Apply(u)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestDecisionInEveryPhase(t *testing.T) {
	base := town(t, "health")
	row := townRow("health", 1)
	for _, p := range append(Phases(), Phase(200)) {
		for _, published := range []bool{true, false} {
			for _, locked := range []bool{true, false} {
				a, _ := base.Agency("health")
				a.Phase, a.Published, a.Locked, a.Epoch, a.Nonce = p, published, locked, Epoch{1, 9}, 5
				s := mustApply(t, base, Update{Agencies: []Agency{a}})
				bad, _ := beyond()
				want := ReasonOpen
				switch {
				case p == PhaseUnknown || p >= bad:
					want = ReasonBadRecord
				case locked:
					want = ReasonLocked
				case !p.Open():
					want = ReasonInPhase
				case !published:
					want = ReasonUnpublished
				}
				name := fmt.Sprintf("%s, published %t, locked %t", p, published, locked)
				d := s.DecideAddress(row.Addresses[1], "")
				if d.Reason != want || d.Deliver() != (want == ReasonOpen) || d.Closed() == d.Deliver() {
					t.Errorf("%s: %+v, want %s", name, d, want)
				}
				if d.Mailbox != row.Mailbox || d.Agency != "health" || d.Epoch != a.Epoch || d.Nonce != 5 || !d.Armed || d.Phase != p {
					t.Errorf("%s: %+v", name, d)
				}
				side := map[bool]Place{false: {row.Addresses[0], string(row.Logins[0])}, true: {"u-p1.health@ox.internal", string(row.Logins[0])}}
				if got := (Place{d.Address, d.Login}); got != side[p.OnTarget()] {
					t.Errorf("%s: %+v", name, got)
				}
				if l := s.DecideLogin(row.Logins[0]); l != d {
					t.Errorf("%s: login %+v, address %+v", name, l, d)
				}
				if !strings.Contains(d.Explain(), "health") {
					t.Errorf("%s: %q", name, d.Explain())
				}
			}
		}
	}
}

func TestTightnessUnknownIsArmed(t *testing.T) {
	s := town(t, "health")
	for tightness, armed := range map[Tightness]bool{Settled: false, Armed: true, TightnessUnknown: true, 77: true} {
		a, _ := s.Agency("health")
		a.Tightness = tightness
		s = mustApply(t, s, Update{Agencies: []Agency{a}})
		if d := s.DecideAddress(townRow("health", 0).Addresses[0], ""); d.Armed != armed {
			t.Errorf("%s: %+v", tightness, d)
		}
	}
}

func TestNothingIsKnownBeforeTheFirstRead(t *testing.T) {
	s := NewState(Position{})
	for _, d := range []Decision{s.DecideAddress("a@foreign.example", "+"), s.DecideLogin("a")} {
		if d.Reason != ReasonTableUnavail || d.Deliver() || d.Closed() {
			t.Errorf("%+v", d)
		}
	}
}

func TestMissingMappingIsNotNoSuchName(t *testing.T) {
	s := town(t, "health", "works")
	a, _ := s.Agency("works")
	a.Mapping = Digest{1}
	a.Epoch = a.Epoch.Next()
	s = mustApply(t, s, Update{Agencies: []Agency{a}})
	if got := s.Missing(); !slices.Equal(got, []AgencyID{"works"}) {
		t.Fatalf("missing: %v", got)
	}
	for name, want := range map[Address]Reason{
		townRow("works", 0).Addresses[0]:  ReasonTableUnavail,
		"nobody@town.example":             ReasonTableUnavail,
		"p1.health+x@town.example":        ReasonTableUnavail, // may be a mailbox of works
		townRow("health", 0).Addresses[0]: ReasonOpen,
		"nobody@foreign.example":          ReasonForeign,
	} {
		if d := s.DecideAddress(name, "+"); d.Reason != want {
			t.Errorf("%s: %s, want %s", name, d.Reason, want)
		}
	}
	if d := s.DecideLogin("nobody"); d.Reason != ReasonTableUnavail {
		t.Errorf("login: %+v", d)
	}
	if errs := s.CheckMapping(townMapping(t, "health", 4)); len(errs) != 1 {
		t.Errorf("names compared with a mapping that isn't there: %v", errs)
	}
	s = mustApply(t, s, Update{Agencies: []Agency{a}, Mappings: []*Mapping{townMapping(t, "works", 2)}})
	if got := s.Missing(); len(got) != 1 {
		t.Error("a mapping was taken whose digest the record doesn't name")
	}
}

func TestANameOfTwoIsClosed(t *testing.T) {
	health := townRow("health", 0)
	for name, row := range map[string]Row{
		"address and address": {Addresses: []Address{health.Addresses[1]}},
		"address and login":   {Addresses: []Address{"x@town.example"}, Logins: []Login{Login(health.Addresses[1])}},
		"address and place":   {Addresses: []Address{"x@town.example"}, Target: Place{Address: health.Addresses[1]}},
	} {
		row.Mailbox, row.Kind = MailboxID{0: 9}, KindUser
		m := mustMapping(t, "works", row)
		s := town(t, "health", "works")
		a, _ := s.Agency("works")
		a.Mapping, a.Epoch = m.Digest(), a.Epoch.Next()
		if errs := s.CheckMapping(m); len(errs) == 0 {
			t.Errorf("%s: the check lets it pass", name)
		}
		s = mustApply(t, s, Update{Agencies: []Agency{a}, Mappings: []*Mapping{m}})
		for _, d := range []Decision{s.DecideAddress(health.Addresses[1], "+"), s.DecideLogin(Login(health.Addresses[1]))} {
			if d.Reason != ReasonConflict || !d.Closed() {
				t.Errorf("%s: %+v", name, d)
			}
		}
		if d := s.DecideAddress(health.Addresses[0], "+"); d.Reason != ReasonOpen {
			t.Errorf("%s: another name: %+v", name, d)
		}
	}
	s := town(t, "health")
	fixed := Fixed{Address: health.Addresses[0], Kind: "group", Platform: "ox"}
	if err := s.CheckFixed(fixed); err == nil {
		t.Error("the check lets a fixed address pass that a mailbox has")
	}
	s = mustApply(t, s, Update{Fixed: []Fixed{fixed}})
	if d := s.DecideAddress(health.Addresses[0], "+"); d.Reason != ReasonConflict {
		t.Errorf("fixed address and mailbox: %+v", d)
	}

	// Whoever comes first, and however a platform spells its login.
	agency, _ := s.Agency("health")
	other := agency
	m := mustMapping(t, "works", Row{Mailbox: MailboxID{0: 9}, Kind: KindUser, Addresses: []Address{"x@town.example"}, Source: Place{Login: `TOWN\P0.health`}})
	other.ID, other.Mapping = "works", m.Digest()
	for _, order := range [][]Agency{{agency, other}, {other, agency}} {
		s := mustApply(t, NewState(s.Position()), Update{Agencies: order, Mappings: []*Mapping{m, s.Mapping("health")}})
		if d := s.DecideLogin(health.Logins[0]); d.Reason != ReasonConflict {
			t.Errorf("%s first: %+v", order[0].ID, d)
		}
	}
}

func TestFixedAddress(t *testing.T) {
	s := town(t, "health")
	all := Fixed{Address: "all@town.example", Kind: "group", Platform: "exchange"}
	scan := Fixed{Address: "scan@town.example", Kind: "scanner", Platform: "ox", At: "s1@ox.internal"}
	for _, f := range []Fixed{all, scan} {
		if err := s.CheckFixed(f); err != nil {
			t.Error(err)
		}
	}
	s = mustApply(t, s, Update{Fixed: []Fixed{all, scan}})
	if d := s.DecideAddress("all@town.example", "+"); d != (Decision{Reason: ReasonFixed, Platform: "exchange", Address: "all@town.example", Group: true}) || !d.Deliver() {
		t.Errorf("%+v", d)
	}
	if d := s.DecideAddress("scan@town.example", "+"); d.Platform != "ox" || d.Address != "s1@ox.internal" || d.Group {
		t.Errorf("%+v", d)
	}
	if d := s.DecideLogin("all@town.example"); d.Reason != ReasonNoSuchName {
		t.Errorf("a fixed address logs in: %+v", d)
	}
	if err := s.CheckFixed(all); err != nil {
		t.Errorf("a fixed address in its own way: %v", err)
	}
	s = mustApply(t, s, Update{Fixed: []Fixed{{Address: "all@town.example", Removed: true}}})
	if d := s.DecideAddress("all@town.example", "+"); d.Reason != ReasonNoSuchName {
		t.Errorf("removed: %+v", d)
	}
	for name, f := range map[string]Fixed{
		"kind":         {Address: "a@town.example", Kind: "user", Platform: "ox"},
		"domain":       {Address: "a@foreign.example", Kind: "group", Platform: "ox"},
		"platform":     {Address: "a@town.example", Kind: "group"},
		"form":         {Address: "A@town.example", Kind: "group", Platform: "ox"},
		"form of at":   {Address: "a@town.example", Kind: "group", Platform: "ox", At: "A@x.example"},
		"place":        {Address: "u-p1.health@ox.internal", Kind: "group", Platform: "ox"},
		"login":        {Address: `town\p1.health@town.example`, Kind: "group", Platform: ""},
		"compat. form": {Address: "\uff50\uff11.health@town.example", Kind: "group", Platform: "ox"},
	} {
		if err := s.CheckFixed(f); err == nil {
			t.Errorf("%s: %+v passes", name, f)
		}
	}
}

func TestSubAddresses(t *testing.T) {
	s := town(t, "health")
	own := townRow("health", 3)
	own.Addresses = []Address{"p0.health+own@town.example", "q@town.example"}
	own.Logins = []Login{"p0.health+login@town.example"}
	own.Source.Address = "p0.health+place@town.example"
	own.Target.Login = "P0.health+Place2@town.example"
	rows := append(slices.Collect(s.Mapping("health").Rows()), own)
	m := mustMapping(t, "health", rows...)
	a, _ := s.Agency("health")
	a.Mapping = m.Digest()
	s = mustApply(t, s, Update{Agencies: []Agency{a}, Mappings: []*Mapping{m}, Fixed: []Fixed{{Address: "all@town.example", Kind: "group", Platform: "ox"}}})
	base := townRow("health", 0).Mailbox
	for _, test := range []struct {
		address   Address
		separator string
		reason    Reason
		mailbox   MailboxID
	}{
		{"p0.health+news@town.example", "+", ReasonOpen, base},
		{"p0.health+news@town.example", "", ReasonNoSuchName, MailboxID{}},
		{"p0.health-news@town.example", "+", ReasonNoSuchName, MailboxID{}},
		{"p0.health+own@town.example", "+", ReasonOpen, own.Mailbox},
		{"p0.health+own+x@town.example", "+", ReasonOpen, base},
		{"p0.health+login@town.example", "+", ReasonNoSuchName, MailboxID{}},  // another mailbox's login
		{"p0.health+place@town.example", "+", ReasonNoSuchName, MailboxID{}},  // a platform takes it for another
		{"p0.health+place2@town.example", "+", ReasonNoSuchName, MailboxID{}}, // in whatever case
		{"+news@town.example", "+", ReasonNoSuchName, MailboxID{}},
		{"all+x@town.example", "+", ReasonFixed, MailboxID{}},
		{"p0.health+news@foreign.example", "+", ReasonForeign, MailboxID{}},
		{"nobody+news@town.example", "+", ReasonNoSuchName, MailboxID{}},
	} {
		d := s.DecideAddress(test.address, test.separator)
		if d.Reason != test.reason || d.Mailbox != test.mailbox {
			t.Errorf("%s: %+v, want %s, %s", test.address, d, test.reason, test.mailbox)
		}
	}
	if d := s.DecideLogin("p0.health+news@town.example"); d.Reason != ReasonNoSuchName {
		t.Errorf("a login with detail: %+v", d)
	}
}

func TestPlacesAreNotAddresses(t *testing.T) {
	s := town(t, "health")
	if d := s.DecideAddress("u-p1.health@ox.internal", "+"); d.Reason != ReasonForeign {
		t.Errorf("%+v", d)
	}
	if d := s.DecideLogin("u-p1.health@ox.internal"); d.Reason != ReasonNoSuchName {
		t.Errorf("%+v", d)
	}
}

func TestNamesThatFoldTogether(t *testing.T) {
	for name, test := range map[string][2]string{
		"sharp s":                {"stra\u00dfe@town.example", "strasse@town.example"},
		"dotless i":              {"k\u0131z@town.example", "kiz@town.example"},
		"zero-width joiner":      {"k\u200diz@town.example", "kiz@town.example"},
		"both not ASCII":         {"jos\u00e9\u200d@town.example", "jos\u00e9@town.example"},
		"full width":             {"\uff4biz@town.example", "kiz@town.example"},
		"full-width @ in quotes": {"a\uff20b@town.example", "a@b@town.example"},
	} {
		for _, swapped := range []bool{false, true} {
			mine, other := Address(test[0]), Address(test[1])
			if swapped {
				mine, other = other, mine
			}
			s := town(t, "health", "works")
			a, _ := s.Agency("works")
			m := mustMapping(t, "works", Row{Mailbox: MailboxID{0: 9}, Kind: KindUser, Addresses: []Address{other}})
			a.Mapping, a.Epoch = m.Digest(), a.Epoch.Next()
			s = mustApply(t, s, Update{Agencies: []Agency{a}, Mappings: []*Mapping{m}})
			row := Row{Mailbox: MailboxID{0: 8}, Kind: KindUser, Addresses: []Address{mine}}
			if errs := s.CheckMapping(mustMapping(t, "health", row)); len(errs) != 1 || !strings.Contains(errs[0].Error(), "folds together") {
				t.Errorf("%s, swapped %t: %v", name, swapped, errs)
			}
			asLogin := Row{Mailbox: MailboxID{0: 8}, Kind: KindUser, Addresses: []Address{"x@town.example"}}
			if l, err := ParseLogin(string(mine)); err == nil && Address(l) == mine {
				asLogin.Logins = []Login{l}
				if errs := s.CheckMapping(mustMapping(t, "health", asLogin)); len(errs) != 1 {
					t.Errorf("%s as login, swapped %t: %v", name, swapped, errs)
				}
			}
			fixed := mustApply(t, town(t, "health"), Update{Fixed: []Fixed{{Address: other, Kind: "group", Platform: "ox"}}})
			if errs := fixed.CheckMapping(mustMapping(t, "health", row)); len(errs) != 1 {
				t.Errorf("%s against a fixed address, swapped %t: %v", name, swapped, errs)
			}
			if d := s.DecideAddress(mine, "+"); d.Reason != ReasonNoSuchName {
				t.Errorf("%s, swapped %t: a route follows from a skeleton: %+v", name, swapped, d)
			}
		}
	}
}

func TestCheckMapping(t *testing.T) {
	s := town(t, "health", "works")
	if errs := s.CheckMapping(townMapping(t, "health", 5)); len(errs) != 0 {
		t.Errorf("more of its own: %v", errs)
	}
	works := townRow("works", 0)
	for name, r := range map[string]Row{
		"address":            {Addresses: []Address{works.Addresses[1]}},
		"login":              {Addresses: []Address{"x@town.example"}, Logins: works.Logins},
		"login as address":   {Addresses: []Address{"x@town.example"}, Logins: []Login{Login(works.Addresses[0])}},
		"place":              {Addresses: []Address{"x@town.example"}, Source: Place{Address: "u-p0.works@ox.internal"}},
		"place's login":      {Addresses: []Address{"x@town.example"}, Source: Place{Login: `TOWN\P0.works`}},
		"address as place":   {Addresses: []Address{"x@town.example"}, Target: Place{Address: works.Addresses[0]}},
		"domain not served":  {Addresses: []Address{"x@foreign.example"}},
		"mailbox of another": {Mailbox: works.Mailbox, Addresses: []Address{"x@town.example"}},
	} {
		if r.Mailbox.IsZero() {
			r.Mailbox = MailboxID{0: 8}
		}
		r.Kind = KindUser
		if errs := s.CheckMapping(mustMapping(t, "health", r)); len(errs) != 1 {
			t.Errorf("%s: %v", name, errs)
		}
	}
}

func TestAMailboxMovesToAnotherAgency(t *testing.T) {
	s := town(t, "health", "works")
	moved := townRow("health", 2)
	from := townMapping(t, "health", 2)
	to := mustMapping(t, "works", append(slices.Collect(s.Mapping("works").Rows()), moved)...)
	if errs := s.CheckMapping(to); len(errs) == 0 {
		t.Error("it may be in two agencies")
	}
	u := Update{Mappings: []*Mapping{from, to}}
	for _, m := range u.Mappings {
		a, _ := s.Agency(m.Agency())
		a.Mapping, a.Epoch = m.Digest(), a.Epoch.Next()
		u.Agencies = append(u.Agencies, a)
	}
	after := mustApply(t, s, u)
	for _, m := range u.Mappings {
		if errs := after.CheckMapping(m); len(errs) != 0 {
			t.Errorf("%s: %v", m.Agency(), errs)
		}
	}
	if d := after.DecideAddress(moved.Addresses[0], "+"); d.Agency != "works" || d.Mailbox != moved.Mailbox || d.Reason != ReasonOpen {
		t.Errorf("after: %+v", d)
	}
	if d := s.DecideAddress(moved.Addresses[0], "+"); d.Agency != "health" || d.Reason != ReasonOpen {
		t.Errorf("before: %+v", d)
	}
}

// Several may try something on one State at the same time.
func TestStatesMadeToTry(t *testing.T) {
	base := town(t, "health", "works")
	var tries sync.WaitGroup
	for n := range 4 {
		tries.Go(func() {
			id := AgencyID(fmt.Sprintf("new%d", n))
			a, _ := NewAgency(id, "exchange", "ox")
			for size := range 30 {
				m := townMapping(t, id, 1+size%9)
				a.Mapping = m.Digest()
				s, err := base.Apply(Update{Agencies: []Agency{a}, Mappings: []*Mapping{m}})
				if err != nil {
					t.Error(err)
					return
				}
				for i := range 9 {
					d := s.DecideAddress(townRow(id, i).Addresses[1], "")
					if (d.Reason == ReasonOpen) != (i < m.Len()) || d.Reason == ReasonOpen && d.Agency != id {
						t.Errorf("%s of %d, mailbox %d: %+v", id, m.Len(), i, d)
					}
				}
				if d := s.DecideAddress(townRow("health", 1).Addresses[0], ""); d.Agency != "health" || d.Reason != ReasonOpen {
					t.Errorf("%+v", d)
				}
			}
		})
	}
	tries.Wait()
}

func TestCheckAddition(t *testing.T) {
	s := town(t, "health")
	for name, test := range map[string]struct {
		change func(rows []Row) []Row
		ok     bool
	}{
		"nothing":         {func(rows []Row) []Row { return rows }, true},
		"new mailbox":     {func(rows []Row) []Row { return append(rows, townRow("health", 9)) }, true},
		"new alias":       {func(rows []Row) []Row { rows[0].Addresses = append(rows[0].Addresses, "new@town.example"); return rows }, true},
		"new login":       {func(rows []Row) []Row { rows[0].Logins = append(rows[0].Logins, "new"); return rows }, true},
		"new first login": {func(rows []Row) []Row { rows[0].Logins = append([]Login{"new"}, rows[0].Logins...); return rows }, false},
		"mailbox gone":    {func(rows []Row) []Row { return rows[1:] }, false},
		"alias gone":      {func(rows []Row) []Row { rows[0].Addresses = rows[0].Addresses[:1]; return rows }, false},
		"login gone":      {func(rows []Row) []Row { rows[0].Logins = nil; return rows }, false},
		"another primary": {func(rows []Row) []Row { slices.Reverse(rows[0].Addresses); return rows }, false},
		"another place":   {func(rows []Row) []Row { rows[0].Target.Address = "z@ox.internal"; return rows }, false},
		"column sorted on its own": {func(rows []Row) []Row {
			rows[0].Addresses, rows[1].Addresses = rows[1].Addresses, rows[0].Addresses
			return rows
		}, false},
	} {
		m := mustMapping(t, "health", test.change(slices.Collect(s.Mapping("health").Rows()))...)
		if err := s.CheckAddition(m, "+"); (err == nil) != test.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := s.CheckAddition(townMapping(t, "works", 1), "+"); err == nil {
		t.Error("an agency without mapping")
	}
}

func TestDecidingDoesNotAllocate(t *testing.T) {
	s := mustApply(t, town(t, "health", "works"), Update{Fixed: []Fixed{{Address: "all@town.example", Kind: "group", Platform: "ox"}}})
	for _, a := range []Address{townRow("works", 2).Addresses[0], "all@town.example", "nobody@town.example", "a@foreign.example"} {
		if n := testing.AllocsPerRun(100, func() { s.DecideAddress(a, "+") }); n != 0 {
			t.Errorf("%s: %v allocations", a, n)
		}
	}
	login := townRow("works", 2).Logins[0]
	if n := testing.AllocsPerRun(100, func() { s.DecideLogin(login) }); n != 0 {
		t.Errorf("login: %v allocations", n)
	}
}

func TestDecisionsOfAnOlderStateStay(t *testing.T) {
	first := town(t, "health")
	t.Run("small index", func(t *testing.T) { decisionsStay(t, first) })
	// An index that has room for all that comes runs out of generations instead.
	works, _ := NewAgency("works", "exchange", "ox")
	m := townMapping(t, "works", 2000)
	works.Mapping = m.Digest()
	second := mustApply(t, first, Update{Agencies: []Agency{works}, Mappings: []*Mapping{m}})
	second = mustApply(t, NewState(Position{}), Update{
		Position: second.Position(), Agencies: second.Agencies(), Domains: second.Domains(),
		Mappings: []*Mapping{m, second.Mapping("health")},
	})
	t.Run("large index", func(t *testing.T) { decisionsStay(t, second) })
}

func decisionsStay(t *testing.T, first *State) {
	s := first
	// Long enough for new generations of the mapping and for new indexes.
	for n := range 3 * maxGenerations {
		m := townMapping(t, "health", 1+n%7)
		a, _ := s.Agency("health")
		a.Mapping, a.Epoch = m.Digest(), a.Epoch.Next()
		s = mustApply(t, s, Update{Agencies: []Agency{a}, Mappings: []*Mapping{m}})
		for i := range 8 {
			row := townRow("health", i)
			want, wantFirst := ReasonNoSuchName, ReasonNoSuchName
			if i < m.Len() {
				want = ReasonOpen
			}
			if i < 3 {
				wantFirst = ReasonOpen
			}
			if d := s.DecideAddress(row.Addresses[1], ""); d.Reason != want || want == ReasonOpen && (d.Mailbox != row.Mailbox || d.Epoch != a.Epoch) {
				t.Fatalf("change %d, mailbox %d: %+v", n, i, d)
			}
			if d := first.DecideAddress(row.Addresses[1], ""); d.Reason != wantFirst {
				t.Fatalf("change %d, mailbox %d of the first State: %+v", n, i, d)
			}
		}
	}
	// A State that was made and not used leaves no trace in its sister.
	a, _ := s.Agency("health")
	left, right := townMapping(t, "health", 5), townMapping(t, "school", 3)
	a.Mapping = left.Digest()
	mustApply(t, s, Update{Agencies: []Agency{a}, Mappings: []*Mapping{left}})
	b, _ := NewAgency("school", "exchange", "ox")
	b.Mapping = right.Digest()
	sister := mustApply(t, s, Update{Agencies: []Agency{b}, Mappings: []*Mapping{right}})
	if d := sister.DecideAddress(townRow("school", 2).Addresses[0], ""); d.Agency != "school" || d.Reason != ReasonOpen {
		t.Errorf("%+v", d)
	}
	if d := sister.DecideAddress(townRow("health", 4).Addresses[0], ""); (d.Reason == ReasonOpen) != (s.Mapping("health").Len() > 4) {
		t.Errorf("%+v", d)
	}
}

func TestRecordsThatDoNotFollow(t *testing.T) {
	s := town(t, "health", "works")
	address := townRow("health", 0).Addresses[0]
	opened, _ := s.Agency("health")
	opened.Epoch = Epoch{1, 5}
	s = mustApply(t, s, Update{Agencies: []Agency{opened}})
	reason := func(s *State) Reason { d := s.DecideAddress(address, ""); return d.Reason }

	for name, change := range map[string]func(a *Agency){
		"lower epoch":          func(a *Agency) { a.Epoch.Number-- },
		"lower term":           func(a *Agency) { a.Epoch = Epoch{0, 99} },
		"another nonce":        func(a *Agency) { a.Nonce++ },
		"another phase":        func(a *Agency) { a.Phase = PhaseTarget },
		"another platform":     func(a *Agency) { a.Source = "elsewhere" },
		"unlocked in an epoch": func(a *Agency) { a.Locked = true },
	} {
		a := opened
		change(&a)
		closed := mustApply(t, s, Update{Agencies: []Agency{a}})
		if got := reason(closed); got != ReasonRegressed {
			t.Errorf("%s: %s", name, got)
		}
		if seen, ok := closed.Seen("health"); !ok || seen != opened {
			t.Errorf("%s: seen %+v, %t", name, seen, ok)
		}
		// Its own successors don't open it until they are above what was seen.
		a.Epoch = opened.Epoch
		a.Nonce = opened.Nonce + 1
		if got := reason(mustApply(t, closed, Update{Agencies: []Agency{a}})); got != ReasonRegressed {
			t.Errorf("%s, and then the same epoch: %s", name, got)
		}
		if got := reason(mustApply(t, closed, Update{Agencies: []Agency{opened}})); got != ReasonOpen {
			t.Errorf("%s, and then what was seen: %s", name, got)
		}
		above := opened
		above.Epoch = opened.Epoch.Next()
		if got := reason(mustApply(t, closed, Update{Agencies: []Agency{above}})); got != ReasonOpen {
			t.Errorf("%s, and then a higher epoch: %s", name, got)
		}
	}
	armed := opened
	armed.Tightness, armed.ArmedAt, armed.Revision = Armed, opened.Epoch, 77
	if got := reason(mustApply(t, s, Update{Agencies: []Agency{armed}})); got != ReasonOpen {
		t.Errorf("arming within an epoch: %s", got)
	}
}

func TestAWholeUpdate(t *testing.T) {
	s := mustApply(t, town(t, "health", "works"), Update{
		Domains: []Domain{{Name: "old.example"}}, Fixed: []Fixed{{Address: "all@town.example", Kind: "group", Platform: "ox"}},
	})
	health, _ := s.Agency("health")
	s = mustApply(t, s, Update{Whole: true, Agencies: []Agency{health}, Domains: []Domain{{Name: "town.example"}}})
	if got := s.Regressed(); !slices.Equal(got, []AgencyID{"works"}) {
		t.Errorf("regressed: %v", got)
	}
	for address, want := range map[Address]Reason{
		townRow("health", 0).Addresses[0]: ReasonOpen,
		townRow("works", 0).Addresses[0]:  ReasonRegressed,
		"all@town.example":                ReasonNoSuchName,
		"x@old.example":                   ReasonTableUnavail,
		"x@elsewhere.example":             ReasonForeign,
	} {
		if d := s.DecideAddress(address, ""); d.Reason != want {
			t.Errorf("%s: %+v, want %s", address, d, want)
		}
	}
}

// A table that came back with less than it had, or empty, is no proof that a domain is not
// served; only its removal is.
func TestADomainThatTheTableLost(t *testing.T) {
	gone := Address("x@old.example")
	s := mustApply(t, town(t, "health"), Update{Domains: []Domain{{Name: "old.example", Revision: 3}}})
	lost := mustApply(t, s, Update{Whole: true, Domains: []Domain{{Name: "town.example"}}})
	again := mustApply(t, lost, Update{Whole: true, Domains: []Domain{{Name: "town.example"}}})
	copied := mustApply(t, NewState(Position{Incarnation: "test"}), Update{Domains: append(again.Domains(), again.LostDomains()...)})
	for name, c := range map[string]struct {
		s    *State
		lost int
		want Reason
	}{
		"a table without any domain":      {NewState(Position{Incarnation: "test"}), 0, ReasonTableUnavail},
		"lost":                            {lost, 1, ReasonTableUnavail},
		"lost, and the table read again":  {again, 1, ReasonTableUnavail},
		"lost, and read from the disk":    {copied, 1, ReasonTableUnavail},
		"all lost":                        {mustApply(t, s, Update{Whole: true}), 2, ReasonTableUnavail},
		"served again":                    {mustApply(t, again, Update{Domains: []Domain{{Name: "old.example"}}}), 0, ReasonNoSuchName},
		"served again, by a whole update": {mustApply(t, again, Update{Whole: true, Domains: []Domain{{Name: "town.example"}, {Name: "old.example"}}}), 0, ReasonNoSuchName},
		"removed":                         {mustApply(t, s, Update{Domains: []Domain{{Name: "old.example", Removed: true}}}), 0, ReasonForeign},
		"removed after it was lost":       {mustApply(t, again, Update{Domains: []Domain{{Name: "old.example", Removed: true}}}), 0, ReasonForeign},
	} {
		if d := c.s.DecideAddress(gone, ""); d.Reason != c.want || len(c.s.LostDomains()) != c.lost {
			t.Errorf("%s: %+v, lost %v, want %s and %d", name, d, c.s.LostDomains(), c.want, c.lost)
		}
	}
	if _, served := lost.Domain("old.example"); served || len(lost.Domains()) != 1 {
		t.Errorf("a lost domain is served: %v", lost.Domains())
	}
}

// The names of an agency that the table lost stay known, whichever of its mappings they are
// in.
func TestALostAgencyKeepsItsNames(t *testing.T) {
	s := town(t, "health", "school", "traffic", "works")
	works, _ := s.Agency("works")
	m := mustMapping(t, "works", townRow("works", 7)) // small enough for the index to have room beside the first
	works.Mapping = m.Digest()
	s = mustApply(t, s, Update{Agencies: []Agency{works}, Mappings: []*Mapping{m}})
	s = mustApply(t, s, Update{Whole: true})
	if d := s.DecideAddress(townRow("works", 7).Addresses[0], ""); d.Reason != ReasonRegressed {
		t.Errorf("%+v", d)
	}
}

// Readers that hold a State, old or new, are not disturbed while others are made.
func TestReadersDuringApply(t *testing.T) {
	agencies := []AgencyID{"health", "works", "school"}
	s := town(t, agencies...)
	var newest sync.Map
	newest.Store("s", s)
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			r := rand.New(rand.NewPCG(1, 2))
			for {
				select {
				case <-stop:
					return
				default:
				}
				v, _ := newest.Load("s")
				s := v.(*State)
				for range 20 {
					id := agencies[r.IntN(len(agencies))]
					row := townRow(id, 0)
					a, _ := s.Agency(id)
					d := s.DecideAddress(row.Addresses[r.IntN(2)], "+")
					if d.Agency != id || d.Mailbox != row.Mailbox || d.Epoch != a.Epoch || d.Reason != ReasonOpen {
						t.Errorf("%s: %+v", id, d)
						return
					}
				}
			}
		})
	}
	for n := range 200 {
		id := agencies[n%len(agencies)]
		a, _ := s.Agency(id)
		m := townMapping(t, id, 1+n%5)
		a.Mapping, a.Epoch = m.Digest(), a.Epoch.Next()
		s = mustApply(t, s, Update{Agencies: []Agency{a}, Mappings: []*Mapping{m}})
		newest.Store("s", s)
	}
	close(stop)
	readers.Wait()
}

// respell returns another spelling of an address with the same canonical form.
func respell(t *rapid.T, a Address) string {
	local, domain := a.Split()
	var b strings.Builder
	quote := rapid.Bool().Draw(t, "quote")
	for _, r := range local {
		if r != 'i' && rapid.Bool().Draw(t, "upper") && unicode.ToLower(unicode.ToUpper(r)) == r {
			r = unicode.ToUpper(r)
		}
		if quote && rapid.IntRange(0, 3).Draw(t, "pair") == 0 && r < 0x80 {
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	local = b.String()
	if quote {
		local = `"` + local + `"`
	}
	if rapid.Bool().Draw(t, "NFD") && !quote {
		local = norm.NFD.String(local)
	}
	if rapid.Bool().Draw(t, "capital domain") {
		domain = strings.ToUpper(domain)
	}
	return local + "@" + domain
}

func TestSpellingsOfOneAddressDecideAlike(t *testing.T) {
	addresses := []Address{"anna.berg@town.example", "jos\u00e9.m\u00fcller@xn--mnchen-3ya.example", "o'neil+x@town.example", "a=b~c@town.example", "\u0434\u043c\u0438\u0442\u0440\u0438\u0439@town.example"}
	var rows []Row
	for n, a := range addresses {
		rows = append(rows, Row{Mailbox: MailboxID{0: 1, 15: byte(n)}, Kind: KindUser, Addresses: []Address{a}})
	}
	m := mustMapping(t, "health", rows...)
	a, _ := NewAgency("health", "exchange", "ox")
	a.Mapping = m.Digest()
	s := mustApply(t, NewState(Position{Incarnation: "test"}), Update{Agencies: []Agency{a}, Mappings: []*Mapping{m}})
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, len(addresses)-1).Draw(t, "address")
		spelling := respell(t, addresses[n])
		parsed, err := ParseAddress(spelling)
		if err != nil || parsed != addresses[n] {
			t.Fatalf("%q: %q, %v; want %q", spelling, parsed, err, addresses[n])
		}
		if d := s.DecideAddress(parsed, "+"); d.Mailbox != rows[n].Mailbox {
			t.Fatalf("%q: %+v", spelling, d)
		}
		if l, err := ParseLogin(spelling); err == nil && Address(l) == parsed {
			if d := s.DecideLogin(l); d.Mailbox != rows[n].Mailbox {
				t.Fatalf("login %q: %+v", spelling, d)
			}
		}
	})
}

func TestUpdatesOfDifferentAgenciesCommute(t *testing.T) {
	agencies := []AgencyID{"health", "works", "school", "court"}
	mappings := map[AgencyID][]*Mapping{}
	for _, id := range agencies {
		for n := range 6 {
			mappings[id] = append(mappings[id], townMapping(t, id, n))
		}
	}
	base := town(t, agencies...)
	rapid.Check(t, func(rt *rapid.T) {
		// For each agency a history; then two interleavings of them.
		histories := map[AgencyID][]Update{}
		var turns []AgencyID
		for _, id := range agencies {
			a, _ := base.Agency(id)
			for n := range rapid.IntRange(0, 4).Draw(rt, "changes") {
				m := rapid.SampledFrom(mappings[id]).Draw(rt, "mapping")
				a.Mapping, a.Locked = m.Digest(), rapid.Bool().Draw(rt, "locked")
				a.Phase = rapid.SampledFrom(Phases()).Draw(rt, "phase")
				a.Epoch.Number = uint32(rapid.IntRange(n, n+3).Draw(rt, "epoch"))
				u := Update{Agencies: []Agency{a}, Mappings: []*Mapping{m}}
				if rapid.IntRange(0, 4).Draw(rt, "lost") == 0 {
					u.Mappings = nil
				}
				histories[id] = append(histories[id], u)
				turns = append(turns, id)
			}
		}
		var ends []*State
		for range 2 {
			s, done := base, map[AgencyID]int{}
			for _, id := range rapid.Permutation(turns).Draw(rt, "order") {
				s = mustApply(t, s, histories[id][done[id]])
				done[id]++
			}
			ends = append(ends, s)
		}
		for _, id := range agencies {
			for n := range 6 {
				row := townRow(id, n)
				if a, b := ends[0].DecideAddress(row.Addresses[0], "+"), ends[1].DecideAddress(row.Addresses[0], "+"); a != b {
					rt.Fatalf("%s: %+v and %+v", row.Addresses[0], a, b)
				}
				if a, b := ends[0].DecideLogin(row.Logins[0]), ends[1].DecideLogin(row.Logins[0]); a != b {
					rt.Fatalf("%s: %+v and %+v", row.Logins[0], a, b)
				}
			}
		}
	})
}
