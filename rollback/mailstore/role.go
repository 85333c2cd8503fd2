package mailstore

import (
	"slices"
	"strings"

	"github.com/emersion/go-imap/v2"
	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

// Role is what a folder is for, on whatever platform and in whatever language.
type Role uint8

const (
	RoleNone Role = iota // a folder of the user's own
	Inbox
	Sent
	Drafts
	Trash
	Junk
	Archive

	numRoles
)

var roleNames = [numRoles]string{"none", "inbox", "sent", "drafts", "trash", "junk", "archive"}

// String returns the word that settings and reports have.
func (r Role) String() string {
	if r < numRoles {
		return roleNames[r]
	}
	return roleNames[RoleNone]
}

// ParseRole parses the word that [Role.String] returns. "none" and "inbox" are refused: no
// folder is given these.
func ParseRole(s string) (Role, bool) {
	for r := Sent; r < numRoles; r++ {
		if roleNames[r] == s {
			return r, true
		}
	}
	return RoleNone, false
}

// useAttributes are the attributes of RFC 6154 section 2, by role.
var useAttributes = [numRoles]imap.MailboxAttr{
	Sent: imap.MailboxAttrSent, Drafts: imap.MailboxAttrDrafts, Trash: imap.MailboxAttrTrash,
	Junk: imap.MailboxAttrJunk, Archive: imap.MailboxAttrArchive,
}

// knownNames are what mail programs and platforms call folders of a role, in German and
// English: Outlook and Exchange, Open-Xchange, Thunderbird, Apple Mail, Dovecot's examples.
// Of two folders the one whose name stands earlier has the role.
var knownNames = [numRoles][]string{
	Sent:    {"Sent", "Sent Items", "Gesendete Elemente", "Gesendete Objekte", "Gesendet", "Gesendete Nachrichten", "Sent Messages", "Sent Mail"},
	Drafts:  {"Drafts", "Entwürfe", "Draft", "Entwurf"},
	Trash:   {"Trash", "Deleted Items", "Gelöschte Elemente", "Gelöschte Objekte", "Papierkorb", "Deleted Messages", "Gelöscht", "Deleted"},
	Junk:    {"Junk", "Spam", "Junk-E-Mail", "Junk E-Mail", "Junk Email", "Junk Mail", "Spamverdacht", "Spam-Verdacht", "Unerwünscht", "Bulk Mail"},
	Archive: {"Archive", "Archiv", "Archives"},
}

// fold makes spellings of a name equal that differ in case and in how accents are encoded.
func fold(name string) string {
	return norm.NFC.String(cases.Fold().String(norm.NFC.String(name)))
}

// assignRoles gives folders their roles: by attribute first, then by name, a role to one
// folder only. extra are further names, tried before the known ones. attrs are what LIST
// said, by index.
func assignRoles(folders []Folder, attrs [][]imap.MailboxAttr, extra map[Role][]string) {
	var taken [numRoles]bool
	give := func(i int, r Role) {
		if !taken[r] && folders[i].Role == RoleNone && !folders[i].NoSelect {
			folders[i].Role, taken[r] = r, true
		}
	}
	for i := range folders {
		if folders[i].Name == "INBOX" {
			give(i, Inbox)
		}
		for r := Sent; r < numRoles; r++ {
			if slices.ContainsFunc(attrs[i], func(a imap.MailboxAttr) bool { return strings.EqualFold(string(a), string(useAttributes[r])) }) {
				give(i, r)
			}
		}
	}
	for r := Sent; r < numRoles; r++ {
		for _, name := range append(slices.Clone(extra[r]), knownNames[r]...) {
			// Some platforms keep all folders below INBOX.
			for _, below := range []string{"", "INBOX/"} {
				for i := range folders {
					if fold(folders[i].Name) == fold(below+name) {
						give(i, r)
					}
				}
			}
		}
	}
}

// equalFlags reports whether two flags are one: case doesn't count (RFC 9051 section 2.3.2).
func equalFlags(a, b string) bool { return strings.EqualFold(a, b) }
