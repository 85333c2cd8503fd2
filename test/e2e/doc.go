// Package e2e tests the built program, mailcutover serve, as a process among real
// peers: Postfix as the MX relay in front and as source platform, Dovecot as target, the
// Exchange-like platform, Redis, swaks and curl. It has tests only.
//
// It promises to look from outside. A node is started with a configuration file,
// operated by its commands and its API, and stopped by signals; what is counted is what
// a sender saw answered and what a platform has stored or had on its wire, by an id in
// each message. The node's own counters prove nothing here; they only tell when to look.
// What a node still has, and what it has in doubt, is read from the spool and the ledger
// that it left behind when it ended.
//
// Where a test shows that something is handled, it also shows what comes of it when the
// handling is switched off, so that it can't pass because nothing went wrong.
//
// A test that fails shows the log of its node and the output of its peers. A data race
// in the node fails the test. Peers that are missing fail it as package peers says.
//
// Nobody imports it; "go test" runs it.
package e2e
