//go:build race

package nonblock

import (
	"os/exec"
	"testing"
)

// With the race detector the ordinary calls are tested; the others, which the product
// uses, are tested by a run without it.
func TestWithoutTheRaceDetector(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "go", "test", "-count=1", ".")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
