package node

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"mailcutover/internal/durable/memdisk"
	"mailcutover/routing"
	"mailcutover/routing/table"
)

// Nobody is told for good that there is no such name, unless the table says in that moment that
// this node's copy has all of them.
func TestNobodyIsDeniedByWhatMayBeOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeTable(t, "health")
		n := f.start(t, "mx1.example", memdisk.New())
		settle()
		unknown, elsewhere := routing.Address("carl@health.example"), routing.Address("carl@elsewhere.example")
		for _, c := range []struct {
			when string
			do   func()
			undo func()
			err  error
		}{
			{"all is well", func() {}, func() {}, nil},
			{"the copy lags behind a name", func() {
				n.copy.stop(true)
				f.do(func() { f.book.Position.Mapped = f.book.Position.Revision + 1; f.apply(routing.Update{}) })
			}, func() { n.copy.stop(false) }, table.ErrStale},
			{"names were lost", func() { f.do(func() { f.book.NamesLost = true }) }, func() { f.do(func() { f.book.NamesLost = false }) }, table.ErrStale},
			{"the table doesn't answer", func() { f.do(func() { f.hang = make(chan struct{}) }) }, func() { f.do(func() { close(f.hang); f.hang = nil }) }, nil},
			{"it is rejoining", func() {
				f.do(func() {
					f.book.Rejoining, f.book.Members["b.example"] = true, routing.Member{Node: "b.example", Instance: "away"}
				})
			}, func() { f.do(func() { f.book.Rejoining = false; delete(f.book.Members, "b.example") }) }, table.ErrRejoining},
		} {
			c.do()
			for _, foreign := range []bool{false, true} {
				a := unknown
				if foreign {
					a = elsewhere
				}
				began := time.Now()
				err := n.gate.Absent(t.Context(), a, foreign)
				if c.when == "all is well" != (err == nil) || c.err != nil && !errors.Is(err, c.err) || time.Since(began) > CheckTimeout {
					t.Errorf("%s: %s: %v after %s", c.when, a, err, time.Since(began))
				}
			}
			c.undo()
			settle()
		}
		if err := n.gate.Absent(t.Context(), anna("health"), false); err == nil {
			t.Error("who is there is absent")
		}
		if err := n.gate.Absent(t.Context(), unknown, true); err == nil {
			t.Error("a domain that is served is foreign")
		}
		f.do(func() { f.down = table.ErrUnavailable })
		time.Sleep(lease.Armed)
		if err := n.gate.Absent(t.Context(), unknown, false); !errors.Is(err, ErrLapsed) {
			t.Errorf("without the table for as long as the short lease: %v", err)
		}
	})
}
