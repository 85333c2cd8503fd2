package redistable

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

// sentinels are the errors that tell one refusal from another.
var sentinels = []error{table.ErrIncarnation, table.ErrRejoining, table.ErrTerm, table.ErrGuard, table.ErrEvicted, table.ErrInstance,
	table.ErrNotMember, table.ErrStale, table.ErrUnavailable, table.ErrBadChange, table.ErrReused, table.ErrEmpty}

func class(err error) error {
	for _, s := range sentinels {
		if errors.Is(err, s) {
			return s
		}
	}
	return err
}

// oracle runs the rules in Go beside those in Lua, at the same moments.
type oracle struct {
	t        *testing.T
	rand     *rand.Rand
	tb       *Table
	mini     *mini
	setTime  func(time.Time)
	now      time.Time
	server   table.Server
	servers  int
	book     *table.Book
	agencies map[routing.AgencyID]routing.Agency
	freezes  map[routing.AgencyID]routing.Freeze
	changes  int
	seen     map[string]int // outcomes
}

// TestScriptsDoAsTheBook runs random renewals, changes and checks, by right and by wrong
// nodes, with servers that change and time that passes, against the scripts and against
// table.Book.
func TestScriptsDoAsTheBook(t *testing.T) {
	total := map[string]int{}
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			for outcome, n := range runOracle(t, seed, 600) {
				total[outcome] += n
			}
		})
	}
	t.Log(total)
	// A run in which something never happens holds nobody to it.
	for _, kind := range []string{"renew", "change", "check"} {
		for _, want := range []error{nil, table.ErrRejoining, table.ErrIncarnation} {
			if name := fmt.Sprint(kind, " ", want); total[name] == 0 && name != fmt.Sprint("renew ", table.ErrRejoining) {
				t.Errorf("never happened: %s", name)
			}
		}
	}
	for _, name := range []error{table.ErrTerm, table.ErrGuard, table.ErrStale} {
		if total[fmt.Sprint("change ", name)] == 0 {
			t.Errorf("never happened: change %v", name)
		}
	}
	for _, name := range []error{table.ErrEvicted, table.ErrInstance, table.ErrStale} {
		if total[fmt.Sprint("renew ", name)] == 0 {
			t.Errorf("never happened: renew %v", name)
		}
	}
	for _, what := range []string{"rejoined", "behind", "above", "guarded", "fenced", "evicted", "names lost", "another instance", "rejoin by a node without its name"} {
		if total[what] == 0 {
			t.Errorf("never happened: %s", what)
		}
	}
}

func runOracle(t *testing.T, seed uint64, steps int) map[string]int {
	m := startMini(t)
	o := &oracle{
		t: t, rand: rand.New(rand.NewPCG(seed, 1)), now: time.Unix(1_700_000_000, 0).UTC(),
		agencies: map[routing.AgencyID]routing.Agency{}, freezes: map[routing.AgencyID]routing.Freeze{}, seen: map[string]int{},
		setTime: m.SetTime, mini: m,
	}
	o.move(false)
	o.setTime(o.now)
	o.tb = open(t, Options{URL: "redis://" + m.Addr()})
	pos, err := o.tb.Init(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	o.book = table.NewBook(pos, o.server, o.now)
	for step := range steps {
		switch n := o.rand.IntN(100); {
		case n == 0:
			o.move(o.rand.IntN(2) == 0)
		case n < 10:
			o.now = o.now.Add(time.Duration(o.rand.IntN(40)) * time.Second)
			o.setTime(o.now)
		case n < 55:
			o.renew()
		case n < 85:
			o.change()
		default:
			o.check()
		}
		o.compare(step)
		if t.Failed() {
			t.FailNow()
		}
	}
	return o.seen
}

// move lets another server answer: the former's replica, or one of another history.
func (o *oracle) move(promoted bool) {
	o.servers++
	former := ""
	if promoted {
		former = o.server.Replication
	}
	o.mini.become(o.servers, former)
	o.server = *o.mini.server.Load()
}

func (o *oracle) agency(id routing.AgencyID) (routing.Agency, bool) {
	a, ok := o.agencies[id]
	return a, ok
}

func pick[T any](o *oracle, values ...T) T { return values[o.rand.IntN(len(values))] }

func (o *oracle) often(percent int) bool { return o.rand.IntN(100) < percent }

func (o *oracle) node() routing.NodeID { return routing.NodeID(pick(o, "n1", "n2", "n3", "n4")) }

func (o *oracle) id() routing.AgencyID { return routing.AgencyID(pick(o, "a", "b", "c")) }

// instance is mostly the one that the table knows.
func (o *oracle) instance(node routing.NodeID) routing.InstanceID {
	if m, ok := o.book.Members[node]; ok && o.often(85) {
		return m.Instance
	}
	return routing.InstanceID(fmt.Sprint(node, "-", o.rand.IntN(3)))
}

func (o *oracle) incarnation() routing.Incarnation {
	if o.often(3) {
		return "another"
	}
	return o.book.Position.Incarnation
}

func (o *oracle) epochs(percent int) (all []table.AgencyEpoch) {
	for _, id := range []routing.AgencyID{"a", "b", "c"} {
		if a, ok := o.agencies[id]; ok && o.often(percent) {
			e := a.Epoch
			if o.often(5) {
				e.Number--
			}
			all = append(all, table.AgencyEpoch{Agency: id, Epoch: e})
		}
	}
	return all
}

func (o *oracle) renew() {
	node := o.node()
	r := table.Renewal{
		Incarnation: o.incarnation(),
		Member:      routing.Member{Node: node, Instance: o.instance(node), Protocol: 1 + o.rand.IntN(20)/19, Build: pick(o, "x", "x", "x", "y"), Address: "h:1"},
		Short:       2 * time.Second, Long: 10 * time.Second, Lapsed: o.often(30),
		Term: o.book.Position.Term, Applied: o.book.Position.Revision, Replication: pick(o, o.server.Former, o.server.Replication, o.book.Prior, o.book.Replication, "", pick(o, "", "", "", "0123")),
		Drained: o.epochs(90),
	}
	r.Member.ClockRuns = node != "n2" || o.often(50)
	if o.often(40) {
		r.After = o.book.Members[node].Instance
	}
	if o.often(50) {
		r.Gone = table.Fence{Node: node, Instance: pick(o, o.book.Members[node].Instance, "other"), Counter: o.book.Leases[node].Counter, Kind: table.FenceLong}
		if r.Gone.Instance == "" {
			r.Gone = table.Fence{}
		}
	}
	if o.book.Moved(o.server) && o.often(40) {
		r.Member.Instance, r.After, r.Gone = "stranger", "", table.Fence{}
	}
	r.NamesLost = o.often(2)
	if o.often(80) {
		r.Began = o.book.Began
	}
	if o.often(8) {
		r.Short, r.Long = 0, 0
	}
	if r.Long > 0 && o.often(5) {
		r.Long = 60 * time.Second
	}
	switch {
	case o.often(10):
		r.Term, r.Applied = 0, 0
	case o.often(15):
		r.Term = max(1, r.Term-1)
		r.Applied = max(3, o.book.Base+routing.Revision(o.rand.IntN(4))) - 2
		for _, t := range o.book.Lineage {
			if t.Number == r.Term && o.often(90) {
				r.Began = t.Began
			}
		}
	case o.often(3):
		r.Term += uint32(o.rand.IntN(2))
		r.Applied += routing.Revision(o.rand.IntN(3))
	case o.often(20):
		r.Applied = max(2, r.Applied) - 1
	}
	if o.often(50) {
		r.Sequence = o.book.Leases[node].Sequence + uint64(1-o.rand.IntN(8)/7)
	}
	if o.often(4) {
		a, ok := o.agencies[o.id()]
		if ok {
			a.Epoch.Number += uint32(o.rand.IntN(3))
			a.Nonce += routing.Nonce(o.rand.IntN(2))
			r.Above = []routing.Agency{a}
		}
	}
	if o.often(20) {
		r.Doubts = []table.Doubt{{Agency: "a", Messages: o.rand.IntN(9), Until: o.now}}
		r.Counts = []table.Count{{Agency: "b", Held: o.rand.IntN(9)}}
	}
	after := o.book.Clone()
	want, note, wantErr := after.Renew(o.now, o.server, &r, o.agency)
	if wantErr != nil && note != nil {
		o.book = after
		o.seen["rejoin by a node without its name"]++
	}
	if wantErr == nil {
		if o.book.Rejoining && !after.Rejoining {
			o.seen["rejoined"]++
		}
		if after.Leases[node].Behind {
			o.seen["behind"]++
		}
		if note != nil && len(note.Above) > 0 {
			o.seen["above"]++
		}
		if note != nil && len(note.Documents) > 0 {
			o.seen["names lost"]++
		}
		if was := o.book.Members[node].Instance; was != "" && was != r.Member.Instance && r.After != was {
			o.seen["another instance"]++
		}
		o.book = after
	}
	got, err := o.tb.Renew(o.t.Context(), r)
	o.seen[fmt.Sprint("renew ", class(wantErr))]++
	if class(err) != class(wantErr) || got != want {
		o.t.Errorf("Renew %+v:\n%+v, %v; want\n%+v, %v", r, got, err, want, wantErr)
	}
}

func (o *oracle) change() {
	o.changes++
	pos := o.book.Position
	c := table.Change{ID: fmt.Sprint("c", o.changes), Incarnation: o.incarnation(), Term: pos.Term, What: "x"}
	g := &c.Guard
	g.Rejoining, g.EndRejoin = o.often(40), o.often(3)
	if g.EndRejoin && o.often(50) || o.often(2) {
		c.Term += 1 + uint32(o.rand.IntN(2))
	}
	for _, id := range []routing.AgencyID{"a", "b", "c"} {
		if !o.often(50) {
			continue
		}
		a, ok := o.agencies[id]
		if !ok {
			a = routing.Agency{ID: id, Source: "exchange", Target: "ox", Phase: routing.PhaseSource, Published: true, Tightness: routing.Armed}
		}
		if o.often(80) {
			a.Epoch.Number++
			a.Locked = o.often(30)
			a.Nonce++
			a.Epoch.Term = c.Term
		}
		if o.often(2) {
			a.Epoch.Term++
		}
		if o.often(2) {
			a.Revision++
		}
		c.Agencies = append(c.Agencies, a)
	}
	if o.often(15) {
		node := o.node()
		m := o.book.Members[node]
		m.Node = node
		switch o.rand.IntN(8) {
		case 0, 1:
			m.Attested = m.Instance
		case 2, 3, 4:
			m.Evicted = true
			if o.often(50) {
				m.Attested = m.Instance
				g.Fenced = append(g.Fenced, table.Fence{Node: node, Instance: m.Instance, Kind: table.FenceAttested})
			}
		case 5:
			m.Evicted = false
		case 6:
			m.Draining = !m.Draining
			m.Unconfirmed = routing.Emergencies(pick(o, "", "e1", "e1,e2"))
		case 7:
			m.Instance = "other"
		}
		if m.Instance == "" {
			m.Instance = "none"
		}
		c.Members = []routing.Member{m}
	}
	if o.often(10) {
		f := o.freezes[""]
		f.Agency, f.Who, f.Removed = routing.AgencyID(pick(o, "", "a")), "x", o.often(60)
		f.Revision = o.freezes[f.Agency].Revision
		c.Freezes = []routing.Freeze{f}
	}
	if len(c.Agencies)+len(c.Members)+len(c.Freezes) == 0 && !g.EndRejoin {
		return
	}
	if o.often(30) {
		g.Unfrozen = []routing.AgencyID{o.id()}
	}
	if o.often(30) {
		g.Base = 1 + routing.Revision(o.rand.IntN(int(pos.Revision)))
	}
	if o.often(20) {
		g.Applied = max(5, pos.Revision) - routing.Revision(o.rand.IntN(4))
	}
	if o.often(25) {
		g.Drained = o.epochs(40)
	}
	if o.often(10) {
		g.Protocol = 1
	}
	for _, node := range slices.Sorted(maps.Keys(o.book.Members)) { // a seed is one run
		m := o.book.Members[node]
		if o.often(80) {
			if len(c.Members) == 1 && c.Members[0].Node == node && o.often(60) {
				g.Fenced = append(g.Fenced, table.Fence{Node: node, Instance: m.Instance, Counter: o.book.Leases[node].Counter, Kind: table.FenceLong})
				continue
			}
			f := table.Fence{Node: node, Instance: m.Instance, Counter: o.book.Leases[node].Counter, Kind: pick(o, table.FenceShort, table.FenceLong, table.FenceLong, table.FenceAttested)}
			if o.often(10) {
				f.Counter++
			}
			g.Fenced = append(g.Fenced, f)
		}
	}
	frozen := func(id routing.AgencyID) bool {
		_, all := o.freezes[""]
		_, one := o.freezes[id]
		return all || one
	}
	var wantErr error
	for i := range c.Agencies {
		if c.Agencies[i].Revision != o.agencies[c.Agencies[i].ID].Revision && c.Incarnation == pos.Incarnation {
			wantErr = table.ErrStale
		}
	}
	if c.Incarnation != pos.Incarnation {
		wantErr = table.ErrIncarnation
	}
	if wantErr == nil {
		wantErr = o.book.MayChange(o.now, o.server, &c, o.agency, frozen)
	}
	if wantErr == nil {
		if len(g.Drained) > 0 || g.Applied > 0 {
			o.seen["guarded"]++
			if bare := c; true {
				bare.Guard.Fenced = nil
				if o.book.MayChange(o.now, o.server, &bare, o.agency, frozen) != nil {
					o.seen["fenced"]++
				}
			}
		}
		for _, m := range c.Members {
			if m.Evicted && !o.book.Members[m.Node].Evicted {
				o.seen["evicted"]++
			}
		}
		o.book.Position.Revision++
		o.book.Changed(o.now, &c)
		for _, a := range c.Agencies {
			a.Revision = o.book.Position.Revision
			o.agencies[a.ID] = a
		}
		for _, f := range c.Freezes {
			f.Revision = o.book.Position.Revision
			if o.freezes[f.Agency] = f; f.Removed {
				delete(o.freezes, f.Agency)
			}
		}
	}
	got, err := o.tb.Change(o.t.Context(), c)
	o.seen[fmt.Sprint("change ", class(wantErr))]++
	if class(err) != class(wantErr) || err == nil && got != o.book.Position {
		o.t.Errorf("Change %+v:\n%+v, %v; want\n%+v, %v", c, got, err, o.book.Position, wantErr)
	}
}

func (o *oracle) check() {
	node := o.node()
	c := table.Check{Incarnation: o.incarnation(), Node: node, Instance: o.instance(node), Agencies: o.epochs(60)}
	if o.often(40) {
		c.Mapped, c.Term = o.book.Position.Mapped-routing.Revision(o.rand.IntN(8)/7), o.book.Position.Term-uint32(o.rand.IntN(8)/7)
	}
	if len(c.Agencies) == 0 && c.Mapped == 0 {
		return
	}
	want := o.book.Check(o.now, o.server, &c, o.agency)
	o.seen[fmt.Sprint("check ", class(want))]++
	if err := o.tb.Check(o.t.Context(), c); class(err) != class(want) {
		o.t.Errorf("Check %+v: %v, want %v", c, err, want)
	}
}

// compare holds what the table says of itself to the book.
func (o *oracle) compare(step int) {
	ctx := o.t.Context()
	got, err := o.tb.Nodes(ctx)
	want := o.book.Nodes(o.now, o.server)
	for node, l := range got.Leases {
		if len(l.Drained) == 0 {
			l.Drained = nil
			got.Leases[node] = l
		}
	}
	for node, l := range want.Leases {
		if len(l.Drained) == 0 {
			l.Drained = nil
			want.Leases[node] = l
		}
	}
	for node, l := range want.Leases {
		if g := got.Leases[node]; !reflect.DeepEqual(g, l) {
			o.t.Errorf("step %d: lease\n%+v; want\n%+v", step, g, l)
		}
	}
	got.Leases, want.Leases = nil, nil
	if err != nil || !reflect.DeepEqual(got, want) {
		o.t.Errorf("step %d: nodes\n%+v, %v; want\n%+v", step, got, err, want)
	}
	if step%10 != 0 {
		return
	}
	u, err := o.tb.Snapshot(ctx)
	above := map[routing.AgencyID]routing.Agency{}
	for _, a := range u.Above {
		above[a.ID] = a
	}
	wantAbove := maps.Clone(o.book.Above)
	for id, a := range wantAbove {
		a.Revision = 0
		wantAbove[id] = a
	}
	if err != nil || u.Position != o.book.Position || !u.Lineage.Equal(o.book.Lineage) || !slices.Equal(u.Members, want.Members) || !maps.Equal(above, wantAbove) {
		o.t.Errorf("step %d: snapshot %+v, %v; want position %+v, members %+v, above %+v", step, u, err, o.book.Position, want.Members, wantAbove)
	}
}
