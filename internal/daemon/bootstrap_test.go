package daemon

import (
	"fmt"
	"testing"
	"time"

	"mailcutover/routing"
	"mailcutover/routing/table"
	"mailcutover/test/peers"
)

// Redis lost everything. The node whose copy is older fills it; what the other one has
// seen beyond that is not lost: the agency is closed until it is reconciled.
func TestBootstrapFromTheOlderCopy(t *testing.T) {
	t.Parallel()
	redis := peers.StartRedis(t, peers.RedisOptions{})
	more := fmt.Sprintf("table: {redis: {url: %q, allow_no_password: true, timeout: 5s}}", redis.URL())
	one := newBenchWith(t, more)
	two := one.second(t, more)
	two.until("the second node's copy", func() bool { d := two.gate.Address("anna@health.example"); return d.Deliver() })
	if f, err := one.api.Foundation(t.Context()); err != nil {
		t.Fatal(err)
	} else if _, err := one.api.ProposeBootstrap(t.Context(), f.Digest, "test"); err == nil {
		t.Fatal("a table that isn't empty is filled")
	}
	// The second node is away while the agency is locked and opened again by the first.
	two.letGo()
	two.holding.Wait()
	before := two.replica.State().Position()
	one.arm()
	for _, next := range []func(routing.Agency) (routing.Agency, error){routing.Agency.Lock, routing.Agency.Unlock} {
		if _, _, err := one.set(table.Guard{}, next); err != nil {
			t.Fatal(err)
		}
	}
	seen, _ := one.replica.State().Agency("health")
	redis.CLI(t, "FLUSHALL")
	began := time.Now()
	f, err := two.api.Foundation(t.Context())
	if err != nil || f.Revision != uint64(before.Revision) || len(f.Members) != 2 {
		t.Fatalf("%+v, %v", f, err)
	}
	if f, err = two.api.ProposeBootstrap(t.Context(), f.Digest, "redis is lost"); err != nil || f.Done == "" {
		t.Fatalf("%+v, %v", f, err)
	}
	one.until("the record that the copy lacks", func() bool {
		a, _ := one.replica.State().Agency("health")
		above, lost := one.replica.State().Seen("health")
		return a.Locked && lost && above.Epoch == seen.Epoch
	})
	t.Logf("filled, and followed by the other node, after %s", time.Since(began))
	if n, err := one.table.Nodes(t.Context()); err != nil || len(n.Members) != 2 || n.Rejoining == "" {
		t.Errorf("%+v, %v", n, err)
	}
}
