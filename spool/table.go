package spool

import "encoding/binary"

// rowsOfChunk is how many messages a chunk of a slab has.
const rowsOfChunk = 128

// slab has the messages, by row. They never move, so that a *message stays good until its
// row is freed. The zero value is ready.
type slab struct {
	chunks []*[rowsOfChunk]message
	used   int      // rows that were ever taken
	free   []uint32 // of them, not in use
}

// at returns a row that is taken.
func (s *slab) at(row uint32) *message { return &s.chunks[row/rowsOfChunk][row%rowsOfChunk] }

// len returns how many rows there is memory for, roughly.
func (s *slab) len() int { return s.used }

// take returns a row that isn't in use.
func (s *slab) take() uint32 {
	if last := len(s.free); last > 0 {
		row := s.free[last-1]
		s.free = s.free[:last-1]
		return row
	}
	if s.used == len(s.chunks)*rowsOfChunk {
		s.chunks = append(s.chunks, new([rowsOfChunk]message))
	}
	s.used++
	return uint32(s.used - 1)
}

// shardsOfTable share a table, so that nobody waits until all of it has grown.
const shardsOfTable = 64

// table finds rows by their messages' ids. A map would have the ids a second time, and
// half of it is empty when it has just grown. The zero value is ready.
type table struct {
	shards [shardsOfTable]shard
}

// shard has rows plus 1 where their hash says, or in the next slot that was free; 0 is
// none. The number of slots is a power of two, or none.
type shard struct {
	slots []uint32
	used  int
}

// hashOf spreads ids, which are UUIDs: bytes of time, then random ones, all ours.
func hashOf(id *[16]byte) uint64 {
	h := binary.LittleEndian.Uint64(id[:8]) ^ binary.LittleEndian.Uint64(id[8:])
	h = (h ^ h>>32) * 0x9e3779b97f4a7c15
	return h ^ h>>29
}

func (t *table) of(hash uint64) *shard { return &t.shards[hash>>58] }

// find returns the row of an id.
func (t *table) find(rows *slab, id [16]byte) (row uint32, ok bool) {
	hash := hashOf(&id)
	s := t.of(hash)
	if i, ok := s.search(rows, &id, hash); ok {
		return s.slots[i] - 1, true
	}
	return 0, false
}

// search returns the slot of an id, or the free one where it would stand.
func (s *shard) search(rows *slab, id *[16]byte, hash uint64) (slot int, ok bool) {
	if len(s.slots) == 0 {
		return 0, false
	}
	mask := len(s.slots) - 1
	for i := int(hash) & mask; ; i = (i + 1) & mask {
		switch row := s.slots[i]; {
		case row == 0:
			return i, false
		case rows.at(row-1).id == *id:
			return i, true
		}
	}
}

// insert adds a row, whose id isn't there yet.
func (t *table) insert(rows *slab, row uint32) {
	id := &rows.at(row).id
	hash := hashOf(id)
	s := t.of(hash)
	if s.used >= len(s.slots)/8*7 {
		s.resize(rows, max(8, 2*len(s.slots)))
	}
	i, _ := s.search(rows, id, hash)
	s.slots[i] = row + 1
	s.used++
}

func (s *shard) resize(rows *slab, size int) {
	old := s.slots
	s.slots = make([]uint32, size)
	for _, row := range old {
		if row != 0 {
			id := &rows.at(row - 1).id
			i, _ := s.search(rows, id, hashOf(id))
			s.slots[i] = row
		}
	}
}

// each calls f with all rows, in no order.
func (t *table) each(f func(row uint32)) {
	for i := range t.shards {
		for _, row := range t.shards[i].slots {
			if row != 0 {
				f(row - 1)
			}
		}
	}
}

// len returns how many rows there are.
func (t *table) len() (n int) {
	for i := range t.shards {
		n += t.shards[i].used
	}
	return n
}

// remove takes out an id that is there, and returns its row.
func (t *table) remove(rows *slab, id [16]byte) (row uint32) {
	hash := hashOf(&id)
	s := t.of(hash)
	free, _ := s.search(rows, &id, hash)
	row = s.slots[free] - 1
	s.used--
	// Whoever stands behind and may stand in the free slot moves there, so that nobody is
	// looked for in vain.
	mask := len(s.slots) - 1
	for i := (free + 1) & mask; s.slots[i] != 0; i = (i + 1) & mask {
		home := int(hashOf(&rows.at(s.slots[i]-1).id)) & mask
		if (i-home)&mask >= (i-free)&mask {
			s.slots[free], free = s.slots[i], i
		}
	}
	s.slots[free] = 0
	return row
}
