package spool

import (
	"slices"
	"testing"

	"mailcutover/internal/durable/memdisk"
)

// An operator drops a recipient while its message gets another: whenever that is, the drop
// holds and the other stays, at once, after compaction, a kill and a power cut.
func TestDropBesideAdd(t *testing.T) {
	for _, when := range []string{"before", "when the message was read", "during the fsync", "after", "after the message's end"} {
		t.Run(when, func(t *testing.T) {
			w := newWorld(t, 1, nil)
			w.options.SegmentBytes = headerBytes + 1 // each group has a segment
			if err := w.open(); err != nil {
				t.Fatal(err)
			}
			s, env := w.s, envelope(t)
			in, err := s.Begin(env)
			if err != nil {
				t.Fatal(err)
			}
			if err := in.Commit(t.Context(), []Recipient{rcpt("anna", "health", StateHeld)}); err != nil {
				t.Fatal(err)
			}
			drops := 0
			drop := func() {
				drops++
				if err := s.Set(Outcome{Transaction: env.Transaction, State: StateDropped, Reason: "dropped by an operator"}); err != nil {
					t.Error(err)
				}
			}
			switch when {
			case "before":
				drop()
			case "when the message was read":
				s.o.before = func(j *job) {
					if j.kind == jobAdd {
						drop()
					}
				}
			case "during the fsync":
				w.inSync = drop
			}
			if err := in.Add(t.Context(), []Recipient{rcpt("bert", "works", StateWaiting)}); err != nil {
				t.Fatal(err)
			}
			if when == "after" {
				drop()
			}
			in.Discard()
			if when == "after the message's end" {
				drop()
			}
			if drops != 1 {
				t.Fatalf("dropped %d times", drops)
			}
			check := func(s *Store, what string) {
				t.Helper()
				var got []string
				s.Each(Filter{}, func(e Entry) bool { got = append(got, e.Key.String()+" "+e.State.String()); return true })
				bert := rcpt("bert", "works", StateWaiting)
				if want := []string{bert.Key().String() + " waiting"}; !slices.Equal(got, want) {
					t.Errorf("%s: %q, want %q", what, got, want)
				}
				m, err := s.Get(env.Transaction)
				if err != nil || m.Recipients[0].State != StateDropped || m.Recipients[0].Reason != "dropped by an operator" {
					t.Errorf("%s: %+v, %v", what, m, err)
				}
			}
			check(s, "at once")
			again := func(loss memdisk.Loss) {
				s := openStore(t, Options{Disk: w.disk.Restart(loss)})
				defer s.Close()
				check(s, loss.String())
			}
			again(memdisk.LoseNothing)
			if err := s.flush(); err != nil {
				t.Fatal(err)
			}
			again(memdisk.LoseAll)
			for n := s.worth(); n != 0; n = s.worth() {
				if err := s.compactSegment(n); err != nil {
					t.Fatal(err)
				}
			}
			check(s, "after compaction")
			again(memdisk.LoseAll)
		})
	}
}
