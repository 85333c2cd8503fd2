package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"time"

	"mailcutover/admin"
	"mailcutover/internal/config"
	"mailcutover/internal/daemon"
	"mailcutover/test/peers"
)

// profile runs a node inside this process, sends it messages for one turn after a warm-up,
// and writes its profiles: CPU, allocations, locks and blocking. The node itself has no
// place to ask for them.
func profile(t peers.TB, o options, dir string) {
	peers.Need(t, "smtp-source", "smtp-sink")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatalf("directory for profiles: %v", err)
	}
	s := newSettings(t, peers.StartSink(t).Addr)
	cfg, err := config.Load(s.write(t), nil)
	if err != nil {
		t.Fatalf("configuration of the node: %v", err)
	}
	log, err := os.Create(filepath.Join(s.dir, "log"))
	if err != nil {
		t.Fatalf("the node's log: %v", err)
	}
	defer log.Close()
	d, err := daemon.Start(t.Context(), cfg, daemon.Options{Logger: slog.New(slog.NewJSONHandler(log, nil)), Version: admin.Version{Version: "bench"}})
	if err != nil {
		t.Fatalf("start the node: %v", err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 5*time.Second)
		defer cancel()
		if err := d.Shutdown(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Logf("stop the node: %v", err)
		}
	}()
	s.fill(t)
	c := contender{name: "mailcutover", addr: s.addr()}
	c.warm(t, o)

	runtime.SetMutexProfileFraction(100)
	runtime.SetBlockProfileRate(int(10 * time.Microsecond))
	file := create(t, dir, "cpu.pprof")
	if err := pprof.StartCPUProfile(file); err != nil {
		t.Fatalf("start the CPU profile: %v", err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	took := send(t, c.addr, c.messages)
	runtime.ReadMemStats(&after)
	pprof.StopCPUProfile()
	if err := file.Close(); err != nil {
		t.Fatalf("write the CPU profile: %v", err)
	}
	for _, name := range []string{"allocs", "mutex", "block"} {
		file := create(t, dir, name+".pprof")
		if err := errors.Join(pprof.Lookup(name).WriteTo(file, 0), file.Close()); err != nil {
			t.Fatalf("write the profile %s: %v", name, err)
		}
	}
	n := uint64(c.messages)
	fmt.Fprintf(o.progress, "%d messages in %s: %d allocations and %d bytes each, %d collections; profiles are in %s\n",
		n, took.Round(time.Millisecond), (after.Mallocs-before.Mallocs)/n, (after.TotalAlloc-before.TotalAlloc)/n, after.NumGC-before.NumGC, dir)
}

func create(t peers.TB, dir, name string) *os.File {
	f, err := os.Create(filepath.Join(dir, name))
	if err != nil {
		t.Fatalf("profile: %v", err)
	}
	return f
}
