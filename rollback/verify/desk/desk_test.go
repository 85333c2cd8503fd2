package desk_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"mailcutover/rollback/mailstore"
	"mailcutover/rollback/msgkey"
	"mailcutover/rollback/operation"
	"mailcutover/rollback/verify"
	"mailcutover/rollback/verify/desk"
	"mailcutover/routing"
	"mailcutover/routing/table"
)

// shelf is the table and this node's copy of it, in one.
type shelf struct {
	mu    sync.Mutex
	state *routing.State
	fail  error // of the next change
}

func (s *shelf) State() *routing.State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

func (s *shelf) Wait(context.Context, routing.Position) error { return nil }

func (s *shelf) Change(_ context.Context, c table.Change) (routing.Position, error) {
	if err := c.Check(); err != nil {
		return routing.Position{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.fail; err != nil {
		s.fail = nil
		return routing.Position{}, err
	}
	pos := s.state.Position()
	pos.Revision++
	for i := range c.Documents {
		if now, _ := s.state.Document(c.Documents[i].Key); now.Revision != c.Documents[i].Revision {
			return routing.Position{}, table.ErrStale
		}
		c.Documents[i].Revision = pos.Revision
	}
	return pos, s.apply(routing.Update{Position: pos, Documents: c.Documents})
}

func (s *shelf) apply(u routing.Update) error {
	next, err := s.state.Apply(u)
	if err == nil {
		s.state = next
	}
	return err
}

// box is a platform's mailboxes in memory: the numbers of their messages, by login.
type box struct {
	mu       sync.Mutex
	messages map[string][]int
	wait     chan struct{} // if not nil, Open waits for it, or for its context
	fail     error
}

func (b *box) Open(ctx context.Context, row routing.Row, side mailstore.Side) (mailstore.Session, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fail != nil {
		return nil, b.fail
	}
	if wait := b.wait; wait != nil {
		b.mu.Unlock()
		defer b.mu.Lock()
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return &session{messages: b.messages[row.At(side == mailstore.Target).Login]}, nil
}

type session struct {
	mailstore.Session
	messages []int
}

func (s *session) Folders(context.Context) ([]mailstore.Folder, error) {
	return []mailstore.Folder{{Name: "INBOX", Role: mailstore.Inbox, UIDNext: 1000, Messages: uint32(len(s.messages))}}, nil
}

func (s *session) Select(context.Context, string, bool) (mailstore.Folder, error) {
	return mailstore.Folder{}, nil
}

// old is when all mail was written and arrived: before any cutover.
var old = time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC)

// List gives messages; the number says to whom one is: 100 to each mailbox.
func (s *session) List(_ context.Context, _, _ uint32, each func(mailstore.Message) error) error {
	for i, n := range s.messages {
		raw := fmt.Sprintf("Message-ID: <%d@x.example>\r\nDate: %s\r\nFrom: someone@out.example\r\nTo: %s\r\n\r\n", n, old.Format(time.RFC1123Z), address(n/100))
		if err := each(mailstore.Message{UID: uint32(i + 1), Internal: old, Size: 100, Facts: msgkey.Parse([]byte(raw), "")}); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) Bodies(context.Context, []uint32, func(uint32, int64, io.Reader) error) error {
	return nil
}

func (s *session) Close() error { return nil }

func address(i int) routing.Address { return routing.Address(fmt.Sprintf("user%d@health.example", i)) }

// alarms are those that stand.
type alarms struct {
	mu  sync.Mutex
	all map[string]string
}

func (a *alarms) Raise(key, text string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.all[key] = text
}

func (a *alarms) Clear(key string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.all, key)
	return true
}

func (a *alarms) keys() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var keys []string
	for key := range a.all {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// bench is a desk, and what it works with.
type bench struct {
	*testing.T
	mu             sync.Mutex // of what tests change: set, cutover, locked
	shelf          *shelf
	source, target *box
	alarms         *alarms
	set            desk.Settings
	desk           *desk.Desk
	cutover        routing.OperationID
	asked          func()   // when the desk asks for the cutover
	locked         []string // reasons
	lock           error    // that a lock ends with; with context.DeadlineExceeded, when its time is over
	dir            string
	stop           func()
}

const mailboxes = 12

// newBench has an agency on its target, whose mailboxes are the same on both sides.
func newBench(t *testing.T) *bench {
	b := &bench{T: t, dir: t.TempDir(), alarms: &alarms{all: make(map[string]string)}, source: &box{messages: make(map[string][]int)}, target: &box{messages: make(map[string][]int)}}
	var rows []routing.Row
	for i := range mailboxes {
		rows = append(rows, routing.Row{Mailbox: routing.MailboxID{byte(i), 1}, Kind: routing.KindUser, Addresses: []routing.Address{address(i)}})
		for n := range 10 {
			b.source.messages[string(address(i))] = append(b.source.messages[string(address(i))], 100*i+n)
		}
	}
	b.right()
	m, err := routing.NewMapping("health", rows)
	if err != nil {
		t.Fatal(err)
	}
	a, err := routing.NewAgency("health", "exchange", "ox")
	if err != nil {
		t.Fatal(err)
	}
	a.Mapping, a.Phase = m.Digest(), routing.PhaseTarget
	b.shelf = &shelf{state: routing.NewState(routing.Position{Incarnation: "i", Revision: 1, Term: 1})}
	if err := b.shelf.apply(routing.Update{Agencies: []routing.Agency{a}, Mappings: []*routing.Mapping{m}, Domains: []routing.Domain{{Name: "health.example"}}}); err != nil {
		t.Fatal(err)
	}
	b.set = desk.Settings{
		Mailboxes: func(p routing.PlatformID) mailstore.Store {
			return map[routing.PlatformID]mailstore.Store{"exchange": b.source, "ox": b.target}[p]
		},
		Sample: 3, AfterCutover: true, MaxAge: time.Hour, React: desk.ReactAlarm,
	}
	return b
}

// right puts each mailbox's content where it belongs.
func (b *bench) right() {
	b.target.mu.Lock()
	defer b.target.mu.Unlock()
	for login, all := range b.source.messages {
		b.target.messages[login] = slices.Clone(all)
	}
}

// rotate puts the content of each mailbox into the next one.
func (b *bench) rotate() {
	b.target.mu.Lock()
	defer b.target.mu.Unlock()
	for i := range mailboxes {
		b.target.messages[string(address((i+1)%mailboxes))] = slices.Clone(b.source.messages[string(address(i))])
	}
}

// start opens the desk, as a node's start does.
func (b *bench) start(node routing.NodeID) {
	b.Helper()
	d, err := desk.New(desk.Options{
		Node: node, Table: b.shelf, Replica: b.shelf, Dir: b.dir, Alarms: b.alarms, Settings: func() desk.Settings {
			b.mu.Lock()
			defer b.mu.Unlock()
			return b.set
		},
		Cutover: func(*routing.State, routing.AgencyID) routing.OperationID {
			b.mu.Lock()
			defer b.mu.Unlock()
			if b.asked != nil {
				b.asked()
			}
			return b.cutover
		},
		Before: func(context.Context, routing.AgencyID) desk.Before {
			return desk.Before{Operation: b.cutover, Since: old.AddDate(1, 0, 0)}
		},
		Lock: func(ctx context.Context, _ routing.AgencyID, reason string) error {
			b.mu.Lock()
			err := b.lock
			if err == nil {
				b.locked = append(b.locked, reason)
			}
			b.mu.Unlock()
			if errors.Is(err, context.DeadlineExceeded) {
				<-ctx.Done()
			}
			return err
		},
	})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan struct{})
	go func() {
		d.Run(ctx)
		close(done)
	}()
	b.desk = d
	b.stop = func() {
		cancel()
		<-done
	}
}

// change changes what the desk reads.
func (b *bench) change(f func()) {
	for _, l := range []*sync.Mutex{&b.mu, &b.source.mu, &b.target.mu, &b.shelf.mu} {
		l.Lock()
		defer l.Unlock()
	}
	f()
}

func (b *bench) record() desk.Record {
	b.Helper()
	r, err := desk.RecordOf(b.shelf.State(), "health")
	if err != nil {
		b.Fatal(err)
	}
	return r
}

func (b *bench) findings() []desk.Tracked {
	b.Helper()
	all, err := desk.Findings(b.shelf.State(), "health")
	if err != nil {
		b.Fatal(err)
	}
	return all
}

// wait lets time pass.
func (b *bench) wait(d time.Duration) {
	time.Sleep(d) // the bubble's clock: nothing waits
	synctest.Wait()
}

func (b *bench) states(want map[desk.State]int) {
	b.Helper()
	got := make(map[desk.State]int)
	for _, f := range b.findings() {
		got[f.State]++
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		b.Errorf("findings %v, want %v", got, want)
	}
}

func TestFromTheCutoverToTheLastFinding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.rotate()
		b.set.React = desk.ReactLock
		b.start("one")
		defer func() { b.stop() }()
		b.wait(time.Minute)
		if r := b.record(); r.Last != nil || r.Running != nil {
			t.Fatalf("compared without a cutover: %+v", r)
		}
		if c := b.desk.Counts(); len(c.Results) != 1 || c.Results[0].Age != -1 || c.Compared != 0 || len(c.Open) != len(verify.Kinds()) || c.Open[verify.Crossed] != 0 {
			t.Errorf("figures before anything was compared: %+v", c)
		}
		b.change(func() { b.cutover = "op1" })
		b.wait(time.Minute)
		r := b.record()
		if r.Last == nil || r.Last.Cause != desk.Widened || r.Last.Mode != desk.Full || r.Full == nil || r.Last.Compared != mailboxes || r.Running != nil || r.Last.Operation != "op1" {
			t.Fatalf("a minute after the cutover: %+v", r.Last)
		}
		b.states(map[desk.State]int{desk.Found: mailboxes})
		c := b.desk.Counts()
		if c.Open[verify.Crossed] != mailboxes || c.Open[verify.Missing] != 0 || c.Running != 0 || c.Done != 2 || c.Failed != 0 || c.Compared != uint64(3+mailboxes) || c.Unreadable != 0 {
			t.Errorf("figures after a sample of 3 and all %d: %+v", mailboxes, c)
		}
		if age := c.Results[0].Age; age < 0 || age > time.Minute {
			t.Errorf("the last result is %s old", age)
		}
		for _, f := range b.findings() {
			var holder, owner int
			fmt.Sscanf(string(f.Address), "user%d@", &holder)
			fmt.Sscanf(string(f.OwnerAddress), "user%d@", &owner)
			if f.Kind != verify.Crossed || holder != (owner+1)%mailboxes {
				t.Errorf("finding %+v", f)
			}
		}
		// Once for the sample and, as nothing in this table shows the lock, once for the rest.
		if len(b.locked) != 2 || !slices.Equal(b.alarms.keys(), []string{"crossed-mailboxes/health"}) {
			t.Errorf("locked for %v, alarms %v", b.locked, b.alarms.keys())
		}
		refused := b.desk.Check(t.Context(), &operation.Plan{Kind: operation.Cutover, Agencies: []operation.PlanAgency{{ID: "health"}}})
		if len(refused) != 1 || refused[0].OK || refused[0].Informs {
			t.Errorf("a plan says %+v", refused)
		}
		if open := b.desk.Open("health"); len(open) != 1 || !strings.Contains(open[0], "12 findings") {
			t.Errorf("open: %v", open)
		}

		// Somebody says so, but it isn't true.
		var marks []desk.Mark
		for _, f := range b.findings() {
			marks = append(marks, desk.Mark{Finding: f.ID, State: desk.Removed, Who: "Anna Berg", Reason: "moved back"})
		}
		if _, err := b.desk.Mark(t.Context(), append(marks, desk.Mark{Finding: "none", State: desk.Removed})); !errors.Is(err, desk.ErrNoFinding) {
			t.Errorf("a finding that isn't there: %v", err)
		}
		b.states(map[desk.State]int{desk.Found: mailboxes})
		if out, err := b.desk.Mark(t.Context(), marks); err != nil || len(out) != mailboxes {
			t.Fatal(out, err)
		}
		b.wait(time.Minute)
		b.states(map[desk.State]int{desk.Found: mailboxes})
		if f := b.findings()[0]; f.Again != 1 || f.Who != "Anna Berg" {
			t.Errorf("found again: %+v", f)
		}
		if len(b.locked) != 2 {
			t.Errorf("looking again locks: %v", b.locked) // who unlocked it meanwhile knew why
		}

		b.right()
		if _, err := b.desk.Mark(t.Context(), marks[:5]); err != nil {
			t.Fatal(err)
		}
		b.wait(time.Minute)
		b.states(map[desk.State]int{desk.Found: mailboxes - 5, desk.Confirmed: 5})
		if r := b.record(); r.Last.Mode != desk.Full {
			t.Errorf("looking again counts as a comparison: %+v", r.Last)
		}
		if _, err := b.desk.Begin(t.Context(), desk.Order{Agencies: []routing.AgencyID{"health"}, Mode: desk.Full, Who: "Anna Berg", Reason: "all is back"}); err != nil {
			t.Fatal(err)
		}
		b.wait(time.Minute)
		b.states(map[desk.State]int{desk.Confirmed: mailboxes})
		if keys, open := b.alarms.keys(), b.desk.Open("health"); len(keys)+len(open) != 0 {
			t.Errorf("alarms %v, open %v", keys, open)
		}
		b.wait(65 * time.Minute)
		if open := b.desk.Open("health"); len(open) != 1 || !strings.Contains(open[0], "longer ago") {
			t.Errorf("after an hour: %v", open)
		}
	})
}

// A lock that doesn't succeed has an alarm until it does; and none is made any more once people
// have locked the agency, rolled it back, or seen to what was found.
func TestLockThatFails(t *testing.T) {
	for name, c := range map[string]struct {
		err error
		end func(b *bench, a *routing.Agency)
		two int // locks afterwards
	}{
		"it succeeds":        {err: table.ErrUnavailable, end: func(b *bench, _ *routing.Agency) { b.change(func() { b.lock = nil }) }, two: 1},
		"its time is over":   {err: context.DeadlineExceeded, end: func(b *bench, _ *routing.Agency) { b.change(func() { b.lock = nil }) }, two: 1},
		"people have locked": {err: table.ErrUnavailable, end: func(_ *bench, a *routing.Agency) { a.Locked = true }},
		"it was rolled back": {err: table.ErrUnavailable, end: func(_ *bench, a *routing.Agency) { a.Phase = routing.PhaseSource }},
		"people have dismissed": {err: table.ErrUnavailable, end: func(b *bench, _ *routing.Agency) {
			var marks []desk.Mark
			for _, f := range b.findings() {
				marks = append(marks, desk.Mark{Finding: f.ID, State: desk.Dismissed, Who: "Anna Berg", Reason: "one team"})
			}
			if _, err := b.desk.Mark(b.Context(), marks); err != nil {
				b.Error(err)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				b.rotate()
				b.set.React, b.lock = desk.ReactLock, c.err
				b.start("one")
				defer func() { b.stop() }()
				b.change(func() { b.cutover = "op1" })
				b.wait(3 * time.Minute)
				for range 10 { // whenever one looks
					b.wait(3 * time.Second)
					if !slices.Contains(b.alarms.keys(), "verify-lock/health") {
						t.Fatalf("alarms %v while it isn't locked", b.alarms.keys())
					}
				}
				a, _ := b.shelf.State().Agency("health")
				was := a
				if c.end(b, &a); a != was {
					b.change(func() { must(t, b.shelf.apply(routing.Update{Agencies: []routing.Agency{a}})) })
				}
				b.wait(3 * time.Minute)
				if r := b.record(); r.Lock || len(b.locked) != c.two || slices.Contains(b.alarms.keys(), "verify-lock/health") {
					t.Errorf("to be locked: %v, locked for %q, alarms %v", r.Lock, b.locked, b.alarms.keys())
				}
				b.change(func() { b.lock = nil; must(t, b.shelf.apply(routing.Update{Agencies: []routing.Agency{was}})) })
				b.wait(3 * time.Minute)
				if len(b.locked) != c.two {
					t.Errorf("as it was before, it is locked for %q", b.locked)
				}
			})
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

// TestComparedSinceTheCutover: what was compared before, or couldn't be read, doesn't end the way back.
func TestComparedSinceTheCutover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.change(func() { b.cutover = "op1" })
		b.start("one")
		defer func() { b.stop() }()
		b.wait(time.Minute)
		if open := b.desk.Open("health"); open != nil {
			t.Errorf("compared: %v", open)
		}
		b.change(func() { b.cutover, b.set.AfterCutover = "op2", false })
		if open := b.desk.Open("health"); len(open) != 1 || !strings.Contains(open[0], "before the last cutover") {
			t.Errorf("cut over again: %v", open)
		}
		b.change(func() { b.target.fail, b.set.AfterCutover = mailstore.ErrNoMailbox, true })
		b.wait(time.Minute)
		if open := b.desk.Open("health"); len(open) != 1 || !strings.Contains(open[0], "none of 3 mailboxes could be read") {
			t.Errorf("nothing could be read: %v", open)
		}
		if all := b.desk.Check(t.Context(), &operation.Plan{Kind: operation.Cutover, Agencies: []operation.PlanAgency{{ID: "health"}}}); len(all) != 1 || !all[0].Informs {
			t.Errorf("nothing could be read: %+v", all)
		}
	})
}

// TestDismissed: what is as it should be alarms no more, until it grows.
func TestDismissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.start("one")
		defer func() { b.stop() }()
		full := func() {
			t.Helper()
			if _, err := b.desk.Begin(t.Context(), desk.Order{Agencies: []routing.AgencyID{"health"}, Mode: desk.Full, Who: "Anna Berg", Reason: "x"}); err != nil {
				t.Fatal(err)
			}
			b.wait(time.Minute)
		}
		give := func(n int) { // messages of the second mailbox to the first
			b.right()
			me := string(address(0))
			b.change(func() {
				b.target.messages[me] = append(b.target.messages[me], b.source.messages[string(address(1))][:n]...)
			})
		}
		give(6)
		full()
		b.states(map[desk.State]int{desk.Found: 1})
		id := b.findings()[0].ID
		if _, err := b.desk.Mark(t.Context(), []desk.Mark{{Finding: id, State: desk.Dismissed, Who: "Anna Berg", Reason: "her delegate"}}); err != nil {
			t.Fatal(err)
		}
		b.wait(time.Minute)
		full()
		b.states(map[desk.State]int{desk.Dismissed: 1})
		if keys, open := b.alarms.keys(), b.desk.Open("health"); len(keys)+len(open) != 0 {
			t.Errorf("alarms %v, open %v", keys, open)
		}
		b.change(func() {
			her := string(address(1))
			b.source.messages[her] = append(b.source.messages[her], 150, 151, 152, 153, 154, 155, 156, 157)
		})
		give(18)
		full()
		b.states(map[desk.State]int{desk.Found: 1})
	})
}

// TestAComparisonOutlivesItsNode: the next life of the node goes on with it, and so does
// another node, once the first has been silent.
func TestAComparisonOutlivesItsNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.start("one")
		b.target.wait = make(chan struct{})
		run, err := b.desk.Begin(t.Context(), desk.Order{Agencies: []routing.AgencyID{"health"}, Mode: desk.Full, Who: "Anna Berg", Reason: "x"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.desk.Begin(t.Context(), desk.Order{Agencies: []routing.AgencyID{"health"}, Mode: desk.Full, Who: "Ben", Reason: "x"}); !errors.Is(err, desk.ErrRunning) {
			t.Errorf("a second one: %v", err)
		}
		b.wait(10 * time.Minute)
		if r := b.record().Running; r == nil || r.Run != run || time.Since(r.Beat) > time.Minute {
			t.Fatalf("under way: %+v", r)
		}
		b.stop()
		if r := b.record().Running; r == nil || r.Run != run {
			t.Fatalf("after the node's stop: %+v", r)
		}
		b.start("one")
		b.wait(10 * time.Second)
		again := b.record().Running
		if again == nil || again.Run == run || again.Who != "Anna Berg" {
			t.Fatalf("after its next start: %+v", again)
		}
		b.stop()
		b.start("two")
		b.wait(time.Minute)
		if r := b.record().Running; r.Node != "one" {
			t.Fatalf("taken over at once: %+v", r)
		}
		close(b.target.wait)
		b.wait(6 * time.Minute)
		if r := b.record(); r.Running != nil || r.Last == nil || r.Last.Node != "two" || r.Last.Mode != desk.Full || r.Last.Who != "Anna Berg" {
			t.Errorf("at last: %+v, %+v", r.Running, r.Last)
		}
		b.stop()
	})
}

// TestWhatFailsIsTriedAgain: with pauses, and an alarm; and not for ever.
func TestWhatFailsIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.source.fail = mailstore.ErrUnavailable
		b.change(func() { b.cutover = "op1" })
		b.start("one")
		defer func() { b.stop() }()
		b.wait(time.Minute)
		if tr := b.record().Trouble; tr == nil || tr.Tries != 1 || len(b.alarms.keys()) != 0 {
			t.Fatalf("after the first time: %+v", tr)
		}
		b.wait(30 * time.Minute)
		if tr := b.record().Trouble; tr == nil || tr.Tries != 5 || !slices.Equal(b.alarms.keys(), []string{"verify-failed/health"}) {
			t.Fatalf("after half an hour: %+v, alarms %v", tr, b.alarms.keys())
		}
		b.change(func() { b.source.fail, b.shelf.fail = nil, table.ErrUnavailable })
		if _, err := b.desk.Begin(t.Context(), desk.Order{Agencies: []routing.AgencyID{"health"}, Mode: desk.Sample, Who: "Anna Berg", Reason: "x"}); err != nil {
			t.Fatal(err)
		}
		b.wait(time.Minute)
		if r := b.record(); r.Trouble != nil || r.Last == nil || r.Last.Compared != 3 || len(b.alarms.keys()) != 0 {
			t.Errorf("at last: %+v, alarms %v", r.Last, b.alarms.keys())
		}
		b.change(func() { b.set.Every = time.Hour })
		b.wait(65 * time.Minute)
		if r := b.record(); r.Last.Cause != desk.BySchedule {
			t.Errorf("an hour later: %+v", r.Last)
		}
	})
}

// TestDetails: each mailbox's numbers and each finding's messages lie on the node.
func TestDetails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.rotate()
		b.start("one")
		defer func() { b.stop() }()
		for range 2 {
			if _, err := b.desk.Begin(t.Context(), desk.Order{Agencies: []routing.AgencyID{"health"}, Mode: desk.Full, Who: "Anna Berg", Reason: "x"}); err != nil {
				t.Fatal(err)
			}
			b.wait(time.Minute)
		}
		n := 0
		if err := b.desk.Comparisons(b.record().Last.Run, "health", func(c *verify.Comparison) bool { n++; return c.Counts.Extra == 10 }); err != nil || n != mailboxes {
			t.Errorf("%d mailboxes, %v", n, err)
		}
		n = 0
		f := b.findings()[0]
		if err := b.desk.Messages(&f, func(m *verify.Message) bool { n++; return m.Address == f.Address }); err != nil || n != 10 {
			t.Errorf("%d messages, %v", n, err)
		}
		for _, run := range []string{"", "../x", "none"} {
			if err := b.desk.Comparisons(run, "health", nil); !errors.Is(err, desk.ErrNotHere) {
				t.Errorf("run %q: %v", run, err)
			}
		}
		files, err := os.ReadDir(b.dir)
		if err != nil || len(files) != 2 {
			t.Errorf("files %v, %v", files, err)
		}
	})
}

// A comparison that this node or another ended between a look and its claim isn't done again.
func TestEndedBetweenLookAndClaim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		asked := 0
		b.asked = func() {
			if asked++; asked > 1 {
				return
			}
			doc := routing.Document{Key: "verify/health", Text: `{"agency":"health","last":{"run":"r1","node":"mx2","operation":"op1","ended":"2000-01-01T00:00:00Z","compared":3,"mailboxes":12}}`}
			pos, err := b.shelf.Change(t.Context(), table.Change{ID: "t", Incarnation: "i", Term: 1, Documents: []routing.Document{doc}, Who: "mx2", What: "done", Reason: "test"})
			if err != nil {
				t.Errorf("%v: %v", pos, err)
			}
		}
		b.cutover = "op1"
		b.start("mx1")
		defer b.stop()
		b.wait(time.Minute)
		if r := b.record(); r.Last == nil || r.Last.Run != "r1" || r.Running != nil || asked == 0 {
			t.Errorf("asked %d times, last %+v, running %+v", asked, r.Last, r.Running)
		}
	})
}
