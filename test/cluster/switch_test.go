package cluster

import (
	"testing"
	"time"
)

// Cutover and rollback under load on three nodes, each by another one: nothing is lost,
// late or misplaced, and other agencies notice nothing.
func TestCutoverAndRollback(t *testing.T) {
	t.Parallel()
	// Nothing is silent here: no lease, and no connection's age, is to end it on a busy machine.
	c := start(t, Options{Logins: true, Settled: 2 * time.Minute, Armed: 30 * time.Second, Limit: 8 * time.Second})
	l := c.load(t.Context())
	programs := c.logIn(t.Context())
	l.more(t, 100)
	for i := range 4 {
		began := time.Now()
		op := c.Switch(t, c.Nodes[i%len(c.Nodes)], "health")
		t.Logf("%s: told after %s, closed for %.3f s, late %v", op.Kind, time.Since(began), op.ClosedFor, op.Late)
		l.more(t, 100)
	}
	t.Logf("%s", programs)
	if v := c.end(t); v.Visits == 0 || v.Submitted == 0 || v.Done != 4 || v.Copies != 0 || v.Open != 0 {
		t.Errorf("nothing went wrong, and yet: %s", v)
	}
}
