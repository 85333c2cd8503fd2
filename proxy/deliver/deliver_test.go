package deliver

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"mailcutover/internal/platformtest"
	"mailcutover/ledger"
	"mailcutover/routing"
	"mailcutover/spool"
	"mailcutover/spool/queue"
)

// quick are delays for tests with real platforms.
var quick = queue.Retry{
	First: 50 * time.Millisecond, Max: 200 * time.Millisecond, Pause: 20 * time.Millisecond, PauseMax: 100 * time.Millisecond,
	Patience: time.Minute, Down: 20 * time.Millisecond, DownMax: 100 * time.Millisecond,
}

const content = "Received: from a\r\n\tby mx1.example\r\nSubject: x\r\n\r\n.dot\r\nGr\u00fc\u00dfe\r\n"

// platforms starts exchange (SMTP), ox (LMTP) and the relay for notices.
func platforms(t testing.TB) (exchange, ox, notices *platformtest.Platform, endpoints []endpoint) {
	exchange, ox, notices = start(t, platformtest.Options{}), start(t, platformtest.Options{LMTP: true}), start(t, platformtest.Options{})
	return exchange, ox, notices, []endpoint{
		{id: "exchange", addr: exchange.Addr(), connections: 4}, {id: "ox", addr: ox.Addr(), lmtp: true, connections: 4}, {id: "relay", addr: notices.Addr()},
	}
}

// TestReplayToBothSides: held mail follows its mailboxes, to the table's address, byte by
// byte, and the ledger has it.
func TestReplayToBothSides(t *testing.T) {
	exchange, ox, _, endpoints := platforms(t)
	w := newWorld(t, t.TempDir(), time.Minute, quick, endpoints...)
	defer w.close()
	first := w.put(spool.StateHeld, content, 1, 2, 3)
	w.run()
	w.wait("the first is delivered", w.empty)
	got := exchange.Stored()
	if len(got) != 1 || len(got[0].Accepted()) != 3 || got[0].Rcpts[0].Path != string(address(1)) || !bytes.Equal(got[0].Body(), []byte(content)) || got[0].From != "Sender@out.example" {
		t.Fatalf("exchange got %+v", got)
	}

	w.change(func(a *routing.Agency) { a.Phase = routing.PhaseToTarget })
	second := w.put(spool.StateHeld, content, 1, 2)
	w.change(func(a *routing.Agency) { a.Phase = routing.PhaseTarget })
	w.wait("the second is delivered", w.empty)
	stored := ox.Stored()
	if len(stored) != 1 || !stored[0].StoredFor("m1@ox.internal") || !stored[0].StoredFor("m2@ox.internal") || len(exchange.Stored()) != 1 {
		t.Fatalf("ox got %+v", stored)
	}
	w.end()
	records := w.records()
	if len(records) != 2 {
		t.Fatalf("ledger has %+v", records)
	}
	for i, want := range []ledger.Intent{{Transaction: second, Platform: "ox"}, {Transaction: first, Platform: "exchange"}} { // newest first
		r := records[i]
		if r.Transaction != want.Transaction || r.Platform != want.Platform || r.Answer(1).Result != ledger.ResultDelivered || r.Size != int64(len(content)) || r.Recipients[0].Mailbox != mailbox(1) || r.Digest == 0 {
			t.Errorf("record %d is %+v", i, r)
		}
	}
	if load := w.gate.Load("health"); load != (w.gate.Load("nobody")) {
		t.Errorf("the gate still has %+v", load)
	}
}

// TestRefusals: what is refused for good, and what isn't believed.
func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		name   string
		armed  bool
		verb   string
		reply  string
		notice bool // else it stays in the spool
		alarm  string
	}{
		{"unknown mailbox, settled", false, "RCPT", "550 5.1.1 who", true, ""},
		{"unknown mailbox, armed", true, "RCPT", "550 5.1.1 who", false, "refused/exchange/"},
		{"content, armed", true, platformtest.VerbDot, "554 5.6.0 not this", true, ""},
		{"content without a code, armed", true, platformtest.VerbDot, "554 not this", true, ""},
		{"unknown at the dot, armed", true, platformtest.VerbDot, "550 5.1.1 who", false, "refused/exchange/"},
		{"over quota", false, "RCPT", "452 4.2.2 full", false, ""},
		{"busy", false, "MAIL", "421 4.3.2 busy", false, ""},
		{"not logged in, settled", false, "MAIL", "530 5.7.57 Client not authenticated to send mail", false, "misfit/exchange"},
		{"may not relay, settled", false, "RCPT", "550 5.7.54 Unable to relay", false, "misfit/exchange"},
		{"a greeting of 554", false, platformtest.VerbConnect, "554 go away", false, "misfit/exchange"},
	} {
		t.Run(c.name, func(t *testing.T) {
			exchange, _, notices, endpoints := platforms(t)
			exchange.SetScript(platformtest.On(c.verb, platformtest.Reaction{Reply: c.reply}))
			w := newWorld(t, t.TempDir(), time.Minute, quick, endpoints...)
			defer w.close()
			if c.armed {
				w.change(func(a *routing.Agency) { a.Tightness = routing.Armed })
			}
			id := w.put(spool.StateHeld, content, 1)
			w.run()
			if c.notice {
				if got, err := notices.WaitStored(t.Context(), 1); err != nil || !strings.Contains(string(got[0].Body()), "Action: failed") || got[0].From != "" || got[0].Rcpts[0].Path != "Sender@out.example" {
					t.Fatalf("notices %+v, %v", got, err)
				}
				w.wait("the spool is empty", w.empty)
				return
			}
			w.wait("three attempts", func() bool {
				n := 0
				for _, cmd := range exchange.Commands() {
					if cmd.Verb == c.verb {
						n++
					}
				}
				return n >= 3
			})
			if m, err := w.store.Get(id); err != nil || m.Recipients[0].State != spool.StateHeld || len(notices.Stored()) != 0 {
				t.Errorf("message %+v, %v", m, err)
			}
			if c.alarm != "" && !w.alarm(c.alarm) {
				t.Errorf("no alarm %s in %v", c.alarm, w.alarms.List())
			}
			exchange.SetScript(nil)
			w.wait("it is delivered after all", w.empty)
		})
	}
}

// TestAnswerLost: the message rests for the platform's limit, keeps its mailbox's order, and
// goes again where its mailbox is by then; copies are as many as the ledger has in doubt.
func TestAnswerLost(t *testing.T) {
	exchange, ox, _, endpoints := platforms(t)
	const limit = 4 * time.Second // so long that the agency is on its way when the message may go again
	w := newWorld(t, t.TempDir(), limit, quick, endpoints...)
	defer w.close()
	exchange.SetScript(platformtest.On(platformtest.VerbDot, platformtest.Reaction{Drop: platformtest.DropBefore}))
	w.put(spool.StateHeld, content, 1)
	w.put(spool.StateHeld, content, 1)
	w.run()
	var until time.Time
	w.wait("it is in doubt", func() bool {
		until = w.gate.InDoubt("health")
		return !until.IsZero()
	})
	w.change(func(a *routing.Agency) { a.Phase = routing.PhaseToTarget })
	rec, _ := w.State().Agency("health")
	if err := w.gate.Drain(t.Context(), "health", rec.Epoch, nil); err != nil {
		t.Fatal(err)
	}
	if left := time.Until(until); left > 0 {
		t.Errorf("drained %s before, while a message was in doubt", left)
	}
	w.change(func(a *routing.Agency) { a.Phase = routing.PhaseTarget })
	w.wait("all is delivered", w.empty)
	w.end()
	if len(exchange.Stored()) != 1 || len(ox.Stored()) != 2 {
		t.Errorf("exchange has %d, ox %d", len(exchange.Stored()), len(ox.Stored()))
	}
	doubts := 0
	for _, r := range w.records() {
		if r.Answer(0).Result == ledger.ResultInDoubt {
			doubts++
		}
	}
	if doubts != 1 {
		t.Errorf("the ledger has %d in doubt, want 1", doubts)
	}
}

// TestClosesBeforeTheDot: a delivery that is under way when its agency closes gets no dot.
func TestClosesBeforeTheDot(t *testing.T) {
	exchange, ox, _, endpoints := platforms(t)
	w := newWorld(t, t.TempDir(), time.Minute, quick, endpoints...)
	defer w.close()
	asked := make(chan struct{})
	var once atomic.Bool
	exchange.SetScript(func(c platformtest.Command) platformtest.Reaction {
		if c.Verb == "DATA" && once.CompareAndSwap(false, true) {
			close(asked)
			return platformtest.Reaction{Stall: true}
		}
		return platformtest.Reaction{}
	})
	w.put(spool.StateHeld, content, 1)
	w.run()
	<-asked
	w.change(func(a *routing.Agency) { a.Phase = routing.PhaseToTarget })
	w.wait("the gate is empty", func() bool { return w.gate.Load("health").Open == 0 })
	if w.empty() || len(exchange.Stored()) != 0 {
		t.Error("the message is gone")
	}
	w.change(func(a *routing.Agency) { a.Phase = routing.PhaseTarget })
	w.wait("it is delivered", w.empty)
	if len(ox.Stored()) != 1 || len(exchange.Stored()) != 0 {
		t.Errorf("exchange has %d, ox %d", len(exchange.Stored()), len(ox.Stored()))
	}
}

// TestRightLapses: a 250 that comes when this node may decide no longer doesn't count; the
// message goes again, and the ledger says so.
func TestRightLapses(t *testing.T) {
	exchange, _, _, endpoints := platforms(t)
	w := newWorld(t, t.TempDir(), time.Minute, quick, endpoints...)
	defer w.close()
	lapse := func(is bool) {
		w.mu.Lock()
		w.lapsed = is
		w.mu.Unlock()
	}
	var once atomic.Bool
	exchange.SetScript(func(c platformtest.Command) platformtest.Reaction {
		if c.Verb == platformtest.VerbDot && once.CompareAndSwap(false, true) {
			lapse(true)
		}
		return platformtest.Reaction{}
	})
	w.put(spool.StateHeld, content, 1)
	w.run()
	if _, err := exchange.WaitStored(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	w.wait("the ledger has it", func() bool {
		r := w.records()
		return len(r) == 1 && r[0].Answer(0).Result == ledger.ResultNotAcknowledged
	})
	if w.empty() {
		t.Fatal("the message is gone from the spool")
	}
	lapse(false)
	w.wait("it went again", w.empty)
	if n := len(exchange.Stored()); n != 2 {
		t.Errorf("%d copies, want 2", n)
	}
}

// TestDamagedBody: a body whose bytes changed on the disk never gets a dot.
func TestDamagedBody(t *testing.T) {
	exchange, _, _, endpoints := platforms(t)
	dir := t.TempDir()
	w := newWorld(t, dir, time.Minute, quick, endpoints...)
	defer w.close()
	large := "Subject: x\r\n\r\n" + strings.Repeat("0123456789abcdefghijklmnopqrstuvwxyz\r\n", 5000)
	bad := w.put(spool.StateHeld, large, 1)
	w.put(spool.StateHeld, content, 1)
	files, err := filepath.Glob(dir + "/spool/bodies/*.body")
	if err != nil || len(files) != 1 {
		t.Fatalf("bodies %v, %v", files, err)
	}
	b, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(files[0], b, 0o600); err != nil {
		t.Fatal(err)
	}
	w.run()
	w.wait("the other is delivered", func() bool { c, _ := w.store.Counts(); return c.Messages == 1 && c.Of(spool.StateQuarantined) == 1 })
	if got := exchange.Stored(); len(got) != 1 || got[0].Size > 1000 {
		t.Errorf("exchange got %d messages", len(got))
	}
	if m, err := w.store.Get(bad); err != nil || m.Recipients[0].State != spool.StateQuarantined || !w.alarm("spool-quarantine") {
		t.Errorf("message %+v, %v", m, err)
	}
}

// TestForwardLeft: mail that came from the platform that it would go to waits.
func TestForwardLeft(t *testing.T) {
	exchange, ox, _, endpoints := platforms(t)
	endpoints[0].nets = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	w := newWorld(t, t.TempDir(), time.Minute, quick, endpoints...)
	defer w.close()
	w.put(spool.StateWaiting, content, 1)
	w.run()
	w.wait("an alarm", func() bool { return w.alarm("forward-left/exchange/") })
	w.change(func(a *routing.Agency) { a.Phase = routing.PhaseTarget })
	w.wait("it is delivered to the other side", w.empty)
	if len(exchange.Stored()) != 0 || len(ox.Stored()) != 1 {
		t.Errorf("exchange has %d, ox %d", len(exchange.Stored()), len(ox.Stored()))
	}
}

// TestUnknownPlatform: a platform that isn't configured is a mistake that is told, and repaired.
func TestUnknownPlatform(t *testing.T) {
	exchange, _, _, endpoints := platforms(t)
	w := newWorld(t, t.TempDir(), time.Minute, quick, endpoints[1:]...)
	defer w.close()
	w.put(spool.StateHeld, content, 1)
	w.run()
	w.wait("an alarm", func() bool { return w.alarm("platform-unknown/exchange") })
	other := newWorld(t, t.TempDir(), time.Minute, quick, endpoints...)
	defer other.close()
	o := other.sender.settings.Load().Options
	o.Gate, o.Ledger = w.gate, w.ledger
	w.sender.Configure(o)
	w.wait("it is delivered", w.empty)
	if len(exchange.Stored()) != 1 {
		t.Error("it went elsewhere")
	}
}

// sick is a ledger that can't be written for a while.
type sick struct {
	Ledger
	is atomic.Bool
}

func (s *sick) Intend(i *ledger.Intent) (ledger.Ticket, error) {
	if s.is.Load() {
		return ledger.Ticket{}, ledger.ErrUnavailable
	}
	return s.Ledger.Intend(i)
}

// TestLedgerSick: without an intent there is no dot, and held mail keeps its order however
// long that takes.
func TestLedgerSick(t *testing.T) {
	exchange, _, _, endpoints := platforms(t)
	impatient := quick
	impatient.Patience = time.Millisecond
	w := newWorld(t, t.TempDir(), time.Minute, impatient, endpoints...)
	defer w.close()
	o := w.sender.settings.Load().Options
	l := &sick{Ledger: o.Ledger}
	l.is.Store(true)
	o.Ledger = l
	w.sender.Configure(o)
	for range 3 {
		w.put(spool.StateHeld, content, 1)
	}
	w.run()
	w.wait("five attempts", func() bool {
		n := 0
		for _, c := range exchange.Commands() {
			if c.Verb == "DATA" {
				n++
			}
		}
		return n >= 5
	})
	if c, _ := w.store.Counts(); c.Of(spool.StateHeld) != 3 || len(exchange.Stored()) != 0 {
		t.Errorf("%d held, %d stored", c.Of(spool.StateHeld), len(exchange.Stored()))
	}
	l.is.Store(false)
	w.wait("all is delivered", w.empty)
}

// lapsing is a ledger of which each intent is the last that the node's right covers.
type lapsing struct {
	*ledger.Ledger
	lapse func()
}

func (l *lapsing) Intend(i *ledger.Intent) (ledger.Ticket, error) {
	t, err := l.Ledger.Intend(i)
	l.lapse()
	return t, err
}

// TestLapsedBeforeTheDot: between the body and the dot the right to decide ends, which cuts nothing.
// The gate is asked once more, and no dot is sent (node rule 3).
func TestLapsedBeforeTheDot(t *testing.T) {
	exchange, _, _, endpoints := platforms(t)
	w := newWorld(t, t.TempDir(), time.Minute, quick, endpoints...)
	defer w.close()
	o := w.sender.settings.Load().Options
	o.Ledger = &lapsing{w.ledger, func() {
		w.mu.Lock()
		w.lapsed = true
		w.mu.Unlock()
	}}
	w.sender.Configure(o)
	id := w.put(spool.StateHeld, content, 1)
	w.run()
	w.wait("the ledger has how it ended", func() bool {
		records := w.records()
		return len(records) > 0 && records[0].Answer(0).Result != ledger.ResultPending
	})
	if got := w.records()[0].Answer(0).Result; got != ledger.ResultNotSent || len(exchange.Stored()) != 0 {
		t.Errorf("%v, and the platform has %d messages; want none, and %v", got, len(exchange.Stored()), ledger.ResultNotSent)
	}
	if m, err := w.store.Get(id); err != nil || m.Recipients[0].State != spool.StateHeld {
		t.Errorf("message %+v, %v", m, err)
	}
}
