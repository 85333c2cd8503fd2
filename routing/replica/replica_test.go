package replica

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

var _ table.Table = (*fakeTable)(nil)

// world is a table with agencies, and a replica that follows it.
type world struct {
	t     *testing.T
	table *fakeTable
	rep   *Replica
	stop  func()

	onUpdate func(old, now *routing.State)
	compact  int64 // bytes of marks after which the records are written; 0: as ever
}

func (w *world) start(opts Options) {
	w.t.Helper()
	opts.Table, opts.Interval = w.table, 5*time.Millisecond
	if w.onUpdate != nil {
		opts.OnUpdate = w.onUpdate
	}
	opts.Logger = slog.New(slog.DiscardHandler)
	rep, err := Open(opts)
	if err != nil {
		w.t.Fatal(err)
	}
	w.rep = rep
	rep.retryPause = 10 * time.Millisecond
	if w.compact > 0 {
		rep.disk.most = w.compact
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- rep.Run(ctx) }()
	stopped := false
	w.stop = func() {
		if !stopped {
			stopped = true
			cancel()
			<-done
		}
	}
	w.t.Cleanup(w.stop)
}

func newWorld(t *testing.T, agencies ...routing.AgencyID) *world {
	w := &world{t: t, table: newFakeTable()}
	w.table.setAll(routing.Update{Domains: []routing.Domain{{Name: "example.org"}}})
	for i, id := range agencies {
		w.table.set(w.newAgency(id, i, anna(id)))
	}
	return w
}

// anna is an address that each agency of a world has.
func anna(id routing.AgencyID) routing.Address {
	return routing.Address("anna." + string(id) + "@example.org")
}

// newAgency makes a record with a mapping that is in the table.
func (w *world) newAgency(id routing.AgencyID, n int, addresses ...routing.Address) routing.Agency {
	w.t.Helper()
	a, err := routing.NewAgency(id, "exchange", "ox")
	if err != nil {
		w.t.Fatal(err)
	}
	a.Mapping = w.mapping(id, n, addresses...).Digest()
	return a
}

// mapping makes a mapping with a mailbox for each address and puts it into the table.
func (w *world) mapping(id routing.AgencyID, n int, addresses ...routing.Address) *routing.Mapping {
	w.t.Helper()
	var rows []routing.Row
	for i, a := range addresses {
		rows = append(rows, routing.Row{Mailbox: routing.MailboxID{0: 1, 1: byte(n), 15: byte(i)}, Kind: routing.KindUser, Addresses: []routing.Address{a}})
	}
	m, err := routing.NewMapping(id, rows)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := w.table.PutMapping(context.Background(), m); err != nil {
		w.t.Fatal(err)
	}
	return m
}

// await returns when cond holds, and fails the test after a minute.
func (w *world) await(what string, cond func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(time.Minute); !cond(); {
		if time.Now().After(deadline) {
			w.t.Fatalf("%s: not after a minute; status %+v", what, w.rep.Status())
		}
		time.Sleep(time.Millisecond)
	}
}

func (w *world) wait(pos routing.Position) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := w.rep.Wait(ctx, pos); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) decide(a routing.Address) routing.Decision { return w.rep.State().DecideAddress(a, "") }

func TestItFollowsTheTable(t *testing.T) {
	w := newWorld(t, "health", "works")
	w.start(Options{})
	pos, _ := w.table.Position(context.Background())
	w.wait(pos)
	if d := w.decide(anna("works")); d.Reason != routing.ReasonOpen || d.Agency != "works" || d.Platform != "exchange" {
		t.Fatalf("%+v", d)
	}
	works, _ := w.rep.State().Agency("works")
	locked, err := works.Lock()
	if err != nil {
		t.Fatal(err)
	}
	w.wait(w.table.set(locked))
	if d := w.decide(anna("works")); d.Reason != routing.ReasonLocked {
		t.Errorf("%+v", d)
	}
	w.stop()
	if len(w.rep.loaded) != 0 {
		t.Errorf("%d mappings are kept that nobody needs", len(w.rep.loaded))
	}
	if w.table.loads != 2 || w.table.snapshots != 1 {
		t.Errorf("%d mappings loaded, %d snapshots read", w.table.loads, w.table.snapshots)
	}
}

func TestItComesBackFromDiskClosed(t *testing.T) {
	w := newWorld(t, "health", "works")
	dir := t.TempDir()
	w.start(Options{Dir: dir})
	pos, _ := w.table.Position(context.Background())
	w.wait(pos)
	w.stop()
	w.table.do(func() { w.table.down, w.table.loads = table.ErrUnavailable, 0 })
	w.start(Options{Dir: dir})
	if got := w.rep.State().Position(); got != pos {
		t.Fatalf("disk copy at %+v, want %+v", got, pos)
	}
	if _, ok := w.rep.Fresh(); ok {
		t.Fatal("open before the first contact")
	}
	if d := w.decide(anna("works")); d.Reason != routing.ReasonOpen {
		t.Errorf("%+v", d)
	}
	w.table.do(func() { w.table.down = nil })
	w.wait(pos)
	if w.table.loads != 0 {
		t.Errorf("%d mappings loaded that were on disk", w.table.loads)
	}
}
