package campaign

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"mailcutover/test/cluster"
	"mailcutover/test/peers"
)

const (
	nodes   = 3
	servers = 3 // of Redis, each with a Sentinel
)

// platformAt are the addresses of the platforms.
var platformAt = map[string]string{cluster.Exchange: "10.77.1.1", cluster.OX: "10.77.1.2"}

// World is the ground of a campaign: the hosts, and the clocks of those with Redis. Its methods are
// safe for concurrent use, but for Disks.
type World struct {
	Net       *Network
	Nodes     []peers.Host
	Servers   []peers.Host
	Directory peers.Host
	clocks    []string // file with the offset of each server's clock
}

// NewWorld makes the hosts, in the network namespace of this process.
func NewWorld(t peers.TB) *World {
	t.Helper()
	w := &World{}
	var err error
	if w.Net, err = LayNetwork(platformAt[cluster.Exchange], platformAt[cluster.OX]); err != nil {
		t.Fatalf("%v", err)
	}
	for i := range nodes {
		h, err := w.Net.Host(fmt.Sprintf("node%d", i+1), fmt.Sprintf("10.77.2.%d", i+1))
		if err != nil {
			t.Fatalf("%v", err)
		}
		w.Nodes = append(w.Nodes, h)
	}
	if w.Directory, err = w.Net.Host("directory", "10.77.4.1"); err != nil {
		t.Fatalf("%v", err)
	}
	// faketime doesn't go together with the allocator of Debian's redis-server.
	peers.Need(t, "toolchain")
	dir := peers.TempDir(t, "clock")
	clock := filepath.Join(dir, "clock.so")
	if err := do("gcc -shared -fPIC -O2 -o " + clock + " testdata/clock.c"); err != nil {
		t.Fatalf("%v", err)
	}
	for i := range servers {
		h, err := w.Net.Host(fmt.Sprintf("redis%d", i+1), fmt.Sprintf("10.77.3.%d", i+1))
		if err != nil {
			t.Fatalf("%v", err)
		}
		w.clocks = append(w.clocks, filepath.Join(dir, fmt.Sprintf("offset%d", i+1)))
		h.Env = []string{"LD_PRELOAD=" + clock, "CLOCK_OFFSET=" + w.clocks[i]}
		if err := w.SetClock(i, 0); err != nil {
			t.Fatalf("%v", err)
		}
		w.Servers = append(w.Servers, h)
	}
	return w
}

// SetClock puts the clock of a host with Redis forward, or back.
func (w *World) SetClock(server int, by time.Duration) error {
	f, err := os.OpenFile(w.clocks[server], os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("set a clock: %w", err)
	}
	defer f.Close()
	// In place, as one write: the processes have the file mapped.
	if err := binary.Write(f, binary.NativeEndian, int64(by/time.Second)); err != nil {
		return fmt.Errorf("set a clock: %w", err)
	}
	return nil
}

// Disks makes a new disk for each node, which end with the test.
func (w *World) Disks(t peers.TB) (all []*Disk) {
	t.Helper()
	dir := peers.TempDir(t, "disks")
	if err := do("mount -t tmpfs tmpfs " + dir); err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() { _ = do("umount " + dir) })
	for i := range nodes {
		d, err := NewDisk(dir, fmt.Sprintf("node%d", i+1))
		if err != nil {
			t.Fatalf("%v", err)
		}
		t.Cleanup(func() { _ = d.Close() })
		all = append(all, d)
	}
	return all
}

// Ground is where a cluster stands on these disks.
func (w *World) Ground(disks []*Disk) *cluster.Ground {
	g := &cluster.Ground{Nodes: w.Nodes, Servers: w.Servers, Platforms: platformAt}
	for _, d := range disks {
		g.Data = append(g.Data, filepath.Join(d.At, "data"))
	}
	return g
}
