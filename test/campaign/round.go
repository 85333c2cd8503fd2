package campaign

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"mailcutover/internal/platformtest"
	"mailcutover/test/cluster"
	"mailcutover/test/peers"
)

// Still are the agencies that never move: the first settled, the second armed.
var Still = []string{"roads", "parks"}

// moving are those that people may operate.
var moving = []string{"health", "police", "tax", "justice", "labour", "forests", "customs", "schools", "harbours", "statistics"}

// mailboxes of each agency: the first two get mail by SMTP, the others by LMTP, and all by way of
// the relay; the first is logged in to.
const mailboxes = 4

// Round is one round of a campaign.
type Round struct {
	Program string // file of mailcutover
	World   *World // nil: all at 127.0.0.1, with one Redis, and without what needs a world
	Relay   bool   // Postfix is in front, too
	Moving  int    // agencies that people operate, up to 10; 0: 3
	Seed    uint64
	Lasts   time.Duration // of the storm
	Pace    time.Duration // of each sender
}

// senderRests is between two attempts to send a message.
const senderRests = 200 * time.Millisecond

// Run starts a cluster, lets a storm rage over it, and returns what was found. What can't be
// started or doesn't come to rest fails the test.
func (r *Round) Run(t peers.TB, tally *Tally) *Findings {
	t.Helper()
	moving := moving[:cmp.Or(r.Moving, 3)]
	agencies := slices.Concat(moving, Still)
	o := cluster.Options{
		Program: r.Program, Nodes: nodes, Logins: true, LMTP: true, TwoPeople: true, LoginAgencies: agencies,
		Settled: 20 * time.Second, Armed: 5 * time.Second, Margin: 500 * time.Millisecond, Limit: 5 * time.Second,
		Platform: platformtest.Options{Script: usual}, Direct: true,
	}
	var disks []*Disk
	var host peers.Host
	if r.World != nil {
		host = r.World.Directory
		o.Replicas = servers - 1
		disks = r.World.Disks(t)
		o.Ground = r.World.Ground(disks)
		for i := range r.World.clocks {
			if err := r.World.SetClock(i, 0); err != nil {
				t.Fatalf("%v", err)
			}
		}
	}
	dir := StartDirectory(t, host, moving)
	o.More = dir.Settings(t, moving, r.Seed%2 == 1) + "notices: {platform: " + cluster.Exchange + "}\n"
	c := cluster.Start(t, o)
	no := &Refusals{}
	for id, p := range c.Platforms {
		p.SetScript(no.On(id))
	}
	for _, id := range agencies {
		c.AddAgency(t, id, mailboxes)
	}
	if err := c.Arm(t.Context(), c.Nodes[0], Still[1]); err != nil {
		t.Fatalf("arm %s: %v", Still[1], err)
	}
	s := NewStorm(c, r.World, disks, dir, no, r.Pace, r.Seed, tally, t.Logf)
	if err := s.Settle(t.Context(), moving...); err != nil {
		t.Fatalf("seed %d: %v", r.Seed, err)
	}
	s.Roster().Armed[Still[1]] = time.Now()
	var senders []cluster.Senders
	var relay *peers.Postfix
	if r.Relay {
		relay = peers.StartMX(t, peers.MXOptions{NextHop: c.Nodes[0].SMTP, Settings: map[string]string{
			"smtp_fallback_relay": "[" + strings.Replace(c.Nodes[1].SMTP, ":", "]:", 1) + " [" + strings.Replace(c.Nodes[2].SMTP, ":", "]:", 1),
		}})
	}
	for _, id := range agencies {
		all := cluster.Mailboxes(id, mailboxes)
		for _, n := range c.Nodes {
			senders = append(senders,
				cluster.Senders{Node: n.Index, Addr: n.SMTP, Rcpts: all[:mailboxes/2], Pace: r.Pace, Again: senderRests, Named: true},
				cluster.Senders{Node: n.Index, Addr: n.LMTP, LMTP: true, Rcpts: all[mailboxes/2:], Pace: r.Pace, Again: senderRests, Named: true})
		}
		if relay != nil {
			senders = append(senders, cluster.Senders{Node: -1, Relay: true, Addr: relay.Addr, Rcpts: all, Pace: r.Pace, Again: senderRests})
		}
	}
	for _, id := range moving {
		for _, n := range c.Nodes {
			senders = append(senders, cluster.Senders{Node: n.Index, Addr: n.SMTP, Rcpts: []string{shared(id)}, Pace: r.Pace, Again: senderRests, Named: true})
		}
	}
	c.Send(t.Context(), senders...)
	var groups [][]string
	for _, id := range agencies {
		groups = append(groups, cluster.Mailboxes(id, 1))
	}
	c.LogIn(t.Context(), groups...)

	if err := s.Rage(t.Context(), r.Lasts, moving...); err != nil {
		t.Fatalf("seed %d: %v", r.Seed, err)
	}
	if relay != nil {
		r.drainRelay(t, c, relay)
	}
	c.Quiet(t)
	if err := s.Empty(t.Context()); err != nil {
		t.Fatalf("seed %d: %v", r.Seed, err)
	}
	c.Drain(t)
	sample := Sample(t, c, tally)
	record := c.Record(t)
	return Judge(t, c, record, s.Locks(), s.Roster(), no.Said(), sample)
}

// drainRelay waits until the relay has nothing left, once its senders have ended, and notes what it
// may have sent twice.
func (r *Round) drainRelay(t peers.TB, c *cluster.Cluster, relay *peers.Postfix) {
	t.Helper()
	c.Quiet(t)
	relay.Flush(t)
	cluster.Until(t, "an empty queue of the relay", func() bool { return relay.QueueEmpty(t) })
	for _, id := range relayedTwice(relay.Log()) {
		c.Relayed(id)
	}
}

var (
	queued  = regexp.MustCompile(`cleanup\[\d+\]: ([0-9A-Za-z]+): message-id=<(\d+)@out\.example>`)
	doubted = regexp.MustCompile(`(?:smtp|lmtp)\[\d+\]: ([0-9A-Za-z]+): .*message may be sent more than once`)
)

// relayedTwice returns the messages that Postfix logged it may send more than once, as often as it
// did.
func relayedTwice(log string) (ids []int) {
	numbers := make(map[string]int)
	for line := range strings.Lines(log) {
		if m := queued.FindStringSubmatch(line); m != nil {
			numbers[m[1]], _ = strconv.Atoi(m[2])
		} else if m := doubted.FindStringSubmatch(line); m != nil {
			ids = append(ids, numbers[m[1]])
		}
	}
	return ids
}

// Build builds the program of this module, without the race detector.
func Build(ctx context.Context, dir string) (string, error) {
	file, err := peers.Build(ctx, dir, "./cmd/mailcutover", false)
	if err != nil {
		return "", fmt.Errorf("campaign: %w", err)
	}
	return file, nil
}
