// Package cluster runs several nodes as processes of their own on one Redis, with two
// recording platforms behind them and senders in front, does operations on them while it
// stops, kills and cuts off what they consist of, and judges what came of it.
//
// A [Cluster] is three nodes unless told otherwise, each on ports and in a directory of
// its own; a redis-server, or a primary with replicas and Sentinels; and an [Wire] between
// each node and each of its peers, where answers can be dropped, held back or cut off.
// [Load] are senders that repeat what wasn't answered 250; with Options.Logins, [Clients] are
// mail programs that idle by IMAP, submit, and come back.
//
// It promises to judge from outside, after the fact, and by nothing but what was recorded:
// what the platforms took and when, what each sender was answered, who logged in where and
// was heard there until when, when an operation was told as done, and what the nodes' ledgers name as in doubt. [Check] is a function of
// this [Record] alone. All times are of one clock, that of the test's process. A node's own
// counters and states only tell when to look.
//
// It refuses to judge without recordings: a message without an id, or a ledger that can't
// be read, ends the test. What can't be started fails it as package peers says.
//
// The tests of this package and the part "switch" of the benchmarks use it. Functions that
// take a TB are called from the test's goroutine; all else from any.
package cluster
