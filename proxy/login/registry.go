package login

import (
	"net/netip"
	"time"

	"mailcutover/routing"
)

// SessionState is how a session is.
type SessionState uint8

const (
	StateUnknown   SessionState = iota
	StateOpening                // the platform is asked, or the client not told of its answer yet
	StateJoined                 // bytes flow
	StateSuspended              // they don't: this node may not decide now
	StateEnding                 // the platform's side is cut, or about to be; the client is told soon
)

// String returns the word used in the API, in logs and metrics.
func (s SessionState) String() string {
	words := [...]string{"unknown", "opening", "joined", "suspended", "ending"}
	if int(s) < len(words) {
		return words[s]
	}
	return words[0]
}

// SessionInfo is a session at one moment.
type SessionInfo struct {
	ID       string
	Protocol string
	Agency   routing.AgencyID
	Mailbox  routing.MailboxID
	Login    string         // what the platform was told
	Client   netip.AddrPort // the client's address
	Listener string
	Platform routing.PlatformID
	Epoch    routing.Epoch
	Since    time.Time
	State    SessionState

	ToPlatform, ToClient int64 // bytes after the login
}

// Filter picks sessions: those that match all of its fields that aren't zero. The zero value
// picks all.
type Filter struct {
	ID       string
	Protocol string
	Agency   routing.AgencyID
	Mailbox  routing.MailboxID
	Login    string // case doesn't matter
	Address  netip.Addr
	Platform routing.PlatformID
}

// Counts are a proxy's numbers of the moment.
type Counts struct {
	Opening, Joined, Suspended, Ending int // sessions
	Waiting                            int // logins that wait for an agency to open, or for a platform
}
