package routing

import (
	"errors"
	"testing"
)

// arrows is the picture of docs/architecture/switch.md, written down a second time.
var arrows = map[Phase]map[Event]Phase{
	PhaseSource:      {EventBegin: PhaseToTarget, EventBeginRemap: PhaseRemapSource},
	PhaseToTarget:    {EventCommit: PhaseTarget, EventAbort: PhaseSource},
	PhaseTarget:      {EventBegin: PhaseToSource, EventBeginRemap: PhaseRemapTarget},
	PhaseToSource:    {EventCommit: PhaseSource, EventAbort: PhaseTarget},
	PhaseRemapSource: {EventCommit: PhaseSource, EventAbort: PhaseSource},
	PhaseRemapTarget: {EventCommit: PhaseTarget, EventAbort: PhaseTarget},
}

// beyond are values that no version of ours makes.
func beyond() (Phase, Event) { return Phase(len(Phases())), Event(len(Events())) }

func TestEveryPhaseAndEvent(t *testing.T) {
	badPhase, badEvent := beyond()
	for _, p := range append(Phases(), badPhase, 255) {
		for _, e := range append(Events(), badEvent, 255) {
			got, err := Next(p, e)
			want, ok := arrows[p][e]
			switch {
			case ok && (err != nil || got != want):
				t.Errorf("%s on %s: %s, %v; want %s", p, e, got, err, want)
			case !ok && (!errors.Is(err, ErrTransition) || got != p):
				t.Errorf("%s on %s: %s, %v; want it refused", p, e, got, err)
			}
			var te *TransitionError
			if !ok && (!errors.As(err, &te) || te.From != p || te.On != e) {
				t.Errorf("%s on %s: %#v", p, e, err)
			}
		}
	}
}

func TestPhasesOpenAndSide(t *testing.T) {
	open := map[Phase]bool{PhaseSource: true, PhaseTarget: true}
	target := map[Phase]bool{PhaseTarget: true, PhaseToSource: true, PhaseRemapTarget: true}
	bad, _ := beyond()
	for _, p := range append(Phases(), bad, 255) {
		if p.Open() != open[p] || p.OnTarget() != target[p] {
			t.Errorf("%s: open %t, on target %t", p, p.Open(), p.OnTarget())
		}
		a := Agency{Source: "s", Target: "t", Phase: p}
		want := PlatformID("s")
		switch {
		case p == PhaseUnknown || p >= bad:
			want = ""
		case target[p]:
			want = "t"
		}
		if a.Platform() != want {
			t.Errorf("%s: platform %q, want %q", p, a.Platform(), want)
		}
	}
}

func TestPhaseText(t *testing.T) {
	for _, p := range Phases() {
		b, _ := p.MarshalText()
		var got Phase
		if err := got.UnmarshalText(b); err != nil || got != p {
			t.Errorf("%s: %s, %v", p, got, err)
		}
	}
	got := PhaseTarget
	if err := got.UnmarshalText([]byte("half-way")); err != nil || got != PhaseUnknown {
		t.Errorf("a word of a newer version: %s, %v; want unknown", got, err)
	}
	if bad, e := beyond(); bad.String() != "unknown" || e.String() != "unknown" {
		t.Errorf("%s, %s", bad, e)
	}
}
