//go:build !deterministic

package sim

// defaultSeeds are few: with the race detector a seed takes ten times as long. The campaign
// runs more of them, and tools/sim runs the many.
const defaultSeeds = 100

// begin is for a Go runtime that is as ever: runs of one seed differ a little.
func begin(uint64) {}
