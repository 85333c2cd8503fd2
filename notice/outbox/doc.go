// Package outbox keeps events on a node's disk until each channel has sent them.
//
// A [Box] has two streams: events of the table, which every node has alike and of
// which the others may tell that they are sent, and events that this node alone knows. With
// the first it keeps up to where the table's log was followed, and the facts by which the
// next events are derived: all three change in one transaction, which is fsynced before [Box.Put]
// returns. So a crash neither loses an event nor makes another one of it.
//
// It holds so many events at most of each stream as its limit says; beyond that the oldest go, and Put says which,
// and which channels hadn't sent them. An event that can't be read keeps no other one:
// it is given with what is wrong in its place. What was known of the table is forgotten if a part of it can't be read ([Box.Damage]). It refuses a file that another process has open, or
// that isn't one of its own.
//
// A Box is safe for concurrent use. Package notice/desk owns it.
package outbox
