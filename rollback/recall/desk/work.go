package desk

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"mailcutover/rollback/mailstore"
	"mailcutover/rollback/recall"
	"mailcutover/rollback/watermark"
	"mailcutover/routing"
)

const (
	// mostTries is how often a mailbox is tried that fails by itself, before it is put aside.
	// With the pauses between them that is some ten minutes.
	mostTries  = 8
	firstPause = 2 * time.Second
	mostPause  = 2 * time.Minute

	// platformPause is the longest pause before a platform is tried again that doesn't answer.
	platformPause = 15 * time.Second

	// silentPause is the time between two rounds of asking nodes that did not answer.
	silentPause = 30 * time.Second

	// longTrouble is after which time people are alarmed about what keeps a run back.
	longTrouble = time.Minute
)

// work is this node's share of one run, while it is brought.
type work struct {
	d      *Desk
	run    Run
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu      sync.Mutex
	over    bool
	began   time.Time
	after   time.Time // from then on nothing can reach From any more, by this node's clock
	loaded  bool
	boxes   map[routing.MailboxID]*box
	order   []*box
	set     *watermark.Set
	facts   *facts
	known   *known
	late    string    // a node that has to be heard before the share can be brought; empty: none
	notes   []string  // what people should know
	waiting string    // for what everything waits; empty: nothing
	since   time.Time // since when
	pause   time.Time // until when the platforms are left alone
	pauses  int       // in a row
	copies  int       // retained copies that were handed over
	copied  bool      // all were
}

// box is one mailbox of the share.
type box struct {
	row    routing.Row
	result recall.Result
	known  bool // there is a result
	done   bool
	before bool   // it was done by an earlier process
	aside  bool   // put aside: it fails by itself
	reason string // why it isn't done
	tries  int
	next   time.Time // not before
	waits  string    // for a node that may know more about it; empty: for none
	busy   bool
}

func (b *box) ended() bool { return b.done || b.aside }

// begin brings a run's share in the background.
func (d *Desk) begin(ctx context.Context, r *Run) *work {
	ctx, cancel := context.WithCancel(ctx)
	w := &work{d: d, run: *r, cancel: cancel, began: d.now(), after: r.after(d.now()), boxes: make(map[routing.MailboxID]*box)}
	w.done.Go(func() {
		defer cancel()
		w.do(ctx)
		w.mu.Lock()
		w.over = true
		w.mu.Unlock()
	})
	return w
}

// stop ends it, soon. If it is wanted still, another look begins it anew.
func (w *work) stop() { w.cancel() }

func (w *work) stopped() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.over
}

// same reports whether it was begun for the run as it is now.
func (w *work) same(r *Run) bool {
	return r.Version() == w.run.Version()
}

// do brings the share, and tries again what keeps all of it back.
func (w *work) do(ctx context.Context) {
	log := w.d.o.Logger
	log.Info("recall: share begins", "run", w.run.ID, "agency", w.run.Agency, "from", w.run.From, "to", w.run.To)
	for pause := w.d.o.FirstPause; ; pause = min(2*pause, mostPause) {
		err := w.bring(ctx)
		if err == nil {
			log.Info("recall: share is brought", "run", w.run.ID, "agency", w.run.Agency)
			return
		}
		if ctx.Err() != nil {
			return
		}
		log.Warn("recall: share is kept back", "run", w.run.ID, "agency", w.run.Agency, "error", err)
		w.waits(err.Error())
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

// waits notes what everything waits for; empty: nothing.
func (w *work) waits(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.setWaiting(what)
}

func (w *work) setWaiting(what string) {
	if what == "" {
		w.waiting, w.since = "", time.Time{}
		return
	}
	if w.waiting == "" {
		w.since = w.d.now()
	}
	w.waiting = what
}

// trouble is the alarm about what keeps the share back; empty: nothing does for long.
func (w *work) trouble() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.waiting == "" || w.d.now().Sub(w.since) < longTrouble {
		return ""
	}
	text := fmt.Sprintf("%s %s of agency %s (%s to %s) stands still on this node since %s: %s", w.run.Kind, w.run.ID, w.run.Agency, w.run.From, w.run.To, w.since.UTC().Format(time.RFC3339), w.waiting)
	if w.run.Kind == Recall && !w.run.Copies && w.d.o.Copies != nil {
		text += fmt.Sprintf(". If %s is lost or will be away for long, its retained copies can be delivered meanwhile: mailcutover recall copies %s --reason ...", w.run.From, w.run.ID)
	}
	return text
}

// bring brings all of the share, and tells the table.
func (w *work) bring(ctx context.Context) error {
	set := w.d.settings()
	if err := w.load(ctx); err != nil {
		return err
	}
	var beside sync.WaitGroup
	defer beside.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var copies error
	if w.run.Copies && w.d.o.Copies != nil {
		beside.Go(func() { copies = w.deliverCopies(ctx) })
	}
	engine, journals, err := w.d.engine(&w.run, set)
	switch {
	case errors.Is(err, ErrMailboxes) && w.run.Copies:
		w.putAllAside(err.Error())
	case err != nil:
		return err
	default:
		if err := w.recall(journals); err != nil {
			return err
		}
		if err := w.d.sameDisk(ctx, w); err != nil {
			return err
		}
		if err := w.learn(ctx, journals); err != nil {
			return err
		}
		beside.Go(func() { w.goOn(ctx, journals) })
		progress, err := w.d.openProgress(w.run.ID)
		if err != nil {
			return err
		}
		defer progress.close()
		var workers sync.WaitGroup
		for range set.Workers {
			workers.Go(func() { w.worker(ctx, engine, set, progress) })
		}
		workers.Wait()
		if err := progress.failed(); err != nil && ctx.Err() == nil {
			return err
		}
	}
	for w.run.Copies && w.d.o.Copies != nil && ctx.Err() == nil && !w.copiesDone() {
		select {
		case <-time.After(lookPause):
		case <-ctx.Done():
		}
	}
	if ctx.Err() != nil {
		beside.Wait() // ctx ends them too, and copies is theirs until then
		return errors.Join(ctx.Err(), copies)
	}
	w.waits("")
	return w.tell(ctx)
}

// tell writes into the table that the share is brought.
func (w *work) tell(ctx context.Context) error {
	p := Part{Node: w.d.o.Node, Round: len(w.run.Without), Ended: w.d.now().UTC(), Totals: w.totals(), Notes: w.noted()}
	p.Totals.cutFlags()
	return w.d.store(ctx, fmt.Sprintf("share of %s %s", w.run.Kind, w.run.ID), func(s *routing.State) ([]routing.Document, error) {
		r, ok := Find(s, w.run.ID)
		if !ok || len(r.Without) != len(w.run.Without) || r.brought(s, p.Node) {
			return nil, nil // another look will say what is to be done
		}
		was, _ := s.Document(partKey(r.ID, p.Node))
		doc, err := document(partKey(r.ID, p.Node), was.Revision, &p)
		return []routing.Document{doc}, err
	})
}

// load reads which mailboxes the share has, and which watermarks there are.
func (w *work) load(ctx context.Context) error {
	w.mu.Lock()
	loaded := w.loaded
	w.mu.Unlock()
	if loaded {
		return nil
	}
	rows, err := w.d.rows(ctx, &w.run)
	if err != nil {
		return err
	}
	finished, err := w.d.readProgress(w.run.ID)
	if err != nil {
		return err
	}
	set, notes := w.d.watermarks(ctx, &w.run)
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, row := range rows {
		b := &box{row: row}
		if r, ok := finished[row.Mailbox]; ok {
			b.result, b.known, b.done, b.before = r, true, true, true
		}
		w.boxes[row.Mailbox] = b
		w.order = append(w.order, b)
	}
	w.set, w.notes, w.loaded = set, notes, true
	return nil
}

// recall takes from the journals what became of mailboxes so far.
func (w *work) recall(j Journals) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, b := range w.order {
		if b.known {
			continue
		}
		r, ok, err := j.Result(b.row.Mailbox)
		if err != nil {
			return fmt.Errorf("read the journal of mailbox %s: %w", b.row.Mailbox, err)
		}
		b.result, b.known = r, ok
	}
	return nil
}

// deliverCopies hands this node's retained copies over, until all are.
func (w *work) deliverCopies(ctx context.Context) error {
	for pause := w.d.o.FirstPause; ; pause = min(2*pause, mostPause) {
		n, err := w.d.o.Copies.Deliver(ctx, w.run.Agency, w.run.From, w.run.Since, w.back(ctx))
		w.mu.Lock()
		w.copies += n
		w.copied = err == nil
		w.mu.Unlock()
		if err == nil || ctx.Err() != nil {
			return err
		}
		w.d.o.Logger.Warn("recall: retained copies are not handed over", "run", w.run.ID, "agency", w.run.Agency, "error", err)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return err
		}
	}
}

func (w *work) copiesDone() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.copied
}

func (w *work) putAllAside(reason string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, b := range w.order {
		if !b.done {
			b.aside, b.reason = true, reason
		}
	}
}

// worker brings one mailbox after the other, until none is left.
func (w *work) worker(ctx context.Context, e Engine, set Settings, p *progress) {
	for ctx.Err() == nil && p.failed() == nil {
		b, wait := w.next()
		if b == nil {
			if wait < 0 {
				return
			}
			select {
			case <-time.After(wait):
			case <-ctx.Done():
			}
			continue
		}
		r, err := e.Mailbox(ctx, w.job(b))
		done := w.note(ctx, b, r, err, set)
		if done {
			p.add(b.row.Mailbox, w.d.now(), &r)
		}
	}
}

// job is what has to be done for a mailbox.
func (w *work) job(b *box) recall.Job {
	w.mu.Lock()
	defer w.mu.Unlock()
	j := recall.Job{
		Agency: w.run.Agency, Operation: w.run.Operation, Direction: w.run.Direction(), Row: b.row, After: w.after,
		Since: w.set.Mailbox(w.run.From, b.row.Mailbox), There: w.set.Mailbox(w.run.To, b.row.Mailbox),
	}
	if w.facts != nil {
		j.Delivered = slices.Values(w.facts.by[b.row.Mailbox])
	}
	if w.known != nil && len(w.known.held[b.row.Mailbox]) > 0 {
		j.Held = slices.Values(w.known.held[b.row.Mailbox])
	}
	return j
}

// next returns a mailbox whose turn it is, or how long to wait for one; below 0: all are
// done or put aside.
func (w *work) next() (*box, time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.d.now()
	if left := w.pause.Sub(now); left > 0 {
		return nil, min(left, lookPause)
	}
	var first *box
	open, waits := false, ""
	for _, b := range w.order {
		if b.ended() {
			continue
		}
		open = true
		if b.waits != "" {
			waits = b.waits
			continue
		}
		if !b.busy && (first == nil || b.next.Before(first.next)) {
			first = b
		}
	}
	switch {
	case !open && w.late == "":
		return nil, -1
	case !open:
		w.setWaiting("all of the share is brought but for what is not known: " + w.late)
		return nil, lookPause / 4
	case first == nil:
		if waits != "" && !slices.ContainsFunc(w.order, func(b *box) bool { return b.busy }) {
			w.setWaiting(waits + "; " + w.late)
		}
		return nil, lookPause / 4
	case first.next.After(now):
		return nil, min(first.next.Sub(now), lookPause)
	}
	first.busy = true
	return first, 0
}

// note takes what became of a mailbox, and says when its next turn is. done: never.
func (w *work) note(ctx context.Context, b *box, r recall.Result, err error, set Settings) (done bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.d.now()
	b.busy = false
	if err == nil || r.Passes > 0 || !b.known {
		b.result, b.known = r, true
	}
	switch {
	case err == nil && r.Done:
		b.done, b.reason, b.before = true, "", false
		w.goesOn()
		return true
	case err == nil:
		b.tries, b.reason = 0, ""
		b.next = now.Add(set.Settle)
		if b.next.Before(w.after) {
			b.next = w.after
		}
		w.goesOn()
	case ctx.Err() != nil:
	case mailstore.Platform(err):
		// Not the mailbox's fault: everything waits.
		pause := min(w.d.o.FirstPause<<min(w.pauses, 10), platformPause)
		if t, ok := errors.AsType[*mailstore.ThrottledError](err); ok && t.After > pause {
			pause = t.After
		}
		if now.After(w.pause) { // the others' tries of one moment count once
			w.pause = now.Add(pause)
			w.pauses++
		}
		b.reason = err.Error()
		w.setWaiting(err.Error())
	default:
		b.tries++
		b.reason = err.Error()
		b.next = now.Add(min(w.d.o.FirstPause<<b.tries, mostPause))
		b.aside = b.tries >= mostTries
		w.goesOn()
		w.d.o.Logger.Warn("recall: mailbox isn't brought", "run", w.run.ID, "agency", w.run.Agency, "mailbox", b.row.Mailbox, "tries", b.tries, "aside", b.aside, "error", err)
	}
	return false
}

// goesOn is for the platforms' answers: nothing waits for them any more.
func (w *work) goesOn() {
	w.pauses = 0
	w.setWaiting("")
}

// totals sums up the share.
func (w *work) totals() Totals {
	w.mu.Lock()
	defer w.mu.Unlock()
	var t Totals
	for _, b := range w.order {
		t.Mailboxes++
		switch {
		case b.done:
			t.Done++
		case b.aside:
			t.Aside++
		}
		t.add(&b.result)
	}
	t.Copies = w.copies
	if w.facts != nil {
		t.Ledgers = silentTexts(w.facts.silent)
	}
	return t
}

// noted returns what people should know about the share.
func (w *work) noted() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.notes)
}
