package routing

import (
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"
)

// keyIndex finds the mailboxes that may have a key: an address, a login, or the name by
// which a platform knows them. It is shared by successive States and only grows: a
// mapping that is put in the place of another is entered beside it, as the agency's next
// generation, so that a State always finds what its own mappings have. A hit is verified
// in the mapping's text before it counts.
//
// One look into memory that no cache holds leads to the line of the mailbox: a million
// mailboxes don't fit a cache, and such looks are what a decision's time is made of.
// Readers take no lock; writers take mu.
type keyIndex struct {
	mu          sync.Mutex
	slots       []atomic.Uint64 // of entries; 0 is empty
	used        int
	generations map[int]int // of each agency's mappings so far, by the agency's number
}

// An entry is, from the upper end, the upper bits of the key's hash, the agency's number
// + 1, the generation of its mapping, and the offset of the mailbox's line in that.
const (
	agencyBits     = 16
	generationBits = 5
	offsetBits     = 29
	whereBits      = agencyBits + generationBits + offsetBits

	maxAgencies     = 1<<agencyBits - 2
	maxGenerations  = 1 << generationBits
	maxMappingBytes = 1<<offsetBits - 1

	// ofFixed stands for the agency in the entries of fixed addresses.
	ofFixed = maxAgencies
)

// where is what an entry leads to.
type where struct {
	agency     int // its number in the State, ofFixed, or -1: nowhere
	generation int
	offset     uint32
}

func newKeyIndex(n int) *keyIndex {
	return &keyIndex{slots: make([]atomic.Uint64, tableSize(n)), generations: map[int]int{}}
}

// hasRoom reports whether n more entries fit.
func (x *keyIndex) hasRoom(n int) bool { return (x.used+n)*4 <= len(x.slots)*3 }

// addMapping enters all keys of a mapping of the agency with this number and returns its
// generation, and appends to suspects the keys that another may have. The caller holds
// mu and has asked for room; a mapping without room for its generation has none for its
// keys either: see [State.enter].
func (x *keyIndex) addMapping(agency int, m *Mapping, suspects *[]string) (generation int) {
	w := where{agency: agency, generation: x.generations[agency]}
	x.generations[agency]++
	for _, w.offset = range m.rows {
		f := fields{rest: m.line(w.offset)}
		f.next()
		f.next()
		for f.more() {
			field := f.next()
			key, ok := placeKey(field)
			if !ok {
				_, key, _ = strings.Cut(field, ":")
			}
			if x.add(hashKey(key), w) {
				*suspects = append(*suspects, key)
			}
		}
	}
	return w.generation
}

// add enters a key with hash h, and reports whether there may be another agency, or a
// fixed address, that has it.
func (x *keyIndex) add(h uint64, w where) (suspect bool) {
	entry := h>>whereBits<<whereBits | uint64(w.agency+1)<<(generationBits+offsetBits) | uint64(w.generation)<<offsetBits | uint64(w.offset)
	mask := uint64(len(x.slots) - 1)
	known := false
	for i := h & mask; ; i = (i + 1) & mask {
		switch is := x.slots[i].Load(); {
		case is == entry:
			known = true
		case is == 0:
			if !known {
				x.slots[i].Store(entry)
				x.used++
			}
			return suspect
		case is>>whereBits == entry>>whereBits && is>>(generationBits+offsetBits) != entry>>(generationBits+offsetBits):
			suspect = true
		}
	}
}

// next returns where a key with hash h may be, and how to go on. The first call passes h
// itself as pos.
func (x *keyIndex) next(h, pos uint64) (w where, after uint64) {
	mask := uint64(len(x.slots) - 1)
	for i := pos; ; i++ {
		entry := x.slots[i&mask].Load()
		if entry == 0 {
			return where{agency: -1}, i
		}
		if entry>>whereBits == h>>whereBits {
			return where{
				agency:     int(entry>>(generationBits+offsetBits)&(1<<agencyBits-1)) - 1,
				generation: int(entry >> offsetBits & (1<<generationBits - 1)),
				offset:     uint32(entry & (1<<offsetBits - 1)),
			}, i + 1
		}
	}
}

// hashKey hashes an address or a login; 0 is not special.
func hashKey(key string) uint64 { return xxhash.Sum64String(key) }

// tableSize returns the size of an open-addressing table for n entries: a power of two,
// at most two thirds full.
func tableSize(n int) int {
	size := 8
	for size*2 < n*3 {
		size *= 2
	}
	return size
}
