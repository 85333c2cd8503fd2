package operation

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"mailcutover/routing"
	"mailcutover/routing/redistable"
	"mailcutover/routing/table"
	"mailcutover/test/peers"
)

// An old backup is restored after commit, or after publish: the table knows nothing of the
// operation any more. It isn't done before people have reconciled what was lost.
func TestALostCommitIsNotDone(t *testing.T) {
	t.Parallel()
	for _, published := range []bool{false, true} {
		t.Run(fmt.Sprintf("published %t", published), func(t *testing.T) {
			t.Parallel()
			r := peers.StartRedis(t, peers.RedisOptions{})
			tb, err := redistable.Open(t.Context(), redistable.Options{URL: r.URL(), AllowNoPassword: true, Timeout: 5 * time.Second})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = tb.Close() })
			c := newCluster(t, tb, 2, nil)
			a := c.nodes[0]
			a.agency("police")
			live, backup := filepath.Join(r.Dir, "appendonlydir"), t.TempDir()
			if err := os.CopyFS(backup, os.DirFS(live)); err != nil {
				t.Fatal(err)
			}
			var confirms atomic.Int32
			var back atomic.Bool
			a.table.unconfirmed(func() error {
				if n := confirms.Add(1); back.Load() || published && n == 1 {
					return nil
				}
				return fmt.Errorf("no replica: %w", table.ErrUnavailable)
			})
			ended := make(chan Operation, 1)
			go func() {
				op, _ := a.run(Cutover, "police")
				ended <- op
			}()
			a.until("committed", func() bool {
				got, _ := a.replica.State().Agency("police")
				return got.Phase == routing.PhaseTarget && got.Published == published && confirms.Load() > 1
			})
			r.Kill()
			if err := os.RemoveAll(live); err != nil {
				t.Fatal(err)
			}
			if err := os.CopyFS(live, os.DirFS(backup)); err != nil {
				t.Fatal(err)
			}
			if err := r.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			a.until("regressed", func() bool { _, lost := a.replica.State().Seen("police"); return lost })
			back.Store(true)
			<-ended
			for range 20 {
				_ = a.Tend(t.Context())
				if op := a.last(); op.Step.Ended() {
					t.Fatalf("it ended: %+v", op)
				}
			}
			if got := a.alarms.list(); len(got) != 1 {
				t.Errorf("alarms %q", got)
			}
			seen, _ := a.replica.State().Seen("police")
			a.tended("reconciled", func() bool {
				_, lost := a.replica.State().Seen("police")
				if lost {
					a.reconcile(t, seen)
				}
				return !lost
			})
			a.tended("done", func() bool { return a.last().Step == StepDone })
			if got := a.alarms.list(); len(got) != 0 {
				t.Errorf("alarms %q", got)
			}
			if got := a.agency("police"); got.Phase != routing.PhaseTarget || !got.Published || got.Operation != "" {
				t.Errorf("%+v", got)
			}
		})
	}
}

// The table lost what a node has seen of the agency: an operation without a deadline
// doesn't wait for what can't come. It raises one alarm, leaves the table alone until
// people have reconciled the agency, and is settled then, also by the next process.
func TestTheTableLostTheAgency(t *testing.T) {
	t.Parallel()
	for name, restarts := range map[string]bool{"same process": false, "next process": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, openLocal(t), 2, nil)
			a, b := c.nodes[0], c.nodes[1]
			if _, err := a.run(Cutover, "police"); err != nil {
				t.Fatal(err)
			}
			b.set(func(n *simNode) { n.holding = true })
			type result struct {
				op  Operation
				err error
			}
			ended := make(chan result, 1)
			go func() {
				op, err := a.Run(context.Background(), Request{Kind: Rollback, Agency: "police", Who: "ben", Reason: "fire", Emergency: true})
				ended <- result{op, err}
			}()
			a.until("draining", func() bool { return len(a.replica.State().Operations()) == 1 })

			seen := a.agency("police")
			seen.Epoch.Number += 5
			b.set(func(n *simNode) { n.above = []routing.Agency{seen} })
			a.until("regressed", func() bool { return len(a.replica.State().Regressed()) == 1 })
			got := <-ended
			if got.err == nil || got.op.Step.Ended() {
				t.Fatalf("%+v, %v", got.op, got.err)
			}
			if restarts {
				a.restart()
				if err := a.Recover(t.Context()); err != nil {
					t.Error(err)
				}
			}
			quiet := a.replica.State().Position()
			for range 3 {
				if err := a.Tend(t.Context()); err != nil {
					t.Error(err)
				}
			}
			if all := a.alarms.list(); len(all) != 1 || !strings.Contains(a.alarms.text(all[0]), "Reconcile") {
				t.Errorf("alarms %q", all)
			}
			if now := a.agency("police"); now.Revision > quiet.Revision || now.Operation != got.op.ID {
				t.Errorf("changed before it is reconciled: %+v", now)
			}

			b.set(func(n *simNode) { n.above, n.holding = nil, false })
			rec := a.agency("police")
			rec.Epoch.Number = seen.Epoch.Number + 1
			c.store(table.Change{Agencies: []routing.Agency{rec}, Guard: table.Guard{Rejoining: true}})
			a.tended("settled", func() bool { return len(a.replica.State().Operations()) == 0 && a.agency("police").Operation == "" })
			a.until("journaled", func() bool { return a.last().Step.Ended() })
			if all := a.alarms.list(); len(all) != 0 {
				t.Errorf("alarms %q", all)
			}
		})
	}
}

// reconcile puts a record that was seen in the place of the one that the table has, as
// people do; errors show in that it doesn't happen.
func (n *simNode) reconcile(t *testing.T, seen routing.Agency) {
	t.Helper()
	s := n.replica.State()
	have, _ := s.Agency(seen.ID)
	next := seen.InTerm(s.Position().Term)
	next.Epoch.Number, next.Revision = seen.Epoch.Number+1, have.Revision
	_, _ = n.c.real.Change(t.Context(), table.Change{
		ID: uuid.NewString(), Incarnation: s.Position().Incarnation, Term: s.Position().Term,
		Agencies: []routing.Agency{next}, Guard: table.Guard{Rejoining: true}, Who: "tester", What: "reconcile", Reason: "test",
	})
}
