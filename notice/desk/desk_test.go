package desk

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"mailcutover/internal/alarm"
	"mailcutover/notice"
	"mailcutover/notice/outbox"
	"mailcutover/routing"
	"mailcutover/routing/localtable"
	"mailcutover/routing/table"
)

const pace = 50 * time.Millisecond

// lab is a table with an agency, and members that tell.
type lab struct {
	t  *testing.T
	tb *localtable.Table
	a  routing.Agency
	n  int // changes
}

func newLab(t *testing.T, o localtable.Options) *lab {
	t.Helper()
	tb, err := localtable.Open(t.TempDir()+"/table.db", o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tb.Close() })
	if _, err := tb.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	l := &lab{t: t, tb: tb}
	if l.a, err = routing.NewAgency("health", "exchange", "ox"); err != nil {
		t.Fatal(err)
	}
	l.set(l.a)
	return l
}

// State implements Replica by the table itself.
func (l *lab) State() *routing.State {
	u, err := l.tb.Snapshot(context.Background())
	if err != nil {
		l.t.Error(err)
		return routing.NewState(routing.Position{})
	}
	u.Whole = true
	s, err := routing.NewState(routing.Position{}).Apply(u)
	if err != nil {
		l.t.Error(err)
	}
	return s
}

// set stores the agency.
func (l *lab) set(a routing.Agency) {
	l.t.Helper()
	s := l.State()
	if is, ok := s.Agency(a.ID); ok {
		a.Revision = is.Revision
	}
	l.n++
	pos := s.Position()
	if _, err := l.tb.Change(l.t.Context(), table.Change{ID: fmt.Sprint("change-", l.n), Incarnation: pos.Incarnation, Term: pos.Term, Agencies: []routing.Agency{a}, Who: "Anna", What: "test", Reason: "wave 1"}); err != nil {
		l.t.Fatal(err)
	}
	l.a = a
}

// toggle locks or unlocks the agency: two events each.
func (l *lab) toggle() {
	l.t.Helper()
	next, err := l.a.Lock()
	if l.a.Locked {
		next, err = l.a.Unlock()
	}
	if err != nil {
		l.t.Fatal(err)
	}
	l.set(next)
}

// member lets a node renew; life is that of its leases, 0 gives them up.
func (l *lab) member(node routing.NodeID, life time.Duration) {
	l.t.Helper()
	pos := l.State().Position()
	if _, err := l.tb.Renew(l.t.Context(), table.Renewal{Incarnation: pos.Incarnation, Member: routing.Member{Node: node, Instance: routing.InstanceID(node) + "-1", Protocol: table.Protocol},
		Short: life, Long: 2 * life, Term: pos.Term, Applied: pos.Revision}); err != nil {
		l.t.Fatal(err)
	}
}

// receiver is who is told.
type receiver struct {
	mu     sync.Mutex
	got    []notice.Event
	calls  int
	refuse error
}

func (r *receiver) send(_ context.Context, events []notice.Event) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls++
	if r.refuse != nil {
		return r.refuse
	}
	r.got = append(r.got, events...)
	return nil
}

func (r *receiver) set(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refuse = err
}

func (r *receiver) state() (types []notice.Type, calls int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.got {
		types = append(types, r.got[i].Type)
	}
	return types, r.calls
}

// once fails if an event was told twice.
func (r *receiver) once(t *testing.T) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	seen := make(map[string]bool)
	for i := range r.got {
		if seen[r.got[i].ID] {
			t.Errorf("event %s %s was told twice", r.got[i].Type, r.got[i].ID)
		}
		seen[r.got[i].ID] = true
	}
}

func (r *receiver) channel(f notice.Filter) *Channel {
	return &Channel{Name: "ops", Kind: "test", Filter: f, Most: 1, Timeout: time.Minute, Send: r.send}
}

// desk runs a desk in a directory until stop.
func (l *lab) desk(node routing.NodeID, dir string, alarms *alarm.Set, limit int, channels ...*Channel) (d *Desk, stop func()) {
	l.t.Helper()
	d, err := New(Options{Node: node, Installation: "lab", Table: l.tb, Replica: l, Alarms: alarms, Dir: dir, Limit: limit, Logger: slog.New(slog.DiscardHandler), Pace: pace})
	if err != nil {
		l.t.Fatal(err)
	}
	d.Configure(channels)
	stop = l.run(d)
	eventually(l.t, "the table is followed", func() bool {
		known, ok := d.box.Known()
		return ok && known.Revision == l.State().Position().Revision || len(channels) == 0
	})
	return d, stop
}

// run runs a desk until stop, which closes it.
func (l *lab) run(d *Desk) (stop func()) {
	ctx, cancel := context.WithCancel(l.t.Context())
	var running sync.WaitGroup
	running.Go(func() { d.Run(ctx) })
	stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
		if err := d.Close(); err != nil {
			l.t.Error(err)
		}
	})
	l.t.Cleanup(stop)
	return stop
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within two minutes: %s", what)
		}
	}
}

func (r *receiver) has(t *testing.T, want ...notice.Type) {
	t.Helper()
	var got []notice.Type
	defer func() {
		if t.Failed() {
			t.Logf("told: %v", got)
		}
	}()
	eventually(t, fmt.Sprint("told of ", want), func() bool { got, _ = r.state(); return slices.Equal(got, want) })
}

var locked, unlocked = []notice.Type{notice.AgencyLocked, notice.AgencyClosed}, []notice.Type{notice.AgencyUnlocked, notice.AgencyOpened}

// What happens while a node is down, or between an event and its sending, is told later, once.
func TestGoesOnAfterARestart(t *testing.T) {
	l, r, alarms, dir := newLab(t, localtable.Options{}), new(receiver), alarm.NewSet(nil), t.TempDir()
	l.member("mx1", time.Hour)
	only := notice.Filter{Types: []string{"agency.*"}}
	_, stop := l.desk("mx1", dir, alarms, 0, r.channel(only))
	if got, _ := r.state(); got != nil {
		t.Errorf("told of the past: %v", got)
	}
	l.toggle()
	r.has(t, locked...)
	r.set(errors.New("receiver is away"))
	l.toggle()
	eventually(t, "an alarm that the receiver is away", func() bool {
		return slices.ContainsFunc(alarms.List(), func(a alarm.Alarm) bool { return a.Key == "notices-failing/ops" })
	})
	stop()
	l.toggle() // nobody sees it
	r.set(nil)
	d, stop := l.desk("mx1", dir, alarms, 0, r.channel(only))
	r.has(t, slices.Concat(locked, unlocked, locked)...)
	r.once(t)
	eventually(t, "no alarm", func() bool { return alarms.Len() == 0 })

	// Another channel begins with the present; one that goes is forgotten.
	other := new(receiver)
	second := other.channel(only)
	second.Name = "second"
	d.Configure([]*Channel{r.channel(only), second})
	eventually(t, "both channels are there", func() bool { s, err := d.Status(); return err == nil && len(s) == 2 && d.sender("second") })
	l.toggle()
	r.has(t, slices.Concat(locked, unlocked, locked, unlocked)...)
	other.has(t, unlocked...)
	if e, err := d.Test(t.Context(), "second", "Anna", "is it there?"); err != nil || e.Type != notice.Test {
		t.Errorf("test: %v", err)
	}
	other.has(t, append(slices.Clone(unlocked), notice.Test)...)
	if _, err := d.Test(t.Context(), "nobody", "Anna", "x"); !errors.Is(err, ErrNoChannel) {
		t.Errorf("test of nobody: %v", err)
	}
	stop()
	if _, ok := l.State().Document(SentKey); ok {
		t.Error("a node that is alone wrote what it told into the table")
	}
}

func (d *Desk) sender(name string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.senders[name] != nil
}

// Of two nodes one tells; the other goes on when its lease is over, and only its own alarms before.
func TestTurns(t *testing.T) {
	l := newLab(t, localtable.Options{})
	l.member("mx1", time.Hour)
	l.member("mx2", time.Hour)
	first, second, alarms := new(receiver), new(receiver), alarm.NewSet(nil)
	all := notice.Filter{Types: []string{"agency.*", "alarm.raised"}}
	d1, stop1 := l.desk("mx1", t.TempDir(), alarm.NewSet(nil), 0, first.channel(all))
	d2, _ := l.desk("mx2", t.TempDir(), alarms, 0, second.channel(all))
	eventually(t, "mx1's turn", d1.myTurn)
	l.toggle()
	l.toggle()
	first.has(t, slices.Concat(locked, unlocked)...)
	alarms.Raise("drift/health", "it has drifted")
	second.has(t, notice.AlarmRaised)
	eventually(t, "the table says what was told", func() bool { _, ok := l.State().Document(SentKey); return ok })
	eventually(t, "mx2 knows what was told", func() bool { list, err := d2.box.Next("ops", outbox.Table, 10); return err == nil && len(list) == 0 })
	if d2.myTurn() {
		t.Error("both nodes tell")
	}

	// It is killed between an event and its sending: its lease runs out, or it is given up.
	first.set(errors.New("killed"))
	l.toggle()
	eventually(t, "mx1 tries", func() bool { _, calls := first.state(); return calls > 4 })
	stop1()
	l.member("mx1", 0)
	second.has(t, append([]notice.Type{notice.AlarmRaised}, locked...)...)
	first.once(t)
	second.once(t)
	eventually(t, "mx2 says that it has told all", func() bool {
		s, err := d2.Status()
		return err == nil && len(s) == 1 && s[0].Teller == "mx2" && s[0].Waiting == 0 && s[0].Told == 3
	})
}

// A log that doesn't reach back, and more events than are kept, are said.
func TestGapAndLimit(t *testing.T) {
	l, r, alarms, dir := newLab(t, localtable.Options{LogLength: 3}), new(receiver), alarm.NewSet(nil), t.TempDir()
	l.member("mx1", time.Hour)
	only := notice.Filter{Types: []string{"agency.*", "table.gap"}}
	_, stop := l.desk("mx1", dir, alarms, 0, r.channel(only))
	stop()
	for range 7 {
		l.toggle()
	}
	_, stop = l.desk("mx1", dir, alarms, 0, r.channel(only))
	r.has(t, append([]notice.Type{notice.TableGap}, locked...)...)
	r.set(errors.New("receiver is away"))
	stop()
	d, _ := l.desk("mx1", dir, alarms, 4, r.channel(only))
	for range 5 {
		l.toggle()
		eventually(t, "it is followed", func() bool {
			known, ok := d.box.Known()
			return ok && known.Revision == l.State().Position().Revision
		})
	}
	eventually(t, "an alarm that events are dropped", func() bool {
		return slices.ContainsFunc(alarms.List(), func(a alarm.Alarm) bool { return a.Key == "notices-dropped/ops" && a.Count >= 3 })
	})
	eventually(t, "the status says so", func() bool {
		s, err := d.Status()
		return err == nil && s[0].Waiting == 4 && s[0].Failure != ""
	})
}

// An event is given up after a day of attempts, however the clock is set; one that its receiver
// refuses, after five. Bundles have a minute between them.
func TestPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box, err := outbox.Open(t.TempDir(), 100)
		if err != nil {
			t.Fatal(err)
		}
		defer box.Close()
		alarms := alarm.NewSet(nil)
		d := &Desk{o: Options{Alarms: alarms, Logger: slog.New(slog.DiscardHandler), Pace: DefaultPace, Limit: 100}, box: box, turn: true, senders: map[string]*sender{}}
		if err := box.SetChannels([]string{"ops"}); err != nil {
			t.Fatal(err)
		}
		put := func(names ...string) {
			var events []notice.Event
			for _, name := range names {
				events = append(events, notice.NewAlarm("lab", "mx1", notice.AlarmRaised, name, "text", time.Now(), time.Now()))
			}
			d.put(t.Context(), outbox.Addition{Stream: outbox.Node, Events: events})
		}
		r := new(receiver)
		c := r.channel(notice.Filter{})
		s := newSender(d, c)
		d.senders["ops"] = s
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { s.run(ctx) })
		defer running.Wait()
		defer cancel()

		r.set(errors.New("away"))
		put("one")
		began := time.Now()
		for !slices.ContainsFunc(alarms.List(), func(a alarm.Alarm) bool { return a.Key == "notices-refused/ops" }) {
			time.Sleep(time.Minute)
		}
		_, calls := r.state()
		if took := time.Since(began); took < 24*time.Hour || took > 25*time.Hour || calls < 90 || calls > 120 {
			t.Errorf("given up after %s, %d attempts", took, calls)
		}
		alarms.Clear("notices-refused/ops")
		r.set(fmt.Errorf("no: %w", notice.ErrRejected))
		began = time.Now()
		put("two")
		for !slices.ContainsFunc(alarms.List(), func(a alarm.Alarm) bool { return a.Key == "notices-refused/ops" }) {
			time.Sleep(time.Second)
		}
		if took := time.Since(began); took > 5*time.Minute {
			t.Errorf("a refused event was given up after %s", took)
		}
		r.set(nil)
		put("three")
		synctest.Wait()
		if got, _ := r.state(); len(got) != 1 || alarms.Len() != 1 {
			t.Errorf("told %v, alarms %v", got, alarms.List())
		}
	})
	synctest.Test(t, func(t *testing.T) {
		box, err := outbox.Open(t.TempDir(), 100)
		if err != nil {
			t.Fatal(err)
		}
		defer box.Close()
		d := &Desk{o: Options{Alarms: alarm.NewSet(nil), Logger: slog.New(slog.DiscardHandler), Pace: DefaultPace, Limit: 100}, box: box, senders: map[string]*sender{}}
		if err := box.SetChannels([]string{"ops"}); err != nil {
			t.Fatal(err)
		}
		r := new(receiver)
		c := r.channel(notice.Filter{})
		c.Most, c.Every = 100, time.Minute
		s := newSender(d, c)
		d.senders["ops"] = s
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { s.run(ctx) })
		defer running.Wait()
		defer cancel()
		for i := range 40 { // one each second
			d.put(t.Context(), outbox.Addition{Stream: outbox.Node, Events: []notice.Event{notice.NewAlarm("lab", "mx1", notice.AlarmRaised, fmt.Sprint(i), "text", time.Now(), time.Now())}})
			time.Sleep(time.Second)
		}
		time.Sleep(2 * time.Minute)
		if got, calls := r.state(); len(got) != 40 || calls != 2 {
			t.Errorf("%d events in %d letters", len(got), calls)
		}
		r.once(t)
	})
}
