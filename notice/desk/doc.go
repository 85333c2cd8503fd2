// Package desk tells channels, webhooks and mail, of the events of a node's table and alarms.
//
// A [Desk] follows the table's log by itself, beside the replica, and derives events
// (package notice) that it keeps on the disk before it goes on (package notice/outbox). It
// looks at the node's alarms every five seconds. Each channel has a goroutine that sends what it wants, in
// order, and tries again for a day; so nothing that decides, and no operation, ever waits for
// a receiver.
//
// It promises that each event is told at least once to each channel, with the same id each time, unless
// its receiver refuses it or is away for longer than a day, or more events wait than are kept: then
// an alarm says so. Events of the table are told by one node, the first by name among those
// with a lease; what it has told stands in the document notice/sent, so that another goes on
// there within half a minute after its lease is over. While two believe that it is their turn, both may tell.
// Every node tells its own alarms.
//
// It refuses nothing: if the table can't be reached, or the disk not be written, it says so and tries
// again. A channel that is new begins with the present.
//
// Run owns all goroutines and waits for them. The other methods are safe for concurrent use.
package desk
