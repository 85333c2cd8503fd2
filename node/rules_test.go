package node

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"mailcutover/internal/durable/memdisk"
	"mailcutover/routing"
	"mailcutover/routing/table"
)

// slowAnswers is a table whose answers to renewals are long on their way.
type slowAnswers struct{ Table }

func (s slowAnswers) Renew(ctx context.Context, r table.Renewal) (table.Renewed, error) {
	renewed, err := s.Table.Renew(ctx, r)
	time.Sleep(soon)
	return renewed, err
}

// A lease counts from before the question, however long the answer takes (node rule 2).
func TestALeaseCountsFromTheQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeTable(t, "health")
		f.options = func(o *KeeperOptions) { o.Table = slowAnswers{o.Table} }
		n := f.start(t, "mx1.example", memdisk.New())
		time.Sleep(3 * soon)
		synctest.Wait()
		n.want("granted", "health", routing.ReasonOpen)
		until := n.Status()
		if l := f.lease("mx1.example"); l.ShortEnd.Sub(until.ArmedUntil) < lease.Margin || l.LongEnd.Sub(until.SettledUntil) < lease.Margin {
			t.Errorf("the table's ends, %s and %s, are not a margin after the node's, %s and %s", l.ShortEnd, l.LongEnd, until.ArmedUntil, until.SettledUntil)
		}
	})
}

// changing are rights whose check takes so long that something happens meanwhile.
type changing struct {
	numbered
	meanwhile func()
}

// Names implements Rights.
func (*changing) Names(context.Context, routing.Position) error { return nil }

func (c *changing) Check(context.Context, ...table.AgencyEpoch) error {
	c.meanwhile()
	return nil
}

// A record that closes while the table is asked, and is asked too early to know of it, gets
// no dot (node rule 3).
func TestTheRecordsAreLookedAtAfterTheCheck(t *testing.T) {
	b := newBench(t)
	b.change(func(a routing.Agency) (routing.Agency, error) { return a.Arm(), nil })
	rights := &changing{numbered: numbered{right: Right{Settled: true, Armed: true, SettledLife: 1, ArmedLife: 1}}}
	rights.meanwhile = func() {
		b.change(func(a routing.Agency) (routing.Agency, error) { return a.Begin("op", 1, routing.EventBegin) })
	}
	b.Gate = NewGate(b.source, rights, "+")
	if err := b.enter(func() {}).Dot(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("dot after the closing: %v, want ErrClosed", err)
	}
	if l := b.Load("health"); l.Dotted != 0 {
		t.Errorf("load %+v: the drain waits for a dot that was refused", l)
	}
}

// A session is cut when its agency closes, and the drain waits for its end (node rule 6).
func TestASessionIsCutAndAwaited(t *testing.T) {
	cuts := 0
	b, _, session := newSession(t, func() { cuts++ })
	b.begin()
	if cuts != 1 || b.Load("health").Dotted != 1 {
		t.Errorf("cut %d times, load %+v", cuts, b.Load("health"))
	}
	if err := session.Flows(); !errors.Is(err, ErrClosed) || errors.Is(err, ErrLapsed) {
		t.Errorf("bytes after the closing: %v, want ErrClosed alone", err)
	}
	session.End()
	if l := b.Load("health"); l.Dotted != 0 {
		t.Errorf("load %+v after the end", l)
	}
}

// A table that comes back with less after a while is no table that this node doesn't follow:
// somebody has to renew with it, or no rejoin ever begins (node rule 9).
func TestATableThatComesBackWithLess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeTable(t, "health", "works")
		f.change(t, "works", arm)
		n := f.start(t, "mx1.example", memdisk.New())
		settle()
		before := f.state
		lost := f.change(t, "works", begin)
		time.Sleep(5 * time.Second) // it was told of it
		f.do(func() { f.down = table.ErrUnavailable })
		time.Sleep(2 * lease.Armed)
		f.do(func() {
			f.down, f.server = nil, table.Server{Run: "two"}
			f.book.Position.Revision = before.Position().Revision
			f.state = before
			for _, c := range f.copies {
				next, err := c.state.Apply(routing.Update{Whole: true, Position: f.book.Position, Agencies: before.Agencies(), Members: before.Members()})
				if err != nil {
					t.Fatal(err)
				}
				c.follow(next)
			}
		})
		time.Sleep(lease.Armed)
		f.mu.Lock()
		seen, ok := f.book.Above["works"]
		f.mu.Unlock()
		if !ok || seen.Epoch != lost.Epoch {
			t.Errorf("what was lost is not told: %+v, %t; %+v", seen, ok, n.Status())
		}
	})
}
