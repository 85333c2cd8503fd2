//go:build !deterministic

package sim

// begin is for a Go runtime that is as ever: runs of one seed differ a little.
func begin(uint64) {}
