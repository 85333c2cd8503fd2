package retained

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"mailcutover/internal/durable/memdisk"
	"mailcutover/mail"
)

// The machine, or the process, ends before each single operation of a history, and each kind of
// loss follows. Whatever is found then is what was kept; after a kill it is all of it; and a
// start can go on.
func TestCrash(t *testing.T) {
	k := keys(t)
	options := func(d *memdisk.Disk) Options {
		return Options{Disk: d, Dir: "/data/retained", SegmentBytes: 2000, AgencyBytes: 120_000, Keys: k, Patience: time.Minute}
	}
	bodies := make([][]byte, 24)
	for i := range bodies {
		bodies[i] = text(300 + 100*i)
		if i%4 == 3 {
			bodies[i] = text(70_000)
		}
	}
	// history returns what was kept with success, by transaction.
	history := func(d *memdisk.Disk) map[mail.TransactionID][]byte {
		kept := map[mail.TransactionID][]byte{}
		s, err := Open(options(d))
		if err != nil {
			return kept
		}
		defer s.Close()
		for i, body := range bodies {
			before := s.Status().Kept
			m := put(s, body, to("health", fmt.Sprintf("m%d", i))...)
			if s.Status().Kept > before {
				kept[m.Transaction] = body
			}
			if d.Crashed() {
				return kept
			}
		}
		if _, err := s.Erase("tax", ReasonFinalised); err != nil {
			return kept
		}
		return kept
	}
	whole := memdisk.New()
	if err := whole.MakeDir("/data"); err != nil {
		t.Fatal(err)
	}
	whole.SyncDir("/")
	if kept := history(whole); len(kept) != len(bodies) {
		t.Fatalf("%d of %d copies are kept on a disk that is well", len(kept), len(bodies))
	}
	n := whole.Operations()
	if n < 50 {
		t.Fatalf("%d operations in the history", n)
	}
	step := 1 + n/20
	for at := 1; at <= n; at += step {
		for _, loss := range memdisk.Losses() {
			d := memdisk.New()
			if err := d.MakeDir("/data"); err != nil {
				t.Fatal(err)
			}
			d.SyncDir("/")
			d.CrashBefore(at)
			kept := history(d)
			afterCrash(t, options(d.Restart(loss)), kept, loss == memdisk.LoseNothing, fmt.Sprintf("crash before operation %d, %s", at, loss))
			if t.Failed() {
				return
			}
		}
	}
}

// What a process kept before it was killed is in the kernel alone. The next one makes it durable, so
// that a power cut after its start takes nothing of it.
func TestAPowerCutAfterAKill(t *testing.T) {
	for _, loss := range memdisk.Losses() {
		o := Options{Disk: memdisk.New(), Dir: "/retained", SegmentBytes: 2000, Keys: keys(t), Patience: time.Minute}
		killed, err := Open(o)
		if err != nil {
			t.Fatal(err)
		}
		kept := map[mail.TransactionID][]byte{}
		for i := range 8 {
			body := text(300 + 100*i)
			kept[put(killed, body, to("health", fmt.Sprintf("m%d", i))...).Transaction] = body
		}
		if n := killed.Status().Kept; n != uint64(len(kept)) {
			t.Fatalf("%d of %d copies are kept", n, len(kept))
		}
		left := o.Disk.(*memdisk.Disk).Restart(memdisk.LoseNothing)
		if err := killed.Close(); err != nil {
			t.Fatal(err)
		}
		o.Disk = left
		next, err := Open(o)
		if err != nil {
			t.Fatal(err)
		}
		o.Disk = left.Restart(loss)
		if err := next.Close(); err != nil {
			t.Fatal(err)
		}
		afterCrash(t, o, kept, true, "power cut after a kill, "+loss.String())
	}
}

func afterCrash(t *testing.T, o Options, kept map[mail.TransactionID][]byte, all bool, what string) {
	t.Helper()
	s, err := Open(o)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	defer s.Close()
	found := map[mail.TransactionID]bool{}
	for c, err := range s.Find(context.Background(), Query{}) {
		if err != nil {
			if all || !errors.Is(err, ErrDamaged) {
				t.Errorf("%s: %v", what, err)
			}
			continue
		}
		b, err := s.Open(&c)
		if err == nil {
			var got []byte
			got, err = io.ReadAll(b)
			if want, ok := kept[c.Transaction]; ok && err == nil && !bytes.Equal(got, want) {
				t.Errorf("%s: another content", what)
			}
			err = errors.Join(err, b.Close())
		}
		if err == nil {
			found[c.Transaction] = true
		} else if all || !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrRemoved) {
			t.Errorf("%s: copy %s: %v", what, &c, err)
		}
	}
	removed := s.Agency("health").Removed
	if lost := len(kept) - len(found); all && lost > removed.Copies {
		t.Errorf("%s: %d copies were kept, %d are found, %d were removed", what, len(kept), len(found), removed.Copies)
	}
	m := put(s, text(500), to("health", "later")...)
	if got := countOf(s, m.Transaction); got != 1 {
		t.Errorf("%s: %d copies of what was kept afterwards, %v", what, got, s.Status().Err)
	}
}

// countOf counts the copies of a message, whatever else is damaged.
func countOf(s *Store, id mail.TransactionID) (n int) {
	for _, err := range s.Find(context.Background(), Query{Transaction: id}) {
		if err == nil {
			n++
		}
	}
	return n
}
