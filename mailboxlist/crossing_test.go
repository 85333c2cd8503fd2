package mailboxlist

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"mailcutover/routing"
)

// settledIn returns a state after a list was imported.
func settledIn(t *testing.T, s *routing.State, list string) *routing.State {
	t.Helper()
	l, err := Read([]byte(header + list))
	if err != nil {
		t.Fatal(err)
	}
	p, err := l.Plan(s, platforms, "+")
	if err != nil {
		t.Fatal(err)
	}
	u := routing.Update{Fixed: p.Fixed}
	for _, a := range p.Agencies {
		u.Agencies, u.Mappings = append(u.Agencies, a.Record), append(u.Mappings, a.Mapping)
	}
	if s, err = s.Apply(u); err != nil {
		t.Fatal(err)
	}
	return s
}

// What a remap changes is named: every name that goes to another, every place that is another one,
// and nothing else. The table has first (1), anna (3) and boris (4) of health, first (2) of finance.
func TestRemapNamesEachChange(t *testing.T) {
	have := "anna@health.example," + id(3) + ",health,user,a@health.example,anna,,,anna@ox.example,anna3,\n" +
		"boris@health.example," + id(4) + ",health,user,,boris,,,,,\n"
	anna := "mailbox " + id(3) + " (anna@health.example) of agency health"
	for _, c := range []struct {
		name, text string
		agencies   string // id: mailboxes before, added, gone, changed
		changes    []string
		fixed      int
	}{
		{"nothing", have + "all@health.example,,,group,,,,,,,exchange\n", "", nil, 1},
		{"two addresses crossed",
			"boris@health.example," + id(3) + ",health,user,a@health.example,anna,,,anna@ox.example,anna3,\n" + "anna@health.example," + id(4) + ",health,user,,boris,,,,,\n",
			"health: 3 +0 -0 ~2", []string{
				"health: address anna@health.example: " + anna + " -> mailbox " + id(4) + " (anna@health.example) of agency health",
				"health: address boris@health.example: mailbox " + id(4) + " (boris@health.example) of agency health -> mailbox " + id(3) + " (boris@health.example) of agency health",
				"health: primary address " + id(3) + ": anna@health.example -> boris@health.example",
				"health: primary address " + id(4) + ": boris@health.example -> anna@health.example",
				"health: source address " + id(3) + ": anna@health.example -> boris@health.example",
				"health: source address " + id(4) + ": boris@health.example -> anna@health.example",
				"health: target address " + id(4) + ": boris@health.example -> anna@health.example",
			}, 0},
		{"an alias and a login go, a place and the kind are others",
			"anna@health.example," + id(3) + ",health,shared,,,old@exchange.example,exch\\anna,anna@ox.example,anna4,\n",
			"health: 3 +0 -0 ~1", []string{
				"health: address a@health.example: " + anna + " -> nobody",
				"health: kind " + id(3) + ": user -> shared",
				"health: login anna: " + anna + " -> nobody",
				"health: source address " + id(3) + ": anna@health.example -> old@exchange.example",
				"health: source login " + id(3) + `: anna -> exch\anna`,
				"health: target login " + id(3) + ": anna3 -> anna4",
			}, 0},
		{"a mailbox goes to another agency, another comes",
			"anna@health.example," + id(3) + ",finance,user,a@health.example,anna,,,anna@ox.example,anna3,\n" + "new@health.example," + id(5) + ",health,user,,,,,,,\n",
			"finance: 1 +1 -0 ~0, health: 3 +1 -1 ~0", []string{
				"health: address a@health.example: " + anna + " -> mailbox " + id(3) + " (anna@health.example) of agency finance",
				"health: address anna@health.example: " + anna + " -> mailbox " + id(3) + " (anna@health.example) of agency finance",
				"health: address new@health.example: nobody -> mailbox " + id(5) + " (new@health.example) of agency health",
				"health: login anna: " + anna + " -> mailbox " + id(3) + " (anna@health.example) of agency finance",
			}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := settledIn(t, state(t), have)
			l, err := Read([]byte(header + c.text))
			if err != nil {
				t.Fatal(err)
			}
			r, err := l.Remap(s, platforms, "+")
			if err != nil {
				t.Fatal(err)
			}
			var agencies, changes []string
			for _, a := range r.Agencies {
				agencies = append(agencies, fmt.Sprintf("%s: %d +%d -%d ~%d", a.Record.ID, a.Before, a.Added, a.Gone, a.Changed))
			}
			for _, one := range r.Changes {
				changes = append(changes, string(one.Agency)+": "+one.String())
			}
			if got := strings.Join(agencies, ", "); got != c.agencies {
				t.Errorf("agencies %q, want %q", got, c.agencies)
			}
			if !slices.Equal(changes, c.changes) {
				t.Errorf("changes\n%s\nwant\n%s", strings.Join(changes, "\n"), strings.Join(c.changes, "\n"))
			}
			if r.Fixed != c.fixed {
				t.Errorf("%d fixed rows, want %d", r.Fixed, c.fixed)
			}
		})
	}
}

// A mailbox without logins is called by its address. Its first login would change that, so a list
// that only adds can't bring it; one with a second login can.
func TestAFirstLoginIsAnotherName(t *testing.T) {
	bare := settledIn(t, state(t), "bare@health.example,"+id(3)+",health,user,,,,,,,\n")
	l, err := Read([]byte(header + "bare@health.example," + id(3) + ",health,user,,bare,,,,,\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := "would log in on its source platform as bare instead of bare@health.example; a list only adds"
	if _, err := l.Plan(bare, platforms, "+"); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %q", err, want)
	}
}

// Fixed addresses may fold together: no switch moves them.
func TestFixedAddressesFoldTogether(t *testing.T) {
	s := settledIn(t, state(t), "straße@health.example,,,group,,,,,,,ox\n"+"strasse@health.example,,,group,,,,,,,ox\n")
	if n := len(slices.Collect(s.FixedAddresses())); n != 3 {
		t.Errorf("%d fixed addresses", n)
	}
}

func TestRemapRefused(t *testing.T) {
	have := "anna@health.example," + id(3) + ",health,user,,anna,,,,,\n" + "boris@health.example," + id(4) + ",health,user,,boris,,,,,\n"
	busy := func(t *testing.T, s *routing.State) *routing.State {
		a, _ := s.Agency("health")
		a, err := a.Arm().Begin("op", 1, routing.EventBegin)
		if err != nil {
			t.Fatal(err)
		}
		if s, err = s.Apply(routing.Update{Agencies: []routing.Agency{a}}); err != nil {
			t.Fatal(err)
		}
		return s
	}
	for _, c := range []struct {
		name, text string
		before     func(*testing.T, *routing.State) *routing.State
		want       []string
	}{
		{"a name of a mailbox that isn't in the list", "anna@health.example," + id(3) + ",health,user,boris@health.example,anna,,,,,\n", nil,
			[]string{"line 2: boris@health.example belongs to another: mailbox " + id(4) + " of agency health, in the table; what the list doesn't name stays: give that mailbox a row too, without the name"}},
		{"a name of another row", "anna@health.example," + id(3) + ",health,user,,anna,,,,,\n" + "boris@health.example," + id(4) + ",health,user,anna@health.example,boris,,,,,\n", nil,
			[]string{"line 3: anna@health.example belongs to another: mailbox " + id(3) + " of agency health, line 2"}},
		{"one id twice", have + "carla@health.example," + id(3) + ",finance,user,,,,,,,\n", nil, []string{"line 4: directory_id " + id(3) + " stands in line 2 too, for agency health"}},
		{"agency unknown", "anna@health.example," + id(3) + ",justice,user,,anna,,,,,\n", nil, []string{`line 2: agency: no agency "justice" in the table`}},
		{"agency busy", "anna@health.example," + id(3) + ",finance,user,,anna,,,,,\n", busy, []string{"line 2: agency health: operation op is under way"}},
		{"a new fixed address", have + "new@health.example,,,group,,,,,,,ox\n", nil, []string{"line 0: new@health.example: a remap adds no fixed address; import it by itself"}},
		{"an address that has a detail of one that stays", "boris@health.example," + id(4) + ",health,user,first+hr@health.example,boris,,,,,\n", nil, nil}, // its agency is closed meanwhile
		{"another agency's by its detail", "boris@health.example," + id(4) + ",health,user,first+hr@finance.example,boris,,,,,\n", nil, []string{"line 2: first+hr@finance.example: not a pure addition"}},
		{"two alphabets", "bоris@health.example," + id(4) + ",health,user,,boris,,,,,\n", nil, []string{"line 2: bоris@health.example has letters of Latin and Cyrillic side by side"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := settledIn(t, state(t), have)
			if c.before != nil {
				s = c.before(t, s)
			}
			l, err := Read([]byte(header + c.text))
			if err != nil {
				t.Fatal(err)
			}
			r, err := l.Remap(s, platforms, "+")
			var got []string
			if wrong, ok := errors.AsType[*Problems](err); ok {
				for _, w := range wrong.List {
					got = append(got, fmt.Sprintf("line %d: %s", w.Line, w.Text))
				}
			} else if err != nil {
				t.Fatal(err)
			}
			if len(got) != len(c.want) || (r == nil) != (len(c.want) > 0) {
				t.Fatalf("%q, want %q", got, c.want)
			}
			for i := range got {
				if !strings.Contains(got[i], c.want[i]) {
					t.Errorf("%q, want %q", got[i], c.want[i])
				}
			}
		})
	}
}
