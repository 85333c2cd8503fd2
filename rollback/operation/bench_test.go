package operation

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.uber.org/goleak"

	"mailcutover/internal/durable"
	"mailcutover/routing"
	"mailcutover/routing/localtable"
	"mailcutover/routing/redistable"
	"mailcutover/routing/replica"
	"mailcutover/routing/table"
	"mailcutover/test/peers"
)

func TestMain(m *testing.M) {
	flag.Parse()
	// The tests wait for leases to end, most of the time.
	if err := flag.Set("test.parallel", "12"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

// faulty is a table that fails on demand.
type faulty struct {
	table.Table
	mu      sync.Mutex
	change  func(c table.Change, do func() (routing.Position, error)) (routing.Position, error)
	confirm func() error
	mute    time.Time // until then it doesn't say how the nodes stand
}

func (f *faulty) Nodes(ctx context.Context) (table.Nodes, error) {
	f.mu.Lock()
	mute := f.mute
	f.mu.Unlock()
	if time.Now().Before(mute) {
		<-ctx.Done()
		return table.Nodes{}, ctx.Err()
	}
	return f.Table.Nodes(ctx)
}

func (f *faulty) Change(ctx context.Context, c table.Change) (routing.Position, error) {
	do := func() (routing.Position, error) { return f.Table.Change(ctx, c) }
	f.mu.Lock()
	change := f.change
	f.mu.Unlock()
	if change == nil {
		return do()
	}
	return change(c, do)
}

func (f *faulty) Confirm(ctx context.Context) error {
	f.mu.Lock()
	confirm := f.confirm
	f.mu.Unlock()
	if confirm != nil {
		if err := confirm(); err != nil {
			return err
		}
	}
	return f.Table.Confirm(ctx)
}

func (f *faulty) set(change func(c table.Change, do func() (routing.Position, error)) (routing.Position, error)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.change = change
}

func (f *faulty) unconfirmed(confirm func() error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.confirm = confirm
}

type alarms struct {
	mu   sync.Mutex
	keys map[string]string
}

func (a *alarms) Raise(key, text string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.keys == nil {
		a.keys = make(map[string]string)
	}
	a.keys[key] = text
}

func (a *alarms) Clear(key string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, was := a.keys[key]
	delete(a.keys, key)
	return was
}

func (a *alarms) list() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Sorted(maps.Keys(a.keys))
}

func (a *alarms) text(key string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.keys[key]
}

// Times of the tests' nodes: so long that no busy machine lets a lease lapse, or so short that a fence is.
const (
	livesShort = time.Minute
	livesLong  = 2 * time.Minute
	testShort  = 400 * time.Millisecond
	testLong   = 800 * time.Millisecond
	testMargin = 50 * time.Millisecond
	testLimit  = 100 * time.Millisecond
	testRenew  = 20 * time.Millisecond
)

// cluster is several nodes on one table.
type cluster struct {
	t     *testing.T
	real  table.Table
	nodes []*simNode
	n     int
}

// simNode is a node: a replica, a runner, and renewals that say what the test wants.
type simNode struct {
	*Runner
	c        *cluster
	id       routing.NodeID
	instance routing.InstanceID
	table    *faulty
	replica  *replica.Replica
	folder   Folder
	alarms   *alarms
	options  Options
	end      func()

	mu      sync.Mutex         // held during each renewal: what is set afterwards, none still under way contradicts
	after   routing.InstanceID // the node's former life
	brief   bool               // its leases are short, as before it goes silent
	silent  bool
	gaveUp  bool
	runs    bool // its clock goes on while its machine is stopped
	holding bool // it isn't drained of anything that is closed
	doubts  []table.Doubt
	counts  []table.Count
	above   []routing.Agency // what it says that it has seen, and the table lost
	poke    chan struct{}
}

func openLocal(t *testing.T) table.Table {
	t.Helper()
	tb, err := localtable.Open(filepath.Join(t.TempDir(), "table.db"), localtable.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tb.Close() })
	return tb
}

// redisTables opens tables on one real redis-server, each with a prefix of its own.
func redisTables(t *testing.T) func(t *testing.T) table.Table {
	r := peers.StartRedis(t, peers.RedisOptions{})
	n := 0
	return func(t *testing.T) table.Table {
		n++
		tb, err := redistable.Open(t.Context(), redistable.Options{URL: r.URL(), Prefix: fmt.Sprintf("op:{%d}", n), AllowNoPassword: true, Timeout: 5 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = tb.Close() })
		return tb
	}
}

// quick has runners take leases for short, as those of nodes that go silent are.
func quick(change func(*Options)) func(*Options) {
	return func(o *Options) {
		o.Leases.Short, o.Leases.Long = testShort, testLong
		if change != nil {
			change(o)
		}
	}
}

// newCluster starts nodes a, b, ... with the agencies police, health and its pilot group.
func newCluster(t *testing.T, real table.Table, nodes int, change func(*Options)) *cluster {
	t.Helper()
	c := &cluster{t: t, real: real}
	if _, err := real.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i := range nodes {
		c.nodes = append(c.nodes, c.startNode(routing.NodeID('a'+rune(i)), change))
	}
	c.add("health", "")
	c.add("health-pilot", "health")
	c.add("police", "")
	for _, n := range c.nodes {
		n.catchUp()
		if err := n.Recover(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func (c *cluster) startNode(id routing.NodeID, change func(*Options), first ...func(*simNode)) *simNode {
	c.t.Helper()
	n := &simNode{c: c, id: id, instance: routing.InstanceID(uuid.NewString()), table: &faulty{Table: c.real}, alarms: new(alarms), poke: make(chan struct{}, 1)}
	quiet := slog.New(slog.DiscardHandler)
	var err error
	n.replica, err = replica.Open(replica.Options{Table: c.real, Logger: quiet, Interval: 20 * time.Millisecond, OnUpdate: func(*routing.State, *routing.State) {
		select {
		case n.poke <- struct{}{}:
		default:
		}
	}})
	if err != nil {
		c.t.Fatal(err)
	}
	if n.folder, err = durable.Open(nil, filepath.Join(c.t.TempDir(), string(id))); err != nil {
		c.t.Fatal(err)
	}
	n.options = Options{
		Node: id, Instance: n.instance, Table: n.table, Replica: n.replica, Folder: n.folder, Alarms: n.alarms, Logger: quiet,
		Leases: Leases{Short: livesShort, Long: livesLong, Margin: testMargin},
		Limit:  func(routing.PlatformID) time.Duration { return testLimit },
	}
	if change != nil {
		change(&n.options)
	}
	n.Runner = New(n.options)
	for _, f := range first {
		f(n)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = n.replica.Run(ctx) })
	wg.Go(func() { n.renew(ctx) })
	n.end = func() { n.Stop(); cancel(); wg.Wait() }
	c.t.Cleanup(func() { n.end() })
	n.until("registered", func() bool { m, ok := n.replica.State().Member(id); return ok && m.Instance == n.instance })
	return n
}

// renew sends renewals until ctx ends.
func (n *simNode) renew(ctx context.Context) {
	for lapsed := true; ctx.Err() == nil; {
		lapsed = n.renewOnce(ctx, lapsed)
		select {
		case <-time.After(testRenew):
		case <-n.poke:
		case <-ctx.Done():
		}
	}
}

// renewOnce sends a renewal, unless the node is silent. lapsed: the last one failed.
func (n *simNode) renewOnce(ctx context.Context, lapsed bool) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.replica.State()
	if n.silent || s.Position().Incarnation == "" {
		return lapsed
	}
	r := table.Renewal{
		Incarnation: s.Position().Incarnation, Term: s.Position().Term, Applied: s.Position().Revision,
		Member: routing.Member{Node: n.id, Instance: n.instance, Protocol: table.Protocol, Build: "test", ClockRuns: n.runs},
		After:  n.after, Short: livesShort, Long: livesLong, Lapsed: lapsed,
		Doubts: slices.Clone(n.doubts), Counts: slices.Clone(n.counts), Above: slices.Clone(n.above),
	}
	if n.brief {
		r.Short, r.Long = testShort, testLong
	}
	if n.gaveUp {
		r.Short, r.Long = 0, 0
	}
	for _, a := range s.Agencies() {
		doubtful := slices.ContainsFunc(r.Doubts, func(d table.Doubt) bool { return d.Agency == a.ID })
		if (a.Open() || !n.holding) && !doubtful {
			r.Drained = append(r.Drained, table.AgencyEpoch{Agency: a.ID, Epoch: a.Epoch})
		}
	}
	_, err := n.c.real.Renew(ctx, r)
	return err != nil
}

// goSilent ends the renewals, with a short lease as the last one. Leases are long before: no busy machine
// lets that of a node lapse which is to live.
func (n *simNode) goSilent() {
	n.c.t.Helper()
	n.set(func(n *simNode) { n.brief = true })
	n.until("a short lease", func() bool {
		all, err := n.c.real.Nodes(context.Background())
		l := all.Leases[n.id]
		return err == nil && l.Instance == n.instance && l.ShortEnd.Sub(all.Time) <= testShort
	})
	n.set(func(n *simNode) { n.silent = true })
}

func (n *simNode) set(f func(n *simNode)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f(n)
}

func (n *simNode) isSilent() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.silent
}

// restart makes a new process of the node's runner: another instance, the same journal.
func (n *simNode) restart() {
	n.c.t.Helper()
	n.Stop()
	n.mu.Lock()
	n.after = n.instance
	n.instance = routing.InstanceID(uuid.NewString())
	n.mu.Unlock()
	n.options.Instance = n.instance
	n.table.set(nil)
	n.Runner = New(n.options)
}

func (n *simNode) until(what string, ok func() bool) {
	n.c.t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); {
		if time.Now().After(deadline) {
			n.c.t.Fatalf("node %s: never: %s", n.id, what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// catchUp lets the replica see all that happened.
func (n *simNode) catchUp() {
	n.c.t.Helper()
	pos, err := n.c.real.Position(n.c.t.Context())
	if err == nil {
		err = n.replica.Wait(n.c.t.Context(), pos)
	}
	if err != nil {
		n.c.t.Fatal(err)
	}
}

// store changes records as an administrator would, and waits until all nodes know, and the
// table of each that isn't silent that it does: what begins next need not wait for that.
func (c *cluster) store(ch table.Change) routing.Position {
	c.t.Helper()
	pos, err := c.real.Position(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	c.n++
	ch.ID, ch.Incarnation, ch.Term, ch.Who, ch.What = fmt.Sprintf("test-%d", c.n), pos.Incarnation, pos.Term, "test", "test"
	if pos, err = c.real.Change(c.t.Context(), ch); err != nil {
		c.t.Fatal(err)
	}
	for _, n := range c.nodes {
		if err := n.replica.Wait(c.t.Context(), pos); err != nil {
			c.t.Fatal(err)
		}
	}
	for _, n := range c.nodes {
		n.until("it has told that it knows", func() bool {
			all, err := c.real.Nodes(c.t.Context())
			l := all.Leases[n.id]
			return n.isSilent() || err == nil && l.Instance == n.instance && knows(&all, &l, pos.Revision)
		})
	}
	return pos
}

func (c *cluster) put(records ...routing.Agency) {
	c.t.Helper()
	c.store(table.Change{Agencies: records})
}

func (c *cluster) add(id, parent routing.AgencyID) {
	c.t.Helper()
	a, err := routing.NewAgency(id, "exchange", "ox")
	if err != nil {
		c.t.Fatal(err)
	}
	a.Parent = parent
	c.put(a.Arm())
}

func (n *simNode) agency(id routing.AgencyID) routing.Agency {
	n.c.t.Helper()
	n.catchUp()
	a, ok := n.replica.State().Agency(id)
	if !ok {
		n.c.t.Fatalf("no agency %s", id)
	}
	return a
}

func (n *simNode) run(kind Kind, id routing.AgencyID) (Operation, error) {
	return n.Run(n.c.t.Context(), Request{Kind: kind, Agency: id, Who: "tester", Reason: "test"})
}

// stands checks that an agency is open on a platform, and owned by nobody.
func (n *simNode) stands(id routing.AgencyID, phase routing.Phase) {
	n.c.t.Helper()
	if a := n.agency(id); a.Phase != phase || !a.Open() || a.Operation != "" {
		n.c.t.Errorf("%s is in phase %s, open %v, operation %q; want %s, open, none", id, a.Phase, a.Open(), a.Operation, phase)
	}
}

// last returns the newest operation that the node knows of.
func (n *simNode) last() Operation {
	n.c.t.Helper()
	ops, err := n.List()
	if err != nil || len(ops) == 0 {
		n.c.t.Fatalf("journal: %+v, %v", ops, err)
	}
	return ops[len(ops)-1]
}

// tended calls Tend until ok; an error of Tend is only told if it never is.
func (n *simNode) tended(what string, ok func() bool) {
	n.c.t.Helper()
	var err error
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		n.catchUp()
		if ok() {
			return
		}
		if time.Now().After(deadline) {
			n.c.t.Fatalf("node %s: never: %s; tend: %v", n.id, what, err)
		}
		err = n.Tend(n.c.t.Context())
	}
}

// bench is a cluster of one node, for what has nothing to do with the others.
type bench struct{ *simNode }

func newBench(t *testing.T) *bench {
	t.Helper()
	c := newCluster(t, openLocal(t), 1, nil)
	return &bench{c.nodes[0]}
}

func (b *bench) put(records ...routing.Agency)   { b.c.t.Helper(); b.c.put(records...) }
func (b *bench) add(id, parent routing.AgencyID) { b.c.t.Helper(); b.c.add(id, parent) }
func (b *bench) start()                          { b.c.t.Helper(); b.restart() }
