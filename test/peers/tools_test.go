package peers

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// runTool runs a script of tools/ with variables in its environment and returns its
// output and exit status.
func runTool(t *testing.T, name string, env ...string) (string, int) {
	t.Helper()
	root, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(root, "tools", name))
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("run tools/%s: %v", name, err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// script writes a program for the test.
func script(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(name, []byte("#!/bin/sh\n"+text), 0o755); err != nil {
		t.Fatal(err)
	}
	return name
}

// simulated is what a go tool for tools/test does besides: it builds programs, and a simulation that
// finds nothing.
const simulated = `
case "$*" in
env* | run* | build*) exit 0 ;;
"test -c"*)
	while [ $# -gt 1 ]; do
		[ "$1" != -o ] || { printf '#!/bin/sh\n' >"$2" && chmod 755 "$2"; }
		shift
	done
	exit 0
	;;
esac
`

// The count of tests left out is the last line of "make test", and only then.
func TestLastLineCountsSkippedTests(t *testing.T) {
	for _, test := range []struct {
		name, program, skip string
		last                string
		status              int
	}{
		{"all peers", "echo ok", "", "ok", 0},
		{"all peers, failed", "echo FAIL; exit 1", "", "FAIL", 1},
		{"none skipped", "echo ok", "1", "PEERS SKIPPED: 0", 0},
		{"three skipped", `printf 'TestA\nTestB\n' >>"$PEERS_SKIPPED_FILE"; echo TestC >>"$PEERS_SKIPPED_FILE"; echo ok`, "1", "PEERS SKIPPED: 3", 0},
		{"skipped and failed", `echo TestA >>"$PEERS_SKIPPED_FILE"; echo FAIL; exit 1`, "1", "PEERS SKIPPED: 1", 1},
		{"misspelt", "echo ok", "true", "tools/test: SKIP_PEERS=true: must be 1 or not set", 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			out, status := runTool(t, "test", "GO="+script(t, simulated+test.program), "SKIP_PEERS="+test.skip)
			lines := strings.Split(strings.TrimSpace(out), "\n")
			if got := lines[len(lines)-1]; got != test.last || status != test.status {
				t.Errorf("last line %q, exit status %d; want %q, %d", got, status, test.last, test.status)
			}
		})
	}
}

func TestFuzzRunsEachTarget(t *testing.T) {
	cache := t.TempDir()
	goTool := script(t, `
case "$*" in
"env GOCACHE") echo `+cache+` ;;
"list -m") echo mailcutover ;;
list*) echo one; echo two ;;
*-list*one) echo FuzzA; echo FuzzB; echo "ok one 0.1s" ;;
*-list*two) echo "ok two 0.1s" ;;
*FuzzA*) echo "ran $*"; exit 1 ;;
*) echo "ran $*" ;;
esac
`)
	out, status := runTool(t, "fuzz", "GO="+goTool, "FUZZTIME=7s")
	if status != 1 || !strings.Contains(out, "fuzz: 2 targets") ||
		!strings.Contains(out, "ran test -run ^$ -fuzz ^FuzzA$ -fuzztime 7s -fuzzminimizetime 2s one") || !strings.Contains(out, "-fuzz ^FuzzB$") {
		t.Errorf("exit status %d, output:\n%s", status, out)
	}
	if kept, err := filepath.Glob(filepath.Join(cache, "fuzz", "mailcutover", "*", "Fuzz*", "*")); err != nil || len(kept) == 0 {
		t.Errorf("it begins with %d inputs that were kept, %v", len(kept), err)
	}
}

// The list is read by a shell script and by Need, and by people.
func TestListIsWellFormed(t *testing.T) {
	for i, line := range strings.Split(string(list), "\n") {
		if line != "" && !strings.HasPrefix(line, "#") && len(strings.Fields(line)) != 3 {
			t.Errorf("peers.txt:%d: %q is not peer, program, package", i+1, line)
		}
	}
}
