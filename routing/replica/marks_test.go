package replica

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"mailcutover/internal/durable"
	"mailcutover/internal/durable/memdisk"
	"mailcutover/routing"
	"mailcutover/routing/table"
)

// forgetful is a disk whose files are never fsynced.
type forgetful struct{ *memdisk.Disk }

type unsynced struct{ durable.File }

func (unsynced) Sync() error { return nil }

func (f forgetful) Create(path string) (durable.File, error) {
	file, err := f.Disk.Create(path)
	return unsynced{file}, err
}

// acted is what a replica showed to those who act on it.
type acted struct {
	mu     sync.Mutex
	states []*routing.State
}

func (a *acted) saw(_, now *routing.State) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.states = append(a.states, now)
}

// forgotten says what of all that was acted on the copy on this disk doesn't know.
func (a *acted) forgotten(t *testing.T, disk *memdisk.Disk) (lost []string) {
	t.Helper()
	rep, err := Open(Options{Dir: "/d", Disk: disk, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	now, marks := rep.State(), rep.Marks()
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, s := range a.states {
		pos := s.Position()
		if !reached(routing.Position{Term: marks.Term, Revision: marks.Revision}, pos.Term, pos.Revision) {
			lost = append(lost, fmt.Sprintf("revision %d of term %d: marks are %d of %d", pos.Revision, pos.Term, marks.Revision, marks.Term))
		}
		for _, was := range s.Agencies() {
			is, known := now.Agency(was.ID)
			seen, regressed := now.Seen(was.ID)
			if !known || is.Epoch.Compare(was.Epoch) < 0 && (!regressed || seen.Epoch.Compare(was.Epoch) < 0) {
				lost = append(lost, fmt.Sprintf("agency %s in epoch %s: it is %s", was.ID, was.Epoch, is.Epoch))
			}
		}
	}
	return lost
}

// history takes a replica on this disk through changes, a new mapping, a table that goes
// back, and another term, until the disk fails or all is done, and reports whether it was.
func history(t *testing.T, disk durable.Disk, arm func(), failed func() bool, saw func(old, now *routing.State)) (done bool) {
	t.Helper()
	w := newWorld(t, "health", "works")
	w.onUpdate, w.compact = saw, 1500
	if _, err := durable.Open(disk, "/d"); err != nil {
		t.Fatal(err)
	}
	arm()
	w.start(Options{Dir: "/d", Disk: disk})
	defer w.stop()
	settled := func(pos routing.Position) bool {
		w.await("taken, or failed", func() bool {
			s := w.rep.Status()
			return failed() || s.Open && s.Position.Term == pos.Term && s.Position.Revision == pos.Revision && s.OnDisk == s.Position
		})
		return !failed()
	}
	if !settled(w.table.pos) {
		return false
	}
	for range 3 {
		health := w.table.agencies["health"]
		health.Epoch = health.Epoch.Next()
		if !settled(w.table.set(health)) {
			return false
		}
	}
	works := w.table.agencies["works"]
	works.Mapping, works.Epoch = w.mapping("works", 1, anna("works"), "bert@example.org").Digest(), works.Epoch.Next()
	if !settled(w.table.setAll(routing.Update{Agencies: []routing.Agency{works}, Members: []routing.Member{{Node: "a", Instance: "1"}}})) {
		return false
	}
	w.table.do(func() {
		health := w.table.agencies["health"]
		health.Epoch.Number -= 2
		w.table.agencies["health"] = health
		w.table.log = w.table.log[:len(w.table.log)-2]
		w.table.pos.Revision -= 2
	})
	if !settled(w.table.pos) {
		return false
	}
	w.table.do(func() { w.table.pos.Term++ })
	if !settled(w.table.set(w.table.agencies["works"])) {
		return false
	}
	health := w.table.agencies["health"]
	health.Epoch = health.Epoch.Next()
	return settled(w.table.set(health))
}

// Whatever call of the disk is the last one, what anybody acted on is found afterwards
// (docs/architecture/switch.md, node rule 1).
func TestNoMarkIsLostInACrash(t *testing.T) {
	for n := 1; ; n++ {
		disk, seen := memdisk.New(), new(acted)
		const opening = 2 // calls of Open
		done := history(t, disk, func() { disk.CrashBefore(opening + n) }, disk.Crashed, seen.saw)
		for _, loss := range memdisk.Losses() {
			after := disk.Restart(loss)
			if lost := seen.forgotten(t, after); len(lost) > 0 {
				t.Errorf("after %d calls, %s: %s", n-1, loss, strings.Join(lost, "; "))
			}
			if aside := asideFiles(after); len(aside) > 0 {
				t.Errorf("after %d calls, %s: set aside: %q", n-1, loss, aside)
			}
		}
		if done {
			if n < 40 {
				t.Errorf("only %d calls", n)
			}
			return
		}
	}
}

// The test above can fail: without fsync it does.
func TestWithoutFsyncMarksAreLost(t *testing.T) {
	disk, seen := memdisk.New(), new(acted)
	if !history(t, forgetful{disk}, func() {}, disk.Crashed, seen.saw) {
		t.Fatal("the history didn't end")
	}
	if lost := seen.forgotten(t, disk.Restart(memdisk.LoseBytes)); len(lost) == 0 {
		t.Error("nothing was fsynced, and nothing is lost")
	}
}

func TestAStateThatCannotBeMarkedIsNotTaken(t *testing.T) {
	w := newWorld(t, "health")
	disk := memdisk.New()
	var mu sync.Mutex
	var closing []routing.Revision
	w.start(Options{Dir: "/d", Disk: disk, OnSeen: func(_, next *routing.State) {
		mu.Lock()
		defer mu.Unlock()
		closing = append(closing, next.Position().Revision)
	}})
	w.await("on disk", func() bool { return w.rep.Status().OnDisk.Revision == 2 })
	disk.FailAfter(0, errDisk)
	pos := w.table.set(w.newAgency("works", 1, anna("works")))
	w.await("the failure is known", func() bool { return w.rep.Status().MarksErr != nil })
	before, _ := w.rep.Fresh()
	w.await("tried again", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(closing) > 3
	})
	s := w.rep.Status()
	if at, _ := w.rep.Fresh(); s.Position.Revision != 2 || !at.Equal(before) || !errors.Is(s.MarksErr, ErrMarks) || !errors.Is(s.Err, errDisk) {
		t.Errorf("%+v", s)
	}
	mu.Lock()
	if !slices.Contains(closing, pos.Revision) {
		t.Errorf("what closes is not told at once: %v", closing)
	}
	mu.Unlock()
	disk.Fail(nil)
	w.wait(pos)
	if s := w.rep.Status(); s.MarksErr != nil {
		t.Errorf("%+v", s)
	}
	w.stop()
	if got := reopen(t, disk).State().Position(); got != pos {
		t.Errorf("%+v", got)
	}
}

// A torn last line was acted on by nobody. What follows a damaged one can't be used.
func TestDamagedMarks(t *testing.T) {
	w := newWorld(t, "health")
	disk := memdisk.New()
	w.start(Options{Dir: "/d", Disk: disk})
	w.wait(w.table.pos)
	for range 3 {
		health := w.table.agencies["health"]
		health.Epoch = health.Epoch.Next()
		w.wait(w.table.set(health))
	}
	disk.Crash()
	w.stop()
	disk = disk.Restart(memdisk.LoseNothing)
	path := "/d/" + marksFile(1)
	whole := disk.Files()[path]
	if strings.Count(string(whole), "\n") != 3 {
		t.Fatalf("marks: %q", whole)
	}
	second := strings.Index(string(whole), "\n") + 1
	for name, c := range map[string]struct {
		bytes    []byte
		revision routing.Revision
		aside    int
	}{
		"whole":       {whole, 5, 0},
		"torn":        {whole[:len(whole)-5], 4, 0},
		"end flipped": {append(slices.Clone(whole[:len(whole)-5]), "xxxx\n"...), 4, 0},
		"second gone": {append(slices.Clone(whole[:second]), whole[second+10:]...), 3, 1},
		"empty":       {[]byte{}, 2, 0},
	} {
		disk := disk.Restart(memdisk.LoseNothing)
		disk.Change(path, c.bytes)
		rep := reopen(t, disk)
		if got := rep.State().Position().Revision; got != c.revision || len(asideFiles(disk)) != c.aside {
			t.Errorf("%s: revision %d, want %d; set aside: %q", name, got, c.revision, asideFiles(disk))
		}
	}
}

// A table in another term may have another past: all of it is read again.
func TestAnotherTermIsReadAsAWhole(t *testing.T) {
	w := newWorld(t, "health")
	w.start(Options{})
	w.wait(w.table.pos)
	before := w.table.snapshots
	w.table.do(func() { w.table.pos.Term = 7 })
	pos := w.table.set(w.table.agencies["health"])
	w.wait(pos)
	if got := w.rep.State().Position(); got != pos || w.table.snapshots == before {
		t.Errorf("%+v, %d snapshots", got, w.table.snapshots-before)
	}
	if err := w.rep.compare(routing.Position{Incarnation: "first", Revision: pos.Revision + 1, Term: 6}); !errors.Is(err, table.ErrRegressed) {
		t.Errorf("a table in an older term: %v", err)
	}
}

// BenchmarkMark measures what a change costs before it can be acted on, on a real disk.
func BenchmarkMark(b *testing.B) {
	d, err := openDisk(nil, b.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	a, err := routing.NewAgency("health", "exchange", "ox")
	if err != nil {
		b.Fatal(err)
	}
	pos := routing.Position{Incarnation: "i", Term: 1}
	state := routing.NewState(pos)
	var took []time.Duration
	for b.Loop() {
		pos.Revision++
		a.Epoch = a.Epoch.Next()
		u := routing.Update{Position: pos, Agencies: []routing.Agency{a}, Whole: pos.Revision == 1}
		if state, err = state.Apply(u); err != nil {
			b.Fatal(err)
		}
		began := time.Now()
		if err := d.mark(&u, state, Marks{}); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
}
