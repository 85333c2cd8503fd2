package queue

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"mailcutover/mail"
	"mailcutover/routing"
	"mailcutover/spool"
)

// TestOrderAndDuplicates draws a history of held and arriving mail, mailboxes that open,
// close, move, put off and give their addresses to others, platforms that go away and lose
// answers, operators who set mail aside, release and drop it, and restarts of the queue at any
// time. Each mailbox gets its held mail in order, all of it, on the side where it is, and twice
// only what was in doubt or under way at a restart.
func TestOrderAndDuplicates(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, nil)
			h := &history{world: w, rt: rt, copies: make(map[string]int), doubts: make(map[string]int), doubted: make(map[mail.TransactionID]time.Time), rests: make(map[string]time.Time)}
			h.play()
		})
	})
}

const drawnBoxes = 4

// history is one run of the property test.
type history struct {
	*world
	rt      *rapid.T
	copies  map[string]int // of "transaction recipient"
	doubts  map[string]int // reasons to expect another
	doubted map[mail.TransactionID]time.Time
	rests   map[string]time.Time
	down    bool
	off     map[int]bool         // mailboxes that are put off
	lose    int                  // answers to lose
	loses   map[int]bool         // mailboxes whose answers are lost, all of them
	early   []string             // what went again before the platform's limit, or its delay, had passed
	put     map[string]time.Time // when a recipient was put off last
	eager   time.Time            // when something last happened that makes mail go before its delay is over
	passed  []string             // what went before older mail of its mailbox
}

func (h *history) play() {
	w := h.world
	h.off, h.loses, h.put = make(map[int]bool), make(map[int]bool), make(map[string]time.Time)
	for n := range drawnBoxes {
		h.side(n, rapid.SampledFrom([]string{"", "exchange", "ox"}).Draw(h.rt, "begins on"))
	}
	w.behave = h.answer
	h.launch()
	steps := rapid.IntRange(10, 50).Draw(h.rt, "steps")
	for range steps {
		h.step()
	}
	// In the end all is well, and everything goes.
	w.mu.Lock()
	h.down, h.off, h.lose, h.loses = false, make(map[int]bool), 0, make(map[int]bool)
	w.mu.Unlock()
	for n := range drawnBoxes {
		h.side(n, "ox")
	}
	w.settle(time.Hour, "nothing is set aside", func() bool { return h.act(w.q.Release, Subject{Agency: "health"}).Busy == 0 })
	w.settle(6*time.Hour, "all is delivered", w.store.empty)
	w.stop()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(h.passed) > 0 {
		h.rt.Errorf("overtook: %v", h.passed)
	}
	if len(h.early) > 0 {
		h.rt.Errorf("went again too early: %v", h.early)
	}
	last := make(map[string]uint64)
	for _, s := range w.sent {
		if s.status != Delivered && s.status != InDoubt {
			continue
		}
		if m := w.store.messages[s.id]; w.waited[s.id] || slices.ContainsFunc(w.store.history, func(o spool.Outcome) bool {
			return o.Transaction == s.id && (o.State == spool.StateWaiting || o.State == spool.StateQuarantined) && m.Recipients[o.Recipient].Address == s.address
		}) {
			continue // it was, or became, waiting mail, or was set aside
		}
		if s.seq < last[string(s.address)] {
			h.rt.Errorf("%s got %d after %d", s.address, s.seq, last[string(s.address)])
		}
		last[string(s.address)] = s.seq
	}
	for key, n := range h.copies {
		if n-1 > h.doubts[key] {
			h.rt.Errorf("%s went %d times, with %d reasons to", key, n, h.doubts[key])
		}
	}
	for id, m := range w.store.messages {
		for i := range m.Recipients {
			if h.copies[fmt.Sprint(id, " ", i)] == 0 && m.Recipients[i].State != spool.StateDropped {
				h.rt.Errorf("message %d recipient %d is lost: %s", m.Sequence, i, m.Recipients[i].State)
			}
		}
	}
}

// launch starts a queue on the store, as after a kill: what was in doubt then, rests.
func (h *history) launch() {
	w := h.world
	fresh := newWorld(w.T, func(o *Options) {
		o.Store, o.Router, o.Sender, o.Alarms = w.store, w, w, w
		o.Doubts = make(map[mail.TransactionID]time.Time)
		for id, until := range h.doubted {
			o.Doubts[id] = until
		}
	})
	w.q = fresh.q
	w.run()
}

// answer is what a platform does with a delivery. w.mu is held.
func (h *history) answer(d *Delivery, r *Recipient) Result {
	n := int(r.Decision.Mailbox[15])
	key := fmt.Sprint(d.Message.Transaction, " ", r.Index)
	now := h.decisions[r.Decision.Address]
	if now.Epoch != r.Decision.Epoch {
		return Result{Status: Closed} // it was cut
	}
	if older := h.store.before(d.Message.Transaction, r.Index, now.Mailbox); len(older) > 0 && now.Deliver() {
		h.passed = append(h.passed, fmt.Sprintf("%d for %s: %v", d.Message.Sequence, r.Decision.Address, older))
	}
	switch {
	case !now.Deliver() || now.Platform != d.Platform:
		return Result{Status: Closed}
	case time.Now().Before(h.rests[key]):
		h.early = append(h.early, key)
	case h.down:
		h.eager = time.Now()
		return Result{Status: Unavailable, Err: errDown, Slow: true}
	case h.off[n]:
		if before, again := h.put[key]; again && time.Since(before) < time.Second && h.eager.Before(before) {
			h.early = append(h.early, "put off: "+key)
		}
		h.put[key] = time.Now()
		return Result{Status: Deferred, Reply: mail.NewReply(452, 4, 2, 2, "full")}
	case h.lose > 0 || h.loses[n]:
		h.lose = max(h.lose-1, 0)
		h.copies[key]++
		h.doubts[key]++
		until := time.Now().Add(30 * time.Second)
		h.doubted[d.Message.Transaction], h.rests[key] = until, until
		return Result{Status: InDoubt, Until: until}
	}
	h.copies[key]++
	return Result{}
}

// side opens a mailbox on a platform, for all addresses that it has.
func (h *history) side(n int, platform string) {
	h.stir()
	var addresses []int
	for a := range drawnBoxes {
		if h.store.owner(a) == box1(n) {
			addresses = append(addresses, a)
		}
	}
	if platform == "" {
		h.shut("health", addresses...)
		return
	}
	h.world.open(routing.PlatformID(platform), "health", addresses...)
}

// stir notes that mail may go before its delay is over.
func (h *history) stir() {
	h.stirAfter(0)
}

func (h *history) stirAfter(d time.Duration) {
	h.world.mu.Lock()
	defer h.world.mu.Unlock()
	if at := time.Now().Add(d); at.After(h.eager) {
		h.eager = at
	}
}

// act does what an operator may do.
func (h *history) act(do func(Subject, string) (Acted, error), s Subject) Acted {
	h.stir()
	a, err := do(s, "test")
	if err != nil {
		h.rt.Errorf("%+v: %v", s, err)
	}
	return a
}

// step does one thing that may happen.
func (h *history) step() {
	w, rt := h.world, h.rt
	n := rapid.IntRange(0, drawnBoxes-1).Draw(rt, "mailbox")
	switch rapid.SampledFrom([]string{"held", "held", "held", "arrives", "open", "open", "close", "off", "down", "lose", "loses", "time", "restart", "wait", "give", "give", "set aside", "release", "drop"}).Draw(rt, "step") {
	case "held":
		boxes := []int{n}
		if rapid.Bool().Draw(rt, "two") {
			boxes = append(boxes, (n+1)%drawnBoxes)
		}
		for range rapid.IntRange(1, 20).Draw(rt, "messages") {
			w.q.Added(w.put(spool.StateHeld, "a@out.example", boxes...))
		}
	case "arrives": // as transfer does: held behind held mail, else it goes by
		if w.store.Held(spool.KeyOf(w.store.owner(n), "")) {
			w.q.Added(w.put(spool.StateHeld, "a@out.example", n))
		}
	case "wait":
		boxes := []int{n}
		if rapid.Bool().Draw(rt, "all") {
			boxes = []int{0, 1, 2, 3}
		}
		w.q.Added(w.put(spool.StateWaiting, "a@out.example", boxes...))
	case "open":
		h.side(n, rapid.SampledFrom([]string{"exchange", "ox"}).Draw(rt, "side"))
	case "close":
		h.side(n, "")
	case "give": // the agency is closed before, so that what is under way is cut
		from, to := int(w.store.owner(n)[15]), rapid.IntRange(0, drawnBoxes-1).Draw(rt, "to")
		h.side(from, "")
		h.side(to, "")
		w.store.give(n, box1(to))
		w.q.signal()
		platform := ""
		if rapid.Bool().Draw(rt, "opens at once") {
			platform = "ox"
		}
		h.side(from, platform)
		h.side(to, platform)
		h.stirAfter(w.took) // what is under way ends in a box that isn't there any more
	case "off":
		w.mu.Lock()
		h.off[n] = !h.off[n]
		w.mu.Unlock()
	case "down":
		w.mu.Lock()
		h.down = !h.down
		w.mu.Unlock()
	case "lose":
		w.mu.Lock()
		h.lose += rapid.IntRange(1, 3).Draw(rt, "answers")
		w.mu.Unlock()
	case "loses":
		w.mu.Lock()
		h.loses[n] = !h.loses[n]
		w.mu.Unlock()
	case "time":
		time.Sleep(time.Duration(rapid.IntRange(1, 1_000_000).Draw(rt, "ms")) * time.Millisecond)
	case "set aside":
		h.act(w.q.Hold, Subject{Key: spool.KeyOf(box1(n), "")})
	case "release":
		h.act(w.q.Release, Subject{Agency: "health"})
	case "drop":
		h.act(w.q.Drop, Subject{Key: spool.KeyOf(box1(n), ""), State: spool.StateQuarantined})
	case "restart":
		w.stop()
		h.stir()
		h.launch()
	}
	time.Sleep(time.Duration(rapid.IntRange(0, 20).Draw(rt, "then")) * time.Millisecond)
}
