package peers

import (
	"cmp"
	"os"
	"os/exec"
	"slices"
)

// Host is where a peer runs, if not where the test does: in a network namespace of its own, say.
// The zero value is this host, at 127.0.0.1.
type Host struct {
	IP   string   // where the peer listens; empty: 127.0.0.1
	Into []string // program and arguments that run the command line behind them there; nil: none
	Env  []string // variables besides those of the test
}

// Address is the IP address.
func (h Host) Address() string { return cmp.Or(h.IP, "127.0.0.1") }

// unprotected is what redis-server and Sentinel need where they listen elsewhere without a password.
func (h Host) unprotected() []string {
	if h.IP == "" {
		return nil
	}
	return []string{"protected-mode no"}
}

// Command returns a command line that runs there.
func (h Host) Command(name string, args ...string) *exec.Cmd {
	line := append(slices.Clone(h.Into), append([]string{name}, args...)...)
	cmd := exec.Command(line[0], line[1:]...)
	if h.Env != nil {
		cmd.Env = append(os.Environ(), h.Env...)
	}
	return cmd
}
