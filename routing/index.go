package routing

import (
	"strings"
	"sync"
	"sync/atomic"
)

// keyIndex finds the agencies that may hold a key. It is shared by successive States
// and only grows: an entry that is out of date costs a look at a mapping that no
// longer has the key, nothing else, because every hit is verified in the mapping of
// the State that asks. Readers take no lock; writers take mu.
type keyIndex struct {
	mu    sync.Mutex
	slots []atomic.Uint64 // upper 40 bits of the key's hash, agency's number + 1; 0 is empty
	used  int
}

const agencyBits = 24

// maxAgencies is what fits into an entry of the index.
const maxAgencies = 1<<agencyBits - 2

func newKeyIndex(n int) *keyIndex {
	return &keyIndex{slots: make([]atomic.Uint64, tableSize(n))}
}

// has room for n more entries.
func (x *keyIndex) hasRoom(n int) bool { return (x.used+n)*4 <= len(x.slots)*3 }

// addMapping enters the keys of the agency with this number. The caller holds mu and
// has asked hasRoom.
func (x *keyIndex) addMapping(agency int, m *Mapping) {
	for i := range m.rows {
		f := fields{rest: m.line(i)}
		f.next()
		f.next()
		for f.more() {
			field := f.next()
			key, ok := placeKey(field)
			if !ok {
				_, key, _ = strings.Cut(field, ":")
			}
			x.add(hashKey(key), agency)
		}
	}
}

func (x *keyIndex) add(h uint64, agency int) {
	entry := h>>agencyBits<<agencyBits | uint64(agency+1)
	mask := uint64(len(x.slots) - 1)
	for i := h & mask; ; i = (i + 1) & mask {
		switch x.slots[i].Load() {
		case entry:
			return
		case 0:
			x.slots[i].Store(entry)
			x.used++
			return
		}
	}
}

// next returns the number of the next agency that may hold a key with hash h, and where
// to go on; agency is -1 at the end. The first call passes h itself as pos.
func (x *keyIndex) next(h, pos uint64) (agency int, after uint64) {
	mask := uint64(len(x.slots) - 1)
	for i := pos; ; i++ {
		entry := x.slots[i&mask].Load()
		if entry == 0 {
			return -1, i
		}
		if entry>>agencyBits == h>>agencyBits {
			return int(entry&(1<<agencyBits-1)) - 1, i + 1
		}
	}
}
