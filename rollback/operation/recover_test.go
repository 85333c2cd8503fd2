package operation

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

// errCrash is the end of the process, as far as the runner can tell.
var errCrash = errors.New("crash")

// failing is a journal whose writes fail after some, while it has an error.
type failing struct {
	Folder
	mu   sync.Mutex
	left int // negative: none fails
	err  error
	dead bool // one has failed
}

func (f *failing) Write(name string, write func(io.Writer) error) error {
	f.mu.Lock()
	if f.left == 0 && f.err != nil {
		defer f.mu.Unlock()
		f.dead = true
		return f.err
	}
	f.left--
	f.mu.Unlock()
	return f.Folder.Write(name, write)
}

func (f *failing) failed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.dead
}

func (f *failing) set(left int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.left, f.err, f.dead = left, err, left == 0
}

// The node dies before each write into its journal, and before and after each change of
// the table: the next start finishes what was committed and takes back the rest, and the
// journal says which it was.
func TestCrashes(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		write    int  // the write of the journal before which it dies; 0: none
		step     Step // or at this step's change,
		happened bool // after it
		want     Step
	}{
		"journal of drain":   {write: 1, want: StepAborted},
		"journal of commit":  {write: 2, want: StepAborted},
		"journal of publish": {write: 3, want: StepDone},
		"journal of spread":  {write: 4, want: StepDone},
		"journal of done":    {write: 5, want: StepDone},
		"begin":              {step: StepBegin, want: StepRefused},
		"after begin":        {step: StepBegin, happened: true, want: StepAborted},
		"commit":             {step: StepCommit, want: StepAborted},
		"after commit":       {step: StepCommit, happened: true, want: StepDone},
		"publish":            {step: StepPublish, want: StepDone},
		"after publish":      {step: StepPublish, happened: true, want: StepDone},
		"abort":              {step: StepAbort, want: StepAborted},
		"after abort":        {step: StepAbort, happened: true, want: StepAborted},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			disk := &failing{Folder: b.folder, left: -1}
			if c.write > 0 {
				disk.set(c.write, errCrash)
			}
			b.journal.folder = disk
			b.table.set(func(ch table.Change, do func() (routing.Position, error)) (routing.Position, error) {
				switch {
				case disk.failed():
					return routing.Position{}, errCrash
				case c.write == 0 && strings.Contains(ch.ID, "/"+string(c.step)):
					disk.set(0, errCrash)
					if c.happened {
						if _, err := do(); err != nil {
							return routing.Position{}, err
						}
					}
					return routing.Position{}, errCrash
				case c.step == StepAbort && strings.Contains(ch.ID, "/commit"):
					return routing.Position{}, errors.New("not now")
				}
				return do()
			})
			if _, err := b.run(Cutover, "police"); err == nil && c.want != StepDone {
				t.Fatal("no crash")
			}
			b.table.set(nil)
			b.start()
			b.catchUp()
			if err := b.Recover(t.Context()); err != nil {
				t.Fatalf("recover: %v", err)
			}
			phase := routing.PhaseSource
			if c.want == StepDone {
				phase = routing.PhaseTarget
			}
			b.stands("police", phase)
			op := b.last()
			if op.Step != c.want || (c.want == StepRefused) != op.Opened.IsZero() || op.Closed.IsZero() != op.Opened.IsZero() {
				t.Errorf("ended as %s, closed %s, opened %s; want %s", op.Step, op.Closed, op.Opened, c.want)
			}
			if err := b.Recover(t.Context()); err != nil || b.last().Step != c.want {
				t.Errorf("recover again: %v, %s", err, b.last().Step)
			}
			if _, err := b.run(Cutover, "health"); err != nil {
				t.Errorf("afterwards: %v", err)
			}
		})
	}
}

// The disk is full from some write on: the agency doesn't stay closed for that, there is
// an alarm, nothing new begins, and the journal is completed once there is room.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	full := errors.New("no space left on device")
	for n, want := range []Step{StepRefused, StepAborted, StepAborted, StepDone, StepDone} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			disk := &failing{Folder: b.folder, left: n, err: full}
			b.journal.folder = disk
			op, err := b.run(Cutover, "police")
			if op.Step != want || (want == StepDone) != (err == nil) {
				t.Errorf("%+v, %v", op, err)
			}
			phase := routing.PhaseSource
			if want == StepDone {
				phase = routing.PhaseTarget
			}
			b.stands("police", phase)
			if got := b.alarms.list(); !slices.Equal(got, []string{journalAlarm}) {
				t.Errorf("alarms %q", got)
			}
			if op, err := b.run(Cutover, "health"); !errors.Is(err, ErrJournal) {
				t.Errorf("with a full disk: %+v, %v", op, err)
			}
			if err := b.Tend(t.Context()); !errors.Is(err, ErrJournal) {
				t.Errorf("tend: %v", err)
			}
			disk.set(-1, nil)
			if err := b.Tend(t.Context()); err != nil || len(b.alarms.list()) != 0 {
				t.Errorf("with room again: %v, alarms %q", err, b.alarms.list())
			}
			b.start()
			if op := b.last(); op.Step != want {
				t.Errorf("journal says %s, want %s", op.Step, want)
			}
		})
	}
}

// The bytes of a begin outlive the process that sent them, and reach the table after the
// next start has settled everything.
func TestLateBegin(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	var late table.Change
	b.table.set(func(c table.Change, _ func() (routing.Position, error)) (routing.Position, error) {
		late = c
		b.journal.folder = &failing{err: errCrash}
		return routing.Position{}, errCrash
	})
	if _, err := b.run(Cutover, "police"); err == nil {
		t.Fatal("no crash")
	}
	b.table.set(nil)
	b.start()
	if err := b.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if op := b.last(); op.Step != StepRefused {
		t.Errorf("ended as %s", op.Step)
	}
	if _, err := b.table.Change(t.Context(), late); !errors.Is(err, table.ErrReused) {
		t.Errorf("the late begin: %v", err)
	}
	b.catchUp()
	b.stands("police", routing.PhaseSource)
	// Even under another id it is of an older record.
	late.ID += "-again"
	if _, err := b.table.Change(t.Context(), late); !errors.Is(err, table.ErrStale) {
		t.Errorf("the late begin under another id: %v", err)
	}
}

// An agency that is closed by an operation which has ended is opened; one that is closed
// by an operation nobody knows has an alarm until it is open.
func TestUnattended(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	op, err := b.run(Cutover, "police")
	if err != nil {
		t.Fatal(err)
	}
	begin := func(id routing.AgencyID, by routing.OperationID) {
		rec, err := b.agency(id).Begin(by, op.Nonce, routing.EventBegin)
		if err != nil {
			t.Fatal(err)
		}
		b.put(rec)
	}
	begin("police", op.ID)
	begin("health", "of-another-node")
	if got := b.Unattended(); !slices.Equal(got, []routing.AgencyID{"health", "police"}) {
		t.Errorf("unattended: %q", got)
	}
	if err := b.Tend(t.Context()); err != nil {
		t.Error(err)
	}
	b.stands("police", routing.PhaseTarget)
	if got := b.alarms.list(); !slices.Equal(got, []string{"agency-unattended/health"}) {
		t.Errorf("alarms %q", got)
	}
	rec, err := b.agency("health").Abort("of-another-node", op.Nonce)
	if err != nil {
		t.Fatal(err)
	}
	b.put(rec)
	if err := b.Tend(t.Context()); err != nil || len(b.alarms.list()) != 0 || len(b.Unattended()) != 0 {
		t.Errorf("open again: %v, alarms %q, unattended %q", err, b.alarms.list(), b.Unattended())
	}
}

// What could not be published is published by Tend, and its alarm ends.
func TestStuckIsTriedAgain(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.table.set(func(c table.Change, do func() (routing.Position, error)) (routing.Position, error) {
		if strings.Contains(c.ID, "/publish") {
			return routing.Position{}, errors.New("out of order")
		}
		return do()
	})
	op, err := b.run(Cutover, "police")
	if err == nil || op.Step != StepPublish || !slices.Equal(b.alarms.list(), []string{"operation/" + string(op.ID)}) {
		t.Errorf("%+v, %v, alarms %q", op, err, b.alarms.list())
	}
	if err := b.Tend(t.Context()); err == nil || !strings.Contains(err.Error(), "out of order") {
		t.Errorf("still out of order: %v", err)
	}
	b.table.set(nil)
	if err := b.Tend(t.Context()); err != nil || len(b.alarms.list()) != 0 {
		t.Errorf("in order: %v, alarms %q", err, b.alarms.list())
	}
	b.stands("police", routing.PhaseTarget)
	if op := b.last(); op.Step != StepDone || op.Error != "" {
		t.Errorf("%+v", op)
	}
}

// A commit that was thought lost arrives while the operation is being aborted.
func TestCommitOvertakesAbort(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	var commit func() (routing.Position, error)
	refused := 0
	b.table.set(func(c table.Change, do func() (routing.Position, error)) (routing.Position, error) {
		switch {
		case strings.Contains(c.ID, "/commit"):
			commit, refused = do, refused+1
			return routing.Position{}, errors.New("not now")
		case strings.Contains(c.ID, "/abort") && commit != nil:
			if _, err := commit(); err != nil {
				t.Error(err)
			}
			commit = nil
		}
		return do()
	})
	if op, err := b.run(Cutover, "police"); err != nil || op.Step != StepDone || refused == 0 {
		t.Errorf("%+v, %v", op, err)
	}
	b.stands("police", routing.PhaseTarget)
}

// Recover leaves alone what runs in this process, and nothing runs before it.
func TestRecoverBesideARunningOperation(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.table.set(func(c table.Change, do func() (routing.Position, error)) (routing.Position, error) {
		if strings.Contains(c.ID, "/commit") {
			if err := b.Recover(t.Context()); err != nil {
				t.Error(err)
			}
			if err := b.Tend(t.Context()); err != nil {
				t.Error(err)
			}
		}
		return do()
	})
	if op, err := b.run(Cutover, "police"); err != nil || op.Step != StepDone || len(b.alarms.list()) != 0 {
		t.Errorf("%+v, %v, alarms %q", op, err, b.alarms.list())
	}
	b.stands("police", routing.PhaseTarget)
	b.start()
	if op, err := b.run(Rollback, "police"); !errors.Is(err, ErrRecovering) || op.ID != "" {
		t.Errorf("before Recover: %+v, %v", op, err)
	}
}

// Halt ends the waiting for a table that doesn't answer.
func TestHalt(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.table.set(func(c table.Change, do func() (routing.Position, error)) (routing.Position, error) {
		if strings.Contains(c.ID, "/publish") {
			b.Halt()
			return routing.Position{}, table.ErrUnavailable
		}
		return do()
	})
	began := time.Now()
	op, err := b.run(Cutover, "police")
	if err == nil || op.Step != StepPublish || time.Since(began) > DefaultDeadline-5*time.Second {
		t.Errorf("%+v, %v, after %s", op, err, time.Since(began))
	}
	if _, err := b.run(Cutover, "health"); !errors.Is(err, context.Canceled) {
		t.Errorf("after Halt: %v", err)
	}
	b.table.set(nil)
	b.start()
	if err := b.Recover(t.Context()); err != nil || b.last().Step != StepDone {
		t.Errorf("%v, %+v", err, b.last())
	}
}
