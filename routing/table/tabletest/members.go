package tabletest

import (
	"errors"
	"testing"
	"time"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

// eventually waits until call returns an error that is want.
func eventually(t *testing.T, what string, want error, call func() error) {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		err := call()
		if errors.Is(err, want) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v, want %v", what, err, want)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// members changes members' records as an operator would.
func members(t *testing.T, tb table.Table, id string, g table.Guard, all ...routing.Member) table.Change {
	t.Helper()
	pos, err := tb.Position(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return table.Change{ID: id, Incarnation: pos.Incarnation, Term: pos.Term, Members: all, Guard: g}
}

func (n *node) member() routing.Member {
	n.t.Helper()
	for _, m := range nodes(n.t, n.tb).Members {
		if m.Node == n.r.Member.Node {
			return m
		}
	}
	n.t.Fatalf("node %s is no member", n.r.Member.Node)
	return routing.Member{}
}

func (n *node) fence(kind table.FenceKind) table.Fence {
	n.t.Helper()
	l := nodes(n.t, n.tb).Leases[n.r.Member.Node]
	return table.Fence{Node: n.r.Member.Node, Instance: l.Instance, Counter: l.Counter, Kind: kind}
}

func testBadRenewal(t *testing.T, open opener) {
	tb, pos := begun(t, open)
	for name, spoil := range map[string]func(*table.Renewal){
		"no node":                  func(r *table.Renewal) { r.Member.Node = "" },
		"node with a space":        func(r *table.Renewal) { r.Member.Node = "a b" },
		"no instance":              func(r *table.Renewal) { r.Member.Instance = "" },
		"instance of two words":    func(r *table.Renewal) { r.Member.Instance = "a b" },
		"predecessor of two words": func(r *table.Renewal) { r.After = "a b" },
		"no long lease":            func(r *table.Renewal) { r.Long = 0 },
		"no short lease":           func(r *table.Renewal) { r.Short = 0 },
		"long below short":         func(r *table.Renewal) { r.Long = r.Short - 1 },
		"negative":                 func(r *table.Renewal) { r.Short = -1 },
		"marks without a term":     func(r *table.Renewal) { r.Term, r.Applied = 0, 3 },
		"term without marks":       func(r *table.Renewal) { r.Term, r.Applied = 3, 0 },
		"marks beyond all":         func(r *table.Renewal) { r.Term, r.Applied = 1, 1<<60 },
		"drained without a name":   func(r *table.Renewal) { r.Drained = []table.AgencyEpoch{{}} },
		"above without a name":     func(r *table.Renewal) { r.Above = []routing.Agency{{}} },
	} {
		n := newNode(t, tb, pos, "n1")
		spoil(&n.r)
		if _, err := n.try(); !errors.Is(err, table.ErrBadChange) {
			t.Errorf("%s: %v, want %v", name, err, table.ErrBadChange)
		}
	}
	for name, c := range map[string]table.Check{
		"no agency": {Incarnation: pos.Incarnation, Node: "n1", Instance: "i"},
		"no node":   {Incarnation: pos.Incarnation, Instance: "i", Agencies: []table.AgencyEpoch{{Agency: "a"}}},
		"too many":  {Incarnation: pos.Incarnation, Node: "n1", Instance: "i", Agencies: make([]table.AgencyEpoch, table.MaxChecked+1)},
	} {
		if err := tb.Check(t.Context(), c); !errors.Is(err, table.ErrBadChange) {
			t.Errorf("check, %s: %v", name, err)
		}
	}
	n := newNode(t, tb, pos, "n1")
	n.r.Incarnation = "another"
	if _, err := n.try(); !errors.Is(err, table.ErrIncarnation) {
		t.Errorf("another incarnation: %v", err)
	}
	if all := nodes(t, tb); len(all.Members)+len(all.Leases) != 0 || all.Position != pos {
		t.Errorf("refused renewals left %+v", all)
	}
}

func testInstances(t *testing.T, open opener) {
	tb, pos := begun(t, open)
	n := newNode(t, tb, pos, "n1")
	n.r.Long = time.Minute
	n.granted()
	joined := n.member().Joined
	if _, err := tb.Change(t.Context(), members(t, tb, "drain", table.Guard{}, func() routing.Member { m := n.member(); m.Draining = true; return m }())); err != nil {
		t.Fatal(err)
	}
	other := newNode(t, tb, pos, "n1")
	other.r.Member.Instance = "n1-2"
	if _, err := other.try(); !errors.Is(err, table.ErrInstance) {
		t.Errorf("another instance beside the first: %v", err)
	}
	other.r.After = "n1-0"
	if _, err := other.try(); !errors.Is(err, table.ErrInstance) {
		t.Errorf("another instance after some other: %v", err)
	}
	n.granted() // the refusals took nothing from it
	// On the same data directory it is known that the first is gone.
	other.r.After = "n1-1"
	other.granted()
	if m := other.member(); m.Instance != "n1-2" || !m.Draining || !m.Joined.After(joined) {
		t.Errorf("member: %+v, the first joined %v", m, joined)
	}
	if _, err := n.try(); !errors.Is(err, table.ErrInstance) {
		t.Errorf("the first instance: %v", err)
	}
	check := table.Check{Incarnation: pos.Incarnation, Node: "n1", Instance: "n1-1", Agencies: []table.AgencyEpoch{{Agency: "health"}}}
	if err := tb.Check(t.Context(), check); !errors.Is(err, table.ErrInstance) {
		t.Errorf("check by the first instance: %v", err)
	}
	check.Node = "n9"
	if err := tb.Check(t.Context(), check); !errors.Is(err, table.ErrNotMember) {
		t.Errorf("check by nobody: %v", err)
	}
	// Who gave up can be followed by anybody, once what it sent can't arrive any more.
	other.r.Short, other.r.Long = time.Second, time.Second
	began := time.Now()
	other.renew()
	third := newNode(t, tb, pos, "n1")
	third.r.Member.Instance, third.r.Short, third.r.Long = "n1-3", 10*time.Millisecond, 20*time.Millisecond
	if _, err := third.try(); !errors.Is(err, table.ErrInstance) && time.Since(began) < other.r.Long { // else the machine was too busy to ask in time
		t.Errorf("another instance while something may arrive: %v", err)
	}
	eventually(t, "renewal after it gave up", nil, func() error { _, err := third.try(); return err })

	// Whose long lease is over has to be fenced by who follows, and its clock to run.
	fourth := newNode(t, tb, pos, "n1")
	fourth.r.Member.Instance, fourth.r.Gone = "n1-4", third.fence(table.FenceLong)
	time.Sleep(40 * time.Millisecond)
	if _, err := fourth.try(); !errors.Is(err, table.ErrInstance) {
		t.Errorf("another instance after one whose clock may have stood still: %v", err)
	}
	third.r.Member.ClockRuns = true
	third.granted()
	time.Sleep(40 * time.Millisecond)
	if _, err := fourth.try(); !errors.Is(err, table.ErrInstance) {
		t.Errorf("another instance with the fence of an earlier lease: %v", err)
	}
	gone := third.fence(table.FenceLong)
	fourth.r.Gone = table.Fence{}
	if _, err := fourth.try(); !errors.Is(err, table.ErrInstance) {
		t.Errorf("another instance without a fence: %v", err)
	}
	fourth.r.Gone = gone
	fourth.granted()
	if m := fourth.member(); m.Instance != "n1-4" || m.ClockRuns || !m.Draining {
		t.Errorf("member: %+v", m)
	}

	// One person's word that an instance is dead outlives it.
	dead := fourth.member()
	dead.Attested, dead.Unconfirmed = dead.Instance, "emergency-1"
	change(t, tb, members(t, tb, "attest", table.Guard{Rejoining: true}, dead))
	fifth := newNode(t, tb, pos, "n1")
	fifth.r.Member.Instance = "n1-5"
	fifth.granted()
	if m := fifth.member(); m.Attested != "" || m.Unconfirmed != "emergency-1" {
		t.Errorf("member after an attested one: %+v", m)
	}
}

func testEvict(t *testing.T, open opener) {
	tb, pos := begun(t, open)
	n1, n2 := newNode(t, tb, pos, "n1"), newNode(t, tb, pos, "n2")
	n1.granted()
	n2.granted()
	evicted := n2.member()
	evicted.Evicted = true
	refused(t, tb, members(t, tb, "bare", table.Guard{}, evicted), table.ErrGuard)
	for _, kind := range []table.FenceKind{table.FenceShort, table.FenceLong, table.FenceAttested, ""} {
		refused(t, tb, members(t, tb, "too early "+string(kind), table.Guard{Fenced: []table.Fence{n2.fence(kind)}}, evicted), table.ErrGuard)
	}
	stale := evicted
	stale.Revision--
	refused(t, tb, members(t, tb, "stale", table.Guard{}, stale), table.ErrStale)
	changed := n2.member()
	changed.Instance = "x"
	refused(t, tb, members(t, tb, "instance", table.Guard{}, changed), table.ErrGuard)
	refused(t, tb, members(t, tb, "new", table.Guard{}, routing.Member{Node: "n3", Instance: "x", Protocol: 1}), table.ErrGuard)

	// Attested and evicted at once, and it is refused from then on.
	evicted.Attested = evicted.Instance
	change(t, tb, members(t, tb, "evict", table.Guard{Fenced: []table.Fence{n2.fence(table.FenceAttested)}}, evicted))
	if _, err := n2.try(); !errors.Is(err, table.ErrEvicted) {
		t.Errorf("renewal: %v", err)
	}
	check := table.Check{Incarnation: pos.Incarnation, Node: "n2", Instance: "n2-1", Agencies: []table.AgencyEpoch{{Agency: "health"}}}
	if err := tb.Check(t.Context(), check); !errors.Is(err, table.ErrEvicted) {
		t.Errorf("check: %v", err)
	}
	// Guards don't wait for it.
	n1.r.Term, n1.r.Applied = pos.Term, pos.Revision
	n1.granted()
	change(t, tb, table.Change{ID: "add", Incarnation: pos.Incarnation, Term: pos.Term, Agencies: []routing.Agency{agency(t, "health")}, Guard: table.Guard{Applied: pos.Revision}})
	back := n2.member()
	back.Evicted = false
	refused(t, tb, members(t, tb, "back", table.Guard{}, back), table.ErrGuard)
	again := newNode(t, tb, pos, "n2")
	again.r.Member.Instance = "n2-2"
	again.granted()
	if m := again.member(); m.Evicted || m.Attested != "" {
		t.Errorf("another instance: %+v", m)
	}

	// A long lease that is over is a fence, unless it was renewed, or the clock may have
	// stood still.
	again.r.Short, again.r.Long = 10*time.Millisecond, 20*time.Millisecond
	again.granted()
	f := again.fence(table.FenceLong)
	evicted = again.member()
	evicted.Evicted = true
	time.Sleep(40 * time.Millisecond)
	refused(t, tb, members(t, tb, "clock", table.Guard{Fenced: []table.Fence{f}}, evicted), table.ErrGuard)
	again.r.Member.ClockRuns = true
	again.granted()
	evicted = again.member()
	evicted.Evicted = true
	refused(t, tb, members(t, tb, "renewed since", table.Guard{Fenced: []table.Fence{f}}, evicted), table.ErrGuard)
	f = again.fence(table.FenceLong)
	eventually(t, "eviction", nil, func() error {
		_, err := tb.Change(t.Context(), members(t, tb, "long", table.Guard{Fenced: []table.Fence{f}}, evicted))
		return err
	})
}

func testFences(t *testing.T, open opener) {
	tb, pos := begun(t, open)
	n1, n2 := newNode(t, tb, pos, "n1"), newNode(t, tb, pos, "n2")
	n1.granted()
	n2.r.Short, n2.r.Long = 10*time.Millisecond, time.Minute
	n2.granted()
	armed := change(t, tb, table.Change{ID: "add", Incarnation: pos.Incarnation, Term: pos.Term, Agencies: []routing.Agency{agency(t, "health").Arm()}}).Revision
	n1.follow()
	n1.granted()
	n1.r.Drained = []table.AgencyEpoch{{Agency: "health", Epoch: routing.Epoch{Term: pos.Term, Number: 2}}}
	n1.granted()
	next, count := current(t, tb, "health"), 0
	c := func(g table.Guard) table.Change {
		count++
		a := next
		a.Epoch.Number++
		return table.Change{ID: string(rune('a' + count)), Incarnation: pos.Incarnation, Term: pos.Term, Agencies: []routing.Agency{a}, Guard: g}
	}
	drained := n1.r.Drained
	// The short lease doesn't count: n2 doesn't know that the agency is armed.
	time.Sleep(20 * time.Millisecond)
	refused(t, tb, c(table.Guard{Drained: drained, Applied: armed, Fenced: []table.Fence{n2.fence(table.FenceShort)}}), table.ErrGuard)
	refused(t, tb, c(table.Guard{Drained: drained, Applied: armed, Fenced: []table.Fence{n2.fence(table.FenceLong)}}), table.ErrGuard)
	refused(t, tb, c(table.Guard{Applied: armed, Fenced: []table.Fence{n2.fence(table.FenceLong)}}), table.ErrGuard)
	n2.follow()
	n2.r.Short = 30 * time.Second
	n2.granted()
	refused(t, tb, c(table.Guard{Drained: drained, Applied: armed, Fenced: []table.Fence{n2.fence(table.FenceShort)}}), table.ErrGuard) // its lease lasts
	n2.r.Short = 10 * time.Millisecond
	n2.granted()
	f := n2.fence(table.FenceShort)
	wrong := f
	wrong.Counter--
	other := f
	other.Instance = "x"
	time.Sleep(20 * time.Millisecond)
	refused(t, tb, c(table.Guard{Drained: drained, Applied: armed, Fenced: []table.Fence{wrong}}), table.ErrGuard)
	refused(t, tb, c(table.Guard{Drained: drained, Applied: armed, Fenced: []table.Fence{other}}), table.ErrGuard)
	refused(t, tb, c(table.Guard{Drained: drained, Applied: armed}), table.ErrGuard)
	// What has to be applied is one thing, what the fence rests on another: n2 knew of the
	// arming, and not of what came after it.
	later := change(t, tb, table.Change{ID: "later", Incarnation: pos.Incarnation, Term: pos.Term, Freezes: []routing.Freeze{{Agency: "health", Who: "x", Reason: "x"}}}).Revision
	n1.follow()
	n1.granted()
	refused(t, tb, c(table.Guard{Applied: later, Fenced: []table.Fence{f}}), table.ErrGuard)
	refused(t, tb, c(table.Guard{Applied: later, Base: later, Fenced: []table.Fence{f}}), table.ErrGuard)
	change(t, tb, c(table.Guard{Applied: later, Base: armed, Fenced: []table.Fence{f}}))
	next = current(t, tb, "health")
	change(t, tb, c(table.Guard{Drained: drained, Applied: armed, Fenced: []table.Fence{f}}))
	next = current(t, tb, "health")
	// Reported too low, then given up: nothing to wait for.
	low := table.Guard{Drained: []table.AgencyEpoch{{Agency: "health", Epoch: routing.Epoch{Term: pos.Term, Number: 3}}}, Fenced: []table.Fence{f}}
	refused(t, tb, c(low), table.ErrGuard)
	n1.r.Drained = low.Drained
	n1.granted()
	n2.r.Short, n2.r.Long = 0, 0
	n2.renew()
	refused(t, tb, c(low), table.ErrGuard) // the fence is of the lease before
	low.Fenced = []table.Fence{n2.fence(table.FenceLong)}
	change(t, tb, c(low))
	// And to who gave up, no final dot.
	check := table.Check{Incarnation: pos.Incarnation, Node: "n2", Instance: "n2-1", Agencies: []table.AgencyEpoch{{Agency: "health", Epoch: current(t, tb, "health").Epoch}}}
	if err := tb.Check(t.Context(), check); !errors.Is(err, table.ErrNotMember) {
		t.Errorf("check without a lease: %v", err)
	}
}
