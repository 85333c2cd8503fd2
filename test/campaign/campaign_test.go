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
	pace    = flag.Duration("campaign.pace", 2*time.Second, "between two messages of a sender")
	people  = flag.Int("campaign.agencies", 8, "that people operate, 1 to 10")
	recalls = flag.Bool("campaign.recalls", false, "rounds with recalls alone; else each fifth seed has one")
	storm   = flag.Duration("campaign.storm", 3*time.Minute, "how long each round's storm lasts")
)

// programDir is where the program is while the tests run.
var programDir string

var program = sync.OnceValues(func() (string, error) {
	if *built != "" {
		return *built, nil
	}
	return Build(context.Background(), programDir)
})

func TestMain(m *testing.M) { os.Exit(peers.Main(m, &programDir, 0)) }

// TestCampaign goes round until its time is over, and stops at the first round in which something
// must not be.
func TestCampaign(t *testing.T) {
	if *lasting == 0 {
		return
	}
	peers.Need(t, "redis", "postfix", "dovecot")
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
		r := Round{Program: bin, World: w, Relay: true, Moving: *people, Seed: all.Seed(), Lasts: *storm, Pace: *pace}
		if *seed != 0 {
			r.Seed = *seed
		}
		round := func(t *testing.T, counts *Tally) { judged(t, &r, counts) }
		if *recalls || r.Seed%5 == 0 {
			back := RecallRound{Program: bin, World: w, Seed: r.Seed, Lasts: r.Lasts, Pace: r.Pace}
			round = func(t *testing.T, counts *Tally) { judgedBack(t, &back, counts) }
		}
		fmt.Printf("campaign: seed %d\n", r.Seed)
		start, counts := time.Now(), &Tally{kept: kept{Counts: make(map[string]int)}}
		if !t.Run(fmt.Sprintf("seed-%d", r.Seed), func(t *testing.T) { round(t, counts) }) {
			t.Fatalf("seed %d: go test ./test/campaign -run TestCampaign -campaign.seed %[1]d -campaign.recalls=%t draws the same faults; this round had\n%s", r.Seed, *recalls, counts)
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

// judgedBack runs a round with recalls.
func judgedBack(t *testing.T, r *RecallRound, counts *Tally) {
	f := r.Run(t, counts)
	f.count(counts)
	t.Logf("%s", f)
	for _, bad := range f.Bad {
		t.Error(bad)
	}
}
