package check

import (
	"slices"

	"mailcutover/identity/list"
	"mailcutover/routing"
)

// Code says what a row's verdict is. Texts for people are in identity/report, by code.
type Code uint8

const (
	CodeUnknown      Code = iota // not compared: never clean
	CodeRight                    // address, id and agency are one mailbox's, wherever it was looked for
	CodeOtherMailbox             // the address is another mailbox's: the one that would get this one's mail
	CodeOtherAccount             // the account is another mailbox's
	CodeOtherAgency              // the directory counts the mailbox to another agency, or to none
	CodeNoAddress                // the directory doesn't know the address
	CodeNoID                     // the directory doesn't know the id
	CodeNoAccount                // the directory doesn't know the account
	CodeTwice                    // two objects of the directory have the address, the account or the id
	CodeNotMailbox               // it is a group, a contact or the like
	CodeDisabled                 // the account is disabled
	CodeAlias                    // the address is right, but not the primary one
	CodeTarget                   // the target's directory has another pair, or another agency
	CodeNotOnTarget              // the target's directory doesn't know the mailbox
	CodeTable                    // the table routes the address or the id elsewhere today: the list would change an answer
	CodeEarlier                  // an earlier list of the agency had the address or the id in another pair
	CodeDigest                   // the row's keyed digest is wrong: a cell was changed since it was generated
	CodeOtherName                // the mailbox would get a name, or a platform be told one, that is another mailbox's too
)

var codeNames = [...]string{"unknown", "right", "other-mailbox", "other-account", "other-agency", "no-address", "no-id",
	"no-account", "twice", "not-mailbox", "disabled", "alias", "target", "not-on-target", "table", "earlier", "digest", "other-name"}

// String returns the word used in CSV and JSON.
func (c Code) String() string {
	if int(c) < len(codeNames) {
		return codeNames[c]
	}
	return codeNames[CodeUnknown]
}

// Severity is what a verdict means for the list.
type Severity uint8

const (
	Wrong   Severity = iota // the list is refused
	Warning                 // a human should look; the list may be approved
	Fine
)

// Severity returns what the code means for the list.
func (c Code) Severity() Severity {
	switch c {
	case CodeRight:
		return Fine
	case CodeAlias, CodeNotOnTarget, CodeTable, CodeEarlier, CodeDisabled:
		// An address can be given to another mailbox: if the directory says so, the list may
		// say so too. Where it doesn't, another finding of the row is wrong. A disabled
		// account's mailbox moves with its agency, once people have seen that it is disabled.
		return Warning
	default:
		return Wrong
	}
}

// Rank orders findings: from 0, the one that explains most first.
func (c Code) Rank() int {
	order := [...]Code{CodeOtherMailbox, CodeOtherAccount, CodeOtherName, CodeTarget, CodeOtherAgency, CodeNoID, CodeNoAddress, CodeNoAccount,
		CodeTwice, CodeNotMailbox, CodeDigest, CodeUnknown, CodeTable, CodeEarlier, CodeDisabled, CodeNotOnTarget, CodeAlias, CodeRight}
	return slices.Index(order[:], c)
}

// Finding is one thing that was found of a row. What a code doesn't need is empty.
type Finding struct {
	Code Code `json:"code"`

	Source  string            `json:"source,omitempty"`  // where it was found: a directory's name, "table", or an earlier list's id
	Owner   routing.MailboxID `json:"owner,omitzero"`    // whose the address or account really is
	Of      routing.Address   `json:"of,omitempty"`      // Owner's primary address, where that is known
	Address routing.Address   `json:"address,omitempty"` // whose mailbox the row's id really is
	Agency  routing.AgencyID  `json:"agency,omitempty"`  // that the mailbox belongs to there
	Name    string            `json:"name,omitempty"`    // of CodeOtherName: which; without an Owner two objects have it
}

// Verdict is all that was found of a row; the worst first. A row that is right has one
// finding that says so.
type Verdict struct {
	Row      list.Row  `json:"row"`
	Findings []Finding `json:"findings"`
}

// Severity returns the worst of the findings.
func (v *Verdict) Severity() Severity {
	worst := Fine
	for i := range v.Findings {
		worst = min(worst, v.Findings[i].Code.Severity())
	}
	if len(v.Findings) == 0 {
		return Wrong
	}
	return worst
}

// Code returns the code of the first finding.
func (v *Verdict) Code() Code {
	if len(v.Findings) == 0 {
		return CodeUnknown
	}
	return v.Findings[0].Code
}
