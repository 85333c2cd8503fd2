package control

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"mailcutover/routing"
	"mailcutover/routing/localtable"
	"mailcutover/routing/table"
)

// A copy of many mailboxes fills an empty table: everything locked, an epoch further, in a
// term above all.
func TestBootstrap(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	const agencies, mailboxes = 20, 100
	state := b.Replica.State()
	c := table.Change{ID: "fill", Incarnation: state.Position().Incarnation, Term: state.Position().Term, Mapped: state.Position().Mapped}
	for i := range agencies {
		id := routing.AgencyID(fmt.Sprintf("agency-%d", i))
		a, err := routing.NewAgency(id, "exchange", "ox")
		if err != nil {
			t.Fatal(err)
		}
		rows := make([]routing.Row, mailboxes)
		for n := range rows {
			rows[n] = routing.Row{Mailbox: routing.MailboxID{1, 14: byte(n >> 8), 15: byte(n)}, Kind: routing.KindUser, Addresses: []routing.Address{routing.Address(fmt.Sprintf("user%d@%s.example", n, id))}}
		}
		m, err := routing.NewMapping(id, rows)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.table.PutMapping(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		a.Mapping = m.Digest()
		c.Agencies = append(c.Agencies, a)
	}
	if _, err := b.table.Change(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	from := b.follow()
	f, err := b.Foundation()
	if err != nil || f.Mailboxes != agencies*mailboxes || len(f.Agencies) != agencies {
		t.Fatalf("%+v, %v", f, err)
	}
	empty, err := localtable.Open(filepath.Join(t.TempDir(), "table.db"), localtable.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { empty.Close() })
	other := New(Options{Table: empty, Replica: b.Replica, Logger: slog.New(slog.DiscardHandler)})
	act := Act{ID: "boot", Who: "anna", Reason: "all is lost"}
	if _, err := other.Bootstrap(t.Context(), act, routing.Digest{}); !errors.Is(err, table.ErrStale) {
		t.Errorf("another digest: %v", err)
	}
	if _, err := other.Bootstrap(t.Context(), Act{ID: "x"}, f.Digest); !errors.Is(err, ErrNoReason) {
		t.Errorf("without a reason: %v", err)
	}
	began := time.Now()
	pos, err := other.Bootstrap(t.Context(), act, f.Digest)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d mailboxes in %s", f.Mailboxes, time.Since(began))
	if pos.Incarnation != from.Incarnation || pos.Revision != from.Revision+1 || pos.Term <= from.Term {
		t.Errorf("position %+v after %+v", pos, from)
	}
	u, err := empty.Snapshot(t.Context())
	if err != nil || len(u.Agencies) != agencies {
		t.Fatalf("%+v, %v", u, err)
	}
	for _, a := range u.Agencies {
		was, _ := b.Replica.State().Agency(a.ID)
		if !a.Locked || a.Open() || a.Epoch != was.Epoch.Next() || a.Mapping != was.Mapping {
			t.Errorf("%+v, was %+v", a, was)
		}
	}
	if _, err := b.Bootstrap(t.Context(), act, f.Digest); !errors.Is(err, table.ErrFounded) {
		t.Errorf("a table that isn't empty: %v", err)
	}
}
