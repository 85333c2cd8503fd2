package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"mailcutover/test/cluster"
)

// measure is one thing that is used.
type measure struct {
	name   string
	unit   string
	scale  float64 // what one unit is
	metric string  // of a node's /metrics; empty: it is read elsewhere
	// spare is by how much it may be more at the end than at the beginning: so much of what it was
	// then, and so many units. bound: it is held to that; else it is told only.
	spare float64
	units float64
	bound bool
}

const mebi = 1 << 20

// resting is how many goroutines the four listeners of a node keep at most for their next
// connections, as many as were once needed at a time (package proxy/listen).
const resting = 4 * 32

// measures are what is looked at. What nodes keep on purpose grows with what they do: records
// of the ledger until they are five minutes old, retained copies up to a bound, and records of
// people's acts for ever.
var measures = []measure{
	{name: "goroutines", scale: 1, metric: "go_goroutines", units: 5 + resting, bound: true},
	{name: "descriptors", scale: 1, metric: "process_open_fds", units: 5, bound: true},
	{name: "heap", unit: "MiB", scale: mebi, metric: "go_memstats_heap_alloc_bytes", spare: 0.25, units: 2, bound: true},
	{name: "resident", unit: "MiB", scale: mebi, metric: "process_resident_memory_bytes", spare: 0.25, units: 16, bound: true},
	{name: "spool's messages", scale: 1, metric: "mailcutover_spool_messages", bound: true},
	{name: "disk: spool", unit: "MiB", scale: mebi, units: 4, bound: true},
	{name: "disk: ledger", unit: "MiB", scale: mebi, units: 32, bound: true},
	{name: "disk: retained", unit: "MiB", scale: mebi, units: 80, bound: true},
	{name: "disk: operations", unit: "MiB", scale: mebi, units: 4, bound: true},
	{name: "disk: replica", unit: "MiB", scale: mebi, units: 4, bound: true},
	{name: "disk: audit", unit: "MiB", scale: mebi},
	{name: "disk: other", unit: "MiB", scale: mebi},
}

// ofRedis are what is looked at of Redis.
var ofRedis = []measure{
	{name: "connections", scale: 1, metric: "connected_clients", units: 5, bound: true},
	{name: "memory", unit: "MiB", scale: mebi, metric: "used_memory"},
	{name: "commands", scale: 1, metric: "total_commands_processed"},
	{name: "keys", scale: 1, metric: "keys"},
}

// redis names the table's server in a usage.
const redis = "redis"

// key is a measure of a process.
type key struct{ process, name string }

// usage is what was used, in units of 1. nil: nothing was looked at.
type usage map[key]float64

// look asks all nodes and Redis.
func look(ctx context.Context, c *cluster.Cluster) (usage, error) {
	u := make(usage)
	for _, n := range c.Nodes {
		page, err := n.Page(ctx, "/metrics")
		if err != nil {
			return nil, err
		}
		if err := u.metrics(n.Name, page); err != nil {
			return nil, err
		}
		if err := u.disk(n.Name, n.Data()); err != nil {
			return nil, err
		}
	}
	return u, u.redis(c.Servers[0].Addr)
}

// metrics takes over what a page of metrics has.
func (u usage) metrics(node, page string) error {
	found := make(map[string]float64)
	for line := range strings.Lines(page) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if v, err := strconv.ParseFloat(value, 64); err == nil {
			found[name] = v
		}
	}
	for _, m := range measures {
		if m.metric == "" {
			continue
		}
		v, ok := found[m.metric]
		if !ok {
			return fmt.Errorf("%s has no metric %s", node, m.metric)
		}
		u[key{node, m.name}] = v
	}
	return nil
}

// disk adds up the room that a node's directory takes, by what lies in it.
func (u usage) disk(node, dir string) error {
	for _, m := range measures {
		if m.metric == "" {
			u[key{node, m.name}] = 0
		}
	}
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // removed meanwhile
		}
		if err != nil {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		stat, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return fmt.Errorf("room of %s: not a file of this system", path)
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		part, _, _ := strings.Cut(rel, string(os.PathSeparator))
		k := key{node, "disk: " + part}
		if _, known := u[k]; !known {
			k.name = "disk: other"
		}
		u[k] += float64(stat.Blocks) * 512 // st_blocks counts those, whatever the file system's are
		return nil
	})
}

// redis asks the table's server.
func (u usage) redis(addr string) error {
	info := bufio.NewScanner(strings.NewReader(cluster.Ask(addr, "INFO everything")))
	found := make(map[string]float64)
	for info.Scan() {
		name, value, _ := strings.Cut(info.Text(), ":")
		if name == "db0" { // keys=7,expires=0,...
			name = "keys"
			value, _, _ = strings.Cut(strings.TrimPrefix(value, "keys="), ",")
		}
		if v, err := strconv.ParseFloat(strings.TrimSpace(value), 64); err == nil {
			found[name] = v
		}
	}
	for _, m := range ofRedis {
		v, ok := found[m.metric]
		if !ok {
			return fmt.Errorf("redis doesn't say its %s", m.metric)
		}
		u[key{redis, m.name}] = v
	}
	return nil
}

// most returns the greater value of each.
func (u usage) most(other usage) usage {
	m := maps.Clone(other)
	for k, v := range u {
		m[k] = max(m[k], v)
	}
	return m
}

// least returns the lesser value of each.
func (u usage) least(other usage) usage {
	m := maps.Clone(other)
	for k, v := range u {
		m[k] = min(m[k], v)
	}
	return m
}

// shrinks reports whether a later look has less of anything that is held to a bound, by more than
// what is allocated and freed at any time.
func (u usage) shrinks(later usage) bool {
	for k, v := range u {
		if now := later[k]; now < v && (v < mebi || v-now > mebi/16) {
			return true
		}
	}
	return false
}

// String is one line, of the node that uses most of each.
func (u usage) String() string {
	var parts []string
	for _, m := range measures {
		most := 0.0
		for k, v := range u {
			if k.name == m.name && k.process != redis {
				most = max(most, v)
			}
		}
		parts = append(parts, strings.TrimSpace(fmt.Sprintf("%s %.4g %s", m.name, most/m.scale, m.unit)))
	}
	for _, m := range ofRedis {
		parts = append(parts, strings.TrimSpace(fmt.Sprintf("redis %s %.4g %s", m.name, u[key{redis, m.name}]/m.scale, m.unit)))
	}
	return strings.Join(parts, ", ")
}

// row is a measure of a process at the beginning, at most, and at the end, in its unit.
type row struct {
	measure
	process          string
	begin, peak, end float64
}

// left reports whether more is used at the end than may be.
func (r *row) left() bool { return r.bound && r.end > r.allowed() }

// allowed is how much may be used at the end.
func (r *row) allowed() float64 { return r.begin*(1+r.spare) + r.units }

// what says what did not come back.
func (r *row) what() string {
	return strings.TrimSpace(fmt.Sprintf("%s of %s: %.4g at the beginning, %.4g at the end, %.4g allowed %s", r.name, r.process, r.begin, r.end, r.allowed(), r.unit))
}

// compare makes a row for each measure of each process, in the order of the measures.
func compare(begin, peak, end usage) (rows []row) {
	processes := make(map[string]bool)
	for k := range end {
		processes[k.process] = true
	}
	add := func(m measure, process string) {
		k := key{process, m.name}
		rows = append(rows, row{measure: m, process: process, begin: begin[k] / m.scale, peak: max(peak[k], begin[k], end[k]) / m.scale, end: end[k] / m.scale})
	}
	names := slices.Sorted(maps.Keys(processes))
	for _, m := range measures {
		for _, p := range names {
			if p != redis {
				add(m, p)
			}
		}
	}
	for _, m := range ofRedis {
		add(m, redis)
	}
	return rows
}
