package redistable

import (
	"context"
	_ "embed"
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

//go:embed found.lua
var foundLua string

// Found implements table.Founder.
func (t *Table) Found(ctx context.Context, f table.Foundation) (routing.Position, error) {
	if err := f.Check(); err != nil {
		return routing.Position{}, err
	}
	c := f.Change()
	keys, args, err := t.changeArgs(&c)
	if err != nil {
		return routing.Position{}, fmt.Errorf("found table: %w: %w", table.ErrBadChange, err)
	}
	u, err := t.Snapshot(ctx)
	if errors.Is(err, table.ErrEmpty) || err == nil && table.Bare(&u) {
		for _, m := range f.Mappings {
			if err := t.storeMapping(ctx, m); err != nil {
				return routing.Position{}, fmt.Errorf("found table: mapping %s of agency %s: %w", m.Digest(), m.Agency(), t.unavailable(ctx, err))
			}
		}
	}
	args = append(args, decimal(f.Source.Revision), decimal(f.Source.Term), f.Longest.Microseconds(), f.Lineage.String())
	long, cancel := context.WithTimeout(ctx, t.o.BulkTimeout)
	defer cancel()
	pos, err := answer(redis.NewScript(preludeLua+foundLua).Run(long, t.writes, keys, args...))
	if err != nil {
		return routing.Position{}, fmt.Errorf("found table: %w", t.unavailable(ctx, err))
	}
	t.acks.add(pos)
	return pos, nil
}
