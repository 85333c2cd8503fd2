package redistable

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"mailcutover/routing"
	"mailcutover/routing/table"
	"mailcutover/test/peers"
)

// soon waits for an error to be gone or to be as wanted.
func soon(t *testing.T, what string, want error, call func() error) {
	t.Helper()
	var last error
	deadline := time.Now().Add(time.Minute)
	for {
		if last = call(); errors.Is(last, want) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v, want %v", what, last, want)
		}
		select {
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// member renews as a node that follows whatever the table says.
type member struct {
	tb  *Table
	r   table.Renewal
	say table.Renewed
}

func join(t *testing.T, tb *Table, pos routing.Position, node routing.NodeID) *member {
	t.Helper()
	m := &member{tb: tb, r: renewal(pos, node, routing.InstanceID(node)+"-1")}
	m.r.Short, m.r.Long = time.Minute, 2*time.Minute // no lease is to end here
	if err := m.renew(t); err != nil || !m.say.Armed {
		t.Fatalf("join: %+v, %v", m.say, err)
	}
	m.follow()
	return m
}

func (m *member) renew(t *testing.T) (err error) {
	say, err := m.tb.Renew(t.Context(), m.r)
	if err == nil {
		m.say, m.r.Replication = say, say.Replication
	}
	return err
}

func (m *member) follow() { m.r.Term, m.r.Applied = m.say.Position.Term, m.say.Position.Revision }

// change locks or unlocks the agency.
func (m *member) change(t *testing.T, id string, guard table.Guard) (routing.Position, error) {
	t.Helper()
	u, err := m.tb.Snapshot(t.Context())
	if err != nil {
		return routing.Position{}, err
	}
	a := u.Agencies[0].InTerm(u.Position.Term)
	if a.Locked {
		a, err = a.Unlock()
	} else {
		a, err = a.Lock()
	}
	if err != nil {
		t.Fatal(err)
	}
	pos, err := m.tb.Change(t.Context(), table.Change{ID: id, Incarnation: u.Position.Incarnation, Term: u.Position.Term, Agencies: []routing.Agency{a}, Guard: guard})
	return pos, err
}

// pair is a primary with a replica, or two under Sentinels, a table and two members.
type pair struct {
	primary, replica *peers.Redis
	tb               *Table
	pos              routing.Position
	n1, n2           *member
	sentinels        []*peers.Sentinel
}

// patient has the Sentinels wait for so long until they find a server gone. They are as patient as
// a busy machine wants it, but where a server is to be found gone.
func (p *pair) patient(t *testing.T, wait time.Duration) {
	t.Helper()
	for _, s := range p.sentinels {
		c := redis.NewClient(&redis.Options{Addr: s.Addr, Password: "watch"})
		err := c.Do(t.Context(), "SENTINEL", "SET", peers.SentinelName, "down-after-milliseconds", wait.Milliseconds()).Err()
		if err := errors.Join(err, c.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

const (
	soonGone  = 500 * time.Millisecond
	neverGone = time.Hour
)

func startPair(t *testing.T, sentinels int) *pair {
	t.Helper()
	settings := map[string]string{"masterauth": "secret", "repl-diskless-sync-delay": "0", "min-replicas-to-write": "1", "min-replicas-max-lag": "60", "repl-ping-replica-period": "1"}
	p := &pair{primary: peers.StartRedis(t, peers.RedisOptions{Password: "secret", Settings: settings})}
	p.replica = peers.StartReplica(t, p.primary, peers.RedisOptions{Settings: settings})
	if sentinels > 0 { // one to be promoted, and one that the new primary needs
		peers.StartReplica(t, p.primary, peers.RedisOptions{Settings: settings})
	}
	o := Options{URL: p.primary.URL(), Timeout: 5 * time.Second, Replicas: 1}
	if sentinels > 0 {
		o.URL, o.Sentinel.Master, o.Sentinel.Password = "redis://127.0.0.1/0", peers.SentinelName, "watch"
		o.Password, o.AllowNoPassword = "secret", false
		p.sentinels = peers.StartSentinels(t, sentinels, p.primary, "watch")
		for _, s := range p.sentinels {
			o.Sentinel.Addresses = append(o.Sentinel.Addresses, s.Addr)
		}
		p.patient(t, neverGone)
	}
	p.tb = open(t, o)
	soon(t, "Init", nil, func() error { _, err := p.tb.Init(t.Context()); return err })
	pos, err := p.tb.Position(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if p.pos, err = p.tb.Change(t.Context(), add(t, pos, "health")); err != nil {
		t.Fatal(err)
	}
	p.n1, p.n2 = join(t, p.tb, p.pos, "n1"), join(t, p.tb, p.pos, "n2")
	if err := p.n1.renew(t); err != nil {
		t.Fatal(err)
	}
	p.n1.follow()
	soon(t, "Confirm", nil, func() error { return p.tb.Confirm(t.Context()) })
	return p
}

// at returns a table at one server, and the members' view of it.
func (p *pair) at(t *testing.T, r *peers.Redis) {
	t.Helper()
	p.tb = open(t, Options{URL: r.URL()})
	p.n1.tb, p.n2.tb = p.tb, p.tb
}

// The primary dies and the Sentinels make its replica the primary. Everything that was
// confirmed is there, and mail of armed agencies waits until all members have renewed.
func TestSentinelFailover(t *testing.T) {
	t.Parallel()
	p := startPair(t, 3)
	check := table.Check{Incarnation: p.pos.Incarnation, Node: "n1", Instance: "n1-1", Agencies: []table.AgencyEpoch{{Agency: "health", Epoch: routing.Epoch{Term: 1, Number: 1}}}}
	if err := p.tb.Check(t.Context(), check); err != nil {
		t.Fatal(err)
	}
	_, ended := follow(t, p.tb, p.n1.say.Position)
	before := p.n1.say
	p.patient(t, soonGone)
	p.primary.Kill()
	wantEnd(t, ended, table.ErrUnavailable)

	soon(t, "Check at a server that nobody has renewed with", table.ErrRejoining, func() error { return p.tb.Check(t.Context(), check) })
	p.patient(t, neverGone)
	if _, err := p.n1.change(t, "too early", table.Guard{Rejoining: true}); !errors.Is(err, table.ErrRejoining) {
		t.Errorf("Change before any renewal: %v", err)
	}
	soon(t, "renewal of n1", nil, func() error { return p.n1.renew(t) })
	say := p.n1.say
	if say.Armed || !say.Settled || say.Position.Term != before.Position.Term+1 || say.Position.Revision != before.Position.Revision+1 || say.Server == before.Server {
		t.Errorf("first renewal: %+v, before %+v", say, before)
	}
	if _, err := p.n1.change(t, "opens", table.Guard{}); !errors.Is(err, table.ErrRejoining) {
		t.Errorf("Change while rejoining: %v", err)
	}
	if _, err := p.n1.change(t, "closes", table.Guard{Rejoining: true}); err != nil {
		t.Errorf("Change that closes while rejoining: %v", err)
	}
	if n, err := p.tb.Nodes(t.Context()); err != nil || !strings.Contains(n.Rejoining, "1 of 2") {
		t.Errorf("Nodes: %+v, %v", n, err)
	}
	if err := p.n2.renew(t); err != nil || !p.n2.say.Armed {
		t.Errorf("renewal of n2: %+v, %v", p.n2.say, err)
	}
	p.n1.follow()
	if err := p.n1.renew(t); err != nil || !p.n1.say.Armed || p.n1.say.Position != p.n2.say.Position {
		t.Errorf("second renewal of n1: %+v, %v", p.n1.say, err)
	}
	// A replica follows the log over the takeover.
	alive, _ := follow(t, p.tb, before.Position)
	select {
	case pos := <-alive:
		if pos != p.n1.say.Position {
			t.Errorf("followed to %+v, want %+v", pos, p.n1.say.Position)
		}
	case <-time.After(time.Minute):
		t.Error("Follow doesn't get there")
	}
	soon(t, "Confirm with the other replica", nil, func() error { return p.tb.Confirm(t.Context()) })
	soon(t, "change after all", nil, func() error { _, err := p.n1.change(t, "after all", table.Guard{}); return err })
}

// A primary that hangs is given up, and no call waits for it longer than it may.
func TestSentinelHungPrimary(t *testing.T) {
	t.Parallel()
	p := startPair(t, 3)
	p.patient(t, soonGone)
	if err := p.primary.Pause(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	unavailable(t, "Renew", p.n1.renew(t), "")
	if took := time.Since(began); took > p.tb.o.Timeout+20*time.Second {
		t.Errorf("Renew took %v", took)
	}
	soon(t, "renewal of n1", nil, func() error { return p.n1.renew(t) })
	p.patient(t, neverGone)
	soon(t, "renewal of n2", nil, func() error { return p.n2.renew(t) })
	if !p.n2.say.Armed {
		t.Errorf("after the failover: %+v", p.n2.say)
	}
	// It wakes, believes for a moment that it is the primary, and gets none of our calls.
	if err := p.primary.Resume(); err != nil {
		t.Fatal(err)
	}
	for range 50 {
		if err := p.n1.renew(t); err == nil && p.n1.say.Server != p.n2.say.Server {
			t.Fatalf("renewed with the deposed server: %+v", p.n1.say)
		}
	}
}

// A failover loses changes that a node has seen: it is behind, what it saw is closed
// everywhere, and the numbers of the lost changes mean nothing any more.
func TestFailoverWithLoss(t *testing.T) {
	p := startPair(t, 0)
	p.primary.CLI(t, "CONFIG", "SET", "min-replicas-to-write", "0")
	p.replica.CLI(t, "CONFIG", "SET", "min-replicas-to-write", "0")
	p.replica.CLI(t, "REPLICAOF", "NO", "ONE")
	lost, err := p.n1.change(t, "lost", table.Guard{})
	if err != nil {
		t.Fatal(err)
	}
	u, err := p.tb.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	seen := u.Agencies[0]
	p.primary.Kill()
	p.at(t, p.replica)

	// n2, which knew nothing of it, comes first and another change takes the number.
	if err := p.n2.renew(t); err != nil || p.n2.say.Armed || !p.n2.say.Settled {
		t.Fatalf("n2: %+v, %v", p.n2.say, err)
	}
	if _, err := p.n2.change(t, "other", table.Guard{Rejoining: true}); err != nil {
		t.Fatal(err)
	}
	if err := p.tb.Follow(t.Context(), lost, time.Second, func(table.Entry) error { return errors.New("followed") }, func(time.Time, routing.Position) {}); !errors.Is(err, table.ErrRegressed) {
		t.Errorf("Follow from a lost change: %v", err)
	}
	p.n1.r.Applied = lost.Revision
	p.n1.r.Above = []routing.Agency{seen}
	if err := p.n1.renew(t); err != nil || p.n1.say.Armed || p.n1.say.Settled {
		t.Fatalf("n1: %+v, %v", p.n1.say, err)
	}
	// The table's record is of a newer term: it has overtaken what was lost.
	if u, err = p.tb.Snapshot(t.Context()); err != nil || len(u.Above) != 0 {
		t.Errorf("above: %+v, %v", u.Above, err)
	}
	if n, err := p.tb.Nodes(t.Context()); err != nil || !n.Leases["n1"].Behind || n.Rejoining == "" {
		t.Errorf("nodes: %+v, %v", n, err)
	}
	p.n1.follow()
	p.n1.r.Above = nil
	if err := p.n1.renew(t); err != nil || !p.n1.say.Armed {
		t.Errorf("n1 followed: %+v, %v", p.n1.say, err)
	}
}

// An older copy of the data is put back: what the members have seen since is closed, until
// somebody decides.
func TestOlderCopyIsRestored(t *testing.T) {
	r, tb, pos := begun(t, Options{}, peers.RedisOptions{})
	n1 := join(t, tb, pos, "n1")
	copied := t.TempDir()
	aof := filepath.Join(r.Dir, "appendonlydir")
	if err := os.CopyFS(copied, os.DirFS(aof)); err != nil {
		t.Fatal(err)
	}
	after, err := n1.change(t, "after the backup", table.Guard{})
	if err != nil {
		t.Fatal(err)
	}
	u, err := tb.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r.Kill()
	if err := os.RemoveAll(aof); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(aof, os.DirFS(copied)); err != nil {
		t.Fatal(err)
	}
	if err := r.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	soon(t, "Confirm of what is gone", table.ErrRegressed, func() error { return tb.Confirm(t.Context()) })
	n1.r.Applied, n1.r.Above = after.Revision, u.Agencies
	soon(t, "renewal", nil, func() error { return n1.renew(t) })
	if n1.say.Settled || n1.say.Armed {
		t.Errorf("renewal: %+v", n1.say)
	}
	got, err := tb.Snapshot(t.Context())
	if err != nil || len(got.Above) != 1 || got.Above[0].Epoch != u.Agencies[0].Epoch {
		t.Errorf("above: %+v, %v", got.Above, err)
	}
	// People reconcile: an epoch above all that was seen ends it.
	health := got.Agencies[0].InTerm(got.Position.Term)
	health.Locked, health.Epoch.Number = true, u.Agencies[0].Epoch.Number+1
	if _, err := tb.Change(t.Context(), table.Change{ID: "reconcile", Incarnation: pos.Incarnation, Term: got.Position.Term, Agencies: []routing.Agency{health}, Guard: table.Guard{Rejoining: true}}); err != nil {
		t.Error(err)
	}
	if err := tb.Confirm(t.Context()); !errors.Is(err, table.ErrRegressed) {
		t.Errorf("Confirm by somebody who waits for the lost change: %v", err)
	}
	if got, err = tb.Snapshot(t.Context()); err != nil || len(got.Above) != 0 {
		t.Errorf("above after a higher epoch: %+v, %v", got.Above, err)
	}
}

// A deposed primary goes on until its replicas are missed; nothing that it takes then is
// ever confirmed, and its check is refused.
func TestSplitBrain(t *testing.T) {
	p := startPair(t, 0)
	p.replica.CLI(t, "REPLICAOF", "NO", "ONE")
	p.replica.CLI(t, "CONFIG", "SET", "min-replicas-to-write", "0")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	unavailable(t, "Confirm at the deposed primary", p.tb.Confirm(ctx), "")
	check := table.Check{Incarnation: p.pos.Incarnation, Node: "n1", Instance: "n1-1", Agencies: []table.AgencyEpoch{{Agency: "health", Epoch: routing.Epoch{Term: 1, Number: 1}}}}
	soon(t, "Check at the deposed primary", table.ErrUnavailable, func() error { return p.tb.Check(t.Context(), check) })
	unavailable(t, "Renew at the deposed primary", p.n1.renew(t), "too few replicas")
	_, err := p.n1.change(t, "late", table.Guard{Rejoining: true})
	unavailable(t, "Change at the deposed primary", err, "too few replicas")

	p.at(t, p.replica)
	if err := p.n2.renew(t); err != nil || p.n2.say.Position.Term != 2 {
		t.Fatalf("n2: %+v, %v", p.n2.say, err)
	}
	// The deposed one becomes a replica: the table is the new one's, whoever asks. As a
	// primary again, with those data, it is another server.
	newHost, newPort, _ := strings.Cut(p.replica.Addr, ":")
	p.primary.CLI(t, "REPLICAOF", newHost, newPort)
	peers.WaitFor(t, time.Minute, "replication", func() bool {
		return strings.Contains(p.primary.CLI(t, "INFO", "replication"), "master_link_status:up")
	})
	p.primary.CLI(t, "CONFIG", "SET", "min-replicas-to-write", "0")
	p.primary.CLI(t, "REPLICAOF", "NO", "ONE")
	p.at(t, p.primary)
	if err := p.tb.Check(t.Context(), check); !errors.Is(err, table.ErrRejoining) {
		t.Errorf("Check at a server that was a replica meanwhile: %v", err)
	}
	if err := p.n1.renew(t); err != nil || p.n1.say.Position.Term != 3 {
		t.Errorf("n1: %+v, %v", p.n1.say, err)
	}
}

// What a server refuses or lacks, for the calls of nodes: none of it looks like an answer.
func TestNodesAndServersThatRefuse(t *testing.T) {
	r, tb, pos := begun(t, Options{}, peers.RedisOptions{})
	n1 := join(t, tb, pos, "n1")
	check := table.Check{Incarnation: pos.Incarnation, Node: "n1", Instance: "n1-1", Agencies: []table.AgencyEpoch{{Agency: "health", Epoch: routing.Epoch{Term: 1, Number: 1}}}}
	both := map[string]func() error{
		"Renew": func() error { return n1.renew(t) },
		"Check": func() error { return tb.Check(t.Context(), check) },
	}
	for name, tt := range map[string]struct {
		spoil, back []string
		want        error
		hint        string
	}{
		"a full memory":    {[]string{"CONFIG", "SET", "maxmemory", "1"}, []string{"CONFIG", "SET", "maxmemory", "0"}, table.ErrUnavailable, "memory is full"},
		"missing replicas": {[]string{"CONFIG", "SET", "min-replicas-to-write", "1"}, []string{"CONFIG", "SET", "min-replicas-to-write", "0"}, table.ErrUnavailable, "too few replicas"},
		"a damaged term":   {[]string{"HSET", tb.key("meta"), "term", "x"}, []string{"HSET", tb.key("meta"), "term", "1"}, table.ErrUnavailable, "no term"},
		"another format":   {[]string{"HSET", tb.key("meta"), "format", "1"}, []string{"HSET", tb.key("meta"), "format", format}, table.ErrUnavailable, `its format is "1"`},
	} {
		t.Run(name, func(t *testing.T) {
			r.CLI(t, tt.spoil...)
			for call, f := range both {
				unavailable(t, call, f(), tt.hint)
			}
			r.CLI(t, tt.back...)
			for call, f := range both {
				if err := f(); err != nil {
					t.Errorf("%s afterwards: %v", call, err)
				}
			}
		})
	}
	for i, name := range []string{"member", "lease", "drained", "freeze", "document", "above", "operation", "ended"} {
		t.Run("wrong type of "+name, func(t *testing.T) {
			spare := fmt.Sprintf("{mc}:spare%d", i)
			had := r.CLI(t, "EXISTS", tb.key(name)) == "1"
			if had {
				r.CLI(t, "RENAME", tb.key(name), spare)
			}
			r.CLI(t, "SET", tb.key(name), "x")
			before := dump(t, r, tb)
			unavailable(t, "Renew", n1.renew(t), "is a string")
			_, err := tb.Change(t.Context(), add(t, pos, "roads"))
			unavailable(t, "Change", err, "is a string")
			if after := dump(t, r, tb); after != before {
				t.Errorf("before:\n%s\nafter:\n%s", before, after)
			}
			r.CLI(t, "DEL", tb.key(name))
			if had {
				r.CLI(t, "RENAME", spare, tb.key(name))
			}
		})
	}
	if err := n1.renew(t); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	// A flushed table, or one that was promoted empty, is empty and stays it.
	r.CLI(t, "FLUSHALL")
	for call, f := range both {
		if err := f(); !errors.Is(err, table.ErrEmpty) {
			t.Errorf("%s with a flushed table: %v", call, err)
		}
	}
	// A new one in its place is another incarnation to its old members.
	if _, err := tb.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	for call, f := range both {
		if err := f(); !errors.Is(err, table.ErrIncarnation) {
			t.Errorf("%s with a new table: %v", call, err)
		}
	}
}

// Sentinels that are gone, that hang or that know nothing cost no call more than its time,
// and what they don't know is said.
func TestSentinelsThatAreNoHelp(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	gone := fmt.Sprintf("127.0.0.1:%d", peers.Port(t)) // nobody listens there
	r := peers.StartRedis(t, peers.RedisOptions{Password: "secret"})
	s := peers.StartSentinels(t, 1, r, "watch")[0]
	for name, tt := range map[string]struct {
		s    Sentinel
		hint string
	}{
		"none":           {Sentinel{Master: peers.SentinelName, Addresses: []string{gone, silent.Addr().String()}}, "refused"},
		"another name":   {Sentinel{Master: "other", Addresses: []string{s.Addr}, Password: "watch"}, "other"},
		"wrong password": {Sentinel{Master: peers.SentinelName, Addresses: []string{s.Addr}, Password: "topsecret"}, s.Addr},
	} {
		t.Run(name, func(t *testing.T) {
			// A third of it is for the Sentinels, of which one that is gone has to be found to be so.
			tb := open(t, Options{URL: "redis://localhost", Password: "secret", Sentinel: tt.s, Timeout: 5 * time.Second})
			var all sync.WaitGroup
			for call, f := range calls(t, tb, routing.Position{Incarnation: "x", Term: 1, Revision: 1}) {
				all.Go(func() {
					began := time.Now()
					err := f()
					if took := time.Since(began); took > 40*time.Second {
						t.Errorf("%s took %v", call, took)
					}
					unavailable(t, call, err, tt.hint)
					if err != nil && strings.Contains(err.Error(), "topsecret") {
						t.Errorf("%s tells the password: %v", call, err)
					}
				})
			}
			all.Wait()
		})
	}
	// One of three that answers is enough.
	tb := open(t, Options{URL: "redis://localhost", Password: "secret", Sentinel: Sentinel{Master: peers.SentinelName, Addresses: []string{gone, s.Addr, silent.Addr().String()}, Password: "watch"}, Timeout: 10 * time.Second})
	if _, err := tb.Init(t.Context()); err != nil {
		t.Error(err)
	}
}
