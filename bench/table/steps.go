package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"mailcutover/bench/figure"
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
	c := table.Change{ID: "domains", Incarnation: pos.Incarnation, Term: pos.Term, Mapped: pos.Mapped, Who: "bench", What: "fill", Reason: "bench"}
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
			ID: "add " + string(record.ID), Incarnation: pos.Incarnation, Term: pos.Term, Mapped: pos.Mapped,
			Agencies: []routing.Agency{record}, Who: "bench", What: "add", Reason: "bench",
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// redisMemory returns how many bytes Redis has in use.
func redisMemory(dir string) (float64, error) {
	conn, err := net.DialTimeout("unix", socket(dir), 10*time.Second)
	if err != nil {
		return 0, fmt.Errorf("memory of Redis: %w", err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return 0, err
	}
	if _, err := io.WriteString(conn, "INFO memory\r\nQUIT\r\n"); err != nil {
		return 0, fmt.Errorf("memory of Redis: %w", err)
	}
	info, err := io.ReadAll(conn)
	if err != nil {
		return 0, fmt.Errorf("memory of Redis: %w", err)
	}
	_, value, _ := strings.Cut(string(info), "\r\nused_memory:")
	value, _, _ = strings.Cut(value, "\r\n")
	bytes, err := strconv.ParseFloat(value, 64)
	if err != nil {
		return 0, fmt.Errorf("memory of Redis: %w", err)
	}
	return bytes, nil
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

// measure loads the table and returns the figures.
func measure(ctx context.Context, dir string, s size) (part figure.Part, err error) {
	t, pos, err := connect(ctx, dir)
	if err != nil {
		return part, err
	}
	defer t.Close()
	part.Name = "Table"
	part.Notes = []string{fmt.Sprintf("%d mailboxes in %d agencies, two addresses and one login each", s.agencies*s.mailboxes, s.agencies),
		"memory is resident memory (VmRSS) of a process that has a replica and nothing else"}
	add := func(f figure.Figure) { part.Figures = append(part.Figures, f) }
	copied := filepath.Join(dir, "replica")

	began := time.Now()
	n, err := start(ctx, t, copied)
	if err != nil {
		return part, err
	}
	if err := n.Wait(ctx, pos); err != nil {
		return part, err
	}
	used, err := redisMemory(dir)
	if err != nil {
		return part, err
	}
	add(figure.New("memory of Redis, used_memory", "MiB", used/(1<<20)))
	add(figure.New("loaded from Redis", "s", time.Since(began).Seconds()).AtMost(10))
	for n.Status().OnDisk != pos {
		if err := n.Status().DiskErr; err != nil {
			return part, err
		}
		time.Sleep(10 * time.Millisecond)
	}
	add(figure.New("and written to disk", "s", time.Since(began).Seconds()))
	resident, large, err := memory()
	if err != nil {
		return part, err
	}
	add(figure.New("memory after that", "MiB", resident).AtMost(400))
	add(figure.New("of it in large pages", "MiB", large))
	if err := decide(n.State(), s, add); err != nil {
		return part, err
	}
	debug.FreeOSMemory()
	if resident, _, err = memory(); err != nil {
		return part, err
	}
	add(figure.New("memory, what is free given back", "MiB", resident))
	if pos, err = change(ctx, t, n, s, add); err != nil {
		return part, err
	}
	n.stop()
	debug.FreeOSMemory()

	began = time.Now()
	again, err := replica.Open(replica.Options{Table: t, Dir: copied})
	if err != nil {
		return part, err
	}
	if got := again.State().Position(); got != pos {
		return part, fmt.Errorf("disk copy at %+v, want %+v", got, pos)
	}
	add(figure.New("loaded from disk", "s", time.Since(began).Seconds()))
	return part, nil
}

// change gives agencies, one after the other, a mapping with one mailbox more. States of
// before are kept, as sessions keep them.
func change(ctx context.Context, t table.Table, n node, s size, add func(figure.Figure)) (routing.Position, error) {
	pos := n.State().Position()
	var took, grown []float64
	var kept []*routing.State
	text := 0.0 // size of a mapping's text
	for a := range min(5, s.agencies) {
		old := n.State()
		kept = append(kept, old)
		record, _ := old.Agency(agencyID(a))
		var err error
		if record.Mapping, text, err = put(ctx, t, a, s.mailboxes+1); err != nil {
			return pos, err
		}
		debug.FreeOSMemory()
		before, _, err := memory()
		if err != nil {
			return pos, err
		}
		began := time.Now()
		pos, err = t.Change(ctx, table.Change{
			ID: "grow " + string(record.ID), Incarnation: pos.Incarnation, Term: pos.Term, Mapped: pos.Mapped,
			Agencies: []routing.Agency{record}, Who: "bench", What: "grow", Reason: "bench",
		})
		if err != nil {
			return pos, err
		}
		if err := n.Wait(ctx, pos); err != nil {
			return pos, err
		}
		took = append(took, float64(time.Since(began).Microseconds())/1000)
		debug.FreeOSMemory()
		after, _, err := memory()
		if err != nil {
			return pos, err
		}
		grown = append(grown, after-before)
	}
	runtime.KeepAlive(kept)
	add(figure.New("a new mapping, from change to decisions", "ms", took...))
	add(figure.New("text of a new mapping", "MiB", text))
	add(figure.New("memory that it adds, with its index", "MiB", grown...).AtMost(2 * text))
	return pos, nil
}

// put stores a mapping of so many mailboxes, of which nothing stays in this process.
func put(ctx context.Context, t table.Table, agency, mailboxes int) (routing.Digest, float64, error) {
	m, err := mapping(agency, mailboxes)
	if err != nil {
		return routing.Digest{}, 0, err
	}
	return m.Digest(), float64(m.Size()) / (1 << 20), t.PutMapping(ctx, m)
}

// decide asks for random mailboxes, in nine runs.
func decide(s *routing.State, all size, add func(figure.Figure)) error {
	const asked = 100_000
	for _, what := range []string{"address", "login"} {
		var times, allocations []float64
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
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
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
			times = append(times, float64(time.Since(began).Nanoseconds())/asked)
			runtime.ReadMemStats(&after)
			allocations = append(allocations, float64(after.Mallocs-before.Mallocs)/asked)
		}
		add(figure.New("decision for a random "+what, "ns", times...).AtMost(500))
		// Below one in a hundred are those of the replica, which goes on beside.
		add(figure.New("allocations for it", "", allocations...).AtMost(0.01))
	}
	return nil
}

// memory returns the resident memory as the kernel counts it, and how much of it is in
// large pages, in MiB.
func memory() (resident, large float64, err error) {
	if resident, err = kernelCount("/proc/self/status", "VmRSS:"); err != nil {
		return 0, 0, err
	}
	large, err = kernelCount("/proc/self/smaps_rollup", "AnonHugePages:")
	return resident, large, err
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
