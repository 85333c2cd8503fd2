package localtable

import (
	"fmt"
	"path/filepath"
	"testing"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

// Of the operations that ended, the oldest are forgotten; the open ones never.
func TestOldOperationsAreForgotten(t *testing.T) {
	tb := open(t, filepath.Join(t.TempDir(), "table.db"), Options{})
	pos, err := tb.Init(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	tb.keptOperations = 3
	send := func(o routing.Operation) routing.Revision {
		t.Helper()
		at, err := tb.Change(t.Context(), table.Change{ID: fmt.Sprint(o.ID, " ", o.Revision), Incarnation: pos.Incarnation, Term: pos.Term, Operations: []routing.Operation{o}})
		if err != nil {
			t.Fatal(err)
		}
		return at.Revision
	}
	again := routing.Operation{ID: "again"}
	again.Revision, again.Ended = send(again), true
	again.Revision, again.Ended = send(again), false
	send(again) // goes on, and so stays
	for i := range 10 {
		o := routing.Operation{ID: routing.OperationID(fmt.Sprint("op-", i))}
		o.Revision, o.Ended = send(o), i != 4
		send(o)
	}
	all, err := tb.Operations(t.Context())
	ids := map[routing.OperationID]bool{}
	for _, o := range all {
		ids[o.ID] = true
	}
	if err != nil || len(all) != 5 || !ids["again"] || !ids["op-4"] || !ids["op-7"] || !ids["op-8"] || !ids["op-9"] {
		t.Errorf("operations: %v, %v", ids, err)
	}
}
