package operation

import (
	"context"
	"strings"
	"testing"

	"mailcutover/rollback/canary"
	"mailcutover/routing"
)

// A canary is tried once the agency is open on its other platform. What came of it is in the
// operation, whose success it doesn't change; one that fails raises an alarm, until one is
// well again.
func TestCanaries(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	tried := []string{}
	well := false
	b.Runner.Canaries = canaries{"police": func(_ context.Context, platform routing.PlatformID) canary.Result {
		a := b.agency("police")
		if !a.Phase.Open() || a.Operation != "" || a.Platform() != platform {
			t.Errorf("tried on %s while %s is in phase %s, of operation %q", platform, a.ID, a.Phase, a.Operation)
		}
		tried = append(tried, string(platform))
		return canary.Result{OK: well, Mail: "451 not today", Login: "logged in"}
	}}
	var steps []string
	run := func(kind Kind) Operation {
		t.Helper()
		steps = nil
		op, err := b.Run(t.Context(), Request{Kind: kind, Agency: "police", Who: "tester", Reason: "test", Progress: func(o Operation) {
			if n := len(steps); n == 0 || steps[n-1] != string(o.Step) {
				steps = append(steps, string(o.Step))
			}
		}})
		if err != nil || op.Step != StepDone || len(op.Canaries) != 1 || op.Canaries[0].OK != well {
			t.Fatalf("%s: %+v, %v", kind, op, err)
		}
		return op
	}
	op := run(Cutover)
	if got := strings.Join(steps, " "); got != "begin drain commit publish spread canary done" {
		t.Errorf("steps %s", got)
	}
	if text := b.alarms.text("canary/police"); !strings.Contains(text, "451 not today") || !strings.Contains(text, string(op.ID)) {
		t.Errorf("alarm %q", text)
	}
	if ops, err := b.List(); err != nil || len(ops) != 1 || len(ops[0].Canaries) != 1 {
		t.Errorf("journal: %+v, %v", ops, err)
	}
	well = true
	run(Rollback)
	if text := b.alarms.text("canary/police"); text != "" {
		t.Errorf("alarm %q", text)
	}
	if got := strings.Join(tried, " "); got != "ox exchange" {
		t.Errorf("tried on %s", got)
	}
	// An agency without one is left alone, and a locked one.
	if op, err := b.run(Cutover, "health"); err != nil || len(op.Canaries) != 0 {
		t.Errorf("%+v, %v", op, err)
	}
}

// Nobody waits for a canary when the node stops: the operation has happened.
func TestCanaryWhileTheNodeStops(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ctx, stop := context.WithCancelCause(t.Context())
	b.Runner.Canaries = canaries{"police": func(ctx context.Context, _ routing.PlatformID) canary.Result {
		stop(ErrStopping)
		<-ctx.Done()
		return canary.Result{Mail: ctx.Err().Error()}
	}}
	op, err := b.Run(ctx, Request{Kind: Cutover, Agency: "police", Who: "tester", Reason: "test"})
	if err != nil || op.Step != StepDone || len(op.Canaries) != 1 || !strings.Contains(op.Canaries[0].Mail, "not tried") {
		t.Errorf("%+v, %v", op, err)
	}
	if text := b.alarms.text("canary/police"); text != "" {
		t.Errorf("alarm %q", text)
	}
}
