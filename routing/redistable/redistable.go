package redistable

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

// format is that of the keys. A program refuses tables of another one.
const format = "1"

var (
	//go:embed change.lua
	changeLua string
	//go:embed init.lua
	initLua string
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

	change, init, complete *redis.Script

	reads  *redis.Client // with retries
	writes *redis.Client // without: what got no answer may have happened

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
	return []string{t.key("meta"), t.key("agency"), t.key("domain"), t.key("fixed"), t.key("log"), t.key("applied"), t.key("confirm")}
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
		change: redis.NewScript(changeLua), init: redis.NewScript(initLua), complete: redis.NewScript(completeLua),
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
		string(c.Incarnation), format, c.ID, c.Digest().String(), strconv.FormatUint(uint64(c.Mapped), 10),
		t.o.LogLength, t.keptIDs, c.Who, c.What, c.Reason, r.all,
		len(c.Agencies), len(c.Domains), len(c.Fixed),
	}
	for i, a := range c.Agencies {
		digest := noMapping
		if !a.Mapping.IsZero() {
			digest = a.Mapping.String()
			keys = append(keys, t.mappingKey(a.ID, a.Mapping))
		}
		args = append(args, string(a.ID), strconv.FormatUint(uint64(a.Revision), 10), digest, r.agencies[i])
	}
	for i, d := range c.Domains {
		args = append(args, d.Name, r.domains[i])
	}
	for i, f := range c.Fixed {
		args = append(args, string(f.Address), r.fixed[i])
	}
	return keys, args, nil
}
