package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"mailcutover/routing"
	"mailcutover/routing/redistable"
	"mailcutover/routing/replica"
	"mailcutover/routing/table"
)

// connect opens the table once Redis answers.
func connect(ctx context.Context, dir string) (*redistable.Table, routing.Position, error) {
	var last error
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		t, err := redistable.Open(ctx, redistable.Options{URL: "unix://" + socket(dir) + "?db=0", AllowNoPassword: true})
		if err != nil {
			return nil, routing.Position{}, err
		}
		pos, err := t.Init(ctx)
		if err == nil {
			return t, pos, nil
		}
		last = err
		t.Close()
	}
	return nil, routing.Position{}, fmt.Errorf("redis doesn't answer: %w", last)
}

// fill puts the agencies into the table.
func fill(ctx context.Context, dir string, s size) error {
	t, pos, err := connect(ctx, dir)
	if err != nil {
		return err
	}
	defer t.Close()
	c := table.Change{ID: "domains", Incarnation: pos.Incarnation, Mapped: pos.Mapped, Who: "bench", What: "fill", Reason: "bench"}
	for a := range s.agencies {
		c.Domains = append(c.Domains, routing.Domain{Name: fmt.Sprintf("agency%d.example", a)})
	}
	if pos, err = t.Change(ctx, c); err != nil {
		return err
	}
	for a := range s.agencies {
		m, err := mapping(a, s.mailboxes)
		if err != nil {
			return err
		}
		if err := t.PutMapping(ctx, m); err != nil {
			return err
		}
		record, err := routing.NewAgency(agencyID(a), "exchange", "ox")
		if err != nil {
			return err
		}
		record.Mapping = m.Digest()
		pos, err = t.Change(ctx, table.Change{
			ID: "add " + string(record.ID), Incarnation: pos.Incarnation, Mapped: pos.Mapped,
			Agencies: []routing.Agency{record}, Who: "bench", What: "add", Reason: "bench",
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// node is a replica that runs.
type node struct {
	*replica.Replica
	stop func()
}

func start(ctx context.Context, t table.Table, dir string) (node, error) {
	r, err := replica.Open(replica.Options{Table: t, Dir: dir, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		return node{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { defer close(done); r.Run(ctx) }()
	return node{r, func() { cancel(); <-done }}, nil
}

// measure prints the figures.
func measure(ctx context.Context, dir string, s size, stdout io.Writer) error {
	t, pos, err := connect(ctx, dir)
	if err != nil {
		return err
	}
	defer t.Close()
	copied := filepath.Join(dir, "replica")
	line := func(what string, format string, args ...any) {
		fmt.Fprintf(stdout, "%-44s "+format+"\n", append([]any{what}, args...)...)
	}
	line("memory before", "%s", memory())

	began := time.Now()
	n, err := start(ctx, t, copied)
	if err != nil {
		return err
	}
	if err := n.Wait(ctx, pos); err != nil {
		return err
	}
	line("loaded from Redis", "%.2f s", time.Since(began).Seconds())
	line("memory after loading", "%s", memory())
	for n.Status().OnDisk != pos {
		if err := n.Status().DiskErr; err != nil {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
	line("and written to disk", "%.2f s", time.Since(began).Seconds())
	line("memory then", "%s", memory())
	if err := decide(n.State(), s, line); err != nil {
		return err
	}
	debug.FreeOSMemory()
	line("memory after what is free was given back", "%s", memory())
	if pos, err = change(ctx, t, n, s, line); err != nil {
		return err
	}
	n.stop()
	debug.FreeOSMemory()

	began = time.Now()
	again, err := replica.Open(replica.Options{Table: t, Dir: copied})
	if err != nil {
		return err
	}
	if got := again.State().Position(); got != pos {
		return fmt.Errorf("disk copy at %+v, want %+v", got, pos)
	}
	line("loaded from disk", "%.2f s", time.Since(began).Seconds())
	return nil
}

// change gives one agency another mapping, with one mailbox more.
func change(ctx context.Context, t table.Table, n node, s size, line func(string, string, ...any)) (routing.Position, error) {
	m, err := mapping(0, s.mailboxes+1)
	if err != nil {
		return routing.Position{}, err
	}
	if err := t.PutMapping(ctx, m); err != nil {
		return routing.Position{}, err
	}
	debug.FreeOSMemory()
	before := memory()
	old := n.State()
	record, _ := old.Agency(agencyID(0))
	record.Mapping = m.Digest()
	pos := old.Position()
	pos, err = t.Change(ctx, table.Change{
		ID: "grow", Incarnation: pos.Incarnation, Mapped: pos.Mapped,
		Agencies: []routing.Agency{record}, Who: "bench", What: "grow", Reason: "bench",
	})
	if err != nil {
		return pos, err
	}
	began := time.Now()
	if err := n.Wait(ctx, pos); err != nil {
		return pos, err
	}
	line(fmt.Sprintf("a new mapping of %d KiB followed", m.Size()>>10), "%.0f ms", float64(time.Since(began).Microseconds())/1000)
	debug.FreeOSMemory()
	line("memory before it", "%s", before)
	line("memory after it", "%s", memory())
	runtime.KeepAlive(old) // the replica's readers may hold it as well
	return pos, nil
}

// decide asks for random mailboxes, nine times, and prints the time of one decision.
func decide(s *routing.State, all size, line func(string, string, ...any)) error {
	const asked = 100_000
	for _, what := range []string{"address", "login"} {
		var times []time.Duration
		var allocated runtime.MemStats
		runtime.ReadMemStats(&allocated)
		before := allocated.Mallocs
		for run := range 9 {
			r := rand.New(rand.NewPCG(uint64(run), 1))
			names := make([]string, asked)
			var text strings.Builder
			for i := range names {
				m := row(r.IntN(all.agencies), r.IntN(all.mailboxes))
				names[i] = string(m.Addresses[r.IntN(2)])
				if what == "login" {
					names[i] = string(m.Logins[0])
				}
				text.WriteString(names[i])
			}
			rest := text.String() // side by side: what a peer just sent is in the cache
			for i, n := range names {
				names[i], rest = rest[:len(n)], rest[len(n):]
			}
			runtime.ReadMemStats(&allocated)
			before = allocated.Mallocs
			began := time.Now()
			for _, name := range names {
				var d routing.Decision
				if what == "login" {
					d = s.DecideLogin(routing.Login(name))
				} else {
					d = s.DecideAddress(routing.Address(name), "+")
				}
				if d.Reason != routing.ReasonOpen {
					return fmt.Errorf("%s: %s", name, d.Explain())
				}
			}
			times = append(times, time.Since(began)/asked)
			runtime.ReadMemStats(&allocated)
		}
		line("a decision for a random "+what, "%d ns median of nine, %d ns at best, %.3f allocations",
			median(times).Nanoseconds(), times[0].Nanoseconds(), float64(allocated.Mallocs-before)/asked)
	}
	return nil
}

// memory returns the resident memory as the kernel counts it, and how much of it is in
// large pages.
func memory() string {
	resident, err := kernelCount("/proc/self/status", "VmRSS:")
	if err != nil {
		return err.Error()
	}
	large, err := kernelCount("/proc/self/smaps_rollup", "AnonHugePages:")
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%.1f MiB, %.0f of it in large pages", resident, large)
}

// kernelCount returns a line of a file of /proc, in MiB.
func kernelCount(file, name string) (float64, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	for l := range bytes.Lines(b) {
		if v, ok := bytes.CutPrefix(l, []byte(name)); ok {
			var kib float64
			_, err := fmt.Sscan(string(v), &kib)
			return kib / 1024, err
		}
	}
	return 0, fmt.Errorf("%s: no line %s", file, name)
}
