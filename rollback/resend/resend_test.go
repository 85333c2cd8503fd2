package resend

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"mailcutover/ledger"
	"mailcutover/ledger/retained"
	"mailcutover/mail"
	"mailcutover/routing"
	"mailcutover/spool"
)

// world is a node's copies, spool and ledger.
type world struct {
	*testing.T
	dir    string
	copies *retained.Store
	spool  *spool.Store
	ledger *ledger.Ledger
	added  []mail.TransactionID
	*Resender
}

type alarms struct{}

func (alarms) Raise(string, string) {}
func (alarms) Clear(string) bool    { return false }

func newWorld(t *testing.T) *world {
	w := &world{T: t, dir: t.TempDir()}
	w.open()
	t.Cleanup(w.close)
	return w
}

func (w *world) open() {
	w.Helper()
	var err error
	if w.copies, err = retained.Open(retained.Options{Dir: filepath.Join(w.dir, "retained")}); err != nil {
		w.Fatal(err)
	}
	if w.spool, err = spool.Open(spool.Options{Dir: filepath.Join(w.dir, "spool"), Node: "mx1", Alarms: alarms{}}); err != nil {
		w.Fatal(err)
	}
	if w.ledger, err = ledger.Open(ledger.Options{Dir: filepath.Join(w.dir, "ledger"), Boot: "1"}); err != nil {
		w.Fatal(err)
	}
	w.Resender = New(Options{
		Copies: w.copies, Spool: w.spool, Ledger: w.ledger, Node: "mx1.example.org",
		Added: func(id mail.TransactionID, _ int) { w.added = append(w.added, id) },
	})
}

func (w *world) close() {
	if err := errors.Join(w.copies.Close(), w.spool.Close(), w.ledger.Close()); err != nil {
		w.Error(err)
	}
}

// keep makes a copy.
func (w *world) keep(body string, names ...string) mail.TransactionID {
	in := w.copies.Begin("health")
	defer in.Discard()
	in.Write([]byte(body))
	var rcpts []ledger.Recipient
	for _, name := range names {
		rcpts = append(rcpts, ledger.Recipient{Address: routing.Address(name + "@health.example"), Agency: "health", Mailbox: routing.MailboxID{name[0]}})
	}
	id := mail.NewTransactionID()
	in.Keep(&retained.Message{Transaction: id, Platform: "ox", Origin: mail.OriginOutside, From: "a@b.example", MessageID: "1@b.example"}, rcpts)
	return id
}

func (w *world) deliver(want int) {
	w.Helper()
	if n, err := w.Deliver(w.Context(), "health", "ox", time.Time{}, nil); err != nil || n != want {
		w.Fatalf("handed over %d, %v; want %d", n, err, want)
	}
}

// spooled returns the messages of the spool.
func (w *world) spooled() (all []*spool.Message) {
	w.Helper()
	var last mail.TransactionID
	w.spool.Each(spool.Filter{}, func(e spool.Entry) bool {
		if e.Transaction != last {
			m, err := w.spool.Get(e.Transaction)
			if err != nil {
				w.Fatal(err)
			}
			all = append(all, m)
			last = e.Transaction
		}
		return true
	})
	return all
}

// end ends a message of the spool, as a delivery does.
func (w *world) end(m *spool.Message) {
	w.Helper()
	for i := range m.Recipients {
		if err := w.spool.Set(spool.Outcome{Transaction: m.Transaction, Recipient: i, State: spool.StateDelivered}); err != nil {
			w.Fatal(err)
		}
	}
}

// A copy goes into the spool once for each recipient: as mail of ours, with the null sender and the body as it was.
func TestDeliver(t *testing.T) {
	w := newWorld(t)
	small := "Received: by mx1 with ESMTP id x\r\n\r\nbody\r\n"
	large := "Received: by mx1 with ESMTP id y\r\n\r\n" + strings.Repeat("line of a large message\r\n", 10_000)
	first := w.keep(small, "dora", "erik")
	w.keep(large, "dora")
	w.deliver(3)
	got := w.spooled()
	if len(got) != 3 || len(w.added) != 3 {
		t.Fatalf("%d messages in the spool, %d told to the queue; want 3", len(got), len(w.added))
	}
	slices.SortFunc(got, func(a, b *spool.Message) int { // the first message's two, then the other's
		return cmp.Or(cmp.Compare(a.Client.Session, b.Client.Session), cmp.Compare(a.Recipients[0].Address, b.Recipients[0].Address))
	})
	for i, name := range []routing.Address{"dora@health.example", "erik@health.example"} {
		if m := got[i]; !m.From.IsNull() || m.Client.Listener != Listener || m.Client.Session != string(first) || m.Client.Origin != mail.OriginOutside || len(m.Recipients) != 1 ||
			m.Recipients[0].Address != name || m.Recipients[0].State != spool.StateWaiting || m.Recipients[0].To.String() != string(name) || m.MessageID != "1@b.example" {
			t.Errorf("the spool has %+v", m)
		}
	}
	for i, want := range []string{small, small, large} {
		body, err := w.spool.Open(got[i].Transaction)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(body)
		if err = errors.Join(err, body.Verify(), body.Close()); err != nil || !bytes.Equal(b, []byte(want)) {
			t.Errorf("message %d: %d bytes, %v; want %d", i, len(b), err, len(want))
		}
	}
	w.deliver(0) // it is in the spool
	for _, m := range got {
		w.end(m)
	}
	w.deliver(0) // it is in the ledger
	w.close()
	w.open()
	w.deliver(0)
	found := 0
	for r, err := range w.ledger.Find(t.Context(), ledger.Query{Transaction: got[0].Transaction}) {
		if err != nil {
			t.Fatal(err)
		}
		if a := r.Answer(0); r.Local && a.Result == ledger.ResultAccepted && strings.Contains(a.Text, string(first)) {
			found++
		}
	}
	if found != 1 {
		t.Errorf("the ledger has %d records that tell of which message it is a copy, want one", found)
	}
}

// What is back for one recipient is left out, and changes nothing for the others.
func TestBackAlready(t *testing.T) {
	w := newWorld(t)
	id := w.keep("Received: x\r\n\r\nbody\r\n", "dora", "erik")
	back := func(t mail.TransactionID, m routing.MailboxID) bool { return t == id && m == routing.MailboxID{'d'} }
	if n, err := w.Deliver(t.Context(), "health", "ox", time.Time{}, back); err != nil || n != 1 || w.spooled()[0].Recipients[0].Address != "erik@health.example" {
		t.Errorf("handed over %d, %v", n, err)
	}
	w.deliver(1) // dora's, which isn't back after all; erik's not again
}

// What a node was about to put into the spool when it was killed is handed over again, unless it
// is there.
func TestKilledBefore(t *testing.T) {
	w := newWorld(t)
	w.keep("Received: x\r\n\r\nbody\r\n", "dora")
	var c retained.Copy
	for one, err := range w.copies.Find(t.Context(), retained.Query{}) {
		if err != nil {
			t.Fatal(err)
		}
		c = one
	}
	id, err := ID(&c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.ledger.Intend(&ledger.Intent{Transaction: id, Local: true, Recipients: c.Recipients}); err != nil {
		t.Fatal(err)
	}
	w.close() // the intent has no outcome
	w.open()
	w.deliver(1)
	w.deliver(0)
}

// A call that is cut short hands nothing more over; the next one goes on.
func TestGoesOn(t *testing.T) {
	w := newWorld(t)
	for range 3 {
		w.keep("Received: x\r\n\r\nbody\r\n", "dora")
	}
	ctx, cancel := context.WithCancel(t.Context())
	w.o.Added = func(mail.TransactionID, int) { cancel() }
	if n, err := w.Deliver(ctx, "health", "ox", time.Time{}, nil); !errors.Is(err, context.Canceled) || n != 1 {
		t.Errorf("handed over %d, %v; want 1 and the context's error", n, err)
	}
	w.deliver(2)
}

func TestPlan(t *testing.T) {
	w := newWorld(t)
	if got := w.Plan("health", time.Time{}); len(got) != 1 || !strings.Contains(got[0], "no retained copy") {
		t.Errorf("plan is %q", got)
	}
	w.keep("Received: x\r\n\r\nbody\r\n", "dora")
	if got := w.Plan("health", time.Time{}); len(got) != 1 || !strings.Contains(got[0], "1 retained copies") {
		t.Errorf("plan is %q", got)
	}
	if _, err := w.copies.Erase("health", retained.ReasonAgencyBytes); err != nil {
		t.Fatal(err)
	}
	if got := w.Plan("health", time.Time{}); len(got) != 2 || !strings.Contains(got[1], "no longer there (bound of the agency)") {
		t.Errorf("plan is %q", got)
	}
	if got := w.Plan("health", time.Now().Add(time.Hour)); len(got) != 1 {
		t.Errorf("plan of later is %q", got)
	}
}
