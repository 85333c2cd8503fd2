// Package corpus makes the MIME messages with which tests show that mail passes through
// byte by byte: attachments, signatures and invitations as Outlook and others make
// them, and all that is at the edge of RFC 5321 and beyond.
//
// Every text in it is our own, and it is generated: the same bytes each time, but for
// the time in a DKIM signature. Lines end in CRLF, no CR or LF stands alone, and dots are
// not doubled: that is the sender's business.
//
// It refuses to be a MIME library. Attachments look like what they are called as far as
// a mail system can tell, and no further: nothing in a signed-like message verifies,
// except the DKIM signatures, which [VerifyDKIM] checks.
//
// Making a message can't fail but by a mistake in this package, which panics. Tests and
// benchmarks call it, from any goroutine.
package corpus
