package redistable

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

// readAtOnce bounds the log entries of one answer; an entry has up to a few MB.
const readAtOnce = 50

func (t *Table) askMeta(ctx context.Context, c redis.Cmdable) *redis.SliceCmd {
	return c.HMGet(ctx, t.key("meta"), "incarnation", "format", "revision", "mapped", "term",
		"server", "replication", "previous", "base", "began", "longest", "rejoining", "prior")
}

// exec sends a pipeline. The error is that of the first command that failed.
func exec(ctx context.Context, p redis.Pipeliner) error {
	_, err := p.Exec(ctx)
	return err
}

// Position implements table.Table.
func (t *Table) Position(ctx context.Context) (routing.Position, error) {
	pos, err := t.position(ctx)
	if err != nil {
		return pos, fmt.Errorf("position of table: %w", t.unavailable(ctx, err))
	}
	return pos, nil
}

func (t *Table) position(ctx context.Context) (routing.Position, error) {
	return t.positionBy(ctx, t.reads)
}

func (t *Table) positionBy(ctx context.Context, client *redis.Client) (routing.Position, error) {
	b, err := t.bookBy(ctx, client)
	if err != nil {
		return routing.Position{}, err
	}
	return b.Position, nil
}

// bookBy reads where the table stands and how its term began, from a primary.
func (t *Table) bookBy(ctx context.Context, client interface{ Pipeline() redis.Pipeliner }) (*table.Book, error) {
	short, cancel := context.WithTimeout(ctx, t.o.Timeout)
	defer cancel()
	p := client.Pipeline()
	role, meta := p.Do(short, "ROLE"), t.askMeta(short, p)
	if err := exec(short, p); err != nil {
		return nil, err
	}
	if err := checkRole(role); err != nil {
		return nil, err
	}
	return decodeMeta(meta.Val())
}

// Snapshot implements table.Table.
func (t *Table) Snapshot(ctx context.Context) (routing.Update, error) {
	u, err := t.snapshot(ctx)
	if err != nil {
		return routing.Update{}, fmt.Errorf("snapshot of table: %w", t.unavailable(ctx, err))
	}
	return u, nil
}

func (t *Table) snapshot(ctx context.Context) (u routing.Update, err error) {
	if _, err := t.position(ctx); err != nil {
		return u, err
	}
	bulk, cancel := context.WithTimeout(ctx, t.o.BulkTimeout)
	defer cancel()
	p := t.reads.TxPipeline() // one revision
	meta, lineage := t.askMeta(bulk, p), p.HGet(bulk, t.key("meta"), "lineage")
	agencies, domains, fixed := p.HVals(bulk, t.key("agency")), p.HVals(bulk, t.key("domain")), p.HVals(bulk, t.key("fixed"))
	members, operations := p.HVals(bulk, t.key("member")), p.HVals(bulk, t.key("operation"))
	freezes, documents, above := p.HVals(bulk, t.key("freeze")), p.HVals(bulk, t.key("document")), p.HVals(bulk, t.key("above"))
	if err := exec(bulk, p); err != nil {
		return u, err
	}
	book, err := decodeMeta(meta.Val())
	if err != nil {
		return u, err
	}
	u.Position = book.Position
	if u.Lineage, err = routing.ParseLineage(lineage.Val()); err != nil {
		return u, fmt.Errorf("damaged: %w", err)
	}
	if u.Agencies, err = all(agencies.Val(), decodeAgency); err != nil {
		return u, err
	}
	if u.Domains, err = all(domains.Val(), decodeDomain); err != nil {
		return u, err
	}
	if u.Fixed, err = all(fixed.Val(), decodeFixed); err != nil {
		return u, err
	}
	if u.Members, err = all(members.Val(), decodeMember); err != nil {
		return u, err
	}
	table.SortMembers(u.Members)
	if u.Operations, err = all(operations.Val(), decodeOperation); err != nil {
		return u, err
	}
	u.Operations = slices.DeleteFunc(u.Operations, func(o routing.Operation) bool { return o.Ended })
	if u.Freezes, err = all(freezes.Val(), decodeFreeze); err != nil {
		return u, err
	}
	if u.Documents, err = all(documents.Val(), decodeDocument); err != nil {
		return u, err
	}
	u.Above, err = all(above.Val(), decodeAbove)
	return u, err
}

func all[T any](texts []string, decode func(string) (T, error)) ([]T, error) {
	records := make([]T, len(texts))
	for i, s := range texts {
		r, err := decode(s)
		if err != nil {
			return nil, fmt.Errorf("damaged: %w", err)
		}
		records[i] = r
	}
	return records, nil
}

// Follow implements table.Table. It has a connection of its own, and runs in the caller's
// goroutine.
//
// It waits by XREAD, but believes only what it then reads together with the server's role
// and the table's position: a stream that went away, or whose numbers began anew, looks
// like one in which nothing happens.
func (t *Table) Follow(ctx context.Context, from routing.Position, interval time.Duration, apply func(table.Entry) error, alive func(at time.Time, pos routing.Position)) error {
	client, release, err := t.ownClient(ctx)
	if err != nil {
		return fmt.Errorf("follow table: %w", err)
	}
	defer release()
	// Waiting takes less than the interval by what the read after it may take.
	wait := max(interval-t.o.Timeout, interval/2, time.Millisecond)
	woken := false
	for last := from; ; {
		at := time.Now()
		entries, pos, err := t.since(ctx, client, last, woken)
		for _, e := range entries {
			if err := apply(e); err != nil {
				return err
			}
			last = e.Position
		}
		if err == nil && last.Revision < pos.Revision {
			continue // there is more
		}
		if err == nil {
			alive(at, pos)
			woken, err = t.waitForChange(ctx, client, last.Revision, wait)
		}
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("follow table from revision %d: %w", last.Revision, t.unavailable(ctx, err))
		}
	}
}

// since reads the next changes after last, and where the table stands: at the last one of
// them, or further if there is more. Only when there are changes it takes a second, maybe
// long, answer; also if the log woke us, though the position doesn't tell of a change.
func (t *Table) since(ctx context.Context, client *redis.Client, last routing.Position, woken bool) ([]table.Entry, routing.Position, error) {
	book, err := t.bookBy(ctx, client)
	if err != nil {
		return nil, last, err
	}
	pos := book.Position
	if pos.Incarnation != last.Incarnation {
		return nil, last, fmt.Errorf("%w: %s, followed was %q", table.ErrIncarnation, pos.Incarnation, last.Incarnation)
	}
	if err := book.MayFollow(last); err != nil {
		return nil, last, err
	}
	if pos.Revision == last.Revision && !woken {
		return nil, pos, nil
	}
	bulk, cancel := context.WithTimeout(ctx, t.o.BulkTimeout)
	defer cancel()
	next := last.Revision + 1
	log, err := client.XRangeN(bulk, t.key("log"), fmt.Sprintf("%d-0", next), "+", readAtOnce).Result()
	if err != nil {
		return nil, pos, err
	}
	var entries []table.Entry
	for _, m := range log {
		e, err := decodeEntry(m)
		switch {
		case err != nil:
			return entries, pos, fmt.Errorf("damaged: %w", err)
		case e.Position.Incarnation != last.Incarnation: // it was emptied and begun anew just now
			return entries, pos, fmt.Errorf("%w: %s, followed was %q", table.ErrIncarnation, e.Position.Incarnation, last.Incarnation)
		case e.Position.Revision != next:
			return entries, pos, fmt.Errorf("%w: after revision %d comes %d", table.ErrGap, next-1, e.Position.Revision)
		case e.Position.Term > pos.Term: // another server took over just now: look again
			return entries, pos, nil
		}
		entries = append(entries, e)
		next++
	}
	switch {
	case len(entries) == 0 && pos.Revision > last.Revision:
		return nil, pos, fmt.Errorf("%w: revision %d is not in it", table.ErrGap, next)
	case next-1 > pos.Revision: // changed between the two answers
		pos = entries[len(entries)-1].Position
	}
	return entries, pos, nil
}

// waitForChange waits for an entry after last, at most for wait, and reports whether
// there is one.
func (t *Table) waitForChange(ctx context.Context, client *redis.Client, last routing.Revision, wait time.Duration) (bool, error) {
	long, cancel := context.WithTimeout(ctx, wait+t.o.Timeout)
	defer cancel()
	err := client.XRead(long, &redis.XReadArgs{
		Streams: []string{t.key("log"), fmt.Sprintf("%d-0", last)}, Count: 1, Block: wait,
	}).Err()
	if err == redis.Nil {
		return false, nil
	}
	return err == nil, err
}
