package control

import (
	"testing"
	"time"

	"mailcutover/routing"
)

func TestTendSettlesWhatNobodySettles(t *testing.T) {
	b := newBench(t)
	edits := map[routing.AgencyID]func(*routing.Agency){
		"armed":       func(a *routing.Agency) { *a = a.Arm() },
		"interrupted": func(a *routing.Agency) { a.Tightness = routing.Settling },
		"emergency":   func(a *routing.Agency) { *a = a.Arm().Emergency("lock-1") },
		"locked":      func(a *routing.Agency) { *a = a.Arm(); a.Locked = true; a.Epoch = a.Epoch.Next() },
	}
	for id, edit := range edits {
		b.add(id)
		a := b.agency(id)
		edit(&a)
		b.put(a)
	}
	never, soon := b.Tender(0), b.Tender(time.Millisecond)
	for range 2 {
		if err := never.Tend(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := b.agency("armed").Tightness; got != routing.Armed {
		t.Errorf("armed is %s, though nothing is to be settled by itself", got)
	}
	if got := b.agency("interrupted").Tightness; got != routing.Settled {
		t.Errorf("interrupted is %s", got)
	}
	for range 2 {
		if err := soon.Tend(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Millisecond) // the time after which it is settled
	}
	for id, want := range map[routing.AgencyID]routing.Tightness{"armed": routing.Settled, "emergency": routing.Armed, "locked": routing.Armed} {
		if got := b.agency(id).Tightness; got != want {
			t.Errorf("%s is %s, want %s", id, got, want)
		}
	}
}

// A record that changes is looked at anew.
func TestTendLeavesAnAgencyThatIsBeingWorkedAt(t *testing.T) {
	b := newBench(t)
	b.add("health")
	b.put(b.agency("health").Arm())
	tender := b.Tender(time.Nanosecond)
	for range 3 {
		if err := tender.Tend(t.Context()); err != nil {
			t.Fatal(err)
		}
		b.put(b.agency("health").Arm()) // another revision each time
	}
	if got := b.agency("health").Tightness; got != routing.Armed {
		t.Errorf("health is %s", got)
	}
}
