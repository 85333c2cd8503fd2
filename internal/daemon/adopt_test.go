package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"mailcutover/admin"
	"mailcutover/internal/alarm"
	"mailcutover/ledger"
	"mailcutover/mail"
	"mailcutover/routing"
	"mailcutover/spool"
)

// oldSpool makes the spool of a node that is gone, with n messages for anna, and returns
// where it is.
func oldSpool(t *testing.T, n int) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "spool")
	s, err := spool.Open(spool.Options{Dir: dir, Node: "mx2.example"})
	if err != nil {
		t.Fatal(err)
	}
	mailbox, err := routing.ParseMailboxID("6b1f2ad0-3c4e-4f5a-8b6c-7d8e9fa0b1c2")
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		in, err := s.Begin(spool.Envelope{Transaction: mail.NewTransactionID(), Time: time.Now()})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(in, "X-Number: %d\r\n\r\nmarker-of-a-body %d\r\n", i, i)
		state := spool.StateHeld
		if i == 0 {
			state = spool.StateQuarantined
		}
		err = in.Commit(t.Context(), []spool.Recipient{{Address: "anna@health.example", Agency: "health", Mailbox: mailbox, State: state, Reason: "closed"}})
		in.Discard()
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

// The spool of a node that is gone is taken over while this one runs: its held mail
// arrives, each message once and in its order, what was in quarantine stays there, and
// the old node can't open it any more.
func TestAdopt(t *testing.T) {
	b := newBench(t)
	dir := oldSpool(t, 6)
	ask := admin.Adopt{Directory: dir, From: "mx3.example", Reason: "burnt down"}
	_, err := b.api.AdoptSpool(t.Context(), ask)
	if p := new(admin.Problem); !errors.As(err, &p) || p.Status != 412 {
		t.Fatalf("from another node: %v", err)
	}
	ask.From = "mx2.example"
	done, err := b.api.AdoptSpool(t.Context(), ask)
	if err != nil || done.From != "mx2.example" || done.Messages != 6 || len(done.ID) != 32 {
		t.Fatalf("%+v, %v", done, err)
	}
	stored, err := b.a.WaitStored(t.Context(), 5)
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range stored {
		if !bytes.Contains(m.Raw, fmt.Appendf(nil, "X-Number: %d\r\n", i+1)) {
			t.Errorf("message %d: %q", i, m.Raw)
		}
	}
	b.until("the adoption has ended", func() bool {
		st, err := b.api.Spool(t.Context())
		return err == nil && len(st.Adoptions) == 1 && st.Adoptions[0].Ended != nil && st.Adoptions[0].Moved == 6 && st.Adoptions[0].Error == "" && st.Total.Quarantined == 1
	})
	if n := len(b.a.Stored()); n != 5 {
		t.Errorf("%d messages arrived, want 5", n)
	}
	if _, err := spool.Open(spool.Options{Dir: dir, Node: "mx2.example"}); !errors.Is(err, spool.ErrAdopted) {
		t.Errorf("the old node's start: %v", err)
	}
	// Once more is no harm: nothing is left in it.
	if done, err = b.api.AdoptSpool(t.Context(), ask); err != nil || done.Messages != 0 {
		t.Errorf("again: %+v, %v", done, err)
	}
	log := b.log.String()
	if !strings.Contains(log, `"person":"tester","reason":"burnt down"`) || strings.Contains(log, "marker-of-a-body") {
		t.Error("the log lacks the person, or has content")
	}
}

// An adoption that a stop interrupted goes on at the next start.
func TestAdoptionGoesOn(t *testing.T) {
	b := newBench(t)
	b.stop(b.Daemon)
	dir, gone := oldSpool(t, 4), filepath.Join(t.TempDir(), "gone")
	if _, err := spool.Adopt(nil, dir, "mx2.example", "mx1.example"); err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(b.config.Load().Data, adoptingFile)
	if err := os.WriteFile(list, []byte(gone+"\n"+dir+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.start()
	if _, err := b.a.WaitStored(t.Context(), 3); err != nil {
		t.Fatal(err)
	}
	b.until("it is no longer written down", func() bool {
		text, err := os.ReadFile(list)
		return err == nil && string(text) == gone+"\n" // which is tried again next time
	})
	alarms, err := b.api.Alarms(t.Context())
	if err != nil || !slices.ContainsFunc(alarms, func(a alarm.Alarm) bool { return a.Key == "spool-adoption/"+gone }) {
		t.Errorf("alarms %v, %v", alarms, err)
	}
}

// A damaged message of an adopted spool stays where it is, and an alarm says so.
func TestAdoptDamaged(t *testing.T) {
	b := newBench(t)
	dir := oldSpool(t, 3)
	journals, err := filepath.Glob(filepath.Join(dir, "journal", "*.log"))
	if err != nil || len(journals) == 0 {
		t.Fatal(journals, err)
	}
	for _, name := range journals {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, bytes.Replace(text, []byte("marker-of-a-body 1"), []byte("marker-of-a-cody 1"), 1), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.api.AdoptSpool(t.Context(), admin.Adopt{Directory: dir, From: "mx2.example", Reason: "r"}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.a.WaitStored(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	b.until("one is left", func() bool {
		list := b.adoptionsOf(t)
		return len(list) == 1 && list[0].Ended != nil && list[0].Moved == 2 && list[0].Left == 1
	})
	alarms, err := b.api.Alarms(t.Context())
	if err != nil || len(alarms) == 0 {
		t.Errorf("alarms %v, %v", alarms, err)
	}
}

func (b *bench) adoptionsOf(t *testing.T) []admin.Adoption {
	t.Helper()
	st, err := b.api.Spool(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return st.Adoptions
}

// What can't be adopted is refused, and nothing is changed.
func TestAdoptRefused(t *testing.T) {
	b := newBench(t)
	own := filepath.Join(b.config.Load().Data, "spool")
	open := oldSpool(t, 1)
	s, err := spool.Open(spool.Options{Dir: open, Node: "mx2.example"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for name, ask := range map[string]admin.Adopt{
		"our own":      {Directory: own, From: "mx1.example", Reason: "r"},
		"in use":       {Directory: open, From: "mx2.example", Reason: "r"},
		"not there":    {Directory: filepath.Join(t.TempDir(), "none"), From: "mx2.example", Reason: "r"},
		"no spool":     {Directory: t.TempDir(), From: "mx2.example", Reason: "r"},
		"not absolute": {Directory: "spool", From: "mx2.example", Reason: "r"},
	} {
		if _, err := b.api.AdoptSpool(t.Context(), ask); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if id, err := spool.Owner(nil, open); err != nil || id.Owner != "mx2.example" {
		t.Errorf("%+v, %v", id, err)
	}
}

// What is wrong with spool and ledger is an alarm while it is, and nothing is while all
// is well.
func TestSpoolAlarms(t *testing.T) {
	broken := fmt.Errorf("spool /x: %w: input/output error", spool.ErrBroken)
	most := spool.Bounds{Messages: 10, Bytes: 1000, AgencyMessages: 5}
	for _, c := range []struct {
		name   string
		spool  spool.Status
		ledger ledger.Status
		want   string
	}{
		{"well", spool.Status{}, ledger.Status{}, ""},
		{"room", spool.Status{Counts: spool.Counts{Messages: 8, Bytes: 800}}, ledger.Status{}, ""},
		{"broken", spool.Status{Broken: broken}, ledger.Status{}, "spool-broken"},
		{"adopted", spool.Status{Broken: fmt.Errorf("spool /x: %w", spool.ErrAdopted)}, ledger.Status{}, "spool-adopted"},
		{"closed by a stop", spool.Status{Broken: spool.ErrClosed}, ledger.Status{}, ""},
		{"messages", spool.Status{Counts: spool.Counts{Messages: 9}}, ledger.Status{}, "spool-full"},
		{"bytes", spool.Status{Counts: spool.Counts{Bytes: 900}}, ledger.Status{}, "spool-full"},
		{"agency", spool.Status{Agency: map[routing.AgencyID]spool.Counts{"health": {Messages: 5}}}, ledger.Status{}, "spool-full/health"},
		{"ledger", spool.Status{}, ledger.Status{Err: ledger.ErrUnavailable}, "ledger-broken"},
		{"ledger's fsync", spool.Status{}, ledger.Status{SyncErr: errors.New("input/output error")}, "ledger-unsynced"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := ""
			for key := range spoolAlarms(c.spool, c.ledger, most) {
				got += key
			}
			if got != c.want {
				t.Errorf("alarms %q, want %q", got, c.want)
			}
		})
	}
}

// A node whose spool or ledger is unwell says so at /readyz; one that hears nothing of
// them, too.
func TestSpoolWatch(t *testing.T) {
	w := new(spoolWatch)
	if got := w.list(); len(got) != 0 {
		t.Errorf("before the first look: %v", got)
	}
	w.set([]string{"x"})
	if got := w.list(); len(got) != 1 {
		t.Errorf("after a look: %v", got)
	}
	w.at = w.at.Add(-2 * spoolSilence)
	if got := w.list(); len(got) != 2 || !strings.Contains(got[1], "hangs") {
		t.Errorf("after a silence: %v", got)
	}
	b := newBench(t)
	b.until("a first look", func() bool {
		b.watch.mu.Lock()
		defer b.watch.mu.Unlock()
		return !b.watch.at.IsZero()
	})
	if got := b.watch.list(); len(got) != 0 {
		t.Errorf("a node that is well: %v", got)
	}
	if _, err := spool.Adopt(nil, filepath.Join(b.config.Load().Data, "spool"), "mx1.example", "mx9.example"); !errors.Is(err, spool.ErrInUse) {
		t.Errorf("adoption of a spool in use: %v", err)
	}
}
