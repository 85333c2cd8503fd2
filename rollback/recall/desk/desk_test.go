package desk_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"mailcutover/internal/alarm"
	"mailcutover/ledger"
	"mailcutover/mail"
	"mailcutover/rollback/mailstore"
	"mailcutover/rollback/msgkey"
	"mailcutover/rollback/operation"
	"mailcutover/rollback/recall"
	"mailcutover/rollback/recall/desk"
	"mailcutover/rollback/resend"
	"mailcutover/routing"
	"mailcutover/routing/localtable"
	"mailcutover/routing/replica"
	"mailcutover/routing/table"
)

// world is a table with an agency of some mailboxes, and desks of several nodes at it.
type world struct {
	t       *testing.T
	table   *localtable.Table
	replica *replica.Replica
	alarms  *alarm.Set
	rows    []routing.Row
	dir     string
	changes int

	mu     sync.Mutex
	engine map[routing.NodeID]*engine
	ledger records
	desks  []*desk.Desk
}

// engine brings mailboxes as a test says.
type engine struct {
	mu      sync.Mutex
	calls   []recall.Job
	results map[routing.MailboxID]recall.Result
	back    map[routing.MailboxID][]msgkey.Key
	answer  func(job recall.Job, nth int) (recall.Result, error) // nil: done at once
	taken   []string
	sent    map[routing.MailboxID][]mail.TransactionID
	inside  int
	most    int
}

func (e *engine) Mailbox(ctx context.Context, job recall.Job) (recall.Result, error) {
	e.mu.Lock()
	e.inside++
	e.most = max(e.most, e.inside)
	nth := 0
	for _, j := range e.calls {
		if j.Row.Mailbox == job.Row.Mailbox {
			nth++
		}
	}
	e.calls = append(e.calls, job)
	answer := e.answer
	e.mu.Unlock()
	r, err := recall.Result{Delivered: 2, DeliveredBack: 2, ByUsers: 1, Copied: 3, Passes: 1, Done: true}, error(nil)
	if answer != nil {
		r, err = answer(job, nth)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.inside--
	if err == nil {
		e.results[job.Row.Mailbox] = r
	}
	return r, err
}

func (e *engine) Result(id routing.MailboxID) (recall.Result, bool, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	r, ok := e.results[id]
	return r, ok, nil
}

func (e *engine) Accounted(id routing.MailboxID) ([]msgkey.Key, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.back[id], nil
}

func (e *engine) Mailboxes() ([]routing.MailboxID, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Collect(maps.Keys(e.results)), nil
}

func (e *engine) Export(id routing.MailboxID) ([]byte, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, ok := e.results[id]; !ok {
		return nil, nil
	}
	return []byte("what is known of " + id.String()), nil
}

func (e *engine) Take(id routing.MailboxID, node routing.NodeID, text []byte) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.taken = append(e.taken, fmt.Sprintf("%s: %s", node, text))
	return nil
}

func (e *engine) Sent(id routing.MailboxID, all ...mail.TransactionID) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.sent == nil {
		e.sent = make(map[routing.MailboxID][]mail.TransactionID)
	}
	e.sent[id] = all
	return nil
}

// mailboxes returns how often each was called.
func (e *engine) mailboxes() map[routing.MailboxID]int {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := make(map[routing.MailboxID]int)
	for _, j := range e.calls {
		n[j.Row.Mailbox]++
	}
	return n
}

// records is a ledger.
type records []ledger.Record

func (r records) Find(_ context.Context, q ledger.Query) iter.Seq2[ledger.Record, error] {
	return func(yield func(ledger.Record, error) bool) {
		for _, one := range r {
			if one.Platform == q.Platform && !yield(one, nil) {
				return
			}
		}
	}
}

func newWorld(t *testing.T, mailboxes int, nodes ...routing.NodeID) *world {
	t.Helper()
	tb, err := localtable.Open(filepath.Join(t.TempDir(), "table.db"), localtable.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tb.Close() })
	if _, err := tb.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	rep, err := replica.Open(replica.Options{Table: tb, Interval: 20 * time.Millisecond, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- rep.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	w := &world{t: t, table: tb, replica: rep, alarms: alarm.NewSet(nil), dir: t.TempDir(), engine: make(map[routing.NodeID]*engine)}
	for i := range mailboxes {
		w.rows = append(w.rows, routing.Row{Mailbox: routing.MailboxID{1: byte(i >> 8), 15: byte(i + 1)}, Kind: routing.KindUser, Addresses: []routing.Address{routing.Address(fmt.Sprintf("m%03d@health.example", i))}})
	}
	m, err := routing.NewMapping("health", w.rows)
	if err != nil {
		t.Fatal(err)
	}
	if err := tb.PutMapping(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	a, err := routing.NewAgency("health", "exchange", "ox")
	if err != nil {
		t.Fatal(err)
	}
	a.Mapping = m.Digest()
	pos := w.follow()
	w.change(table.Change{Agencies: []routing.Agency{a}, Domains: []routing.Domain{{Name: "health.example"}}, Mapped: pos.Mapped})
	for _, n := range nodes {
		pos := w.follow()
		r := table.Renewal{
			Member: routing.Member{Node: n, Instance: routing.InstanceID(n + "-1"), Protocol: table.Protocol}, Short: time.Minute, Long: time.Hour, Lapsed: true,
			Incarnation: pos.Incarnation, Term: pos.Term, Applied: pos.Revision, Sequence: 1,
		}
		if _, err := tb.Renew(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	w.follow()
	return w
}

func (w *world) follow() routing.Position {
	w.t.Helper()
	pos, err := w.table.Position(w.t.Context())
	if err == nil {
		err = w.replica.Wait(w.t.Context(), pos)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return pos
}

// change stores a change.
func (w *world) change(c table.Change) {
	w.t.Helper()
	pos := w.follow()
	w.changes++
	c.ID, c.Who, c.What, c.Reason = fmt.Sprintf("test-%d", w.changes), "anna", "test", "test"
	c.Incarnation, c.Term = pos.Incarnation, pos.Term
	if _, err := w.table.Change(w.t.Context(), c); err != nil {
		w.t.Fatal(err)
	}
	w.follow()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, d := range w.desks {
		d.Look()
	}
}

func (w *world) store(docs []routing.Document, err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
	w.change(table.Change{Documents: docs})
}

// noStore is a platform whose mailboxes can be read; the engine of these tests doesn't.
type noStore struct{ mailstore.Store }

// desk makes the desk of a node, which runs until the returned function is called.
func (w *world) desk(n routing.NodeID, change func(*desk.Options)) (*desk.Desk, func()) {
	w.t.Helper()
	w.mu.Lock()
	e := w.engine[n]
	if e == nil {
		e = &engine{results: make(map[routing.MailboxID]recall.Result)}
		w.engine[n] = e
	}
	w.mu.Unlock()
	o := desk.Options{
		Node: n, Table: w.table, Replica: w.replica, Dir: filepath.Join(w.dir, string(n)), Ledger: w.ledger, Alarms: w.alarms,
		Settings: func() desk.Settings {
			return desk.Settings{
				Mailboxes: func(routing.PlatformID) mailstore.Store { return noStore{} },
				Limit:     func(routing.PlatformID) time.Duration { return time.Millisecond }, Workers: 3, Settle: time.Millisecond,
			}
		},
		Engine: func(*desk.Run) (desk.Engine, desk.Journals, error) { return e, e, nil },
	}
	if change != nil {
		change(&o)
	}
	d, err := desk.New(o)
	if err != nil {
		w.t.Fatal(err)
	}
	w.mu.Lock()
	w.desks = append(w.desks, d)
	w.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { d.Run(ctx); close(done) }()
	stop := sync.OnceFunc(func() { cancel(); <-done })
	w.t.Cleanup(stop)
	return d, stop
}

// begin starts a run by people's word.
func (w *world) begin(d *desk.Desk) desk.Run {
	w.t.Helper()
	r, docs, err := d.New(w.replica.State(), desk.Order{Agency: "health", Who: "anna", Reason: "test"})
	w.store(docs, err)
	return r
}

// until waits for what a State shows.
func (w *world) until(what string, f func(*routing.State) bool) {
	w.t.Helper()
	end := time.Now().Add(2 * time.Minute)
	for !f(w.replica.State()) {
		if time.Now().After(end) {
			w.t.Fatalf("not within two minutes: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (w *world) ends(id desk.ID) desk.Run {
	w.t.Helper()
	var r desk.Run
	w.until("run "+string(id)+" is done", func(s *routing.State) bool {
		r, _ = desk.Find(s, id)
		return r.Stands(s) == desk.Done
	})
	return r
}

// Each mailbox is brought by one node, every one is, and the sums are those of all.
func TestShared(t *testing.T) {
	w := newWorld(t, 60, "mx1", "mx2", "mx3")
	d, _ := w.desk("mx1", nil)
	w.desk("mx2", nil)
	w.desk("mx3", nil)
	r := w.begin(d)
	if r.Kind != desk.Recall || r.From != "ox" || r.To != "exchange" || len(r.Nodes) != 3 {
		t.Errorf("the run is %+v", r)
	}
	r = w.ends(r.ID)
	seen := make(map[routing.MailboxID]int)
	for n, e := range w.engine {
		mine := e.mailboxes()
		if len(mine) < 8 {
			t.Errorf("node %s has %d of 60 mailboxes", n, len(mine))
		}
		for id, calls := range mine {
			seen[id] += calls
		}
		if e.most > 3 {
			t.Errorf("node %s had %d mailboxes at once, want at most 3", n, e.most)
		}
	}
	for id, calls := range seen {
		if calls != 1 {
			t.Errorf("mailbox %s was brought %d times", id, calls)
		}
	}
	s := w.replica.State()
	if got := r.Totals(s); len(seen) != 60 || got.Done != 60 || got.Mailboxes != 60 || got.Delivered != 120 || got.ByUsers != 60 || got.Messages != 180 {
		t.Errorf("%d mailboxes, totals %+v", len(seen), got)
	}
	if open := desk.Open(s, "health"); open != nil {
		t.Errorf("open after all is back: %v", open)
	}
}

// A node that is killed goes on with what it had not done, and no more.
func TestGoesOnAfterAStop(t *testing.T) {
	w := newWorld(t, 12, "mx1")
	e := &engine{results: make(map[routing.MailboxID]recall.Result)}
	w.engine["mx1"] = e
	stopAt := make(chan struct{})
	var once sync.Once
	e.answer = func(_ recall.Job, _ int) (recall.Result, error) {
		e.mu.Lock()
		n := len(e.calls)
		e.mu.Unlock()
		if n >= 5 {
			once.Do(func() { close(stopAt) })
			return recall.Result{}, errors.New("cut off")
		}
		return recall.Result{ByUsers: 1, Passes: 1, Done: true}, nil
	}
	d, stop := w.desk("mx1", nil)
	r := w.begin(d)
	<-stopAt
	stop()
	done := 0
	for range e.results {
		done++
	}
	before := e.mailboxes()
	e.mu.Lock()
	e.answer = nil
	e.calls = nil
	e.mu.Unlock()
	w.desk("mx1", nil)
	r = w.ends(r.ID)
	for id := range e.mailboxes() {
		if before[id] > 0 && e.results[id].Passes == 1 && e.results[id].Delivered == 0 {
			t.Errorf("mailbox %s was done, and was brought again", id)
		}
	}
	if got := r.Totals(w.replica.State()); got.Done != 12 || done == 0 || len(e.mailboxes()) != 12-done {
		t.Errorf("%d were done before, %d after; totals %+v", done, len(e.mailboxes()), got)
	}
}

// A mailbox that fails by itself is put aside; the others aren't kept from anything. What is
// left keeps the way back open until somebody accepts it.
func TestOneMailboxFails(t *testing.T) {
	w := newWorld(t, 5, "mx1")
	bad := w.rows[2].Mailbox
	e := &engine{results: make(map[routing.MailboxID]recall.Result), answer: func(job recall.Job, _ int) (recall.Result, error) {
		if job.Row.Mailbox == bad {
			return recall.Result{}, fmt.Errorf("list: %w", mailstore.ErrTimeout)
		}
		r := recall.Result{Passes: 1, Done: true}
		if job.Row.Mailbox == w.rows[0].Mailbox {
			r.NotBack = []recall.NotBack{{Folder: "INBOX", UID: 7, Class: recall.ClassTooLarge, Reason: "12 MiB, takes 10"}}
		}
		return r, nil
	}}
	w.engine["mx1"] = e
	d, _ := w.desk("mx1", func(o *desk.Options) { o.FirstPause = time.Microsecond })
	r := w.begin(d)
	r = w.ends(r.ID)
	s := w.replica.State()
	if got := r.Totals(s); got.Done != 4 || got.Aside != 1 || got.NotBack != 1 {
		t.Errorf("totals %+v", got)
	}
	if n := e.mailboxes()[bad]; n != 8 {
		t.Errorf("the failing mailbox was tried %d times, want 8", n)
	}
	share, err := d.Share(t.Context(), r.ID, true)
	if err != nil || len(share.Boxes) != 2 || !share.Brought {
		t.Errorf("share %+v, %v", share, err)
	}
	open := desk.Open(s, "health")
	if len(open) != 1 || !strings.Contains(open[0], "1 messages that are not back, and 1 mailboxes") {
		t.Errorf("open: %q", open)
	}
	w.alarmed(true, "recall-not-back/"+string(r.ID))
	_, docs, err := desk.Accept(s, r.ID, desk.Word{Who: "berta", Reason: "fetched", Time: time.Now()})
	w.store(docs, err)
	if open := desk.Open(w.replica.State(), "health"); open != nil {
		t.Errorf("open after it was accepted: %q", open)
	}
	w.alarmed(false, "recall-not-back/"+string(r.ID))
}

// Users make as many keywords as they like: a share is told as brought all the same, with those
// that most messages had.
func TestManyKeywords(t *testing.T) {
	const keywords = 3000
	w := newWorld(t, 2, "mx1")
	lost := map[string]int{"Wichtig": 7, strings.Repeat("x", 200): 9}
	for i := range keywords {
		lost[fmt.Sprintf("a-keyword-that-a-mail-program-made-%d", i)] = 1
	}
	w.engine["mx1"] = &engine{results: make(map[routing.MailboxID]recall.Result), answer: func(recall.Job, int) (recall.Result, error) {
		return recall.Result{Passes: 1, Done: true, FlagsNotTaken: maps.Clone(lost)}, nil
	}}
	d, _ := w.desk("mx1", func(o *desk.Options) { o.FirstPause = time.Millisecond })
	r := w.ends(w.begin(d).ID)
	totals, sum := r.Totals(w.replica.State()), 0
	for flag, n := range totals.FlagsNotTaken {
		if sum += n; len(flag) > 100 {
			t.Errorf("it names %q", flag)
		}
	}
	if totals.FlagsNotTaken["Wichtig"] != 14 || sum != 2*(keywords+7+9) || len(totals.FlagsNotTaken) > 60 {
		t.Errorf("%d flags of %d messages, %d of them of Wichtig", len(totals.FlagsNotTaken), sum, totals.FlagsNotTaken["Wichtig"])
	}
}

func (w *world) alarmed(want bool, key string) {
	w.t.Helper()
	w.until(fmt.Sprintf("alarm %s: %v", key, want), func(*routing.State) bool {
		return slices.ContainsFunc(w.alarms.List(), func(a alarm.Alarm) bool { return a.Key == key }) == want
	})
}

// A run that people begin, where the switch could begin none, waits as long as one of the switch's.
func TestFirstRunByPeople(t *testing.T) {
	w := newWorld(t, 1, "mx1")
	w.engine["mx1"] = &engine{results: make(map[routing.MailboxID]recall.Result), answer: func(recall.Job, int) (recall.Result, error) {
		return recall.Result{Passes: 1}, nil // not done before the limit
	}}
	d, _ := w.desk("mx1", func(o *desk.Options) {
		o.Settings = func() desk.Settings {
			return desk.Settings{Mailboxes: func(routing.PlatformID) mailstore.Store { return noStore{} }, Limit: func(routing.PlatformID) time.Duration { return time.Hour }}
		}
	})
	r, docs, err := d.New(w.replica.State(), desk.Order{Agency: "health", Who: "anna", Reason: "readable now"})
	if err != nil || r.After.Sub(r.Begun) != time.Hour {
		t.Fatalf("after %s, begun %s, %v", r.After, r.Begun, err)
	}
	w.store(docs, nil)
	_, docs, err = desk.End(w.replica.State(), r.ID, desk.Word{Who: "anna", Reason: "again", Time: time.Now()})
	w.store(docs, err)
	if again, _, err := d.New(w.replica.State(), desk.Order{Agency: "health", Who: "anna", Reason: "again"}); err != nil || !again.After.Equal(r.After) {
		t.Errorf("the second waits until %s, the first %s, %v", again.After, r.After, err)
	}
}

// A platform that doesn't answer is no mailbox's fault: nothing is put aside, and it goes on
// when the platform is back.
func TestPlatformAway(t *testing.T) {
	w := newWorld(t, 20, "mx1")
	e := &engine{results: make(map[routing.MailboxID]recall.Result)}
	w.engine["mx1"] = e
	var away sync.Map
	away.Store("away", true)
	e.answer = func(recall.Job, int) (recall.Result, error) {
		if _, is := away.Load("away"); is {
			return recall.Result{}, fmt.Errorf("dial: %w", mailstore.ErrUnavailable)
		}
		return recall.Result{Passes: 1, Done: true}, nil
	}
	d, _ := w.desk("mx1", func(o *desk.Options) { o.FirstPause = time.Millisecond })
	r := w.begin(d)
	w.until("it waits", func(*routing.State) bool {
		share, err := d.Share(t.Context(), r.ID, true)
		e.mu.Lock()
		defer e.mu.Unlock()
		return err == nil && strings.Contains(share.Waiting, "not available") && len(e.calls) > 10
	})
	if open := desk.Open(w.replica.State(), "health"); len(open) != 1 || !strings.Contains(open[0], "under way") {
		t.Errorf("open: %q", open)
	}
	// Ended by people it is open still, until they accept it or another run brings the rest.
	_, docs, err := desk.End(w.replica.State(), r.ID, desk.Word{Who: "berta", Reason: "it hangs", Time: time.Now()})
	w.store(docs, err)
	if open := desk.Open(w.replica.State(), "health"); len(open) != 1 || !strings.Contains(open[0], "before it was done") {
		t.Errorf("open after it was ended: %q", open)
	}
	_, docs, err = desk.Accept(w.replica.State(), r.ID, desk.Word{Who: "berta", Reason: "nothing is there", Time: time.Now()})
	if err == nil {
		w.store(docs, nil)
	}
	if open := desk.Open(w.replica.State(), "health"); err != nil || open != nil {
		t.Errorf("open after it was accepted: %q, %v", open, err)
	}
	for n := range 2 { // of two more, neither accepted, the second is let through
		if n == 1 {
			_, docs, err := desk.End(w.replica.State(), r.ID, desk.Word{Who: "berta", Reason: "once more", Time: time.Now()})
			w.store(docs, err)
		}
		r = w.begin(d)
	}
	away.Delete("away")
	r = w.ends(r.ID)
	if open := desk.Open(w.replica.State(), "health"); open != nil {
		t.Errorf("open after another run: %q", open)
	}
	if got := r.Totals(w.replica.State()); got.Done != 20 || got.Aside != 0 {
		t.Errorf("totals %+v", got)
	}
}

// A mailbox isn't done before nothing can reach the losing side any more.
func TestLastPassAfterTheLimit(t *testing.T) {
	w := newWorld(t, 2, "mx1")
	const limit = time.Hour
	var mu sync.Mutex
	var passed time.Duration // of the limit, by the desk's clock
	clock := func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return time.Now().Add(passed)
	}
	var last time.Time
	first := 0 // mailboxes with a first pass
	e := &engine{results: make(map[routing.MailboxID]recall.Result)}
	e.answer = func(job recall.Job, nth int) (recall.Result, error) {
		done := !clock().Before(job.After)
		if done && nth == 0 {
			t.Errorf("mailbox %s came too late for its first pass", job.Row.Mailbox)
		}
		last = job.After
		if nth == 0 {
			if first++; first == 2 {
				mu.Lock()
				passed = limit
				mu.Unlock()
			}
		}
		return recall.Result{Passes: nth + 1, Done: done}, nil
	}
	w.engine["mx1"] = e
	d, _ := w.desk("mx1", func(o *desk.Options) {
		settings := o.Settings()
		settings.Limit = func(routing.PlatformID) time.Duration { return limit }
		settings.Workers = 1
		o.Settings, o.Now = func() desk.Settings { return settings }, clock
	})
	docs, err := d.Documents(w.replica.State(), &operation.Operation{ID: "8c1f7a52-7a55-4a1c-9d43-1f1f6e0c4711", Kind: operation.Rollback, Agency: "health", Agencies: []routing.AgencyID{"health"}, Step: operation.StepSpread, Who: "anna", Reason: "test"})
	w.store(docs, err)
	r := w.ends("health-8c1f7a52")
	if now := clock(); now.Before(r.After) || last.Before(r.After) {
		t.Errorf("done at %s, After %s", now, r.After)
	}
	for id, n := range e.mailboxes() {
		if n != 2 {
			t.Errorf("mailbox %s was called %d times, want 2: at once, and after the limit", id, n)
		}
	}
}

// The share of a node that is gone is the others' when people say so.
func TestTakeOver(t *testing.T) {
	w := newWorld(t, 30, "mx1", "mx2")
	d, _ := w.desk("mx1", nil) // mx2 never comes
	r := w.begin(d)
	w.until("mx1 has brought its share", func(s *routing.State) bool { return len(r.Parts(s)) == 1 })
	s := w.replica.State()
	if r.Stands(s) != desk.Running {
		t.Errorf("with one share of two it is %s", r.Stands(s))
	}
	first := len(w.engine["mx1"].mailboxes())
	if _, _, err := desk.TakeOver(s, r.ID, "mx9"); !errors.Is(err, desk.ErrNode) {
		t.Errorf("a node without a share: %v", err)
	}
	_, docs, err := desk.TakeOver(s, r.ID, "mx2")
	w.store(docs, err)
	if _, _, err := desk.TakeOver(w.replica.State(), r.ID, "mx1"); !errors.Is(err, desk.ErrNode) {
		t.Errorf("the last node: %v", err)
	}
	r = w.ends(r.ID)
	for id, n := range w.engine["mx1"].mailboxes() {
		if n != 1 {
			t.Errorf("mailbox %s was brought %d times", id, n)
		}
	}
	if got := r.Totals(w.replica.State()); got.Done != 30 || first == 0 || first == 30 {
		t.Errorf("%d at first, totals %+v", first, got)
	}
}

// The runs of a switch are set with the change that opens; the next one ends what is under way.
func TestRunsOfSwitches(t *testing.T) {
	w := newWorld(t, 3, "mx1")
	d, stop := w.desk("mx1", nil)
	stop() // nothing is brought here
	op := &operation.Operation{ID: "11111111-7a55-4a1c-9d43-1f1f6e0c4711", Kind: operation.Cutover, Agency: "health", Agencies: []routing.AgencyID{"health"}, Step: operation.StepSpread, Started: time.Now().Add(-time.Minute), Watermarks: routing.Digest{1}, Who: "anna", Reason: "wave 1"}
	docs, err := d.Documents(w.replica.State(), op)
	w.store(docs, err)
	s := w.replica.State()
	if again, err := d.Documents(s, op); err != nil || len(again) != 0 {
		t.Errorf("asked again: %v, %v", again, err)
	}
	sweep, ok := desk.Find(s, "health-11111111")
	if !ok || sweep.Kind != desk.Sweep || sweep.From != "exchange" || sweep.Direction().Side != mailstore.Source || sweep.Watermarks != op.Watermarks {
		t.Fatalf("the sweep is %+v, %v", sweep, ok)
	}
	if state := sweep.Stands(s); state != desk.Elsewhere { // the agency is on the source in this test
		t.Errorf("it is %s", state)
	}
	back := &operation.Operation{ID: "22222222-7a55-4a1c-9d43-1f1f6e0c4711", Kind: operation.Rollback, Agency: "health", Agencies: []routing.AgencyID{"health"}, Step: operation.StepSpread, Started: time.Now(), TargetDead: true, Emergency: true, Who: "berta", Reason: "it hangs"}
	docs, err = d.Documents(s, back)
	w.store(docs, err)
	s = w.replica.State()
	r, ok := desk.Find(s, "health-22222222")
	if !ok || r.Kind != desk.Recall || r.From != "ox" || r.Watermarks != op.Watermarks || !r.Since.Equal(op.Started) || r.Copies {
		t.Errorf("the recall is %+v, %v", r, ok)
	}
	if sweep, _ = desk.Find(s, sweep.ID); sweep.Ended == nil || sweep.Ended.Who != "berta" {
		t.Errorf("the sweep goes on: %+v", sweep)
	}
	if got, err := d.Watermarks(t.Context(), back, func(string) {}); err != nil || got != op.Watermarks {
		t.Errorf("watermarks of the rollback: %s, %v", got, err)
	}
	if _, _, err := d.New(s, desk.Order{Agency: "health", Who: "anna", Reason: "again"}); !errors.Is(err, desk.ErrOpen) {
		t.Errorf("a second run: %v", err)
	}
	checks := d.Check(t.Context(), &operation.Plan{Kind: operation.Cutover, Agencies: []operation.PlanAgency{{ID: "health"}}})
	if len(checks) != 1 || checks[0].OK || checks[0].Informs {
		t.Errorf("a cutover with a recall under way: %+v", checks)
	}
	_, docs, err = desk.End(s, r.ID, desk.Word{Who: "anna", Reason: "enough", Time: time.Now()})
	w.store(docs, err)
	s = w.replica.State()
	if checks := d.Check(t.Context(), &operation.Plan{Kind: operation.Cutover, Agencies: []operation.PlanAgency{{ID: "health"}}}); !checks[0].OK {
		t.Errorf("a cutover after it: %+v", checks)
	}
	next, _, err := d.New(s, desk.Order{Agency: "health", Who: "anna", Reason: "again"})
	if err != nil || next.Operation != r.Operation || next.ID == r.ID || !next.After.Equal(r.After) {
		t.Errorf("the next run is %+v, %v", next, err)
	}
}

// Without a way to read mailboxes there is no run, and the plan says so.
func TestNoMailboxes(t *testing.T) {
	w := newWorld(t, 3, "mx1")
	d, _ := w.desk("mx1", func(o *desk.Options) {
		o.Settings = func() desk.Settings {
			return desk.Settings{Mailboxes: func(routing.PlatformID) mailstore.Store { return nil }}
		}
	})
	if _, _, err := d.New(w.replica.State(), desk.Order{Agency: "health", Who: "anna", Reason: "test"}); !errors.Is(err, desk.ErrMailboxes) {
		t.Errorf("a run: %v", err)
	}
	op := &operation.Operation{ID: "11111111-7a55-4a1c-9d43-1f1f6e0c4711", Kind: operation.Cutover, Agency: "health", Agencies: []routing.AgencyID{"health"}, Step: operation.StepSpread}
	if digest, err := d.Watermarks(t.Context(), op, func(string) {}); err != nil || !digest.IsZero() {
		t.Errorf("watermarks: %s, %v", digest, err)
	}
	docs, err := d.Documents(w.replica.State(), op)
	if err != nil || len(docs) != 1 || !strings.HasPrefix(docs[0].Key, "watermarks/") {
		t.Errorf("documents: %+v, %v", docs, err)
	}
	text := strings.Join(d.Plan(t.Context(), &operation.Plan{Kind: operation.Cutover, Agencies: []operation.PlanAgency{{ID: "health", Losing: "exchange", Winning: "ox"}}}), "\n")
	if !strings.Contains(text, "can't be read") {
		t.Errorf("the plan says:\n%s", text)
	}
	text = strings.Join(d.Foresee(t.Context(), &desk.Run{Agency: "tax", From: "ox", To: "exchange"}), "\n")
	if !strings.Contains(text, "mail of an unknown number of mailboxes") {
		t.Errorf("of an agency whose mapping isn't here it says:\n%s", text)
	}
}

// What counts as delivered by us is what a platform took for a mailbox of the agency.
func TestDeliveries(t *testing.T) {
	w := newWorld(t, 2, "mx1")
	rec := func(tx mail.TransactionID, local bool, results ...ledger.Result) ledger.Record {
		r := ledger.Record{Intent: ledger.Intent{Transaction: tx, Platform: "ox", Local: local}}
		for i, result := range results {
			r.Recipients = append(r.Recipients, ledger.Recipient{Agency: "health", Mailbox: w.rows[i].Mailbox})
			r.Answers = append(r.Answers, ledger.Answer{Result: result})
		}
		return r
	}
	other := rec("t5", false, ledger.ResultDelivered)
	other.Recipients[0].Agency = "tax"
	w.ledger = records{
		rec("t1", false, ledger.ResultDelivered, ledger.ResultRefused), rec("t2", false, ledger.ResultInDoubt), rec("t3", false, ledger.ResultNotAcknowledged),
		rec("t4", true, ledger.ResultAccepted), other, rec("t6", false, ledger.ResultPutOff, ledger.ResultDelivered),
	}
	d, _ := w.desk("mx1", nil)
	f, err := d.Deliveries(t.Context(), desk.Query{Agency: "health", Platform: "ox"})
	if err != nil || len(f.By) != 2 || len(f.By[w.rows[1].Mailbox.String()]) != 1 || !slices.Equal(f.By[w.rows[0].Mailbox.String()], []mail.TransactionID{"t1", "t3"}) {
		t.Errorf("%+v, %v", f, err)
	}
	r := w.begin(d)
	w.ends(r.ID)
	e := w.engine["mx1"]
	for _, job := range e.calls {
		got := slices.Collect(job.Delivered)
		want := []mail.TransactionID{"t1", "t3"}
		if job.Row.Mailbox == w.rows[1].Mailbox {
			want = []mail.TransactionID{"t6"}
		}
		if !slices.Equal(got, want) {
			t.Errorf("mailbox %s: delivered %v, want %v", job.Row.Mailbox, got, want)
		}
	}
}

// copies are retained copies that a test looks at.
type copies struct {
	mu   sync.Mutex
	all  map[mail.TransactionID]routing.MailboxID
	told map[mail.TransactionID]int
	fail int // calls that fail first
}

func (c *copies) Plan(routing.AgencyID, time.Time) []string { return []string{"some copies"} }

func (c *copies) Each(_ context.Context, _ routing.AgencyID, _ routing.PlatformID, _ time.Time, f func(mail.TransactionID, routing.MailboxID, resend.State) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for t, id := range c.all {
		state := resend.Unsent
		if c.told[t] > 0 {
			state = resend.Delivered
		}
		if err := f(t, id, state); err != nil {
			return err
		}
	}
	return nil
}

func (c *copies) Deliver(_ context.Context, _ routing.AgencyID, _ routing.PlatformID, _ time.Time, back func(mail.TransactionID, routing.MailboxID) bool) (n int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fail--; c.fail >= 0 {
		return 0, errors.New("spool is full")
	}
	for t, id := range c.all {
		if !back(t, id) {
			c.told[t]++
			n++
		}
	}
	return n, nil
}

// Of what is back already no copy is delivered. The copies are part of the share, also where the
// losing side can't be read at all.
func TestCopies(t *testing.T) {
	for _, blind := range []bool{false, true} {
		w := newWorld(t, 2, "mx1")
		one, two := mail.NewTransactionID(), mail.NewTransactionID()
		c := &copies{all: map[mail.TransactionID]routing.MailboxID{one: w.rows[0].Mailbox, two: w.rows[1].Mailbox}, told: make(map[mail.TransactionID]int), fail: 2}
		e := &engine{results: make(map[routing.MailboxID]recall.Result), back: map[routing.MailboxID][]msgkey.Key{w.rows[0].Mailbox: {msgkey.TransactionKey(one)}}}
		w.engine["mx1"] = e
		d, _ := w.desk("mx1", func(o *desk.Options) {
			o.Copies, o.FirstPause = c, time.Millisecond
			if blind {
				o.Engine = func(*desk.Run) (desk.Engine, desk.Journals, error) { return nil, nil, desk.ErrMailboxes }
			}
		})
		r, docs, err := d.New(w.replica.State(), desk.Order{Agency: "health", Who: "anna", Reason: "lost", Copies: true})
		w.store(docs, err)
		r = w.ends(r.ID)
		got, s := r.Totals(w.replica.State()), w.replica.State()
		want := map[mail.TransactionID]int{two: 1}
		if blind {
			want[one] = 1
		}
		if !maps.Equal(c.told, want) || got.Copies != len(want) || blind != (got.Aside == 2) || blind != (desk.Open(s, "health") != nil) {
			t.Errorf("blind %v: delivered %v, totals %+v, open %v", blind, c.told, got, desk.Open(s, "health"))
		}
	}
}
