// Package routing decides which platform serves an address or a login.
//
// It is pure: identifiers, the agency's record and its state machine, the mapping of
// an agency's mailboxes, and [State], one consistent read of the whole table, which
// decides. It opens no connection, reads no clock and knows neither Redis nor SMTP;
// sub-packages keep the table (table, localtable, redistable) and this node's copy of
// it (replica).
//
// A decision is made from one State, so it is never half old and half new. Whatever is
// not known for certain is not guessed: an address that two agencies claim, an agency
// whose phase is unknown or whose record regressed, a mapping that isn't there are all
// answered "closed" with a reason, never with a default platform
// (docs/architecture/promises.md, P3).
//
// Values are immutable and safe for concurrent use. The proxy reads them for every
// recipient and login, without locks and without allocation; operations and the admin
// API compute new records with them.
package routing
