package outbox

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"

	"mailcutover/notice"
	"mailcutover/routing"
)

// Stream is one of the two sorts of events.
type Stream uint8

const (
	Table Stream = iota // every node has them alike
	Node                // this node alone knows them
)

var (
	bucketMeta    = []byte("meta")
	bucketFacts   = []byte("facts")
	bucketEvents  = [...][]byte{Table: []byte("events-table"), Node: []byte("events-node")}
	bucketSettled = []byte("settled")

	keyKnown = []byte("known")
)

// lockPatience is how long Open waits for another process to let go of the file.
const lockPatience = 5 * time.Second

// Known is up to where the table's log was followed.
type Known struct {
	Incarnation routing.Incarnation `json:"incarnation"`
	notice.Position
}

// Entry is an event in its place in a stream.
type Entry struct {
	Number uint64 // from 1; grows
	Event  notice.Event
	Damage string // why it can't be read, and Event is empty; empty: nothing is wrong
}

// Dropped is an event that went since there were too many, with the channels that had not
// sent it, or said that they don't want it.
type Dropped struct {
	Event    notice.Event // empty if it could not be read
	Channels []string
}

// Box is a node's events. Use [Open].
type Box struct {
	db     *bolt.DB
	limit  int
	damage error // of what was known, when it was opened

	mu    sync.Mutex
	facts map[string]notice.Facts
	known Known
}

// Open opens the box in a directory, which must exist, or makes it. limit is the number of
// events that a stream holds at most, 1 or more.
func Open(dir string, limit int) (*Box, error) {
	path := filepath.Join(dir, "outbox.db")
	fail := func(err error) (*Box, error) { return nil, fmt.Errorf("open outbox %s: %w", path, err) }
	if limit < 1 {
		return fail(fmt.Errorf("%d events: want 1 or more", limit))
	}
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: lockPatience, FreelistType: bolt.FreelistMapType})
	if err != nil {
		return fail(err)
	}
	b := &Box{db: db, limit: limit, facts: make(map[string]notice.Facts)}
	if err := db.Update(b.load); err != nil {
		return fail(errors.Join(err, db.Close()))
	}
	return b, nil
}

// load makes the buckets and reads what is kept in memory.
func (b *Box) load(tx *bolt.Tx) error {
	for _, name := range [][]byte{bucketMeta, bucketFacts, bucketEvents[Table], bucketEvents[Node], bucketSettled} {
		if _, err := tx.CreateBucketIfNotExists(name); err != nil {
			return err
		}
	}
	var errs []error
	if text := tx.Bucket(bucketMeta).Get(keyKnown); text != nil {
		if err := json.Unmarshal(text, &b.known); err != nil {
			errs = append(errs, fmt.Errorf("read where the table was followed to: %w", err))
		}
	}
	err := tx.Bucket(bucketFacts).ForEach(func(key, value []byte) error {
		var f notice.Facts
		if err := json.Unmarshal(value, &f); err != nil {
			errs = append(errs, fmt.Errorf("read facts of %s: %w", key, err))
		}
		b.facts[string(key)] = f
		return nil
	})
	if len(errs) > 0 {
		// From a part of what was known wrong events would be derived: the table is followed anew.
		b.damage = errors.Join(errs...)
		b.known = Known{}
		clear(b.facts)
		err = errors.Join(err, forget(tx))
	}
	return err
}

// forget forgets up to where the table was followed, and all facts.
func forget(tx *bolt.Tx) error {
	if err := tx.Bucket(bucketMeta).Delete(keyKnown); err != nil {
		return err
	}
	if err := tx.DeleteBucket(bucketFacts); err != nil {
		return err
	}
	_, err := tx.CreateBucket(bucketFacts)
	return err
}

// Damage returns what could not be read when the box was opened, of what was known of the table: it
// was forgotten, and changes between then and the present are told by nobody. nil: all could be read.
func (b *Box) Damage() error { return b.damage }

// Close closes the file.
func (b *Box) Close() error { return b.db.Close() }

// Known returns up to where the table's log was followed; ok is false if it never was.
func (b *Box) Known() (k Known, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.known, b.known.Incarnation != ""
}

// Facts returns what is known of a record; nil: nothing. It must not be changed.
func (b *Box) Facts(key string) notice.Facts {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.facts[key]
}

// Keys returns the keys of all records of which something is known.
func (b *Box) Keys() map[string]bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	keys := make(map[string]bool, len(b.facts))
	for key := range maps.Keys(b.facts) {
		keys[key] = true
	}
	return keys
}

// Addition is what one Put adds.
type Addition struct {
	Stream  Stream
	Known   *Known // nil: as it was
	Records []notice.Record
	Events  []notice.Event
}

// Put keeps facts and events, all of it or nothing, and returns what went for it.
func (b *Box) Put(a Addition) (dropped []Dropped, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	err = b.db.Update(func(tx *bolt.Tx) error {
		dropped = nil
		if a.Known != nil {
			text, err := json.Marshal(a.Known)
			if err == nil {
				err = tx.Bucket(bucketMeta).Put(keyKnown, text)
			}
			if err != nil {
				return err
			}
		}
		if err := putFacts(tx.Bucket(bucketFacts), a.Records); err != nil {
			return err
		}
		if err := putEvents(tx.Bucket(bucketEvents[a.Stream]), a.Events); err != nil {
			return err
		}
		dropped, err = b.shrink(tx, a.Stream)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("keep %d events: %w", len(a.Events), err)
	}
	if a.Known != nil {
		b.known = *a.Known
	}
	for i := range a.Records {
		if r := &a.Records[i]; r.Facts == nil {
			delete(b.facts, r.Key)
		} else {
			b.facts[r.Key] = r.Facts
		}
	}
	return dropped, nil
}

func putFacts(facts *bolt.Bucket, records []notice.Record) error {
	for i := range records {
		r := &records[i]
		if r.Facts == nil {
			if err := facts.Delete([]byte(r.Key)); err != nil {
				return err
			}
			continue
		}
		text, err := json.Marshal(r.Facts)
		if err == nil {
			err = facts.Put([]byte(r.Key), text)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// stored is an event as it lies in the file.
type stored struct {
	Event    notice.Event    `json:"event"`
	Position notice.Position `json:"position"`
}

func putEvents(events *bolt.Bucket, list []notice.Event) error {
	for i := range list {
		n, err := events.NextSequence()
		if err != nil {
			return err
		}
		text, err := json.Marshal(stored{list[i], list[i].Position})
		if err == nil {
			err = events.Put(numberKey(n), text)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// decode reads an event. One that can't be read must not keep those behind it: it says why.
func decode(key, value []byte) Entry {
	e := Entry{Number: binary.BigEndian.Uint64(key)}
	var s stored
	if err := json.Unmarshal(value, &s); err != nil {
		e.Damage = fmt.Sprintf("read event %d: %v", e.Number, err)
		return e
	}
	e.Event = s.Event
	e.Event.Position = s.Position
	return e
}

func numberKey(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// shrink removes the oldest events of a stream beyond the limit.
func (b *Box) shrink(tx *bolt.Tx, s Stream) (dropped []Dropped, err error) {
	events := tx.Bucket(bucketEvents[s])
	excess := -b.limit
	for c, key := events.Cursor(), []byte(nil); ; excess++ {
		if key == nil {
			key, _ = c.First()
		} else {
			key, _ = c.Next()
		}
		if key == nil {
			break
		}
	}
	c := events.Cursor()
	for key, value := c.First(); key != nil && excess > 0; key, value = c.First() {
		e := decode(key, value)
		d := Dropped{Event: e.Event}
		err = tx.Bucket(bucketSettled).ForEach(func(name, text []byte) error {
			if settled := decodeSettled(text); settled[s] < e.Number {
				d.Channels = append(d.Channels, string(name))
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		dropped = append(dropped, d)
		if err := c.Delete(); err != nil {
			return nil, err
		}
		excess--
	}
	return dropped, nil
}
