package memdisk

import (
	"maps"
	"slices"
)

// Loss says what a crash takes with it, of all that was not fsynced.
type Loss uint8

const (
	LoseAll     Loss = iota // bytes and names: a power cut at its worst
	LoseNothing             // a killed process: the kernel still has everything, but no more of it is safe
	LoseBytes               // names are there, the bytes are not: files are short or empty
	LoseNames               // bytes are there, but under no name, or the old one
	LoseHalf                // half of the unsynced bytes of each file, all names: a torn write
	LoseFirst               // zeros for the first half of the unsynced bytes of each file, every second unsynced change of a name: no order is kept
	LoseSecond              // all bytes, and the other changes of names
)

// Losses lists them all.
func Losses() []Loss {
	return []Loss{LoseAll, LoseNothing, LoseBytes, LoseNames, LoseHalf, LoseFirst, LoseSecond}
}

// String names l.
func (l Loss) String() string {
	return [...]string{"lose-all", "lose-nothing", "lose-bytes", "lose-names", "lose-half", "lose-first", "lose-second"}[l]
}

// roomBytes is how much room an appended file has behind its end.
const roomBytes = 100

// survive copies what is left of a node; done keeps hard facts: one node, one copy.
func survive(n *node, loss Loss, done map[*node]*node) *node {
	if c := done[n]; c != nil {
		return c
	}
	if !n.dir {
		c := &node{data: n.survive(loss)}
		if n.room {
			c.data = append(c.data, make([]byte, roomBytes)...)
		}
		c.synced = len(c.data)
		if loss == LoseNothing { // nor is it safer than it was
			c.synced, c.onDisk = n.synced, slices.Clone(n.onDisk)
		}
		done[n] = c
		return c
	}
	c := newDir()
	done[n] = c
	names := n.names
	switch loss {
	case LoseAll, LoseNames:
		names = n.safe
	case LoseFirst:
		names = everySecond(n.names, n.safe, true)
	case LoseSecond:
		names = everySecond(n.names, n.safe, false)
	}
	for name, child := range names {
		kept := survive(child, loss, done)
		c.names[name], c.safe[name] = kept, kept
	}
	if loss == LoseNothing {
		clear(c.safe)
		for name, child := range n.safe {
			c.safe[name] = survive(child, loss, done)
		}
	}
	return c
}

// survive returns what is left of a file's bytes.
func (n *node) survive(loss Loss) []byte {
	sure := slices.Concat(n.data[:n.synced], n.onDisk)
	switch loss {
	case LoseNothing, LoseNames, LoseSecond:
		return slices.Clone(n.data)
	case LoseHalf:
		if n.onDisk != nil {
			return sure
		}
		return slices.Clone(n.data[:n.synced+(len(n.data)-n.synced)/2])
	case LoseFirst:
		b := slices.Clone(n.data)
		clear(b[n.synced : n.synced+(len(b)-n.synced+1)/2])
		return b
	default:
		return sure
	}
}

// everySecond returns safe with every second of the changes that make it now; take tells
// whether the first is one of them.
func everySecond(now, safe map[string]*node, take bool) map[string]*node {
	some := maps.Clone(safe)
	changed := map[string]bool{}
	for name, n := range now {
		changed[name] = safe[name] != n
	}
	for name, n := range safe {
		changed[name] = now[name] != n
	}
	for _, name := range slices.Sorted(maps.Keys(changed)) {
		if !changed[name] {
			continue
		}
		if n := now[name]; !take {
		} else if n != nil {
			some[name] = n
		} else {
			delete(some, name)
		}
		take = !take
	}
	return some
}
