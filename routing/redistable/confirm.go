package redistable

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"mailcutover/routing/table"
)

// Confirm implements table.Table. It writes a little and waits until that is confirmed,
// on one connection: replicas and the append-only file take writes in order, so
// everything acknowledged before is there as well. It waits no longer than BulkTimeout.
//
// Another server than the one that acknowledged may confirm: ErrRegressed says that it
// doesn't have what this Table was acknowledged. Confirm says so for ten seconds after the
// acknowledgement, so that everybody who waits for it learns of it.
func (t *Table) Confirm(ctx context.Context) error {
	if err := t.confirm(ctx); err != nil {
		return fmt.Errorf("confirm table: %w", t.unavailable(ctx, err))
	}
	return nil
}

func (t *Table) confirm(ctx context.Context) error {
	client, release, err := t.ownClient(ctx)
	if err != nil {
		return err
	}
	defer release()
	conn := client.Conn()
	defer conn.Close()
	due := t.acks.all()
	if err := t.write(ctx, conn); err != nil {
		return err
	}
	if err := t.waitForReplicas(ctx, conn); err != nil {
		return err
	}
	if len(due) == 0 {
		return nil
	}
	book, err := t.bookBy(ctx, conn)
	if err != nil {
		return err
	}
	return t.acks.confirm(due, book)
}

// waitForReplicas waits until what was written on conn is on disk and on the replicas.
func (t *Table) waitForReplicas(ctx context.Context, conn *redis.Conn) error {
	wait := t.o.BulkTimeout
	if deadline, ok := ctx.Deadline(); ok {
		wait = max(min(wait, time.Until(deadline)-t.o.Timeout/10), time.Millisecond) // so that the answer still arrives
	}
	long, cancel := context.WithTimeout(ctx, wait+t.o.Timeout)
	defer cancel()
	onDisk, err := conn.Do(long, "WAITAOF", 1, t.o.Replicas, wait.Milliseconds()).Int64Slice() // Redis 7.2
	if err == nil {
		if len(onDisk) != 2 || onDisk[0] < 1 || onDisk[1] < int64(t.o.Replicas) {
			return fmt.Errorf("%w: within %v on disk of %v (primary, replicas), want 1 and %d", table.ErrUnavailable, wait, onDisk, t.o.Replicas)
		}
		return nil
	}
	if !unknownCommand(err) {
		return err
	}
	if t.o.Replicas == 0 {
		return nil
	}
	n, err := conn.Do(long, "WAIT", t.o.Replicas, wait.Milliseconds()).Int()
	if err != nil {
		return err
	}
	if n < t.o.Replicas {
		return fmt.Errorf("%w: within %v only %d of %d replicas confirmed", table.ErrUnavailable, wait, n, t.o.Replicas)
	}
	return nil
}

func (t *Table) write(ctx context.Context, conn *redis.Conn) error {
	short, cancel := context.WithTimeout(ctx, t.o.Timeout)
	defer cancel()
	return conn.Set(short, t.key("confirm"), time.Now().UTC().Format(time.RFC3339Nano), 0).Err()
}
