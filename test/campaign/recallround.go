package campaign

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"mailcutover/admin"
	"mailcutover/test/cluster"
	"mailcutover/test/peers"
)

// recalled are the agencies of a round with recalls.
var recalled = []string{"health", "police"}

// boxesOfEach is how many mailboxes each of them has: the first half gets mail by SMTP, the others
// by LMTP.
const boxesOfEach = 6

// RecallRound is a round of a campaign in which the platforms have mailboxes. Agencies are cut over,
// users work on the target, the agencies are rolled back, and what came to the target is brought
// back, while all that takes part in it is killed, stopped and cut off.
type RecallRound struct {
	Program string // file of mailcutover
	World   *World // nil: all at 127.0.0.1, with one Redis, and without what needs a world
	Seed    uint64
	Lasts   time.Duration // of the storm; no turn begins later
	Pace    time.Duration // of each sender
}

// Run starts a cluster between two Dovecots, has agencies go there and back under a storm, and
// returns what was found. What can't be started or doesn't come to rest fails the test.
func (r *RecallRound) Run(t peers.TB, tally *Tally) *RecallFindings {
	t.Helper()
	const limit = 8 * time.Second
	o := cluster.Options{
		Program: r.Program, Nodes: nodes, LMTP: true, TwoPeople: true, Direct: true, Unsynced: r.World == nil,
		Settled: 20 * time.Second, Armed: 6 * time.Second, Margin: 500 * time.Millisecond, Limit: limit,
		Mailboxes: make(map[string]*peers.Dovecot),
		More:      "recall: {settle: 1s, messages_per_second: 10}\n",
	}
	ips := map[string]string{cluster.Exchange: "127.0.0.1", cluster.OX: "127.0.0.1"}
	var disks []*Disk
	if r.World != nil {
		ips = platformAt
		o.Replicas = servers - 1
		disks = r.World.Disks(t)
		o.Ground = r.World.Ground(disks)
		for i := range r.World.clocks {
			if err := r.World.SetClock(i, 0); err != nil {
				t.Fatalf("%v", err)
			}
		}
	}
	stores := make(map[string]*Store)
	for id, ip := range ips {
		stores[id] = StartStore(t, id, ip, limit)
		o.Mailboxes[id] = stores[id].Advertised
	}
	c := cluster.Start(t, o)
	for _, id := range recalled {
		c.AddAgency(t, id, boxesOfEach)
	}
	s := NewStorm(c, r.World, disks, nil, nil, r.Pace, r.Seed, tally, t.Logf)
	var senders []cluster.Senders
	for _, id := range recalled {
		all := cluster.Mailboxes(id, boxesOfEach)
		for _, n := range c.Nodes {
			senders = append(senders,
				cluster.Senders{Node: n.Index, Addr: n.SMTP, Rcpts: all[:boxesOfEach/2], Pace: r.Pace, Again: 200 * time.Millisecond},
				cluster.Senders{Node: n.Index, Addr: n.LMTP, LMTP: true, Rcpts: all[boxesOfEach/2:], Pace: r.Pace, Again: 200 * time.Millisecond})
		}
	}
	c.Send(t.Context(), senders...)
	w := &waysBack{Storm: s, stores: stores, taken: -1}
	turns, err := w.rage(t.Context(), r.Lasts)
	if err != nil {
		t.Fatalf("seed %d: %v", r.Seed, err)
	}
	c.Quiet(t)
	if err := s.Empty(t.Context()); err != nil {
		t.Fatalf("seed %d: %v", r.Seed, err)
	}
	c.Drain(t)
	h := &RecallHistory{Turns: turns, End: make(map[string]Boxes)}
	for id, store := range stores {
		var all []string
		for _, agency := range recalled {
			all = append(all, cluster.Mailboxes(agency, boxesOfEach)...)
		}
		if h.End[id], err = store.Look(t.Context(), all); err != nil {
			t.Fatalf("%v", err)
		}
	}
	h.Record = c.Record(t)
	f := JudgeRecalls(h)
	audits, err := readAudits(c)
	if err != nil {
		f.Bad = append(f.Bad, "P9: "+err.Error())
	}
	f.Bad = append(f.Bad, checkAudit(h.Record.Switches, audits)...)
	return f
}

// waysBack is a storm under which agencies go there and back.
type waysBack struct {
	*Storm
	stores map[string]*Store
	made   atomic.Int64 // messages that users made

	mu    sync.Mutex
	taken int // node whose share others have taken over; -1: none
	turns []*Turn
}

// usersMake is the first number of what users make, beyond those of all senders.
const usersMake = 1_000_000_000

// rage has each agency go there and back, again and again, and lets faults happen for so long. It
// returns what happened when all of it has ended.
func (w *waysBack) rage(ctx context.Context, lasts time.Duration) ([]*Turn, error) {
	ctx, cancel := context.WithTimeout(ctx, lasts+2*comeToRest)
	defer cancel()
	began := time.Now()
	early := func() bool { return time.Since(began) < lasts && ctx.Err() == nil && !w.failed() }
	people, home := context.WithCancel(ctx)
	var attending sync.WaitGroup
	attending.Go(func() { w.attend(people) })
	trouble := func(pause time.Duration, what func(context.Context) error) {
		w.again(ctx, early, pause, func(ctx context.Context) error {
			if time.Since(began)%recallGust >= recallGust/2 {
				return nil
			}
			return what(ctx)
		})
	}
	trouble(time.Second, w.troubleNode)
	trouble(4*time.Second, w.troubleStore)
	if w.w != nil {
		trouble(8*time.Second, w.troubleRedis)
	}
	for _, id := range recalled {
		w.working.Go(func() {
			for n := 0; n == 0 || early(); n++ {
				if err := w.turn(ctx, id, n); err != nil {
					w.fail(err)
					return
				}
			}
		})
	}
	w.working.Wait()
	for _, n := range w.c.Nodes {
		if !w.until(ctx, func() bool { return w.c.Serving(ctx, n) }) {
			w.fail(fmt.Errorf("%s does not serve after all was healed: %w", n.Name, n.Ready(context.WithoutCancel(ctx))))
		}
	}
	home()
	attending.Wait()
	w.Storm.mu.Lock()
	defer w.Storm.mu.Unlock()
	return w.turns, errors.Join(w.errs...)
}

// recallGust is how long faults come and stay away, half of it each.
const recallGust = 40 * time.Second

// turn has an agency go to the target and back, until what came to the target is on the source.
func (w *waysBack) turn(ctx context.Context, agency string, n int) error {
	t := &Turn{Agency: agency}
	source, target := w.stores[cluster.Exchange], w.stores[cluster.OX]
	w.work(ctx, t, source, 2*time.Second+w.upTo(3*time.Second))
	t.Left = time.Now()
	if _, err := w.cross(ctx, agency, "switch"); err != nil {
		return err
	}
	t.There = time.Now()
	w.work(ctx, t, target, 6*time.Second+w.upTo(8*time.Second))
	if w.draw(2) == 0 {
		if err := w.sweptBy(ctx, agency, 30*time.Second); err != nil {
			return err
		}
	}
	// What the source was sent before the cutover it has taken by now, or never will.
	wait(ctx, time.Until(t.There.Add(10*time.Second)))
	var err error
	if t.Source, err = w.look(ctx, source, agency); err != nil {
		return err
	}
	if t.Target, err = w.look(ctx, target, agency); err != nil {
		return err
	}
	how := []string{"switch", "switch", "switch", "emergency", targetDead}[w.draw(5)]
	t.Dead = how == targetDead
	end := func() error { return nil }
	if t.Dead {
		if end, err = w.burn(ctx, target); err != nil {
			return err
		}
	}
	operation, err := w.cross(ctx, agency, how)
	if err != nil {
		return errors.Join(err, end())
	}
	t.Back = time.Now()
	w.mu.Lock()
	w.turns = append(w.turns, t)
	w.mu.Unlock()
	run, err := w.runOf(ctx, agency, operation)
	if t.Dead {
		w.work(ctx, t, source, 2*time.Second+w.upTo(6*time.Second)) // amid its copies
	}
	if err = errors.Join(err, end()); err != nil {
		return err
	}
	if err := w.recall(ctx, t, run, w.draw(4) == 0); err != nil {
		return err
	}
	for again := w.draw(2) == 0; again || t.Runs[len(t.Runs)-1].Open() && len(t.Runs) < 6; again = false {
		w.tally.Add("recall", "run once more", 1)
		w.work(ctx, t, source, time.Second+w.upTo(2*time.Second))
		if run, err = w.beginRun(ctx, agency); err != nil {
			return err
		}
		if err := w.recall(ctx, t, run, false); err != nil {
			return err
		}
	}
	w.tally.Add("recall", fmt.Sprintf("turns, the %s", []string{"first", "second or later"}[min(n, 1)]), 1)
	return nil
}

// cross switches an agency to its other platform, as often as it takes, and returns the operation.
func (w *waysBack) cross(ctx context.Context, agency, how string) (operation string, err error) {
	for {
		asked := time.Now()
		var o *cluster.Running
		said := ""
		if !w.until(ctx, func() bool {
			if o, said = w.begin(ctx, w.anyNode(), agency, how, asked); o == nil {
				wait(ctx, 300*time.Millisecond)
			}
			return o != nil
		}) {
			return "", fmt.Errorf("%s of %s did not begin: %s", how, agency, said)
		}
		op, err := o.Finish(ctx)
		if err != nil {
			return "", err
		}
		w.Storm.mu.Lock()
		w.known[o.ID] = true
		w.Storm.mu.Unlock()
		w.tally.Add("operation", op.Kind+" "+op.Step, 1)
		w.log("%s of %s: %s after %s %s", op.Kind, agency, op.Step, time.Since(asked).Round(time.Millisecond), op.Error)
		if how != "switch" {
			if err := w.confirm(ctx, agency); err != nil {
				return "", err
			}
		}
		if op.Step == "done" {
			return o.ID, nil
		}
	}
}

// look reads all mailboxes of an agency on a platform.
func (w *waysBack) look(ctx context.Context, s *Store, agency string) (all Boxes, err error) {
	began := time.Now()
	if !w.until(ctx, func() bool {
		if all, err = s.Look(ctx, cluster.Mailboxes(agency, boxesOfEach)); err != nil && time.Since(began) > restartAfter && s.mending.TryLock() {
			w.restart(ctx, s, err)
			s.mending.Unlock()
			began = time.Now()
		}
		return err == nil
	}) {
		return nil, fmt.Errorf("look at the mailboxes of %s: %w", agency, err)
	}
	return all, nil
}

// restartAfter is how long mailboxes can't be read before people restart a platform.
const restartAfter = 90 * time.Second

// restart has people restart a platform that is locked.
func (w *waysBack) restart(ctx context.Context, s *Store, why error) {
	defer w.c.Trouble("platform "+s.Platform+": restarted", -1, "")()
	w.log("people: %s is restarted: %v", s.Platform, why)
	w.tally.Add("people", "Dovecots restarted that were locked", 1)
	s.Stop()
	if err := s.Start(ctx); err != nil {
		w.fail(err)
	}
}

// work has users do something on the platform where their agency is, for so long.
func (w *waysBack) work(ctx context.Context, t *Turn, s *Store, d time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	for wait(ctx, w.upTo(400*time.Millisecond)) {
		w.actOnce(ctx, t, s)
	}
}

// actOnce has a user do one thing. He isn't interrupted.
func (w *waysBack) actOnce(ctx context.Context, t *Turn, s *Store) {
	user := cluster.Mailbox(t.Agency, 1+w.draw(boxesOfEach))
	what, flag := []string{actDelete, actDelete, actDelete, actMove, actMove, actFlag, actFlag, actMake}[w.draw(8)], `\Flagged`
	if s.Platform == cluster.Exchange {
		flag = `\Answered`
	}
	a, err := s.act(context.WithoutCancel(ctx), user, what, flag, usersMake+int(w.made.Add(1)), w.draw)
	if err != nil {
		w.tally.Add("users", "mail programs failed", 1)
	}
	if a == nil {
		return
	}
	t.Acts = append(t.Acts, *a)
	if a.Sure {
		w.tally.Add("users", a.What+" on "+a.Platform, 1)
	}
}

// runOf returns the run that an operation has begun. One that a failover of Redis has lost people
// begin by hand.
func (w *waysBack) runOf(ctx context.Context, agency, operation string) (string, error) {
	short, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	id := ""
	if w.until(short, func() bool {
		call, cancel := context.WithTimeout(short, callPatience)
		defer cancel()
		all, err := w.anyNode().API.Recalls(call, agency)
		for _, r := range all.Recalls {
			if err == nil && r.Operation == operation && r.Kind == "recall" {
				id = r.ID
			}
		}
		return id != ""
	}) {
		return id, nil
	}
	w.log("no run follows the rollback %s of %s", operation, agency)
	w.tally.Add("recall", "runs begun by hand after a rollback", 1)
	return w.beginRun(ctx, agency)
}

// beginRun has people begin a run. Of an answer that was lost it finds the run that it was about.
func (w *waysBack) beginRun(ctx context.Context, agency string) (id string, err error) {
	reason := fmt.Sprintf("campaign, %d", time.Now().UnixNano())
	if !w.until(ctx, func() bool {
		call, cancel := context.WithTimeout(ctx, callPatience)
		defer cancel()
		n := w.anyNode()
		var r admin.Recall
		if r, err = n.API.BeginRecall(call, admin.NewRecall{Agency: agency, Reason: reason}); err == nil {
			id = r.ID
			return true
		}
		all, lerr := n.API.Recalls(call, agency)
		for _, r := range all.Recalls {
			if lerr == nil && r.Reason == reason {
				id = r.ID
			}
		}
		return id != ""
	}) {
		return "", fmt.Errorf("begin a run for %s: %w", agency, err)
	}
	return id, nil
}

// sweptBy waits until the sweep of an agency is done, for a while.
func (w *waysBack) sweptBy(ctx context.Context, agency string, d time.Duration) error {
	short, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	if w.until(short, func() bool {
		call, cancel := context.WithTimeout(short, callPatience)
		defer cancel()
		all, err := w.anyNode().API.Recalls(call, agency)
		if err != nil || len(all.Recalls) == 0 {
			return false
		}
		last := &all.Recalls[len(all.Recalls)-1]
		return last.Kind == "sweep" && last.State == "done"
	}) {
		w.tally.Add("recall", "sweeps waited for", 1)
	}
	return ctx.Err()
}

// recall waits until a run is done, while users work on the source; forGood: a node is killed, and
// people have the others take its share.
func (w *waysBack) recall(ctx context.Context, t *Turn, id string, forGood bool) error {
	seen := &RunSeen{ID: id, From: time.Now()}
	store := w.stores[cluster.Exchange]
	var back func(context.Context) error
	if forGood {
		var err error
		if back, err = w.lose(ctx, seen); err != nil {
			return err
		}
	}
	said, end := "", w.draw(8) == 0
	done := func() bool {
		call, cancel := context.WithTimeout(ctx, callPatience)
		defer cancel()
		r, err := w.anyNode().API.Recall(call, id, true)
		if err != nil {
			said = err.Error()
			return false
		}
		said = fmt.Sprintf("%s: %s", r.State, r.Text)
		for _, one := range r.Nodes {
			said += fmt.Sprintf("; %s %s %s", one.Node, one.State, one.Waiting)
		}
		for _, node := range r.Nodes {
			if w.lost(node.Node) && node.State == "silent" && r.State == "running" {
				if _, err := w.anyNode().API.ActOnRecall(call, id, "take-over", node.Node, "campaign"); err == nil {
					w.log("people: %s is gone for good, and its share of %s taken over", node.Node, id)
					w.tally.Add("recall", "shares taken over", 1)
				}
			}
		}
		seen.State = r.State
		if end && r.State == "running" && r.Totals.Messages > 3 {
			_, _ = w.anyNode().API.ActOnRecall(call, id, "end", "", "campaign") // another one is begun then
			end = false
		}
		if r.State != "done" && r.State != "ended" {
			return false
		}
		if len(r.Missing) > 0 && !forGood { // its notes aren't known
			return false
		}
		seen.Last = r
		return true
	}
	if !w.until(ctx, func() bool {
		if done() {
			return true
		}
		if w.draw(3) == 0 {
			w.actOnce(ctx, t, store)
		}
		wait(ctx, w.upTo(500*time.Millisecond))
		return false
	}) {
		return fmt.Errorf("run %s is not done: %s", id, said)
	}
	seen.To = time.Now()
	var err error
	if seen.Source, err = w.look(ctx, store, t.Agency); err != nil {
		return err
	}
	if seen.Target, err = w.look(ctx, w.stores[cluster.OX], t.Agency); err != nil {
		return err
	}
	w.tally.Add("recall", "runs "+seen.State, 1)
	w.log("run %s of %s: %s after %s: %s", id, t.Agency, seen.State, seen.To.Sub(seen.From).Round(time.Millisecond), seen.Last.Text)
	for _, node := range seen.Last.Nodes {
		for _, b := range node.Boxes {
			for _, m := range b.NotBack {
				w.log("run %s: of %s not back: %s UID %d: %s: %s", id, b.Address, m.Folder, m.UID, m.Class, m.Reason)
			}
		}
	}
	t.Runs = append(t.Runs, seen)
	if back != nil {
		return back(ctx)
	}
	return nil
}
