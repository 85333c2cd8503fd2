package localtable

import (
	"context"
	"errors"
	"fmt"

	bolt "go.etcd.io/bbolt"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

// Found implements table.Founder.
func (t *Table) Found(ctx context.Context, f table.Foundation) (routing.Position, error) {
	if err := f.Check(); err != nil {
		return routing.Position{}, err
	}
	c := f.Change()
	var pos routing.Position
	u, err := t.Snapshot(ctx)
	if errors.Is(err, table.ErrEmpty) || err == nil && table.Bare(&u) {
		for _, m := range f.Mappings {
			if err := t.storeMapping(ctx, m); err != nil {
				return pos, fmt.Errorf("found table %s: mapping %s of agency %s: %w", t.path, m.Digest(), m.Agency(), err)
			}
		}
	}
	err = t.update(ctx, func(tx *bolt.Tx) (err error) {
		if pos, err = position(tx); err == nil {
			before, err := foundBefore(tx, pos, &c)
			if !errors.Is(err, table.ErrFounded) || pos.Revision > f.Source.Revision {
				pos = before
				return err
			}
			if err := clearBare(tx, err); err != nil {
				return err
			}
		} else if !errors.Is(err, table.ErrEmpty) {
			return err
		}
		for i := range c.Agencies {
			a := c.Agencies[i]
			if a.Revision = 0; a.Mapping.IsZero() {
				continue
			}
			if _, err := checkAgency(tx, &a); err != nil {
				return err
			}
		}
		if err := tx.Bucket(bucketMeta).Put(keyIncarnation, []byte(f.Source.Incarnation)); err != nil {
			return err
		}
		now := t.now()
		pos = f.Position()
		return t.record(tx, now, table.FoundedBook(&f, table.Server{}, now), &c)
	})
	if err != nil {
		return routing.Position{}, fmt.Errorf("found table %s: %w", t.path, err)
	}
	t.broadcast()
	return pos, nil
}

// clearBare removes what nodes wrote into a table that has had nothing else, or returns why
// it isn't one.
func clearBare(tx *bolt.Tx, why error) error {
	var u routing.Update
	var err error
	if u.Agencies, err = all[routing.Agency](tx, bucketAgency); err != nil {
		return err
	}
	if u.Domains, err = all[routing.Domain](tx, bucketDomain); err != nil {
		return err
	}
	if u.Fixed, err = all[routing.Fixed](tx, bucketFixed); err != nil {
		return err
	}
	if u.Operations, err = all[routing.Operation](tx, bucketOperation); err != nil {
		return err
	}
	if !table.Bare(&u) {
		return why
	}
	for _, name := range [][]byte{bucketLog, bucketApplied, bucketIDAt, bucketEnded, bucketFreeze, bucketDocument} {
		if err := tx.DeleteBucket(name); err != nil {
			return err
		}
		if _, err := tx.CreateBucket(name); err != nil {
			return err
		}
	}
	return nil
}

// foundBefore returns the position that this foundation made, if it made this table.
func foundBefore(tx *bolt.Tx, pos routing.Position, c *table.Change) (routing.Position, error) {
	b := tx.Bucket(bucketApplied).Get([]byte(c.ID))
	if b == nil {
		return pos, fmt.Errorf("%w: it stands at revision %d of %s", table.ErrFounded, pos.Revision, pos.Incarnation)
	}
	var was applied
	if err := decode(b, &was); err != nil {
		return pos, fmt.Errorf("change id: %w", err)
	}
	if was.Digest != c.Digest() {
		return pos, fmt.Errorf("%w, revision %d", table.ErrReused, was.Revision)
	}
	pos.Revision, pos.Mapped, pos.Term = was.Revision, was.Mapped, was.Term
	return pos, nil
}
