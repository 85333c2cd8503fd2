package queue

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"
)

// Retry says when waiting mail is tried again, and how held mail that its platform puts
// off pauses. A zero value means the default.
type Retry struct {
	First  time.Duration // after the first attempt; default 1 min
	Growth float64       // of each further delay, over 1; default 1.5
	Max    time.Duration // the longest delay; default 1 h
	Jitter float64       // part of each delay that is added or taken away by chance, 0 to 1; default 0.2; negative: none

	// Life is how old waiting mail is when it fails. It needs at least [minAttempts] for
	// it, so that mail that was held for long isn't given up at once. Default 5 days
	// (RFC 5321 section 4.5.4.1 asks for 4 to 5).
	Life time.Duration

	// Pause is how long a mailbox with held mail is left alone after its platform put it
	// off for the first time; it grows by Growth up to PauseMax. Defaults 2 s and 1 min.
	Pause, PauseMax time.Duration

	// Patience is how long such a mailbox keeps its order before the first of its mail
	// becomes waiting mail. Default 5 min.
	Patience time.Duration

	// Down is how long a platform that can't be reached is left alone at first; it grows
	// by Growth up to DownMax. Defaults 1 s and 30 s.
	Down, DownMax time.Duration
}

// minAttempts is how often mail is tried, or found its platform unreachable, before its
// age makes it fail: with the default delays some five hours.
const minAttempts = 12

func (r Retry) withDefaults() Retry {
	for _, d := range []struct {
		set *time.Duration
		to  time.Duration
	}{
		{&r.First, time.Minute}, {&r.Max, time.Hour}, {&r.Life, 5 * 24 * time.Hour},
		{&r.Pause, 2 * time.Second}, {&r.PauseMax, time.Minute}, {&r.Patience, 5 * time.Minute},
		{&r.Down, time.Second}, {&r.DownMax, 30 * time.Second},
	} {
		if *d.set == 0 {
			*d.set = d.to
		}
	}
	if r.Growth == 0 {
		r.Growth = 1.5
	}
	if r.Jitter == 0 {
		r.Jitter = 0.2
	}
	r.Jitter = max(r.Jitter, 0)
	return r
}

func (r *Retry) validate() error {
	for _, d := range []time.Duration{r.First, r.Max, r.Life, r.Pause, r.PauseMax, r.Patience, r.Down, r.DownMax} {
		if d < 0 {
			return fmt.Errorf("retry: %s: want a positive duration, or 0 for the default", d)
		}
	}
	if !(r.Growth >= 1 && r.Growth <= 100) || !(r.Jitter <= 1) {
		return fmt.Errorf("retry: growth %v, jitter %v: want 1 to 100, and at most 1", r.Growth, r.Jitter)
	}
	return nil
}

// after returns the delay after so many attempts, one at least.
func (r *Retry) after(attempts int) time.Duration {
	return r.jittered(r.grown(r.First, r.Max, attempts))
}

// grown returns first grown n-1 times, at most limit.
func (r *Retry) grown(first, limit time.Duration, n int) time.Duration {
	d := float64(first) * math.Pow(r.Growth, float64(max(n, 1)-1))
	if d >= float64(limit) {
		return limit
	}
	return time.Duration(d)
}

func (r *Retry) jittered(d time.Duration) time.Duration {
	return d + time.Duration((2*rand.Float64()-1)*r.Jitter*float64(d))
}

// spread returns a moment within the first delay, by chance.
func (r *Retry) spread() time.Duration { return rand.N(r.First) }
