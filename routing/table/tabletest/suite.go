package tabletest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

// Hooks are what the suite needs of a driver beside an empty table.
type Hooks struct {
	// Reopen closes a table that Run's open made and opens the same data again.
	Reopen func(t *testing.T, old table.Table) table.Table

	// Restart restarts what keeps a table that Run's open made, without loss, and returns
	// the same table.
	Restart func(t *testing.T, old table.Table) table.Table

	// OpenShort is open for a table whose log keeps about keep changes: no fewer, and at
	// most 400 more.
	OpenShort func(t *testing.T, keep int) table.Table
}

// within is how long a test waits for something to happen, on a busy machine.
const within = time.Minute

// Run tests a driver. open returns an empty table, a new one each time, and closes it at
// the test's end; closing twice must do no harm.
func Run(t *testing.T, open func(t *testing.T) table.Table, hooks Hooks) {
	tests := []struct {
		name string
		test func(t *testing.T, open func(t *testing.T) table.Table)
	}{
		{"empty table refuses everything but Init", testEmpty},
		{"Init happens once", testInit},
		{"malformed changes are refused", testBadChange},
		{"change is applied as a whole", testChange},
		{"stale records are refused as a whole", testStale},
		{"names are compared and set", testMapped},
		{"other incarnation is refused", testIncarnation},
		{"change id counts once", testReused},
		{"mapping must be complete", testMapping},
		{"large mapping comes back byte for byte", testLargeMapping},
		{"one of many wins each revision", testConcurrent},
		{"Follow sees each change in order", testFollow},
		{"Follow ends as promised", testFollowEnds},
		{"Follow shows that the table is alive", testAlive},
		{"cancelled calls end", testCancel},
		{"Close ends all calls", testClose},
		{"text comes back as it was", testText},
		{"node renews its lease", testRenew},
		{"malformed renewals and checks are refused", testBadRenewal},
		{"node has one instance at a time", testInstances},
		{"node is evicted under a fence", testEvict},
		{"guards look at the nodes", testGuards},
		{"fences stand in for silent nodes", testFences},
		{"changes carry the term", testTerm},
		{"reports of an earlier term don't count", testReportsOfATerm},
		{"operations, freezes and documents are compared and set", testShared},
		{"records that were lost close agencies", testAbove},
		{"table that went back waits for its nodes", testWentBack},
		{"two servers of one term are told apart", testForked},
		{"each term is noted", testLineage},
		{"who lacks a name asks", testCheckNames},
		{"a rejoin ends without what a node has seen", testUnheard},
		{"people end a rejoin", testEndRejoin},
		{"empty table is founded from a copy", testFounded},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { tt.test(t, open) })
	}
	if hooks.Reopen != nil {
		t.Run("reopened table is as it was", func(t *testing.T) { testReopen(t, open, hooks.Reopen) })
	}
	if hooks.Restart != nil {
		t.Run("restart loses nothing", func(t *testing.T) { testRestart(t, open, hooks.Restart) })
	}
	if hooks.OpenShort != nil {
		t.Run("trimmed log is a gap", func(t *testing.T) { testTrimmed(t, hooks.OpenShort) })
	}
}

// begun returns an initialised table.
func begun(t *testing.T, open func(t *testing.T) table.Table) (table.Table, routing.Position) {
	t.Helper()
	tb := open(t)
	pos, err := tb.Init(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return tb, pos
}

// agency returns a new agency's record.
func agency(t *testing.T, id routing.AgencyID) routing.Agency {
	t.Helper()
	a, err := routing.NewAgency(id, "exchange", "ox")
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// mapping returns a mapping of n mailboxes, with two addresses and a login each.
func mapping(t testing.TB, id routing.AgencyID, n int) *routing.Mapping {
	t.Helper()
	rows := make([]routing.Row, n)
	for i := range rows {
		rows[i] = routing.Row{
			Mailbox:   routing.MailboxID{1, 2, 3, 4, 12: byte(i >> 24), 13: byte(i >> 16), 14: byte(i >> 8), 15: byte(i)},
			Kind:      routing.KindUser,
			Addresses: []routing.Address{routing.Address(fmt.Sprintf("user%d@%s.example", i, id)), routing.Address(fmt.Sprintf("first.last%d@%s.example", i, id))},
			Logins:    []routing.Login{routing.Login(fmt.Sprintf(`%s\user%d`, id, i))},
			Target:    routing.Place{Address: routing.Address(fmt.Sprintf("u%d@ox.internal", i))},
		}
	}
	m, err := routing.NewMapping(id, rows)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// change sends c, which must be taken.
func change(t *testing.T, tb table.Table, c table.Change) routing.Position {
	t.Helper()
	pos, err := tb.Change(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return pos
}

// refused sends c, which must be refused with want and leave the table as it is.
func refused(t *testing.T, tb table.Table, c table.Change, want error) {
	t.Helper()
	before, err := tb.Position(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if pos, err := tb.Change(t.Context(), c); !errors.Is(err, want) {
		t.Errorf("change %s: %+v, %v; want %v", c.ID, pos, err, want)
	}
	if after, err := tb.Position(t.Context()); err != nil || after != before {
		t.Errorf("change %s was refused, but the table went from %+v to %+v (%v)", c.ID, before, after, err)
	}
}

// current returns an agency's record.
func current(t *testing.T, tb table.Table, id routing.AgencyID) routing.Agency {
	t.Helper()
	u, err := tb.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range u.Agencies {
		if a.ID == id {
			return a
		}
	}
	t.Fatalf("no agency %s in %+v", id, u)
	return routing.Agency{}
}

// following is a Follow in a goroutine.
type following struct {
	entries chan table.Entry
	alive   chan routing.Position
	ended   chan error
	stop    context.CancelFunc
}

// follow starts to follow; the test's end ends it.
func follow(t *testing.T, tb table.Table, from routing.Position, interval time.Duration) *following {
	ctx, cancel := context.WithCancel(t.Context())
	f := &following{
		entries: make(chan table.Entry, 100_000), alive: make(chan routing.Position, 100_000),
		ended: make(chan error, 1), stop: cancel,
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.ended <- tb.Follow(ctx, from, interval, func(e table.Entry) error {
			f.entries <- e
			return nil
		}, func(at time.Time, pos routing.Position) {
			f.alive <- pos
		})
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return f
}

// next returns the next entry.
func (f *following) next(t *testing.T) table.Entry {
	t.Helper()
	select {
	case e := <-f.entries:
		return e
	case err := <-f.ended:
		t.Fatalf("Follow ended: %v", err)
	case <-time.After(within):
		t.Fatalf("no entry within %v", within)
	}
	return table.Entry{}
}

// end waits for the end of Follow, which must be want.
func (f *following) end(t *testing.T, want error) {
	t.Helper()
	select {
	case err := <-f.ended:
		if !errors.Is(err, want) {
			t.Errorf("Follow ended with %v, want %v", err, want)
		}
	case <-time.After(within):
		t.Errorf("Follow did not end within %v, want %v", within, want)
	}
}
