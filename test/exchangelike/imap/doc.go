// Package imap is mailboxes over IMAP with the habits of Microsoft Exchange that hurt who
// brings mail back there: each is a field of [Quirks], off by default, so that a test shows one
// at a time.
//
// It promises to do what a quirk says each time, and to be an ordinary server otherwise
// (go-imap's in memory). It keeps all in memory and belongs to the test that started it.
// Tests use it from any goroutine.
package imap
