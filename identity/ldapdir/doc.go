// Package ldapdir reads Active Directory, Univention's directory and OpenLDAP over LDAP
// (RFC 4511), as a [directory.Directory].
//
// What an attribute means is a [Map]; there is one for each of the three, and a configuration
// may change it. Active Directory gives large attributes in ranges (member;range=0-1499),
// which are followed to their end.
//
// It promises that Read returns no error only if the server said for the last page that all
// was well; that a search which was cut by a limit of the server's, by a deadline or by the
// end of its context is an error; that so is an answer with a reference to another server; and that
// the objects of one Read are one server's. It
// refuses an empty password, which many servers take for an anonymous bind (RFC 4513 section
// 5.1.2), and a password or a client certificate over a connection that isn't encrypted,
// except to this host.
//
// Verify checks a user's password by a bind as that user, on connections of their own. That a
// password is wrong is said only if the server said so; everything else is an error that
// proves nothing.
//
// With several servers the first that works is used, and kept to; one that fails is left
// alone for a while. A connection is made when it is needed, kept for a minute,
// and not used again after any error. A [Client] is safe for concurrent use.
package ldapdir
