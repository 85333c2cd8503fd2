package localtable

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	bolt "go.etcd.io/bbolt"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encode returns v as it stands in the file: the CRC-32C of the JSON, then the JSON.
func encode(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return append(binary.BigEndian.AppendUint32(nil, crc32.Checksum(b, castagnoli)), b...), nil
}

// decode is the reverse of encode.
func decode(b []byte, v any) error {
	if len(b) < 4 || binary.BigEndian.Uint32(b) != crc32.Checksum(b[4:], castagnoli) {
		return errors.New("damaged: checksum doesn't fit")
	}
	return json.Unmarshal(b[4:], v)
}

// put writes a record.
func put(b *bolt.Bucket, key []byte, v any) error {
	value, err := encode(v)
	if err != nil {
		return err
	}
	return b.Put(key, value)
}

// all reads the records of a bucket, by key.
func all[T any](tx *bolt.Tx, bucket []byte) ([]T, error) {
	var records []T
	err := tx.Bucket(bucket).ForEach(func(key, value []byte) error {
		var r T
		if err := decode(value, &r); err != nil {
			return fmt.Errorf("%s %s: %w", bucket, key, err)
		}
		records = append(records, r)
		return nil
	})
	return records, err
}

// entry is a change in the log; its revision is the key.
type entry struct {
	Mapped   routing.Revision `json:"mapped"`
	Term     uint32           `json:"term"`
	ID       string           `json:"id"`
	Time     time.Time        `json:"time"`
	Who      string           `json:"who,omitempty"`
	What     string           `json:"what,omitempty"`
	Reason   string           `json:"reason,omitempty"`
	Agencies []routing.Agency `json:"agencies,omitempty"`
	Domains  []routing.Domain `json:"domains,omitempty"`
	Fixed    []routing.Fixed  `json:"fixed,omitempty"`

	Members    []routing.Member    `json:"members,omitempty"`
	Operations []routing.Operation `json:"operations,omitempty"`
	Freezes    []routing.Freeze    `json:"freezes,omitempty"`
	Documents  []routing.Document  `json:"documents,omitempty"`
	Above      []routing.Agency    `json:"above,omitempty"`
}

func (e *entry) entry(pos routing.Position) table.Entry {
	return table.Entry{
		Update: routing.Update{Position: pos, Agencies: e.Agencies, Domains: e.Domains, Fixed: e.Fixed,
			Members: e.Members, Operations: e.Operations, Freezes: e.Freezes, Documents: e.Documents, Above: e.Above},
		ID: e.ID, Time: e.Time, Who: e.Who, What: e.What, Reason: e.Reason,
	}
}

// applied is what is remembered of a change by its id.
type applied struct {
	Digest   routing.Digest   `json:"digest"`
	Revision routing.Revision `json:"revision"`
	Mapped   routing.Revision `json:"mapped"`
	Term     uint32           `json:"term"`
}
