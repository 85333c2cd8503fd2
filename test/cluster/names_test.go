package cluster

import (
	"slices"
	"strings"
	"testing"
	"time"

	"mailcutover/internal/alarm"
)

// A backup from before a domain and its mailboxes were added: no node says of a name that
// nobody has it, not even one that has never seen what was lost, until people take the names
// as complete.
func TestNamesThatTheTableLost(t *testing.T) {
	t.Parallel()
	c := start(t, Options{Settled: 60 * time.Second})
	answers := func(n *Node, address, code string) {
		t.Helper()
		Until(t, n.Name+" to answer "+code+" for "+address, func() bool {
			r, err := n.API.Route(t.Context(), "address", address)
			return err == nil && strings.HasPrefix(r.Answer, code)
		})
	}
	const foreign = "a@elsewhere.example"
	for _, n := range c.Nodes {
		answers(n, foreign, "550")
	}
	backup := saved(t, c.Servers[0])
	c.AddAgency(t, "fresh", 2)
	restore(t, c.Servers[0], backup)
	c.rejoined(t)
	late := c.prepare(t, 3)
	c.run(t, late)
	answers(late, Mailbox("fresh", 1), "451")
	for _, n := range append(c.Nodes, late) {
		answers(n, foreign, "451")
		answers(n, Mailbox("roads", 1), "")
	}
	Until(t, "the alarm of the node that came later", func() bool {
		alarms, err := late.API.Alarms(t.Context())
		return err == nil && slices.ContainsFunc(alarms, func(a alarm.Alarm) bool { return a.Key == "names-lost" })
	})
	c.act(t, "names-complete", "")
	for _, n := range append(c.Nodes, late) {
		answers(n, foreign, "550")
	}
	if r, err := c.Nodes[0].API.Route(t.Context(), "address", Mailbox("fresh", 1)); err != nil || strings.HasPrefix(r.Answer, "5") {
		t.Errorf("of what it has seen itself the node says: %+v, %v", r, err)
	}
}
