// Package attack tests the built program as a process from outside, as those would meet it who
// mean it harm: bytes in, and what two recording platforms, the log and the kernel show of it.
// It has tests only.
//
// It promises that a case counts by what reached a platform, what the client was left with and
// what the node holds afterwards: never by the text of an answer alone. Each case has a name
// that docs/architecture/threats.md lists, with those of other packages.
//
// What it refuses: to repeat what other packages show from outside already (test/e2e has the
// smuggling, the addresses and the platforms that lie at logins), and to measure speed.
//
// A data race in the node, a panic, or a line of its log that isn't one record fails the test.
//
// Nobody imports it; "go test" runs it. With -attack.slow it also waits for the limits that are
// minutes long; the campaign does.
package attack
