package ledger

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"mailcutover/internal/durable"
	"mailcutover/internal/durable/memdisk"
	"mailcutover/mail"
)

// custody is what a test knows of the intents of one run: after a crash the ledger has to
// know as much.
type custody struct {
	intended map[mail.TransactionID]bool   // Intend returned nil: the dot may have been sent
	ended    map[mail.TransactionID]Result // Outcome was called and returned
	tried    map[mail.TransactionID]bool   // Intend was called
	synced   map[mail.TransactionID]bool   // Intend returned before a mark
}

func newCustody() *custody {
	return &custody{map[mail.TransactionID]bool{}, map[mail.TransactionID]Result{}, map[mail.TransactionID]bool{}, map[mail.TransactionID]bool{}}
}

// options are small segments on a disk in memory, with a clock that runs with each call.
func options(disk *memdisk.Disk, boot string) Options {
	start := time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)
	var calls atomic.Int64
	return Options{
		Disk: disk, Dir: "/ledger", Boot: boot, SegmentBytes: 2500, DoubtFor: time.Hour,
		Now: func() time.Time { return start.Add(time.Duration(calls.Add(1)) * time.Millisecond) },
	}
}

// deliver lets n messages through, several of them at a time, with a tick now and then.
// Some are left open. It goes on after errors, as transfers do.
func (c *custody) deliver(l *Ledger, n int, seed uint64) {
	t := newTraffic(seed)
	type way struct {
		id     mail.TransactionID
		ticket Ticket
		i      *Intent
	}
	var under []way
	var p pace
	for k := range n {
		i := t.intent()
		i.Time = time.Time{}
		c.tried[i.Transaction] = true
		ticket, err := l.Intend(i)
		if err == nil {
			c.intended[i.Transaction] = true
			under = append(under, way{i.Transaction, ticket, i})
		}
		if len(under) > 3 {
			w := under[0]
			under = under[1:]
			a := t.answer(w.i)
			if k%5 == 0 {
				a = Answer{Result: ResultInDoubt}
			}
			l.Outcome(w.ticket, a)
			c.ended[w.id] = a.Result
		}
		if k%7 == 6 {
			before := l.Status().Synced
			l.tick(&p)
			if l.Status().Synced.After(before) {
				for id := range c.intended {
					c.synced[id] = true
				}
			}
		}
	}
}

// problems compares a ledger that was opened again with what it has to know. crashed says
// that everything stopped at some operation, so that a last outcome may not have been
// written; lost that the machine lost power.
func (c *custody) problems(l *Ledger, lost, crashed bool) (all []string) {
	complain := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	doubt := map[mail.TransactionID]int{}
	for _, i := range l.InDoubt() {
		doubt[i.Transaction]++
		if !c.tried[i.Transaction] {
			complain("in doubt, but never intended: %s", i.Transaction)
		}
	}
	records := map[mail.TransactionID]Record{}
	for r, err := range l.Find(context.Background(), Query{}) {
		if err != nil {
			complain("%v", err)
			continue
		}
		if _, twice := records[r.Transaction]; twice {
			complain("found twice: %s", r.Transaction)
		}
		records[r.Transaction] = r
	}
	for id := range c.intended {
		if lost && !c.synced[id] {
			continue
		}
		r, found := records[id]
		if !found {
			complain("lost: %s", id)
			continue
		}
		want, ended := c.ended[id]
		got := r.Answer(0).Result
		bad := false
		switch {
		case doubt[id] > 1:
			bad = true
		case !ended, want == ResultInDoubt:
			bad = doubt[id] == 0 || got != ResultInDoubt
		case lost: // the outcome may be younger than the last mark
			bad = got != want && (got != ResultInDoubt || !unknown(l)) || doubt[id] > 0 && got != ResultInDoubt
		case crashed:
			bad = (doubt[id] == 0) != (got == want)
		default:
			bad = doubt[id] > 0 || got != want
		}
		if bad {
			complain("%s ended %t as %s: in doubt %d times, found as %s", id, ended, want, doubt[id], got)
		}
	}
	return all
}

func unknown(l *Ledger) bool { _, u := l.Unknown(); return u }

// crashBefore lets 24 messages through on a disk that stops before its n-th operation,
// and says what the next two starts don't know though they should.
func crashBefore(n int, loss memdisk.Loss, wrap func(*memdisk.Disk) durable.Disk) (crashed bool, problems []string) {
	disk := memdisk.New()
	c := newCustody()
	disk.CrashBefore(n)
	o := options(disk, "1")
	o.Disk = wrap(disk)
	if l, err := open(o); err == nil {
		c.deliver(l, 24, uint64(n))
	}
	crashed = disk.Crashed()
	lost := loss != memdisk.LoseNothing
	disk = disk.Restart(loss)
	boot := "1"
	if lost {
		boot = "2"
	}
	for start := range 2 {
		l, err := open(options(disk, boot))
		if err != nil {
			return crashed, append(problems, err.Error())
		}
		switch {
		case start == 0 && lost && len(c.synced) > 0 && !unknown(l):
			problems = append(problems, "power was lost, but nothing is unknown")
		case !lost && unknown(l):
			problems = append(problems, "no power was lost, but something is unknown")
		}
		problems = append(problems, c.problems(l, lost, crashed)...)
		l.indexOne()
		problems = append(problems, c.problems(l, lost, crashed)...)
		disk = disk.Restart(memdisk.LoseNothing)
	}
	return crashed, problems
}

// A process is killed, or the machine loses power, before each operation on the disk. The
// next start knows all that the one before had to know; and so does the one after it.
func TestCrashAtEachOperation(t *testing.T) {
	points := 0
	for _, loss := range memdisk.Losses() {
		for n, crashed := 1, true; crashed; n++ {
			var problems []string
			crashed, problems = crashBefore(n, loss, func(d *memdisk.Disk) durable.Disk { return d })
			if problems != nil {
				t.Fatalf("%s, operation %d: %q", loss, n, problems)
			}
			points++
		}
	}
	t.Logf("%d crash points", points)
}

// careless is a disk whose fsyncs do nothing: of files, or of directories.
type careless struct {
	durable.Disk
	files, dirs bool
}

func (d careless) SyncDir(dir string) error {
	if d.dirs {
		return nil
	}
	return d.Disk.SyncDir(dir)
}

func (d careless) Create(path string) (durable.File, error) {
	f, err := d.Disk.Create(path)
	if d.files && err == nil {
		f = carelessFile{f}
	}
	return f, err
}

type carelessFile struct{ durable.File }

func (carelessFile) Sync() error { return nil }

// The crash test finds out when an fsync is missing.
func TestCrashTestNeedsEachFsync(t *testing.T) {
	for _, careless := range []careless{{files: true}, {dirs: true}} {
		caught := false
		for n, crashed := 1, true; crashed && !caught; n++ {
			var problems []string
			crashed, problems = crashBefore(n, memdisk.LoseAll, func(d *memdisk.Disk) durable.Disk {
				careless.Disk = d
				return careless
			})
			caught = problems != nil
		}
		if !caught {
			t.Errorf("files %t, directories %t: not fsynced, and nobody noticed", careless.files, careless.dirs)
		}
	}
}

// The start itself is interrupted at each of its operations, killed or by a power cut.
func TestCrashDuringStart(t *testing.T) {
	points := 0
	for _, first := range []int{20, 41, 60, 77} {
		for m, again := 1, true; again; m++ {
			disk := memdisk.New()
			c := newCustody()
			disk.CrashBefore(first)
			l, err := open(options(disk, "1"))
			if err != nil {
				t.Fatal(err)
			}
			c.deliver(l, 30, 5)
			disk = disk.Restart(memdisk.LoseNothing)
			disk.CrashBefore(m)
			if l, err = open(options(disk, "1")); err == nil {
				l.tick(&pace{})
			}
			again = disk.Crashed()
			if l, err = open(options(disk.Restart(memdisk.LoseNothing), "1")); err != nil {
				t.Fatal(err)
			}
			if p := c.problems(l, false, true); p != nil || unknown(l) {
				t.Fatalf("killed at operation %d, then at %d of the start: %q", first, m, p)
			}
			points++
		}
	}
	t.Logf("%d crash points", points)
}

// While the disk takes nothing, nothing may be sent; afterwards all goes on, and what was
// answered meanwhile is known.
func TestDiskTakesNoWrites(t *testing.T) {
	for _, op := range []memdisk.Op{memdisk.OpWrite, memdisk.OpCreate, memdisk.OpSync, memdisk.OpSyncDir} {
		for _, errno := range []error{syscall.ENOSPC, syscall.EIO} {
			t.Run(fmt.Sprint(op, errno), func(t *testing.T) {
				disk := memdisk.New()
				o := options(disk, "1")
				l, err := open(o)
				if err != nil {
					t.Fatal(err)
				}
				c := newCustody()
				c.deliver(l, 10, 1)
				tr := newTraffic(2)
				before := tr.intent()
				before.Time = time.Time{}
				ticket, err := l.Intend(before)
				if err != nil {
					t.Fatal(err)
				}
				c.intended[before.Transaction], c.tried[before.Transaction] = true, true
				disk.Fail(func(o memdisk.Op, _ string) error {
					if o == op {
						return errno
					}
					return nil
				})
				files := len(disk.Files())
				var p pace
				failed := 0
				for range 400 {
					i := tr.intent()
					i.Time = time.Time{}
					c.tried[i.Transaction] = true
					ticket, err := l.Intend(i)
					if err != nil {
						failed++
						if !errors.Is(err, ErrUnavailable) || !errors.Is(err, errno) {
							t.Errorf("%v", err)
						}
						continue
					}
					c.intended[i.Transaction] = true
					l.Outcome(ticket, Answer{Result: ResultRefused, Code: 451})
					c.ended[i.Transaction] = ResultRefused
				}
				l.tick(&p)
				l.Outcome(ticket, Answer{Result: ResultDelivered, Code: 250})
				c.ended[before.Transaction] = ResultDelivered
				s := l.Status()
				switch op {
				case memdisk.OpWrite, memdisk.OpCreate:
					if failed == 0 || !errors.Is(s.Err, errno) || s.ErrSince.IsZero() {
						t.Errorf("%d failed, status %v", failed, s.Err)
					}
				default:
					if failed > 0 || !errors.Is(s.SyncErr, errno) || s.SyncSince.IsZero() {
						t.Errorf("%d failed, status %v", failed, s.SyncErr)
					}
				}
				if n := len(disk.Files()); failed > 0 && n > files {
					t.Errorf("%d files, there were %d", n, files)
				}
				disk.Fail(nil)
				for range 200 { // the clock runs
					_ = l.o.Now()
				}
				c.deliver(l, 20, 3)
				l.tick(&p)
				l.tick(&p)
				if s := l.Status(); s.Err != nil || s.SyncErr != nil {
					t.Errorf("still %v, %v", s.Err, s.SyncErr)
				}
				l, err = open(options(disk.Restart(memdisk.LoseNothing), "1"))
				if err != nil {
					t.Fatal(err)
				}
				if p := c.problems(l, false, false); p != nil {
					t.Errorf("%q", p)
				}
				for _, i := range l.InDoubt() {
					if !c.intended[i.Transaction] {
						t.Errorf("in doubt, but its dot was never sent: %s", i.Transaction)
					}
				}
			})
		}
	}
}

// Several intents share a write that fails in the middle: none of them may be sent, and
// those that are whole in the file don't look like mail in doubt afterwards.
func TestSharedWriteFailsHalfway(t *testing.T) {
	disk := memdisk.New()
	l, err := open(options(disk, "1"))
	if err != nil {
		t.Fatal(err)
	}
	tr := newTraffic(1)
	const together = 4
	ids := map[mail.TransactionID]bool{}
	var all sync.WaitGroup
	l.writing.Lock() // as if another write took long
	for range together {
		i := tr.intent()
		ids[i.Transaction] = true
		all.Go(func() {
			if _, err := l.Intend(i); !errors.Is(err, ErrUnavailable) {
				t.Errorf("%v", err)
			}
		})
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		l.mu.Lock()
		n := l.open.n
		l.mu.Unlock()
		if n == together {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the intents don't come together")
		}
	}
	disk.Fail(func(op memdisk.Op, _ string) error {
		if op == memdisk.OpWrite {
			return syscall.EIO
		}
		return nil
	})
	l.writing.Unlock()
	all.Wait()
	disk.Fail(nil)
	for range 200 {
		_ = l.o.Now()
	}
	deliver(t, l, tr.intent(), Answer{Result: ResultDelivered})
	l, err = open(options(disk.Restart(memdisk.LoseNothing), "1"))
	if err != nil {
		t.Fatal(err)
	}
	if d := l.InDoubt(); len(d) > 0 {
		t.Errorf("in doubt: %+v", d)
	}
	whole := 0
	for _, r := range collect(t, l, Query{}) {
		if ids[r.Transaction] {
			whole++
			if got := r.Answer(0).Result; got != ResultNotSent {
				t.Errorf("%s: %s", r.Transaction, got)
			}
		}
	}
	if whole == 0 {
		t.Error("no intent was whole in the half that was written")
	}
}

// Bits flip anywhere in the newest segment: what can be read is there, and what can't is
// told.
func TestBitFlips(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	for round := range 150 {
		disk := memdisk.New()
		o := options(disk, "1")
		o.SegmentBytes = 1 << 20
		l, err := open(o)
		if err != nil {
			t.Fatal(err)
		}
		c := newCustody()
		c.deliver(l, 30, uint64(round))
		size := int(l.Status().Bytes)
		disk = disk.Restart(memdisk.LoseNothing)
		at := r.IntN(size)
		if err := disk.Flip("/ledger/00000001.log", at); err != nil {
			t.Fatal(err)
		}
		l, err = open(options(disk, "1"))
		if err != nil {
			t.Fatalf("a flipped bit at %d stops the start: %v", at, err)
		}
		doubt := map[mail.TransactionID]bool{}
		for _, i := range l.InDoubt() {
			doubt[i.Transaction] = true
		}
		for id := range c.intended {
			if want, ended := c.ended[id]; (!ended || want == ResultInDoubt) && !doubt[id] && !unknown(l) {
				t.Errorf("bit at %d of %d: %s is in doubt, and nothing says so", at, size, id)
			}
		}
		if n := len(collect(t, l, Query{})); len(l.Status().Aside) == 0 && n < 25 {
			t.Errorf("bit at %d of %d: only %d records are left", at, size, n)
		}
	}
}

// TestAPowerCutRightAfterAStart wants a power cut to show, however soon after a start it
// comes, the first one and the one after an orderly end.
func TestAPowerCutRightAfterAStart(t *testing.T) {
	for _, loss := range memdisk.Losses() {
		if loss == memdisk.LoseNothing {
			continue
		}
		disk := memdisk.New()
		for starts := range 2 {
			l, err := open(options(disk, fmt.Sprint("boot ", starts)))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := l.Intend(newTraffic(1).intent()); err != nil {
				t.Fatal(err)
			}
			after, err := open(options(disk.Restart(loss), "another boot"))
			if err != nil {
				t.Fatal(err)
			}
			if _, unknown := after.Unknown(); !unknown {
				t.Errorf("%s, start %d: nothing is unknown", loss, starts)
			}
			if err := l.finish(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// What a process wrote before it was killed is in the kernel alone. The next one makes it durable, so
// that a power cut after its start takes nothing of it.
func TestAPowerCutAfterAKill(t *testing.T) {
	for _, loss := range memdisk.Losses() {
		disk := memdisk.New()
		killed, err := open(options(disk, "1"))
		if err != nil {
			t.Fatal(err)
		}
		c := newCustody()
		c.deliver(killed, 24, 1)
		want := collect(t, killed, Query{})
		if len(want) == 0 {
			t.Fatal("nothing was delivered")
		}
		if _, err := open(options(disk, "1")); err != nil {
			t.Fatal(err)
		}
		after, err := open(options(disk.Restart(loss), "2"))
		if err != nil {
			t.Fatal(err)
		}
		got := make(map[mail.TransactionID]Result)
		for _, r := range collect(t, after, Query{}) {
			got[r.Transaction] = r.Answer(0).Result
		}
		for _, r := range want {
			was := r.Answer(0).Result
			if is, ok := got[r.Transaction]; !ok || is != was && was != ResultPending {
				t.Errorf("%s: %s was %s before the kill, and is %s (%t)", loss, r.Transaction, was, is, ok)
			}
		}
	}
}
