// Package autoconfig tells mail programs which servers to use, in the format of
// Thunderbird's autoconfiguration (https://wiki.mozilla.org/Thunderbird:Autoconfiguration:ConfigFileFormat).
//
// A [Server] answers GET and HEAD of /mail/config-v1.1.xml and
// /.well-known/autoconfig/mail/config-v1.1.xml, by the domain of the parameter emailaddress,
// or of the host autoconfig.DOMAIN. The answer is the same for all addresses of a served
// domain, whether they exist or not, and so tells a stranger nothing that RCPT wouldn't.
//
// It refuses domains that the table doesn't serve (404), what is no address (400), and more
// than so many requests of one client net in a minute (429). While the table can't be used
// it says to come back (503).
//
// Its caller is internal/daemon. There is a goroutine for each connection, as net/http
// does; the number of connections is bounded, and each read and write has a deadline.
package autoconfig
