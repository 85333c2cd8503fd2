package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"regexp"
	"slices"
	"strings"
	"time"

	"mailcutover/admin"
	"mailcutover/bench/figure"
	"mailcutover/test/cluster"
	"mailcutover/test/peers"
)

const (
	offered    = 300 // messages per second, to the agency that moves, and as many to others
	switchers  = 30  // connections for each of the two
	windowStep = 100 * time.Millisecond
)

// switches measures cutovers and rollbacks on three nodes under load, how fast changes
// spread, and what the check of armed mail costs.
func switches(t peers.TB, o options) figure.Part {
	part := figure.Part{
		Name: "Switching on three nodes",
		Notes: []string{
			fmt.Sprintf("%d messages/s to the moving agency, and as many to others; smtp-sink answers each dot at once. No faults, no hooks.", offered),
			"Ratios: armed mail's value to this one in the same round, median of the rounds.",
			"Closed: from begin to publish in the table. Window: the least number of answered messages in one second, of those offered.",
		},
	}
	dir := peers.TempDir(t, "bench")
	program := build(t, dir, "./cmd/mailcutover")
	for _, size := range o.sizes {
		n := o.switches
		if size != 10_000 {
			n = max(2, n/5)
		}
		if err := peers.Run(t.Context(), "switches", o.progress, func(t peers.TB) {
			part.Figures = append(part.Figures, moves(t, o, program, size, n)...)
		}); err != nil {
			t.Fatalf("%v", err)
		}
	}
	if err := peers.Run(t.Context(), "changes", o.progress, func(t peers.TB) {
		part.Figures = append(part.Figures, changes(t, o, program)...)
	}); err != nil {
		t.Fatalf("%v", err)
	}
	if err := peers.Run(t.Context(), "armed", o.progress, func(t peers.TB) {
		part.Figures = append(part.Figures, armed(t, o, program)...)
	}); err != nil {
		t.Fatalf("%v", err)
	}
	return part
}

// quiet is three nodes and two platforms that take everything.
func quiet(t peers.TB, program string) *cluster.Cluster {
	return cluster.Start(t, cluster.Options{
		Program: program, Direct: true,
		Settled: 15 * time.Minute, Armed: 10 * time.Second, Margin: 2 * time.Second, Limit: 2 * time.Minute,
		Platforms: map[string]string{cluster.Exchange: peers.StartSink(t).Addr, cluster.OX: peers.StartSink(t).Addr},
	})
}

// moves switches an agency of so many mailboxes n times, under load.
func moves(t peers.TB, o options, program string, size, n int) []figure.Figure {
	c := quiet(t, program)
	c.AddAgency(t, "moving", size)
	c.AddAgency(t, "other", 1000)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	moving := load(ctx, c, "moving", size)
	other := load(ctx, c, "other", 1000)
	pause(ctx, 2*time.Second)
	// As long without a switch as with, so that what else this machine does is seen.
	calmFrom := time.Now()
	pause(ctx, time.Duration(n)*200*time.Millisecond+2*time.Second)
	from := time.Now()
	var closed, told []float64
	for i := range n {
		began := time.Now()
		op := c.Switch(t, c.Nodes[i%len(c.Nodes)], "moving")
		closed, told = append(closed, op.ClosedFor), append(told, time.Since(began).Seconds())
		fmt.Fprintf(o.progress, "%d mailboxes, switch %d of %d: closed for %.3f s\n", size, i+1, n, op.ClosedFor)
		pause(ctx, 200*time.Millisecond)
	}
	to := time.Now()
	pause(ctx, time.Second)
	for _, l := range []*cluster.Load{moving, other} {
		stop, done := context.WithTimeout(ctx, 30*time.Second)
		if err := l.Stop(stop); err != nil {
			t.Fatalf("%v", err)
		}
		done()
	}
	name := fmt.Sprintf("agency of %d mailboxes, ", size)
	return []figure.Figure{
		figure.New(name+"closed", "s", closed...).EachAtMost(1),
		figure.New(name+"told as done", "s", told...),
		figure.New(name+"other agencies' least window", "%", 100*least(other.Sent(), from, to)).EachAtLeast(95),
		figure.New(name+"the same before the switches", "%", 100*least(other.Sent(), calmFrom, from)),
	}
}

// load offers messages to an agency, at all nodes.
func load(ctx context.Context, c *cluster.Cluster, agency string, size int) *cluster.Load {
	boxes := cluster.Mailboxes(agency, size)
	var all []cluster.Senders
	for i := range switchers {
		n := c.Nodes[i%len(c.Nodes)]
		all = append(all, cluster.Senders{
			Node: n.Index, Addr: n.SMTP, Rcpts: slices.Collect(every(boxes, i, switchers)), Pace: switchers * time.Second / offered, Body: 2048,
		})
	}
	return cluster.StartLoad(ctx, all...)
}

// every deals: the i-th of n gets these.
func every(boxes []string, i, n int) func(func(string) bool) {
	return func(yield func(string) bool) {
		for ; i < len(boxes); i += n {
			if !yield(boxes[i]) {
				return
			}
		}
	}
}

// least returns the part of the offered messages that was answered 250 in the worst second.
func least(sent []cluster.Sent, from, to time.Time) float64 {
	var at []time.Time
	for i := range sent {
		if tries := sent[i].Tries; len(tries) > 0 && strings.HasPrefix(tries[len(tries)-1].Answer, "250") {
			at = append(at, tries[len(tries)-1].Ended)
		}
	}
	slices.SortFunc(at, time.Time.Compare)
	worst := float64(len(at))
	for w := from; !w.Add(time.Second).After(to); w = w.Add(windowStep) {
		first, _ := slices.BinarySearchFunc(at, w, time.Time.Compare)
		last, _ := slices.BinarySearchFunc(at, w.Add(time.Second), time.Time.Compare)
		worst = min(worst, float64(last-first))
	}
	return worst / offered
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// changes measures how long a change takes from the table's log to three nodes, as the API
// of each shows; and a lock until it is told as done.
func changes(t peers.TB, o options, program string) []figure.Figure {
	c := quiet(t, program)
	c.AddAgency(t, "moving", 1000)
	c.AddAgency(t, "other", 1000)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	load(ctx, c, "other", 1000)
	pause(ctx, time.Second)
	var spread []float64
	for i := range o.changes {
		freeze := i%2 == 0
		logged := make(chan error, 1)
		var at time.Time
		written := follow(t, c.Servers[0].Addr)
		go func() { logged <- written(&at) }()
		seen := make(chan error, len(c.Nodes))
		for _, n := range c.Nodes {
			go func() { seen <- shows(ctx, n, freeze) }()
		}
		n := c.Nodes[i%len(c.Nodes)]
		act := n.API.Lift
		if freeze {
			act = n.API.Freeze
		}
		told := make(chan error, 1)
		go func() { _, err := act(ctx, "moving", "bench"); told <- err }()
		for range c.Nodes {
			if err := <-seen; err != nil {
				t.Fatalf("a change that spreads: %v", err)
			}
		}
		end := time.Now()
		if err := <-logged; err != nil {
			t.Fatalf("follow the table's log: %v", err)
		}
		spread = append(spread, float64(end.Sub(at).Microseconds())/1000)
		if err := <-told; err != nil {
			t.Fatalf("freeze or lift: %v", err)
		}
	}
	slices.Sort(spread)
	p99 := spread[min(len(spread)-1, len(spread)*99/100)]
	var locks []float64
	for range o.locks {
		began := time.Now()
		acted, err := c.Nodes[0].API.Lock(ctx, "moving", "", "bench")
		if err != nil || !acted.Complete {
			t.Fatalf("lock: %+v, %v", acted, err)
		}
		locks = append(locks, time.Since(began).Seconds())
		p, err := c.Nodes[0].API.Propose(ctx, admin.NewProposal{Kind: "unlock", Agency: "moving", ExpectedEpoch: acted.Agency.Epoch, Reason: "bench"})
		if err == nil {
			_, err = c.Nodes[0].API.StartProposal(ctx, p.ID)
		}
		if err != nil {
			t.Fatalf("unlock: %v", err)
		}
	}
	return []figure.Figure{
		figure.New("a change, from the table's log until three nodes' APIs show it", "ms", spread...),
		figure.New("the same, p99", "ms", p99).AtMost(50),
		figure.New("a lock, from the call until all nodes have said closed", "s", locks...).EachAtMost(2),
	}
}

// lastEntry finds the newest entry's id in what Redis answers to XREVRANGE.
var lastEntry = regexp.MustCompile(`\r\n(\d+-\d+)\r\n`)

// follow asks Redis for the next entry of the table's log. What it returns waits for it,
// and says when it was there.
func follow(t peers.TB, redis string) func(at *time.Time) error {
	last := lastEntry.FindStringSubmatch(cluster.Ask(redis, "XREVRANGE {mc}:log + - COUNT 1"))
	if last == nil {
		t.Fatalf("follow the table's log: it has no entry")
	}
	conn, err := net.Dial("tcp", redis)
	if err == nil {
		_, err = io.WriteString(conn, "XREAD BLOCK 30000 STREAMS {mc}:log "+last[1]+"\r\n")
	}
	if err != nil {
		t.Fatalf("follow the table's log: %v", err)
	}
	return func(at *time.Time) error {
		defer conn.Close()
		_, err := conn.Read(make([]byte, 1))
		*at = time.Now()
		return err
	}
}

// shows waits until a node's API shows the freeze, or no longer does.
func shows(ctx context.Context, n *cluster.Node, freeze bool) error {
	for {
		all, err := n.API.Freezes(ctx)
		if err != nil {
			return err
		}
		if (len(all) > 0) == freeze {
			return nil
		}
		pause(ctx, time.Millisecond)
	}
}

// armed measures a node of three whose agency is armed, so that the table is asked before
// each dot, in turns with HAProxy.
func armed(t peers.TB, o options, program string) []figure.Figure {
	peers.Need(t, "smtp-source", "smtp-sink", "haproxy")
	c := quiet(t, program)
	c.AddAgency(t, "agency", 1000)
	c.AddAgency(t, "calm", 1000)
	if err := c.Arm(t.Context(), c.Nodes[0], "agency"); err != nil {
		t.Fatalf("arm: %v", err)
	}
	sink := peers.StartSink(t)
	haproxy := peers.StartHAProxy(t, sink.Addr)
	all := []*contender{
		{name: "HAProxy", addr: haproxy.Addr, pid: haproxy.PID(), to: cluster.Mailbox("agency", 7)},
		{name: "mailcutover, settled", addr: c.Nodes[0].SMTP, pid: c.Nodes[0].PID(), to: cluster.Mailbox("calm", 7)},
		{name: "mailcutover, armed", addr: c.Nodes[0].SMTP, pid: c.Nodes[0].PID(), to: cluster.Mailbox("agency", 7)},
	}
	for _, one := range all {
		one.warm(t, o)
	}
	for range o.rounds {
		for _, one := range all {
			one.turn(t)
		}
	}
	return []figure.Figure{
		figure.New("HAProxy, throughput", "messages/s", all[0].rates...).RatioAtLeast(0.5, ratios(all[2].rates, all[0].rates)),
		figure.New("settled mail, throughput", "messages/s", all[1].rates...).Against(ratios(all[2].rates, all[1].rates)),
		figure.New("armed mail with check, throughput", "messages/s", all[2].rates...),
		figure.New("settled mail, CPU per message of the node", "µs", all[1].costs...).Against(ratios(all[2].costs, all[1].costs)),
		figure.New("armed mail with check, CPU per message of the node", "µs", all[2].costs...),
	}
}
