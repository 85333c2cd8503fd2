package retained

import (
	"runtime"
	"sync/atomic"
	"time"
)

const (
	// compressPart is the part of the processors' time that compressing may take.
	compressPart = 100 // 1/compressPart

	// compressBurst is how much of that time is saved up at most.
	compressBurst = 20 * time.Millisecond
)

// allowance is processor time that may be spent. Its methods are safe for concurrent use.
type allowance struct {
	began time.Time
	each  time.Duration // of the clock for one of allowance
	spent atomic.Int64  // nanoseconds, counted from what was there at the beginning
}

// newAllowance returns the one for compressing, with all that can be saved up.
func newAllowance() *allowance {
	return &allowance{began: time.Now(), each: time.Duration(max(1, compressPart/runtime.GOMAXPROCS(0)))}
}

// has reports whether anything is left. What was not spent within the burst is lost.
func (a *allowance) has() bool {
	earned := int64(time.Since(a.began)/a.each + compressBurst)
	spent := a.spent.Load()
	if least := earned - int64(compressBurst); spent < least {
		a.spent.CompareAndSwap(spent, least) // if others spend just now, another time
		return true
	}
	return spent < earned
}

// spend takes what was used, which may be more than there was.
func (a *allowance) spend(d time.Duration) { a.spent.Add(int64(d)) }
