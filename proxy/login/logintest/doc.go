// Package logintest drives one dialogue of package login at a time, over loopback
// sockets: [Serve] with a scripted client and a scripted answer to its login, and
// [Authenticate] with a scripted platform. The rest of the proxy isn't there.
//
// A script is a transcript: lines that begin with "C: " and "S: ". The side that the test
// plays sends its lines with CRLF, and expects those of the other, byte for byte; one that
// ends in "..." is the beginning of what is expected. Everything has a deadline; what
// doesn't come fails the test.
package logintest
