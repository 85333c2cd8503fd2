package sim

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"

	"mailcutover/routing/redistable"
)

var (
	firstSeed  = flag.Uint64("sim.first", 1, "first seed")
	seeds      = flag.Uint64("sim.seeds", defaultSeeds, "number of seeds")
	procs      = flag.Int("sim.procs", 1, "processes that share the seeds")
	countsFile = flag.String("sim.counts", "", "file for the counts")
	stop       = flag.Bool("sim.stop", false, "stop at the first seed that fails")
	wire       = flag.Bool("sim.wire", false, "write also what hosts send")
	trace      = flag.Bool("sim.trace", false, "write what happens, for the first seed only")
)

// simulate runs one seed and returns it.
func simulate(t *testing.T, seed uint64, log io.Writer) (r *Run) {
	t.Helper()
	runtime.GC() // so that no timer in a pool is from another run
	runtime.GC()
	t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
		cryptotest.SetGlobalRandom(t, seed)
		begin(seed)
		synctest.Test(t, func(t *testing.T) {
			r = newRun(seed, log)
			r.wire = *wire
			if err := r.execute(); err != nil {
				t.Error(err)
			}
		})
		for _, bad := range r.bad {
			t.Errorf("seed %d: %s", seed, bad)
		}
	})
	return r
}

func TestMain(m *testing.M) {
	redistable.LogClient(slog.New(slog.DiscardHandler))
	os.Exit(m.Run())
}

// quietly leaves the runtime nothing to decide: one processor, and no garbage collection
// in a run.
func quietly(t *testing.T) {
	procs, percent := runtime.GOMAXPROCS(1), debug.SetGCPercent(-1)
	t.Cleanup(func() {
		runtime.GOMAXPROCS(procs)
		debug.SetGCPercent(percent)
	})
}

func TestSeeds(t *testing.T) {
	if *procs > 1 {
		sweep(t)
		return
	}
	quietly(t)
	var log io.Writer
	if *trace {
		log = os.Stderr
	}
	counts := map[string]int{}
	began := time.Now()
	n := uint64(0)
	for ; n < *seeds && !(*stop && t.Failed()); n++ {
		r := simulate(t, *firstSeed+n, log)
		for kind, c := range r.Faults {
			counts[kind] += c
		}
		for what, c := range r.done {
			counts["done: "+what] += c
		}
		counts["seeds"]++
		counts["events"] += r.count
		counts["deliveries"] += r.oracle.accepts
		counts["logins, and what they sent"] += r.oracle.sessions
		counts["second copies, all named"] += r.oracle.twice
		if *trace {
			fmt.Fprintf(log, "digest %016x\n", r.digest.Sum64())
			return
		}
	}
	t.Logf("%d seeds in %s", n, time.Since(began).Round(time.Millisecond))
	if *countsFile != "" {
		b, err := json.Marshal(counts)
		if err == nil {
			err = os.WriteFile(*countsFile, b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	report(t, counts)
}

// report prints how often each thing happened. Over enough seeds every kind of fault has.
func report(t *testing.T, counts map[string]int) {
	for _, kind := range kinds() {
		if counts[kind] == 0 && counts["seeds"] >= 1000 {
			t.Errorf("no seed had the fault %q", kind)
		}
	}
	for _, what := range sorted(counts) {
		t.Logf("%9d  %s", counts[what], what)
	}
}

// sweep shares the seeds among processes, one for each processor: a run has one processor
// to itself.
func sweep(t *testing.T) {
	began := time.Now()
	dir := t.TempDir()
	share := (*seeds + uint64(*procs) - 1) / uint64(*procs)
	var parts sync.WaitGroup
	for i := range uint64(*procs) {
		parts.Go(func() {
			first, n := *firstSeed+i*share, min(share, *seeds-min(*seeds, i*share))
			cmd := exec.Command(os.Args[0], "-test.run=^TestSeeds$", "-test.timeout=0", "-test.v",
				fmt.Sprintf("-sim.first=%d", first), fmt.Sprintf("-sim.seeds=%d", n), fmt.Sprintf("-sim.stop=%t", *stop),
				"-sim.counts="+filepath.Join(dir, fmt.Sprint(i)))
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("seeds from %d: %v\n%s", first, err, worst(out))
			}
		})
	}
	parts.Wait()
	counts := map[string]int{}
	for i := range *procs {
		b, err := os.ReadFile(filepath.Join(dir, fmt.Sprint(i)))
		if err != nil {
			continue // it failed, and said why
		}
		var part map[string]int
		if err := json.Unmarshal(b, &part); err != nil {
			t.Fatal(err)
		}
		for what, c := range part {
			counts[what] += c
		}
	}
	t.Logf("%d seeds in %s, %d processes", counts["seeds"], time.Since(began).Round(time.Second), *procs)
	report(t, counts)
}

// worst leaves of a test's output what failed, and the end.
func worst(out []byte) string {
	var kept []string
	lines := strings.Split(string(out), "\n")
	for i, line := range lines {
		if i >= len(lines)-40 || strings.Contains(line, ": seed ") || strings.HasPrefix(line, "panic") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "\n")
}

// TestFound runs the seeds that once found something.
func TestFound(t *testing.T) {
	quietly(t)
	b, err := os.ReadFile("testdata/found.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		number, _, _ := strings.Cut(line, " ")
		if number == "#" || strings.TrimSpace(line) == "" {
			continue
		}
		seed, err := strconv.ParseUint(number, 10, 64)
		if err != nil {
			t.Fatalf("testdata/found.txt: %q: %v", line, err)
		}
		simulate(t, seed, nil)
	}
}
