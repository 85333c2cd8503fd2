package cluster

import (
	"context"
	"fmt"
	"time"

	"mailcutover/admin"
	"mailcutover/rollback/operation"
	"mailcutover/test/peers"
)

// Running is an operation that was asked for.
type Running struct {
	c      *Cluster
	sw     Switch
	ID     string
	agency string
}

// Begin asks a node to switch an agency to its other platform, and returns when the node
// has taken it on. The end is for Finish to see.
func (c *Cluster) Begin(ctx context.Context, n *Node, id string) (*Running, error) {
	if err := c.Arm(ctx, n, id); err != nil {
		return nil, err
	}
	a, err := n.API.Agency(ctx, id)
	if err != nil {
		return nil, err
	}
	from := c.Where(id)
	kind := operation.Cutover
	if from == OX {
		kind = operation.Rollback
	}
	asked := time.Now()
	if c.o.TwoPeople {
		started, err := n.Agree(ctx, admin.NewProposal{Kind: string(kind), Agency: id, ExpectedEpoch: a.Epoch, Reason: "test"})
		if err != nil {
			return nil, err
		}
		if started.Operation == nil {
			return nil, fmt.Errorf("%s of %s began no operation: %s", kind, id, started.Done)
		}
		return c.Follow(id, started.Operation.ID, asked), nil
	}
	op, err := n.API.Start(ctx, kind, id, a.Epoch, "test")
	if err != nil {
		return nil, err
	}
	return c.Follow(id, op.ID, asked), nil
}

// Follow is the operation that switches an agency to its other platform, and was asked for then:
// as Begin returns it, also where the answer to Begin was lost.
func (c *Cluster) Follow(agency, operationID string, asked time.Time) *Running {
	from := c.Where(agency)
	kind := operation.Cutover
	if from == OX {
		kind = operation.Rollback
	}
	return &Running{c: c, sw: Switch{Agency: agency, Kind: string(kind), From: from, To: Other(from), Asked: asked, ID: operationID}, ID: operationID, agency: agency}
}

// Finish waits until the operation has ended, asking any node that answers, and records
// it. It returns what it was last.
func (o *Running) Finish(ctx context.Context) (admin.Operation, error) {
	var last error
	for ; ; sleep(ctx, 50*time.Millisecond) {
		for _, n := range o.c.Nodes {
			if ctx.Err() != nil {
				return admin.Operation{}, fmt.Errorf("wait for %s of %s: %w (%w)", o.sw.Kind, o.sw.Agency, ctx.Err(), last)
			}
			if o.c.Down(n.Index) {
				continue
			}
			short, cancel := context.WithTimeout(ctx, time.Second)
			op, err := n.API.Operation(short, o.ID)
			cancel()
			if err != nil {
				last = err
				continue
			}
			last = fmt.Errorf("%s at step %s: %s %s", n.Name, op.Step, op.Waiting, op.Error)
			if op.Ended {
				o.record(op)
				return op, nil
			}
		}
	}
}

// Watch waits for the end by the stream of the node that carries the operation out, and
// records it.
func (o *Running) Watch(ctx context.Context, n *Node) (admin.Operation, error) {
	op, err := n.API.Watch(ctx, o.ID, func(admin.Operation) {})
	if err != nil {
		return op, err
	}
	if !op.Ended {
		return op, fmt.Errorf("%s of %s is left at %s: %s", o.sw.Kind, o.sw.Agency, op.Step, op.Error)
	}
	o.record(op)
	return op, nil
}

func (o *Running) record(op admin.Operation) {
	o.sw.Told, o.sw.Done = time.Now(), op.Step == string(operation.StepDone)
	if op.Closed != nil {
		o.sw.Closed = *op.Closed
	}
	o.c.mu.Lock()
	defer o.c.mu.Unlock()
	o.c.switches = append(o.c.switches, o.sw)
	if o.sw.Done {
		o.c.at[o.sw.Agency] = o.sw.To
	}
}

// Switch is Begin and Watch for a switch that must be done.
func (c *Cluster) Switch(t peers.TB, n *Node, id string) admin.Operation {
	t.Helper()
	var o *Running
	var err error
	for end := time.Now().Add(patience); ; sleep(t.Context(), 100*time.Millisecond) { // a table may be too slow to answer
		if o, err = c.Begin(t.Context(), n, id); err == nil {
			break
		}
		if t.Context().Err() != nil || time.Now().After(end) {
			t.Fatalf("switch %s: %v", id, err)
		}
	}
	op, err := o.Watch(t.Context(), n)
	if err != nil || op.Step != string(operation.StepDone) {
		t.Fatalf("switch %s: %+v, %v", id, op, err)
	}
	return op
}
