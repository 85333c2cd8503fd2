package checkpoint

import (
	"errors"
	"strings"
	"testing"
)

// A line has one reading: what is read is written as it stood.
func FuzzParse(f *testing.F) {
	hash := strings.Repeat("0", 64)
	f.Add("mcac1 7:" + hash + " 2026-01-02T03:04:05Z 1 " + hash + " 0011223344556677 - AAAA")
	f.Add("mcac1  -   -")
	f.Fuzz(func(t *testing.T, line string) {
		c, err := Parse(line)
		switch {
		case err != nil && !errors.Is(err, ErrBadCheckpoint):
			t.Fatalf("%q: %v", line, err)
		case err == nil && c.line != line:
			t.Fatalf("%q is written as %q", line, c.line)
		}
	})
}
