package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"mailcutover/bench/figure"
	"mailcutover/test/peers"
)

// idleLogins measures what sessions add to the memory in which nothing happens.
func idleLogins(t peers.TB, o options, g *loginGround) []figure.Figure {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatalf("limit of open files: %v", err)
	}
	if need := uint64(2*o.idle + 1000); limit.Cur < need {
		t.Fatalf("limit of open files is %d, %d idle sessions need %d: ulimit -n", limit.Cur, o.idle, need)
	}
	var list []figure.Figure
	for _, secure := range []bool{false, true} {
		bar := 5.0
		if secure {
			bar = 14
		}
		idled := make(map[string][]float64)
		for run := range o.nodes {
			for _, starts := range loginContenders {
				if run > 0 && starts.name != "mailcutover" {
					continue
				}
				if err := peers.Run(t.Context(), "idle sessions, "+starts.name, o.progress, func(t peers.TB) {
					c := starts.start(t, g)
					idled[c.name] = append(idled[c.name], c.idle(t, o, secure)/1024)
				}); err != nil {
					t.Fatalf("%v", err)
				}
			}
		}
		for _, starts := range loginContenders {
			f := figure.New(fmt.Sprintf("%s, idle session, %s", starts.name, way(secure)), "KiB", idled[starts.name]...)
			if starts.name == "mailcutover" {
				f = f.AtMost(bar)
			} else {
				f = f.Against(ratios(idled["mailcutover"][:1], idled[starts.name]))
			}
			list = append(list, f)
		}
	}
	return list
}

// idle opens sessions and returns how many bytes each adds.
func (c *loginContender) idle(t peers.TB, o options, secure bool) float64 {
	var conns []net.Conn
	defer func() {
		for _, conn := range conns {
			conn.Close()
		}
	}()
	open := func(n int) {
		for range n {
			s, err := openIMAP(c.addr(secure), secure, 512)
			if err != nil {
				t.Fatalf("idle session %d by %s: %v", len(conns)+1, c.name, err)
			}
			conns = append(conns, s.socket)
		}
	}
	open(50)
	before := c.settled(t, o.settle)
	open(o.idle)
	after := c.settled(t, o.settle)
	for i, conn := range conns { // that they are all still there
		if err := conn.SetReadDeadline(time.Now()); err != nil {
			t.Fatalf("idle session %d by %s: %v", i+1, c.name, err)
		}
		var timeout net.Error
		if _, err := conn.Read(make([]byte, 1)); err == nil || !errors.As(err, &timeout) || !timeout.Timeout() {
			// With TLS a ticket may still lie there.
			if !secure || err != nil {
				t.Fatalf("idle session %d by %s was not kept: %v", i+1, c.name, err)
			}
		}
	}
	return (after - before) / float64(o.idle)
}

// settled returns the least PSS once there is no lesser one for so long.
func (c *loginContender) settled(t peers.TB, long time.Duration) float64 {
	ctx, cancel := context.WithTimeout(t.Context(), settleWithin)
	defer cancel()
	least, since := 0.0, time.Now()
	for ctx.Err() == nil {
		if c.scrape != nil {
			if err := c.scrape(ctx); err != nil {
				t.Fatalf("%v", err)
			}
		}
		now, err := proportional(c.pid)
		if err != nil {
			t.Fatalf("memory of %s: %v", c.name, err)
		}
		if least == 0 || now < least-64<<10 {
			least, since = now, time.Now()
		}
		if time.Since(since) > long {
			return least
		}
		select {
		case <-time.After(scrapeEvery):
		case <-ctx.Done():
		}
	}
	t.Fatalf("memory of %s does not settle within %s", c.name, settleWithin)
	return 0
}

// proportional returns the PSS, in bytes, of a process and its descendants.
func proportional(pid int) (float64, error) {
	pids, err := tree(pid)
	if err != nil {
		return 0, err
	}
	total := 0.0
	for _, p := range pids {
		n, err := kib(fmt.Sprintf("/proc/%d/smaps_rollup", p), "Pss:")
		if err != nil {
			if p == pid {
				return 0, err
			}
			continue // it ended meanwhile
		}
		total += n
	}
	return total, nil
}
