// Package submission is the dialogue of mail submission (RFC 6409) before and at
// authentication (RFC 4954), on both sides. After it the bytes of client and platform are
// passed on, and no transaction is ours.
//
// The client gets an EHLO answer in the name of all platforms ([login.Offers]): which one it
// is for is known only after AUTH, and it need not ask again. So a platform that lacks what the
// client was told is refused: a chunk sent to one without CHUNKING would be read there
// as commands.
//
// Before AUTH no mail command is taken. What a client pipelined behind AUTH goes to the
// platform after a success, and is answered here after a failure. Lines end in CRLF,
// base64 is strict, and bytes behind STARTTLS end the connection.
//
// Only 535 is the platform's word that the credentials are wrong, and only that is passed on
// as 535. Everything else at the platform, also a permanent refusal of the mechanism, is a
// temporary answer here (docs/architecture/promises.md, P5). Replies are made by one
// function, refusal.
//
// [Dialogue] has no state. Its callers are the connections of proxy/login, each in
// its own goroutine; Probe is for whoever finds out what a platform can do.
package submission
