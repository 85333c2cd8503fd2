package spool

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"mailcutover/internal/durable/memdisk"
	"mailcutover/mail"
)

// send tries to hand over a message and returns what the client would be told.
func send(t testing.TB, s *Store, body string, rcpts ...Recipient) (mail.TransactionID, error) {
	t.Helper()
	env := envelope(t)
	in, err := s.Begin(env)
	if err != nil {
		return "", err
	}
	defer in.Discard()
	if _, err := in.Write([]byte(body)); err != nil {
		return "", err
	}
	return env.Transaction, in.Commit(t.Context(), rcpts)
}

// When the disk fails in any operation of an accept, the client isn't told 250; what was
// there stays; reading goes on; outcomes are kept until the disk takes them.
func TestASickDisk(t *testing.T) {
	for _, c := range []struct {
		name   string
		cause  error
		ops    []memdisk.Op
		want   error
		broken bool // until Resume
	}{
		{"no room", syscall.ENOSPC, []memdisk.Op{memdisk.OpWrite, memdisk.OpCreate}, ErrFull, false},
		{"quota", syscall.EDQUOT, []memdisk.Op{memdisk.OpWrite}, ErrFull, false},
		{"write error", syscall.EIO, []memdisk.Op{memdisk.OpWrite}, ErrBroken, true},
		{"write error, and no way back", syscall.EIO, []memdisk.Op{memdisk.OpWrite, memdisk.OpCut}, ErrBroken, true},
		{"fsync error", syscall.EIO, []memdisk.Op{memdisk.OpSync}, ErrBroken, true},
		{"fsync finds no room", syscall.ENOSPC, []memdisk.Op{memdisk.OpSync}, ErrFull, true},
		{"fsync error of a directory", syscall.EIO, []memdisk.Op{memdisk.OpSyncDir}, ErrBroken, true},
	} {
		for _, size := range []int{10, 100_000} {
			t.Run(fmt.Sprintf("%s/%d", c.name, size), func(t *testing.T) {
				now := time.Unix(1_700_000_000, 0)
				disk := memdisk.New()
				o := Options{Disk: disk, Now: func() time.Time { return now }, manual: true}
				s := openStore(t, o)
				kept := accept(t, s, "kept", rcpt("anna", "health", StateHeld))
				done := accept(t, s, "done", rcpt("anna", "health", StateHeld))
				if c.ops[0] == memdisk.OpSyncDir && size < 1000 {
					s.o.SegmentBytes = headerBytes // the directory is fsynced for a new segment
				}
				disk.Fail(func(op memdisk.Op, path string) error {
					for _, bad := range c.ops {
						if op == bad {
							return c.cause
						}
					}
					return nil
				})
				id, err := send(t, s, strings.Repeat("x", size), rcpt("bert", "health", StateHeld))
				if !errors.Is(err, c.want) {
					t.Fatalf("told %v, want %v", err, c.want)
				}
				if text, err := readBody(t, s, kept); err != nil || text != "kept" {
					t.Errorf("%q, %v", text, err)
				}
				setErr := s.Set(Outcome{Transaction: done, State: StateDelivered})
				if _, err := s.Get(done); !errors.Is(err, ErrUnknown) {
					t.Errorf("delivered, and still there: %v (%v)", err, setErr)
				}
				_, err = s.Begin(envelope(t))
				if c.broken != errors.Is(err, ErrBroken) && err == nil {
					t.Errorf("begin: %v", err)
				}
				disk.Fail(nil)
				now = now.Add(time.Minute)
				if _, err := send(t, s, "x", rcpt("bert", "health", StateHeld)); c.broken == (err == nil) {
					t.Errorf("after the fault: %v", err)
				}
				if err := s.Resume(); err != nil {
					t.Fatal(err)
				}
				after := accept(t, s, "after", rcpt("anna", "health", StateHeld))
				if st := s.Status(); st.Pending != 0 || st.Broken != nil {
					t.Errorf("%+v", st)
				}
				for _, loss := range memdisk.Losses() {
					o := o
					o.Disk = disk.Restart(loss)
					s := openStore(t, o)
					for _, want := range []mail.TransactionID{kept, after} {
						if _, err := readBody(t, s, want); err != nil {
							t.Errorf("%s: %v", loss, err)
						}
					}
					for _, gone := range []mail.TransactionID{done, id} {
						if _, err := s.Get(gone); gone != "" && !errors.Is(err, ErrUnknown) {
							t.Errorf("%s: message %s is there: %v", loss, gone, err)
						}
					}
					s.Close()
				}
				s.Close()
			})
		}
	}
}

// TestAFaultAtEveryOperation lets each operation fail, once, in workloads of everything
// at once. The operator resumes the spool, or starts it again if it doesn't start. Then
// the power goes. What was acknowledged before and after must be there.
func TestAFaultAtEveryOperation(t *testing.T) {
	points := 0
	for seed := range uint64(max(1, *seeds/3)) {
		for _, cause := range []error{syscall.EIO, syscall.ENOSPC} {
			for k := 1; ; k++ {
				w := newWorld(t, seed, nil)
				n, failed := 0, false
				w.disk.Fail(func(op memdisk.Op, path string) error {
					if n++; n == k {
						failed = true
						return fmt.Errorf("%s %s: %w", op, path, cause)
					}
					return nil
				})
				w.mend = func(error) error {
					w.discard()
					if w.s == nil || w.s.closed {
						return w.open()
					}
					return w.s.Resume()
				}
				err := w.play(crashSteps)
				if !failed {
					break
				}
				if err != nil && w.s != nil {
					t.Fatalf("seed %d, %v at operation %d: %v", seed, cause, k, err)
				}
				for _, loss := range memdisk.Losses() {
					points++
					for _, wrong := range w.check(w.disk.Restart(loss), loss) {
						t.Errorf("seed %d, %v at operation %d, %s: %s", seed, cause, k, loss, wrong)
					}
				}
				if t.Failed() {
					return
				}
			}
		}
	}
	t.Logf("%d faults and power cuts tried", points)
}

// Every bit of the journal and of a body's file matters: a flipped one is found, what it
// hits is kept for a human, and the other messages are as they were.
func TestFlippedBits(t *testing.T) {
	disk := memdisk.New()
	o := Options{Disk: disk, InlineBytes: 300, manual: true}
	s := openStore(t, o)
	bodies := map[mail.TransactionID]string{}
	for i := range 6 {
		body := strings.Repeat(fmt.Sprintf("line of message %d\r\n", i), 4+20*(i%2))
		bodies[accept(t, s, body, rcpt(fmt.Sprint("r", i), "health", StateHeld))] = body
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for path, b := range disk.Files() {
		if strings.HasSuffix(path, "/id") {
			continue
		}
		for at := 0; at < len(b); at += 11 {
			disk := disk.Restart(memdisk.LoseAll)
			if err := disk.Flip(path, at); err != nil {
				t.Fatal(err)
			}
			o := o
			o.Disk = disk
			report, err := Check(disk, "/spool", false)
			if err != nil {
				t.Fatal(err)
			}
			s := openStore(t, o)
			whole := 0
			for id, body := range bodies {
				text, err := readBody(t, s, id)
				if err == nil && text != body {
					t.Fatalf("%s byte %d: a wrong body is taken for the right one", path, at)
				}
				var held bool
				s.Each(Filter{Transaction: id, State: StateHeld}, func(Entry) bool { held = true; return true })
				if err == nil && held {
					whole++
				}
			}
			padding := whole == len(bodies) // zeros behind a record, and its header's rest
			if whole < len(bodies)-1 || !padding && len(report.Problems) == 0 {
				t.Fatalf("%s byte %d of %d: %d whole messages, problems %v", path, at, len(b), whole, report.Problems)
			}
			s.Close()
			if after, err := Check(disk, "/spool", true); err != nil {
				t.Fatalf("%s byte %d: repair: %v, %v", path, at, after, err)
			}
			again := openStore(t, o)
			for id := range bodies {
				_, err := readBody(t, again, id)
				bad := false
				again.Each(Filter{Transaction: id, State: StateQuarantined}, func(Entry) bool { bad = true; return true })
				if err != nil && !errors.Is(err, ErrUnknown) && !bad {
					t.Errorf("%s byte %d: damaged, and not in quarantine: %v", path, at, err)
				}
			}
			again.Close()
		}
	}
}

// A segment that can't be read at all, a file that isn't ours and a lost id don't keep
// the store from starting.
func TestStartsWhateverItFinds(t *testing.T) {
	disk := memdisk.New()
	o := Options{Disk: disk, manual: true}
	s := openStore(t, o)
	id := accept(t, s, "body", rcpt("anna", "health", StateHeld))
	name := s.ID()
	s.Close()
	disk.Change("/spool/journal/00000009.log", bytes.Repeat([]byte("rubbish\n"), 100))
	disk.Change("/spool/journal/00000010.log", nil)
	disk.Change("/spool/journal/core", []byte("x"))
	disk.Change("/spool/bodies/core", []byte("x"))
	disk.Change("/spool/id", []byte("mailcutover spool 1\nid \n"))
	s = openStore(t, o)
	if text, err := readBody(t, s, id); err != nil || text != "body" || s.ID() != name {
		t.Errorf("%q, %v, id %s was %s", text, err, s.ID(), name)
	}
	if n := len(s.Status().Opened.Problems); n != 4 {
		t.Errorf("%d problems: %v", n, s.Status().Opened.Problems)
	}
	accept(t, s, "more", rcpt("anna", "health", StateHeld))
	s.Close()
	if _, ok := disk.Files()["/spool/journal/00000010.log"]; !ok {
		t.Error("the new segment is not the one after the unreadable")
	}
}

func TestBounds(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	for _, c := range []struct {
		name   string
		bounds Bounds
		takes  int
	}{
		{"messages", Bounds{Messages: 3}, 3},
		{"bytes", Bounds{Bytes: 250}, 2},
		{"messages of an agency", Bounds{AgencyMessages: 4}, 4},
		{"bytes of an agency", Bounds{AgencyBytes: 399}, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := openStore(t, Options{Disk: memdisk.New(), Bounds: c.bounds, Now: func() time.Time { return now }})
			defer s.Close()
			var first mail.TransactionID
			for i := range c.takes {
				id := accept(t, s, strings.Repeat("x", 100), rcpt("anna", "health", StateHeld))
				if i == 0 {
					first = id
				}
			}
			if _, err := send(t, s, strings.Repeat("x", 100), rcpt("anna", "health", StateHeld)); !errors.Is(err, ErrFull) {
				t.Errorf("one more: %v", err)
			}
			if c.bounds.AgencyMessages+int(c.bounds.AgencyBytes) > 0 {
				accept(t, s, strings.Repeat("x", 100), rcpt("bert", "works", StateHeld))
			}
			if err := s.Set(Outcome{Transaction: first, State: StateDelivered}); err != nil {
				t.Errorf("outcomes are refused: %v", err)
			}
			accept(t, s, strings.Repeat("x", 100), rcpt("anna", "health", StateHeld))
		})
	}
}

func TestAdopt(t *testing.T) {
	disk := memdisk.New()
	s := openStore(t, Options{Disk: disk, Node: "old"})
	id := accept(t, s, "body", rcpt("anna", "health", StateHeld))
	if _, err := Adopt(disk, "/spool", "other", "new"); !errors.Is(err, ErrAdopted) {
		t.Errorf("adopted from somebody else: %v", err)
	}
	now, err := Adopt(disk, "/spool", "old", "new")
	if err != nil || now.Owner != "new" || now.Past[0] != "old" {
		t.Fatal(now, err)
	}
	if _, err := Adopt(disk, "/spool", "old", "third"); !errors.Is(err, ErrAdopted) {
		t.Errorf("adopted twice: %v", err)
	}
	if _, err := s.Open(id); !errors.Is(err, ErrAdopted) {
		t.Errorf("the old node delivers: %v", err)
	}
	if _, err := send(t, s, "x", rcpt("anna", "health", StateHeld)); !errors.Is(err, ErrAdopted) {
		t.Errorf("the old node takes mail: %v", err)
	}
	if err := s.Set(Outcome{Transaction: id, State: StateDelivered}); !errors.Is(err, ErrAdopted) {
		t.Errorf("the old node records outcomes: %v", err)
	}
	s.Close()
	if _, err := Open(Options{Disk: disk, Dir: "/spool", Node: "old"}); !errors.Is(err, ErrAdopted) {
		t.Errorf("the old node starts: %v", err)
	}
	s = openStore(t, Options{Disk: disk, Node: "new"})
	if text, err := readBody(t, s, id); err != nil || text != "body" {
		t.Errorf("%q, %v", text, err)
	}
	s.Close()
}

func TestOneProcessOnly(t *testing.T) {
	o := Options{Dir: t.TempDir()}
	s := openStore(t, o)
	o.Node = "node1"
	if _, err := Open(o); !errors.Is(err, ErrInUse) {
		t.Errorf("opened twice: %v", err)
	}
	if _, err := Adopt(nil, o.Dir, "node1", "node2"); !errors.Is(err, ErrInUse) {
		t.Errorf("adopted while open: %v", err)
	}
	if _, err := Check(nil, o.Dir, false); !errors.Is(err, ErrInUse) {
		t.Errorf("checked while open: %v", err)
	}
	s.Close()
	if r, err := Check(nil, o.Dir, true); err != nil || len(r.Problems) > 0 {
		t.Errorf("%+v, %v", r, err)
	}
}

// An outcome is on the disk after a second, though nothing else happens.
func TestOutcomesAreFlushed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := memdisk.New()
		s := openStore(t, Options{Disk: disk})
		id := accept(t, s, "body", rcpt("anna", "health", StateHeld))
		if err := s.Set(Outcome{Transaction: id, State: StateDelivered}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(flushAfter)
		synctest.Wait()
		after := openStore(t, Options{Disk: disk.Restart(memdisk.LoseAll)})
		if c, _ := after.Counts(); c.Messages != 0 {
			t.Error("the outcome was lost")
		}
		after.Close()
		s.Close()
	})
}

// Many at once, with restarts, on a disk whose segments are small, so that they are
// compacted all the time: nothing is lost, nothing comes twice, order is kept.
func TestConcurrentUse(t *testing.T) {
	disk := memdisk.New()
	o := Options{Disk: disk, SegmentBytes: 8 << 10, InlineBytes: 500}
	left := map[mail.TransactionID]bool{}
	for range 3 {
		s := openStore(t, o)
		var mu sync.Mutex
		var working sync.WaitGroup
		for n := range 8 {
			working.Go(func() {
				for i := range 40 {
					id := accept(t, s, strings.Repeat("x", 40*(i%20)), rcpt(fmt.Sprint("r", n), "health", StateHeld), rcpt("other", "works", StateWaiting))
					if _, err := readBody(t, s, id); err != nil {
						t.Error(err)
					}
					if i%4 == 0 {
						mu.Lock()
						left[id] = true
						mu.Unlock()
						continue
					}
					for r := range 2 {
						if err := s.Set(Outcome{Transaction: id, Recipient: r, State: StateWaiting}); err != nil {
							t.Error(err)
						}
						if err := s.Set(Outcome{Transaction: id, Recipient: r, State: StateDelivered}); err != nil {
							t.Error(err)
						}
					}
				}
			})
		}
		working.Go(func() {
			for range 50 {
				s.Each(Filter{Key: (&Recipient{Address: "x@y"}).Key()}, func(Entry) bool { return true })
				s.Status()
			}
		})
		working.Wait()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	s := openStore(t, o)
	var last uint64
	n := 0
	s.Each(Filter{State: StateHeld}, func(e Entry) bool {
		if !left[e.Transaction] || e.Sequence <= last {
			t.Errorf("%+v after %d", e, last)
		}
		last = e.Sequence
		n++
		if _, err := readBody(t, s, e.Transaction); err != nil {
			t.Error(err)
		}
		return true
	})
	if st := s.Status(); n != len(left) || len(st.Opened.Problems) > 0 || st.Counts.Messages != n {
		t.Errorf("%d of %d messages, %+v", n, len(left), st)
	}
	s.Close()
}

// A message whose commit failed at the journal's fsync is found if the process ends before
// there is another segment: only its commit says that this may be.
func TestACommitOfWhichNobodyKnows(t *testing.T) {
	disk := memdisk.New()
	s := openStore(t, Options{Disk: disk, manual: true})
	defer s.Close()
	accept(t, s, "kept", rcpt("anna", "health", StateHeld))
	disk.Fail(func(op memdisk.Op, _ string) error {
		if op == memdisk.OpSync {
			return syscall.EIO
		}
		return nil
	})
	env := envelope(t)
	in, err := s.Begin(env)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Discard()
	if err := in.Commit(t.Context(), []Recipient{rcpt("bert", "health", StateHeld)}); !errors.Is(err, ErrUnsure) || !errors.Is(err, ErrBroken) {
		t.Fatalf("told %v, want that nobody knows", err)
	}
	if _, err := send(t, s, "x", rcpt("bert", "health", StateHeld)); !errors.Is(err, ErrBroken) || errors.Is(err, ErrUnsure) {
		t.Errorf("after it: %v, want that nothing is taken", err)
	}
	after := openStore(t, Options{Disk: disk.Restart(memdisk.LoseNothing), manual: true})
	defer after.Close()
	if _, err := after.Get(env.Transaction); err != nil {
		t.Errorf("the message is gone, and need not have been named: %v", err)
	}
}
