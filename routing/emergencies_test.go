package routing

import (
	"slices"
	"testing"
)

func TestEmergencies(t *testing.T) {
	var e Emergencies
	if e.All() != nil || e.Has("") || e.With("") != e || e.Without("a") != e {
		t.Errorf("none: %q", e)
	}
	e = e.With("b").With("a").With("b")
	if e != "a,b" || !e.Has("a") || !e.Has("b") || e.Has("a,b") || !slices.Equal(e.All(), []OperationID{"a", "b"}) {
		t.Errorf("two: %q", e)
	}
	if e.Without("a") != "b" || e.Without("c") != e || e.Without("a").Without("b") != "" {
		t.Errorf("without: %q", e)
	}
}
