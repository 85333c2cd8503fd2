package campaign

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"mailcutover/internal/platformtest"
	"mailcutover/test/cluster"
	"mailcutover/test/peers"
)

// fault is one that a storm may draw, the more often the more weight it has.
type fault struct {
	name   string
	weight int
	world  bool // needs networks or disks of its own
	do     func(s *Storm, ctx context.Context, n *cluster.Node) error
}

// The faults after which what a node had not synced is gone.
const (
	powerLost  = "power lost"
	diskFailed = "disk failed, fsync too"
)

// ofNodes are done to one node.
var ofNodes = []fault{
	{"killed", 24, false, func(s *Storm, ctx context.Context, n *cluster.Node) error {
		n.Kill()
		wait(ctx, s.upTo(400*time.Millisecond))
		return s.start(ctx, n)
	}},
	{"killed twice", 4, false, func(s *Storm, ctx context.Context, n *cluster.Node) error {
		n.Kill()
		begun, cancel := context.WithTimeout(ctx, s.upTo(500*time.Millisecond))
		_ = n.Start(begun) // it is on its way
		cancel()
		n.Kill()
		return s.start(ctx, n)
	}},
	{"stopped for less than a second", 8, false, func(s *Storm, ctx context.Context, n *cluster.Node) error {
		return s.stop(ctx, n, s.upTo(time.Second))
	}},
	{"stopped for longer than lease and limit", 3, false, func(s *Storm, ctx context.Context, n *cluster.Node) error {
		return s.stop(ctx, n, 6*time.Second+s.upTo(12*time.Second))
	}},
	{"stopped for over a minute", 1, true, func(s *Storm, ctx context.Context, n *cluster.Node) error {
		return s.stop(ctx, n, 60*time.Second+s.upTo(time.Minute))
	}},
	{powerLost, 8, true, func(s *Storm, ctx context.Context, n *cluster.Node) error {
		n.Kill()
		if err := s.disks[n.Index].Fail(); err != nil {
			return err
		}
		if err := s.disks[n.Index].Power(); err != nil {
			return err
		}
		return s.start(ctx, n)
	}},
	{diskFailed, 4, true, func(s *Storm, ctx context.Context, n *cluster.Node) error {
		if err := s.disks[n.Index].Fail(); err != nil {
			return err
		}
		wait(ctx, s.upTo(3*time.Second))
		n.Kill()
		if err := s.disks[n.Index].Power(); err != nil {
			return err
		}
		return s.start(ctx, n)
	}},
	{"disk full", 5, true, func(s *Storm, ctx context.Context, n *cluster.Node) error {
		if err := s.disks[n.Index].Fill(); err != nil {
			return err
		}
		wait(ctx, s.upTo(4*time.Second))
		return s.disks[n.Index].Free()
	}},
	{"disk full, and killed", 2, true, func(s *Storm, ctx context.Context, n *cluster.Node) error {
		if err := s.disks[n.Index].Fill(); err != nil {
			return err
		}
		wait(ctx, s.upTo(time.Second))
		n.Kill()
		if err := s.disks[n.Index].Free(); err != nil {
			return err
		}
		return s.start(ctx, n)
	}},
	{"cut off from Redis", 5, true, func(s *Storm, ctx context.Context, n *cluster.Node) error {
		return s.cut(ctx, n, 6*time.Second, addresses(s.w.Servers)...)
	}},
	{"cut off from one Redis", 4, true, func(s *Storm, ctx context.Context, n *cluster.Node) error {
		return s.cut(ctx, n, 5*time.Second, s.w.Servers[s.draw(servers)].IP)
	}},
	{"cut off from the other nodes", 4, true, func(s *Storm, ctx context.Context, n *cluster.Node) error {
		return s.cut(ctx, n, 5*time.Second, addresses(s.w.Nodes)...)
	}},
	{"cut off from a platform", 5, true, func(s *Storm, ctx context.Context, n *cluster.Node) error {
		return s.cut(ctx, n, 4*time.Second, platformAt[[]string{cluster.Exchange, cluster.OX}[s.draw(2)]])
	}},
	{"off the network", 5, true, func(s *Storm, ctx context.Context, n *cluster.Node) error {
		if err := s.w.Net.Unplug(s.w.Nodes[n.Index]); err != nil {
			return err
		}
		wait(ctx, s.upTo(6*time.Second))
		return s.w.Net.Plug(s.w.Nodes[n.Index])
	}},
}

// pick draws one of the faults.
func (s *Storm) pick(all []fault) *fault {
	sum := 0
	for i := range all {
		if !all[i].world || s.w != nil {
			sum += all[i].weight
		}
	}
	k := s.draw(sum)
	for i := range all {
		if all[i].world && s.w == nil {
			continue
		}
		if k -= all[i].weight; k < 0 {
			return &all[i]
		}
	}
	return &all[0]
}

// troubleNode does something to a node that nothing is being done to, and waits until it decides
// again.
func (s *Storm) troubleNode(ctx context.Context) error {
	i := s.draw(len(s.c.Nodes))
	s.mu.Lock()
	taken := s.busy[i]
	s.busy[i] = true
	s.mu.Unlock()
	if taken {
		return nil
	}
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.busy[i] = false
	}()
	n := s.c.Nodes[i]
	f := s.pick(ofNodes)
	end := s.c.Trouble(f.name, i, "")
	defer end()
	if err := f.do(s, ctx, n); err != nil {
		return fmt.Errorf("%s, which was %s: %w", n.Name, f.name, err)
	}
	s.tally.Add("node", f.name, 1)
	// No longer than it takes to be of no use: what keeps it may be another fault.
	short, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	s.until(short, func() bool { return s.c.Serving(short, n) })
	return nil
}

// start starts a node that was killed. It is an error if it ends, and none if it isn't ready, as
// without Redis.
func (s *Storm) start(ctx context.Context, n *cluster.Node) error {
	short, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	err := n.Start(short)
	if err == nil || ctx.Err() != nil {
		return nil
	}
	select {
	case <-n.Ended():
		return err
	default:
		return nil
	}
}

func (s *Storm) stop(ctx context.Context, n *cluster.Node, d time.Duration) error {
	if err := n.Pause(); err != nil {
		return err
	}
	wait(ctx, d)
	return n.Resume()
}

func (s *Storm) cut(ctx context.Context, n *cluster.Node, most time.Duration, from ...string) error {
	host := s.w.Nodes[n.Index]
	var others []string
	for _, ip := range from {
		if ip != host.IP {
			others = append(others, ip)
		}
	}
	if err := s.w.Net.Cut(host, others...); err != nil {
		return err
	}
	wait(ctx, s.upTo(most))
	return s.w.Net.Mend(host)
}

func addresses(all []peers.Host) (ips []string) {
	for _, h := range all {
		ips = append(ips, h.IP)
	}
	return ips
}

// troublePlatform has a platform misbehave for a while, for all nodes.
func (s *Storm) troublePlatform(ctx context.Context) error {
	platform := []string{cluster.Exchange, cluster.OX}[s.draw(2)]
	end := s.c.Trouble("platform "+platform, -1, "")
	defer end()
	if k := s.draw(6); k == 0 && s.c.Inboxes != nil {
		how := cluster.InboxFault(1 + s.draw(3))
		in := s.c.Inboxes[platform]
		in.Spoil(how)
		in.Drop()
		wait(ctx, s.upTo(2*time.Second))
		in.Spoil(cluster.InboxWell)
		s.tally.Add("platform", "logins "+[]string{"", "stall", "dropped", "put off"}[how], 1)
		return nil
	}
	verbs := []string{platformtest.VerbConnect, "EHLO", "MAIL", "RCPT", "DATA", platformtest.VerbDot, platformtest.VerbDot, "RSET"}
	verb := verbs[s.draw(len(verbs))]
	kinds := []struct {
		name string
		r    platformtest.Reaction
	}{
		{"puts off", platformtest.Reaction{Reply: "451 4.3.2 campaign"}},
		{"says 421", platformtest.Reaction{Reply: "421 4.3.2 campaign"}},
		{"drops before its answer", platformtest.Reaction{Drop: platformtest.DropBefore}},
		{"drops after its answer", platformtest.Reaction{Drop: platformtest.DropAfter}},
		{"resets", platformtest.Reaction{Drop: platformtest.ResetBefore}},
		{"stalls", platformtest.Reaction{Stall: true}},
		{"answers late", platformtest.Reaction{Delay: 200*time.Millisecond + s.upTo(2*time.Second)}},
	}
	kind := kinds[s.draw(len(kinds))]
	one := 1 + s.draw(6)
	p, often := s.c.Platforms[platform], s.no.On(platform)
	p.SetScript(func(c platformtest.Command) platformtest.Reaction {
		if c.Verb == verb && rand.N(one) == 0 {
			return kind.r
		}
		return often(c)
	})
	wait(ctx, s.upTo(2500*time.Millisecond))
	p.SetScript(often)
	p.Drop() // stalled ones, too
	s.tally.Add("platform", kind.name, 1)
	s.tally.Add("verb", verb, 1)
	return nil
}

// usual is how platforms answer: a dot takes a moment, so that switches have something to wait for.
var usual = platformtest.On(platformtest.VerbDot, platformtest.Reaction{Delay: 3 * time.Millisecond})

// ofRedis are done to Redis; n is nil.
var ofRedis = []fault{
	{"primary killed", 4, true, func(s *Storm, ctx context.Context, _ *cluster.Node) error {
		p := s.primary()
		p.Kill()
		wait(ctx, s.upTo(6*time.Second))
		return p.Start(ctx)
	}},
	{"primary stopped", 3, true, func(s *Storm, ctx context.Context, _ *cluster.Node) error {
		return s.stopRedis(ctx, s.upTo(6*time.Second), s.primary())
	}},
	{"a replica killed", 3, true, func(s *Storm, ctx context.Context, _ *cluster.Node) error {
		r := s.replicas()[s.draw(servers-1)]
		r.Kill()
		wait(ctx, s.upTo(4*time.Second))
		return r.Start(ctx)
	}},
	{"all stopped", 3, true, func(s *Storm, ctx context.Context, _ *cluster.Node) error {
		return s.stopRedis(ctx, s.upTo(5*time.Second), s.c.Servers...)
	}},
	{"all killed", 2, true, func(s *Storm, ctx context.Context, _ *cluster.Node) error {
		for _, r := range s.c.Servers {
			r.Kill()
		}
		wait(ctx, s.upTo(3*time.Second))
		for _, r := range s.c.Servers {
			if err := r.Start(ctx); err != nil {
				return err
			}
		}
		return nil
	}},
	{"primary cut off from its replicas and some nodes", 4, true, func(s *Storm, ctx context.Context, _ *cluster.Node) error {
		p := s.primary()
		var from []string
		for i, r := range s.c.Servers {
			if r != p {
				from = append(from, s.w.Servers[i].IP)
			}
		}
		for _, h := range s.w.Nodes {
			if s.draw(2) == 0 {
				from = append(from, h.IP)
			}
		}
		host := s.hostOf(p)
		if err := s.w.Net.Cut(host, from...); err != nil {
			return err
		}
		wait(ctx, s.upTo(8*time.Second))
		return s.w.Net.Mend(host)
	}},
	{"failover that loses writes", 3, true, func(s *Storm, ctx context.Context, _ *cluster.Node) error {
		p, others := s.primary(), s.replicas()
		for _, r := range others {
			if err := r.Pause(); err != nil {
				return err
			}
		}
		wait(ctx, 500*time.Millisecond+s.upTo(2*time.Second)) // what is written meanwhile is on the primary alone
		p.Kill()
		for _, r := range others {
			if err := r.Resume(); err != nil {
				return err
			}
		}
		short, cancel := context.WithTimeout(ctx, 40*time.Second)
		defer cancel()
		s.until(short, func() bool {
			for _, r := range others {
				if strings.Contains(cluster.Ask(r.Addr, "INFO replication"), "role:master") {
					return true
				}
			}
			return false
		})
		return p.Start(ctx)
	}},
	{"clock jumped", 3, true, func(s *Storm, ctx context.Context, _ *cluster.Node) error {
		i := s.draw(servers)
		jumps := []time.Duration{2 * time.Second, -2 * time.Second, 20 * time.Second, -20 * time.Second, time.Hour, -time.Hour, 0, 0}
		return s.w.SetClock(i, jumps[s.draw(len(jumps))])
	}},
}

// troubleRedis does something to Redis and waits until it has a primary with all its replicas.
func (s *Storm) troubleRedis(ctx context.Context) error {
	f := s.pick(ofRedis)
	end := s.c.Trouble("Redis: "+f.name, -1, "")
	defer end()
	if err := f.do(s, ctx, nil); err != nil {
		return fmt.Errorf("trouble of Redis, %s: %w", f.name, err)
	}
	s.tally.Add("Redis", f.name, 1)
	began := time.Now()
	if !s.until(ctx, s.whole) {
		return fmt.Errorf("no primary of Redis with all its replicas, %s after: %s", time.Since(began).Round(time.Second), f.name)
	}
	n := s.anyNode()
	short, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	s.until(short, func() bool {
		all, err := n.API.Nodes(short)
		return err == nil && all.Rejoining == ""
	})
	return nil
}

// whole reports whether there is one primary, with all its replicas.
func (s *Storm) whole() bool {
	whole := false
	for _, r := range s.c.Servers {
		info := cluster.Ask(r.Addr, "INFO replication")
		if !strings.Contains(info, "role:master") {
			continue
		}
		if whole {
			return false
		}
		whole = strings.Count(info, "state=online") == servers-1
	}
	return whole
}

// primary is the server that the first Sentinel names, or else one that takes itself for it.
func (s *Storm) primary() *peers.Redis {
	for _, r := range s.c.Servers {
		if info := cluster.Ask(r.Addr, "INFO replication"); strings.Contains(info, "role:master") && strings.Contains(info, "state=online") {
			return r
		}
	}
	return s.c.Servers[0]
}

func (s *Storm) replicas() (all []*peers.Redis) {
	p := s.primary()
	for _, r := range s.c.Servers {
		if r != p {
			all = append(all, r)
		}
	}
	return all
}

func (s *Storm) hostOf(r *peers.Redis) peers.Host {
	for i := range s.c.Servers {
		if s.c.Servers[i] == r {
			return s.w.Servers[i]
		}
	}
	return s.w.Servers[0]
}

func (s *Storm) stopRedis(ctx context.Context, d time.Duration, all ...*peers.Redis) error {
	for _, r := range all {
		if err := r.Pause(); err != nil {
			return err
		}
	}
	wait(ctx, d)
	for _, r := range all {
		if err := r.Resume(); err != nil {
			return err
		}
	}
	return nil
}
