package peers

import (
	"context"
	"os/exec"
)

// Program is a program of this module, to be run as the peers are.
type Program struct {
	Name string
	// Make returns a new command for each start.
	Make func() *exec.Cmd
	// Ready returns nil once the program can be used. It is asked until then.
	Ready func(context.Context) error
	// Kept is how many bytes of its output are kept; 0: 256 KiB.
	Kept int
}

// StartProgram starts a program and waits until it is ready. It ends with the test.
func StartProgram(t TB, o Program) *Process {
	t.Helper()
	if o.Kept == 0 {
		o.Kept = logKept
	}
	p := &Process{name: o.Name, make: o.Make, asks: o.Ready, out: &tail{max: o.Kept}}
	p.own(t)
	return p
}

// TempDir makes a directory with a short name that others may read. It ends with the test.
func TempDir(t TB, name string) string { return tempDir(t, name) }
