package recall_test

import (
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"mailcutover/internal/durable/memdisk"
	"mailcutover/rollback/recall"
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

// A process that is killed in the middle, again and again, and then let through.
func TestKilled(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 3)
	d := w.seedAndMark(120, 40).live(120, 40, 40)
	w.killed(d, number(t, "RECALL_KILLS", 3))
	w.recalled(d, d.afterwards)
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
