package cluster

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"mailcutover/internal/platformtest"
	"mailcutover/test/peers"
)

// programDir is where the program is while the tests run.
var programDir string

var program = sync.OnceValues(func() (string, error) {
	return peers.Build(context.Background(), programDir, "./cmd/mailcutover", raceEnabled)
})

// TestMain lets more tests run at a time than there are processors: most of the time they
// wait, for a lease to end or a Sentinel to decide.
func TestMain(m *testing.M) { os.Exit(peers.Main(m, &programDir, 5)) }

// start starts a cluster with the agencies that tests use: health moves, roads never does
// and is settled, parks never does and is armed.
func start(t *testing.T, o Options) *Cluster {
	t.Helper()
	peers.Need(t, "redis") // before the program is built
	var err error
	if o.Program, err = program(); err != nil {
		t.Fatal(err)
	}
	if o.Platform.Script == nil { // a dot takes a moment, so that switches have something to wait for
		o.Platform.Script = platformtest.On(platformtest.VerbDot, platformtest.Reaction{Delay: 3 * time.Millisecond})
	}
	o.Unsynced = true
	c := Start(t, o)
	for _, id := range []string{"health", "roads", "parks"} {
		c.AddAgency(t, id, 4)
	}
	if err := c.Arm(t.Context(), c.Nodes[0], "parks"); err != nil {
		t.Fatal(err)
	}
	return c
}

// load is what tests send: to each agency at each node.
func (c *Cluster) load(ctx context.Context) *Load {
	return c.Load(ctx, 150*time.Millisecond, Mailboxes("health", 2), Mailboxes("health", 4)[2:], Mailboxes("roads", 4), Mailboxes("parks", 4))
}

// logIn is who logs in: to each agency at each node, and submits.
func (c *Cluster) logIn(ctx context.Context) *Clients {
	return c.LogIn(ctx, Mailboxes("health", 2), Mailboxes("roads", 1), Mailboxes("parks", 1))
}

// more waits until n more messages were taken.
func (l *Load) more(t *testing.T, n int) {
	t.Helper()
	want := l.Taken() + n
	Until(t, fmt.Sprintf("%d more messages answered 250", n), func() bool { return l.Taken() >= want })
}

// end judges the run.
func (c *Cluster) end(t *testing.T) *Verdict {
	t.Helper()
	v := c.End(t)
	t.Logf("%s", v)
	for _, bad := range v.Bad() {
		t.Error(bad)
	}
	return v
}
