package localtable

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"

	bolt "go.etcd.io/bbolt"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

const (
	partBytes      = 256 << 10 // of a mapping's text in one value
	partsPerCommit = 16        // so that a large mapping doesn't keep changes waiting
	completeBytes  = 16        // number of parts, size
)

var keyComplete = []byte("complete") // longer than the parts' keys, which are numbers

func mappingKey(agency routing.AgencyID, d routing.Digest) []byte {
	return []byte(string(agency) + ":" + d.String())
}

// Mapping implements table.Table.
func (t *Table) Mapping(ctx context.Context, agency routing.AgencyID, digest routing.Digest) (*routing.Mapping, error) {
	var m *routing.Mapping
	err := t.view(ctx, func(tx *bolt.Tx) error {
		if _, err := position(tx); err != nil {
			return err
		}
		if digest.IsZero() {
			var err error
			m, err = routing.NewMapping(agency, nil)
			return err
		}
		b := tx.Bucket(bucketMapping).Bucket(mappingKey(agency, digest))
		if b == nil || b.Get(keyComplete) == nil {
			return table.ErrNoMapping
		}
		mark := b.Get(keyComplete)
		if len(mark) != completeBytes {
			return errors.New("damaged: its mark can't be read")
		}
		n, size := binary.BigEndian.Uint64(mark), binary.BigEndian.Uint64(mark[8:])
		var err error
		m, err = routing.ReadMapping(agency, digest, int(size), parts(ctx, b, n))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("mapping %s of agency %s: %w", digest, agency, err)
	}
	return m, nil
}

func parts(ctx context.Context, b *bolt.Bucket, n uint64) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for i := range n {
			part := b.Get(partKey(i))
			err := ctx.Err()
			if part == nil {
				err = fmt.Errorf("damaged: part %d of %d is missing", i, n)
			}
			if !yield(part, err) || err != nil {
				return
			}
		}
	}
}

func partKey(i uint64) []byte {
	return binary.BigEndian.AppendUint32(nil, uint32(i))
}

// PutMapping implements table.Table.
func (t *Table) PutMapping(ctx context.Context, m *routing.Mapping) error {
	if err := t.putMapping(ctx, m); err != nil {
		return fmt.Errorf("put mapping %s of agency %s: %w", m.Digest(), m.Agency(), err)
	}
	return nil
}

func (t *Table) putMapping(ctx context.Context, m *routing.Mapping) error {
	complete := m.Digest().IsZero()
	err := t.view(ctx, func(tx *bolt.Tx) error {
		_, err := position(tx)
		b := tx.Bucket(bucketMapping).Bucket(mappingKey(m.Agency(), m.Digest()))
		complete = complete || b != nil && b.Get(keyComplete) != nil
		return err
	})
	if err != nil || complete {
		return err
	}
	return t.storeMapping(ctx, m)
}

// storeMapping stores a mapping whatever else the table has.
func (t *Table) storeMapping(ctx context.Context, m *routing.Mapping) error {
	var n uint64
	for batch := range chunks(m.Parts(partBytes), partsPerCommit) {
		err := t.inMapping(ctx, m, func(b *bolt.Bucket) error {
			for i, part := range batch {
				if err := b.Put(partKey(n+uint64(i)), part); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		n += uint64(len(batch))
	}
	return t.inMapping(ctx, m, func(b *bolt.Bucket) error {
		mark := binary.BigEndian.AppendUint64(nil, n)
		return b.Put(keyComplete, binary.BigEndian.AppendUint64(mark, uint64(m.Size())))
	})
}

// inMapping writes to the bucket of a mapping.
func (t *Table) inMapping(ctx context.Context, m *routing.Mapping, f func(*bolt.Bucket) error) error {
	return t.update(ctx, func(tx *bolt.Tx) error {
		b, err := tx.Bucket(bucketMapping).CreateBucketIfNotExists(mappingKey(m.Agency(), m.Digest()))
		if err != nil {
			return err
		}
		return f(b)
	})
}

// chunks groups parts.
func chunks(parts iter.Seq[[]byte], size int) iter.Seq[[][]byte] {
	return func(yield func([][]byte) bool) {
		var batch [][]byte
		for part := range parts {
			batch = append(batch, part)
			if len(batch) == size {
				if !yield(batch) {
					return
				}
				batch = nil
			}
		}
		if len(batch) > 0 {
			yield(batch)
		}
	}
}
