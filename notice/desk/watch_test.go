package desk

import (
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	bolt "go.etcd.io/bbolt"

	"mailcutover/internal/alarm"
	"mailcutover/notice"
	"mailcutover/notice/outbox"
	"mailcutover/routing"
	"mailcutover/routing/localtable"
	"mailcutover/routing/table"
)

// watched is a node that looks at what no change says.
type watched struct {
	t    *testing.T
	box  *outbox.Box
	w    *watch
	told int // events that were looked at
}

func newWatched(t *testing.T, node routing.NodeID) *watched {
	t.Helper()
	box, err := outbox.Open(t.TempDir(), 100)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = box.Close() })
	if err := box.SetChannels([]string{"ops"}); err != nil {
		t.Fatal(err)
	}
	d := &Desk{o: Options{Node: node, Installation: "lab", Alarms: alarm.NewSet(nil), Logger: slog.New(slog.DiscardHandler), Pace: DefaultPace}, box: box, senders: map[string]*sender{}}
	w := &watched{t: t, box: box, w: &watch{Desk: d, since: map[string]time.Time{}}}
	w.put(notice.Record{Key: "x"})
	return w
}

func (w *watched) put(r ...notice.Record) {
	w.t.Helper()
	if _, err := w.box.Put(outbox.Addition{Stream: outbox.Table, Known: &outbox.Known{Incarnation: "test"}, Records: r}); err != nil {
		w.t.Fatal(err)
	}
}

// look has the node look, and returns the types and ids of what it tells for that.
func (w *watched) look(n *table.Nodes, teller routing.NodeID) (types []notice.Type, ids []string) {
	w.t.Helper()
	n.Time = time.Now()
	if !w.w.look(w.t.Context(), &glance{nodes: n, teller: teller, turn: teller == w.w.o.Node}) {
		w.t.Error("the look wasn't kept")
	}
	list, err := w.box.Next("ops", outbox.Node, 100)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, e := range list[w.told:] {
		types, ids = append(types, e.Event.Type), append(ids, e.Event.ID)
	}
	w.told = len(list)
	return types, ids
}

// TestNodesThatStop: what becomes of another node is told once, by the node whose turn it is, or by the
// next one if that one is gone before it was told; under one id.
func TestNodesThatStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		teller, other := newWatched(t, "mx1"), newWatched(t, "mx2")
		n := &table.Nodes{Leases: map[routing.NodeID]table.Lease{}}
		for _, id := range []routing.NodeID{"mx1", "mx2", "mx3"} {
			n.Members = append(n.Members, routing.Member{Node: id, Instance: routing.InstanceID(id) + "-1"})
		}
		counter := uint64(0)
		renew := func(life time.Duration) {
			counter++
			now := time.Now()
			n.Leases["mx3"] = table.Lease{Node: "mx3", Instance: "mx3-1", Counter: counter, ShortEnd: now.Add(life), LongEnd: now.Add(2 * life)}
		}
		both := func(what string, want ...notice.Type) {
			t.Helper()
			if got, _ := teller.look(n, "mx1"); !slices.Equal(got, want) {
				t.Errorf("%s: mx1 tells %v, want %v", what, got, want)
			}
			if got, _ := other.look(n, "mx1"); got != nil {
				t.Errorf("%s: mx2 tells %v, and it isn't its turn", what, got)
			}
		}
		both("no lease yet")
		renew(time.Minute)
		both("seen first")
		renew(0)
		both("stopped", notice.NodeStopped)
		both("looked at again")
		time.Sleep(2 * time.Minute)
		both("mx2 takes it as told")
		renew(time.Minute)
		both("it has started, and says so itself")
		time.Sleep(time.Minute + missingAfter/2)
		both("late")
		time.Sleep(missingAfter)
		both("missing", notice.NodeMissing)
		renew(time.Minute)
		both("back", notice.NodeSeen)
		time.Sleep(2 * time.Minute) // and missing again
		_, first := teller.look(n, "mx1")
		// mx1 is gone before anybody was told, and its own absence counts too.
		types, again := other.look(n, "mx2")
		if !slices.Contains(types, notice.NodeMissing) || len(first) != 1 || !slices.Contains(again, first[0]) {
			t.Errorf("mx2 tells %v with ids %v; mx1 had %v", types, again, first)
		}
		if got, _ := other.look(n, "mx2"); got != nil {
			t.Errorf("told once more: %v", got)
		}
		n.Members[2].Evicted = true
		both("people have evicted it")
		if f := teller.box.Facts(notice.LeaseKey + "mx3"); f != nil {
			t.Errorf("still known: %v", f)
		}
	})
}

// TestExpiredProposals: that a proposal's time is over is told once, but of one that was used, and of those
// of long ago.
func TestExpiredProposals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, other := newWatched(t, "mx1"), newWatched(t, "mx2")
		in := func(d time.Duration) string { return time.Now().Add(d).UTC().Format(time.RFC3339) }
		for _, one := range []*watched{w, other} {
			one.put(
				notice.Record{Key: "proposal/open", Facts: notice.Facts{"proposal": "open", "kind": "cutover", "agency": "health", "expires": in(time.Hour)}},
				notice.Record{Key: "proposal/used", Facts: notice.Facts{"proposal": "used", "expires": in(time.Hour), "end": "used"}},
				notice.Record{Key: "proposal/long-over", Facts: notice.Facts{"proposal": "long-over", "expires": in(-2 * expiredLong)}},
			)
		}
		n := &table.Nodes{}
		if got, _ := w.look(n, "mx1"); got != nil {
			t.Errorf("before its time: %v", got)
		}
		time.Sleep(time.Hour + time.Second)
		got, ids := w.look(n, "mx1")
		if !slices.Equal(got, []notice.Type{notice.ProposalExpired}) {
			t.Fatalf("told %v", got)
		}
		list, err := w.box.Next("ops", outbox.Node, 1)
		if err != nil || list[0].Event.Title(notice.English) != "proposal open: cutover of health was not used in time" {
			t.Errorf("it says %q, %v", list[0].Event.Title(notice.English), err)
		}
		if got, _ := w.look(n, "mx1"); got != nil {
			t.Errorf("told twice: %v", got)
		}
		if got, _ := other.look(n, "mx1"); got != nil {
			t.Errorf("told by another node: %v", got)
		}
		if _, same := other.look(n, "mx2"); !slices.Equal(same, ids) {
			t.Errorf("the next one's ids are %v, want %v", same, ids)
		}
		w.put(notice.Record{Key: "proposal/open"}) // removed
		if got, _ := w.look(n, "mx1"); got != nil || w.box.Facts(notice.ExpiredKey+"open") != nil {
			t.Errorf("of a proposal that is gone: %v, %v", got, w.box.Facts(notice.ExpiredKey+"open"))
		}
	})
}

// TestStartIsTold once, whatever channels come and go.
func TestStartIsTold(t *testing.T) {
	l, r := newLab(t, localtable.Options{}), new(receiver)
	l.member("mx1", time.Hour)
	d, err := New(Options{Node: "mx1", Installation: "lab", Table: l.tb, Replica: l, Alarms: alarm.NewSet(nil), Dir: t.TempDir(), Logger: slog.New(slog.DiscardHandler), Pace: pace, Started: time.Now(), Build: "1.2"})
	if err != nil {
		t.Fatal(err)
	}
	only := notice.Filter{Types: []string{"node.started", "notice.test"}}
	d.Configure([]*Channel{r.channel(only)})
	stop := l.run(d)
	defer stop()
	r.has(t, notice.NodeStarted)
	other := r.channel(only)
	other.To = "elsewhere"
	d.Configure([]*Channel{other})
	eventually(t, "the other channel is there", func() bool { s, err := d.Status(); return err == nil && len(s) == 1 && s[0].To == "elsewhere" })
	if _, err := d.Test(t.Context(), "ops", "Anna", "is it there?"); err != nil {
		t.Error(err)
	}
	r.has(t, notice.NodeStarted, notice.Test)
}

// TestDamagedEventKeepsNothing from being told: it is named by an alarm, and those behind it go.
func TestDamagedEventKeepsNothing(t *testing.T) {
	l, r, alarms, dir := newLab(t, localtable.Options{}), new(receiver), alarm.NewSet(nil), t.TempDir()
	l.member("mx1", time.Hour)
	only := notice.Filter{Types: []string{"agency.*"}}
	_, stop := l.desk("mx1", dir, alarms, 0, r.channel(only))
	r.set(errors.New("receiver is away"))
	l.toggle()
	eventually(t, "it is tried", func() bool { _, calls := r.state(); return calls > 0 })
	stop()
	db, err := bolt.Open(filepath.Join(dir, "outbox.db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Update(func(tx *bolt.Tx) error {
		events := tx.Bucket([]byte("events-table"))
		key, _ := events.Cursor().First()
		return events.Put(key, []byte("{spoilt"))
	}); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	r.set(nil)
	l.desk("mx1", dir, alarms, 0, r.channel(only))
	r.has(t, locked[1:]...)
	eventually(t, "an alarm", func() bool {
		return slices.ContainsFunc(alarms.List(), func(a alarm.Alarm) bool { return a.Key == "notices-refused/ops" })
	})
}
