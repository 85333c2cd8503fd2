package operation

import (
	"strings"
	"sync"
	"testing"
	"time"

	"mailcutover/routing"
	"mailcutover/routing/redistable"
	"mailcutover/routing/table"
	"mailcutover/test/peers"
)

// The table's server restarts before a step: the members have to rejoin, a new term
// begins, what they reported to the old server doesn't count any more, and the operation
// goes on without a human.
func TestTheServerRestartsMeanwhile(t *testing.T) {
	t.Parallel()
	for _, step := range []Step{StepBegin, StepDrain, StepCommit, StepPublish, StepDone} {
		t.Run(string(step), func(t *testing.T) {
			t.Parallel()
			r := peers.StartRedis(t, peers.RedisOptions{})
			tb, err := redistable.Open(t.Context(), redistable.Options{URL: r.URL(), AllowNoPassword: true, Timeout: 5 * time.Second})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = tb.Close() })
			c := newCluster(t, tb, 2, nil)
			a, b := c.nodes[0], c.nodes[1]
			var once sync.Once
			restart := func() {
				once.Do(func() {
					r.Stop()
					if err := r.Start(t.Context()); err != nil {
						t.Error(err)
					}
				})
			}
			a.table.set(func(ch table.Change, do func() (routing.Position, error)) (routing.Position, error) {
				if strings.Contains(ch.ID, "/"+string(step)) {
					restart()
				}
				return do()
			})
			b.set(func(n *simNode) { n.holding = step == StepDrain })
			before := a.agency("police").Epoch
			op, err := a.Run(t.Context(), Request{Kind: Cutover, Agency: "police", Who: "tester", Reason: "test", Progress: func(op Operation) {
				if step == StepDrain && strings.Contains(op.Waiting, "final dots") {
					restart()
					b.set(func(n *simNode) { n.holding = false })
				}
			}})
			if err != nil || op.Step != StepDone {
				t.Fatalf("%+v, %v", op, err)
			}
			b.stands("police", routing.PhaseTarget)
			after := b.agency("police").Epoch
			if after.Number != before.Number+3 || step != StepDone && after.Term != before.Term+1 {
				t.Errorf("epoch %s, was %s", after, before)
			}
			if got := append(a.alarms.list(), b.alarms.list()...); len(got) != 0 {
				t.Errorf("alarms %q", got)
			}
		})
	}
}
