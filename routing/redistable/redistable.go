package redistable

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

// format is that of the keys. A program refuses tables of another one.
const format = "4"

var (
	//go:embed prelude.lua
	preludeLua string
	//go:embed change.lua
	changeLua string
	//go:embed init.lua
	initLua string
	//go:embed renew.lua
	renewLua string
	//go:embed check.lua
	checkLua string
	//go:embed part.lua
	partLua string
	//go:embed complete.lua
	completeLua string
)

// Table is a connection to a state table.
type Table struct {
	o       Options
	shared  redis.Options // of all clients
	keptIDs int

	keptOperations int

	change, init, renew, check, complete *redis.Script

	primary *primary // nil without Sentinels

	reads  *redis.Client // with retries
	writes *redis.Client // without: what got no answer may have happened

	acks acks // changes that Confirm has yet to vouch for

	mu     sync.Mutex
	closed bool                       // mu
	own    map[*redis.Client]struct{} // clients of calls that wait long; mu
}

// keys of the table.
func (t *Table) key(name string) string { return t.o.Prefix + ":" + name }

func (t *Table) mappingKey(agency routing.AgencyID, d routing.Digest) string {
	return t.o.Prefix + ":map:" + string(agency) + ":" + d.String()
}

// recordKeys are the first keys of the scripts for changes.
func (t *Table) recordKeys() []string {
	var keys []string
	for _, name := range []string{"meta", "agency", "domain", "fixed", "log", "applied", "confirm", "member", "lease", "drained", "operation", "freeze", "above", "ended", "document"} {
		keys = append(keys, t.key(name))
	}
	return keys
}

// Open returns the table that o describes. It is an error if o can't be right, not if the
// table can't be reached: a node starts without it, and that is only logged.
func Open(ctx context.Context, o Options) (*Table, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	shared, err := o.client()
	if err != nil {
		return nil, err
	}
	t := &Table{
		o: o, shared: *shared, keptIDs: table.KeptIDs, own: make(map[*redis.Client]struct{}),
		change: redis.NewScript(preludeLua + changeLua), init: redis.NewScript(preludeLua + initLua),
		renew: redis.NewScript(preludeLua + renewLua), check: redis.NewScript(preludeLua + checkLua),
		complete: redis.NewScript(completeLua), keptOperations: table.KeptOperations,
	}
	if len(o.Sentinel.Addresses) > 0 {
		t.primary = findPrimary(&t.o, &t.shared)
	}
	t.reads = t.client(func(o *redis.Options) {
		o.MaxRetries, o.MinRetryBackoff, o.MaxRetryBackoff = 2, 5*time.Millisecond, 20*time.Millisecond
	})
	t.writes = t.client(func(o *redis.Options) { o.MaxRetries = -1 })
	if _, err := t.Position(ctx); err != nil && !errors.Is(err, table.ErrEmpty) && o.Logger != nil {
		o.Logger.WarnContext(ctx, "state table can't be read at start", "peer", shared.Addr, "error", err)
	}
	return t, nil
}

func (t *Table) client(set func(*redis.Options)) *redis.Client {
	o := t.shared // the client writes defaults into what it is given
	set(&o)
	return redis.NewClient(&o)
}

// ownClient returns a client of one connection for a call that waits long: the end of ctx
// or Close ends it, though the library looks at deadlines only. The caller calls release.
func (t *Table) ownClient(ctx context.Context) (c *redis.Client, release func(), err error) {
	c = t.client(func(o *redis.Options) { o.MaxRetries, o.PoolSize = -1, 1 })
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		c.Close()
		return nil, nil, t.unavailable(ctx, redis.ErrClosed)
	}
	t.own[c] = struct{}{}
	stop := context.AfterFunc(ctx, func() { c.Close() })
	return c, func() {
		stop()
		t.mu.Lock()
		delete(t.own, c)
		t.mu.Unlock()
		c.Close()
	}, nil
}

// Close implements table.Table.
func (t *Table) Close() error {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return nil
	}
	t.closed = true
	for c := range t.own {
		c.Close()
	}
	t.mu.Unlock()
	err := t.reads.Close()
	if werr := t.writes.Close(); err == nil {
		err = werr
	}
	if t.primary != nil {
		t.primary.close()
	}
	if err != nil {
		return fmt.Errorf("close table: %w", t.unavailable(context.Background(), err))
	}
	return nil
}

// Init implements table.Table.
func (t *Table) Init(ctx context.Context) (routing.Position, error) {
	short, cancel := context.WithTimeout(ctx, t.o.Timeout)
	defer cancel()
	pos, err := answer(t.init.Run(short, t.writes, t.recordKeys(), uuid.NewString(), format))
	if err != nil {
		return routing.Position{}, fmt.Errorf("init table: %w", t.unavailable(ctx, err))
	}
	return pos, nil
}

// Change implements table.Table.
func (t *Table) Change(ctx context.Context, c table.Change) (routing.Position, error) {
	if err := c.Check(); err != nil {
		return routing.Position{}, err
	}
	keys, args, err := t.changeArgs(&c)
	if err != nil {
		return routing.Position{}, fmt.Errorf("change %s: %w: %w", c.ID, table.ErrBadChange, err)
	}
	short, cancel := context.WithTimeout(ctx, t.o.Timeout)
	defer cancel()
	pos, err := answer(t.change.Run(short, t.writes, keys, args...))
	if err != nil {
		return routing.Position{}, fmt.Errorf("change %s: %w", c.ID, t.unavailable(ctx, err))
	}
	t.acks.add(pos)
	return pos, nil
}

// changeArgs lists keys and arguments as change.lua describes them.
func (t *Table) changeArgs(c *table.Change) (keys []string, args []any, err error) {
	r, err := encodeRecords(c)
	if err != nil {
		return nil, nil, err
	}
	keys = t.recordKeys()
	args = []any{
		string(c.Incarnation), format, c.ID, c.Digest().String(), decimal(c.Mapped),
		t.o.LogLength, t.keptIDs, c.Who, c.What, c.Reason, r.all,
		len(c.Agencies), len(c.Domains), len(c.Fixed), len(c.Members), len(c.Operations), len(c.Freezes),
		decimal(c.Term), flag(c.Guard.Rejoining), flag(c.Guard.EndRejoin), decimal(c.Guard.Applied), c.Guard.Protocol,
		len(c.Guard.Unfrozen), len(c.Guard.Drained), len(c.Guard.Fenced), t.keptOperations, len(c.Documents),
		decimal(cmp.Or(c.Guard.Base, c.Guard.Applied)),
	}
	for i, a := range c.Agencies {
		digest := noMapping
		if !a.Mapping.IsZero() {
			digest = a.Mapping.String()
			keys = append(keys, t.mappingKey(a.ID, a.Mapping))
		}
		args = append(args, string(a.ID), decimal(a.Revision), digest, a.Epoch.String(), a.Answer(), r.agencies[i])
	}
	for i, d := range c.Domains {
		args = append(args, d.Name, r.domains[i])
	}
	for i, f := range c.Fixed {
		args = append(args, string(f.Address), r.fixed[i])
	}
	for i := range c.Members {
		m := &c.Members[i]
		args = append(args, string(m.Node), decimal(m.Revision), string(m.Instance), memberState(m), m.Protocol,
			orNone(string(m.Attested)), flag(m.Draining), max(m.Joined.UnixMicro(), 0), flag(m.ClockRuns), orNone(string(m.Unconfirmed)), r.members[i])
	}
	for i := range c.Operations {
		o := &c.Operations[i]
		state := "open"
		if o.Ended {
			state = "ended"
		}
		args = append(args, string(o.ID), decimal(o.Revision), state, r.operations[i])
	}
	for i, f := range c.Freezes {
		args = append(args, orAll(f.Agency), decimal(f.Revision), r.freezes[i])
	}
	for i, d := range c.Documents {
		args = append(args, d.Key, decimal(d.Revision), r.documents[i])
	}
	for _, id := range c.Guard.Unfrozen {
		args = append(args, string(id))
	}
	for _, d := range c.Guard.Drained {
		args = append(args, string(d.Agency), d.Epoch.String())
	}
	for _, f := range c.Guard.Fenced {
		args = append(args, string(f.Node), string(f.Instance), decimal(f.Counter), string(f.Kind))
	}
	return keys, args, nil
}
