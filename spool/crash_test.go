package spool

import (
	"errors"
	"flag"
	"fmt"
	"iter"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"mailcutover/internal/durable"
	"mailcutover/internal/durable/memdisk"
	"mailcutover/internal/seal"
)

var seeds = flag.Int("spool.seeds", 2, "number of random workloads that are crashed at every operation")

const crashSteps = 40

// TestCrashAtEveryOperation crashes the store before each operation that changes
// something, starts again with each kind of loss, and looks for what custody wants: all
// that was acknowledged, whole, in order, and nothing else.
func TestCrashAtEveryOperation(t *testing.T) {
	// 45: an outcome in an old segment, and the one that replaced it not yet fsynced.
	crashEverywhere(t, append([]uint64{45}, slices.Collect(count(*seeds))...), func(*world) {})
}

// The same with sealed bodies, and another first key at each start: what was sealed with the keys
// before is held meanwhile, moved by compactions, and delivered.
func TestCrashAtEveryOperationSealed(t *testing.T) {
	var lines []string
	var keys []*seal.Keys
	for i := range 3 {
		lines = append([]string{seal.NewKey(fmt.Sprintf("key-%d", i+1))}, lines...)
		keys = append(keys, sealKeys(t, lines...))
	}
	crashEverywhere(t, slices.Collect(count((*seeds+1)/2)), func(w *world) { w.keys = keys })
}

// crashEverywhere crashes the workload of each seed before each operation that changes something.
func crashEverywhere(t *testing.T, seeds []uint64, prepare func(*world)) {
	operations, points := 0, 0
	for _, seed := range seeds {
		made := func() *world {
			w := newWorld(t, seed, nil)
			prepare(w)
			return w
		}
		whole := made()
		if err := whole.play(crashSteps); err != nil {
			t.Fatalf("seed %d without a crash: %v", seed, err)
		}
		n := whole.disk.Operations()
		operations += n
		for k := 1; k <= n; k++ {
			w := made()
			w.disk.CrashBefore(k)
			if err := w.play(crashSteps); !errors.Is(err, memdisk.ErrCrashed) && !w.disk.Crashed() {
				t.Fatalf("seed %d, crash before operation %d: %v", seed, k, err)
			}
			for _, loss := range memdisk.Losses() {
				points++
				for _, wrong := range w.check(w.disk.Restart(loss), loss) {
					t.Errorf("seed %d, crash before operation %d of %d, %s: %s", seed, k, n, loss, wrong)
				}
			}
			points += crashInRecovery(t, w, k%6 == 0)
			if t.Failed() {
				return
			}
		}
	}
	t.Logf("%d workloads, %d operations, %d crashes tried", len(seeds), operations, points)
}

// count yields 0 to n-1.
func count(n int) iter.Seq[uint64] {
	return func(yield func(uint64) bool) {
		for i := range uint64(n) {
			if !yield(i) {
				return
			}
		}
	}
}

// crashInRecovery crashes the start after a crash before each of its operations, and
// starts once more.
func crashInRecovery(t *testing.T, w *world, wanted bool) (points int) {
	if !wanted {
		return 0
	}
	for _, first := range []memdisk.Loss{memdisk.LoseNothing, memdisk.LoseAll, memdisk.LoseHalf, memdisk.LoseFirst} {
		for k := 1; ; k++ {
			disk := w.disk.Restart(first)
			disk.CrashBefore(k)
			o := w.options
			o.Disk = disk
			if s, err := Open(o); err == nil {
				// What the process before had not fsynced may not be built on.
				for n := s.worth(); n != 0 && s.compactSegment(n) == nil; n = s.worth() {
				}
				s.flush()
				s.Close()
			}
			if !disk.Crashed() {
				break
			}
			for _, loss := range []memdisk.Loss{memdisk.LoseAll, memdisk.LoseSecond} {
				points++
				for _, wrong := range w.check(disk.Restart(loss), loss) {
					t.Errorf("crash before operation %d of a start after %s, %s: %s", k, first, loss, wrong)
				}
			}
		}
	}
	return points
}

// forgetful swallows fsyncs of one kind.
type forgetful struct {
	durable.Disk
	w    *world
	file func(path string) bool
	dir  func(path string) bool
}

func (d *forgetful) Create(path string) (durable.File, error) {
	f, err := d.Disk.Create(path)
	if err == nil && d.file != nil {
		f = &forgetfulFile{f, func() bool { return d.file(path) }}
	}
	return f, err
}

func (d *forgetful) SyncDir(path string) error {
	if d.dir != nil && d.dir(path) {
		return nil
	}
	return d.Disk.SyncDir(path)
}

type forgetfulFile struct {
	durable.File
	forget func() bool
}

func (f *forgetfulFile) Sync() error {
	if f.forget() {
		return nil
	}
	return f.File.Sync()
}

// TestEveryFsyncIsNeeded leaves out one kind of fsync after the other: each time the
// crashes must find a message that is lost, or one that comes back.
func TestEveryFsyncIsNeeded(t *testing.T) {
	inJournal := func(path string) bool { return strings.HasSuffix(path, ".log") }
	for _, c := range []struct {
		name string
		seed uint64 // first workload tried: most need the right one
		file func(w *world, path string) bool
		dir  func(w *world, path string) bool
	}{
		{name: "bytes of a body", file: func(_ *world, path string) bool { return strings.HasSuffix(path, bodySuffix) }},
		{name: "directory of bodies", dir: func(_ *world, path string) bool { return filepath.Base(path) == bodiesDir }},
		{name: "journal", file: func(w *world, path string) bool { return inJournal(path) }},
		{name: "journal, of a group", file: func(w *world, path string) bool { return inJournal(path) && !compacting(w) }},
		{name: "journal, of a compaction", seed: 27, file: func(w *world, path string) bool { return inJournal(path) && compacting(w) }},
		{name: "directory of the journal, after a new segment", dir: func(w *world, path string) bool {
			return filepath.Base(path) == journalDir && !removing(w)
		}},
		{name: "directory of the journal, after a removal", seed: 80, dir: func(w *world, path string) bool {
			return filepath.Base(path) == journalDir && removing(w)
		}},
		{name: "directory of the spool", dir: func(_ *world, path string) bool { return path == "/spool" }},
		{name: "directory above the spool", dir: func(_ *world, path string) bool { return path == "/" }},
	} {
		t.Run(c.name, func(t *testing.T) {
			for seed := c.seed; seed < c.seed+200; seed++ {
				make := func() *world {
					w := newWorld(t, seed, nil)
					w.wrap = func(d durable.Disk) durable.Disk {
						f := &forgetful{Disk: d, w: w}
						if c.file != nil {
							f.file = func(path string) bool { return c.file(w, path) }
						}
						if c.dir != nil {
							f.dir = func(path string) bool { return c.dir(w, path) }
						}
						return f
					}
					return w
				}
				whole := make()
				if err := whole.play(crashSteps); err != nil {
					t.Fatal(err)
				}
				for k := whole.disk.Operations(); k > 0; k-- {
					w := make()
					w.disk.CrashBefore(k)
					w.play(crashSteps)
					for _, loss := range memdisk.Losses() {
						if wrong := w.check(w.disk.Restart(loss), loss); len(wrong) > 0 {
							t.Logf("found with seed %d before operation %d, %s: %s", seed, k, loss, wrong[0])
							return
						}
					}
				}
			}
			t.Error("nothing was lost without it")
		})
	}
}

// unsettled swallows the fsync of what the process before wrote.
type unsettled struct{ durable.Disk }

func (d unsettled) OpenAt(path string) (durable.Random, error) {
	r, err := d.Disk.OpenAt(path)
	return unsettledFile{r}, err
}

type unsettledFile struct{ durable.Random }

func (unsettledFile) Sync() error { return nil }

// TestAKillThenAPowerCut lets a start after a kill compact, and then the power go. What
// the killed process had not fsynced must be safe by then, and isn't if the start doesn't
// see to it.
func TestAKillThenAPowerCut(t *testing.T) {
	try := func(wrap func(durable.Disk) durable.Disk) (wrong []string) {
		for seed := range uint64(3) {
			whole := newWorld(t, seed, nil)
			if err := whole.play(crashSteps); err != nil {
				t.Fatal(err)
			}
			for k := range whole.disk.Operations() {
				w := newWorld(t, seed, nil)
				w.disk.CrashBefore(k + 1)
				w.play(crashSteps)
				disk := w.disk.Restart(memdisk.LoseNothing)
				o := w.options
				o.Disk = wrap(disk)
				s := openStore(t, o)
				for n := w.some(s); n != 0 && s.compactSegment(n) == nil; n = w.some(s) {
				}
				wrong = append(wrong, w.check(disk.Restart(memdisk.LoseAll), memdisk.LoseAll)...)
			}
		}
		return wrong
	}
	for _, wrong := range try(func(d durable.Disk) durable.Disk { return d }) {
		t.Error(wrong)
	}
	if len(try(func(d durable.Disk) durable.Disk { return unsettled{d} })) == 0 {
		t.Error("nothing was lost without the fsync at the start")
	}
}

func compacting(w *world) bool { return w.compacting }
func removing(w *world) bool   { return w.compacting && w.removed }
