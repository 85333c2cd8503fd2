package operation

import (
	"errors"
	"strings"
	"testing"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

// mapped stores a mapping in the table: a mailbox for each name.
func (c *cluster) mapped(id routing.AgencyID, names ...routing.Address) routing.Digest {
	c.t.Helper()
	var rows []routing.Row
	for _, name := range names {
		rows = append(rows, routing.Row{Mailbox: routing.MailboxID{byte(len(id)), name[0]}, Kind: routing.KindUser, Addresses: []routing.Address{name}})
	}
	m, err := routing.NewMapping(id, rows)
	if err == nil {
		err = c.real.PutMapping(c.t.Context(), m)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	return m.Digest()
}

// lists brings first mappings into force: health has anna and bert, police has carl.
func (c *cluster) lists() {
	c.t.Helper()
	n := c.nodes[0]
	health, police := n.agency("health"), n.agency("police")
	health.Mapping = c.mapped("health", "anna@gov.example", "bert@gov.example")
	police.Mapping = c.mapped("police", "carl@gov.example")
	c.store(table.Change{Mapped: n.replica.State().Position().Mapped, Agencies: []routing.Agency{health, police}, Domains: []routing.Domain{{Name: "gov.example"}}})
}

// A name moves from one agency to another: both change in one operation, at one revision,
// and one alone is refused.
func TestRemap(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, open func(t *testing.T) table.Table) {
		c := newCluster(t, open(t), 2, nil)
		a, b := c.nodes[0], c.nodes[1]
		c.lists()
		if _, err := a.run(Cutover, "police"); err != nil {
			t.Fatal(err)
		}
		next := map[routing.AgencyID]routing.Digest{
			"health": c.mapped("health", "anna@gov.example"),
			"police": c.mapped("police", "bert@gov.example", "carl@gov.example"),
		}
		request := func(m map[routing.AgencyID]routing.Digest) Request {
			return Request{Kind: Remap, Agency: "police", Who: "tester", Reason: "test", Mappings: m}
		}
		alone := map[routing.AgencyID]routing.Digest{"police": next["police"]}
		if op, err := a.Run(t.Context(), request(alone)); !errors.Is(err, routing.ErrConflict) || !strings.Contains(err.Error(), "bert@gov.example") || op.ID != "" {
			t.Errorf("police alone: %+v, %v", op, err)
		}
		if _, err := a.Run(t.Context(), request(map[routing.AgencyID]routing.Digest{"police": {1}})); !errors.Is(err, table.ErrNoMapping) {
			t.Errorf("a mapping that isn't there: %v", err)
		}
		closed := false
		req := request(next)
		req.Progress = func(op Operation) {
			if op.Step == StepDrain {
				h, _ := a.replica.State().Agency("health")
				p, _ := a.replica.State().Agency("police")
				closed = h.Phase == routing.PhaseRemapSource && p.Phase == routing.PhaseRemapTarget
			}
		}
		op, err := a.Run(t.Context(), req)
		if err != nil || op.Step != StepDone || !closed {
			t.Fatalf("%+v, %v, closed %v", op, err, closed)
		}
		b.stands("health", routing.PhaseSource)
		b.stands("police", routing.PhaseTarget)
		if h, p := b.agency("health"), b.agency("police"); h.Revision != p.Revision || h.Mapping != next["health"] || p.Mapping != next["police"] {
			t.Errorf("health %+v\npolice %+v", h, p)
		}
		if d := b.replica.State().DecideAddress("bert@gov.example", ""); d.Agency != "police" || d.Platform != "ox" {
			t.Errorf("bert is %+v", d)
		}
	})
}

// While a remap drains, an import takes the name: the commit is refused, and the remap
// ends where it began.
func TestRemapLosesItsName(t *testing.T) {
	t.Parallel()
	c := newCluster(t, openLocal(t), 1, nil)
	a := c.nodes[0]
	c.lists()
	next := c.mapped("police", "carl@gov.example", "dora@gov.example")
	pilot := a.agency("health-pilot")
	taken := false
	op, err := a.Run(t.Context(), Request{Kind: Remap, Agency: "police", Who: "tester", Reason: "test", Mappings: map[routing.AgencyID]routing.Digest{"police": next}, Progress: func(op Operation) {
		if op.Step == StepCommit && !taken {
			taken = true
			pilot.Mapping = c.mapped("health-pilot", "dora@gov.example")
			c.store(table.Change{Mapped: a.replica.State().Position().Mapped, Agencies: []routing.Agency{pilot}})
		}
	}})
	if !errors.Is(err, routing.ErrConflict) || op.Step != StepAborted {
		t.Errorf("%+v, %v", op, err)
	}
	a.stands("police", routing.PhaseSource)
	if got := a.agency("police").Mapping; got == next {
		t.Error("it is in force")
	}
}

// A remap is taken over like the others.
func TestRemapIsTakenOver(t *testing.T) {
	t.Parallel()
	c := newCluster(t, openLocal(t), 2, quick(nil))
	a, b := c.nodes[0], c.nodes[1]
	c.lists()
	next := c.mapped("police", "dora@gov.example")
	a.table.set(func(ch table.Change, do func() (routing.Position, error)) (routing.Position, error) {
		if strings.Contains(ch.ID, "/begin") {
			return do()
		}
		return routing.Position{}, errCrash
	})
	if _, err := a.Run(t.Context(), Request{Kind: Remap, Who: "tester", Reason: "test", Mappings: map[routing.AgencyID]routing.Digest{"police": next}}); err == nil {
		t.Fatal("no crash")
	}
	a.goSilent()
	b.tended("done", func() bool { return len(b.replica.State().Operations()) == 0 })
	b.stands("police", routing.PhaseSource)
	if got := b.agency("police").Mapping; got != next {
		t.Errorf("mapping %s, want %s", got, next)
	}
}

// What an import adds between the plan of a remap and its begin would be undone by the new
// mapping: it doesn't begin.
func TestRemapLosesNoImport(t *testing.T) {
	t.Parallel()
	c := newCluster(t, openLocal(t), 1, nil)
	a := c.nodes[0]
	c.lists()
	next := c.mapped("police", "dora@gov.example")
	added := c.mapped("police", "carl@gov.example", "emil@gov.example")
	police := a.agency("police")
	imported := false
	a.table.set(func(ch table.Change, do func() (routing.Position, error)) (routing.Position, error) {
		if strings.Contains(ch.ID, "/begin") && !imported {
			imported = true
			police.Mapping = added
			c.store(table.Change{Mapped: a.replica.State().Position().Mapped, Agencies: []routing.Agency{police}})
		}
		return do()
	})
	op, err := a.Run(t.Context(), Request{Kind: Remap, Who: "tester", Reason: "test", Mappings: map[routing.AgencyID]routing.Digest{"police": next}})
	if !errors.Is(err, ErrPlan) || !imported {
		t.Errorf("%+v, %v", op, err)
	}
	a.stands("police", routing.PhaseSource)
	if got := a.agency("police").Mapping; got != added {
		t.Errorf("mapping %s, want that of the import", got)
	}
}

// The same for what came before this node looked, but after the mappings were made.
func TestRemapOfAnOlderTable(t *testing.T) {
	t.Parallel()
	c := newCluster(t, openLocal(t), 1, nil)
	a := c.nodes[0]
	c.lists()
	made := a.replica.State().Position().Revision
	next := map[routing.AgencyID]routing.Digest{"police": c.mapped("police", "dora@gov.example")}
	request := Request{Kind: Remap, Who: "tester", Reason: "test", Mappings: next, Made: made}
	police := a.agency("police")
	police.Mapping = c.mapped("police", "carl@gov.example", "emil@gov.example")
	c.store(table.Change{Mapped: made, Agencies: []routing.Agency{police}})
	if op, err := a.Run(t.Context(), request); !errors.Is(err, ErrPlan) || op.ID != "" {
		t.Errorf("%+v, %v", op, err)
	}
	if got := a.agency("police").Mapping; got != police.Mapping {
		t.Errorf("mapping %s, want that of the import", got)
	}
	request.Made = a.replica.State().Position().Revision
	if _, err := a.Run(t.Context(), request); err != nil {
		t.Errorf("made of this table: %v", err)
	}
}
