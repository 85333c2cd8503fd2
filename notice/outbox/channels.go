package outbox

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"

	bolt "go.etcd.io/bbolt"

	"mailcutover/notice"
)

// settled is up to which number a channel has settled each stream.
type settled [2]uint64

// decodeSettled reads it. One that can't be read has settled nothing: what is kept is told once more.
func decodeSettled(text []byte) (s settled) {
	if json.Unmarshal(text, &s) != nil {
		return settled{}
	}
	return s
}

// SetChannels says which channels there are. One that is new begins behind all
// events that there are; what is kept of one that isn't named goes. Without any, it is also
// forgotten up to where the table was followed: who begins anew begins with the present.
func (b *Box) SetChannels(names []string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	err := b.db.Update(func(tx *bolt.Tx) error {
		channels := tx.Bucket(bucketSettled)
		var gone [][]byte
		err := channels.ForEach(func(name, _ []byte) error {
			if !slices.Contains(names, string(name)) {
				gone = append(gone, slices.Clone(name))
			}
			return nil
		})
		for _, name := range gone {
			if err == nil {
				err = channels.Delete(name)
			}
		}
		for _, name := range names {
			if err == nil && channels.Get([]byte(name)) == nil {
				err = putSettled(channels, name, settled{tx.Bucket(bucketEvents[Table]).Sequence(), tx.Bucket(bucketEvents[Node]).Sequence()})
			}
		}
		if err == nil && len(names) == 0 {
			err = forget(tx)
		}
		if err == nil {
			err = prune(tx)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("set the channels: %w", err)
	}
	if len(names) == 0 {
		b.known = Known{}
		clear(b.facts)
	}
	return nil
}

func putSettled(channels *bolt.Bucket, name string, s settled) error {
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return channels.Put([]byte(name), text)
}

// Next returns the first events of a stream that a channel hasn't settled, at most so many.
func (b *Box) Next(channel string, s Stream, most int) (list []Entry, err error) {
	return b.After(channel, s, 0, most)
}

// After is Next, for events with numbers above one. One that can't be read is among them, with what
// is wrong in its Damage.
func (b *Box) After(channel string, s Stream, number uint64, most int) (list []Entry, err error) {
	err = b.db.View(func(tx *bolt.Tx) error {
		text := tx.Bucket(bucketSettled).Get([]byte(channel))
		if text == nil {
			return nil
		}
		done := decodeSettled(text)
		c := tx.Bucket(bucketEvents[s]).Cursor()
		for key, value := c.Seek(numberKey(max(done[s], number) + 1)); key != nil && len(list) < most; key, value = c.Next() {
			list = append(list, decode(key, value))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read events for channel %s: %w", channel, err)
	}
	return list, nil
}

// Settle says that a channel needs no event of a stream up to a number any more.
func (b *Box) Settle(channel string, s Stream, number uint64) error {
	return b.settle(channel, s, func(*bolt.Bucket) (uint64, error) { return number, nil })
}

// SettleTo says that a channel needs no event of the table up to a position any more,
// since another node has sent them.
func (b *Box) SettleTo(channel string, p notice.Position) error {
	return b.settle(channel, Table, func(events *bolt.Bucket) (last uint64, err error) {
		c := events.Cursor()
		for key, value := c.First(); key != nil; key, value = c.Next() {
			e := decode(key, value)
			if e.Damage == "" && e.Event.Position.Compare(p) > 0 {
				break
			}
			last = e.Number // one that can't be read goes with those around it
		}
		return last, nil
	})
}

func (b *Box) settle(channel string, s Stream, number func(events *bolt.Bucket) (uint64, error)) error {
	err := b.db.Update(func(tx *bolt.Tx) error {
		channels := tx.Bucket(bucketSettled)
		text := channels.Get([]byte(channel))
		if text == nil {
			return nil // it was taken away meanwhile
		}
		done := decodeSettled(text)
		n, err := number(tx.Bucket(bucketEvents[s]))
		if err != nil || n <= done[s] {
			return err
		}
		done[s] = n
		if err := putSettled(channels, channel, done); err != nil {
			return err
		}
		return prune(tx)
	})
	if err != nil {
		return fmt.Errorf("settle events of channel %s: %w", channel, err)
	}
	return nil
}

// prune removes the events that all channels have settled.
func prune(tx *bolt.Tx) error {
	least, any := settled{}, false
	err := tx.Bucket(bucketSettled).ForEach(func(_, text []byte) error {
		s := decodeSettled(text)
		if !any {
			least = s
		}
		any = true
		for i := range least {
			least[i] = min(least[i], s[i])
		}
		return nil
	})
	if err != nil {
		return err
	}
	for s, name := range bucketEvents {
		c := tx.Bucket(name).Cursor()
		for key, _ := c.First(); key != nil && (!any || binary.BigEndian.Uint64(key) <= least[s]); key, _ = c.First() {
			if err := c.Delete(); err != nil {
				return err
			}
		}
	}
	return nil
}
