//go:build !deterministic

package sim

func begin(uint64) {}
