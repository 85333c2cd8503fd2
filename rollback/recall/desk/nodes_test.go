package desk_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"mailcutover/ledger"
	"mailcutover/mail"
	"mailcutover/rollback/operation"
	"mailcutover/rollback/recall"
	"mailcutover/rollback/recall/desk"
	"mailcutover/rollback/watermark"
	"mailcutover/routing"
	"mailcutover/routing/table"
)

// between lets the desks of a world ask each other, but for nodes that are off.
type between struct {
	w   *world
	own routing.NodeID

	mu    *sync.Mutex
	desks map[routing.NodeID]*desk.Desk
	off   map[routing.NodeID]bool
}

// each calls f for the others; what it returns, or that a node is off, makes it silent.
func (b between) each(f func(n routing.NodeID, d *desk.Desk) error) (silent []desk.Silent) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for n, d := range b.desks {
		if n == b.own {
			continue
		}
		err := errors.New("it is off")
		if !b.off[n] {
			err = f(n, d)
		}
		if err != nil {
			silent = append(silent, desk.Silent{Node: n, Reason: err.Error(), Later: errors.Is(err, desk.ErrNotYet)})
		}
	}
	return silent
}

func (b between) Deliveries(ctx context.Context, q desk.Query) (all []desk.Delivered, silent []desk.Silent) {
	silent = b.each(func(_ routing.NodeID, d *desk.Desk) error {
		one, err := d.Deliveries(ctx, q)
		all = append(all, one)
		return err
	})
	return all, silent
}

func (b between) Back(ctx context.Context, id desk.ID, v desk.Version) (all []desk.Back, silent []desk.Silent) {
	silent = b.each(func(_ routing.NodeID, d *desk.Desk) error {
		one, err := d.Back(ctx, id, v)
		all = append(all, one)
		return err
	})
	return all, silent
}

func (b between) Known(ctx context.Context, id desk.ID, v desk.Version, node routing.NodeID, take func(*desk.Known) error) []desk.Silent {
	return b.each(func(_ routing.NodeID, d *desk.Desk) error {
		for after := ""; ; {
			k, err := d.Known(ctx, id, v, node, after)
			if err == nil {
				err = take(&k)
			}
			if after = k.Next; err != nil || after == "" {
				return err
			}
		}
	})
}

func (b between) Watermarks(_ context.Context, digest routing.Digest) (text []byte, err error) {
	b.each(func(_ routing.NodeID, d *desk.Desk) error {
		if got, err := d.WatermarkBytes(digest); err == nil {
			text = got
		}
		return nil
	})
	if text == nil {
		return nil, errors.New("no node has them")
	}
	return text, nil
}

// network is desks that ask each other.
type network struct {
	between
	stops map[routing.NodeID]func()
}

func (w *world) network(nodes []routing.NodeID, change func(*desk.Options)) *network {
	n := &network{between{w: w, mu: new(sync.Mutex), desks: make(map[routing.NodeID]*desk.Desk), off: make(map[routing.NodeID]bool)}, make(map[routing.NodeID]func())}
	for _, id := range nodes {
		n.start(id, change)
	}
	return n
}

func (n *network) start(id routing.NodeID, change func(*desk.Options)) {
	mine := n.between
	mine.own = id
	d, stop := n.w.desk(id, func(o *desk.Options) {
		o.Nodes, o.FirstPause = mine, 10*time.Millisecond
		if change != nil {
			change(o)
		}
	})
	n.mu.Lock()
	defer n.mu.Unlock()
	n.desks[id], n.off[id] = d, false
	n.stops[id] = stop
}

// stop ends a node's desk, and nobody can ask it.
func (n *network) stop(id routing.NodeID) {
	n.stops[id]()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.off[id] = true
}

// evict takes a node out of the table, by people's word that it is off.
func (w *world) evict(id routing.NodeID) {
	w.t.Helper()
	member := func() routing.Member {
		for _, m := range w.replica.State().Members() {
			if m.Node == id {
				return m
			}
		}
		w.t.Fatalf("no node %s", id)
		return routing.Member{}
	}
	m := member()
	m.Attested = m.Instance
	w.change(table.Change{Members: []routing.Member{m}})
	m = member()
	m.Evicted = true
	w.change(table.Change{Members: []routing.Member{m}, Guard: table.Guard{Fenced: []table.Fence{{Node: id, Instance: m.Instance, Counter: 1, Kind: table.FenceAttested}}}})
}

func (w *world) share(n *network, node routing.NodeID, id desk.ID) desk.Share {
	w.t.Helper()
	s, err := n.desks[node].Share(w.t.Context(), id, true)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// A node that has a share and isn't there keeps the run from being done, since what it delivered
// isn't known. When it comes, what it delivered is counted, in mailboxes that were done as well. People
// can also say that it is gone: then that is said, until somebody accepts it.
func TestSilentNode(t *testing.T) {
	for name, gone := range map[string]bool{"it comes back": false, "it is gone": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 20, "mx1", "mx2")
			n := w.network([]routing.NodeID{"mx1", "mx2"}, nil)
			for _, e := range w.engine {
				e.answer = func(job recall.Job, _ int) (recall.Result, error) {
					r := recall.Result{Passes: 1, Done: true}
					for range job.Delivered {
						r.Delivered, r.DeliveredBack = r.Delivered+1, r.DeliveredBack+1
					}
					return r, nil
				}
			}
			n.stop("mx2")
			r := w.begin(n.desks["mx1"])
			w.until("the share waits", func(*routing.State) bool {
				s := w.share(n, "mx1", r.ID)
				return s.Totals.Done == s.Totals.Mailboxes && strings.Contains(s.Waiting, "mx2") && strings.Contains(s.Waiting, "take-over "+string(r.ID))
			})
			if share := w.share(n, "mx1", r.ID); share.Brought || len(share.Silent) != 1 {
				t.Errorf("without the other's ledger: %+v", share)
			}
			if gone {
				_, docs, err := desk.TakeOver(w.replica.State(), r.ID, "mx2")
				w.store(docs, err)
				r = w.ends(r.ID)
				s := w.replica.State()
				got := r.Totals(s)
				if got.Done != 20 || len(got.Ledgers) != 1 || !strings.Contains(got.Text(), "mx2: it is off") {
					t.Errorf("%+v: %s", got, got.Text())
				}
				part, _ := r.Part(s, "mx1")
				if len(part.Notes) == 0 || !strings.Contains(strings.Join(part.Notes, ""), "what node mx2 had brought before isn't known") {
					t.Errorf("notes %q", part.Notes)
				}
				if open := desk.Open(s, "health"); len(open) != 1 || !strings.Contains(open[0], "unknown number of deliveries") {
					t.Errorf("open: %q", open)
				}
				w.alarmed(true, "recall-not-back/"+string(r.ID))
				return
			}
			mine := routing.MailboxID{}
			for id := range w.engine["mx1"].mailboxes() {
				mine = id
			}
			w.ledger = records{delivered("ox", mine)}
			n.start("mx2", nil)
			r = w.ends(r.ID)
			if got := r.Totals(w.replica.State()); got.Delivered != 1 || got.DeliveredBack != 1 || got.Done != 20 || len(got.Ledgers) != 0 {
				t.Errorf("with the other's ledger: %+v", got)
			}
		})
	}
}

// delivered is a message that was delivered to one mailbox.
func delivered(p routing.PlatformID, id routing.MailboxID) ledger.Record {
	i := ledger.Intent{Transaction: mail.NewTransactionID(), Platform: p, Recipients: []ledger.Recipient{{Address: "m@health.example", Agency: "health", Mailbox: id}}}
	return ledger.Record{Intent: i, Answers: []ledger.Answer{{Result: ledger.ResultDelivered}}}
}

// The share of a node that is evicted is the others', without anybody saying so; what it delivered is
// named as not known.
func TestEvictedNode(t *testing.T) {
	w := newWorld(t, 12, "mx1", "mx2")
	n := w.network([]routing.NodeID{"mx1", "mx2"}, nil)
	n.stop("mx2")
	r := w.begin(n.desks["mx1"])
	w.evict("mx2")
	r = w.ends(r.ID)
	if got := r.Totals(w.replica.State()); !slices.Equal(r.Without, []routing.NodeID{"mx2"}) || got.Done != 12 || !strings.Contains(strings.Join(got.Ledgers, ""), "mx2: it is evicted") {
		t.Errorf("without %v: %+v", r.Without, got)
	}
}

// Who brings mailboxes that another node brought before is told what that one knows, and begins none
// of them earlier: nor while that one, whose share was taken from it, hasn't ended its work yet.
func TestOtherNodesKnow(t *testing.T) {
	w := newWorld(t, 16, "mx1", "mx2")
	n := w.network([]routing.NodeID{"mx1", "mx2"}, nil)
	w.ends(w.begin(n.desks["mx1"]).ID)
	theirs := w.engine["mx2"].mailboxes()
	begun, taken := make(chan struct{}), make(chan struct{})
	begins := sync.OnceFunc(func() { close(begun) })
	let := sync.OnceFunc(func() { close(taken) })
	t.Cleanup(let)
	other := w.engine["mx2"]
	other.mu.Lock()
	other.answer = func(recall.Job, int) (recall.Result, error) {
		begins()
		<-taken // before it is done with its share
		return recall.Result{Passes: 1, Done: true}, nil
	}
	other.mu.Unlock()
	r := w.begin(n.desks["mx1"])
	<-begun
	_, docs, err := desk.TakeOver(w.replica.State(), r.ID, "mx2")
	w.store(docs, err)
	w.until("mx1 waits for what mx2 is still at", func(*routing.State) bool {
		return strings.Contains(w.share(n, "mx1", r.ID).Waiting, "mx2: "+desk.ErrNotYet.Error())
	})
	e := w.engine["mx1"]
	e.mu.Lock()
	for id := range theirs {
		if slices.ContainsFunc(e.calls, func(j recall.Job) bool { return j.Row.Mailbox == id }) {
			t.Errorf("mx1 brings %s, at which mx2 works", id)
		}
	}
	e.mu.Unlock()
	let()
	r = w.ends(r.ID)
	e.mu.Lock()
	defer e.mu.Unlock()
	for id := range theirs {
		if !slices.Contains(e.taken, fmt.Sprintf("mx2: what is known of %s", id)) {
			t.Errorf("mx1 brought %s without the journal of mx2; it took %q", id, e.taken)
		}
	}
	if p, _ := r.Part(w.replica.State(), "mx1"); len(p.Notes) != 1 { // that there are no watermarks
		t.Errorf("notes %q", p.Notes)
	}
}

// A node that comes back with another disk says that it doesn't know any more what it had brought.
func TestAnotherDisk(t *testing.T) {
	w := newWorld(t, 4, "mx1")
	n := w.network([]routing.NodeID{"mx1"}, nil)
	r := w.ends(w.begin(n.desks["mx1"]).ID)
	if p, _ := r.Part(w.replica.State(), "mx1"); len(p.Notes) != 1 {
		t.Errorf("notes of the first run: %q", p.Notes)
	}
	n.stop("mx1")
	w.dir = t.TempDir()
	n.start("mx1", nil)
	r = w.ends(w.begin(n.desks["mx1"]).ID)
	if p, _ := r.Part(w.replica.State(), "mx1"); !strings.Contains(strings.Join(p.Notes, ""), "another disk") {
		t.Errorf("notes after the disk was lost: %q", p.Notes)
	}
}

// Copies of one node and the journal of another agree: a mailbox is not brought while copies for it are
// on their way, and what was delivered is noted where its journal is, before the mailbox is brought.
func TestCopiesOfAnotherNode(t *testing.T) {
	w := newWorld(t, 10, "mx1", "mx2")
	c := &copies{all: make(map[mail.TransactionID]routing.MailboxID), told: make(map[mail.TransactionID]int), fail: 3}
	for _, row := range w.rows {
		c.all[mail.NewTransactionID()] = row.Mailbox
	}
	n := w.network([]routing.NodeID{"mx1", "mx2"}, func(o *desk.Options) {
		if o.Node == "mx2" {
			o.Copies = c
		}
	})
	for _, e := range w.engine {
		e.answer = func(job recall.Job, _ int) (recall.Result, error) {
			r := recall.Result{Passes: 1, Done: job.Held == nil}
			return r, nil
		}
	}
	r, docs, err := n.desks["mx2"].New(w.replica.State(), desk.Order{Agency: "health", Copies: true, Who: "anna", Reason: "test"})
	w.store(docs, err)
	r = w.ends(r.ID)
	for node, e := range w.engine {
		for _, job := range e.calls {
			if len(e.sent[job.Row.Mailbox]) != 1 {
				t.Errorf("%s brought %s and has noted copies %v", node, job.Row.Mailbox, e.sent[job.Row.Mailbox])
			}
		}
	}
	for id, times := range c.told {
		if times != 1 {
			t.Errorf("copy %s was delivered %d times", id, times)
		}
	}
	if got := r.Totals(w.replica.State()); got.Copies != 10 || got.Done != 10 {
		t.Errorf("%+v", got)
	}
}

// What no run needs any more goes, after it was told: when the way back is finalised, journals,
// watermarks and what the table has for the next recall. The numbers of the last runs stay.
func TestCleanedWhenFinalised(t *testing.T) {
	w := newWorld(t, 3, "mx1")
	var mu sync.Mutex
	var told []desk.Removal
	n := w.network([]routing.NodeID{"mx1"}, func(o *desk.Options) {
		o.Removed = func(_ context.Context, r *desk.Removal) error {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, *r)
			return nil
		}
	})
	d := n.desks["mx1"]
	files, err := watermark.Open(w.dir + "/mx1/watermarks")
	if err != nil {
		t.Fatal(err)
	}
	digest, err := files.Put(&watermark.Set{Agency: "health", Operation: "op-1", Taken: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	a, _ := w.replica.State().Agency("health")
	a.Phase = routing.PhaseTarget
	w.change(table.Change{Agencies: []routing.Agency{a}})
	op := &operation.Operation{ID: "op-1", Kind: operation.Cutover, Agency: "health", Agencies: []routing.AgencyID{"health"}, Watermarks: digest, Started: time.Now()}
	w.store(d.Documents(w.replica.State(), op))
	runs, err := desk.Runs(w.replica.State())
	if err != nil || len(runs) != 1 {
		t.Fatalf("runs %+v, %v", runs, err)
	}
	w.ends(runs[0].ID)
	if s := w.replica.State(); len(s.Documents("watermarks/"))+len(s.Documents("recall-disk/")) != 2 {
		t.Fatalf("documents %v", s.Documents(""))
	}
	a, _ = w.replica.State().Agency("health")
	if a, err = a.Finalise(); err != nil {
		t.Fatal(err)
	}
	w.change(table.Change{Agencies: []routing.Agency{a}})
	w.until("what isn't needed is gone", func(s *routing.State) bool {
		_, err := d.WatermarkBytes(digest)
		return err != nil && len(s.Documents("watermarks/"))+len(s.Documents("recall-disk/")) == 0
	})
	if s := w.replica.State(); len(s.Documents("recall/")) != 1 {
		t.Errorf("the run's numbers are gone: %v", s.Documents(""))
	}
	mu.Lock()
	defer mu.Unlock()
	var all []string
	for _, r := range told {
		all = append(all, fmt.Sprintf("%s of %s (%s): %d files, %v", r.What, r.Agency, r.Reason, len(r.Files), r.Digests))
	}
	if text := strings.Join(all, "\n"); !strings.Contains(text, "and the watermarks of health (the way back is finalised)") || !strings.Contains(text, digest.String()) || !strings.Contains(text, "progress of recalls of health") {
		t.Errorf("told:\n%s", text)
	}
}

// What any node's ledger has of a mailbox is evidence at each of them.
func TestDeliveredTo(t *testing.T) {
	w := newWorld(t, 2, "mx1", "mx2")
	mine, theirs := delivered("ox", w.rows[0].Mailbox), delivered("exchange", w.rows[1].Mailbox)
	w.ledger = records{mine}
	n := w.network([]routing.NodeID{"mx1"}, nil)
	w.ledger = records{theirs}
	n.start("mx2", nil)
	for _, c := range []struct {
		id   mail.TransactionID
		row  int
		want bool
	}{{mine.Transaction, 0, true}, {theirs.Transaction, 1, true}, {theirs.Transaction, 0, false}, {mail.NewTransactionID(), 0, false}} {
		for node, d := range n.desks {
			if got := d.DeliveredTo(t.Context(), "health", w.rows[c.row].Mailbox, c.id); got != c.want {
				t.Errorf("%s says that %s is delivered to mailbox %d: %v, want %v", node, c.id, c.row, got, c.want)
			}
		}
	}
}

// What one node's clock says holds at another's only as far as their clocks agree.
func TestClocks(t *testing.T) {
	w := newWorld(t, 1, "mx1")
	var mu sync.Mutex
	ahead := time.Minute
	w.network([]routing.NodeID{"mx1"}, func(o *desk.Options) {
		o.Now = func() time.Time {
			mu.Lock()
			defer mu.Unlock()
			return time.Now().Add(ahead)
		}
	})
	got := make(chan recall.Job, 1)
	w.engine["mx1"].answer = func(job recall.Job, _ int) (recall.Result, error) {
		select {
		case got <- job:
		default:
		}
		return recall.Result{Passes: 1, Done: true}, nil
	}
	// The run was set by a node whose clock is right: nothing arrives after 30 s.
	begun := time.Now()
	r := desk.Run{
		ID: "health-1", Kind: desk.Recall, Agency: "health", From: "ox", To: "exchange", Operation: "op-1", Nodes: []routing.NodeID{"mx1"},
		Begun: begun, After: begun.Add(30 * time.Second), Since: begun, Who: "anna", Reason: "test",
	}
	s := w.replica.State()
	a, _ := s.Agency("health")
	r.Mapping = a.Mapping
	text, err := json.Marshal(&r)
	if err != nil {
		t.Fatal(err)
	}
	w.change(table.Change{Documents: []routing.Document{{Key: "recall/health-1", Text: string(text)}}})
	job := <-got
	if left := job.After.Sub(begun.Add(ahead)); left < 30*time.Second {
		t.Errorf("a mailbox could be done %v after the run was set", left)
	}
}

// The watermarks of an agency that was cut over lie on all nodes soon, so that they outlive the one
// that took them.
func TestSecondCopyOfWatermarks(t *testing.T) {
	w := newWorld(t, 1, "mx1", "mx2")
	n := w.network([]routing.NodeID{"mx1", "mx2"}, nil)
	files, err := watermark.Open(w.dir + "/mx1/watermarks")
	if err != nil {
		t.Fatal(err)
	}
	digest, err := files.Put(&watermark.Set{Agency: "health", Operation: "op-1", Taken: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	w.change(table.Change{Documents: []routing.Document{{Key: "watermarks/health", Text: fmt.Sprintf(`{"operation":"op-1","watermarks":%q,"since":"2026-03-01T08:00:00Z"}`, digest)}}})
	w.until("the other node has them", func(*routing.State) bool {
		_, err := n.desks["mx2"].WatermarkBytes(digest)
		return err == nil
	})
}
