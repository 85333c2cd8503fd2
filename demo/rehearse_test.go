package demo

import (
	"io"
	"strings"
	"testing"
	"time"

	"mailcutover/rollback/rehearse"
	"mailcutover/routing"
)

// A rehearsal of a shape with shared mailboxes, rooms, aliases and logins passes, and one with a platform that
// loses mail doesn't; no name of the agency's is in what it prints.
func TestRehearse(t *testing.T) {
	shape := []Shape{{"user", 1, 0}, {"user", 3, 2}, {"shared", 2, 0}, {"room", 1, 0}}
	for range 40 {
		shape = append(shape, Shape{"user", 2, 1})
	}
	for name, c := range map[string]struct {
		fault  Break
		passed bool
	}{"well": {BreakNothing, true}, "lost": {BreakLose, false}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out, log strings.Builder
			o := RehearseOptions{
				Agency: "health", Mapping: routing.Digest{7}, Shape: shape, Of: 320, Version: "test", Out: &out, Log: &log, Break: c.fault, Rate: 200, Phase: 600 * time.Millisecond,
			}
			r, err := Rehearse(t.Context(), o)
			if err != nil {
				t.Fatalf("%v\n%s", err, out.String())
			}
			if err := r.Check(); err != nil || r.Passed != c.passed {
				t.Errorf("%+v, %v\n%s", r, err, out.String())
			}
			if r.Agency != "health" || r.Mailboxes != len(shape) || r.Of != 320 || r.Mail.Sent == 0 || r.Logins.Right == 0 || !r.Cutover.Done || !r.Rollback.Done || r.Rollback.Closed <= 0 || r.Rollback.Held != r.Rollback.Replayed {
				t.Errorf("%+v", r)
			}
			if c.fault == BreakLose && (r.Mail.Lost == 0 || len(r.Problems) == 0) {
				t.Errorf("nothing is lost: %+v", r)
			}
			if text, err := r.Text(); err != nil {
				t.Error(err)
			} else if again, err := rehearse.ParseRecord(text); err != nil || again.ID != r.ID {
				t.Errorf("%v", err)
			}
		})
	}
	if _, err := Rehearse(t.Context(), RehearseOptions{Agency: "health", Out: io.Discard, Log: io.Discard}); err == nil {
		t.Error("an agency without mailboxes was rehearsed")
	}
}
