// Package demo shows the main job in one process with nothing else installed: two
// platforms that keep what they receive, an MX relay that sends generated mail to the
// 790 mailboxes of three agencies, and a node between them, started and operated exactly
// like a real one. One agency is cut over and rolled back under traffic.
//
// Some mail programs are logged in by IMAP all the time, and come back when they are sent away.
//
// What it prints at the end is counted outside of the node: what the MX saw answered
// with 250 is compared, by an id in each body, with what the platforms stored, where and
// when; and of each login, what the platform said to the mail program of itself. It promises
// to fail if one message is lost, stored twice, or on the wrong platform or mailbox, or one
// login was, and Options.Break plants such a fault to show that it would.
//
// Incident shows another thing: a list with one column sorted on its own, which the check
// refuses, and what it would have done to 790 mailboxes.
//
// Rehearse switches an agency of a given shape instead, and returns what came of it as a record.
//
// It writes only into a temporary directory and listens only on loopback. The command
// `mailcutover demo` calls Run or Incident once, `mailcutover rehearse` calls Rehearse.
package demo
