// Package redistable keeps the state table in Redis (7.0 or later), for one node or many.
//
// It promises what package table does. A change is one script, run by Redis as a whole:
// it compares incarnation, id, term, revisions, mappings and the conditions about nodes,
// and only then writes. Renewals and checks are scripts as well; the rules of all three
// are those of table.Book, which tests hold them to. Changes are sent once, without
// retries; a caller that got no answer sends the same change again, and the id makes it
// count once. [Table.Confirm] returns nil only when as many replicas
// as are configured have what was acknowledged, which Redis doesn't wait for by itself.
//
// It refuses, when it is opened, plain TCP to another host and connections without a
// password, unless told otherwise by name; and, whenever it reads or writes, a server
// that is a replica, keys of a wrong type and tables of another format.
//
// Whatever Redis answers or doesn't answer becomes an error of package table: nothing of
// the Redis client's escapes. No call waits longer than [Options].Timeout for a server
// that doesn't answer; only the loads of large replies, which first ask such a server
// for a short one, and Confirm, which waits for replicas, may take as long as
// Options.BulkTimeout. Follow notices within its interval and Timeout.
//
// # Keys
//
// All of them share the hash tag of [Options].Prefix, here {mc}:
//
//	{mc}:meta       hash: incarnation, format, revision, mapped, term, and of the rejoin:
//	                server, replication, prior, previous, base, began, longest, rejoining,
//	                lineage (TERM:BASE:BEGAN of the last 256 terms)
//	{mc}:agency     hash: id -> revision, mapping's digest or "-", epoch, answer, JSON
//	{mc}:domain     hash: name -> revision, JSON
//	{mc}:fixed      hash: address -> revision, JSON
//	{mc}:member     hash: node -> revision, instance, in or evicted, protocol, attested
//	                instance or "-", draining, joined, JSON
//	{mc}:lease      hash: node -> instance, counter, sequence, short end, long end, the
//	                table's term when it was taken, the node's term and revision, behind,
//	                proof of a promotion, on another disk, server, JSON
//	{mc}:drained    hash: node and agency -> instance, the table's term, epoch
//	{mc}:operation  hash: id -> revision, open or ended, JSON
//	{mc}:ended      list: revision and id of operations that ended, to forget the oldest
//	{mc}:freeze     hash: agency or "*" -> revision, JSON
//	{mc}:document   hash: key -> revision, JSON
//	{mc}:above      hash: agency -> epoch, answer, JSON of a record that was lost
//	{mc}:map:A:D    hash: the text of mapping D of agency A in parts "262144:0" and so on;
//	                "complete" (number of parts, size, digest) is written last
//	{mc}:log        stream: every change, with the id REVISION-0, so that a gap shows
//	{mc}:applied    hash: "id:" and a change id -> digest, revision, mapped; "at:" and a
//	                revision -> change id, to forget the oldest
//	{mc}:confirm    string: what Confirm writes before it waits, and scripts to see
//	                whether they may write
//
// There is deliberately no index of addresses. That no two agencies claim one name is
// checked in a node's replica, which has all mappings in memory, at a revision, and the
// script compares "mapped", the last revision that changed any name: a compare-and-set
// over all names at once, without a second copy of them that could contradict the
// mappings.
//
// Moments are microseconds since 1970 by Redis' clock. The words before a JSON are what
// scripts compare: no script reads JSON.
//
// # Servers
//
// Every script learns by INFO which process it runs in (run_id), and which history of
// writes that one is part of (master_replid, master_replid2). If it isn't the one that the
// table has accepted, changes and checks are refused with table.ErrRejoining until a
// node's renewal has begun the rejoin, in a new term (docs/architecture/switch.md, node
// rule 9). So a restart, a failover, a backup that was put back and a server that was a
// replica meanwhile look the same, and none is believed at once.
//
// With [Options].Sentinel the primary is the one that most of the Sentinels name. They are
// asked for each new connection, and every second: connections to another server are
// closed, and a server that doesn't say that it is a primary is not spoken to.
//
// # The server's settings
//
// appendonly yes, appendfsync always and maxmemory-policy noeviction; with replicas also
// min-replicas-to-write and min-replicas-max-lag. Where Redis knows WAITAOF (7.2),
// Confirm asks for the append-only file as well and fails where there is none; before, it
// has to rely on the setting. The rights that the program's user needs, and no more, are
// in configs/redis/users.acl, which Redis loads as its aclfile; Redis 7.2 also wants
// +waitaof there, which 7.0 doesn't know. The default user, off, keeps all rights there:
// Redis 7.0 reads its append-only file as that user, and leaves out what he may not do.
//
// Two servers that took over one after the other, the second without knowing the first,
// begin terms of one number. A node that has read the first one's table tells when its term
// began, also after a restart, and one that renewed with both the first one's replication id:
// either begins another rejoin. Of a node that knows neither, the epochs and nonces of the
// agencies' records still show what differs.
//
// The process that runs mailcutover opens one [Table]; its methods are safe for
// concurrent use, and Follow runs in the goroutine of its caller.
package redistable
