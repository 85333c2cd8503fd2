package tabletest

import (
	"errors"
	"testing"
	"time"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

// lineage reads the table's.
func lineage(t *testing.T, tb table.Table) routing.Lineage {
	t.Helper()
	u, err := tb.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if last := u.Lineage.Last(); last.Number != u.Position.Term {
		t.Fatalf("the lineage ends with %+v, the table is at %+v", last, u.Position)
	}
	return u.Lineage
}

// follows lets a node have all that the table has, and know when its term began.
func (n *node) follows() {
	n.t.Helper()
	n.follow()
	n.r.Began = lineage(n.t, n.tb).Last().Began
}

// Each term is noted with where and when it began, so that two of one number differ.
func testLineage(t *testing.T, open opener) {
	tb, pos := begun(t, open)
	first := lineage(t, tb)
	if len(first) != 1 || first[0].Number != 1 || first[0].Base != 0 || first[0].Began.IsZero() {
		t.Fatalf("a new table's: %v", first)
	}
	n1, n2 := newNode(t, tb, pos, "n1"), newNode(t, tb, pos, "n2")
	n1.granted()
	n2.granted()
	n1.follows()
	n2.follows()
	n1.granted()
	base := n2.granted().Position

	// A rejoin.
	n1.r.Applied += 4
	n1.renew()
	second := lineage(t, tb)
	if len(second) != 2 || !second[:1].Equal(first) || second[1].Base != base.Revision || !second[1].Began.After(first[0].Began) {
		t.Fatalf("after a rejoin: %v", second)
	}
	// Who is in the term before has to be in that one, not in one of its number.
	n2.r.Began = n2.r.Began.Add(time.Microsecond)
	if n2.renew(); !nodes(t, tb).Leases["n2"].Behind {
		t.Errorf("of another term 1: %+v", nodes(t, tb).Leases["n2"])
	}
	n2.r.Began = first[0].Began
	if n2.renew(); nodes(t, tb).Leases["n2"].Behind {
		t.Errorf("of this term 1: %+v", nodes(t, tb).Leases["n2"])
	}
	n1.follows()
	n1.renew()
	n2.follows()
	n1.granted()
	n2.granted()

	// Another term of this number.
	n2.r.Began = n2.r.Began.Add(time.Microsecond)
	if answer := n2.renew(); answer.Settled || answer.Armed || answer.Position.Term != 3 {
		t.Errorf("of another term 2: %+v", answer)
	}
	third := lineage(t, tb)
	if len(third) != 3 || !third[:2].Equal(second) {
		t.Fatalf("after a fork: %v", third)
	}
	if answer := n1.renew(); answer.Settled || answer.Armed {
		t.Errorf("nobody knows which history n1 has: %+v", answer)
	}
	n1.follows()
	n1.renew()
	n2.follows()
	n2.granted()
	n1.granted()

	// People raise it.
	at := change(t, tb, table.Change{ID: "raise", Incarnation: pos.Incarnation, Term: 7, Guard: table.Guard{EndRejoin: true}})
	fourth := lineage(t, tb)
	if len(fourth) != 4 || !fourth[:3].Equal(third) || fourth[3].Number != 7 || fourth[3].Base != at.Revision-1 {
		t.Fatalf("raised at %+v: %v", at, fourth)
	}
}

// A rejoin that ends without a node, or without what a node had on its disk, leaves it open
// which names there are.
func testUnheard(t *testing.T, open opener) {
	doubt := func(t *testing.T, tb table.Table) bool {
		t.Helper()
		u, err := tb.Snapshot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range u.Documents {
			if d.Key == routing.NamesLost {
				return true
			}
		}
		return false
	}
	attest := func(t *testing.T, tb table.Table, n *node) {
		t.Helper()
		m := n.member()
		m.Attested = m.Instance
		change(t, tb, members(t, tb, "attest", table.Guard{Rejoining: true}, m))
	}
	for _, c := range []struct {
		name          string
		before, after bool // n2 is attested dead before the rejoin begins, or in it
		back          routing.InstanceID
		follows       bool // the instance that comes back is on the disk of the one before
		gone          bool // n2 had given its lease up
		want, waits   bool // for people
	}{
		{"all are there", false, false, "n2-1", true, false, false, false},
		{"one is attested in the rejoin", false, true, "", false, false, true, false},
		{"one was attested before", true, false, "", false, false, false, false},
		{"one comes back on its disk", true, false, "n2-2", true, false, false, false},
		{"one comes back on another disk", true, false, "n2-2", false, false, true, true},
		{"one that had stopped comes back on another disk", true, false, "n2-2", false, true, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			tb, pos := begun(t, open)
			n1, n2 := newNode(t, tb, pos, "n1"), newNode(t, tb, pos, "n2")
			n1.granted()
			n2.granted()
			if c.gone {
				n2.follows()
				given := *n2
				given.r.Short, given.r.Long = 0, 0
				given.renew()
				n2.r.Sequence = given.r.Sequence
			}
			if c.before {
				attest(t, tb, n2)
			}
			n1.follows()
			n1.granted()
			n1.r.Term += 3
			n1.r.Began = time.Time{}
			n1.renew()
			if c.after {
				attest(t, tb, n2)
			}
			if c.back != "" {
				if c.back != n2.r.Member.Instance && c.follows {
					n2.r.After = n2.r.Member.Instance
				}
				n2.r.Member.Instance = c.back
				n2.follows()
				n2.renew()
			}
			n1.follows()
			n1.renew()
			if n := nodes(t, tb); (n.Rejoining != "") != c.waits {
				t.Errorf("rejoining: %q, want it: %t", n.Rejoining, c.waits)
			}
			if got := doubt(t, tb); got != c.want {
				t.Errorf("names may be lost: %t, want %t", got, c.want)
			}
			if !c.waits {
				n1.granted()
				return
			}
			n2.follows() // seen all that there is, it is still another disk
			n2.renew()
			n1.follows()
			n1.renew()
			pos = nodes(t, tb).Position
			if answer := n1.renew(); answer.Armed {
				t.Errorf("what n2 had is not known, and n1 is granted %+v", answer)
			}
			change(t, tb, table.Change{ID: "end", Incarnation: pos.Incarnation, Term: pos.Term, Guard: table.Guard{EndRejoin: true}})
			n1.granted()
		})
	}
}

// Who lacks a name asks whether it is still so.
func testCheckNames(t *testing.T, open opener) {
	tb, pos := begun(t, open)
	n := newNode(t, tb, pos, "n1")
	n.granted()
	check := table.Check{Incarnation: pos.Incarnation, Node: "n1", Instance: "n1-1"}
	if err := tb.Check(t.Context(), check); !errors.Is(err, table.ErrBadChange) {
		t.Errorf("about nothing: %v", err)
	}
	asks := func(when string, mapped routing.Revision, term uint32, want error) {
		t.Helper()
		check.Mapped, check.Term = mapped, term
		if err := tb.Check(t.Context(), check); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", when, err, want)
		}
	}
	asks("at first", pos.Mapped, pos.Term, nil)
	asks("in another term", pos.Mapped, pos.Term+1, table.ErrStale)
	now := change(t, tb, table.Change{ID: "1", Incarnation: pos.Incarnation, Term: pos.Term, Agencies: []routing.Agency{agency(t, "health")}})
	asks("after another change", now.Mapped, pos.Term, nil)
	now = change(t, tb, table.Change{ID: "2", Incarnation: pos.Incarnation, Term: pos.Term, Mapped: now.Mapped, Domains: []routing.Domain{{Name: "health.example"}}})
	asks("by who missed a domain", pos.Mapped, pos.Term, table.ErrStale)
	asks("by who has it", now.Mapped, pos.Term, nil)
	check.Agencies = []table.AgencyEpoch{{Agency: "health", Epoch: routing.Epoch{Term: 9, Number: 9}}}
	asks("with an agency that is not so", now.Mapped, pos.Term, table.ErrStale)
	check.Agencies = nil
	n.follows()
	n.r.NamesLost = true
	n.renew()
	asks("when names were lost", now.Mapped, pos.Term, table.ErrStale)
}
