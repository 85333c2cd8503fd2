package sim

import (
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"runtime/debug"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"

	"mailcutover/routing/redistable"
)

var (
	firstSeed = flag.Uint64("sim.first", 1, "first seed")
	seeds     = flag.Uint64("sim.seeds", 100, "number of seeds")
	stop      = flag.Bool("sim.stop", false, "stop at the first seed that fails")
	wire      = flag.Bool("sim.wire", false, "write also what hosts send")
	trace     = flag.Bool("sim.trace", false, "write what happens, for the first seed only")
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
		for kind, c := range r.done {
			counts["switch "+kind] += c
		}
		counts["events"] += r.count
		counts["accepted"] += r.oracle.accepts
		counts["named twice"] += r.oracle.twice
		if *trace {
			fmt.Fprintf(log, "digest %016x\n", r.digest.Sum64())
			break
		}
	}
	t.Logf("%d seeds in %s, %.1f a second", n, time.Since(began).Round(time.Millisecond), float64(n)/time.Since(began).Seconds())
	for _, kind := range sorted(counts) {
		t.Logf("%8d  %s", counts[kind], kind)
	}
}
