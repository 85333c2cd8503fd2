package cluster

import (
	"context"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"mailcutover/admin"
	"mailcutover/internal/platformtest"
)

// begin starts a switch of an agency at a node.
func (c *Cluster) begin(t *testing.T, n *Node, agency string) *Running {
	t.Helper()
	var o *Running
	said := ""
	Until(t, "a switch of "+agency+" to begin", func() bool {
		var err error
		if o, err = c.Begin(t.Context(), n, agency); err != nil && err.Error() != said {
			said = err.Error()
			t.Logf("begin at %s: %s", n.Name, said)
		}
		return err == nil
	})
	return o
}

// finish waits for the end of a switch.
func (o *Running) finish(t *testing.T) admin.Operation {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	op, err := o.Finish(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s of %s: %s, closed for %.1f s, fenced %q, %s", op.Kind, o.agency, op.Step, op.ClosedFor, op.Fenced, op.Error)
	return op
}

// A node that stands still through a whole switch is fenced, and when it goes on it
// delivers nothing to the old side, whatever it was about to do.
func TestStoppedNode(t *testing.T) {
	t.Parallel()
	c := start(t, Options{Logins: true})
	c.logIn(t.Context())
	l := c.load(t.Context())
	for i := range 2 {
		l.more(t, 60)
		stopped, runner := c.Nodes[1+i], c.Nodes[0]
		var o *Running
		var thaw func()
		if i == 0 { // before the operation
			if err := c.Arm(t.Context(), runner, "health"); err != nil {
				t.Fatal(err)
			}
			Until(t, stopped.Name+" to know that it is armed", func() bool {
				a, err := stopped.API.Agency(t.Context(), "health")
				return err == nil && a.Tightness == "armed"
			})
			thaw = c.Freeze(t, stopped)
			o = c.begin(t, runner, "health")
		} else { // in the middle of it
			o = c.begin(t, runner, "health")
			time.Sleep(rand.N(20 * time.Millisecond)) // any moment
			thaw = c.Freeze(t, stopped)
		}
		op := o.finish(t)
		if op.Step != "done" {
			t.Errorf("%+v", op)
		}
		if i == 0 && !strings.Contains(strings.Join(op.Fenced, " "), stopped.Name) {
			t.Errorf("fenced %q, without %s", op.Fenced, stopped.Name)
		}
		thaw()
	}
	l.more(t, 60)
	c.end(t)
}

// A node is killed in the middle of an operation that another one carries out, and started
// again: what it had under way is in doubt for as long as the platform's limit, and the
// operation waits for that.
func TestKilledNode(t *testing.T) {
	t.Parallel()
	c := start(t, Options{Logins: true})
	c.logIn(t.Context())
	l := c.load(t.Context())
	for range 2 {
		l.more(t, 60)
		o := c.begin(t, c.Nodes[0], "health")
		time.Sleep(rand.N(20 * time.Millisecond)) // any moment
		c.Crash(t, c.Nodes[2])()
		if op := o.finish(t); op.Step != "done" {
			t.Errorf("%+v", op)
		}
	}
	l.more(t, 60)
	c.end(t)
}

// The node that carries an operation out is killed before the commit. Another one takes
// the operation over and ends it, without anybody's help.
func TestKilledRunner(t *testing.T) {
	t.Parallel()
	// A drain that takes its time: dots without an answer, until the node is killed.
	held, release := make(chan struct{}, 1), make(chan struct{})
	var hold atomic.Bool
	c := start(t, Options{Logins: true, Limit: 8 * time.Second, Platform: platformtest.Options{Script: func(cmd platformtest.Command) platformtest.Reaction {
		if cmd.Verb == platformtest.VerbDot && hold.Load() && strings.HasSuffix(cmd.Transaction.Accepted()[0], "@health.example") {
			select {
			case held <- struct{}{}:
			default:
			}
			<-release
		}
		return platformtest.On(platformtest.VerbDot, platformtest.Reaction{Delay: 3 * time.Millisecond})(cmd)
	}}})
	letGo := sync.OnceFunc(func() { close(release) })
	t.Cleanup(letGo) // also if the test ends early
	c.logIn(t.Context())
	l := c.load(t.Context())
	l.more(t, 60)
	hold.Store(true)
	select {
	case <-held:
	case <-time.After(patience):
		t.Fatal("no dot came to the platform")
	}
	o := c.begin(t, c.Nodes[0], "health")
	Until(t, "the agency to be closed", func() bool {
		if a, err := c.Nodes[1].API.Agency(t.Context(), "health"); err == nil && !a.Open {
			return true
		}
		if op, err := c.Nodes[0].API.Operation(t.Context(), o.ID); err == nil && op.Step == "refused" { // a node was too slow
			o = c.begin(t, c.Nodes[0], "health")
		}
		return false
	})
	restart := c.Crash(t, c.Nodes[0])
	hold.Store(false)
	letGo()
	began := time.Now()
	op := o.finish(t)
	t.Logf("ended by %s, %s after the kill", op.Node, time.Since(began))
	if op.Node == c.Nodes[0].Name {
		t.Errorf("%+v", op)
	}
	Until(t, "the agency to be open", func() bool {
		a, err := c.Nodes[1].API.Agency(t.Context(), "health")
		return err == nil && a.Open
	})
	restart()
	c.Switch(t, c.Nodes[0], "health")
	l.more(t, 60)
	c.end(t)
}

// A platform drops the connection in place of one in thirty answers to a final dot, before
// or after it took the message: each copy that comes of it is named by a ledger.
func TestAnswersToTheDotAreLost(t *testing.T) {
	t.Parallel()
	var dots atomic.Int64
	drops := func(cmd platformtest.Command) platformtest.Reaction {
		if cmd.Verb != platformtest.VerbDot || !strings.HasSuffix(cmd.Transaction.Accepted()[0], "@health.example") || dots.Add(1)%30 != 0 {
			return platformtest.Reaction{}
		}
		if rand.N(2) == 0 {
			return platformtest.Reaction{Drop: platformtest.ResetBefore}
		}
		return platformtest.Reaction{Drop: platformtest.DropBefore, Delay: 20 * time.Millisecond}
	}
	c := start(t, Options{Platform: platformtest.Options{Script: drops}, Limit: time.Second})
	l := c.load(t.Context())
	for i := range 4 {
		l.more(t, 100)
		if op := c.begin(t, c.Nodes[i%3], "health").finish(t); op.Step != "done" {
			t.Errorf("%+v", op)
		}
	}
	for _, p := range c.Platforms {
		p.SetScript(nil)
	}
	if v := c.end(t); v.Copies == 0 || v.Named == 0 {
		t.Errorf("no answer was lost, so this tests nothing: %s", v)
	}
}

// A lock is in force on all nodes within two seconds, each of which says so; one that
// stands still is named with the time from which it can serve nothing.
func TestLock(t *testing.T) {
	t.Parallel()
	c := start(t, Options{Logins: true})
	l := c.load(t.Context())
	programs := c.logIn(t.Context())
	l.more(t, 60)
	if err := c.Arm(t.Context(), c.Nodes[0], "health"); err != nil {
		t.Fatal(err)
	}
	thaw := c.Freeze(t, c.Nodes[2])
	began := time.Now()
	acted, err := c.Nodes[0].API.Lock(t.Context(), "health", "", "test")
	took := time.Since(began)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("locked after %s: %+v", took, acted.Nodes)
	for i, r := range acted.Nodes {
		switch r.Node {
		case c.Nodes[2].Name:
			if r.Standing != "waiting" || r.Until == nil || time.Until(*r.Until) > c.o.Armed {
				t.Errorf("the node that stands still: %+v", r)
			}
		default:
			// One that was slow to say so closes all the same.
			if r.Standing != "closed" && r.Standing != "in-doubt" && r.Standing != "seen" && r.Standing != "waiting" {
				t.Errorf("receipt %d: %+v", i, r)
			}
		}
	}
	if len(acted.Nodes) != 3 || acted.Complete {
		t.Errorf("%+v", acted)
	}
	for _, n := range c.Nodes[:2] {
		Until(t, n.Name+" to have closed it", func() bool {
			a, err := n.API.Agency(t.Context(), "health")
			return err == nil && !a.Open && a.UnderWay.Dotted == 0
		})
	}
	// On a machine that is quiet that takes less than two seconds.
	over := later(began.Add(2*time.Second), time.Now())
	thaw()
	arrived := func() (n int) {
		all, err := c.Arrivals()
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range all {
			if strings.HasSuffix(a.Rcpt, "@health.example") && a.At.After(over) {
				n++
			}
		}
		return n
	}
	for l.more(t, 60); time.Now().Before(over.Add(time.Second)); {
		l.more(t, 20)
	}
	if n := arrived(); n > 0 {
		t.Errorf("%d messages arrived later than %s after the lock was asked for", n, over.Sub(began))
	}
	programs.Stop()
	for name, in := range c.Inboxes {
		for _, v := range in.Visits() {
			if strings.HasSuffix(v.Login, "@health.example") && v.Last.After(over) {
				t.Errorf("%s heard %s at %s, later than %s after the lock was asked for", name, v.Login, stamp(v.Last), over.Sub(began))
			}
		}
	}
}
