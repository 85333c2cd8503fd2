package localtable

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

// Change implements table.Table.
func (t *Table) Change(ctx context.Context, c table.Change) (routing.Position, error) {
	if err := c.Check(); err != nil {
		return routing.Position{}, err
	}
	var pos routing.Position
	err := t.update(ctx, func(tx *bolt.Tx) (err error) {
		pos, err = t.change(tx, &c)
		return err
	})
	if err != nil {
		return routing.Position{}, fmt.Errorf("change %s of table %s: %w", c.ID, t.path, err)
	}
	t.broadcast()
	return pos, nil
}

func (t *Table) change(tx *bolt.Tx, c *table.Change) (routing.Position, error) {
	pos, err := position(tx)
	if err != nil {
		return pos, err
	}
	if b := tx.Bucket(bucketApplied).Get([]byte(c.ID)); b != nil {
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
	if c.Incarnation != pos.Incarnation {
		return pos, fmt.Errorf("%w: %s, the change is for %q", table.ErrIncarnation, pos.Incarnation, c.Incarnation)
	}
	book, err := loadBook(tx, pos)
	if err != nil {
		return pos, err
	}
	if c.Mapped != 0 && c.Mapped != pos.Mapped {
		return pos, fmt.Errorf("%w: names changed at revision %d, they were checked at %d", table.ErrStale, pos.Mapped, c.Mapped)
	}
	mapped := c.NamesTouched()
	for i := range c.Agencies {
		touched, err := checkAgency(tx, &c.Agencies[i])
		if err != nil {
			return pos, err
		}
		if touched && c.Mapped == 0 {
			return pos, c.UncheckedNames()
		}
		mapped = mapped || touched
	}
	if err := checkRecords(tx, c); err != nil {
		return pos, err
	}
	now := t.now()
	frozen := func(id routing.AgencyID) bool {
		b := tx.Bucket(bucketFreeze)
		return b.Get(freezeKey("")) != nil || b.Get(freezeKey(id)) != nil
	}
	if err := book.MayChange(now, table.Server{}, c, currentAgency(tx), frozen); err != nil {
		return pos, err
	}
	book.Position.Revision++
	if mapped {
		book.Position.Mapped = book.Position.Revision
	}
	book.Changed(now, c)
	return book.Position, t.record(tx, now, book, c)
}

// checkAgency compares a new record with the current one, and reports whether the
// mapping changes.
func checkAgency(tx *bolt.Tx, a *routing.Agency) (mapping bool, err error) {
	var was routing.Agency
	if b := tx.Bucket(bucketAgency).Get([]byte(a.ID)); b != nil {
		if err := decode(b, &was); err != nil {
			return false, fmt.Errorf("agency %s: %w", a.ID, err)
		}
	}
	switch {
	case was.Revision != a.Revision:
		return false, fmt.Errorf("agency %s: %w: revision %d, the change is computed from %d", a.ID, table.ErrStale, was.Revision, a.Revision)
	case was.Mapping == a.Mapping:
		return false, nil
	case a.Mapping.IsZero():
		return true, nil
	}
	m := tx.Bucket(bucketMapping).Bucket(mappingKey(a.ID, a.Mapping))
	if m == nil || m.Get(keyComplete) == nil {
		return false, fmt.Errorf("agency %s: %w: %s", a.ID, table.ErrNoMapping, a.Mapping)
	}
	return true, nil
}

// record writes a change that has been checked, and the book after it.
func (t *Table) record(tx *bolt.Tx, now time.Time, book *table.Book, c *table.Change) error {
	pos := book.Position
	e := entry{
		Mapped: pos.Mapped, Term: pos.Term, ID: c.ID, Time: now, Who: c.Who, What: c.What, Reason: c.Reason,
		Agencies: slices.Clone(c.Agencies), Domains: slices.Clone(c.Domains), Fixed: slices.Clone(c.Fixed),
		Members: slices.Clone(c.Members), Operations: slices.Clone(c.Operations), Freezes: slices.Clone(c.Freezes),
		Documents: slices.Clone(c.Documents),
	}
	for i := range e.Members {
		e.Members[i].Revision = pos.Revision
	}
	if err := t.putOperations(tx, pos.Revision, e.Operations); err != nil {
		return err
	}
	for i := range e.Freezes {
		e.Freezes[i].Revision = pos.Revision
		if err := set(tx.Bucket(bucketFreeze), freezeKey(e.Freezes[i].Agency), e.Freezes[i].Removed, e.Freezes[i]); err != nil {
			return err
		}
	}
	for i := range e.Documents {
		e.Documents[i].Revision = pos.Revision
		if err := set(tx.Bucket(bucketDocument), []byte(e.Documents[i].Key), e.Documents[i].Removed, e.Documents[i]); err != nil {
			return err
		}
	}
	for i := range e.Agencies {
		e.Agencies[i].Revision = pos.Revision
		if err := put(tx.Bucket(bucketAgency), []byte(e.Agencies[i].ID), e.Agencies[i]); err != nil {
			return err
		}
	}
	for i := range e.Domains {
		e.Domains[i].Revision = pos.Revision
		if err := set(tx.Bucket(bucketDomain), []byte(e.Domains[i].Name), e.Domains[i].Removed, e.Domains[i]); err != nil {
			return err
		}
	}
	for i := range e.Fixed {
		e.Fixed[i].Revision = pos.Revision
		if err := set(tx.Bucket(bucketFixed), []byte(e.Fixed[i].Address), e.Fixed[i].Removed, e.Fixed[i]); err != nil {
			return err
		}
	}
	if err := put(tx.Bucket(bucketApplied), []byte(c.ID), applied{Digest: c.Digest(), Revision: pos.Revision, Mapped: pos.Mapped, Term: pos.Term}); err != nil {
		return err
	}
	if err := tx.Bucket(bucketIDAt).Put(revisionKey(pos.Revision), []byte(c.ID)); err != nil {
		return err
	}
	return t.enter(tx, book, &e)
}

// enter writes an entry of the log, where the table stands after it, and the book.
func (t *Table) enter(tx *bolt.Tx, book *table.Book, e *entry) error {
	pos := book.Position
	if err := put(tx.Bucket(bucketLog), revisionKey(pos.Revision), e); err != nil {
		return err
	}
	meta := tx.Bucket(bucketMeta)
	if err := meta.Put(keyRevision, revisionKey(pos.Revision)); err != nil {
		return err
	}
	if err := meta.Put(keyMapped, revisionKey(pos.Mapped)); err != nil {
		return err
	}
	if err := meta.Put(keyTerm, binary.BigEndian.AppendUint32(nil, pos.Term)); err != nil {
		return err
	}
	if err := put(meta, keyBook, book); err != nil {
		return err
	}
	return t.forget(tx, pos.Revision)
}

func set(b *bolt.Bucket, key []byte, removed bool, v any) error {
	if removed {
		return b.Delete(key)
	}
	return put(b, key, v)
}

// forget drops what lies too far back in the log and among the ids.
func (t *Table) forget(tx *bolt.Tx, now routing.Revision) error {
	if err := dropBefore(tx.Bucket(bucketLog), now, t.logLength, func(_ []byte) error { return nil }); err != nil {
		return err
	}
	ids := tx.Bucket(bucketApplied)
	return dropBefore(tx.Bucket(bucketIDAt), now, t.keptIDs, ids.Delete)
}

// dropBefore deletes the entries, keyed by revision, that are older than the last keep
// ones, after it has called drop with the value of each.
func dropBefore(b *bolt.Bucket, now routing.Revision, keep int, drop func(value []byte) error) error {
	if now <= routing.Revision(keep) {
		return nil
	}
	first := revisionKey(now - routing.Revision(keep) + 1)
	for c := b.Cursor(); ; {
		key, value := c.First()
		if key == nil || string(key) >= string(first) {
			return nil
		}
		if err := drop(value); err != nil {
			return err
		}
		if err := b.Delete(key); err != nil {
			return err
		}
	}
}
