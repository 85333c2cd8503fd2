package recall_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"mailcutover/internal/durable/memdisk"
	"mailcutover/mail"
	"mailcutover/rollback/mailstore"
	"mailcutover/rollback/recall"
	"mailcutover/rollback/watermark"
	"mailcutover/routing"
)

// afterwards checks a recall that was interrupted: the same mailboxes, and the same numbers,
// but that what was moved, or was there, may not be known as such any more.
func (d *day) afterwards(i int, r recall.Result) error {
	if r.Delivered != d.ours[i]+d.gone[i] || r.DeliveredBack != d.ours[i] || r.ByUsers != d.users[i] || r.Copied+r.Moved != d.late[i]+d.moved[i] || len(r.NotBack) != d.gone[i] || !r.Done {
		return fmt.Errorf("told %+v, want delivered %d of %d, %d by users, %d copied or moved", r, d.ours[i], d.ours[i]+d.gone[i], d.users[i], d.late[i]+d.moved[i])
	}
	return nil
}

// A recall that crashes before one operation of its disk after the other, with what a power
// cut may lose, ends as if nothing had been: nothing is lost, and nothing is there twice.
func TestCrashes(t *testing.T) {
	t.Parallel()
	const each = 12
	w := newWorld(t, 2)
	w.settle = 50 * time.Millisecond // To has answered what it got
	d := w.seedAndMark(60, each).live(60, each, 10)
	w.parallel(func(i int, row routing.Row) error {
		disk, losses := memdisk.New(), memdisk.Losses()
		for n := 1; ; n++ {
			disk.CrashBefore(2 + n)
			j, err := recall.OpenJournalsOn(disk, "/recall")
			var r recall.Result
			if err == nil {
				r, err = w.engine(j).Mailbox(t.Context(), w.job(row))
			}
			if err == nil {
				t.Logf("mailbox %d: %d crashes", i, n-1)
				return d.afterwards(i, r)
			}
			if !errors.Is(err, memdisk.ErrCrashed) {
				return err
			}
			disk = disk.Restart(losses[(i+n)%len(losses)])
		}
	})
	w.check(d)
}

// errand is what a process has to do that is killed.
type errand struct {
	From, To, Dir string
	Jobs          []errandJob
}

type errandJob struct {
	Address      routing.Address
	Mailbox      routing.MailboxID
	Since, There *watermark.Mailbox
	Delivered    []mail.TransactionID
}

// TestMain runs the tests, or is the process that is killed.
func TestMain(m *testing.M) {
	if path := os.Getenv("RECALL_ERRAND"); path != "" {
		if err := runErrand(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func runErrand(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var e errand
	if err := json.Unmarshal(b, &e); err != nil {
		return err
	}
	journals, err := recall.OpenJournals(e.Dir)
	if err != nil {
		return err
	}
	var stores [2]*mailstore.IMAP
	for i, host := range []string{e.From, e.To} {
		stores[i], err = mailstore.New(mailstore.Options{Platform: "p", Hosts: []string{host}, Installation: installation,
			Access: mailstore.Access{Mode: mailstore.ModeMaster, User: "admin", Password: "master"}})
		if err != nil {
			return err
		}
	}
	engine, err := recall.New(recall.Options{From: stores[0], To: stores[1], Journals: journals, Settle: 300 * time.Millisecond})
	if err != nil {
		return err
	}
	var all sync.WaitGroup
	errs := make([]error, len(e.Jobs))
	for i, j := range e.Jobs {
		all.Go(func() {
			_, errs[i] = engine.Mailbox(context.Background(), recall.Job{
				Row: routing.Row{Mailbox: j.Mailbox, Kind: routing.KindUser, Addresses: []routing.Address{j.Address}}, Since: j.Since, There: j.There,
				Direction: recall.Direction{From: "ox", To: "exchange", Side: mailstore.Target}, Delivered: slices.Values(j.Delivered),
			})
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// A process that is killed in the middle, again and again, and then let through.
func TestKilled(t *testing.T) {
	kills := number(t, "RECALL_KILLS", 3)
	const late = 40
	w := newWorld(t, 3)
	d := w.seedAndMark(120, late).live(120, late, 40)
	e := errand{From: w.target.IMAP, To: w.source.IMAP, Dir: filepath.Join(w.dir, "recall")}
	for _, row := range w.rows {
		e.Jobs = append(e.Jobs, errandJob{Address: row.Addresses[0], Mailbox: row.Mailbox, Since: w.watermarks[row.Mailbox], There: w.sourceMarks[row.Mailbox], Delivered: w.delivered[row.Mailbox]})
	}
	b, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(w.dir, "errand")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(until time.Duration) error {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^$") // cancelling kills it
		cmd.Env = append(os.Environ(), "RECALL_ERRAND="+path)
		cmd.Stderr = &testWriter{t}
		if until > 0 {
			timer := time.AfterFunc(until, cancel)
			defer timer.Stop()
		}
		return cmd.Run()
	}
	killed := 0
	for n := range kills {
		if run(time.Duration(300+250*(n%8))*time.Millisecond) != nil {
			killed++
		}
	}
	t.Logf("killed %d times", killed)
	if err := run(0); err != nil {
		t.Fatal(err)
	}
	engine := w.engine(w.journals())
	w.parallel(func(i int, row routing.Row) error {
		r, err := engine.Mailbox(t.Context(), w.job(row))
		if err != nil {
			return err
		}
		return d.afterwards(i, r)
	})
	w.check(d)
}

// seedAndMark is seed, and the watermarks of both sides.
func (w *world) seedAndMark(messages, late int) *world {
	w.t.Helper()
	w.seed(messages, late)
	w.mark()
	return w
}

// number returns an environment variable that the campaign sets.
func number(t *testing.T, name string, usual int) int {
	t.Helper()
	n := usual
	if s := os.Getenv(name); s != "" {
		if _, err := fmt.Sscan(s, &n); err != nil || n < 1 {
			t.Fatalf("%s=%q: want a number", name, s)
		}
	}
	return n
}
