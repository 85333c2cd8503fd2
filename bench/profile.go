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

// profile runs a node inside this process, under a load, and writes its profiles: CPU,
// allocations, locks and blocking. The node itself has no place to ask for them. The load
// is messages that stream through for one turn; with only "retained", copies are kept of
// them; with only "spool" the spool takes them and then gives them back; with only "logins" they are
// logins, without TLS and with it.
func profile(t peers.TB, o options, only, dir string) {
	peers.Need(t, "smtp-source", "smtp-sink")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatalf("directory for profiles: %v", err)
	}
	sink := peers.StartSink(t)
	runtime.SetMutexProfileFraction(100)
	runtime.SetBlockProfileRate(int(10 * time.Microsecond))
	if only == "spool" {
		n := startHolder(t, sink.Addr, within)
		open := n.hold(t)
		warm := max(o.warmUp, sessions)
		rate := numbered(t, n.s.addr(), warm)
		messages := min(max(int(rate*o.turn.Seconds()), sessions), heldNames-warm)
		record(t, o, dir, "accept-", func() int { numbered(t, n.s.addr(), messages); return messages })
		record(t, o, dir, "replay-", func() int { n.replayed(t, open()); return messages + warm })
		return
	}
	s := newSettings(t, sink.Addr)
	if only == "logins" {
		s.certificate(t)
		s.imap, s.imapPort, s.imapsPort = startFakeIMAP(t).addr, peers.Port(t), peers.Port(t)
		within(t, s)
		for secure, port := range map[bool]int{false: s.imapPort, true: s.imapsPort} {
			addr := fmt.Sprintf("127.0.0.1:%d", port)
			peers.WaitFor(t, startWithin, "login that is taken", func() bool { return loginOnce(addr, secure) == nil })
			record(t, o, dir, "logins-"+way(secure)+"-", func() int {
				n, err := together(loginWorkers, time.Now().Add(o.turn), logInUntil(addr, secure))
				if err != nil {
					t.Fatalf("logins, %s: %v", way(secure), err)
				}
				return n
			})
		}
		return
	}
	if only == "retained" {
		s.extra = retainedExtra
		within(t, s)
		s.cutOver(t)
		for _, size := range retainedSizes {
			c := contender{name: "mailcutover", addr: s.addr(), args: []string{"-F", s.message(t, size)}}
			c.warm(t, o)
			record(t, o, dir, fmt.Sprintf("retained-%d-", size>>10), func() int { send(t, c.addr, c.to, c.messages, c.args...); return c.messages })
		}
		return
	}
	within(t, s)
	c := contender{name: "mailcutover", addr: s.addr()}
	c.warm(t, o)
	record(t, o, dir, "", func() int { send(t, c.addr, c.to, c.messages); return c.messages })
}

// within starts a node inside this process, and fills its table.
func within(t peers.TB, s settings) {
	cfg, err := config.Load(s.write(t), nil)
	if err != nil {
		t.Fatalf("configuration of the node: %v", err)
	}
	log, err := os.Create(filepath.Join(s.dir, "log"))
	if err != nil {
		t.Fatalf("the node's log: %v", err)
	}
	d, err := daemon.Start(t.Context(), cfg, daemon.Options{Logger: slog.New(slog.NewJSONHandler(log, nil)), Version: admin.Version{Version: "bench"}})
	if err != nil {
		t.Fatalf("start the node: %v", err)
	}
	t.Cleanup(func() {
		defer log.Close()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 5*time.Second)
		defer cancel()
		if err := d.Shutdown(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Logf("stop the node: %v", err)
		}
	})
	s.fill(t)
}

// record writes the profiles of a load, which returns of how many messages or logins it was, in files
// that begin with a word.
func record(t peers.TB, o options, dir, word string, load func() int) {
	file := create(t, dir, word+"cpu.pprof")
	if err := pprof.StartCPUProfile(file); err != nil {
		t.Fatalf("start the CPU profile: %v", err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	began := time.Now()
	n := uint64(load())
	took := time.Since(began)
	runtime.ReadMemStats(&after)
	pprof.StopCPUProfile()
	if err := file.Close(); err != nil {
		t.Fatalf("write the CPU profile: %v", err)
	}
	for _, name := range []string{"allocs", "mutex", "block"} {
		file := create(t, dir, word+name+".pprof")
		if err := errors.Join(pprof.Lookup(name).WriteTo(file, 0), file.Close()); err != nil {
			t.Fatalf("write the profile %s: %v", name, err)
		}
	}
	fmt.Fprintf(o.progress, "%s%d in %s: %d allocations and %d bytes each, %d collections; profiles are in %s\n",
		word, n, took.Round(time.Millisecond), (after.Mallocs-before.Mallocs)/n, (after.TotalAlloc-before.TotalAlloc)/n, after.NumGC-before.NumGC, dir)
}

func create(t peers.TB, dir, name string) *os.File {
	f, err := os.Create(filepath.Join(dir, name))
	if err != nil {
		t.Fatalf("profile: %v", err)
	}
	return f
}
