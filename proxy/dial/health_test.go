package dial

import (
	"errors"
	"testing"
	"time"
)

func TestBackoffGrowsWithJitter(t *testing.T) {
	b := Backoff{First: time.Second, Max: 30 * time.Second}
	now := time.Now()
	for _, c := range []struct {
		failures int
		about    time.Duration
	}{{0, time.Second}, {1, 2 * time.Second}, {3, 8 * time.Second}, {5, 30 * time.Second}, {1000, 30 * time.Second}} {
		seen := make(map[time.Duration]bool)
		for range 100 {
			h := &Health{failures: c.failures}
			h.Fail(errors.New("x"), now, b)
			retryAt := h.retryAt
			if h.Fail(errors.New("y"), retryAt.Add(-1), b) || h.retryAt != retryAt || h.failures != c.failures+1 {
				t.Errorf("a failure within the back-off made it longer: %+v", h)
			}
			d := h.retryAt.Sub(now)
			seen[d] = true
			if d < c.about*3/4 || d > c.about*5/4 {
				t.Errorf("after %d failures: %s", c.failures, d)
			}
		}
		if len(seen) < 50 {
			t.Errorf("after %d failures: only %d different delays", c.failures, len(seen))
		}
	}
}
