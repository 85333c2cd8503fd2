// Package peers starts the real programs that mailcutover talks to, for tests: Redis,
// Postfix, Dovecot, HAProxy, the clients smtp-source, swaks and curl, and the
// Exchange-like platform of test/exchangelike.
//
// Each peer has ports and a directory of its own and belongs to the test that started
// it: its processes are gone and its directory is removed when the test ends. Its
// configuration is the example in configs/peers with the paths and ports of the test
// put in, so that the examples are tested too. Log and output of a peer are shown when
// its test fails.
//
// A peer that isn't installed, or does not come up, fails the test. With SKIP_PEERS=1
// in the environment every test that needs a peer is skipped, installed or not, and
// counted: see [Need]. Nothing else in this module skips a test.
//
// Postfix needs root, for its master process. As root the mailboxes of Postfix and
// Dovecot belong to the user id 5000, which needs no entry in /etc/passwd; without
// root Dovecot runs as the test's own user.
//
// Functions that take a [TB] are called from the test's goroutine only; methods that
// take none are safe for concurrent use.
package peers
