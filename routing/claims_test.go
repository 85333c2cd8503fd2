package routing

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

// Names that two have are found when a State gets them, whoever comes first, and are gone
// with the claim of either.
func TestConflicts(t *testing.T) {
	row := townRow("health", 1)
	name := row.Addresses[1]
	other := townRow("police", 7)
	other.Logins = append(other.Logins, Login(name))
	with := slices.Concat(slices.Collect(townMapping(t, "police", 3).Rows()), []Row{other})
	record := func(s *State, m *Mapping) Agency {
		a, _ := s.Agency(m.Agency())
		a.Mapping = m.Digest()
		return a
	}
	clean := townMapping(t, "police", 3)
	claimed := mustMapping(t, "police", with...)

	s := town(t, "health", "police")
	check := func(what string, s *State, want ...string) {
		t.Helper()
		if names, total := s.Conflicts(10); !slices.Equal(names, want) || total != len(want) {
			t.Errorf("%s: conflicts %v of %d, want %v", what, names, total, want)
		}
	}
	check("nothing", s)
	s = mustApply(t, s, Update{Agencies: []Agency{record(s, claimed)}, Mappings: []*Mapping{claimed}})
	check("a login is another's address", s, string(name))
	if d := s.DecideAddress(name, ""); d.Reason != ReasonConflict {
		t.Errorf("%+v", d)
	}
	var said []string
	for _, c := range s.Claims(string(name)) {
		said = append(said, c.String())
	}
	want := []string{"mailbox " + row.Mailbox.String() + " of agency health", "mailbox " + other.Mailbox.String() + " of agency police"}
	slices.Sort(said)
	slices.Sort(want)
	if !slices.Equal(said, want) {
		t.Errorf("claims %q, want %q", said, want)
	}
	again := s
	for range maxGenerations + 1 { // until the index is made anew
		again = mustApply(t, again, Update{Agencies: []Agency{record(again, clean)}, Mappings: []*Mapping{clean}})
		check("given up", again)
		again = mustApply(t, again, Update{Agencies: []Agency{record(again, claimed)}, Mappings: []*Mapping{claimed}})
		check("claimed again", again, string(name))
	}

	// A fixed address that comes, goes and comes again, while a mailbox gets its name.
	s = town(t, "health")
	mailbox := townRow("police", 1)
	f := Fixed{Address: mailbox.Addresses[0], Kind: "group", Platform: "ox"}
	s = mustApply(t, s, Update{Fixed: []Fixed{f}})
	f.Removed = true
	s = mustApply(t, s, Update{Fixed: []Fixed{f}})
	police, err := NewAgency("police", "exchange", "ox")
	if err != nil {
		t.Fatal(err)
	}
	police.Mapping = clean.Digest()
	s = mustApply(t, s, Update{Agencies: []Agency{police}, Mappings: []*Mapping{clean}})
	check("removed", s)
	f.Removed = false
	s = mustApply(t, s, Update{Fixed: []Fixed{f}})
	check("fixed address", s, string(f.Address))
	names, total := s.Conflicts(0)
	if len(names) != 0 || total != 1 {
		t.Errorf("%v of %d", names, total)
	}
}

// A name that is somebody's by its detail can't be given to another, and can to him.
func TestCheckDetail(t *testing.T) {
	s := town(t, "health", "police")
	s = mustApply(t, s, Update{Fixed: []Fixed{{Address: "all@town.example", Kind: "group", Platform: "ox"}}})
	mine, other := townRow("health", 1), townRow("police", 1)
	base := string(mine.Addresses[0])
	detail := Address(strings.Replace(base, "@", "+hr@", 1))
	for name, c := range map[string]struct {
		key       Address
		mailbox   MailboxID
		separator string
		says      string // empty: allowed
	}{
		"own base":                 {detail, mine.Mailbox, "+", ""},
		"another's":                {detail, other.Mailbox, "+", "mailbox " + mine.Mailbox.String() + " of agency health now, which has " + base},
		"for a fixed address":      {detail, MailboxID{}, "+", "mailbox " + mine.Mailbox.String()},
		"other separator":          {detail, other.Mailbox, "-", ""},
		"no sub-addressing":        {detail, other.Mailbox, "", ""},
		"nobody's base":            {"new+hr@town.example", other.Mailbox, "+", ""},
		"a fixed address is base":  {"all+x@town.example", other.Mailbox, "+", "fixed address all@town.example"},
		"separator is in the base": {Address(strings.Replace(base, "@", "+a+b@", 1)), other.Mailbox, "+", "which has " + base},
		"no detail":                {mine.Addresses[0], other.Mailbox, "+", ""},
	} {
		err := s.CheckDetail(c.key, c.mailbox, true, c.separator)
		if (err == nil) != (c.says == "") || err != nil && (!errors.Is(err, ErrNotAddition) || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: %v, want %q", name, err, c.says)
		}
	}
	if err := s.CheckDetail(detail, mine.Mailbox, false, "+"); !errors.Is(err, ErrNotAddition) || !strings.Contains(err.Error(), "make it an alias too") {
		t.Errorf("a login of one's own, that would get no mail: %v", err)
	}
	row := townRow("police", 9)
	row.Addresses = append(row.Addresses, detail)
	m := mustMapping(t, "police", slices.Concat(slices.Collect(s.Mapping("police").Rows()), []Row{row})...)
	if err := s.CheckAddition(m, "+"); !errors.Is(err, ErrNotAddition) || !strings.Contains(err.Error(), string(detail)) {
		t.Errorf("addition: %v", err)
	}
	if err := s.CheckAddition(m, ""); err != nil {
		t.Errorf("without sub-addressing: %v", err)
	}
	if before := s.DecideAddress(detail, "+"); before.Mailbox != mine.Mailbox {
		t.Errorf("%+v", before)
	}
}

func TestMixedScripts(t *testing.T) {
	for name, want := range map[string]string{
		"anna@town.example":          "",
		"аnna@town.example":          "Latin and Cyrillic", // begins with U+0430
		"αnna@town.example":          "Latin and Greek",
		"анна@town.example":          "",
		"müller.straße@town.example": "",
		"東京tokyo@town.example":       "",
		"анна@пример.example":        "",
		"anna@xn--pple-43d.example":  "Latin and Cyrillic", // аpple
		"anna@xn--e1afmkfd.example":  "",
		`amt\анна`:                   "",
		`amt\аnna`:                   "Latin and Cyrillic",
		"аnna":                       "Latin and Cyrillic",
		"anna.berg":                  "",
		"анна.berg@town.example":     "Latin and Cyrillic",
		"\u0561nna@town.example":     "Latin and Armenian",
		"анна1.2_3@town.example":     "",
		"anna@town.пример":           "",
		"anna@t\u043ewn.example":     "Latin and Cyrillic",
		"анна@Ελλάδα.example":        "",
		"":                           "",
		"x@xn--a.example":            "",
	} {
		if got := MixedScripts(name); got != want {
			t.Errorf("%q mixes %q, want %q", name, got, want)
		}
	}
}

// What two claim can be taken from one of them, if nothing that works is lost by it.
func TestRelease(t *testing.T) {
	id := func(n byte) MailboxID { return MailboxID{15: n} }
	row := func(n byte, addresses ...Address) Row {
		return Row{Mailbox: id(n), Kind: KindUser, Addresses: addresses}
	}
	with := func(r Row, change func(*Row)) Row { change(&r); return r }
	for name, c := range map[string]struct {
		health, police Row
		left           []string // names of police's mailbox; nil: there is none
		says           string   // why not
	}{
		"an alias":        {row(1, "dora@x"), row(2, "d@x", "dora@x"), []string{"d@x"}, ""},
		"an alias, login": {row(1, "dora@x"), with(row(2, "d@x", "dora@x"), func(r *Row) { r.Logins = []Login{"d", "dora@x"} }), []string{"d@x", "d"}, ""},
		"the mailbox":     {row(1, "dora@x"), row(1, "dora@x"), nil, ""},
		"every name":      {row(1, "dora@x", "d@x"), row(2, "d@x", "dora@x"), nil, ""},
		"primary address": {row(1, "dora@x"), row(2, "dora@x", "d@x"), nil, "has d@x, which nobody else claims"},
		"first login":     {row(1, "dora@x"), with(row(2, "d@x", "dora@x"), func(r *Row) { r.Logins = []Login{"dora@x"} }), nil, "is known by it on a platform"},
		"a place":         {row(1, "dora@x"), with(row(2, "d@x"), func(r *Row) { r.Target.Address = "dora@x" }), nil, "is known by it on a platform"},
		"not claimed":     {row(1, "dora@x"), row(2, "d@x"), nil, "only a name that two claim"},
	} {
		t.Run(name, func(t *testing.T) {
			u := Update{Position: Position{Incarnation: "test", Revision: 1}, Domains: []Domain{{Name: "x"}}}
			keeper := row(9, "keeper@x")
			for agency, rows := range map[AgencyID][]Row{"health": {c.health}, "police": {c.police, keeper}} {
				a, err := NewAgency(agency, "exchange", "ox")
				if err != nil {
					t.Fatal(err)
				}
				m := mustMapping(t, agency, rows...)
				a.Mapping = m.Digest()
				u.Agencies, u.Mappings = append(u.Agencies, a), append(u.Mappings, m)
			}
			s := mustApply(t, NewState(Position{}), u)
			m, err := s.Release("dora@x", "police")
			if c.says != "" {
				if !errors.Is(err, ErrNotReleased) || !strings.Contains(err.Error(), c.says) {
					t.Errorf("%v, want %q", err, c.says)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, ok := m.Mailbox(keeper.Mailbox); !ok {
				t.Error("another mailbox went too")
			}
			left, ok := m.Mailbox(c.police.Mailbox)
			if ok != (c.left != nil) || ok && !slices.Equal(left.Keys(), c.left) {
				t.Errorf("left %v, %t, want %v", left.Keys(), ok, c.left)
			}
			a, _ := s.Agency("police")
			a.Mapping = m.Digest()
			after := mustApply(t, s, Update{Agencies: []Agency{a}, Mappings: []*Mapping{m}})
			if d := after.DecideAddress("dora@x", ""); d.Reason != ReasonOpen || d.Agency != "health" {
				t.Errorf("%+v", d)
			}
			if _, total := after.Conflicts(0); total != 0 {
				t.Errorf("%d conflicts left", total)
			}
		})
	}
	if _, err := town(t, "health").Release("x", "works"); !errors.Is(err, ErrNotReleased) {
		t.Errorf("unknown agency: %v", err)
	}
}
