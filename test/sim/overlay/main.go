// Command overlay writes a Go overlay (see "go help build", -overlay) with which a
// simulation is the same each time.
//
// What differs from run to run in a Go program with one processor is what the runtime
// draws: the order of cases in a select, of maps, of timers that end at one moment, of
// contexts that are cancelled together, math/rand; and when it takes the processor from a goroutine, by the wall clock. In the
// overlay the runtime draws for goroutines of a synctest bubble from a seed, and takes
// the processor from nobody. Nothing else is changed. The overlay fits one release of Go:
// if the runtime's text isn't what is expected, this command says so and writes nothing.
//
// Usage: go run ./test/sim/overlay DIR; it prints the path of the overlay's file.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// edit replaces a text that stands exactly once in a file of the standard library.
type edit struct{ file, old, new string }

const seeded = `
// What goroutines in a bubble draw, once simSeed was called. Each kind of draw has a
// stream of its own, so that what happens once in a process, such as filling a cache,
// doesn't shift the others.
var simState, simTies, simFixed uint64

//go:linkname simSeed
func simSeed(seed uint64) { simState, simTies, simFixed = seed, seed^0x9e3779b97f4a7c15, seed|1 }

//go:linkname simRand
func simRand() uint64 {
	if simFixed == 0 || getg().bubble == nil {
		return rand()
	}
	return simNext(&simState)
}

// simTie is for what is otherwise cheaprand's: the order of a select's cases, and of
// timers that end at one moment.
func simTie() uint32 {
	if simFixed == 0 || getg().bubble == nil {
		return cheaprand()
	}
	return uint32(simNext(&simTies) >> 32)
}

// simNext is splitmix64.
func simNext(state *uint64) uint64 {
	*state += 0x9e3779b97f4a7c15
	z := *state
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb
	return z ^ (z >> 31)
}

// rand32 is`

var edits = []edit{
	// The keys of hashes are drawn once, at the start.
	{"runtime/rand.go", "	globalRand.state.Init(*seed)\n	clear(seed[:])\n\n	if startupRand",
		"	for i := range seed {\n		seed[i] = byte(i + 1)\n	}\n	globalRand.state.Init(*seed)\n	clear(seed[:])\n\n	if startupRand"},
	// The order of maps is the same throughout a run.
	{"runtime/rand.go", "	mp := getg().m\n	c := &mp.chacha8\n",
		"	if simFixed != 0 && getg().bubble != nil {\n		return simFixed\n	}\n	mp := getg().m\n	c := &mp.chacha8\n"},
	{"runtime/rand.go", "\n// rand32 is", seeded},
	{"runtime/select.go", "j := cheaprandn(uint32(norder + 1))", "j := uint32((uint64(simTie()) * uint64(norder+1)) >> 32)"},
	{"runtime/time.go", "t.rand = cheaprand()", "t.rand = simTie()"},
	{"runtime/proc.go", "const forcePreemptNS = 10 * 1000 * 1000 // 10ms", "const forcePreemptNS = 1 << 60 // never"},
	// Contexts are cancelled in the order in which they were made: where their map has more
	// than a few, its order depends on where they lie in memory.
	{"context/context.go", "	\"internal/reflectlite\"\n", "	\"internal/reflectlite\"\n	\"slices\"\n"},
	{"context/context.go", "	children map[canceler]struct{} //", "	children map[canceler]uint64 //"},
	{"context/context.go", "p.children = make(map[canceler]struct{})", "p.children = make(map[canceler]uint64)"},
	{"context/context.go", "p.children[child] = struct{}{}", "p.children[child] = simSerial.Add(1)"},
	{"context/context.go", "	for child := range c.children {", "	ordered := make([]canceler, 0, len(c.children))\n	for child := range c.children {\n		ordered = append(ordered, child)\n	}\n	slices.SortFunc(ordered, func(a, b canceler) int { return int(c.children[a]) - int(c.children[b]) })\n	for _, child := range ordered {"},
	{"context/context.go", "// removeChild removes a context from its parent.", "var simSerial atomic.Uint64\n\n// removeChild removes a context from its parent."},
	{"math/rand/v2/rand.go", "//go:linkname runtime_rand runtime.rand\n", "//go:linkname runtime_rand runtime.simRand\n"},
	{"math/rand/rand.go", "//go:linkname runtime_rand runtime.rand\n", "//go:linkname runtime_rand runtime.simRand\n"},
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: go run ./test/sim/overlay DIR")
		os.Exit(2)
	}
	path, err := write(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "overlay:", err)
		os.Exit(1)
	}
	fmt.Println(path)
}

// write writes the overlay's files into dir.
func write(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOROOT: %w", err)
	}
	source := filepath.Join(strings.TrimSpace(string(root)), "src")
	texts := map[string]string{}
	for _, e := range edits {
		text, read := texts[e.file]
		if !read {
			b, err := os.ReadFile(filepath.Join(source, e.file))
			if err != nil {
				return "", err
			}
			text = string(b)
		}
		if n := strings.Count(text, e.old); n != 1 {
			return "", fmt.Errorf("%s has %q %d times, want once: this Go is not the one that the overlay was made for", filepath.Join(source, e.file), e.old, n)
		}
		texts[e.file] = strings.Replace(text, e.old, e.new, 1)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	replace := map[string]string{}
	for name, text := range texts {
		to := filepath.Join(dir, strings.ReplaceAll(name, "/", "_"))
		if err := os.WriteFile(to, []byte(text), 0o644); err != nil {
			return "", err
		}
		replace[filepath.Join(source, name)] = to
	}
	b, err := json.MarshalIndent(map[string]any{"Replace": replace}, "", "  ")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "overlay.json")
	return path, os.WriteFile(path, b, 0o644)
}
