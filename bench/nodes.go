package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"mailcutover/bench/figure"
	"mailcutover/test/cluster"
	"mailcutover/test/peers"
)

// nodes measures what each further node costs Redis, at rest and under load, and how long a switch
// takes that all of them have to hear of.
func nodes(t peers.TB, o options) figure.Part {
	part := figure.Part{
		Name: "One to ten nodes on one Redis",
		Notes: []string{
			fmt.Sprintf("Processes on one machine, the usual leases, two agencies of 1,000 mailboxes. Load: %d messages/s to the one that is armed, over all nodes, in turns of %s.", offered, 2*o.turn),
			"Commands are those that Redis counts, the ones within scripts included. CPU is the redis-server's.",
		},
	}
	program := build(t, peers.TempDir(t, "bench"), "./cmd/mailcutover")
	for _, n := range o.clusters {
		if err := peers.Run(t.Context(), "nodes", o.progress, func(t peers.TB) {
			part.Figures = append(part.Figures, scaled(t, o, program, n)...)
		}); err != nil {
			t.Fatalf("%v", err)
		}
		fmt.Fprintf(o.progress, "%d nodes measured\n", n)
	}
	return part
}

// scaled measures so many nodes.
func scaled(t peers.TB, o options, program string, n int) []figure.Figure {
	c := cluster.Start(t, cluster.Options{
		Program: program, Direct: true, Nodes: n,
		Settled: 15 * time.Minute, Armed: 10 * time.Second, Margin: 2 * time.Second, Limit: 2 * time.Minute,
		Platforms: map[string]string{cluster.Exchange: peers.StartSink(t).Addr, cluster.OX: peers.StartSink(t).Addr},
	})
	c.AddAgency(t, "moving", 1000)
	c.AddAgency(t, "other", 1000)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	name := fmt.Sprintf("%d nodes, ", n)
	if n == 1 {
		name = "1 node, "
	}
	settled := costs(t, c, 2*o.turn)
	if err := c.Arm(ctx, c.Nodes[0], "moving"); err != nil {
		t.Fatalf("arm: %v", err)
	}
	armed := costs(t, c, 2*o.turn)
	busy := load(ctx, c, "moving", 1000)
	pause(ctx, o.turn/2)
	before := busy.Taken()
	loaded := costs(t, c, 2*o.turn)
	messages := float64(busy.Taken()-before) / loaded.seconds
	var closed, told []float64
	for i := range max(2, o.switches/5) {
		began := time.Now()
		op := c.Switch(t, c.Nodes[i%n], "moving")
		closed, told = append(closed, op.ClosedFor), append(told, time.Since(began).Seconds())
	}
	stop, done := context.WithTimeout(ctx, 30*time.Second)
	defer done()
	if err := busy.Stop(stop); err != nil {
		t.Fatalf("%v", err)
	}
	list := []figure.Figure{
		figure.New(name+"Redis' commands at rest", "1/s", settled.commands),
		figure.New(name+"the same, one agency armed", "1/s", armed.commands),
		figure.New(name+"the same, CPU", "ms/s", armed.cpu),
		figure.New(name+"connections to Redis", "", loaded.connections),
	}
	if messages > 0 {
		list = append(list,
			figure.New(name+"messages to the armed agency", "1/s", messages),
			figure.New(name+"Redis' commands for an armed message", "", (loaded.commands-armed.commands)/messages),
			figure.New(name+"Redis' CPU for an armed message", "µs", 1000*(loaded.cpu-armed.cpu)/messages),
		)
	}
	return append(list,
		figure.New(name+"closed", "s", closed...).EachAtMost(1),
		figure.New(name+"switch told as done", "s", told...),
	)
}

// cost is what Redis did in a second.
type cost struct {
	commands    float64
	cpu         float64 // milliseconds
	connections float64 // at the end
	seconds     float64 // for which it was looked at
}

// costs looks at Redis for so long.
func costs(t peers.TB, c *cluster.Cluster, long time.Duration) cost {
	redis := c.Servers[0]
	read := func() (commands, clients float64, used time.Duration, at time.Time) {
		found := make(map[string]float64)
		for line := range strings.Lines(cluster.Ask(redis.Addr, "INFO")) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
			if v, err := strconv.ParseFloat(value, 64); err == nil {
				found[name] = v
			}
		}
		used, err := cpu(redis.PID())
		if err != nil || found["total_commands_processed"] == 0 {
			t.Fatalf("look at Redis: %v, %d values", err, len(found))
		}
		return found["total_commands_processed"], found["connected_clients"], used, time.Now()
	}
	commands, _, used, at := read()
	pause(t.Context(), long)
	after, clients, usedAfter, end := read()
	seconds := end.Sub(at).Seconds()
	return cost{
		commands: (after - commands - 2) / seconds, // INFO and QUIT
		cpu:      float64((usedAfter - used).Microseconds()) / 1000 / seconds, connections: clients - 1, seconds: seconds,
	}
}
