package sim

import (
	"flag"
	"io"
	"os"
	"strings"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
)

var onlyScene = flag.String("sim.scene", "", "scenes whose name has this in it")

// TestScenes plays what is written down: where a rule is left out, the oracle has to see it
// (package mutants).
func TestScenes(t *testing.T) {
	quietly(t)
	var log io.Writer
	if *trace {
		log = os.Stderr
	}
	for i := range scenes {
		sc := &scenes[i]
		if !strings.Contains(sc.name, *onlyScene) {
			continue
		}
		t.Run(sc.name, func(t *testing.T) {
			const seed = 1
			cryptotest.SetGlobalRandom(t, seed)
			begin(seed)
			var r *Run
			synctest.Test(t, func(t *testing.T) {
				r = newScene(sc, seed, log)
				r.wire = *wire
				if err := r.execute(); err != nil {
					t.Error(err)
				}
			})
			for _, bad := range r.bad {
				t.Errorf("%s", bad)
			}
		})
	}
}
