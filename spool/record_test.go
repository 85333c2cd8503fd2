package spool

import (
	"testing"
	"time"
)

// A cause stands in a byte of its own, at the end: a journal from before there were any is
// read as one without.
func TestCauseIsOptional(t *testing.T) {
	for cause := range numCauses + 1 {
		o := outcome{id: [16]byte{1}, rcpt: 3}
		o.State, o.Result = StateWaiting, Result{Time: time.Unix(1, 0).UTC(), Attempts: 2}
		old := appendOutcome(nil, &o)
		o.Cause = cause
		b := appendOutcome(nil, &o)
		if more := len(b) - len(old); more > 1 || more > 0 != (cause != CauseUnknown) {
			t.Errorf("cause %d takes %d bytes", cause, more)
		}
		got, err := parseOutcome(b)
		if known := cause < numCauses; known != (err == nil) || known && got.Result != o.Result {
			t.Errorf("cause %d: %+v, %v, want %+v", cause, got.Result, err, o.Result)
		}
		if _, err := parseOutcome(append(b, 0)); err == nil {
			t.Errorf("cause %d: a byte too many is taken", cause)
		}
	}
}
