package main

import (
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"

	"mailcutover/bench/figure"
	"mailcutover/rollback/verify"
	"mailcutover/routing"
	"mailcutover/test/mailboxes"
	"mailcutover/test/peers"
)

// verified measures comparing the mailboxes of an agency between two Dovecots: the first time,
// when Dovecot has no index of them yet, and again.
func verified(t peers.TB, o options) figure.Part {
	const settings = "auth_master_user_separator = *\npassdb {\n driver = static\n master = yes\n args = password=master\n}\n"
	const limits = "namespace inbox {\n inbox = yes\n separator = /\n}\nservice imap {\n service_count = 100000\n}\nservice imap-login {\n service_count = 0\n}\nservice auth {\n client_limit = 2000\n}\n"
	target := peers.StartDovecot(t, peers.DovecotOptions{First: settings, Extra: limits})
	source := peers.StartDovecot(t, peers.DovecotOptions{First: settings, Extra: limits})
	boxes, each := max(20, int(o.turn.Seconds()*250)), max(50, int(o.turn.Seconds()*125)) // 1,000 with 500 in a full turn
	rows := make(benchNames, boxes)
	for i := range rows {
		rows[i] = benchRow(t, i+1)
	}
	seeding := time.Now()
	for i := range rows {
		m := mailboxes.Make(string(rows[i].Addresses[0]), mailboxes.Options{Seed: 1, Messages: each, Until: time.Now().Add(-30 * 24 * time.Hour)})
		if err := m.WriteMaildir(filepath.Join(source.Dir(), m.Address)); err != nil {
			t.Fatalf("%v", err)
		}
		if err := linkMaildir(filepath.Join(source.Dir(), m.Address), filepath.Join(target.Dir(), m.Address)); err != nil {
			t.Fatalf("%v", err)
		}
	}
	fmt.Fprintf(o.progress, "%d mailboxes with %d messages each are on both sides after %v\n", boxes, each, time.Since(seeding).Round(time.Second))
	dir, err := os.MkdirTemp("", "mailcutover-bench-")
	if err != nil {
		t.Fatalf("directory for the bench of verify: %v", err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Logf("remove directory of the bench of verify: %v", err)
		}
	})
	opts := verify.Options{
		Names: rows, Folder: dir, Workers: 8,
		Agencies: []verify.Agency{{ID: "bench", Source: benchStore(t, "exchange", source), Target: benchStore(t, "ox", target), Since: time.Now(), Rows: func() iter.Seq[routing.Row] { return slices.Values(rows) }}},
	}
	var seconds, peaks []float64
	for i := range 2 {
		took, peak := compareAll(t, opts, boxes)
		seconds, peaks = append(seconds, took.Seconds()), append(peaks, peak)
		fmt.Fprintf(o.progress, "turn %d: %v\n", i+1, took.Round(time.Millisecond))
	}
	messages := float64(2 * boxes * each)
	return figure.Part{
		Name: fmt.Sprintf("Comparing %d mailboxes with %d messages each between two Dovecots", boxes, each),
		Notes: []string{
			"All mailboxes on both sides, eight at once, the Dovecots on the same machine. The first time Dovecot has no index of the Maildirs and opens each file; the second time it has.",
			"Memory: what the Go runtime uses, least before and most during a turn, by difference. Ratio: to the bar.",
		},
		Figures: []figure.Figure{
			figure.New("first time", "s", seconds[0]).AtMost(180),
			figure.New("second time", "s", seconds[1]),
			figure.New("messages looked at, first time", "messages/s", messages/seconds[0]),
			figure.New("memory", "MiB", peaks...),
		},
	}
}

// compareAll compares all mailboxes, and returns how long it took and the memory that it added,
// in MiB.
func compareAll(t peers.TB, o verify.Options, boxes int) (took time.Duration, peak float64) {
	t.Helper()
	runtime.GC()
	before, most := inUse(), uint64(0)
	var mu sync.Mutex
	o.Progress = func(verify.Progress) {
		mu.Lock()
		defer mu.Unlock()
		most = max(most, inUse())
	}
	began := time.Now()
	report, err := verify.Run(t.Context(), o)
	if err != nil {
		t.Fatalf("%v", err)
	}
	if report.Compared != boxes || len(report.Findings) > 0 || !report.Counts.Same() || report.Counts.Source == 0 {
		t.Fatalf("compared: %+v", report)
	}
	return time.Since(began), float64(most-min(most, before)) / (1 << 20)
}

// linkMaildir makes a Maildir of the same files, with directories of its own.
func linkMaildir(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		at := filepath.Join(to, rel)
		if !d.IsDir() {
			return os.Link(path, at)
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if err := os.Mkdir(at, info.Mode().Perm()); err != nil {
			return err
		}
		if owner, ok := info.Sys().(*syscall.Stat_t); ok && os.Getuid() == 0 {
			return os.Chown(at, int(owner.Uid), int(owner.Gid))
		}
		return nil
	})
}

// benchNames are the mailboxes of the bench; it implements verify.Names.
type benchNames []routing.Row

// Whose implements verify.Names.
func (n benchNames) Whose(address string) (routing.MailboxID, routing.AgencyID, bool) {
	for i := range n {
		if string(n[i].Addresses[0]) == address {
			return n[i].Mailbox, "bench", false
		}
	}
	return routing.MailboxID{}, "", false
}

// Primary implements verify.Names.
func (n benchNames) Primary(routing.AgencyID, routing.MailboxID) routing.Address { return "" }
