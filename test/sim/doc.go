// Package sim is the deterministic simulation of several nodes: production code in a world
// whose network, disks, clocks, Redis, platforms and people are its own
// (docs/testing.md, "The simulation").
//
// It promises that a seed is the same run each time, if the program was built with the
// overlay of package overlay and the tag "deterministic"; that whatever a node does
// reaches others only through the world; and that a violated invariant is named, with the
// moment in the run. The rules that nodes keep are not written here a second time: the
// oracle sees what senders were answered, what platforms took, what stood in the table and
// what people were told.
//
// A [World] has one goroutine, that of the test. It waits until all others are blocked and
// then makes the next event happen, holding its lock. Production code runs in goroutines
// of its own and meets the world in a net.Conn, a dial, a disk. Peers of the world
// (platforms, senders, Redis) have no goroutines.
//
// [Run] is one seed: newRun draws it, execute lets it happen. machine is where a node
// lives, life one process of it, put together as package daemon does.
package sim
