package operation

import (
	"fmt"
	"os"
	"path/filepath"
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
			tb, err := redistable.Open(t.Context(), redistable.Options{URL: r.URL(), AllowNoPassword: true, Timeout: time.Second})
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
