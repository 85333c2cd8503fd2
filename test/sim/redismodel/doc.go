// Package redismodel is a Redis server as far as the state table uses one, in memory and
// without goroutines, for simulations.
//
// It promises to answer the commands it knows as Redis 7.0 does, to run Lua scripts as a
// whole, and to do nothing by itself: bytes come in by [Session.Feed], answers go out by
// the function given to [Server.Connect], and whatever takes time (a blocking read, WAIT,
// the way to a replica) goes through [Options].After. So who calls it decides what
// happens when, and the same calls give the same answers.
//
// What it models of replication: each write goes to each attached replica in order and
// late; WAIT and min-replicas count what replicas acknowledged; a replica that is promoted
// has what it has applied, with a new replication id and the old one as its second; a
// server that is attached to another takes over all of its data. A restarted server has a
// new run id and all data, as with appendfsync always. Clocks may jump.
//
// It refuses commands that it doesn't know, as Redis does. It has no ACL, no cluster, no
// memory limit. That it behaves like Redis is what its tests show: the table's contract
// suite, and random commands given to both.
//
// Nothing here is safe for concurrent use but [Listen], which serves one server over real
// connections for those tests.
package redismodel
