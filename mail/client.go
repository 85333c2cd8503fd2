package mail

import "net/netip"

// Origin says from which side mail reaches us; each platform has an endpoint per
// origin, because Exchange trusts the two differently.
type Origin uint8

const (
	OriginUnknown Origin = iota // not set: a mistake in our code, never routed
	OriginOutside               // from the MX relays
	OriginInside                // from submission, or from a platform itself
)

// String returns the word used in configuration and logs.
func (o Origin) String() string {
	switch o {
	case OriginOutside:
		return "outside"
	case OriginInside:
		return "inside"
	default:
		return "unknown"
	}
}

// Client is what we know of the peer that brings a message, after PROXY and XFORWARD:
// what goes into our Received line, into the logs, and by XCLIENT, XFORWARD or PROXY
// to a platform. The engine fills it anew for each transaction.
type Client struct {
	Session  string         // id of the connection in the logs
	Listener string         // id of the listener in the configuration
	Origin   Origin         // by listener or source net
	Peer     netip.AddrPort // who is connected to us: a load balancer, where PROXY is used
	Source   netip.AddrPort // who brings the mail: Peer, or whom its PROXY header names; decides trust
	Addr     netip.AddrPort // the client's address: Source, or as XFORWARD says
	Local    netip.AddrPort // the address that the client connected to
	Name     string         // reverse name from XFORWARD, empty if unknown
	Helo     string         // argument of HELO, EHLO or LHLO; printable ASCII or UTF-8
	With     string         // "with" of the Received line: ESMTP, ESMTPS, LMTP, ... (RFC 3848)
	TLS      string         // protocol and cipher, such as "TLS1.3 TLS_AES_128_GCM_SHA256"; empty if plain
}
