package replica

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"mailcutover/routing"
	"mailcutover/routing/localtable"
	"mailcutover/routing/redistable"
	"mailcutover/routing/table"
	"mailcutover/test/peers"
)

// The real tables keep what the fake promises: a cutover and a rollback are followed,
// each step decides as it should, and the copy on disk is what the table has.
func TestRealTables(t *testing.T) {
	for name, open := range map[string]func(t *testing.T) table.Table{
		"localtable": func(t *testing.T) table.Table {
			tb, err := localtable.Open(filepath.Join(t.TempDir(), "table"), localtable.Options{})
			if err != nil {
				t.Fatal(err)
			}
			return tb
		},
		"redistable": func(t *testing.T) table.Table {
			r := peers.StartRedis(t, peers.RedisOptions{Password: "secret"})
			tb, err := redistable.Open(t.Context(), redistable.Options{URL: r.URL(), Timeout: 20 * time.Second})
			if err != nil {
				t.Fatal(err)
			}
			return tb
		},
	} {
		t.Run(name, func(t *testing.T) { followsACutover(t, open(t)) })
	}
}

func followsACutover(t *testing.T, tb table.Table) {
	t.Cleanup(func() { tb.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	pos, err := tb.Init(ctx)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	rep, err := Open(Options{Table: tb, Dir: dir, Interval: 20 * time.Millisecond, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	runCtx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); rep.Run(runCtx) }()
	defer func() { stop(); <-done }()

	change := func(u routing.Update) {
		t.Helper()
		c := table.Change{ID: fmt.Sprint("change ", pos.Revision), Incarnation: pos.Incarnation, Term: pos.Term, Agencies: u.Agencies, Domains: u.Domains, Who: "test", What: "change"}
		if len(u.Domains) > 0 || len(u.Mappings) > 0 {
			c.Mapped = pos.Mapped
		}
		for _, m := range u.Mappings {
			if err := tb.PutMapping(ctx, m); err != nil {
				t.Fatal(err)
			}
		}
		if pos, err = tb.Change(ctx, c); err != nil {
			t.Fatal(err)
		}
		if err := rep.Wait(ctx, pos); err != nil {
			t.Fatal(err)
		}
	}
	m, err := routing.NewMapping("health", []routing.Row{{
		Mailbox: routing.MailboxID{0: 1}, Kind: routing.KindUser, Addresses: []routing.Address{"anna@example.org"},
		Target: routing.Place{Address: "u1@ox.internal"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	change(routing.Update{Domains: []routing.Domain{{Name: "example.org"}}})
	a, err := routing.NewAgency("health", "exchange", "ox")
	if err != nil {
		t.Fatal(err)
	}
	a.Mapping = m.Digest()
	change(routing.Update{Agencies: []routing.Agency{a}, Mappings: []*routing.Mapping{m}})

	expect := func(reason routing.Reason, platform routing.PlatformID) {
		t.Helper()
		if d := rep.State().DecideAddress("anna@example.org", "+"); d.Reason != reason || d.Platform != platform {
			t.Errorf("%+v, want %s on %s", d, reason, platform)
		}
	}
	step := func(do func(a routing.Agency) (routing.Agency, error)) {
		t.Helper()
		now, _ := rep.State().Agency("health")
		next, err := do(now)
		if err != nil {
			t.Fatal(err)
		}
		change(routing.Update{Agencies: []routing.Agency{next}})
	}
	expect(routing.ReasonOpen, "exchange")
	step(func(a routing.Agency) (routing.Agency, error) { return a.Arm(), nil })
	for _, side := range [][2]routing.PlatformID{{"exchange", "ox"}, {"ox", "exchange"}} {
		op := routing.OperationID("to " + side[1])
		step(func(a routing.Agency) (routing.Agency, error) { return a.Begin(op, 7, routing.EventBegin) })
		expect(routing.ReasonInPhase, side[0])
		step(func(a routing.Agency) (routing.Agency, error) { return a.Commit(op, 7) })
		expect(routing.ReasonUnpublished, side[1])
		step(func(a routing.Agency) (routing.Agency, error) { return a.Publish(op) })
		expect(routing.ReasonOpen, side[1])
	}
	for rep.Status().OnDisk != pos {
		if ctx.Err() != nil {
			t.Fatalf("not on disk: %+v", rep.Status())
		}
		time.Sleep(time.Millisecond)
	}
	stop()
	<-done
	again, err := Open(Options{Table: tb, Dir: dir, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := again.Fresh(); ok || again.State().Position() != pos {
		t.Errorf("from disk: %+v, open %t", again.State().Position(), ok)
	}
}

// BenchmarkThreeNodes measures the time from the table's word that a change is made until
// the last of three nodes acts on it, its marks fsynced.
func BenchmarkThreeNodes(b *testing.B) {
	r := peers.StartRedis(b, peers.RedisOptions{Password: "secret"})
	open := func() *redistable.Table {
		tb, err := redistable.Open(b.Context(), redistable.Options{URL: r.URL(), Timeout: 5 * time.Second})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { tb.Close() })
		return tb
	}
	writer := open()
	pos, err := writer.Init(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	var nodes []*Replica
	for range 3 {
		rep, err := Open(Options{Table: open(), Dir: b.TempDir(), Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			b.Fatal(err)
		}
		nodes = append(nodes, rep)
		running.Go(func() { _ = rep.Run(ctx) })
	}
	b.Cleanup(func() { cancel(); running.Wait() })
	for _, n := range nodes {
		if err := n.Wait(b.Context(), pos); err != nil {
			b.Fatal(err)
		}
	}
	a, err := routing.NewAgency("health", "exchange", "ox")
	if err != nil {
		b.Fatal(err)
	}
	var took []time.Duration
	for b.Loop() {
		a.Epoch = a.InTerm(pos.Term).Epoch.Next()
		pos, err = writer.Change(b.Context(), table.Change{
			ID: fmt.Sprint("change ", pos.Revision), Incarnation: pos.Incarnation, Term: pos.Term, Agencies: []routing.Agency{a}, Who: "test", What: "change",
		})
		if err != nil {
			b.Fatal(err)
		}
		began := time.Now()
		for _, n := range nodes {
			if err := n.Wait(b.Context(), pos); err != nil {
				b.Fatal(err)
			}
		}
		took = append(took, time.Since(began))
		a.Revision = pos.Revision
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "median-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
}
