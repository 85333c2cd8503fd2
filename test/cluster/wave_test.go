package cluster

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"mailcutover/admin"
)

// A wave of three agencies under load. The node that carries the first one out is killed in the
// middle; the canary of the second one fails, which stops the plan before the third one
// starts, and stays so until a releaser lifts that. Nothing starts twice, and the oracles find
// nothing that a switch by hand wouldn't leave.
func TestAWaveWithAKilledNodeAndAStop(t *testing.T) {
	t.Parallel()
	c := start(t, Options{Nodes: 2, More: `plan: {backup_age: 24h, rehearsal_age: 0s, verify_age: 0s}
operations: {mover: [cutover], canary_wait: 1s, canaries: [{agency: roads, address: nobody@roads.example}]}
`})
	ctx := t.Context()
	agencies := []string{"health", "roads", "parks"}
	for _, id := range agencies { // what the wave would do itself; the oracles have to know it
		if err := c.Arm(ctx, c.Nodes[0], id); err != nil {
			t.Fatal(err)
		}
	}
	l := c.load(ctx)
	l.more(t, 60)
	api := c.Nodes[0].API
	asked := time.Now()
	if _, err := api.ProposeWave(ctx, admin.NewWave{Name: "one", Reason: "test", Definition: admin.WaveDefinition{
		Agencies: agencies, Owner: "team", Zone: "Europe/Berlin",
		Windows: []admin.WaveWindow{{Days: []string{"mon", "tue", "wed", "thu", "fri", "sat", "sun", "holiday"}, From: "00:00", To: "24:00"}},
	}}); err != nil {
		t.Fatal(err)
	}
	if _, err := api.StartWave(ctx, "one"); err != nil {
		t.Fatal(err)
	}
	if w := c.wave(t, "one"); w.Next != "health" || !slices.ContainsFunc(w.Obstacles, func(o admin.WaveObstacle) bool { return o.Name == "backup" }) {
		t.Errorf("nobody has said that there is a backup: %+v", w)
	}
	if _, err := api.AnswerWave(ctx, "one", "backup", true, "seen"); err != nil {
		t.Fatal(err)
	}
	first := c.underWay(t, 0)
	killed := c.Nodes[slices.IndexFunc(c.Nodes, func(n *Node) bool { return n.Name == first.Node })]
	restart := c.Crash(t, killed)
	c.ends(t, &first, asked)
	restart()

	// The second one moves, and its canary stops the plan.
	second := c.underWay(t, 1)
	c.ends(t, &second, asked)
	var stop *admin.PlanStop
	Until(t, "the stop", func() bool {
		all, err := c.Nodes[0].API.Waves(ctx)
		if err == nil {
			stop = all.Stop
		}
		return stop != nil
	})
	if f := stop.Findings[0]; f.Cause != "canary" || f.Agency != "roads" {
		t.Errorf("%+v", stop)
	}
	l.more(t, 100)
	if next := c.wave(t, "one").Agencies[2]; next.State != "waiting" || next.Attempt != 0 {
		t.Errorf("the third agency is started while the plan is stopped: %+v", next)
	}
	if err := c.Arm(ctx, c.Nodes[1], "parks"); err != nil {
		t.Fatal(err)
	}
	a, err := c.Nodes[1].API.Agency(ctx, "parks")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Nodes[1].API.Start(ctx, "cutover", "parks", a.Epoch, "past the stop"); err == nil || !strings.Contains(err.Error(), "the plan is stopped") {
		t.Errorf("a cutover by hand while the plan is stopped: %v", err)
	}
	if _, err := c.Nodes[1].API.LiftPlan(ctx, 0, "the canary's address was wrong"); err != nil {
		t.Fatal(err)
	}
	third := c.underWay(t, 2)
	c.ends(t, &third, asked)
	Until(t, "the wave to be done", func() bool { return c.wave(t, "one").State == "done" })
	for _, a := range c.wave(t, "one").Agencies {
		if a.State != "done" || a.Attempt != 1 {
			t.Errorf("%+v", a)
		}
	}
	l.more(t, 60)
	c.end(t)
}

// wave asks any node that answers for a wave.
func (c *Cluster) wave(t *testing.T, name string) (w admin.Wave) {
	t.Helper()
	Until(t, "wave "+name, func() bool {
		for _, n := range c.Nodes {
			if c.Down(n.Index) {
				continue
			}
			short, cancel := context.WithTimeout(t.Context(), time.Second)
			var err error
			w, err = n.API.Wave(short, name)
			if cancel(); err == nil {
				return true
			}
		}
		return false
	})
	return w
}

// underWay waits until an agency of the wave is.
func (c *Cluster) underWay(t *testing.T, i int) (a admin.WaveAgency) {
	t.Helper()
	Until(t, "an agency to be under way", func() bool {
		a = c.wave(t, "one").Agencies[i]
		return a.State == "running"
	})
	return a
}

// ends says that the content of an agency's mailboxes is moved, waits for the operation, and
// records it for the oracles.
func (c *Cluster) ends(t *testing.T, a *admin.WaveAgency, asked time.Time) {
	t.Helper()
	Until(t, "somebody to take the word that the content is moved", func() bool {
		for _, n := range c.Nodes {
			if c.Down(n.Index) {
				continue
			}
			short, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			_, err := n.API.Tell(short, a.Operation, "mover", "moved")
			if cancel(); err == nil {
				return true
			}
		}
		return false
	})
	o := &Running{c: c, sw: Switch{Agency: a.Agency, Kind: "cutover", From: Exchange, To: OX, Asked: asked}, ID: a.Operation, agency: a.Agency}
	if op := o.finish(t); op.Step != "done" {
		t.Errorf("operation %s of agency %s: %+v", a.Operation, a.Agency, op)
	}
}
