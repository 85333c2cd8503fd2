package routing

import (
	"fmt"
	"testing"
)

func TestDocuments(t *testing.T) {
	state := NewState(Position{Incarnation: "i", Revision: 1})
	apply := func(u Update) {
		t.Helper()
		next, err := state.Apply(u)
		if err != nil {
			t.Fatal(err)
		}
		state = next
	}
	keys := func(prefix string) string {
		var all []string
		for _, d := range state.Documents(prefix) {
			all = append(all, d.Key)
		}
		return fmt.Sprint(all)
	}
	before := state
	apply(Update{Documents: []Document{{Key: "proposal/2", Text: "b"}, {Key: "proposal/1", Text: "a"}, {Key: "audit/mx1", Text: "h"}}})
	if got := keys("proposal/"); got != "[proposal/1 proposal/2]" {
		t.Error(got)
	}
	if d, ok := state.Document("audit/mx1"); !ok || d.Text != "h" {
		t.Errorf("%+v, %t", d, ok)
	}
	if len(before.Documents("")) != 0 {
		t.Error("an older State was changed")
	}
	apply(Update{Documents: []Document{{Key: "proposal/1", Removed: true}}})
	if got := keys(""); got != "[audit/mx1 proposal/2]" {
		t.Error(got)
	}
	apply(Update{Whole: true, Documents: []Document{{Key: "audit/mx2"}}})
	if got := keys(""); got != "[audit/mx2]" {
		t.Error(got)
	}
}
