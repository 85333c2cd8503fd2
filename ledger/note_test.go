package ledger

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"syscall"
	"testing"

	"mailcutover/internal/durable/memdisk"
)

// What became of a message on this node is found as what was handed over is, in a segment that
// is written and in one that is indexed, and is not counted among the deliveries.
func TestNote(t *testing.T) {
	o := options(memdisk.New(), "1")
	l := openOn(t, o)
	tr := newTraffic(1)
	i := tr.intent()
	i.Platform, i.Host = "", "192.0.2.1 (mx.out.example)"
	second := i.Recipients[0]
	second.Address = "second@x.example"
	i.Recipients = append(i.Recipients, second)
	reason := strings.Repeat("why ", 70) + "(Anna Berg)"
	if err := l.Note(i, Answer{ResultDropped, 0, reason}, Answer{ResultRefused, 550, "5.1.1 no"}); err != nil {
		t.Fatal(err)
	}
	check := func(where string) {
		t.Helper()
		for _, q := range []Query{{Transaction: i.Transaction}, {Recipient: string(second.Address)}, {MessageID: i.MessageID, Result: ResultDropped}} {
			got := collect(t, l, q)
			if len(got) != 1 || !got[0].Local || got[0].Host != i.Host || got[0].Answer(0).Text != reason || got[0].Answer(1) != (Answer{ResultRefused, 550, "5.1.1 no"}) || got[0].Answered.IsZero() {
				t.Errorf("%s: %+v", where, got)
			}
		}
	}
	check("written")
	if s := l.Status(); s.Open != 0 || s.Counts != (Counts{}) {
		t.Errorf("open %d, counts %+v", s.Open, s.Counts)
	}
	newCustody().deliver(l, 100, 1)
	l.tick(&pace{})
	l.tick(&pace{})
	check("indexed")
}

// A disk that takes no writes keeps nothing open.
func TestNoteOnASickDisk(t *testing.T) {
	disk := memdisk.New()
	l := openOn(t, options(disk, "1"))
	disk.Fail(func(memdisk.Op, string) error { return syscall.ENOSPC })
	if err := l.Note(newTraffic(1).intent(), Answer{Result: ResultExpired}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("note: %v", err)
	}
	if n := l.Status().Open; n != 0 {
		t.Errorf("%d open", n)
	}
	disk.Fail(nil)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Note(newTraffic(1).intent(), Answer{Result: ResultExpired}); !errors.Is(err, ErrClosed) {
		t.Errorf("note: %v", err)
	}
}

// After a kill what was on its way into the spool is a possible duplicate by name, but nothing
// that a drain or a delivery has to wait for; also if a new segment carried it.
func TestKilledBeforeTheSenderWasTold(t *testing.T) {
	for _, carried := range []bool{false, true} { // into another segment
		disk := memdisk.New()
		o := options(disk, "1")
		l := openOn(t, o)
		tr := newTraffic(1)
		spooled, told, handed := tr.intent(), tr.intent(), tr.intent()
		spooled.Local, told.Local = true, true
		handed.Transaction, handed.Platform, handed.Time, handed.Recipients = spooled.Transaction, spooled.Platform, spooled.Time, spooled.Recipients
		if _, err := l.Intend(handed); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Intend(spooled); err != nil {
			t.Fatal(err)
		}
		deliver(t, l, told, Answer{ResultAccepted, 0, "held: agency closed"})
		if carried {
			newCustody().deliver(l, 60, 2) // segments are small
		}
		var log bytes.Buffer
		o.Logger = slog.New(slog.NewTextHandler(&log, nil))
		l = openOn(t, o)
		doubts := 0
		for _, i := range l.InDoubt() {
			if i.Local {
				t.Errorf("carried=%t: in doubt is %+v", carried, i)
			}
			if i.Transaction == handed.Transaction {
				doubts++
			}
		}
		if doubts != 1 {
			t.Errorf("carried=%t: what was handed over is %d times in doubt", carried, doubts)
		}
		if s := log.String(); !strings.Contains(s, string(spooled.Transaction)) || !strings.Contains(s, string(spooled.Recipients[0].Address)) || strings.Contains(s, string(told.Transaction)) {
			t.Errorf("carried=%t: log %s", carried, s)
		}
		l.tick(&pace{})
		for range 2 { // also after the next start
			results := map[bool]Result{}
			for _, r := range collect(t, l, Query{Transaction: spooled.Transaction}) {
				results[r.Local] = r.Answer(0).Result
			}
			if results[true] != ResultNotAcknowledged || results[false] != ResultInDoubt {
				t.Errorf("carried=%t: found %v", carried, results)
			}
			if got := collect(t, l, Query{Recipient: string(told.Recipients[0].Address), Result: ResultAccepted}); len(got) != 1 {
				t.Errorf("carried=%t: found %+v", carried, got)
			}
			log.Reset()
			l = openOn(t, o)
			if strings.Contains(log.String(), "not acknowledged") {
				t.Errorf("carried=%t: named again: %s", carried, log.String())
			}
		}
	}
}
