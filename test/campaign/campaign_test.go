package campaign

import (
	"context"
	"flag"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"mailcutover/test/peers"
)

var (
	lasting = flag.Duration("campaign.for", 0, "how long TestCampaign goes on; 0: it does nothing, as in make test")
	world   = flag.Bool("campaign.world", false, "this process has network, mount and process namespaces of its own, as tools/campaign makes them")
	state   = flag.String("campaign.state", "", "file with the counts of earlier campaigns, which is gone on with")
	seed    = flag.Uint64("campaign.seed", 0, "of one round alone; 0: those that come next")
	built   = flag.String("campaign.program", "", "file of mailcutover; empty: it is built")
	pace    = flag.Duration("campaign.pace", time.Second, "between two messages of a sender")
	storm   = flag.Duration("campaign.storm", time.Minute, "how long each round's storm lasts")
)

// programDir is where the program is while the tests run.
var programDir string

var program = sync.OnceValues(func() (string, error) {
	if *built != "" {
		return *built, nil
	}
	return Build(context.Background(), programDir)
})

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "mc-campaign-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		programDir = dir
		return m.Run()
	}())
}

// TestCampaign goes round until its time is over, and stops at the first round in which something
// must not be.
func TestCampaign(t *testing.T) {
	if *lasting == 0 {
		return
	}
	peers.Need(t, "redis", "postfix")
	bin, err := program()
	if err != nil {
		t.Fatal(err)
	}
	all, err := ReadTally(*state)
	if err != nil {
		t.Fatal(err)
	}
	var w *World
	if *world {
		w = NewWorld(t)
	} else {
		t.Log("WITHOUT NAMESPACES: no cut networks, no disks, one Redis; tools/campaign says what is missing")
	}
	for began := time.Now(); time.Since(began) < *lasting; {
		r := Round{Program: bin, World: w, Relay: true, Seed: all.Seed(), Lasts: *storm, Pace: *pace}
		if *seed != 0 {
			r.Seed = *seed
		}
		fmt.Printf("campaign: seed %d\n", r.Seed)
		start, counts := time.Now(), &Tally{kept: kept{Counts: make(map[string]int)}}
		if !t.Run(fmt.Sprintf("seed-%d", r.Seed), func(t *testing.T) { judged(t, &r, counts) }) {
			t.Fatalf("seed %d: go test ./test/campaign -run TestCampaign -campaign.seed %[1]d draws the same faults; this round had\n%s", r.Seed, counts)
		}
		if err := all.Judged(counts, time.Since(start)); err != nil {
			t.Fatal(err)
		}
		fmt.Printf("campaign: %s", all)
		if *seed != 0 {
			return
		}
	}
}

// judged runs a round.
func judged(t *testing.T, r *Round, counts *Tally) {
	f := r.Run(t, counts)
	f.count(counts)
	t.Logf("%s", f.Verdict)
	for _, bad := range f.Bad {
		t.Error(bad)
	}
}
