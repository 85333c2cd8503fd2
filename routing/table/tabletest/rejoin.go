package tabletest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

func testTerm(t *testing.T, open opener) {
	tb, pos := begun(t, open)
	if pos.Term != 1 {
		t.Errorf("a new table is in term %d", pos.Term)
	}
	c := table.Change{ID: "1", Incarnation: pos.Incarnation, Term: pos.Term, Agencies: []routing.Agency{agency(t, "health")}}
	for _, term := range []uint32{0, 2} {
		other := c
		other.Term = term
		refused(t, tb, other, table.ErrTerm)
	}
	future := c
	future.Agencies = []routing.Agency{agency(t, "health").InTerm(2)}
	refused(t, tb, future, table.ErrTerm)
	change(t, tb, c)
	// People may raise the term, where the table is to be above all that was seen.
	newer := table.Change{ID: "2", Incarnation: pos.Incarnation, Term: 7, Guard: table.Guard{EndRejoin: true}}
	raised := change(t, tb, newer)
	if raised.Term != 7 || raised.Revision != 3 || raised.Mapped != pos.Mapped {
		t.Errorf("raised: %+v", raised)
	}
	if again := change(t, tb, newer); again != raised {
		t.Errorf("sent again: %+v, want %+v", again, raised)
	}
	f := follow(t, tb, pos, time.Second)
	if e := f.next(t); e.Position.Term != 1 {
		t.Errorf("entry: %+v", e)
	}
	if e := f.next(t); e.Position != raised {
		t.Errorf("entry: %+v, want %+v", e, raised)
	}
	// What doesn't alter an epoch keeps its own.
	health := current(t, tb, "health")
	change(t, tb, table.Change{ID: "3", Incarnation: pos.Incarnation, Term: 7, Agencies: []routing.Agency{health.Arm()}})
	health = current(t, tb, "health")
	locked, err := health.Lock()
	if err != nil {
		t.Fatal(err)
	}
	refused(t, tb, table.Change{ID: "4", Incarnation: pos.Incarnation, Term: 7, Agencies: []routing.Agency{locked}}, table.ErrTerm)
	if locked, err = health.InTerm(7).Lock(); err != nil {
		t.Fatal(err)
	}
	change(t, tb, table.Change{ID: "5", Incarnation: pos.Incarnation, Term: 7, Agencies: []routing.Agency{locked}})
}

func testShared(t *testing.T, open opener) {
	tb, pos := begun(t, open)
	send := func(c table.Change) table.Change {
		c.Incarnation, c.Term = pos.Incarnation, pos.Term
		return c
	}
	started := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	op := routing.Operation{ID: "op-1", Kind: "cutover", Agency: "health", Agencies: []routing.AgencyID{"health"}, Nonce: 7, Step: "begin", Runner: "n1", Instance: "n1-1", Who: "anna", Reason: "r", Started: started, Detail: `{"a":1}`}
	freeze := routing.Freeze{Agency: "health", Who: "bert", Reason: "r", Since: started}
	doc := routing.Document{Key: "proposal/1", Text: "x \u2028 y"}
	first := change(t, tb, send(table.Change{ID: "1", Operations: []routing.Operation{op}, Freezes: []routing.Freeze{freeze}, Documents: []routing.Document{doc}, Agencies: []routing.Agency{agency(t, "health")}}))
	op.Revision, freeze.Revision, doc.Revision = first.Revision, first.Revision, first.Revision
	u, err := tb.Snapshot(t.Context())
	if err != nil || len(u.Operations) != 1 || !sameOperation(u.Operations[0], op) || len(u.Freezes) != 1 || u.Freezes[0] != freeze || len(u.Documents) != 1 || u.Documents[0] != doc {
		t.Errorf("snapshot: %+v, %v", u, err)
	}
	f := follow(t, tb, pos, time.Second)
	if e := f.next(t); len(e.Operations) != 1 || !sameOperation(e.Operations[0], op) || len(e.Freezes) != 1 || e.Freezes[0] != freeze || len(e.Documents) != 1 || e.Documents[0] != doc {
		t.Errorf("entry: %+v", e)
	}
	for name, c := range map[string]table.Change{
		"operation again": {Operations: []routing.Operation{{ID: "op-1"}}},
		"freeze again":    {Freezes: []routing.Freeze{{Agency: "health"}}},
		"document again":  {Documents: []routing.Document{{Key: "proposal/1"}}},
		"unknown":         {Operations: []routing.Operation{{ID: "op-2", Revision: 1}}},
		"unknown freeze":  {Freezes: []routing.Freeze{{Agency: "roads", Revision: 1}}},
	} {
		c.ID = name
		refused(t, tb, send(c), table.ErrStale)
	}
	// A freeze keeps operations from beginning, of one agency or of all.
	locked, err := current(t, tb, "health").Lock()
	if err != nil {
		t.Fatal(err)
	}
	begin := send(table.Change{ID: "begin", Agencies: []routing.Agency{locked}, Guard: table.Guard{Unfrozen: []routing.AgencyID{"health"}}})
	refused(t, tb, begin, table.ErrGuard)
	freeze.Removed = true
	all := routing.Freeze{Who: "bert", Reason: "r", Since: started}
	change(t, tb, send(table.Change{ID: "lift", Freezes: []routing.Freeze{freeze, all}}))
	refused(t, tb, begin, table.ErrGuard)
	if u, err = tb.Snapshot(t.Context()); err != nil || len(u.Freezes) != 1 || u.Freezes[0].Agency != "" {
		t.Fatalf("snapshot: %+v, %v", u.Freezes, err)
	}
	all = u.Freezes[0]
	all.Removed = true
	op.Ended, op.Step = true, "done"
	doc.Removed = true
	last := change(t, tb, send(table.Change{ID: "end", Freezes: []routing.Freeze{all}, Operations: []routing.Operation{op, {ID: "op-2", Started: started.Add(time.Hour)}}, Documents: []routing.Document{doc}}))
	change(t, tb, begin)
	if u, err = tb.Snapshot(t.Context()); err != nil || len(u.Freezes)+len(u.Documents) != 0 || len(u.Operations) != 1 || u.Operations[0].ID != "op-2" {
		t.Errorf("snapshot: %+v, %v", u, err)
	}
	op.Revision = last.Revision
	if o, err := tb.Operations(t.Context()); err != nil || len(o) != 2 || o[0].ID != "op-2" || !sameOperation(o[1], op) {
		t.Errorf("operations: %+v, %v", o, err)
	}
}

func sameOperation(a, b routing.Operation) bool {
	return len(a.Agencies) == len(b.Agencies) && a.ID == b.ID && a.Kind == b.Kind && a.Agency == b.Agency && a.Nonce == b.Nonce && a.Plan == b.Plan &&
		a.Step == b.Step && a.Runner == b.Runner && a.Instance == b.Instance && a.Ended == b.Ended && a.Who == b.Who && a.Reason == b.Reason &&
		a.Started.Equal(b.Started) && a.Detail == b.Detail && a.Revision == b.Revision
}

func testAbove(t *testing.T, open opener) {
	tb, pos := begun(t, open)
	n := newNode(t, tb, pos, "n1")
	n.granted()
	change(t, tb, table.Change{ID: "add", Incarnation: pos.Incarnation, Term: pos.Term, Agencies: []routing.Agency{agency(t, "health"), agency(t, "roads")}})
	n.follow()
	health := current(t, tb, "health")
	before := n.granted().Position
	follows := follow(t, tb, before, time.Second)
	above := func() []routing.Agency {
		t.Helper()
		u, err := tb.Snapshot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return u.Above
	}
	check := table.Check{Incarnation: pos.Incarnation, Node: "n1", Instance: "n1-1", Agencies: []table.AgencyEpoch{{Agency: "health", Epoch: health.Epoch}}}

	// What the table has or has overtaken is no news.
	old := health
	old.Epoch.Number--
	n.r.Above = []routing.Agency{health}
	n.granted()
	n.r.Above = []routing.Agency{old}
	if at := n.granted().Position; at != before || len(above()) != 0 {
		t.Errorf("at %+v, was %+v; above %+v", at, before, above())
	}
	if err := tb.Check(t.Context(), check); err != nil {
		t.Error(err)
	}
	// The same epoch with another answer is another history.
	other := health
	other.Nonce = 9
	n.r.Above = []routing.Agency{other}
	if at := n.granted().Position; at.Revision != before.Revision+1 {
		t.Errorf("at %+v, was %+v", at, before)
	}
	if e := follows.next(t); len(e.Above) != 1 || e.Above[0].ID != "health" || e.Above[0].Nonce != 9 || e.What != "above" || e.Who != "n1" {
		t.Errorf("entry: %+v", e)
	}
	if err := tb.Check(t.Context(), check); !errors.Is(err, table.ErrStale) {
		t.Errorf("check of a doubtful record: %v", err)
	}
	// Said again it is no news, unless it is higher.
	if at := n.granted().Position; at.Revision != before.Revision+1 {
		t.Errorf("said again: %+v", at)
	}
	other.Epoch.Number += 5
	n.r.Above = []routing.Agency{other}
	n.granted()
	if got := above(); len(got) != 1 || got[0].Epoch != other.Epoch {
		t.Errorf("above: %+v", got)
	}
	n.r.Above = nil
	// Nothing is built on the record that the table has, by whoever doesn't know better.
	people := table.Guard{Rejoining: true}
	for number, guard := range map[uint32]table.Guard{health.Epoch.Number + 1: people, other.Epoch.Number: people, other.Epoch.Number + 1: {}} {
		next := health
		next.Epoch.Number = number
		refused(t, tb, table.Change{ID: fmt.Sprint("unaware ", number), Incarnation: pos.Incarnation, Term: pos.Term, Agencies: []routing.Agency{next}, Guard: guard}, table.ErrGuard)
	}
	if len(above()) != 1 {
		t.Errorf("something ended it: %+v", above())
	}
	health.Epoch.Number = other.Epoch.Number + 1
	change(t, tb, table.Change{ID: "reconcile", Incarnation: pos.Incarnation, Term: pos.Term, Agencies: []routing.Agency{health}, Guard: people})
	if len(above()) != 0 {
		t.Errorf("above after a higher epoch: %+v", above())
	}
}

// A table that went back is known by what its nodes have seen.
// A node that has renewed in a new term has to report anew what it has drained.
func testReportsOfATerm(t *testing.T, open opener) {
	tb, pos := begun(t, open)
	n := newNode(t, tb, pos, "n1")
	n.granted()
	change(t, tb, table.Change{ID: "add", Incarnation: pos.Incarnation, Term: pos.Term, Agencies: []routing.Agency{agency(t, "health").Arm()}})
	drained := []table.AgencyEpoch{{Agency: "health", Epoch: current(t, tb, "health").Epoch}}
	n.follow()
	n.r.Drained = drained
	n.granted()
	change(t, tb, table.Change{ID: "raise", Incarnation: pos.Incarnation, Term: 7, Guard: table.Guard{EndRejoin: true}})
	n.follow()
	n.r.Drained = nil
	n.granted()
	c := func(id string) table.Change {
		return table.Change{ID: id, Incarnation: pos.Incarnation, Term: 7, Guard: table.Guard{Drained: drained},
			Freezes: []routing.Freeze{{Agency: "health", Who: "x", Reason: "x"}}}
	}
	refused(t, tb, c("early"), table.ErrGuard)
	n.r.Drained = drained
	n.granted()
	change(t, tb, c("reported"))
}

func testWentBack(t *testing.T, open opener) {
	tb, pos := begun(t, open)
	n1, n2 := newNode(t, tb, pos, "n1"), newNode(t, tb, pos, "n2")
	n1.granted()
	n2.granted()
	change(t, tb, table.Change{ID: "add", Incarnation: pos.Incarnation, Term: pos.Term, Agencies: []routing.Agency{agency(t, "health")}})
	n1.follow()
	n2.follow()
	n1.granted()
	base := n2.granted().Position
	n1.r.Applied += 4
	lost := routing.Position{Incarnation: pos.Incarnation, Revision: base.Revision + 1, Mapped: base.Mapped, Term: pos.Term}
	first := n1.renew()
	if first.Settled || first.Armed || first.Why == "" || first.Position.Term != pos.Term+1 || first.Position.Revision != base.Revision+1 {
		t.Errorf("renewal with marks above: %+v", first)
	}
	if l := nodes(t, tb).Leases["n1"]; !l.Behind {
		t.Errorf("lease: %+v", l)
	}
	lock, err := current(t, tb, "health").InTerm(first.Position.Term).Lock()
	if err != nil {
		t.Fatal(err)
	}
	c := table.Change{ID: "lock", Incarnation: pos.Incarnation, Term: first.Position.Term, Agencies: []routing.Agency{lock}}
	refused(t, tb, c, table.ErrRejoining)
	check := table.Check{Incarnation: pos.Incarnation, Node: "n2", Instance: "n2-1", Agencies: []table.AgencyEpoch{{Agency: "health", Epoch: routing.Epoch{Term: 1, Number: 1}}}}
	if err := tb.Check(t.Context(), check); !errors.Is(err, table.ErrRejoining) {
		t.Errorf("check: %v", err)
	}
	fresh := newNode(t, tb, pos, "n3")
	if _, err := fresh.try(); !errors.Is(err, table.ErrRejoining) {
		t.Errorf("a new node: %v", err)
	}
	c.Guard.Rejoining = true
	locked := change(t, tb, c)
	if locked.Term != first.Position.Term {
		t.Errorf("locked: %+v", locked)
	}
	// Who saw nothing that was lost may go on for settled agencies, unless he had to stop.
	n2.r.Lapsed = true
	if answer := n2.renew(); answer.Settled || answer.Armed {
		t.Errorf("lapsed: %+v", answer)
	}
	if answer := n2.renew(); !answer.Settled || answer.Armed {
		t.Errorf("not lapsed: %+v", answer)
	}
	if nodes(t, tb).Rejoining == "" {
		t.Error("not rejoining")
	}
	// The log goes on for those who saw nothing more, and for nobody else.
	if e := follow(t, tb, base, time.Second).next(t); e.Position != first.Position || e.What != "rejoin" {
		t.Errorf("entry: %+v", e)
	}
	follow(t, tb, lost, time.Second).end(t, table.ErrRegressed)
	ahead := locked
	ahead.Term++
	follow(t, tb, ahead, time.Second).end(t, table.ErrRegressed)

	n1.follow()
	answer := n1.granted()
	if answer.Position.Revision != locked.Revision+1 || answer.Position.Term != first.Position.Term || nodes(t, tb).Rejoining != "" {
		t.Errorf("rejoined: %+v", answer)
	}
	if answer := n2.granted(); answer.Position.Term != first.Position.Term {
		t.Errorf("n2: %+v", answer)
	}
}

// Two servers took over in the same term, one after the other: what a node knows from the
// first is of another history, though its numbers are right.
func testForked(t *testing.T, open opener) {
	tb, pos := begun(t, open)
	n1, n2 := newNode(t, tb, pos, "n1"), newNode(t, tb, pos, "n2")
	n1.granted()
	n2.granted()
	n1.follow()
	n2.follow()
	base := n2.granted().Position
	n1.granted()
	n1.r.Replication = "0123456789"
	if answer := n1.renew(); answer.Settled || answer.Armed || answer.Position.Term != pos.Term+1 {
		t.Errorf("the other history: %+v", answer)
	}
	if answer := n2.renew(); answer.Settled || answer.Armed {
		t.Errorf("nobody knows which history n2 has: %+v", answer)
	}
	follow(t, tb, base, time.Second).end(t, table.ErrRegressed)
	n2.follow()
	n2.renew()
	n1.follow()
	n1.granted()
	n2.granted()
}

// People end a rejoin that would wait for ever.
func testEndRejoin(t *testing.T, open opener) {
	tb, pos := begun(t, open)
	n1, n2 := newNode(t, tb, pos, "n1"), newNode(t, tb, pos, "n2")
	n1.granted()
	n2.granted()
	n1.follow()
	n1.r.Term += 3
	if answer := n1.renew(); answer.Armed || answer.Position.Term != pos.Term+4 {
		t.Fatalf("renewal: %+v", answer)
	}
	n1.follow()
	if answer := n1.renew(); !answer.Settled || answer.Armed {
		t.Fatalf("n2 is missing: %+v", answer)
	}
	at, err := tb.Position(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	attested := n2.member()
	attested.Attested, attested.Unconfirmed = attested.Instance, "emergency-1"
	change(t, tb, members(t, tb, "attest alone", table.Guard{Rejoining: true}, attested))
	if answer := n1.renew(); answer.Armed {
		t.Fatalf("n2 is attested by one person alone: %+v", answer)
	}
	attested = n2.member()
	attested.Unconfirmed = ""
	c := members(t, tb, "attest", table.Guard{}, attested)
	refused(t, tb, c, table.ErrRejoining)
	c.Guard.Rejoining = true
	change(t, tb, c)
	n1.granted() // who is attested isn't waited for
	if _, err := n2.try(); !errors.Is(err, table.ErrEvicted) {
		t.Errorf("attested: %v", err)
	}
	n1.r.Term += 3
	n1.renew()
	done := change(t, tb, table.Change{ID: "end", Incarnation: pos.Incarnation, Term: at.Term + 4, Guard: table.Guard{EndRejoin: true}})
	if n := nodes(t, tb); n.Rejoining != "" || n.Position != done {
		t.Errorf("ended: %+v", n)
	}
	n1.follow()
	n1.granted()
}

// testRestart restarts what keeps the table, which loses nothing.
func testRestart(t *testing.T, open opener, restart func(t *testing.T, old table.Table) table.Table) {
	tb, pos := begun(t, open)
	n1, n2 := newNode(t, tb, pos, "n1"), newNode(t, tb, pos, "n2")
	n1.granted()
	n2.granted()
	change(t, tb, table.Change{ID: "add", Incarnation: pos.Incarnation, Term: pos.Term, Agencies: []routing.Agency{agency(t, "health")}})
	for _, n := range []*node{n1, n2} {
		n.follow()
		n.r.Drained = []table.AgencyEpoch{{Agency: "health", Epoch: routing.Epoch{Term: 1, Number: 1}}}
		n.granted()
	}
	before := nodes(t, tb)
	tb = restart(t, tb)
	n1.tb, n2.tb = tb, tb
	lock, err := current(t, tb, "health").Lock()
	if err != nil {
		t.Fatal(err)
	}
	if moved := nodes(t, tb); moved.Rejoining != "" {
		// Nothing is believed before a node has renewed.
		for _, g := range []table.Guard{{}, {Rejoining: true}, {EndRejoin: true}} {
			refused(t, tb, table.Change{ID: "early", Incarnation: pos.Incarnation, Term: pos.Term, Agencies: []routing.Agency{lock}, Guard: g}, table.ErrRejoining)
		}
		n1.r.Drained = nil
		if answer := n1.renew(); answer.Armed || !answer.Settled || answer.Position.Term != pos.Term+1 {
			t.Errorf("n1: %+v", answer)
		}
		if l := nodes(t, tb).Leases["n1"]; len(l.Drained) != 0 || l.Behind {
			t.Errorf("reports of the server before: %+v", l)
		}
		n2.granted()
	}
	answer := n1.granted()
	if answer.Position.Term < before.Position.Term || nodes(t, tb).Rejoining != "" {
		t.Errorf("after the restart: %+v", answer)
	}
	if locked, err := current(t, tb, "health").InTerm(answer.Position.Term).Lock(); err != nil {
		t.Fatal(err)
	} else {
		change(t, tb, table.Change{ID: "lock", Incarnation: pos.Incarnation, Term: answer.Position.Term, Agencies: []routing.Agency{locked}})
	}
}
