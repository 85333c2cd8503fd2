package cluster

import (
	"testing"
	"time"
)

// Redis is emptied, and before anybody looks a new node founds it. The table is filled from a
// copy all the same, and the new node, whose own has nothing, follows.
func TestAFreshNodeFoundsAnEmptiedTable(t *testing.T) {
	t.Parallel()
	c := start(t, Options{Settled: 60 * time.Second})
	c.Servers[0].CLI(t, "FLUSHALL")
	late := c.prepare(t, 3)
	c.run(t, late)
	if tb, err := late.API.Table(t.Context()); err != nil || !tb.Open || tb.Agencies != 0 {
		t.Fatalf("the new node's table: %+v, %v", tb, err)
	}
	if out, code := c.Nodes[0].Command(t.Context(), c.Program(), "table", "bootstrap", "--from-replicas", "--reason", "test"); code != 0 {
		t.Fatalf("bootstrap: %d %s", code, out)
	}
	c.rejoined(t)
	for _, n := range append(c.Nodes, late) {
		Until(t, n.Name+" to follow the founded table", func() bool {
			tb, err := n.API.Table(t.Context())
			return err == nil && tb.Open && tb.Agencies == 3 && tb.Decides
		})
	}
	c.act(t, "unlock", "roads")
	for _, n := range append(c.Nodes, late) {
		Until(t, n.Name+" to decide for roads", func() bool {
			r, err := n.API.Route(t.Context(), "address", Mailbox("roads", 1))
			return err == nil && r.Deliver
		})
	}
}
