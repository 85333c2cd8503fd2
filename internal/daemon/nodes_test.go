package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"mailcutover/admin"
	"mailcutover/internal/platformtest"
	"mailcutover/rollback/operation"
	"mailcutover/routing"
	"mailcutover/routing/table"
	"mailcutover/test/peers"
)

// second starts another node on the same table and platforms.
func (b *bench) second(t *testing.T, more string) *bench {
	t.Helper()
	n := &bench{t: t, path: filepath.Join(t.TempDir(), "mailcutover.yaml"), log: new(lines), a: b.a, b: b.b, onA: b.onA, onB: b.onB, onAdmin: b.onAdmin}
	n.write(b.a.Addr(), more)
	text, err := os.ReadFile(n.path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(n.path, []byte(strings.Replace(string(text), "mx1.example", "mx2.example", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	n.start()
	return n
}

// set puts an agency's next record into force, by any node's hand.
func (b *bench) set(guard table.Guard, next func(routing.Agency) (routing.Agency, error)) (routing.Agency, routing.Position, error) {
	b.t.Helper()
	state := b.replica.State()
	was, _ := state.Agency("health")
	rec, err := next(was.InTerm(state.Position().Term))
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	defer cancel()
	pos, err := b.table.Change(ctx, table.Change{
		ID: uuid.NewString(), Incarnation: state.Position().Incarnation, Term: state.Position().Term,
		Agencies: []routing.Agency{rec}, Guard: guard, Who: "test", What: "test", Reason: "test",
	})
	if err == nil {
		err = b.replica.Wait(ctx, pos)
	}
	return rec, pos, err
}

func (b *bench) lease(node routing.NodeID) table.Lease {
	b.t.Helper()
	n, err := b.table.Nodes(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	return n.Leases[node]
}

// Two nodes on one table: mail flows through both, a begin closes both, a commit waits for
// the dot that is under way on either, and a node that stops gives its lease up.
func TestTwoNodesOnOneTable(t *testing.T) {
	redis := peers.StartRedis(t, peers.RedisOptions{})
	more := fmt.Sprintf("table: {redis: {url: %q, allow_no_password: true, timeout: 5s}}", redis.URL())
	one := newBenchWith(t, more)
	two := one.second(t, more)
	nodes := []*bench{one, two}
	must := func(rec routing.Agency, pos routing.Position, err error) (routing.Agency, routing.Position) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return rec, pos
	}
	for i, n := range nodes {
		n.until("the second node's copy", func() bool {
			d := n.gate.Address("anna@health.example")
			return d.Deliver()
		})
		n.send(one.a)
		if l := one.lease(routing.NodeID(fmt.Sprintf("mx%d.example", i+1))); l.Counter == 0 || l.LongEnd.IsZero() {
			t.Errorf("node %d: lease %+v", i+1, l)
		}
	}
	_, armed := must(one.set(table.Guard{}, func(a routing.Agency) (routing.Agency, error) { return a.Arm(), nil }))

	// A dot under way on the second node.
	release := make(chan struct{})
	one.a.SetScript(func(c platformtest.Command) platformtest.Reaction {
		if c.Verb == platformtest.VerbDot {
			<-release
		}
		return platformtest.Reaction{}
	})
	answered := two.underWay(anna)

	one.until("both nodes' word that it is armed", func() bool {
		return one.lease("mx1.example").Applied >= armed.Revision && one.lease("mx2.example").Applied >= armed.Revision
	})
	begun, _ := must(one.set(table.Guard{Applied: armed.Revision, Protocol: table.Protocol}, func(a routing.Agency) (routing.Agency, error) {
		return a.Begin("op", 7, routing.EventBegin)
	}))
	began := time.Now()
	for _, n := range nodes {
		n.until("closed", func() bool {
			d := n.gate.Address("anna@health.example")
			return d.Reason == routing.ReasonInPhase
		})
	}
	one.until("the first node drained", func() bool { return one.lease("mx1.example").Drained["health"] == begun.Epoch })
	t.Logf("closed on both and drained on one after %s", time.Since(began))
	commit := func() error {
		_, _, err := one.set(table.Guard{Drained: []table.AgencyEpoch{{Agency: "health", Epoch: begun.Epoch}}}, func(a routing.Agency) (routing.Agency, error) {
			return a.Commit("op", 7)
		})
		return err
	}
	if err := commit(); !errors.Is(err, table.ErrGuard) {
		t.Errorf("commit with a dot under way on the other node: %v, want ErrGuard", err)
	}
	close(release)
	answered(250) // before the commit: passed on (node rule 4)
	one.until("the second node drained", func() bool { return one.lease("mx2.example").Drained["health"] == begun.Epoch })
	if err := commit(); err != nil {
		t.Fatal(err)
	}
	one.a.SetScript(nil)
	_, published := must(one.set(table.Guard{}, func(a routing.Agency) (routing.Agency, error) { return a.Publish("op") }))
	for _, n := range nodes {
		n.until("open", func() bool { return n.replica.State().Position().Revision >= published.Revision })
		n.send(one.b)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := two.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	if l := one.lease("mx2.example"); !l.LongEnd.IsZero() || !l.ShortEnd.IsZero() {
		t.Errorf("a node that stopped still has a lease: %+v", l)
	}
	if l := one.lease("mx1.example"); l.LongEnd.IsZero() {
		t.Errorf("the other one has none: %+v", l)
	}
}

// The name of a node belongs to one data directory at a time.
func TestANodesNameTwice(t *testing.T) {
	redis := peers.StartRedis(t, peers.RedisOptions{})
	more := fmt.Sprintf("table: {redis: {url: %q, allow_no_password: true, timeout: 5s}}", redis.URL())
	one := newBenchWith(t, more)
	other := &bench{t: t, path: filepath.Join(t.TempDir(), "mailcutover.yaml"), log: new(lines), a: one.a, b: one.b}
	other.write(one.a.Addr(), more)
	other.start()
	other.until("an alarm", func() bool {
		for _, a := range other.alarms.List() {
			if a.Key == "node-instance" {
				return true
			}
		}
		return false
	})
	if err := other.gate.Ready(); err == nil {
		t.Error("two nodes of one name decide")
	}
	one.send(one.a)
}

// A cutover that one node runs waits for the other's dot, and opens both.
func TestACutoverWaitsForAllNodes(t *testing.T) {
	redis := peers.StartRedis(t, peers.RedisOptions{})
	more := fmt.Sprintf("table: {redis: {url: %q, allow_no_password: true, timeout: 5s}}", redis.URL())
	one := newBenchWith(t, more)
	two := one.second(t, more)
	two.until("the second node's copy", func() bool { d := two.gate.Address("anna@health.example"); return d.Deliver() })
	a, err := one.api.Agency(t.Context(), "health")
	if err == nil {
		a, err = one.api.Arm(t.Context(), "health", a.Epoch, "test")
	}
	if err != nil {
		t.Fatal(err)
	}
	release := make(chan struct{})
	one.a.SetScript(func(c platformtest.Command) platformtest.Reaction {
		if c.Verb == platformtest.VerbDot {
			<-release
		}
		return platformtest.Reaction{}
	})
	answered := two.underWay(anna)
	op, err := one.api.Start(t.Context(), operation.Cutover, "health", a.Epoch, "test")
	if err != nil {
		t.Fatal(err)
	}
	two.until("closed on the other node", func() bool { d := two.gate.Address("anna@health.example"); return d.Reason == routing.ReasonInPhase })
	one.until("drained on its own node", func() bool {
		rec, _ := one.replica.State().Agency("health")
		return rec.Phase == routing.PhaseToTarget && one.lease("mx1.example").Drained["health"] == rec.Epoch
	})
	if rec, _ := one.replica.State().Agency("health"); rec.Phase != routing.PhaseToTarget {
		t.Errorf("committed while a dot is under way on the other node: %+v", rec)
	}
	close(release)
	answered(250)
	if op, err = one.api.Watch(t.Context(), op.ID, func(admin.Operation) {}); err != nil || op.Step != string(operation.StepDone) {
		t.Fatalf("%+v, %v", op, err)
	}
	one.a.SetScript(nil)
	for _, n := range []*bench{one, two} {
		n.until("open on the other side", func() bool {
			d := n.gate.Address("anna@health.example")
			return d.Deliver() && d.Platform == "ox"
		})
		n.send(one.b)
	}
}
