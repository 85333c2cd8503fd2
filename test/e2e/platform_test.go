package e2e

import (
	"testing"

	"mailcutover/internal/platformtest"
)

// startPlatform starts a platform that records what is on its wire. It ends with the test.
func startPlatform(t testing.TB, o platformtest.Options) *platformtest.Platform {
	t.Helper()
	p, err := platformtest.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}
