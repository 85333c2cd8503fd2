package register

import (
	"strings"
	"testing"
	"time"

	"mailcutover/routing"
)

// keep stores an entry.
func keep(t *testing.T, s *routing.State, e *Entry) *routing.State {
	t.Helper()
	docs, err := e.Documents(s)
	if err != nil {
		t.Fatal(err)
	}
	return store(t, s, docs)
}

// A list follows the operation that brings it into force, and no other one.
func TestFollowsItsOperation(t *testing.T) {
	at := time.Unix(3e9, 0).UTC()
	for name, c := range map[string]struct {
		from      Standing
		operation routing.OperationID // that ends
		inForce   bool
		want      Standing
		refuses   string
	}{
		"published":           {from: Proposed, operation: "op1", inForce: true, want: Active},
		"aborted":             {from: Proposed, operation: "op1", want: Proposed},
		"another one's end":   {from: Proposed, operation: "op2", inForce: true, want: Pending},
		"another one's abort": {from: Proposed, operation: "op2", want: Pending},
		"withdrawn before":    {from: Withdrawn, operation: "op1", inForce: true, refuses: "it is withdrawn"},
		"in force before":     {from: Active, operation: "op1", inForce: true, refuses: "it is active"},
		"pending before":      {from: Pending, operation: "op1", inForce: true, refuses: "it is pending"},
	} {
		t.Run(name, func(t *testing.T) {
			s := keep(t, routing.NewState(routing.Position{}), &Entry{List: testList("health-0001-aaaa", 5, 1e9), Standing: c.from, Proposal: "p1"})
			docs, err := Begun(s, "health-0001-aaaa", "op1", []string{"Bert"}, at)
			if c.refuses != "" {
				if err == nil || !strings.Contains(err.Error(), c.refuses) {
					t.Errorf("%v, want %q", err, c.refuses)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			s = store(t, s, docs)
			for range 2 { // also when it is asked again
				if docs, err = Ended(s, "health-0001-aaaa", c.operation, c.inForce, at); err != nil {
					t.Fatal(err)
				}
				s = store(t, s, docs)
			}
			e, _, err := Find(s, "health-0001-aaaa")
			if err != nil || e.Standing != c.want || (e.Operation == "") != (c.want == Proposed) || (len(e.Approved) == 0) != (c.want == Proposed) {
				t.Errorf("%+v, %v; want %s", e, err, c.want)
			}
		})
	}
	s := routing.NewState(routing.Position{})
	if _, err := Begun(s, "health-0009-cccc", "op1", nil, at); err == nil || !strings.Contains(err.Error(), "isn't in the table") {
		t.Errorf("a list that isn't there: %v", err)
	}
	if docs, err := Ended(s, "health-0009-cccc", "op1", true, at); len(docs) != 0 || err != nil {
		t.Errorf("the end of one that isn't there: %v, %v", docs, err)
	}
}

// A list that is proposed again under its id, with rows taken out, is kept as it is now: the
// longer one, whose proposal came to nothing, leaves no rows behind.
func TestShorterListOfTheSameID(t *testing.T) {
	s := keep(t, routing.NewState(routing.Position{}), &Entry{List: testList("health-0001-aaaa", 1000, 1e9), Standing: Proposed, Proposal: "p1"})
	for _, rows := range []int{300, 799, 1, 1000} {
		e := Entry{List: testList("health-0001-aaaa", rows, 2e9), Standing: Proposed, Proposal: "p2"}
		s = keep(t, s, &e)
		got, ok, err := Find(s, "health-0001-aaaa")
		if err != nil || !ok || len(got.List.Rows) != rows || got.Proposal != "p2" {
			t.Errorf("%d rows: %+v, %v", rows, got, err)
		}
	}
}

// What an operation has begun is removed only if the table lost the operation.
func TestRemovalOfPending(t *testing.T) {
	e := Entry{List: testList("health-0001-aaaa", 5, 1e9), Standing: Pending, Operation: "op1", Proposal: "p1"}
	s := keep(t, routing.NewState(routing.Position{}), &e)
	if gone := e.Removals(s); len(gone) != 2 {
		t.Errorf("%d documents go, want all 2", len(gone))
	}
	pos := s.Position()
	pos.Revision++
	s, err := s.Apply(routing.Update{Position: pos, Operations: []routing.Operation{{ID: "op1", Agency: "health"}}})
	if err != nil {
		t.Fatal(err)
	}
	if gone := e.Removals(s); len(gone) != 0 {
		t.Errorf("%d documents of a list that is under way go", len(gone))
	}
}
