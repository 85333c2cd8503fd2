package operation

import (
	"testing"
	"time"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

// A fence waits for the end of the lease by the table's clock as well: where that one is
// slower than the runner's, the table may still grant what the member asks for.
func TestAFenceWaitsForTheTablesClock(t *testing.T) {
	began := time.Unix(1000, 0)
	s := newStands(Leases{Short: 10 * time.Second, Long: time.Minute, Margin: 2 * time.Second})
	m := routing.Member{Node: "b", Instance: "i1"}
	n := table.Nodes{Position: routing.Position{Term: 1}, Server: "s1", Members: []routing.Member{m}, Time: began}
	n.Leases = map[routing.NodeID]table.Lease{"b": {
		Node: "b", Instance: "i1", Counter: 7, Server: "s1", Term: 1, Applied: 100, ShortEnd: began.Add(10 * time.Second), LongEnd: began.Add(time.Minute),
	}}
	w := wish{applied: 150, base: 100}
	s.look(began, &n)
	for _, c := range []struct {
		runner, table time.Duration
		ready         bool
	}{
		{11 * time.Second, 5 * time.Second, false},
		{time.Minute, 9 * time.Second, false},
		{time.Minute, 10 * time.Second, false},
		{time.Minute, 11 * time.Second, true},
		{11 * time.Second, 11 * time.Second, false}, // the margin
		{12 * time.Second, 11 * time.Second, true},
	} {
		n.Time = began.Add(c.table)
		if _, _, ready := s.judge(began.Add(c.runner), &n, w, nil); ready != c.ready {
			t.Errorf("%s after the first look, %s by the table's clock: fenced %t, want %t", c.runner, c.table, ready, c.ready)
		}
	}
}
