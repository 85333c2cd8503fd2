package routing

import (
	"slices"
	"testing"
	"time"
)

func apply(t *testing.T, s *State, u Update) *State {
	t.Helper()
	n, err := s.Apply(u)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestStateKeepsMembersFreezesAndOpenOperations(t *testing.T) {
	early, late := time.Unix(1, 0), time.Unix(2, 0)
	first := apply(t, NewState(Position{Incarnation: "i"}), Update{
		Members:    []Member{{Node: "node-2", Instance: "b"}, {Node: "node-1", Instance: "a"}},
		Freezes:    []Freeze{{Agency: "police"}},
		Operations: []Operation{{ID: "2", Started: late}, {ID: "1", Started: early}},
	})
	second := apply(t, first, Update{
		Members:    []Member{{Node: "node-1", Instance: "a", Evicted: true}},
		Freezes:    []Freeze{{}, {Agency: "police", Removed: true}},
		Operations: []Operation{{ID: "1", Started: early, Ended: true}},
	})
	if m, ok := first.Member("node-1"); !ok || m.Evicted {
		t.Errorf("the older State changed: %+v", m)
	}
	if got := second.Members(); len(got) != 2 || got[0].Node != "node-1" || !got[0].Evicted || got[1].Node != "node-2" {
		t.Errorf("members: %+v", got)
	}
	if f, ok := first.Frozen("police"); !ok || f.Agency != "police" {
		t.Errorf("police at first: %+v, %t", f, ok)
	}
	if _, ok := first.Frozen("roads"); ok {
		t.Error("roads frozen by police' freeze")
	}
	if f, ok := second.Frozen("roads"); !ok || f.Agency != "" || len(second.Freezes()) != 1 {
		t.Errorf("roads under the freeze of all: %+v, %t; freezes %+v", f, ok, second.Freezes())
	}
	if got := first.Operations(); len(got) != 2 || got[0].ID != "1" {
		t.Errorf("open operations: %+v", got)
	}
	if _, ok := second.Operation("1"); ok || len(second.Operations()) != 1 {
		t.Errorf("an ended operation is open: %+v", second.Operations())
	}
	whole := apply(t, second, Update{Whole: true, Members: []Member{{Node: "node-3"}}})
	if len(whole.Members()) != 1 || len(whole.Freezes())+len(whole.Operations()) != 0 {
		t.Errorf("after a whole reading: %+v, %+v, %+v", whole.Members(), whole.Freezes(), whole.Operations())
	}
}

// What one node has seen and the table lost closes the agency on every node.
func TestARecordAboveTheTablesClosesTheAgency(t *testing.T) {
	a := agencyIn(t, PhaseSource)
	base := apply(t, NewState(Position{Incarnation: "i"}), Update{Agencies: []Agency{a}})
	with := func(edit func(*Agency)) Agency {
		b := a
		edit(&b)
		return b
	}
	for name, test := range map[string]struct {
		above  Agency
		closed bool
	}{
		"a higher epoch":                         {with(func(b *Agency) { b.Epoch.Number++ }), true},
		"a higher term":                          {with(func(b *Agency) { b.Epoch = Epoch{Term: b.Epoch.Term + 1} }), true},
		"the same epoch, another answer":         {with(func(b *Agency) { b.Nonce++ }), true},
		"the same record":                        {a, false},
		"what the table has overtaken":           {with(func(b *Agency) { b.Epoch.Number-- }), false},
		"the same epoch, only armed differently": {with(func(b *Agency) { b.Tightness = Settled }), false},
		"an agency that nobody routes by":        {with(func(b *Agency) { b.ID = "lost" }), false},
	} {
		t.Run(name, func(t *testing.T) {
			s := apply(t, base, Update{Above: []Agency{test.above}})
			if got := len(s.Regressed()) > 0; got != test.closed {
				t.Errorf("closed %t, want %t: %+v", got, test.closed, s.Regressed())
			}
			if len(base.Regressed()) > 0 {
				t.Error("the older State changed")
			}
			if !test.closed {
				return
			}
			lower := apply(t, s, Update{Above: []Agency{a}})
			if seen, _ := lower.Seen(a.ID); seen != test.above {
				t.Errorf("seen %+v after a lower one, want %+v", seen, test.above)
			}
			past := a
			past.Epoch = Epoch{Term: test.above.Epoch.Term, Number: test.above.Epoch.Number + 1}
			if open := apply(t, s, Update{Agencies: []Agency{past}}); slices.Contains(open.Regressed(), a.ID) {
				t.Error("still closed with an epoch above all that was seen")
			}
		})
	}
}
