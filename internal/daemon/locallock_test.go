package daemon

import (
	"fmt"
	"strings"
	"testing"

	"mailcutover/routing"
	"mailcutover/test/peers"
)

// With the table away an agency is closed on the node that is asked, by its own API alone.
// When the table is back, it is locked there, for the other node too.
func TestLockWithoutTheTable(t *testing.T) {
	t.Parallel()
	redis := peers.StartRedis(t, peers.RedisOptions{})
	more := fmt.Sprintf("table: {redis: {url: %q, allow_no_password: true, timeout: 2s}}", redis.URL())
	one := newBenchWith(t, more)
	two := one.second(t, more)
	two.until("the second node's copy", func() bool { d := two.gate.Address("anna@health.example"); return d.Deliver() })
	if _, err := one.api.LockLocal(t.Context(), "heallth", "test"); err == nil {
		t.Error("an agency that isn't there is locked")
	}
	redis.Stop()
	lock, err := one.api.LockLocal(t.Context(), "health", "the platform loses mail")
	if err != nil {
		t.Fatal(err)
	}
	if lock.Node != "mx1.example" || lock.Person != "tester" || lock.Since.IsZero() {
		t.Errorf("%+v", lock)
	}
	if d := one.gate.Address("anna@health.example"); d.Reason != routing.ReasonLocked {
		t.Errorf("decision %+v after the lock", d)
	}
	if d := two.gate.Address("anna@health.example"); !d.Deliver() {
		t.Errorf("decision %+v on the other node, whose lease is not over", d)
	}
	if list, err := one.api.LocalLocks(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("locks %+v, %v", list, err)
	}
	one.until("an alarm", func() bool {
		for _, a := range one.alarms.List() {
			if a.Key == "local-lock/health" && strings.Contains(a.Text, "the platform loses mail") {
				return true
			}
		}
		return false
	})
	if err := redis.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, n := range []*bench{one, two} {
		n.until("the lock in the table", func() bool {
			a, _ := n.replica.State().Agency("health")
			return a.Locked && n.gate.Address("anna@health.example").Reason == routing.ReasonLocked
		})
	}
	one.until("no local lock", func() bool { return len(one.keeper.LocalLocks()) == 0 })
}
