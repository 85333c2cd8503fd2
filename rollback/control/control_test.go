package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"mailcutover/routing"
	"mailcutover/routing/localtable"
	"mailcutover/routing/replica"
	"mailcutover/routing/table"
)

// bench is an embedded table with a replica and members that renew when a test says so.
type bench struct {
	*Control
	t       *testing.T
	table   *localtable.Table
	members map[routing.NodeID]*table.Renewal
	acts    int
}

func newBench(t *testing.T) *bench {
	t.Helper()
	tb, err := localtable.Open(filepath.Join(t.TempDir(), "table.db"), localtable.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tb.Close() })
	if _, err := tb.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	rep, err := replica.Open(replica.Options{Table: tb, Interval: 20 * time.Millisecond, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- rep.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	b := &bench{
		Control: New(Options{Table: tb, Replica: rep, Logger: slog.New(slog.DiscardHandler), Receipts: 300 * time.Millisecond, Silence: 100 * time.Millisecond}),
		t:       t, table: tb, members: map[routing.NodeID]*table.Renewal{},
	}
	b.follow()
	return b
}

// follow waits until the replica is where the table is.
func (b *bench) follow() routing.Position {
	b.t.Helper()
	pos, err := b.table.Position(b.t.Context())
	if err == nil {
		err = b.Replica.Wait(b.t.Context(), pos)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	return pos
}

// renew lets a member renew with all that the table has, after edit.
func (b *bench) renew(node routing.NodeID, edit func(*table.Renewal)) {
	b.t.Helper()
	r := b.members[node]
	if r == nil {
		r = &table.Renewal{
			Member: routing.Member{Node: node, Instance: routing.InstanceID(node + "-1"), Protocol: table.Protocol},
			Short:  10 * time.Second, Long: 15 * time.Minute, Lapsed: true,
		}
		b.members[node] = r
	}
	pos := b.follow()
	r.Incarnation, r.Term, r.Applied = pos.Incarnation, pos.Term, pos.Revision
	r.Sequence++
	if edit != nil {
		edit(r)
	}
	if _, err := b.table.Renew(b.t.Context(), *r); err != nil {
		b.t.Fatalf("renewal of %s: %v", node, err)
	}
	r.Lapsed, r.Drained = false, nil
	b.follow()
}

// act returns a new act of anna's.
func (b *bench) act() Act {
	b.acts++
	return Act{ID: fmt.Sprintf("act-%d", b.acts), Who: "anna", Reason: "a test"}
}

// put stores a record as it is.
func (b *bench) put(a routing.Agency) {
	b.t.Helper()
	b.acts++
	pos := b.follow()
	if _, err := b.table.Change(b.t.Context(), table.Change{
		ID: fmt.Sprintf("put-%d", b.acts), Incarnation: pos.Incarnation, Term: pos.Term, Agencies: []routing.Agency{a},
	}); err != nil {
		b.t.Fatal(err)
	}
	b.follow()
}

func (b *bench) add(id routing.AgencyID) {
	b.t.Helper()
	a, err := routing.NewAgency(id, "exchange", "ox")
	if err != nil {
		b.t.Fatal(err)
	}
	b.put(a)
}

func (b *bench) agency(id routing.AgencyID) routing.Agency {
	b.t.Helper()
	a, ok := b.Replica.State().Agency(id)
	if !ok {
		b.t.Fatalf("no agency %s", id)
	}
	return a
}

// receipt returns a node's.
func receipt(t *testing.T, r Result, node routing.NodeID) Receipt {
	t.Helper()
	for _, one := range r.Nodes {
		if one.Node == node {
			return one
		}
	}
	t.Fatalf("no receipt of %s in %+v", node, r.Nodes)
	return Receipt{}
}

func TestLockAndUnlock(t *testing.T) {
	b := newBench(t)
	b.add("health")
	b.add("police")
	was := b.agency("health")
	r, err := b.Lock(t.Context(), b.act(), []routing.AgencyID{"health", "police"}, false)
	if err != nil || len(r.Agencies) != 2 || !r.Complete {
		t.Fatalf("lock: %+v, %v", r, err)
	}
	health := b.agency("health")
	if !health.Locked || health.Epoch != was.Epoch.Next() || health.Unconfirmed != "" {
		t.Errorf("locked: %+v", health)
	}
	if police := b.agency("police"); police.Revision != health.Revision {
		t.Errorf("locked at revisions %d and %d, not at once", health.Revision, police.Revision)
	}
	again, err := b.Lock(t.Context(), b.act(), []routing.AgencyID{"health"}, true)
	if err != nil || again.Agencies[0].Epoch != health.Epoch || again.Agencies[0].Unconfirmed == "" {
		t.Errorf("locked again, in an emergency: %+v, %v", again, err)
	}
	if _, err := b.Unlock(t.Context(), b.act(), []routing.AgencyID{"health", "nobody"}); !errors.Is(err, ErrNoAgency) || !b.agency("health").Locked {
		t.Errorf("half an unlock: %v, %+v", err, b.agency("health"))
	}
	stale := b.act()
	stale.Expected = map[routing.AgencyID]routing.Epoch{"health": was.Epoch}
	if _, err := b.Unlock(t.Context(), stale, []routing.AgencyID{"health"}); !errors.Is(err, ErrEpoch) {
		t.Errorf("unlock with another epoch in mind: %v", err)
	}
	if _, err := b.Unlock(t.Context(), b.act(), []routing.AgencyID{"health"}); err != nil || b.agency("health").Locked {
		t.Errorf("unlock: %v, %+v", err, b.agency("health"))
	}
	if _, err := b.Unlock(t.Context(), b.act(), []routing.AgencyID{"health"}); !errors.Is(err, routing.ErrNotLocked) {
		t.Errorf("unlocked twice: %v", err)
	}
	blank := b.act()
	blank.Reason = " "
	if _, err := b.Lock(t.Context(), blank, []routing.AgencyID{"health"}, false); !errors.Is(err, ErrNoReason) {
		t.Errorf("without a reason: %v", err)
	}
}

func TestReceiptsSayWhatEachNodeHasMadeOfALock(t *testing.T) {
	synctest.Test(t, receiptsSayWhatEachNodeHasMadeOfALock)
}

func receiptsSayWhatEachNodeHasMadeOfALock(t *testing.T) {
	b := newBench(t)
	b.add("health")
	b.put(b.agency("health").Arm())
	for _, node := range []routing.NodeID{"closed", "doubting", "cut-off", "knew-nothing", "stopped", "dead"} {
		b.renew(node, nil)
	}
	if err := b.Attest(t.Context(), b.act(), "dead", "dead-1"); err != nil {
		t.Fatal(err)
	}
	b.renew("stopped", func(r *table.Renewal) { r.Short, r.Long = 0, 0 })
	b.renew("knew-nothing", func(r *table.Renewal) { r.Applied = 2 })
	b.renew("cut-off", nil)

	lock := make(chan Result)
	go func() {
		r, err := b.Lock(t.Context(), b.act(), []routing.AgencyID{"health"}, true)
		if err != nil {
			t.Errorf("lock: %v", err)
		}
		lock <- r
	}()
	for !b.agency("health").Locked {
		time.Sleep(time.Millisecond)
	}
	epoch := b.agency("health").Epoch
	drained := []table.AgencyEpoch{{Agency: "health", Epoch: epoch}}
	b.renew("closed", func(r *table.Renewal) {
		r.Drained, r.Counts = drained, []table.Count{{Agency: "health", Held: 7}, {Agency: "police", Held: 1}}
	})
	until := time.Now().Add(time.Minute).UTC().Truncate(time.Second)
	b.renew("doubting", func(r *table.Renewal) {
		r.Doubts = []table.Doubt{{Agency: "health", Messages: 2, Until: until}, {Agency: "police", Messages: 9, Until: until.Add(time.Hour)}}
	})
	r := <-lock
	n, err := b.table.Nodes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for node, want := range map[routing.NodeID]Receipt{
		"closed":       {Standing: Closed, Held: 7},
		"doubting":     {Standing: InDoubt, Until: until, Messages: 2},
		"cut-off":      {Standing: Waiting, Until: n.Leases["cut-off"].ShortEnd},
		"knew-nothing": {Standing: Waiting, Until: n.Leases["knew-nothing"].LongEnd},
		"stopped":      {Standing: Gone},
		"dead":         {Standing: Gone},
	} {
		want.Node = node
		if got := receipt(t, r, node); got.Standing != want.Standing || got.Held != want.Held || got.Messages != want.Messages || !got.Until.Equal(want.Until) {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
	if r.Complete {
		t.Error("complete, though two nodes have not seen it")
	}
}

func TestAnEmergencyIsConfirmedOnceForAllItsAgencies(t *testing.T) {
	b := newBench(t)
	b.add("health")
	b.add("police")
	act := b.act()
	if _, err := b.Lock(t.Context(), act, []routing.AgencyID{"health", "police"}, true); err != nil {
		t.Fatal(err)
	}
	if _, err := b.ConfirmEmergency(t.Context(), b.act(), "another"); !errors.Is(err, ErrNothing) {
		t.Errorf("another emergency confirmed: %v", err)
	}
	other := b.act()
	if _, err := b.Lock(t.Context(), other, []routing.AgencyID{"health"}, true); err != nil {
		t.Fatal(err)
	}
	r, err := b.ConfirmEmergency(t.Context(), b.act(), routing.OperationID(act.ID))
	if err != nil || len(r.Agencies) != 2 || b.agency("health").Unconfirmed != routing.Emergencies(other.ID) || b.agency("police").Unconfirmed != "" {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := b.ConfirmEmergency(t.Context(), b.act(), routing.OperationID(other.ID)); err != nil || b.agency("health").Unconfirmed != "" {
		t.Errorf("the other one: %+v, %v", b.agency("health"), err)
	}
}

func TestFreezeAndLift(t *testing.T) {
	b := newBench(t)
	b.add("health")
	for _, id := range []routing.AgencyID{"health", ""} {
		if err := b.Freeze(t.Context(), b.act(), id); err != nil {
			t.Fatal(err)
		}
		if err := b.Freeze(t.Context(), b.act(), id); !errors.Is(err, ErrNothing) {
			t.Errorf("%q frozen twice: %v", id, err)
		}
	}
	if f, ok := b.Replica.State().Frozen("health"); !ok || f.Agency != "" || f.Who != "anna" {
		t.Errorf("%+v, %t", f, ok)
	}
	if err := b.Lift(t.Context(), b.act(), ""); err != nil {
		t.Fatal(err)
	}
	if f, ok := b.Replica.State().Frozen("health"); !ok || f.Agency != "health" {
		t.Errorf("after the lift for all: %+v, %t", f, ok)
	}
	if err := b.Lift(t.Context(), b.act(), ""); !errors.Is(err, ErrNothing) {
		t.Errorf("lifted twice: %v", err)
	}
	if err := b.Freeze(t.Context(), b.act(), "nobody"); !errors.Is(err, ErrNoAgency) {
		t.Errorf("nobody frozen: %v", err)
	}
}

// Settling is two changes with a confirmation between them.
func TestSettleIsTwoChanges(t *testing.T) {
	b := newBench(t)
	b.add("health")
	if _, err := b.Settle(t.Context(), b.act(), []routing.AgencyID{"health"}); !errors.Is(err, routing.ErrNotArmed) {
		t.Errorf("settle what is settled: %v", err)
	}
	if r, err := b.Arm(t.Context(), b.act(), []routing.AgencyID{"health"}); err != nil || r.Agencies[0].Tightness != routing.Armed {
		t.Fatalf("arm: %+v, %v", r, err)
	}
	before := b.follow().Revision
	r, err := b.Settle(t.Context(), b.act(), []routing.AgencyID{"health"})
	if err != nil || r.Agencies[0].Tightness != routing.Settled || r.Position.Revision != before+2 {
		t.Errorf("settle: %+v, %v; from revision %d", r, err, before)
	}
}

func TestFinalise(t *testing.T) {
	b := newBench(t)
	b.add("health")
	if _, err := b.Finalise(t.Context(), b.act(), []routing.AgencyID{"health"}); !errors.Is(err, routing.ErrNotTarget) {
		t.Errorf("finalised on the source: %v", err)
	}
	a := b.agency("health")
	a.Phase, a.Epoch = routing.PhaseTarget, a.Epoch.Next()
	b.put(a)
	if r, err := b.Finalise(t.Context(), b.act(), []routing.AgencyID{"health"}); err != nil || !r.Agencies[0].Finalised {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestNodesAreDrainedAttestedAndEvicted(t *testing.T) {
	synctest.Test(t, nodesAreDrainedAttestedAndEvicted)
}

func nodesAreDrainedAttestedAndEvicted(t *testing.T) {
	b := newBench(t)
	b.renew("one", nil)
	b.renew("two", nil)
	if err := b.Control.Drain(t.Context(), b.act(), "one", true); err != nil {
		t.Fatal(err)
	}
	if m, _ := b.Replica.State().Member("one"); !m.Draining {
		t.Error("not draining")
	}
	if err := b.Control.Drain(t.Context(), b.act(), "one", true); !errors.Is(err, ErrNothing) {
		t.Errorf("drained twice: %v", err)
	}
	if err := b.Control.Drain(t.Context(), b.act(), "three", true); !errors.Is(err, ErrNoNode) {
		t.Errorf("drain of a stranger: %v", err)
	}

	// Time proves something only of a node whose clock goes on while its machine is stopped.
	if err := b.Evict(t.Context(), b.act(), "one", 0); !errors.Is(err, table.ErrGuard) {
		t.Errorf("evicted by time, though its clock may stand still: %v", err)
	}
	b.renew("one", func(r *table.Renewal) { r.Member.ClockRuns = true })
	short, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := b.Evict(short, b.act(), "one", 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("evicted while it has a lease: %v", err)
	}
	b.renew("one", func(r *table.Renewal) { r.Short, r.Long = 0, 0 })
	if err := b.Evict(t.Context(), b.act(), "one", time.Hour); err != nil {
		t.Errorf("evict a node that gave up its lease: %v", err)
	}
	if m, _ := b.Replica.State().Member("one"); !m.Evicted {
		t.Error("not evicted")
	}
	if err := b.Evict(t.Context(), b.act(), "one", 0); !errors.Is(err, ErrNoNode) {
		t.Errorf("evicted twice: %v", err)
	}

	if err := b.Attest(t.Context(), b.act(), "two", "two-0"); err == nil {
		t.Error("attested an instance that is not the present one")
	}
	stop := make(chan struct{})
	lives := make(chan struct{})
	go func() {
		defer close(lives)
		for {
			select {
			case <-stop:
				return
			case <-time.After(10 * time.Millisecond):
				b.renew("two", nil)
			}
		}
	}()
	b.Silence = time.Minute
	err := b.Attest(t.Context(), b.act(), "two", "two-1")
	close(stop)
	<-lives
	if !errors.Is(err, ErrLives) {
		t.Errorf("attested a node that renews: %v", err)
	}
	b.Silence = 100 * time.Millisecond
	if err := b.Attest(t.Context(), b.act(), "two", "two-1"); err != nil {
		t.Fatal(err)
	}
	if err := b.Evict(t.Context(), b.act(), "two", time.Hour); err != nil {
		t.Errorf("evict an attested node: %v", err)
	}
}

// One person attests in an emergency: it counts for emergencies at once, and keeps back
// whatever rests on it until another one confirms it, also after the node has come back.
func TestOnePersonAttestsInAnEmergency(t *testing.T) { synctest.Test(t, onePersonAttestsInAnEmergency) }

func onePersonAttestsInAnEmergency(t *testing.T) {
	b := newBench(t)
	b.add("health")
	a := b.agency("health")
	a.Phase, a.Epoch = routing.PhaseTarget, a.Epoch.Next()
	b.put(a)
	b.renew("one", nil)
	if err := b.AttestAlone(t.Context(), b.act(), "one", "one-1", "attest-1"); err != nil {
		t.Fatal(err)
	}
	if m, _ := b.Replica.State().Member("one"); m.Attested != "one-1" || m.Unconfirmed != "attest-1" {
		t.Errorf("%+v", m)
	}
	if err := b.Evict(t.Context(), b.act(), "one", 0); !errors.Is(err, table.ErrGuard) {
		t.Errorf("evicted before it is confirmed: %v", err)
	}
	b.renew("one", func(r *table.Renewal) { r.Member.Instance = "one-2" })
	if _, err := b.Finalise(t.Context(), b.act(), []routing.AgencyID{"health"}); !errors.Is(err, routing.ErrUnconfirmed) {
		t.Errorf("finalised before it is confirmed: %v", err)
	}
	if _, err := b.ConfirmEmergency(t.Context(), b.act(), "attest-2"); !errors.Is(err, ErrNothing) {
		t.Errorf("confirmed another: %v", err)
	}
	// Another one doesn't replace it: each is confirmed by itself.
	if err := b.AttestAlone(t.Context(), b.act(), "one", "one-2", "attest-2"); err != nil {
		t.Fatal(err)
	}
	for _, id := range []routing.OperationID{"attest-1", "attest-2"} {
		if m, _ := b.Replica.State().Member("one"); !m.Unconfirmed.Has(id) || m.Dead() {
			t.Errorf("before %s is confirmed: %+v", id, m)
		}
		if _, err := b.Finalise(t.Context(), b.act(), []routing.AgencyID{"health"}); !errors.Is(err, routing.ErrUnconfirmed) {
			t.Errorf("finalised before %s is confirmed: %v", id, err)
		}
		if _, err := b.ConfirmEmergency(t.Context(), b.act(), id); err != nil {
			t.Fatal(err)
		}
	}
	if m, _ := b.Replica.State().Member("one"); m.Unconfirmed != "" || !m.Dead() {
		t.Errorf("%+v", m)
	}
	if _, err := b.Finalise(t.Context(), b.act(), []routing.AgencyID{"health"}); err != nil {
		t.Error(err)
	}
}

// regressed is a table that says of a change so many times that it is lost.
type regressed struct {
	table.Table
	left int
}

func (r *regressed) Confirm(ctx context.Context) error {
	if r.left--; r.left >= 0 {
		return fmt.Errorf("%w: revision 7 of term 1", table.ErrRegressed)
	}
	return r.Table.Confirm(ctx)
}

// What another change lost in a failover long ago doesn't make a lock look lost; what is said
// again, does.
func TestAnOldLossIsNoneOfALock(t *testing.T) {
	b := newBench(t)
	b.add("health")
	b.Table = &regressed{b.table, 1}
	if _, err := b.Lock(t.Context(), b.act(), []routing.AgencyID{"health"}, false); err != nil {
		t.Error(err)
	}
	b.Table = &regressed{b.table, 2}
	if _, err := b.Unlock(t.Context(), b.act(), []routing.AgencyID{"health"}); !errors.Is(err, table.ErrRegressed) {
		t.Errorf("lost: %v", err)
	}
}

// One person's word doesn't end a rejoin, which waits for the node: what it has seen may be
// what the table lost. The second person's word is taken meanwhile.
func TestARejoinWaitsForTheSecondPerson(t *testing.T) {
	synctest.Test(t, aRejoinWaitsForTheSecondPerson)
}

func aRejoinWaitsForTheSecondPerson(t *testing.T) {
	b := newBench(t)
	b.renew("one", nil)
	b.renew("two", nil)
	b.renew("one", func(r *table.Renewal) { r.Term += 3 }) // from a server that knew more
	rejoining := func() string {
		b.renew("one", nil)
		n, err := b.table.Nodes(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return n.Rejoining
	}
	if err := b.AttestAlone(t.Context(), b.act(), "two", "two-1", "attest-1"); err != nil {
		t.Fatal(err)
	}
	if rejoining() == "" {
		t.Error("one person alone ended the rejoin")
	}
	if _, err := b.ConfirmEmergency(t.Context(), b.act(), "attest-1"); err != nil {
		t.Fatal(err)
	}
	if why := rejoining(); why != "" {
		t.Errorf("confirmed: %s", why)
	}
}

// The long fence: the lease is over, and the counter has stood still for the limit after
// that. What one call has seen of it the next one needn't wait for again.
func TestEvictWatchesASilentNode(t *testing.T) { synctest.Test(t, evictWatchesASilentNode) }

func evictWatchesASilentNode(t *testing.T) {
	b := newBench(t)
	silent := func(r *table.Renewal) {
		r.Short, r.Long, r.Member.ClockRuns = 50*time.Millisecond, 200*time.Millisecond, true
	}
	began := time.Now()
	b.renew("one", silent)
	for tries := 1; ; tries++ {
		short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		err := b.Evict(short, b.act(), "one", 300*time.Millisecond)
		cancel()
		took := time.Since(began)
		if tries > 1 && errors.Is(err, ErrNoNode) {
			err = nil // evicted by the call before, whose time didn't last for the rest
		}
		switch {
		case err == nil && took < 500*time.Millisecond:
			t.Errorf("evicted after %s, before lease and limit were over", took)
		case errors.Is(err, context.DeadlineExceeded) && took < 10*time.Second:
			continue
		case err != nil:
			t.Fatal(err)
		case tries == 1:
			t.Error("one call waited for all")
		}
		return
	}
}

// A node that renewed between two calls is watched anew.
func TestEvictWatchesAnewWhatHasRenewed(t *testing.T) {
	synctest.Test(t, evictWatchesAnewWhatHasRenewed)
}

func evictWatchesAnewWhatHasRenewed(t *testing.T) {
	b := newBench(t)
	try := func() error {
		short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		return b.Evict(short, b.act(), "one", 300*time.Millisecond)
	}
	for end := time.Now().Add(900 * time.Millisecond); time.Now().Before(end); {
		b.renew("one", func(r *table.Renewal) {
			r.Short, r.Long, r.Member.ClockRuns = time.Millisecond, 2*time.Millisecond, true
		})
		if err := try(); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("evicted while it renews: %v", err)
		}
	}
}

func TestReconcileTakesTheHighestRecord(t *testing.T) {
	b := newBench(t)
	b.add("health")
	b.add("pilot")
	b.renew("one", nil)
	above := func(id routing.AgencyID) routing.Agency {
		a, err := b.agency(id).Arm().Begin("op-1", 7, routing.EventBegin)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	b.renew("one", func(r *table.Renewal) { r.Above = []routing.Agency{above("health"), above("pilot")} })
	if got := b.Lost(); len(got) != 2 || got[0].Seen.Phase != routing.PhaseToTarget {
		t.Fatalf("lost: %+v", got)
	}
	if _, err := b.Reconcile(t.Context(), b.act(), []routing.AgencyID{"health"}); err == nil {
		t.Error("reconciled half of an operation")
	}
	b.renew("one", nil) // in the new term
	seen := above("health")
	r, err := b.Reconcile(t.Context(), b.act(), []routing.AgencyID{"health", "pilot"})
	if err != nil || len(r.Agencies) != 2 {
		t.Fatalf("%+v, %v", r, err)
	}
	health := b.agency("health")
	if !health.Locked || health.Phase != routing.PhaseToTarget || health.Operation != "op-1" || health.Epoch.Compare(seen.Epoch) <= 0 {
		t.Errorf("reconciled: %+v", health)
	}
	if len(b.Lost()) > 0 {
		t.Errorf("still lost: %+v", b.Lost())
	}
	if _, err := b.Reconcile(t.Context(), b.act(), []routing.AgencyID{"health"}); !errors.Is(err, ErrNothing) {
		t.Errorf("reconciled twice: %v", err)
	}
}
