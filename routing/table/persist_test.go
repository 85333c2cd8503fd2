package table

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// script confirms as it says, one word after the other; then it is well.
type script struct {
	says  []error
	calls int
}

func (s *script) Confirm(context.Context) error {
	if s.calls++; s.calls > len(s.says) {
		return nil
	}
	return s.says[s.calls-1]
}

func TestConfirm(t *testing.T) {
	away := fmt.Errorf("dial: %w", ErrUnavailable)
	back := fmt.Errorf("confirm: %w", ErrRegressed)
	other := errors.New("another")
	for name, c := range map[string]struct {
		says  []error
		calls int
		took  time.Duration
		want  error
	}{
		"at once":                {nil, 1, 0, nil},
		"away for a while":       {[]error{away, away, away}, 4, 350 * time.Millisecond, nil},
		"away for long":          {[]error{away, away, away, away, away, away, away}, 8, 3550 * time.Millisecond, nil},
		"of another change":      {[]error{back}, 2, 0, nil},
		"of this one":            {[]error{back, back}, 2, 0, ErrRegressed},
		"away, then gone":        {[]error{away, back, away, back}, 4, 100 * time.Millisecond, ErrRegressed},
		"what nothing helps for": {[]error{other, nil}, 1, 0, other},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, began := &script{says: c.says}, time.Now()
				err := Confirm(t.Context(), s)
				if took := time.Since(began); !errors.Is(err, c.want) || s.calls != c.calls || took != c.took {
					t.Errorf("%v after %d calls and %s, want %v after %d and %s", err, s.calls, took, c.want, c.calls, c.took)
				}
			})
		})
	}
}

// The context's end is the end of it; what was said last is returned.
func TestPersistEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		calls, began := 0, time.Now()
		err := Persist(ctx, func() error {
			calls++
			return fmt.Errorf("call %d: %w", calls, ErrUnavailable)
		})
		if want := fmt.Sprintf("call %d: ", calls); !errors.Is(err, ErrUnavailable) || err.Error()[:len(want)] != want || time.Since(began) != 10*time.Second {
			t.Errorf("%v after %s", err, time.Since(began))
		}
		calls = 0
		if err := Persist(ctx, func() error { calls++; return ErrUnavailable }); calls != 1 || !errors.Is(err, ErrUnavailable) {
			t.Errorf("%v after %d calls with a context that has ended", err, calls)
		}
	})
}
