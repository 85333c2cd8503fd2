package operation

import (
	"errors"
	"strings"
	"testing"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

// A begin that is computed anew goes the way that was asked for, or none: a rollback from
// the record of an old backup, which has the agency on its source, is no cutover.
func TestBeginKeepsItsDirection(t *testing.T) {
	t.Parallel()
	for name, emergency := range map[string]bool{"as planned": false, "emergency": true} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			if _, err := b.run(Cutover, "police"); err != nil {
				t.Fatal(err)
			}
			changed := false
			b.table.set(func(c table.Change, do func() (routing.Position, error)) (routing.Position, error) {
				if strings.Contains(c.ID, "/begin") && !changed {
					changed = true
					rec := b.agency("police")
					rec.Phase, rec.Epoch = routing.PhaseSource, rec.Epoch.Next()
					b.put(rec)
				}
				return do()
			})
			op, err := b.Run(t.Context(), Request{Kind: Rollback, Agency: "police", Who: "tester", Reason: "test", Emergency: emergency})
			if !errors.Is(err, routing.ErrTransition) || op.Step == StepDone || !changed {
				t.Errorf("%+v, %v", op, err)
			}
			b.stands("police", routing.PhaseSource)
		})
	}
}
