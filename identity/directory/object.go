package directory

import (
	"fmt"

	"mailcutover/routing"
)

// Kind is what an object is for.
type Kind uint8

const (
	KindUnknown     Kind = iota // the directory doesn't say, or says something that isn't known
	KindUser                    // a person's mailbox
	KindShared                  // a functional mailbox with members
	KindRoom                    // a room or a device that is booked
	KindGroup                   // a distribution list or mail-enabled group
	KindFolder                  // a public folder
	KindContact                 // an address elsewhere
	KindApplication             // what sends or takes mail without being a person's: a scanner, a ticket system
)

var kindNames = [...]string{"unknown", "user", "shared", "room", "group", "folder", "contact", "application"}

// String returns the word used in lists, reports and configuration.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return kindNames[KindUnknown]
}

// ParseKind returns the kind of a word, unknown among them.
func ParseKind(s string) (Kind, error) {
	for k, name := range kindNames {
		if s == name {
			return Kind(k), nil
		}
	}
	return KindUnknown, fmt.Errorf("kind %q: want user, shared, room, group, folder, contact, application or unknown", s)
}

// Mailbox reports whether objects of this kind are mailboxes, which move with their
// agency. The other known kinds are fixed addresses, which stay where they are.
func (k Kind) Mailbox() bool { return k == KindUser || k == KindShared || k == KindRoom }

// Object is one entry of a directory.
type Object struct {
	ID   routing.MailboxID // zero: the directory names none
	DN   string            // as the directory writes it
	Kind Kind

	Addresses []routing.Address // the primary one first; each once; what can't be one is in Problems

	UPN     string // userPrincipalName
	Account string // sAMAccountName, or uid
	Domain  string // the account's NetBIOS domain, as configured; empty: not known

	X500     []string // legacyExchangeDN, and X500 proxy addresses without their prefix
	Target   string   // targetAddress without its prefix: where the directory's own platform sends its mail
	Forward  string   // a recipient that its mail is forwarded to: a DN (altRecipient), or an address; empty: none
	Redirect bool     // mail is forwarded and delivered as well (deliverAndRedirect)

	// Forwards are addresses that its mail is forwarded to (msExchGenericForwardingAddress,
	// mailForwardAddress), without their prefix. A Forward goes before them at Exchange.
	Forwards []string

	Enabled bool     // the account isn't disabled
	Groups  []string // DNs of groups that it is a member of
	Members []string // DNs of its members and delegates

	// Attributes are those that were asked for besides, by lower-case name.
	Attributes map[string][]string

	Problems []string // what couldn't be read, in words
}

// Primary returns the primary address; empty if there is none.
func (o *Object) Primary() routing.Address {
	if len(o.Addresses) == 0 {
		return ""
	}
	return o.Addresses[0]
}
