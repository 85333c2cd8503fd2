// Package dsn writes delivery status notifications: what a sender is told about a message
// of his that failed, is late, or left for a platform that reports no success itself.
//
// A notice is a multipart/report (RFC 6522) of a text for people, in German and English,
// a message/delivery-status (RFC 3464) for programs, and the part of the original that
// the sender asked for with RET (RFC 3461 section 4.3). It is in US-ASCII, but for a sender
// or an original that needs SMTPUTF8: then it takes the forms of RFC 6533.
//
// It promises that nobody is told who did not want to be (NOTIFY, [Wanted]), that a
// notice holds no more of the original than RET says and [Settings] allow, and that
// nothing a sender put into ENVID, ORCPT or an address adds a field or a line.
//
// It refuses to write to the null sender ([ErrNullSender]): a notice about a notice would
// go round for ever (RFC 5321 section 4.5.5). An original that can't be read leaves a
// notice without it, not none.
//
// It has no I/O but reading the original; it sends nothing. spool/queue calls it, and
// puts the notice into the spool like other mail. All functions are safe for concurrent use.
package dsn
