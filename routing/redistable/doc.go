// Package redistable keeps the state table in Redis (7.0 or later), for one node or many.
//
// It promises what package table does. A change is one script, run by Redis as a whole:
// it compares incarnation, id, revisions and mappings, and only then writes. Changes are
// sent once, without retries; a caller that got no answer sends the same change again,
// and the id makes it count once. [Table.Confirm] returns nil only when as many replicas
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
//	{mc}:meta       hash: incarnation, format, revision, mapped
//	{mc}:agency     hash: id -> revision, mapping's digest or "-", JSON
//	{mc}:domain     hash: name -> revision, JSON
//	{mc}:fixed      hash: address -> revision, JSON
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
// # The server
//
// appendonly yes, appendfsync always and maxmemory-policy noeviction; with replicas also
// min-replicas-to-write and min-replicas-max-lag. Where Redis knows WAITAOF (7.2),
// Confirm asks for the append-only file as well and fails where there is none; before, it
// has to rely on the setting. The rights that the program's user needs, and no more, are
// in configs/redis/users.acl, which Redis loads as its aclfile; Redis 7.2 also wants
// +waitaof there, which 7.0 doesn't know.
//
// A backup that was restored under followers who were behind it isn't noticed here: its
// incarnation and its revisions go on as if nothing had happened. The epochs and nonces
// of the agencies' records show it.
//
// The process that runs mailcutover opens one [Table]; its methods are safe for
// concurrent use, and Follow runs in the goroutine of its caller.
package redistable
