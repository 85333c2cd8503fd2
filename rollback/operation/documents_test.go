package operation

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

const followed = "test/list"

// follows writes into a document how far the operation of a list is.
func follows(s *routing.State, op *Operation) ([]routing.Document, error) {
	was, _ := s.Document(followed)
	text := "pending"
	switch {
	case op.List == "":
		return nil, nil
	case op.List == "bad":
		return nil, errors.New("the list is withdrawn")
	case op.Step == StepSpread || op.Step == StepDone:
		text = "active"
	case op.Step.Ended():
		text = "approved"
	}
	if was.Text == text || text != "pending" && was.Text != "pending" {
		return nil, nil
	}
	return []routing.Document{{Key: followed, Text: text, Revision: was.Revision}}, nil
}

// Documents of an operation change in the very step with it, whoever takes the step, and
// wherever its runner is killed: no revision of the table has them apart.
func TestDocumentsFollow(t *testing.T) {
	t.Parallel()
	type point struct {
		step     Step
		happened bool
		over     bool // another node goes on; else the same one, after a restart
	}
	points := []point{{}}
	for _, s := range []Step{StepBegin, StepCommit, StepPublish, StepDone} {
		points = append(points, point{s, false, true}, point{s, true, true}, point{s, false, false}, point{s, true, false})
	}
	run := func(t *testing.T, tb table.Table, p point) {
		c := newCluster(t, tb, 2, quick(func(o *Options) { o.Documents = follows }))
		a, b := c.nodes[0], c.nodes[1]
		c.lists()
		next := c.mapped("police", "dora@gov.example")
		before := a.agency("police").Mapping
		ctx, cancel := context.WithCancel(t.Context())
		seen := make(chan struct{})
		go func() {
			defer close(seen)
			_ = c.real.Follow(ctx, a.replica.State().Position(), time.Second, func(e table.Entry) error {
				text := ""
				for _, d := range e.Documents {
					text = d.Text
				}
				for _, rec := range e.Agencies {
					want := map[bool]string{true: "active", false: "approved"}[rec.Mapping == next]
					switch {
					case rec.ID != "police" || rec.Phase.Open() && !rec.Published: // committed: nothing yet
						want = ""
					case !rec.Phase.Open():
						want = "pending"
					case strings.HasPrefix(e.What, "void"):
						want = ""
					}
					if text != want {
						t.Errorf("%q: police is %s with the mapping %s, and the document %q, want %q", e.What, rec.Phase, rec.Mapping, text, want)
					}
				}
				return nil
			}, func(time.Time, routing.Position) {})
		}()
		if p.step != "" {
			dead := false
			a.table.set(func(ch table.Change, do func() (routing.Position, error)) (routing.Position, error) {
				if dead {
					return routing.Position{}, errCrash
				}
				if dead = strings.Contains(ch.ID, "/"+string(p.step)); !dead {
					return do()
				}
				if p.happened {
					if _, err := do(); err != nil {
						return routing.Position{}, err
					}
				}
				return routing.Position{}, errCrash
			})
		}
		_, err := a.Run(t.Context(), Request{Kind: Remap, Who: "tester", Reason: "test", List: "one", Mappings: map[routing.AgencyID]routing.Digest{"police": next}})
		if (err == nil) != (p.step == "") {
			t.Fatalf("the run: %v", err)
		}
		if p.over {
			a.goSilent()
			b.tended("done", func() bool { return len(b.replica.State().Operations()) == 0 })
		} else if p.step != "" {
			a.table.set(nil)
			a.restart()
			a.catchUp()
			if err := a.Recover(t.Context()); err != nil {
				t.Fatal(err)
			}
			a.tended("done", func() bool { return len(a.replica.State().Operations()) == 0 })
		}
		b.catchUp()
		d, _ := b.replica.State().Document(followed)
		want := map[routing.Digest]string{before: "", next: "active"}[b.agency("police").Mapping]
		if d.Text == "approved" && want == "" { // it had begun, and was aborted
			want = "approved"
		}
		if d.Text != want {
			t.Errorf("in the end the document is %q, want %q", d.Text, want)
		}
		cancel()
		<-seen
	}
	for _, p := range points {
		t.Run(fmt.Sprintf("local-%s-%v-%v", p.step, p.happened, p.over), func(t *testing.T) { t.Parallel(); run(t, openLocal(t), p) })
	}
	open := redisTables(t)
	for _, p := range []point{{}, {StepCommit, false, false}, {StepPublish, true, true}} {
		tb := open(t)
		t.Run(fmt.Sprintf("redis-%s-%v-%v", p.step, p.happened, p.over), func(t *testing.T) { t.Parallel(); run(t, tb, p) })
	}
}

// A document that can't be written keeps an operation from beginning; an emergency that ends
// an operation writes how that ended.
func TestDocumentsRefuseAndEnd(t *testing.T) {
	t.Parallel()
	c := newCluster(t, openLocal(t), 2, func(o *Options) { o.Documents = follows })
	a, b := c.nodes[0], c.nodes[1]
	c.lists()
	if _, err := a.run(Cutover, "police"); err != nil {
		t.Fatal(err)
	}
	next := map[routing.AgencyID]routing.Digest{"police": c.mapped("police", "dora@gov.example")}
	op, err := a.Run(t.Context(), Request{Kind: Remap, Who: "tester", Reason: "test", List: "bad", Mappings: next})
	if err == nil || !strings.Contains(err.Error(), "the list is withdrawn") || op.Step != StepRefused {
		t.Errorf("%+v, %v", op, err)
	}
	a.stands("police", routing.PhaseTarget)
	b.set(func(n *simNode) { n.holding = true })
	_, err = a.Run(t.Context(), Request{Kind: Remap, Who: "tester", Reason: "test", List: "one", Mappings: next, Progress: func(op Operation) {
		if op.Step != StepDrain || op.Waiting == "" {
			return
		}
		if d, _ := a.replica.State().Document(followed); d.Text != "pending" {
			t.Errorf("while it drains: %q", d.Text)
		}
		b.set(func(n *simNode) { n.holding = false })
		b.catchUp()
		if _, err := b.Run(t.Context(), Request{Kind: Rollback, Agency: "police", Who: "ben", Reason: "fire", Emergency: true}); err != nil {
			t.Errorf("emergency: %v", err)
		}
	}})
	if err == nil {
		t.Error("the remap wasn't ended")
	}
	a.catchUp()
	if d, _ := a.replica.State().Document(followed); d.Text != "approved" {
		t.Errorf("after the emergency: %q", d.Text)
	}
}
