// Package sieve is the dialogue of ManageSieve (RFC 5804) before and at authentication, on both
// sides. After it the bytes of client and platform are passed on.
//
// The client gets capabilities in the name of all platforms: which Sieve extensions its
// own one has, it learns by asking again after the login, as RFC 5804 section 1.7 lets it expect. No
// capabilities are sent unasked after a login, since there is no security layer (section 2.1).
//
// Strings are quoted or literals. A client's literal must be non-synchronising, as the RFC has
// it, and bounded; one that isn't ends the connection, so that its bytes are never
// taken for commands.
//
// A platform's NO means wrong credentials only without a response code. Every other failure is
// NO (TRYLATER) (docs/architecture/promises.md, P5). A platform that announces UNAUTHENTICATE
// (section 2.14.1) before or after the login is refused: another user could ride on
// the first one's route.
//
// [Dialogue] has no state. Its callers are the connections of proxy/login, each in
// its own goroutine.
package sieve
