package cluster

import (
	"slices"
	"strings"
	"testing"
	"time"

	"mailcutover/admin"
	"mailcutover/rollback/operation"
)

// The target hangs, one of three nodes is silent, and one person brings the agency back. Open
// on the source again within what the short lease and its margin take, or the three seconds
// that the target has: neither the target's limit nor the node's long lease is waited for.
// With the leases as they are unless configured (10 s, 2 s), that is 12 s for a node that
// stands still, and 3 s for one that is attested to be off; asked for are 60.
func TestRollbackFromADeadTarget(t *testing.T) {
	t.Parallel()
	o := Options{Settled: 60 * time.Second, Armed: 2 * time.Second, Margin: 500 * time.Millisecond, Limit: 8 * time.Second}
	for name, attested := range map[string]bool{"a node stands still": false, "a node is off, and attested": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := start(t, o)
			l := c.load(t.Context())
			l.more(t, 40)
			c.Switch(t, c.Nodes[0], "health")
			l.more(t, 40)
			end := c.Trouble("dead target", -1, "health")
			for _, n := range c.Nodes {
				n.To[OX].Silence()
			}
			var back func()
			if attested {
				back = c.Crash(t, c.Nodes[2])
			} else {
				back = c.Freeze(t, c.Nodes[2])
			}
			asked := time.Now()
			said := make(chan string, 1)
			go func() {
				out, code := c.Nodes[0].Command(t.Context(), c.Program(), "agency", "rollback", "health", "--emergency", "--target-dead", "--reason", "test", "--yes")
				if code != 0 {
					out = "FAILED " + out
				}
				said <- out
			}()
			if attested {
				out, code := c.Nodes[1].Command(t.Context(), c.Program(), "node", "fence", c.Nodes[2].Name, "--attested", "--emergency", "--reason", "test")
				if code != 0 || !strings.Contains(out, "emergency confirm attest-") {
					t.Fatalf("fence: %d %s", code, out)
				}
			}
			out := <-said
			if strings.HasPrefix(out, "FAILED") {
				t.Fatal(out)
			}
			ops, err := c.Nodes[0].API.Operations(t.Context(), "health")
			if err != nil {
				t.Fatal(err)
			}
			op := ops.Operations[slices.IndexFunc(ops.Operations, func(o admin.Operation) bool { return o.Emergency })]
			t.Logf("told after %s, closed for %.3f s, fenced %q", time.Since(asked), op.ClosedFor, op.Fenced)
			if op.Kind != string(operation.Rollback) || op.Step != string(operation.StepDone) || !strings.Contains(strings.Join(op.Fenced, " "), c.Nodes[2].Name) {
				t.Errorf("%+v", op)
			}
			if most := o.Limit; op.ClosedFor >= most.Seconds() {
				t.Errorf("closed for %.3f s: the dead platform's limit, %s, was waited for", op.ClosedFor, most)
			}
			sw := Switch{Agency: "health", Kind: op.Kind, From: OX, To: Exchange, Asked: asked, Told: time.Now(), Done: true, Copies: true}
			if op.Closed != nil {
				sw.Closed = *op.Closed
			}
			c.mu.Lock()
			c.at["health"], c.switches = Exchange, append(c.switches, sw)
			c.mu.Unlock()
			for _, n := range c.Nodes { // it comes back as another life: what was on its way is lost
				n.To[OX].Cut()
				n.To[OX].Mend()
			}
			if attested {
				// What rests on one person's word keeps the next operation back, also when the node
				// is there again.
				back()
				a, err := c.Nodes[0].API.Agency(t.Context(), "parks")
				if err != nil {
					t.Fatal(err)
				}
				if _, err := c.Nodes[0].API.Start(t.Context(), operation.Cutover, "parks", a.Epoch, "test"); err == nil || !strings.Contains(err.Error(), "confirm") {
					t.Errorf("an operation before it is confirmed: %v", err)
				}
			} else {
				back()
			}
			end()
			l.more(t, 40)
			c.end(t)
		})
	}
}
