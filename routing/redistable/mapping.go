package redistable

import (
	"context"
	"fmt"
	"iter"

	"github.com/redis/go-redis/v9"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

const (
	partBytes         = 256 << 10 // of a mapping's text in one field
	partsPerTrip      = 8         // on the way at a time
	incompleteSeconds = 3600      // that parts nobody completes are kept
)

// partPrefix begins the fields of the parts. It names their size, so that a version that
// cuts otherwise doesn't mix its parts with these.
var partPrefix = fmt.Sprintf("%d:", partBytes)

// Mapping implements table.Table.
func (t *Table) Mapping(ctx context.Context, agency routing.AgencyID, digest routing.Digest) (*routing.Mapping, error) {
	m, err := t.mapping(ctx, agency, digest)
	if err != nil {
		return nil, fmt.Errorf("mapping %s of agency %s: %w", digest, agency, t.unavailable(ctx, err))
	}
	return m, nil
}

func (t *Table) mapping(ctx context.Context, agency routing.AgencyID, digest routing.Digest) (*routing.Mapping, error) {
	if digest.IsZero() {
		if _, err := t.position(ctx); err != nil {
			return nil, err
		}
		return routing.NewMapping(agency, nil)
	}
	key := t.mappingKey(agency, digest)
	mark, err := t.mark(ctx, key)
	if err != nil {
		return nil, err
	}
	if mark == "" {
		return nil, table.ErrNoMapping
	}
	var n, size int
	var prefix, named string
	if _, err := fmt.Sscanf(mark, "%s %d %d %s", &prefix, &n, &size, &named); err != nil || named != digest.String() || n < 1 || size < 0 {
		return nil, fmt.Errorf("damaged: its mark is %.200q", mark)
	}
	return routing.ReadMapping(agency, digest, size, t.parts(ctx, key, prefix, n))
}

// mark returns the mark of a complete mapping, or "".
func (t *Table) mark(ctx context.Context, key string) (string, error) {
	if _, err := t.position(ctx); err != nil {
		return "", err
	}
	short, cancel := context.WithTimeout(ctx, t.o.Timeout)
	defer cancel()
	mark, err := t.reads.HGet(short, key, "complete").Result()
	if err == redis.Nil {
		return "", nil
	}
	return mark, err
}

// parts reads the parts of a mapping, several at a time.
func (t *Table) parts(ctx context.Context, key, prefix string, n int) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for from := 0; from < n; from += partsPerTrip {
			var fields []string
			for i := from; i < min(from+partsPerTrip, n); i++ {
				fields = append(fields, fmt.Sprint(prefix, i))
			}
			values, err := t.fields(ctx, key, fields)
			if err != nil {
				yield(nil, err)
				return
			}
			for i, v := range values {
				s, ok := v.(string)
				if !ok {
					yield(nil, fmt.Errorf("damaged: part %s is missing", fields[i]))
					return
				}
				if !yield([]byte(s), nil) {
					return
				}
			}
		}
	}
}

func (t *Table) fields(ctx context.Context, key string, fields []string) ([]any, error) {
	bulk, cancel := context.WithTimeout(ctx, t.o.BulkTimeout)
	defer cancel()
	return t.reads.HMGet(bulk, key, fields...).Result()
}

// PutMapping implements table.Table. What it sends may be sent twice without harm.
func (t *Table) PutMapping(ctx context.Context, m *routing.Mapping) error {
	if err := t.putMapping(ctx, m); err != nil {
		return fmt.Errorf("put mapping %s of agency %s: %w", m.Digest(), m.Agency(), t.unavailable(ctx, err))
	}
	return nil
}

func (t *Table) putMapping(ctx context.Context, m *routing.Mapping) error {
	key := t.mappingKey(m.Agency(), m.Digest())
	mark, err := t.mark(ctx, key)
	if err != nil || mark != "" || m.Digest().IsZero() {
		return err
	}
	return t.storeMapping(ctx, m)
}

// storeMapping stores a mapping whatever else the table has.
func (t *Table) storeMapping(ctx context.Context, m *routing.Mapping) error {
	key := t.mappingKey(m.Agency(), m.Digest())
	n := 0
	var batch [][]byte
	for part := range m.Parts(partBytes) {
		if batch = append(batch, part); len(batch) == partsPerTrip {
			if err := t.putParts(ctx, key, n, batch); err != nil {
				return err
			}
			n += len(batch)
			batch = batch[:0]
		}
	}
	if err := t.putParts(ctx, key, n, batch); err != nil {
		return err
	}
	n += len(batch)
	bulk, cancel := context.WithTimeout(ctx, t.o.BulkTimeout)
	defer cancel()
	mark := fmt.Sprintf("%s %d %d %s", partPrefix, n, m.Size(), m.Digest())
	words, err := t.complete.Run(bulk, t.writes, []string{key}, n, m.Size(), partPrefix, mark).StringSlice()
	if err != nil {
		return err
	}
	if len(words) == 0 || words[0] != "OK" {
		return fmt.Errorf("damaged: %v", words)
	}
	return nil
}

// putParts stores parts, the first of which has the number n. The script goes along with
// each: a pipeline can't fall back to it when the server doesn't know it.
func (t *Table) putParts(ctx context.Context, key string, n int, parts [][]byte) error {
	if len(parts) == 0 {
		return nil
	}
	bulk, cancel := context.WithTimeout(ctx, t.o.BulkTimeout)
	defer cancel()
	p := t.writes.Pipeline()
	for i, part := range parts {
		p.Eval(bulk, partLua, []string{key}, fmt.Sprint(partPrefix, n+i), part, incompleteSeconds)
	}
	return exec(bulk, p)
}
