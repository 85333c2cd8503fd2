// Package queue says when what lies in the spool is sent: it replays held mail when its
// agency opens, tries waiting mail again, and has senders told of what can't be delivered.
//
// # What it promises
//
// Order (P6): the held mail of one mailbox is sent one message after the other, in the
// order in which this node accepted it, also where its address went to another mailbox, in
// whose order it then has its place. What arrives for a mailbox that has any has to be held too
// ([spool.Store.Held]), so that it doesn't overtake. Waiting mail is tried again
// when its time comes and blocks nobody. A mailbox whose platform puts it off pauses; when
// its patience is over the first of its mail becomes waiting mail, and so does what
// follows, until one is taken. A message in doubt each time uses up that patience too.
//
// Custody (P1): a message leaves the spool only with a platform's 2yz, after its sender was
// told, as an operator's act, or into quarantine. What happened is written to the spool before
// the ledger learns it, so that after a kill exactly those messages go again that the
// ledger has in doubt (P7).
//
// The right side (P2, P3): the route is asked again at every attempt. A delivery that is in
// doubt stays in the spool until the platform's limit has passed, and then goes wherever
// its mailbox is by then, as a possible duplicate that the ledger names. One in doubt each
// time is given up at the end of its life.
//
// # How it paces itself
//
// Each platform has a lane: at most so many deliveries at a time as it has connections,
// half as many after a 421 or another sign of overload, one more after as many successes
// as there are at a time. A platform that can't be reached is asked by one delivery, in
// growing, jittered intervals; when it is back, all that waits for it goes, oldest first.
//
// # What it refuses
//
// It doesn't decide routes, speak to platforms or write files: it asks a [Router], a
// [Sender] and a [Store]. It never tells a null sender anything: such mail is set aside in
// quarantine. It never lets mail of a closed agency grow too old.
//
// # Goroutines and memory
//
// [Queue.Run] is the scheduler, and the owner of the workers: at most one for each delivery
// under way, none for a message, and one that writes notices. Held mail is not copied: a
// window of at most 20,000 references for each platform moves over the spool's own index.
// A mailbox with held mail takes some 330 bytes, waiting mail 55 for each recipient.
//
// All methods may be called by any goroutine. Only Run, and the operator's Hold, Release and
// Drop, wait for a disk, and only Run for the network.
package queue
