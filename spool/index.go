package spool

import (
	"slices"
	"sort"

	"mailcutover/mail"
	"mailcutover/routing"
)

// message is what memory holds of a message. There can be a million, so what can be read
// back from the journal isn't here.
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
	pinned    bool   // its Incoming may still add recipients
	gone      bool   // no longer in the index, though in its order
	rcpts     []recipient
}

type recipient struct {
	key      uint32   // index in keys
	agency   uint32   // index in agencies
	out      position // of the record of the last outcome; zero if there was none
	outBytes uint16
	state    State
}

// ended reports whether nothing more is to be done for m.
func (m *message) ended() bool {
	for i := range m.rcpts {
		if !m.rcpts[i].state.Final() {
			return false
		}
	}
	return true
}

// keyCount is a mailbox or fixed address.
type keyCount struct {
	key  Key
	refs int32 // recipients that name it
	held int32 // of them in StateHeld
}

// agencyCount is an agency; the one without a name counts fixed addresses.
type agencyCount struct {
	id     routing.AgencyID
	counts Counts
}

// index is what memory holds. Its owner locks.
type index struct {
	messages map[[16]byte]*message
	order    []*message // by seq
	gone     int        // of order, no longer in messages

	keys      []keyCount
	freeKeys  []uint32
	keyNumber map[Key]uint32

	agencies     []agencyCount
	agencyNumber map[routing.AgencyID]uint32

	counts Counts
}

func newIndex() index {
	return index{messages: map[[16]byte]*message{}, keyNumber: map[Key]uint32{}, agencyNumber: map[routing.AgencyID]uint32{}}
}

// refer returns the number of a key and counts the reference.
func (x *index) refer(k Key) uint32 {
	n, ok := x.keyNumber[k]
	if !ok {
		if last := len(x.freeKeys); last > 0 {
			n = x.freeKeys[last-1]
			x.freeKeys = x.freeKeys[:last-1]
			x.keys[n] = keyCount{key: k}
		} else {
			n = uint32(len(x.keys))
			x.keys = append(x.keys, keyCount{key: k})
		}
		x.keyNumber[k] = n
	}
	x.keys[n].refs++
	return n
}

func (x *index) release(n uint32) {
	k := &x.keys[n]
	if k.refs--; k.refs == 0 {
		delete(x.keyNumber, k.key)
		*k = keyCount{}
		x.freeKeys = append(x.freeKeys, n)
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
	return recipient{key: x.refer(r.Key()), agency: x.agency(r.Agency), state: r.State}
}

// add puts m, the newest, into the index.
func (x *index) add(m *message) {
	x.messages[m.id] = m
	x.order = append(x.order, m)
	x.count(m, 1)
}

// remove takes m out of the index.
func (x *index) remove(m *message) {
	x.count(m, -1)
	for i := range m.rcpts {
		x.release(m.rcpts[i].key)
	}
	delete(x.messages, m.id)
	m.gone, m.rcpts = true, nil
	if x.gone++; x.gone > 1024 && x.gone > len(x.order)/4 {
		x.order = slices.Clip(slices.DeleteFunc(x.order, func(m *message) bool { return m.gone }))
		x.gone = 0
	}
}

// after returns the index in order of the first message with a sequence above seq.
func (x *index) after(seq uint64) int {
	return sort.Search(len(x.order), func(i int) bool { return x.order[i].seq > seq })
}

// count adds m to the counts, or subtracts it. Around every change of a state it is
// subtracted before and added after.
func (x *index) count(m *message, sign int) {
	var seen [8]uint32
	agencies, messages := seen[:0], 0
	for i := range m.rcpts {
		r := &m.rcpts[i]
		if r.state.Final() {
			continue
		}
		messages = sign
		x.counts.Recipients[r.state] += sign
		a := &x.agencies[r.agency].counts
		a.Recipients[r.state] += sign
		if r.state == StateHeld {
			x.keys[r.key].held += int32(sign)
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
	for i := range m.rcpts {
		r := &m.rcpts[i]
		if r.state.Final() || f.State != StateUnknown && r.state != f.State ||
			f.Agency != "" && x.agencies[r.agency].id != f.Agency || f.Key != "" && x.keys[r.key].key != f.Key {
			continue
		}
		list = append(list, Entry{
			Transaction: mail.TransactionIDOf(m.id), Recipient: i, Sequence: m.seq,
			Agency: x.agencies[r.agency].id, Key: x.keys[r.key].key, State: r.state, Time: unixTime(m.time), Size: m.size,
		})
	}
	return list
}
