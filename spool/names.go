package spool

import (
	"hash/maphash"

	"mailcutover/routing"
)

// Owners says whose an address is now: a mailbox's, or nobody's if that is zero, as with a
// fixed address. known is false where that can't be said.
type Owners func(routing.Address) (mailbox routing.MailboxID, known bool)

// name is what recipients were accepted by: an address, and the mailbox that had it then.
type name struct {
	address routing.Address
	home    uint32 // index in keys: of the mailbox at acceptance, or of the address
	key     uint32 // index in keys: of who has the address now
	next    uint32 // index in names of another one with this hash; 0: there is none
	refs    int32  // recipients that have it
	held    int32  // of them in StateHeld
}

// hash returns the hash of a name.
func (x *index) hash(mailbox routing.MailboxID, a routing.Address) uint64 {
	var h maphash.Hash
	h.SetSeed(x.seed)
	h.Write(mailbox[:])
	h.WriteString(string(a))
	return h.Sum64()
}

// refer returns the number of a recipient's name and counts the reference. A name that is
// new gets the key of whoever has its address now.
func (x *index) refer(r *Recipient) uint32 {
	h := x.hash(r.Mailbox, r.Address)
	first := x.nameNumber[h]
	for n := first; n != 0; n = x.names[n].next {
		if is := &x.names[n]; is.address == r.Address && x.keys[is.home].key.Mailbox() == r.Mailbox {
			is.refs++
			return n
		}
	}
	var n uint32
	if last := len(x.freeNames); last > 0 {
		n = x.freeNames[last-1]
		x.freeNames = x.freeNames[:last-1]
	} else {
		n = uint32(len(x.names))
		x.names = append(x.names, name{})
	}
	home := x.referKey(KeyOf(r.Mailbox, r.Address))
	x.keys[home].refs++ // as home, and as key
	x.names[n] = name{address: r.Address, home: home, key: home, next: first, refs: 1}
	x.nameNumber[h] = n
	x.place(n)
	return n
}

// release takes a reference to a name away.
func (x *index) release(n uint32) {
	is := &x.names[n]
	if is.refs--; is.refs > 0 {
		return
	}
	h := x.hash(x.keys[is.home].key.Mailbox(), is.address)
	if at := x.nameNumber[h]; at == n {
		if x.nameNumber[h] = is.next; is.next == 0 {
			delete(x.nameNumber, h)
		}
	} else {
		for x.names[at].next != n {
			at = x.names[at].next
		}
		x.names[at].next = is.next
	}
	x.releaseKey(is.home)
	x.releaseKey(is.key)
	*is = name{}
	x.freeNames = append(x.freeNames, n)
}

// place gives a name the key of whoever has its address now, and reports whether that moved
// held mail. Where it isn't known who that is, all stays as it was.
func (x *index) place(n uint32) (moved bool) {
	is := &x.names[n]
	if x.owner == nil {
		return false
	}
	mailbox, known := x.owner(is.address)
	from := is.key
	if was := x.keys[from].key; !known || was.Mailbox() == mailbox && (!mailbox.IsZero() || was == Key(is.address)) {
		return false
	}
	is.key = x.referKey(KeyOf(mailbox, is.address))
	x.keys[from].held -= is.held
	x.keys[is.key].held += is.held
	x.releaseKey(from)
	return is.held > 0
}

// referKey returns the number of a key and counts the reference.
func (x *index) referKey(k Key) uint32 {
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

// releaseKey takes a reference to a key away.
func (x *index) releaseKey(n uint32) {
	k := &x.keys[n]
	if k.refs--; k.refs == 0 {
		delete(x.keyNumber, k.key)
		*k = keyCount{}
		x.freeKeys = append(x.freeKeys, n)
	}
}

// keyOf returns whose a recipient's mail is now.
func (x *index) keyOf(r recipient) Key { return x.keys[x.names[r.name].key].key }

// moved returns, by recipient, the keys that are others than at acceptance; nil if none is.
func (x *index) moved(rcpts []recipient) (keys []Key) {
	for i, r := range rcpts {
		if n := &x.names[r.name]; n.key != n.home {
			if keys == nil {
				keys = make([]Key, len(rcpts))
			}
			keys[i] = x.keys[n.key].key
		}
	}
	return keys
}

// namesAtOnce is how many names are given their keys before others get their turn.
const namesAtOnce = 4096

// Own says who has which address from now on: the key of each recipient, [Store.Held]
// and the order of held mail go by it, whoever had the address when the mail was accepted.
// It has to be said before mail is delivered by it, and again after each change and after each
// Open: the journal has who had the address at acceptance. owner is called under a lock, also for
// mail that comes later; it must not block, nor call the store. Own is for one goroutine.
func (s *Store) Own(owner Owners) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.x.owner = owner
	for n := 1; n < len(s.x.names); n++ {
		if s.x.names[n].refs > 0 && s.x.place(uint32(n)) {
			s.moves.Add(1)
		}
		if n%namesAtOnce == 0 {
			s.mu.Unlock()
			s.mu.Lock()
		}
	}
}

// Moves counts how often held mail got another key: who has noted keys reads them again when
// it has grown.
func (s *Store) Moves() uint64 { return s.moves.Load() }
