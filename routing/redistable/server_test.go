package redistable

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"mailcutover/routing"
	"mailcutover/routing/table"
	"mailcutover/test/peers"
)

// users returns the lines of configs/redis/users.acl for other keys.
func users(t *testing.T, keys string) []string {
	t.Helper()
	root, err := peers.Root()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(root, "configs", "redis", "users.acl"))
	if err != nil {
		t.Fatal(err)
	}
	const theirs = "~{mc}:*"
	if !strings.Contains(string(b), theirs) {
		t.Fatalf("users.acl doesn't name %s", theirs)
	}
	return strings.Split(strings.TrimSpace(strings.ReplaceAll(string(b), theirs, keys)), "\n")
}

// unavailable checks that err is table.ErrUnavailable, says hint, and that nothing of the
// Redis client can be got out of it.
func unavailable(t *testing.T, call string, err error, hint string) {
	t.Helper()
	var foreign redis.Error
	if !errors.Is(err, table.ErrUnavailable) || errors.Is(err, redis.Nil) || errors.As(err, &foreign) {
		t.Errorf("%s: %v (%T), want %v and nothing else", call, err, err, table.ErrUnavailable)
	} else if !strings.Contains(err.Error(), hint) {
		t.Errorf("%s: %q doesn't say %q", call, err, hint)
	}
}

// begun starts a Redis and a table in it that has one agency.
func begun(t testing.TB, o Options, ro peers.RedisOptions) (*peers.Redis, *Table, routing.Position) {
	t.Helper()
	ro.Password = "secret"
	r := peers.StartRedis(t, ro)
	o.URL = r.URL()
	tb := open(t, o)
	pos, err := tb.Init(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	pos, err = tb.Change(t.Context(), add(t, pos, "health"))
	if err != nil {
		t.Fatal(err)
	}
	return r, tb, pos
}

// add is the change that adds an agency.
func add(t testing.TB, pos routing.Position, id routing.AgencyID) table.Change {
	t.Helper()
	a, err := routing.NewAgency(id, "exchange", "ox")
	if err != nil {
		t.Fatal(err)
	}
	return table.Change{ID: "add " + string(id), Incarnation: pos.Incarnation, Term: pos.Term, Agencies: []routing.Agency{a.InTerm(pos.Term)}}
}

// renewal is one by a node that has seen everything.
func renewal(pos routing.Position, node routing.NodeID, instance routing.InstanceID) table.Renewal {
	return table.Renewal{
		Incarnation: pos.Incarnation, Term: pos.Term, Applied: pos.Revision, Short: 2 * time.Second, Long: 10 * time.Second,
		Member: routing.Member{Node: node, Instance: instance, Protocol: table.Protocol},
	}
}

// calls lists every call that reads or writes.
func calls(t *testing.T, tb *Table, pos routing.Position) map[string]func() error {
	t.Helper()
	m := mapping(t, 1)
	ctx := t.Context()
	return map[string]func() error{
		"Init":       func() error { _, err := tb.Init(ctx); return err },
		"Position":   func() error { _, err := tb.Position(ctx); return err },
		"Snapshot":   func() error { _, err := tb.Snapshot(ctx); return err },
		"Mapping":    func() error { _, err := tb.Mapping(ctx, m.Agency(), m.Digest()); return err },
		"PutMapping": func() error { return tb.PutMapping(ctx, m) },
		"Change":     func() error { _, err := tb.Change(ctx, add(t, pos, "roads")); return err },
		"Renew":      func() error { _, err := tb.Renew(ctx, renewal(pos, "n1", "i1")); return err },
		"Check": func() error {
			return tb.Check(ctx, table.Check{Incarnation: pos.Incarnation, Node: "n1", Instance: "i1", Agencies: []table.AgencyEpoch{{Agency: "health", Epoch: routing.Epoch{Term: 1, Number: 1}}}})
		},
		"Nodes":      func() error { _, err := tb.Nodes(ctx); return err },
		"Operations": func() error { _, err := tb.Operations(ctx); return err },
		"Confirm":    func() error { return tb.Confirm(ctx) },
		"Follow":     func() error { return quietFollow(ctx, tb, pos) },
	}
}

// quietFollow follows at an interval of 100 ms and stops at the first sign of life.
func quietFollow(ctx context.Context, tb *Table, pos routing.Position) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	return tb.Follow(ctx, pos, 100*time.Millisecond, func(table.Entry) error { return nil }, func(time.Time, routing.Position) { cancel() })
}

func mapping(t testing.TB, n int) *routing.Mapping {
	t.Helper()
	rows := make([]routing.Row, n)
	for i := range rows {
		rows[i] = routing.Row{
			Mailbox:   routing.MailboxID{1, 12: byte(i >> 24), 13: byte(i >> 16), 14: byte(i >> 8), 15: byte(i)},
			Kind:      routing.KindUser,
			Addresses: []routing.Address{routing.Address(fmt.Sprintf("user%d@health.example", i)), routing.Address(fmt.Sprintf("first.last%d@health.example", i))},
			Logins:    []routing.Login{routing.Login(fmt.Sprintf(`amt\user%d`, i))},
		}
	}
	m, err := routing.NewMapping("health", rows)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// follow follows in a goroutine, which the test's end ends.
func follow(t *testing.T, tb *Table, pos routing.Position) (alive chan routing.Position, ended chan error) {
	ctx, cancel := context.WithCancel(t.Context())
	alive, ended = make(chan routing.Position, 1000), make(chan error, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		ended <- tb.Follow(ctx, pos, 100*time.Millisecond, func(table.Entry) error { return nil }, func(_ time.Time, pos routing.Position) {
			select {
			case alive <- pos:
			case <-ctx.Done():
			}
		})
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	select {
	case <-alive:
	case err := <-ended:
		t.Fatalf("Follow ended: %v", err)
	case <-time.After(time.Minute):
		t.Fatal("no sign of life")
	}
	return alive, ended
}

func wantEnd(t *testing.T, ended chan error, want error) {
	t.Helper()
	select {
	case err := <-ended:
		if !errors.Is(err, want) {
			t.Errorf("Follow ended with %v, want %v", err, want)
		}
	case <-time.After(time.Minute):
		t.Errorf("Follow did not end, want %v", want)
	}
}

// A server that was stopped keeps its connections and takes new ones, and says nothing.
func TestHungServerKeepsNobodyWaiting(t *testing.T) {
	const timeout, busy = 250 * time.Millisecond, 20 * time.Second // BulkTimeout is far beyond both
	r, tb, pos := begun(t, Options{}, peers.RedisOptions{})        // patient, as long as the server isn't stopped
	follower := open(t, Options{URL: r.URL(), Timeout: 2 * time.Second, BulkTimeout: time.Minute})
	hasty := open(t, Options{URL: r.URL(), Timeout: timeout, BulkTimeout: time.Minute})
	_, ended := follow(t, follower, pos)
	if err := r.Pause(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	wantEnd(t, ended, table.ErrUnavailable)
	if took := time.Since(began); took > 100*time.Millisecond+2*follower.o.Timeout+busy {
		t.Errorf("Follow took %v to notice", took)
	}
	for name, call := range calls(t, hasty, pos) {
		began := time.Now()
		unavailable(t, name, call(), "")
		if took := time.Since(began); took > timeout+busy {
			t.Errorf("%s took %v at a timeout of %v", name, took, timeout)
		}
	}
	if err := r.Resume(); err != nil {
		t.Fatal(err)
	}
	peers.WaitFor(t, time.Minute, "answer after the pause", func() bool {
		_, err := tb.Position(t.Context())
		return err == nil
	})
	// The change may have happened when the server woke up: to send it again is the way
	// to know.
	if _, err := tb.Change(t.Context(), add(t, pos, "roads")); err != nil {
		t.Errorf("change sent again: %v", err)
	}
}

func TestServerThatWasKilledHasEverything(t *testing.T) {
	r, tb, pos := begun(t, Options{}, peers.RedisOptions{})
	_, ended := follow(t, tb, pos)
	r.Kill()
	wantEnd(t, ended, table.ErrUnavailable)
	for name, call := range calls(t, tb, pos) {
		unavailable(t, name, call(), "")
	}
	if err := r.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	var now routing.Position
	peers.WaitFor(t, time.Minute, "answer after the restart", func() bool {
		var err error
		now, err = tb.Position(t.Context())
		return err == nil
	})
	if now != pos {
		t.Errorf("after the restart: %+v, want %+v", now, pos)
	}
	// Scripts don't outlive a server. It is another one until a node has renewed.
	if _, err := tb.Change(t.Context(), add(t, pos, "roads")); !errors.Is(err, table.ErrRejoining) {
		t.Errorf("Change: %v, want %v", err, table.ErrRejoining)
	}
	renewed, err := tb.Renew(t.Context(), renewal(pos, "n1", "i1"))
	if err != nil || !renewed.Armed || renewed.Position.Term != 2 {
		t.Errorf("Renew: %+v, %v", renewed, err)
	}
	pos = renewed.Position
	if after, err := tb.Change(t.Context(), add(t, pos, "roads")); err != nil || after.Revision != pos.Revision+1 {
		t.Errorf("Change: %+v, %v", after, err)
	}
}

func TestScriptsThatWereFlushedAreSentAgain(t *testing.T) {
	r, tb, pos := begun(t, Options{}, peers.RedisOptions{})
	r.CLI(t, "SCRIPT", "FLUSH")
	if _, err := tb.Change(t.Context(), add(t, pos, "roads")); err != nil {
		t.Error(err)
	}
	r.CLI(t, "SCRIPT", "FLUSH")
	if err := tb.PutMapping(t.Context(), mapping(t, 1)); err != nil {
		t.Error(err)
	}
}

// What happens to the table behind the back of one who follows it, and how that ends.
func TestFollowNotices(t *testing.T) {
	r, first, _ := begun(t, Options{}, peers.RedisOptions{})
	first.Close()
	n := 0
	for name, tt := range map[string]struct {
		do   func(t *testing.T, cli func(args ...string), tb *Table)
		want error
	}{
		"a flushed table":             {func(t *testing.T, cli func(...string), _ *Table) { cli("FLUSHALL") }, table.ErrEmpty},
		"a new table":                 {func(t *testing.T, _ func(...string), tb *Table) { replace(t, tb, 0) }, table.ErrIncarnation},
		"a new table of many changes": {func(t *testing.T, _ func(...string), tb *Table) { replace(t, tb, 5) }, table.ErrIncarnation},
		"an older table":              {func(t *testing.T, cli func(...string), tb *Table) { cli("HSET", tb.key("meta"), "revision", "1") }, table.ErrRegressed},
		"a newer format":              {func(t *testing.T, cli func(...string), tb *Table) { cli("HSET", tb.key("meta"), "format", "99") }, table.ErrUnavailable},
		"a log that is gone": {func(t *testing.T, cli func(...string), tb *Table) {
			cli("DEL", tb.key("log"))
			cli("HSET", tb.key("meta"), "revision", "9")
		}, table.ErrGap},
		"a hole in the log": {func(t *testing.T, cli func(...string), tb *Table) {
			cli("XADD", tb.key("log"), "4-0", "incarnation", incarnation(t, tb), "mapped", "1", "term", "1", "time", "1", "records", "{}")
		}, table.ErrGap},
		"foreign log entry": {func(t *testing.T, cli func(...string), tb *Table) { cli("XADD", tb.key("log"), "3-1", "a", "b") }, table.ErrUnavailable},
		"a log of a wrong type": {func(t *testing.T, cli func(...string), tb *Table) {
			cli("SET", tb.key("log"), "x")
		}, table.ErrUnavailable},
	} {
		n++
		prefix := fmt.Sprintf("{%d}", n)
		t.Run(name, func(t *testing.T) {
			tb := open(t, Options{URL: r.URL(), Prefix: prefix})
			pos, err := tb.Init(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if pos, err = tb.Change(t.Context(), add(t, pos, "health")); err != nil {
				t.Fatal(err)
			}
			_, ended := follow(t, tb, pos)
			tt.do(t, func(args ...string) { r.CLI(t, args...) }, tb)
			wantEnd(t, ended, tt.want)
		})
	}
}

// replace puts a new table of some changes into the place of tb, at once.
func replace(t *testing.T, tb *Table, changes int) {
	t.Helper()
	o := tb.o
	o.Prefix += "new"
	other := open(t, o)
	pos, err := other.Init(t.Context())
	for i := 0; i < changes && err == nil; i++ {
		_, err = other.Change(t.Context(), add(t, pos, routing.AgencyID(fmt.Sprint("a", i))))
	}
	if err != nil {
		t.Fatal(err)
	}
	keys := []string{"meta", "log"}
	if changes > 0 {
		keys = append(keys, "agency", "applied")
	}
	if _, err := tb.writes.TxPipelined(t.Context(), func(p redis.Pipeliner) error {
		for _, key := range keys {
			p.Rename(t.Context(), other.key(key), tb.key(key))
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

func incarnation(t *testing.T, tb *Table) string {
	t.Helper()
	pos, err := tb.Position(t.Context())
	if err != nil {
		t.Error(err)
	}
	return string(pos.Incarnation)
}

// Redis keeps what a failing script wrote: so a change with a wrong key must fail before
// its first write.
func TestWrongTypeLeavesEverythingAsItWas(t *testing.T) {
	for _, name := range []string{"meta", "agency", "domain", "fixed", "log", "applied", "confirm", "map"} {
		t.Run(name, func(t *testing.T) {
			r, tb, pos := begun(t, Options{}, peers.RedisOptions{})
			m := mapping(t, 1)
			if err := tb.PutMapping(t.Context(), m); err != nil {
				t.Fatal(err)
			}
			key := tb.key(name)
			if name == "map" {
				key = tb.mappingKey(m.Agency(), m.Digest())
			}
			r.CLI(t, "DEL", key)
			r.CLI(t, "LPUSH", key, "foreign")
			before := dump(t, r, tb)
			c := add(t, pos, "roads")
			health := c.Agencies[0]
			health.ID, health.Revision, health.Mapping = "health", pos.Revision, m.Digest()
			c.Mapped, c.Agencies = pos.Mapped, append(c.Agencies, health)
			c.Domains, c.Fixed = []routing.Domain{{Name: "a.example"}}, []routing.Fixed{{Address: "a@a.example"}}
			_, err := tb.Change(t.Context(), c)
			unavailable(t, "Change", err, "")
			if after := dump(t, r, tb); after != before {
				t.Errorf("before:\n%s\nafter:\n%s", before, after)
			}
		})
	}
}

// dump shows all keys but the mappings and Confirm's.
func dump(t *testing.T, r *peers.Redis, tb *Table) string {
	t.Helper()
	var b strings.Builder
	for _, name := range []string{"meta", "agency", "domain", "fixed", "log", "applied"} {
		fmt.Fprintf(&b, "%s %q\n", name, r.CLI(t, "DUMP", tb.key(name)))
	}
	return b.String()
}

// What a server refuses, it refuses as a whole, and the table says why.
func TestServerThatRefuses(t *testing.T) {
	for name, tt := range map[string]struct {
		setting, value, back string
		hint                 string
	}{
		"memory full":      {"maxmemory", "1", "0", "memory is full"},
		"too few replicas": {"min-replicas-to-write", "1", "0", "too few replicas"},
	} {
		t.Run(name, func(t *testing.T) {
			r, tb, pos := begun(t, Options{}, peers.RedisOptions{})
			r.CLI(t, "CONFIG", "SET", tt.setting, tt.value)
			before := dump(t, r, tb)
			_, err := tb.Change(t.Context(), add(t, pos, "roads"))
			unavailable(t, "Change", err, tt.hint)
			unavailable(t, "PutMapping", tb.PutMapping(t.Context(), mapping(t, 1)), tt.hint)
			unavailable(t, "Confirm", tb.Confirm(t.Context()), tt.hint)
			if after := dump(t, r, tb); after != before {
				t.Errorf("before:\n%s\nafter:\n%s", before, after)
			}
			if now, err := tb.Position(t.Context()); err != nil || now != pos {
				t.Errorf("Position: %+v, %v; want %+v", now, err, pos)
			}
			r.CLI(t, "CONFIG", "SET", tt.setting, tt.back)
			if _, err := tb.Change(t.Context(), add(t, pos, "roads")); err != nil {
				t.Errorf("Change afterwards: %v", err)
			}
		})
	}
}

func TestReplicas(t *testing.T) {
	settings := map[string]string{"masterauth": "secret", "repl-diskless-sync-delay": "0"}
	r, tb, pos := begun(t, Options{Replicas: 1, BulkTimeout: 5 * time.Second}, peers.RedisOptions{Settings: settings})
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	unavailable(t, "Confirm without the replica", tb.Confirm(ctx), "")

	replica := peers.StartRedis(t, peers.RedisOptions{Password: "secret", Settings: settings})
	host, port, _ := strings.Cut(r.Addr, ":")
	replica.CLI(t, "REPLICAOF", host, port)
	peers.WaitFor(t, time.Minute, "confirmation by the replica", func() bool { return tb.Confirm(t.Context()) == nil })
	two := open(t, Options{URL: r.URL(), Replicas: 2, BulkTimeout: 5 * time.Second, Timeout: 100 * time.Millisecond})
	short, cancelShort := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancelShort()
	unavailable(t, "Confirm with one replica of two", two.Confirm(short), "")

	// A replica has all of it, and is not believed.
	old := open(t, Options{URL: replica.URL()})
	for name, call := range calls(t, old, pos) {
		unavailable(t, name, call(), "the server is a replica")
	}

	// So does a primary that becomes one, to those who are connected.
	_, ended := follow(t, tb, pos)
	replica.CLI(t, "REPLICAOF", "NO", "ONE")
	host, port, _ = strings.Cut(replica.Addr, ":")
	r.CLI(t, "REPLICAOF", host, port)
	wantEnd(t, ended, table.ErrUnavailable)
	// Not in the moment in which it reads the other one's data.
	peers.WaitFor(t, time.Minute, "replication", func() bool {
		return strings.Contains(r.CLI(t, "INFO", "replication"), "master_link_status:up")
	})
	_, err := tb.Change(t.Context(), add(t, pos, "roads"))
	unavailable(t, "Change", err, "the server is a replica")
	_, err = tb.Position(t.Context())
	unavailable(t, "Position", err, "the server is a replica")
}

func TestWrongCredentials(t *testing.T) {
	r := peers.StartRedis(t, peers.RedisOptions{ACL: users(t, "~{mc}:*")})
	url := "redis://" + r.Addr
	for name, tt := range map[string]struct {
		o    Options
		hint string
	}{
		"no password":    {Options{URL: url}, "password"},
		"wrong password": {Options{URL: url, Username: "mailcutover", Password: "topsecret"}, "wrong user or password"},
		"other keys":     {Options{URL: url, Username: "mailcutover", Password: "change-me", Prefix: "{other}"}, "lacks a right"},
	} {
		t.Run(name, func(t *testing.T) {
			tb := open(t, tt.o)
			for name, call := range calls(t, tb, routing.Position{Incarnation: "x"}) {
				err, hint := call(), tt.hint
				if tt.o.Password == "" && (name == "Change" || name == "Renew" || name == "Check") {
					hint = "" // Redis may close the connection before the long request was sent
				}
				unavailable(t, name, err, hint)
				if strings.Contains(err.Error(), "topsecret") {
					t.Errorf("%s tells the password: %v", name, err)
				}
			}
		})
	}
	c := redis.NewClient(&redis.Options{Addr: r.Addr, Username: "mailcutover", Password: "change-me"})
	defer c.Close()
	for _, command := range [][]any{{"FLUSHALL"}, {"KEYS", "*"}, {"CONFIG", "GET", "*"}, {"SHUTDOWN"}, {"DEL", "{mc}:meta"}, {"GET", "other"}, {"ACL", "LIST"}, {"XTRIM", "{mc}:log", "MAXLEN", "0"}} {
		if err := c.Do(t.Context(), command...).Err(); !redis.HasErrorPrefix(err, "NOPERM") {
			t.Errorf("%v: %v, want NOPERM", command, err)
		}
	}
}

func TestLostAnswerCountsOnce(t *testing.T) {
	r, direct, pos := begun(t, Options{}, peers.RedisOptions{})
	proxy := startCutter(t, r.Addr)
	tb := open(t, Options{URL: strings.Replace(r.URL(), r.Addr, proxy.addr, 1)})
	for i := range 5 {
		c := add(t, pos, routing.AgencyID(fmt.Sprint("agency-", i)))
		before, err := direct.Position(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tb.Position(t.Context()); err != nil { // a connection is there
			t.Fatal(err)
		}
		if _, err := tb.Init(t.Context()); err != nil { // and one for changes
			t.Fatal(err)
		}
		proxy.loseNext()
		_, err = tb.Change(t.Context(), c)
		unavailable(t, "Change whose answer was lost", err, "")
		var now routing.Position
		peers.WaitFor(t, time.Minute, "change", func() bool {
			now, err = direct.Position(t.Context())
			return err == nil && now.Revision > before.Revision
		})
		for range 2 {
			if again, err := tb.Change(t.Context(), c); err != nil || again != now || again.Revision != before.Revision+1 {
				t.Errorf("sent again: %+v, %v; want %+v", again, err, now)
			}
		}
	}
	u, err := direct.Snapshot(t.Context())
	if err != nil || len(u.Agencies) != 6 || u.Position.Revision != pos.Revision+5 {
		t.Errorf("snapshot: %+v, %v", u, err)
	}
}

func TestMappingThatIsDamagedOrUnfinished(t *testing.T) {
	r, tb, _ := begun(t, Options{}, peers.RedisOptions{})
	m := mapping(t, 5000)
	key := tb.mappingKey(m.Agency(), m.Digest())
	load := func() error { _, err := tb.Mapping(t.Context(), m.Agency(), m.Digest()); return err }

	// A node died while it stored parts: they go by themselves, and another one's are not
	// touched by them.
	if err := tb.putParts(t.Context(), key, 0, [][]byte{[]byte("half a part")}); err != nil {
		t.Fatal(err)
	}
	if ttl := r.CLI(t, "TTL", key); ttl == "-1" || ttl == "-2" {
		t.Errorf("incomplete mapping has the TTL %s", ttl)
	}
	if err := load(); !errors.Is(err, table.ErrNoMapping) {
		t.Errorf("incomplete mapping: %v", err)
	}
	if err := tb.PutMapping(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if err := tb.putParts(t.Context(), key, 0, [][]byte{[]byte("a straggler's")}); err != nil {
		t.Fatal(err)
	}
	if err := load(); err != nil {
		t.Errorf("complete mapping: %v", err)
	}
	if ttl := r.CLI(t, "TTL", key); ttl != "-1" {
		t.Errorf("complete mapping has the TTL %s", ttl)
	}

	part := r.CLI(t, "HGET", key, partPrefix+"1")
	for name, command := range map[string][]any{
		"missing part":   {"HDEL", key, partPrefix + "1"},
		"another byte":   {"HSET", key, partPrefix + "1", strings.Replace(part, "user", "uzer", 1)},
		"parts swapped":  {"HSET", key, partPrefix + "0", part},
		"unknown mark":   {"HSET", key, "complete", "7"},
		"another digest": {"HSET", key, "complete", fmt.Sprintf("%s 2 %d %s", partPrefix, m.Size(), routing.Digest{1})},
	} {
		t.Run(name, func(t *testing.T) {
			r.CLI(t, "DEL", key)
			if err := tb.PutMapping(t.Context(), m); err != nil {
				t.Fatal(err)
			}
			if err := tb.writes.Do(t.Context(), command...).Err(); err != nil {
				t.Fatal(err)
			}
			unavailable(t, "Mapping", load(), "")
		})
	}
}

func TestRecordsThatAreDamaged(t *testing.T) {
	r, tb, pos := begun(t, Options{}, peers.RedisOptions{})
	good := r.CLI(t, "HGET", tb.key("agency"), "health")
	for _, bad := range []string{"", "x", "1", "1 -", "1 - {", "- - {}", "1 " + strings.Repeat("0", 64) + "x {}", "1 " + strings.Repeat("1", 64) + ` {"id":"health"}`} {
		r.CLI(t, "HSET", tb.key("agency"), "health", bad)
		_, err := tb.Snapshot(t.Context())
		unavailable(t, "Snapshot with "+bad, err, "damaged")
	}
	r.CLI(t, "HSET", tb.key("agency"), "health", good)
	r.CLI(t, "HSET", tb.key("meta"), "revision", "many")
	_, err := tb.Change(t.Context(), add(t, pos, "roads"))
	unavailable(t, "Change", err, "no revision")
	_, err = tb.Position(t.Context())
	unavailable(t, "Position", err, "damaged")
	r.CLI(t, "HSET", tb.key("meta"), "revision", "2", "format", "1")
	for name, call := range calls(t, tb, pos) {
		if name != "Confirm" {
			unavailable(t, name, call(), `its format is "1"`)
		}
	}
	r.CLI(t, "DEL", tb.key("meta"))
	_, err = tb.Init(t.Context())
	unavailable(t, "Init over records", err, "no incarnation")
}

func TestOldIDsAreForgotten(t *testing.T) {
	r, tb, pos := begun(t, Options{}, peers.RedisOptions{})
	tb.keptIDs = 5
	var all []table.Change
	for i := range 20 {
		c := add(t, pos, routing.AgencyID(fmt.Sprint("agency-", i)))
		all = append(all, c)
		if _, err := tb.Change(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	// Two were remembered before the limit was set.
	if n := r.CLI(t, "HLEN", tb.key("applied")); n != "10" {
		t.Errorf("%s fields for 5 ids, want 10", n)
	}
	for _, c := range all[15:] {
		if _, err := tb.Change(t.Context(), c); err != nil {
			t.Errorf("remembered id: %v", err)
		}
	}
	if _, err := tb.Change(t.Context(), all[14]); !errors.Is(err, table.ErrStale) {
		t.Errorf("forgotten id: %v, want %v", err, table.ErrStale)
	}
}

func TestLogIsTrimmed(t *testing.T) {
	r, tb, pos := begun(t, Options{LogLength: 100}, peers.RedisOptions{})
	for i := range 400 {
		if _, err := tb.Change(t.Context(), add(t, pos, routing.AgencyID(fmt.Sprint("agency-", i)))); err != nil {
			t.Fatal(err)
		}
	}
	var n int
	if _, err := fmt.Sscan(r.CLI(t, "XLEN", tb.key("log")), &n); err != nil || n < 100 || n > 250 {
		t.Errorf("%d entries in a log of 100 (%v)", n, err)
	}
}

// Of the operations that ended, the oldest are forgotten; the open ones never.
func TestOldOperationsAreForgotten(t *testing.T) {
	_, tb, pos := begun(t, Options{}, peers.RedisOptions{})
	tb.keptOperations = 3
	send := func(o routing.Operation) routing.Revision {
		t.Helper()
		at, err := tb.Change(t.Context(), table.Change{ID: fmt.Sprint(o.ID, " ", o.Revision), Incarnation: pos.Incarnation, Term: pos.Term, Operations: []routing.Operation{o}})
		if err != nil {
			t.Fatal(err)
		}
		return at.Revision
	}
	again := routing.Operation{ID: "again"}
	again.Revision, again.Ended = send(again), true
	again.Revision, again.Ended = send(again), false
	send(again) // goes on, and so stays
	for i := range 10 {
		o := routing.Operation{ID: routing.OperationID(fmt.Sprint("op-", i))}
		o.Revision, o.Ended = send(o), i != 4
		send(o)
	}
	all, err := tb.Operations(t.Context())
	ids := map[routing.OperationID]bool{}
	for _, o := range all {
		ids[o.ID] = true
	}
	if err != nil || len(all) != 5 || !ids["again"] || !ids["op-4"] || !ids["op-7"] || !ids["op-8"] || !ids["op-9"] {
		t.Errorf("operations: %v, %v", ids, err)
	}
}
