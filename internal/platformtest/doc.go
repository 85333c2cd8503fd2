// Package platformtest is a mail platform for tests, the demo and the benchmarks: an
// SMTP or LMTP server that records what reaches it and answers as it is told.
//
// It promises that the record is what was on the wire: every command as it stood, and
// the bytes of each message before anything is made of them, so that a test can tell a
// bare LF from a CRLF and an incomplete message from a short one. A message counts as
// stored when the platform decided to answer 2yz, whether or not the answer got through;
// that is how a platform behaves whose answer is lost.
//
// It is tolerant on purpose: it takes what a strict server would refuse, and leaves the
// judgement to the test. Only what wasn't announced is refused: parameters and commands
// of extensions that are not in the EHLO reply.
//
// What it does not know, a broken connection or an unknown command, it answers as RFC
// 5321 asks or records as an incomplete transaction; it never panics on input. It is
// no mail server: nothing is delivered anywhere, and nothing is protected.
//
// A test, the demo or test/exchangelike calls [Start] and, in the end, [Platform.Close].
// Scripts are called from the connections' goroutines, everything else may be called
// from any.
package platformtest
