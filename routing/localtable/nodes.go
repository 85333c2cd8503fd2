package localtable

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

// now is the table's clock: this machine's, in what the file keeps of it.
func (t *Table) now() time.Time { return time.Now().UTC().Round(0).Truncate(time.Microsecond) }

// loadBook reads the book of a table at pos.
func loadBook(tx *bolt.Tx, pos routing.Position) (*table.Book, error) {
	var b table.Book
	if err := decode(tx.Bucket(bucketMeta).Get(keyBook), &b); err != nil {
		return nil, fmt.Errorf("nodes: %w", err)
	}
	b.Position = pos
	return &b, nil
}

// version is what one state of the file says to checks: they come by the thousand between
// two changes, and reading the book for each took a fifth of a replay's CPU. The book must
// not be changed.
type version struct {
	tx       int // that wrote it; bbolt counts them
	book     *table.Book
	agencies sync.Map // routing.AgencyID to routing.Agency: those that were asked for
}

// checkedVersion returns the version that tx reads.
func (t *Table) checkedVersion(tx *bolt.Tx) (*version, error) {
	if v := t.checked.Load(); v != nil && v.tx == tx.ID() {
		return v, nil
	}
	pos, err := position(tx)
	if err != nil {
		return nil, err
	}
	b, err := loadBook(tx, pos)
	if err != nil {
		return nil, err
	}
	v := &version{tx: tx.ID(), book: b}
	t.checked.Store(v)
	return v, nil
}

// agency is read, which reads an agency's record, but reads each once.
func (v *version) agency(read func(routing.AgencyID) (routing.Agency, bool)) func(routing.AgencyID) (routing.Agency, bool) {
	return func(id routing.AgencyID) (routing.Agency, bool) {
		if a, ok := v.agencies.Load(id); ok {
			return a.(routing.Agency), true
		}
		a, ok := read(id)
		if ok {
			v.agencies.Store(id, a)
		}
		return a, ok
	}
}

// currentAgency returns a function that reads an agency's record; one that can't be read
// is none, which the comparison of records has refused before.
func currentAgency(tx *bolt.Tx) func(routing.AgencyID) (routing.Agency, bool) {
	return func(id routing.AgencyID) (a routing.Agency, ok bool) {
		b := tx.Bucket(bucketAgency).Get([]byte(id))
		return a, b != nil && decode(b, &a) == nil
	}
}

// freezeKey is the key of an agency's freeze; no agency has the name of all of them.
func freezeKey(id routing.AgencyID) []byte {
	if id == "" {
		return []byte("*")
	}
	return []byte(id)
}

// checkRecords compares operations, freezes and documents with the current ones.
func checkRecords(tx *bolt.Tx, c *table.Change) error {
	for i := range c.Operations {
		o := &c.Operations[i]
		if err := checkRevision(tx.Bucket(bucketOperation), []byte(o.ID), "operation "+string(o.ID), o.Revision); err != nil {
			return err
		}
	}
	for _, f := range c.Freezes {
		if err := checkRevision(tx.Bucket(bucketFreeze), freezeKey(f.Agency), "freeze "+string(freezeKey(f.Agency)), f.Revision); err != nil {
			return err
		}
	}
	for _, d := range c.Documents {
		if err := checkRevision(tx.Bucket(bucketDocument), []byte(d.Key), "document "+d.Key, d.Revision); err != nil {
			return err
		}
	}
	return nil
}

// checkRevision compares the revision that a record was computed from with the current one.
func checkRevision(b *bolt.Bucket, key []byte, what string, want routing.Revision) error {
	var was struct{ Revision routing.Revision }
	if text := b.Get(key); text != nil {
		if err := decode(text, &was); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	if was.Revision != want {
		return fmt.Errorf("%s: %w: revision %d, the change is computed from %d", what, table.ErrStale, was.Revision, want)
	}
	return nil
}

// putOperations writes operations at this revision, and forgets those that ended long ago.
func (t *Table) putOperations(tx *bolt.Tx, rev routing.Revision, operations []routing.Operation) error {
	if len(operations) == 0 {
		return nil
	}
	all, ended := tx.Bucket(bucketOperation), tx.Bucket(bucketEnded)
	for i := range operations {
		o := &operations[i]
		o.Revision = rev
		if err := put(all, []byte(o.ID), o); err != nil {
			return err
		}
		if !o.Ended {
			continue
		}
		key := append(revisionKey(rev), o.ID...)
		if err := ended.Put(key, []byte(o.ID)); err != nil {
			return err
		}
	}
	n := 0
	c := ended.Cursor()
	for key, _ := c.First(); key != nil; key, _ = c.Next() { // Stats doesn't see this transaction
		n++
	}
	for key, id := c.First(); key != nil && n > t.keptOperations; key, id = c.First() {
		var o routing.Operation
		if b := all.Get(id); b != nil {
			if err := decode(b, &o); err != nil {
				return fmt.Errorf("operation %s: %w", id, err)
			}
			if o.Ended && string(revisionKey(o.Revision)) == string(key[:8]) {
				if err := all.Delete(id); err != nil {
					return err
				}
			}
		}
		if err := ended.Delete(key); err != nil {
			return err
		}
		n--
	}
	return nil
}

// nodeRecords adds to a snapshot what concerns nodes and operations.
func nodeRecords(tx *bolt.Tx, u *routing.Update) error {
	book, err := loadBook(tx, u.Position)
	if err != nil {
		return err
	}
	u.Lineage = book.Lineage
	u.Members = slices.Collect(maps.Values(book.Members))
	table.SortMembers(u.Members)
	u.Above = slices.Collect(maps.Values(book.Above))
	if u.Freezes, err = all[routing.Freeze](tx, bucketFreeze); err != nil {
		return err
	}
	if u.Documents, err = all[routing.Document](tx, bucketDocument); err != nil {
		return err
	}
	if u.Operations, err = all[routing.Operation](tx, bucketOperation); err != nil {
		return err
	}
	u.Operations = slices.DeleteFunc(u.Operations, func(o routing.Operation) bool { return o.Ended })
	return nil
}

// Renew implements table.Coordination.
func (t *Table) Renew(ctx context.Context, r table.Renewal) (answer table.Renewed, err error) {
	if err := r.Check(); err != nil {
		return answer, err
	}
	noted := false
	err = t.update(ctx, func(tx *bolt.Tx) error {
		pos, err := position(tx)
		if err != nil {
			return err
		}
		book, err := loadBook(tx, pos)
		if err != nil {
			return err
		}
		now := t.now()
		var note *table.Note
		if answer, note, err = book.Renew(now, table.Server{}, &r, currentAgency(tx)); err != nil {
			return err
		}
		if note == nil {
			return put(tx.Bucket(bucketMeta), keyBook, book)
		}
		noted = true
		for _, d := range note.Documents {
			if err := put(tx.Bucket(bucketDocument), []byte(d.Key), d); err != nil {
				return err
			}
		}
		return t.enter(tx, book, &entry{
			Mapped: book.Position.Mapped, Term: book.Position.Term, ID: table.NoteID(book.Position), Time: now,
			Who: string(r.Member.Node), What: note.What, Members: note.Members, Above: note.Above, Documents: note.Documents,
		})
	})
	if err != nil {
		return table.Renewed{}, fmt.Errorf("renew lease of node %s in table %s: %w", r.Member.Node, t.path, err)
	}
	if noted {
		t.broadcast()
	}
	return answer, nil
}

// Check implements table.Coordination.
func (t *Table) Check(ctx context.Context, c table.Check) error {
	if err := c.Check(); err != nil {
		return err
	}
	err := t.view(ctx, func(tx *bolt.Tx) error {
		v, err := t.checkedVersion(tx)
		if err != nil {
			return err
		}
		return v.book.Check(t.now(), table.Server{}, &c, v.agency(currentAgency(tx)))
	})
	if err != nil {
		return fmt.Errorf("check with table %s: %w", t.path, err)
	}
	return nil
}

// Nodes implements table.Coordination.
func (t *Table) Nodes(ctx context.Context) (n table.Nodes, err error) {
	err = t.book(ctx, func(_ *bolt.Tx, b *table.Book) error {
		n = b.Nodes(t.now(), table.Server{})
		return nil
	})
	if err != nil {
		return n, fmt.Errorf("nodes of table %s: %w", t.path, err)
	}
	return n, nil
}

// book runs f on one revision of the table and its book.
func (t *Table) book(ctx context.Context, f func(tx *bolt.Tx, b *table.Book) error) error {
	return t.view(ctx, func(tx *bolt.Tx) error {
		pos, err := position(tx)
		if err != nil {
			return err
		}
		b, err := loadBook(tx, pos)
		if err != nil {
			return err
		}
		return f(tx, b)
	})
}

// Operations implements table.Coordination.
func (t *Table) Operations(ctx context.Context) (operations []routing.Operation, err error) {
	err = t.view(ctx, func(tx *bolt.Tx) error {
		if _, err := position(tx); err != nil {
			return err
		}
		operations, err = all[routing.Operation](tx, bucketOperation)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("operations of table %s: %w", t.path, err)
	}
	table.SortOperations(operations)
	return operations, nil
}
