// Command mutants leaves out one rule of the switch after the other and looks whether the
// simulation notices (docs/testing.md). It changes no file: each mutant is an overlay of
// the Go build.
//
// Usage: go run ./test/sim/mutants [-seeds N] [-only TEXT]. It prints a table and fails if
// a mutant survives that isn't expected to, or if its text is no longer found.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"time"
)

var (
	seeds = flag.Int("seeds", 1500, "seeds that each mutant gets at most")
	only  = flag.String("only", "", "mutants whose name has this in it")
)

func main() {
	flag.Parse()
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

// result is what became of a mutant.
type result struct {
	killed bool
	seed   string
	by     string
	took   time.Duration
	err    error
}

func run() error {
	dir, err := os.MkdirTemp("", "mutants")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	cache, err := exec.Command("go", "env", "GOCACHE").Output()
	if err != nil {
		return fmt.Errorf("go env GOCACHE: %w", err)
	}
	// The same place as tools/sim, so that the build cache knows the standard library again.
	out, err := exec.Command("go", "run", "./test/sim/overlay", filepath.Join(strings.TrimSpace(string(cache)), "mailcutover-overlay")).Output()
	if err != nil {
		return fmt.Errorf("overlay of the runtime: %w", err)
	}
	base, err := os.ReadFile(strings.TrimSpace(string(out)))
	if err != nil {
		return err
	}
	var list []mutant
	for _, m := range mutants {
		if strings.Contains(m.name, *only) {
			list = append(list, m)
		}
	}
	results := make([]result, len(list))
	next := make(chan int)
	var workers sync.WaitGroup
	for range max(1, runtime.NumCPU()) {
		workers.Go(func() {
			for i := range next {
				results[i] = try(&list[i], filepath.Join(dir, fmt.Sprint(i)), base)
				print(&list[i], &results[i])
			}
		})
	}
	for i := range list {
		next <- i
	}
	close(next)
	workers.Wait()
	bad, killed := 0, 0
	for i := range list {
		switch r := &results[i]; {
		case r.err != nil, !r.killed && list[i].survives == "":
			bad++
		case r.killed:
			killed++
		}
	}
	fmt.Printf("%d mutants, %d noticed\n", len(list), killed)
	if bad > 0 {
		return fmt.Errorf("%d mutants were not noticed, or could not be tried", bad)
	}
	return nil
}

func print(m *mutant, r *result) {
	switch {
	case r.err != nil:
		fmt.Printf("%-60s  ERROR %v\n", m.name, r.err)
	case r.killed:
		fmt.Printf("%-60s  seed %-6s %-5s %4.0f s\n", m.name, r.seed, r.by, r.took.Seconds())
	default:
		fmt.Printf("%-60s  NOT NOTICED in %d seeds, %.0f s: %s\n", m.name, *seeds, r.took.Seconds(), m.survives)
	}
}

var (
	failed  = regexp.MustCompile(`seed (\d+): [0-9.]+ s: (\w+):`)
	broken  = regexp.MustCompile(`seed (\d+): (fill|not all)`)
	running = regexp.MustCompile(`=== RUN +TestSeeds/seed_(\d+)`)
)

// try builds the simulation with a mutant and runs it until it fails.
func try(m *mutant, dir string, base []byte) (r result) {
	began := time.Now()
	defer func() { r.took = time.Since(began) }()
	var o struct{ Replace map[string]string }
	if r.err = json.Unmarshal(base, &o); r.err != nil {
		return r
	}
	if r.err = os.MkdirAll(dir, 0o755); r.err != nil {
		return r
	}
	for i, e := range m.edits {
		path, err := filepath.Abs(e.file)
		if err != nil {
			return result{err: err}
		}
		from := path
		if earlier, is := o.Replace[path]; is {
			from = earlier
		}
		b, err := os.ReadFile(from)
		if err != nil {
			return result{err: err}
		}
		if n := strings.Count(string(b), e.old); n != 1 {
			return result{err: fmt.Errorf("%s has %q %d times, want once", e.file, e.old, n)}
		}
		to := filepath.Join(dir, fmt.Sprintf("%d-%s", i, filepath.Base(e.file)))
		if err := os.WriteFile(to, []byte(strings.Replace(string(b), e.old, e.new, 1)), 0o644); err != nil {
			return result{err: err}
		}
		o.Replace[path] = to
	}
	b, err := json.Marshal(o)
	if err != nil {
		return result{err: err}
	}
	overlay, program := filepath.Join(dir, "overlay.json"), filepath.Join(dir, "sim.test")
	if err := os.WriteFile(overlay, b, 0o644); err != nil {
		return result{err: err}
	}
	if out, err := exec.Command("go", "test", "-c", "-vet=off", "-overlay", overlay, "-tags", "deterministic", "-o", program, "./test/sim").CombinedOutput(); err != nil {
		return result{err: fmt.Errorf("build: %s", out)}
	}
	// -test.v: a panic or an endless run is the fault of the seed that was begun last.
	cmd := exec.Command(program, "-test.v", "-test.run", "^TestSeeds$", "-test.failfast", "-sim.seeds", fmt.Sprint(*seeds), "-sim.stop", "-test.timeout", "15m")
	cmd.Dir = "test/sim"
	out, err := cmd.CombinedOutput()
	if err == nil {
		return r
	}
	r.killed = true
	if f := failed.FindSubmatch(out); f != nil {
		r.seed, r.by = string(f[1]), string(f[2])
	} else if f := broken.FindSubmatch(out); f != nil {
		r.seed, r.by = string(f[1]), "start"
	} else if all := running.FindAllSubmatch(out, -1); len(all) > 0 {
		r.seed, r.by = string(all[len(all)-1][1]), "panic"
	} else {
		r.err = fmt.Errorf("%.300s", out)
	}
	return r
}
