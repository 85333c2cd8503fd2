package cluster

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mailcutover/admin"
	"mailcutover/test/peers"
)

// replication is what a server says of its replication; empty if it doesn't answer.
func replication(s *peers.Redis) string { return Ask(s.Addr, "INFO replication") }

// primary returns the server that is the primary now, as its own word goes, with all its
// replicas.
func (c *Cluster) primary(t *testing.T) (at *peers.Redis) {
	t.Helper()
	Until(t, "a primary with replicas", func() bool {
		for _, s := range c.Servers {
			info := replication(s)
			if strings.Contains(info, "role:master") && strings.Count(info, "state=online") >= c.o.Replicas &&
				strings.Count(info, "lag=0")+strings.Count(info, "lag=1") >= c.o.Replicas {
				at = s
				return true
			}
		}
		return false
	})
	return at
}

// failOver kills the primary, or stops it with SIGSTOP, waits for another one, and lets the
// old one come back, which becomes a replica. Nothing that was confirmed is lost.
func (c *Cluster) failOver(t *testing.T, stop bool) {
	t.Helper()
	old := c.primary(t)
	if !stop {
		old.Kill()
	} else if err := old.Pause(); err != nil {
		t.Fatal(err)
	}
	// The old one must not come back before all Sentinels name the new one: until then they
	// may send the nodes to what it had.
	Until(t, "another primary", func() bool {
		_, port, _ := strings.Cut(old.Addr, ":")
		for _, s := range c.Sentinels {
			if named := Ask(s.Addr, "SENTINEL GET-MASTER-ADDR-BY-NAME "+peers.SentinelName); named == "" || strings.Contains(named, port) {
				return false
			}
		}
		return true
	})
	back := old.Resume
	if !stop {
		back = func() error { return old.Start(t.Context()) }
	}
	if err := back(); err != nil {
		t.Fatal(err)
	}
}

// serves waits until the table takes changes and all nodes decide for all agencies.
func (c *Cluster) serves(t *testing.T) {
	t.Helper()
	Until(t, "the table to take changes", func() bool {
		n, err := c.Nodes[0].API.Nodes(t.Context())
		return err == nil && n.Rejoining == ""
	})
	for _, n := range c.Nodes {
		c.Serves(t, n)
	}
}

// Sentinel makes another server the primary, under load and in the middle of an operation,
// CLUSTER_FAILOVERS times (twice without it) or for CLUSTER_SECONDS, by turns since the primary died and since it
// stood still: nothing that was confirmed is lost, settled agencies notice nothing, and
// armed ones open by themselves.
func TestFailover(t *testing.T) {
	t.Parallel()
	failovers, within := wanted(t, "CLUSTER_FAILOVERS", 2), time.Duration(wanted(t, "CLUSTER_SECONDS", 600))*time.Second
	c := start(t, Options{Replicas: 2, Settled: 2 * time.Minute, Logins: true})
	l := c.load(t.Context())
	c.logIn(t.Context())
	var longest time.Duration
	done := 0
	for i, end := 0, time.Now().Add(within); i < failovers && time.Now().Before(end); i++ {
		l.more(t, 60)
		end := c.Trouble("failover", -1, "parks")
		o := c.begin(t, c.Nodes[i%len(c.Nodes)], "health")
		began := time.Now()
		c.failOver(t, i%2 == 1)
		moved := time.Since(began)
		c.serves(t)
		all := time.Since(began)
		longest = max(longest, all)
		end()
		t.Logf("failover %d: another primary after %s, all agencies served after %s", i+1, moved, all)
		o.finish(t)
		done++
	}
	l.more(t, 60)
	c.begin(t, c.Nodes[0], "health").finish(t)
	l.more(t, 60)
	v := c.end(t)
	t.Logf("%d lossless failovers of %d, %d operations done and %d undone, nobody had to help; longest until all agencies were served: %s", done, failovers, v.Done, v.Undo, longest)
}

// Redis is away for longer than the short lease: armed agencies' mail is put off, settled
// ones go on, nothing is refused, and all flows when it is back. An operation that was
// under way ends by itself.
func TestRedisAwayLongerThanTheArmedLease(t *testing.T) {
	t.Parallel()
	c := start(t, Options{Settled: 90 * time.Second, Armed: 2 * time.Second, Logins: true})
	l := c.load(t.Context())
	c.logIn(t.Context())
	l.more(t, 60)
	o := c.begin(t, c.Nodes[1], "health")
	end := c.Trouble("Redis does not answer", -1, "parks")
	if err := c.Servers[0].Pause(); err != nil {
		t.Fatal(err)
	}
	Until(t, "mail of an armed agency to be put off by all nodes", func() bool {
		off := make(map[int]bool)
		for _, m := range l.Sent() {
			if !strings.HasSuffix(m.Rcpt, "@parks.example") || len(m.Tries) == 0 {
				continue
			}
			if last := m.Tries[len(m.Tries)-1]; strings.HasPrefix(last.Answer, "451 4.4.3") {
				off[m.Node] = true
			}
		}
		return len(off) == len(c.Nodes)
	})
	l.more(t, 100) // of settled agencies
	if err := c.Servers[0].Resume(); err != nil {
		t.Fatal(err)
	}
	c.serves(t)
	end()
	o.finish(t)
	l.more(t, 60)
	c.end(t)
}

// Whatever is wrong with Redis, nothing becomes a permanent answer or a wrong route, and
// where it loses nothing all goes on when it is well again.
func TestRedisTrouble(t *testing.T) {
	t.Parallel()
	c := start(t, Options{Settled: 3 * time.Second, Armed: 1500 * time.Millisecond})
	redis := c.Servers[0]
	// The leases are short, so that each trouble is felt soon: a node that gets no processor for
	// two seconds may put mail off in between, too.
	c.Trouble("short leases", -1, "")
	l := c.load(t.Context())
	l.more(t, 60)
	everybody := func(t *testing.T, set func(w *Wire)) {
		for _, n := range c.Nodes {
			set(n.Redis)
		}
	}
	cli := func(args ...string) func(t *testing.T) {
		return func(t *testing.T) {
			if out := redis.CLI(t, args...); out != "OK" && out != "1" && out != "0" {
				t.Fatalf("redis %v: %s", args, out)
			}
		}
	}
	type step = func(t *testing.T)
	incarnation, backup := "", ""
	for _, row := range []struct {
		name        string
		spoil, heal step
	}{
		{"emptied, and restored at once",
			func(t *testing.T) {
				backup = saved(t, redis)
				cli("FLUSHALL")(t)
			},
			func(t *testing.T) { restore(t, redis, backup) }},
		{"down",
			func(t *testing.T) { redis.Kill() },
			func(t *testing.T) {
				if err := redis.Start(t.Context()); err != nil {
					t.Fatal(err)
				}
			}},
		{"unreachable",
			func(t *testing.T) { everybody(t, (*Wire).Cut) },
			func(t *testing.T) { everybody(t, (*Wire).Mend) }},
		{"hung",
			func(t *testing.T) { everybody(t, (*Wire).Silence) },
			func(t *testing.T) { everybody(t, (*Wire).Mend) }},
		{"slow",
			func(t *testing.T) { everybody(t, func(w *Wire) { w.Delay(3 * time.Second) }) },
			func(t *testing.T) { everybody(t, func(w *Wire) { w.Delay(0) }) }},
		{"memory full", cli("CONFIG", "SET", "maxmemory", "1"), cli("CONFIG", "SET", "maxmemory", "0")},
		{"READONLY",
			func(t *testing.T) {
				cli("CONFIG", "SET", "replica-serve-stale-data", "yes")(t)
				cli("REPLICAOF", "127.0.0.1", "1")(t)
			},
			cli("REPLICAOF", "NO", "ONE")},
		{"NOREPLICAS", cli("CONFIG", "SET", "min-replicas-to-write", "1"), cli("CONFIG", "SET", "min-replicas-to-write", "0")},
		{"a key of the wrong type",
			func(t *testing.T) {
				cli("RENAME", "{mc}:lease", "{mc}:aside")(t)
				cli("SET", "{mc}:lease", "text")(t)
			},
			cli("RENAME", "{mc}:aside", "{mc}:lease")},
		{"of another incarnation",
			func(t *testing.T) {
				incarnation = redis.CLI(t, "HGET", "{mc}:meta", "incarnation")
				cli("HSET", "{mc}:meta", "incarnation", "00000000-0000-4000-8000-000000000000")(t)
			},
			func(t *testing.T) { cli("HSET", "{mc}:meta", "incarnation", incarnation)(t) }},
	} {
		ok := t.Run(row.name, func(t *testing.T) {
			end := c.Trouble(row.name, -1, "")
			row.spoil(t)
			before := len(l.Sent())
			Until(t, "mail to be put off by all nodes", func() bool { return c.putOff(l, before) })
			row.heal(t)
			c.serves(t)
			end()
			l.more(t, 60)
		})
		if !ok {
			t.Fatalf("with Redis %s", row.name)
		}
	}
	c.begin(t, c.Nodes[0], "health").finish(t)
	l.more(t, 60)
	c.end(t)
}

// putOff reports whether each node's last answer about a settled agency was a 4yz.
func (c *Cluster) putOff(l *Load, since int) bool {
	off := make(map[int]bool)
	for _, m := range l.Sent()[max(0, since-50):] {
		if len(m.Tries) > 0 && strings.HasSuffix(m.Rcpt, "@roads.example") {
			off[m.Node] = strings.HasPrefix(m.Tries[len(m.Tries)-1].Answer, "451 4.4.3")
		}
	}
	for i := range c.Nodes {
		if !off[i] {
			return false
		}
	}
	return true
}

// saved copies what a server has on disk.
func saved(t *testing.T, redis *peers.Redis) (dir string) {
	t.Helper()
	dir = peers.TempDir(t, "backup")
	if err := os.CopyFS(filepath.Join(dir, "appendonlydir"), os.DirFS(filepath.Join(redis.Dir, "appendonlydir"))); err != nil {
		t.Fatal(err)
	}
	return dir
}

// restore starts a server again with what was saved.
func restore(t *testing.T, redis *peers.Redis, dir string) {
	t.Helper()
	redis.Kill()
	data := filepath.Join(redis.Dir, "appendonlydir")
	if err := os.RemoveAll(data); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(data, os.DirFS(filepath.Join(dir, "appendonlydir"))); err != nil {
		t.Fatal(err)
	}
	if err := redis.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// act proposes something and does it, as the lab lets one person.
func (c *Cluster) act(t *testing.T, kind, agency string) {
	t.Helper()
	api := c.Nodes[0].API
	said, tried := "", false
	Until(t, kind+" "+agency, func() bool {
		in := admin.NewProposal{Kind: kind, Agency: agency, Reason: "test"}
		if kind == "unlock" {
			a, err := api.Agency(t.Context(), agency)
			if err != nil || tried && a.Open {
				return err == nil // done by the try before, whatever it was told
			}
			in.ExpectedEpoch = a.Epoch
		}
		p, err := api.Propose(t.Context(), in)
		if err == nil {
			_, err = api.StartProposal(t.Context(), p.ID)
		}
		if err != nil && err.Error() != said {
			said = err.Error()
			t.Logf("%s %s: %s", kind, agency, said)
		}
		if err != nil && tried && strings.Contains(said, "nothing to do") {
			return true // by the try before, whose answer was another error
		}
		tried = true
		return err == nil
	})
}

// rejoined waits until the table takes changes again, by itself or else by people's word.
func (c *Cluster) rejoined(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(8 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if n, err := c.Nodes[0].API.Nodes(t.Context()); err == nil && n.Rejoining == "" {
			t.Log("the table takes changes again, by itself")
			return
		}
	}
	n, err := c.Nodes[0].API.Nodes(t.Context())
	t.Logf("the table waits: %s, %v", n.Rejoining, err)
	c.act(t, "end-rejoin", "")
}

// closed waits until no node gives health's mail to a platform, and returns that it
// stays so while mail of others flows.
func (c *Cluster) closed(t *testing.T, l *Load) {
	t.Helper()
	for _, n := range c.Nodes {
		Until(t, "health to be closed at "+n.Name, func() bool {
			r, err := n.API.Route(t.Context(), "address", Mailbox("health", 1))
			if err != nil || r.Deliver {
				return false
			}
			a, err := n.API.Agency(t.Context(), "health") // a dot that was sent before may arrive still
			return err == nil && a.UnderWay.Dotted == 0
		})
	}
	before := c.count(t, "health")
	l.more(t, 100)
	if n := c.count(t, "health") - before; n > 0 {
		t.Errorf("%d messages of a closed agency arrived", n)
	}
}

// count returns how many messages of an agency have arrived.
func (c *Cluster) count(t *testing.T, agency string) (n int) {
	t.Helper()
	all, err := c.Arrivals()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		if strings.HasSuffix(a.Rcpt, "@"+agency+".example") {
			n++
		}
	}
	return n
}

// An old backup is restored, from before a cutover that was told as done: the agency stays
// closed until people have looked, and nothing goes to its old side, ever.
func TestOldBackup(t *testing.T) {
	t.Parallel()
	c := start(t, Options{Settled: 90 * time.Second})
	l := c.load(t.Context())
	l.more(t, 60)
	backup := saved(t, c.Servers[0])
	c.Switch(t, c.Nodes[0], "health")
	l.more(t, 60)
	end := c.Trouble("old backup", -1, "parks")
	reading := c.Trouble("the copy is read anew", -1, "")
	restore(t, c.Servers[0], backup)
	c.closed(t, l)
	c.rejoined(t)
	reading()
	c.closed(t, l)
	c.act(t, "reconcile", "health")
	c.closed(t, l)
	c.act(t, "unlock", "health")
	c.serves(t)
	end()
	l.more(t, 60)
	c.begin(t, c.Nodes[1], "health").finish(t)
	l.more(t, 60)
	c.end(t)
}

// A failover loses a lock that all nodes have seen, since both replicas hung: the agency
// stays closed until people have looked.
func TestFailoverThatLosesWrites(t *testing.T) {
	t.Parallel()
	c := start(t, Options{Replicas: 2, Settled: 90 * time.Second})
	l := c.load(t.Context())
	l.more(t, 60)
	primary := c.primary(t)
	// For long enough to take the lock it counts replicas that hang.
	if out := primary.CLI(t, "CONFIG", "SET", "min-replicas-max-lag", "60"); out != "OK" {
		t.Fatal(out)
	}
	var others []*peers.Redis
	for _, s := range c.Servers {
		if s != primary {
			others = append(others, s)
			if err := s.Pause(); err != nil {
				t.Fatal(err)
			}
		}
	}
	end := c.Trouble("failover that loses writes", -1, "parks")
	c.Trouble("lock", -1, "health")
	locked := make(chan error, 1)
	go func() {
		_, err := c.Nodes[0].API.Lock(t.Context(), "health", "", "test")
		locked <- err
	}()
	for _, n := range c.Nodes {
		Until(t, "the lock to be seen by "+n.Name, func() bool {
			a, err := n.API.Agency(t.Context(), "health")
			return err == nil && !a.Open
		})
	}
	primary.Kill()
	for _, s := range others {
		if err := s.Resume(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("lock: %v", <-locked)
	Until(t, "another primary", func() bool {
		for _, s := range others {
			if strings.Contains(replication(s), "role:master") {
				return true
			}
		}
		return false
	})
	if err := primary.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.primary(t)
	c.rejoined(t)
	c.closed(t, l)
	if a, err := c.Nodes[1].API.Agency(t.Context(), "health"); err != nil || a.Open {
		t.Errorf("%+v, %v", a, err)
	}
	c.act(t, "reconcile", "health")
	c.closed(t, l)
	c.act(t, "unlock", "health")
	c.serves(t)
	end()
	l.more(t, 60)
	c.end(t)
}

// A replica is away when a commit has to be confirmed: the operation stays committed and
// closed, and opens when the replica is back.
func TestReplicaMissingAtConfirm(t *testing.T) {
	t.Parallel()
	c := start(t, Options{Replicas: 2, Settled: 60 * time.Second})
	l := c.load(t.Context())
	l.more(t, 60)
	if err := c.Arm(t.Context(), c.Nodes[0], "health"); err != nil {
		t.Fatal(err)
	}
	primary := c.primary(t)
	away := c.Servers[0]
	if away == primary {
		away = c.Servers[1]
	}
	away.Kill()
	o := c.begin(t, c.Nodes[0], "health")
	Until(t, "the operation to wait for the replica", func() bool {
		op, err := c.Nodes[0].API.Operation(t.Context(), o.ID)
		return err == nil && op.Step == "publish"
	})
	c.closed(t, l)
	if err := away.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if op := o.finish(t); op.Step != "done" {
		t.Errorf("%+v", op)
	}
	l.more(t, 60)
	c.end(t)
}
