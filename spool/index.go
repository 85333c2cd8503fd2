package spool

import (
	"hash/maphash"
	"slices"
	"sort"

	"mailcutover/mail"
	"mailcutover/routing"
)

// message is what memory holds of a message. There can be a million, so what can be read
// back from the journal isn't here, nor is a pointer: the collector doesn't look at them.
// A *message is valid as long as the lock is held under which it was got.
type message struct {
	id        [16]byte
	seq       uint64
	time      int64
	size      int64
	head      position
	body      position // bodyInFile, or a record in whose tail it is
	headBytes uint32   // frame and head of the record at head
	bodyCRC   uint32
	first     uint32 // segment of the first record
	many      uint32 // index in index.many of the recipients; 0: there is one only
	one       [1]recipient
	pinned    bool // its Incoming may still add recipients
	gone      bool // no longer in the index, though in its order
	sealed    bool // the body is encrypted: size and bodyCRC are those of what is on the disk
}

type recipient struct {
	name     uint32   // index in names
	agency   uint32   // index in agencies
	out      position // of the record of the last outcome; zero if there was none
	outBytes uint16
	state    State
}

// keyCount is a mailbox or fixed address.
type keyCount struct {
	key  Key
	refs int32 // names that have it as home, and names that have it as key
	held int32 // recipients in StateHeld whose key it is
}

// agencyCount is an agency; the one without a name counts fixed addresses.
type agencyCount struct {
	id     routing.AgencyID
	counts Counts
}

// index is what memory holds. Its owner locks.
type index struct {
	messages table    // rows by id
	rows     slab     // of messages
	order    []uint32 // rows by seq
	gone     int      // of order, no longer in messages
	many     [][]recipient
	freeMany []uint32

	names      []name // from 1
	freeNames  []uint32
	nameNumber map[uint64]uint32 // by hash: the first of those that have it
	seed       maphash.Seed

	keys      []keyCount
	freeKeys  []uint32
	keyNumber map[Key]uint32
	owner     Owners // nil: every name's key is its home

	agencies     []agencyCount
	agencyNumber map[routing.AgencyID]uint32

	counts Counts
}

func newIndex() index {
	return index{
		many: make([][]recipient, 1), names: make([]name, 1), nameNumber: map[uint64]uint32{}, seed: maphash.MakeSeed(),
		keyNumber: map[Key]uint32{}, agencyNumber: map[routing.AgencyID]uint32{},
	}
}

func (x *index) agency(id routing.AgencyID) uint32 {
	n, ok := x.agencyNumber[id]
	if !ok {
		n = uint32(len(x.agencies))
		x.agencies = append(x.agencies, agencyCount{id: id})
		x.agencyNumber[id] = n
	}
	return n
}

// recipient returns what memory holds of r.
func (x *index) recipient(r *Recipient) recipient {
	return recipient{name: x.refer(r), agency: x.agency(r.Agency), state: r.State}
}

// find returns the message with an id; nil if there is none.
func (x *index) find(id [16]byte) *message {
	if row, ok := x.messages.find(&x.rows, id); ok {
		return x.rows.at(row)
	}
	return nil
}

// insert makes room for a message with a new id, and returns it.
func (x *index) insert(id [16]byte) *message {
	row := x.rows.take()
	m := x.rows.at(row)
	*m = message{id: id}
	x.messages.insert(&x.rows, row)
	return m
}

// add puts a copy of m, the newest, with its recipients into the index.
func (x *index) add(m *message, rcpts []recipient) *message {
	row := x.rows.take()
	added := x.rows.at(row)
	*added = *m
	x.messages.insert(&x.rows, row)
	x.order = append(x.order, row)
	x.setRecipients(added, rcpts)
	x.count(added, 1)
	return added
}

// recipients returns those of m; what is changed in it is changed in m.
func (x *index) recipients(m *message) []recipient {
	if m.many == 0 {
		return m.one[:]
	}
	return x.many[m.many]
}

// recipientsOf is recipients; of no message there are none.
func (x *index) recipientsOf(m *message) []recipient {
	if m == nil {
		return nil
	}
	return x.recipients(m)
}

// setRecipients gives m its recipients, one at least.
func (x *index) setRecipients(m *message, rcpts []recipient) {
	if len(rcpts) == 1 {
		x.forgetMany(m)
		m.one[0] = rcpts[0]
		return
	}
	if m.many == 0 {
		if last := len(x.freeMany); last > 0 {
			m.many = x.freeMany[last-1]
			x.freeMany = x.freeMany[:last-1]
		} else {
			m.many = uint32(len(x.many))
			x.many = append(x.many, nil)
		}
	}
	x.many[m.many] = rcpts
}

func (x *index) forgetMany(m *message) {
	if m.many != 0 {
		x.many[m.many] = nil
		x.freeMany = append(x.freeMany, m.many)
		m.many = 0
	}
}

// ended reports whether nothing more is to be done for m.
func (x *index) ended(m *message) bool {
	return !slices.ContainsFunc(x.recipients(m), func(r recipient) bool { return !r.state.Final() })
}

// remove takes m out of the index.
func (x *index) remove(m *message) {
	x.count(m, -1)
	x.drop(m)
	m.gone = true
	if x.gone++; x.gone > 1024 && x.gone > len(x.order)/4 {
		x.clean()
	}
}

// drop forgets a message, but for its row, which it returns.
func (x *index) drop(m *message) (row uint32) {
	for _, r := range x.recipients(m) {
		x.release(r.name)
	}
	x.forgetMany(m)
	return x.messages.remove(&x.rows, m.id)
}

// clean takes messages that are gone out of the order, and gives back memory when few are
// left.
func (x *index) clean() {
	x.order = slices.Clip(slices.DeleteFunc(x.order, func(row uint32) bool {
		if !x.rows.at(row).gone {
			return false
		}
		x.rows.free = append(x.rows.free, row)
		return true
	}))
	x.gone = 0
	if len(x.order) > x.rows.len()/4 {
		return
	}
	var rows slab
	var messages table
	order := make([]uint32, len(x.order))
	for i, row := range x.order {
		order[i] = rows.take()
		*rows.at(order[i]) = *x.rows.at(row)
		messages.insert(&rows, order[i])
	}
	x.rows, x.messages, x.order = rows, messages, order
}

// after returns the index in order of the first message with a sequence above seq.
func (x *index) after(seq uint64) int {
	return sort.Search(len(x.order), func(i int) bool { return x.rows.at(x.order[i]).seq > seq })
}

// count adds m to the counts, or subtracts it. Around every change of a state it is
// subtracted before and added after.
func (x *index) count(m *message, sign int) {
	var seen [8]uint32
	agencies, messages := seen[:0], 0
	for _, r := range x.recipients(m) {
		if r.state.Final() {
			continue
		}
		messages = sign
		x.counts.Recipients[r.state] += sign
		a := &x.agencies[r.agency].counts
		a.Recipients[r.state] += sign
		if r.state == StateHeld {
			n := &x.names[r.name]
			n.held += int32(sign)
			x.keys[n.key].held += int32(sign)
		}
		if !slices.Contains(agencies, r.agency) {
			agencies = append(agencies, r.agency)
			a.Messages += sign
			a.Bytes += int64(sign) * m.size
		}
	}
	x.counts.Messages += messages
	x.counts.Bytes += int64(messages) * m.size
}

// entries appends the entries of m that f chooses.
func (x *index) entries(list []Entry, m *message, f *Filter) []Entry {
	for i, r := range x.recipients(m) {
		if r.state.Final() || f.State != StateUnknown && r.state != f.State ||
			f.Agency != "" && x.agencies[r.agency].id != f.Agency || f.Key != "" && x.keyOf(r) != f.Key {
			continue
		}
		list = append(list, Entry{
			Transaction: mail.TransactionIDOf(m.id), Recipient: i, Sequence: m.seq,
			Agency: x.agencies[r.agency].id, Key: x.keyOf(r), State: r.state, Time: unixTime(m.time), Size: m.plainSize(),
		})
	}
	return list
}
