package node

import (
	"log/slog"
	"testing"
	"time"

	"mailcutover/internal/durable/memdisk"
	"mailcutover/routing"
	"mailcutover/routing/table"
)

// still is a keeper that has all rights for an hour and nobody to ask, with its gate.
func still(tb testing.TB) *Gate {
	tb.Helper()
	rec, err := routing.NewAgency("health", "exchange", "ox")
	if err != nil {
		tb.Fatal(err)
	}
	m, err := routing.NewMapping("health", []routing.Row{{
		Mailbox: routing.MailboxID{1}, Kind: routing.KindUser, Addresses: []routing.Address{"anna@health.example"},
	}})
	if err != nil {
		tb.Fatal(err)
	}
	rec.Mapping = m.Digest()
	state, err := routing.NewState(routing.Position{Incarnation: "i", Revision: 1, Term: 1}).Apply(routing.Update{
		Agencies: []routing.Agency{rec}, Mappings: []*routing.Mapping{m}, Domains: []routing.Domain{{Name: "health.example"}},
	})
	if err != nil {
		tb.Fatal(err)
	}
	c := &fakeCopy{state: state, moved: make(chan struct{})}
	k, err := OpenKeeper(KeeperOptions{Replica: c, Node: "a.example", Lease: lease, Dir: "/d", Disk: memdisk.New(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		tb.Fatal(err)
	}
	k.put(time.Now().Add(time.Hour), time.Now().Add(time.Hour))
	gate := NewGate(c, k, "+")
	k.Attach(gate)
	return gate
}

func TestADecisionAllocatesNothing(t *testing.T) {
	gate := still(t)
	if d := gate.Address("anna@health.example"); !d.Deliver() {
		t.Fatalf("%+v", d)
	}
	if n := testing.AllocsPerRun(100, func() { gate.Address("anna@health.example") }); n != 0 {
		t.Errorf("a decision allocates %v times", n)
	}
	d := gate.Address("anna@health.example")
	entered := testing.AllocsPerRun(100, func() {
		ticket, err := gate.Enter(&d, nil)
		if err == nil && ticket.Dot(t.Context()) == nil {
			_ = ticket.Acknowledge()
		}
		ticket.End()
	})
	if entered > 1 {
		t.Errorf("a delivery allocates %v times, want its ticket only", entered)
	}
}

// BenchmarkGate compares a delivery under a keeper's right with one under a plain lease.
func BenchmarkGate(b *testing.B) {
	kept := still(b)
	for name, gate := range map[string]*Gate{
		"keeper": kept,
		"lease":  NewGate(kept.source, Lease{Settled: time.Hour, Armed: time.Hour}, "+"),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					d := gate.Address("anna@health.example")
					ticket, err := gate.Enter(&d, nil)
					if err != nil {
						b.Error(err)
						return
					}
					if err := ticket.Dot(b.Context()); err != nil {
						b.Error(err)
						return
					}
					_ = ticket.Acknowledge()
					ticket.End()
				}
			})
		})
	}
}

var _ Rights = (*Keeper)(nil)
var _ Table = table.Table(nil)
