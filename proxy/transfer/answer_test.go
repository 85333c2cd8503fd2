package transfer

import (
	"strings"
	"testing"

	"mailcutover/routing"
	"mailcutover/spool"
)

// What people are told is what the sender gets.
func TestAnswer(t *testing.T) {
	plain, holding := New(Options{}), New(Options{Spool: new(spool.Store), PutOff: map[routing.AgencyID]struct{}{"tax": {}}})
	for reason, want := range map[routing.Reason][2]string{
		routing.ReasonOpen:         {"what the platform says", "what the platform says"},
		routing.ReasonFixed:        {"what the platform says", "what the platform says"},
		routing.ReasonInPhase:      {"451 4.3.2 ", "250: the message is held"},
		routing.ReasonLocked:       {"451 4.3.2 ", "250: the message is held"},
		routing.ReasonNoSuchName:   {"451 4.1.1 ", "451 4.1.1 "},
		routing.ReasonForeign:      {"550 5.7.1 ", "550 5.7.1 "},
		routing.ReasonTableUnavail: {"451 4.4.3 ", "451 4.4.3 "},
	} {
		d := &routing.Decision{Reason: reason, Agency: "health"}
		if got := plain.Answer(d); !strings.HasPrefix(got, want[0]) {
			t.Errorf("%s: %q, want %q", reason, got, want[0])
		}
		if got := holding.Answer(d); !strings.HasPrefix(got, want[1]) {
			t.Errorf("%s with a spool: %q, want %q", reason, got, want[1])
		}
	}
	for _, d := range []routing.Decision{
		{Reason: routing.ReasonConflict},               // nobody's, so that nobody's switch would deliver it
		{Reason: routing.ReasonInPhase, Agency: "tax"}, // an operator wants it so
	} {
		if got := holding.Answer(&d); !strings.HasPrefix(got, "451 4.3.2 ") {
			t.Errorf("%+v: %q", d, got)
		}
	}
}
