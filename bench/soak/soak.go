package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"mailcutover/rollback/operation"
	"mailcutover/test/cluster"
	"mailcutover/test/peers"
)

const (
	mailboxes = 200              // of each agency
	limit     = 20 * time.Second // after which the platforms end any connection
	asked     = time.Second      // between two calls of each node's API
	scraped   = 5 * time.Second  // between two looks at each node's metrics
	body      = 2048             // bytes of a message
	drained   = 90 * time.Second // the longest that senders may take to end, and nodes to come to rest
)

// The agencies: two that move, and one that never does.
var (
	moving = []string{"health", "roads"}
	all    = []string{"health", "roads", "parks"}
)

// bounded keeps what nodes keep on purpose so short that an hour sees it go.
const bounded = "ledger: {max_age: 5m}\nretained: {agency_bytes: 64MiB, total_bytes: 64MiB}\n"

// soak runs the load and returns what did not come back, or was broken.
func soak(t peers.TB, o options) (left []string) {
	program, err := peers.Build(t.Context(), peers.TempDir(t, "soak"), "./cmd/mailcutover", false)
	if err != nil {
		t.Fatalf("%v", err)
	}
	c := cluster.Start(t, cluster.Options{
		Program: program, Direct: true, Logins: true, LMTP: true, Limit: limit,
		Settled: time.Minute, Armed: 10 * time.Second, Margin: 2 * time.Second, More: bounded,
	})
	for _, id := range all {
		c.AddAgency(t, id, mailboxes)
	}
	w := &work{c: c, o: o}
	fmt.Fprintf(o.told, "warming up for %s\n", warmUp(o.long))
	w.load(t, warmUp(o.long))
	begin := atRest(t, c, o)
	fmt.Fprintf(o.told, "load for %s\n", o.long)
	began := time.Now()
	peak := w.load(t, o.long)
	took := time.Since(began)
	end := atRest(t, c, o)
	v := c.End(t)
	rows := compare(begin, peak, end)
	if err := w.print(rows, took, v); err != nil {
		t.Fatalf("%v", err)
	}
	for _, r := range rows {
		if r.left() {
			left = append(left, r.what())
		}
	}
	return append(append(left, w.wrong()...), v.Bad()...)
}

// warmUp is how long the load runs before anything counts: a tenth of the time, a minute at most.
func warmUp(long time.Duration) time.Duration { return min(time.Minute, long/10) }

// work is the load, and what it counts.
type work struct {
	c *cluster.Cluster
	o options

	calls, scrapes atomic.Int64

	mu       sync.Mutex
	longest  float64 // seconds for which an agency was closed
	failures []string
}

// failed notes that something was answered as it should not be.
func (w *work) failed(what string, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failures = append(w.failures, fmt.Sprintf("%s: %v", what, err))
}

// wrong returns what failed.
func (w *work) wrong() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failures
}

// load keeps everything busy for so long, or until it is interrupted, and returns the peaks.
func (w *work) load(t peers.TB, long time.Duration) usage {
	ctx, stop := early(t.Context())
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, long)
	defer cancel()
	senders := w.c.Send(t.Context(), w.senders()...)
	var groups [][]string
	for _, id := range all {
		groups = append(groups, cluster.Mailboxes(id, 4))
	}
	programs := w.c.LogIn(t.Context(), groups...)
	var running sync.WaitGroup
	var peak usage
	running.Go(func() { w.switches(ctx) })
	running.Go(func() { peak = w.watch(ctx) })
	for _, n := range w.c.Nodes {
		running.Go(func() { w.call(ctx, n) })
	}
	running.Wait()
	programs.Stop()
	ending, done := context.WithTimeout(t.Context(), drained)
	defer done()
	if err := senders.Stop(ending); err != nil {
		t.Fatalf("%v", err)
	}
	return peak
}

// senders share the rate: at each node, for each agency, one by SMTP and one by LMTP, which
// has a fifth of it.
func (w *work) senders() (list []cluster.Senders) {
	pairs := float64(len(w.c.Nodes) * len(all))
	for _, n := range w.c.Nodes {
		for _, id := range all {
			boxes := cluster.Mailboxes(id, mailboxes)
			half := len(boxes) / 2
			list = append(list,
				cluster.Senders{Node: n.Index, Addr: n.SMTP, Rcpts: boxes[:half], Body: body, Pace: pace(w.o.rate * 0.8 / pairs)},
				cluster.Senders{Node: n.Index, Addr: n.LMTP, Rcpts: boxes[half:], Body: body, Pace: pace(w.o.rate * 0.2 / pairs), LMTP: true})
		}
	}
	return list
}

// pace is the time between two messages at so many a second.
func pace(rate float64) time.Duration { return time.Duration(float64(time.Second) / rate) }

// switches moves one agency after the other, each from another node. One that is under way
// is seen through.
func (w *work) switches(ctx context.Context) {
	for i := 0; pause(ctx, w.o.every); i++ {
		id := moving[i%len(moving)]
		n := w.c.Nodes[i%len(w.c.Nodes)]
		through, cancel := context.WithTimeout(context.WithoutCancel(ctx), drained)
		running, err := w.c.Begin(through, n, id)
		if err == nil {
			op, watched := running.Watch(through, n)
			if err = watched; err == nil && op.Step != string(operation.StepDone) {
				err = fmt.Errorf("ended at %s: %s", op.Step, op.Error)
			}
			w.mu.Lock()
			w.longest = max(w.longest, op.ClosedFor)
			w.mu.Unlock()
		}
		cancel()
		if err != nil {
			w.failed(fmt.Sprintf("switch %d, of %s, at %s", i+1, id, n.Name), err)
		}
	}
}

// call asks a node's API for one thing after the other.
func (w *work) call(ctx context.Context, n *cluster.Node) {
	for i := 0; pause(ctx, asked); i++ {
		one := calls[i%len(calls)]
		if err := one.ask(ctx, n); err != nil && ctx.Err() == nil {
			w.failed(one.name+" at "+n.Name, err)
		}
		w.calls.Add(1)
	}
}

// pause reports whether ctx is still there after so long.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// watch looks at what is used until ctx ends, tells of it now and then, and returns the peaks.
func (w *work) watch(ctx context.Context) (peak usage) {
	last := time.Now()
	for pause(ctx, scraped) {
		now, err := look(ctx, w.c)
		if err != nil {
			if ctx.Err() == nil {
				w.failed("metrics", err)
			}
			continue
		}
		w.scrapes.Add(int64(len(w.c.Nodes)))
		peak = peak.most(now)
		if time.Since(last) >= w.o.report {
			last = time.Now()
			fmt.Fprintf(w.o.told, "%s %s\n", last.Format(time.TimeOnly), now)
		}
	}
	return peak
}

// atRest waits until nothing of what is used has shrunk for so long, and returns the least of
// each. The nodes are asked all the time: one that does nothing at all collects no garbage for
// two minutes.
func atRest(t peers.TB, c *cluster.Cluster, o options) usage {
	ctx, cancel := context.WithTimeout(t.Context(), o.rest+drained)
	defer cancel()
	var least usage
	var errs error
	for since := time.Now(); ; {
		now, err := look(ctx, c)
		switch {
		case err != nil:
			errs = errors.Join(errs, err)
		case least == nil:
			least = now
		case least.shrinks(now):
			least, since = least.least(now), time.Now()
		}
		if least != nil && time.Since(since) > o.rest {
			fmt.Fprintf(o.told, "at rest: %s\n", least)
			return least
		}
		if !pause(ctx, 20*time.Millisecond) {
			if least == nil {
				t.Fatalf("look at the nodes at rest: %v", errs)
			}
			fmt.Fprintf(o.told, "not at rest within %s, least: %s\n", o.rest+drained, least)
			return least
		}
	}
}
