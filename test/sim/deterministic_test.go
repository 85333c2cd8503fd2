//go:build deterministic

package sim

import (
	"bytes"
	"testing"
	_ "unsafe" // for linkname

	_ "github.com/google/uuid"
)

const defaultSeeds = 100

// seedRuntime is in the overlay's runtime only (package overlay): without it this doesn't
// link.
//
//go:linkname seedRuntime runtime.simSeed
func seedRuntime(seed uint64)

// lastTime is how package uuid keeps its version 7 from going back; each run's clock
// begins anew.
//
//go:linkname lastTime github.com/google/uuid.lastV7time
var lastTime int64

func begin(seed uint64) {
	seedRuntime(seed | 1<<63)
	lastTime = 0
}

// TestSameSeedSameRun runs seeds twice and compares all that happened.
func TestSameSeedSameRun(t *testing.T) {
	quietly(t)
	for seed := uint64(1); seed <= 25; seed++ {
		var first, second bytes.Buffer
		a, b := simulate(t, seed, &first), simulate(t, seed, &second)
		if a.digest.Sum64() != b.digest.Sum64() || a.count != b.count {
			x, y := first.Bytes(), second.Bytes()
			for i := 0; i < len(x) && i < len(y); i++ {
				if x[i] != y[i] {
					t.Fatalf("seed %d: two runs part after\n%s\nfirst:\n%s\nsecond:\n%s", seed, x[max(0, i-1500):i], x[i:min(len(x), i+600)], y[i:min(len(y), i+600)])
				}
			}
			t.Fatalf("seed %d: digests %x and %x, %d and %d events", seed, a.digest.Sum64(), b.digest.Sum64(), a.count, b.count)
		}
	}
}
