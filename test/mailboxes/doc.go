// Package mailboxes makes mailboxes of a realistic shape, for tests that bring mail over,
// compare and verify: the same ones for the same seed.
//
// A mailbox has folders with German names, umlauts and levels, among them those for sent
// mail, drafts and trash, and in them conversations, newsletters that all mailboxes of a seed
// have, mail that came twice (by a list, and directly), mail without a Message-ID, with
// attachments, in 8 bits, with flags and keywords, and with dates over two years. It is
// written as a Maildir that Dovecot 2.3 takes as its own, which is a hundred times as fast as
// APPEND.
//
// Nothing here is about one platform's faults; those are in test/exchangelike.
package mailboxes
