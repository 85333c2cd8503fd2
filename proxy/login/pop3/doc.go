// Package pop3 is the dialogue of POP3 (RFC 1939) before and at authentication, on both
// sides: CAPA (RFC 2449), STLS (RFC 2595), USER and PASS, and AUTH (RFC 5034). After it the bytes of
// client and platform are passed on.
//
// The greeting has no timestamp: APOP would need the password in the clear. A client's USER is
// answered here, so nobody learns by it whether a mailbox exists.
//
// A platform's -ERR means wrong credentials only with [AUTH] (RFC 3206), or without any code
// where the platform doesn't announce that it gives one. [IN-USE], [LOGIN-DELAY] and
// [SYS/TEMP] are passed on with the platform's words; every other failure is [SYS/TEMP]
// (docs/architecture/promises.md, P5). [AUTH] is only said of
// credentials that were looked at and refused; if a platform did that, in its own words.
//
// A session that ends because its agency closes gets no last word: POP3 has no answer that
// nobody asked for, and what client and platform say of a message's length can't be followed from
// one side.
//
// [Dialogue] has no state. Its callers are the connections of proxy/login, each in
// its own goroutine.
package pop3
