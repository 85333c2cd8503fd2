package redistable

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

func TestAcknowledgedChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a acks
		at := func(term uint32, rev routing.Revision) routing.Position {
			return routing.Position{Incarnation: "i", Term: term, Revision: rev}
		}
		book := func(term, previous uint32, rev, base routing.Revision) *table.Book {
			return &table.Book{Position: at(term, rev), Previous: previous, Base: base}
		}
		a.add(at(1, 5))
		a.add(at(1, 4)) // sent again
		if due := a.all(); len(due) != 1 || due[1].pos != at(1, 5) {
			t.Fatalf("due: %+v", due)
		}
		// Another one is acknowledged while the first is being confirmed.
		due := a.all()
		a.add(at(1, 6))
		if err := a.confirm(due, book(1, 0, 6, 1)); err != nil {
			t.Error(err)
		}
		// The next server has the first two and not the third.
		a.add(at(1, 7))
		a.add(at(2, 9))
		for range 2 {
			if err := a.confirm(a.all(), book(2, 1, 9, 6)); !errors.Is(err, table.ErrRegressed) {
				t.Errorf("lost: %v", err)
			}
		}
		time.Sleep(reportLost + time.Second)
		if err := a.confirm(a.all(), book(2, 1, 9, 6)); !errors.Is(err, table.ErrRegressed) {
			t.Errorf("the last time: %v", err)
		}
		if err := a.confirm(a.all(), book(2, 1, 9, 6)); err != nil || len(a.all()) != 0 {
			t.Errorf("afterwards: %v, %+v", err, a.all())
		}
		a.add(at(2, 10))
		other := book(2, 1, 10, 6)
		other.Position.Incarnation = "other"
		if err := a.confirm(a.all(), other); !errors.Is(err, table.ErrRegressed) {
			t.Errorf("another table: %v", err)
		}
	})
}
