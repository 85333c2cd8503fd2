package verify

import (
	"crypto/sha256"
	"encoding/hex"

	"mailcutover/routing"
)

// Kind is what a finding says.
type Kind string

const (
	// Crossed: content of Owner lies in Mailbox, by evidence that nothing else explains.
	Crossed Kind = "crossed"
	// Possible: content of Owner lies in Mailbox, but it is little, or came after the
	// watermark, so that somebody may have moved or copied it there.
	Possible Kind = "possible"
	// Foreign: much of what lies in Mailbox never was on its source side, and stands nowhere
	// that was read. Whose it is isn't known.
	Foreign Kind = "foreign"
	// Missing: much of what is on the source side of Mailbox isn't on its target side, though
	// it was cut over, and it doesn't lie in another mailbox as far as findings say.
	Missing Kind = "missing"
	// Clash: UIDs of a folder under one UIDVALIDITY name other messages than on the source. A
	// mail program that goes by them shows the wrong ones.
	Clash Kind = "clash"
)

// Alarms reports whether a finding of this kind is a reason for an alarm, and for a lock
// where that is configured.
func (k Kind) Alarms() bool { return k == Crossed || k == Foreign || k == Clash }

// Kinds are all of them, the worst first.
func Kinds() []Kind { return []Kind{Crossed, Foreign, Clash, Possible, Missing} }

// rank is the order of kinds, the worst first.
func (k Kind) rank() int {
	for i, one := range Kinds() {
		if k == one {
			return i
		}
	}
	return 99
}

// Finding is something about one mailbox that people have to look at.
type Finding struct {
	ID      string            `json:"id"` // the same in each run for one mailbox, owner and sort of finding
	Kind    Kind              `json:"kind"`
	Agency  routing.AgencyID  `json:"agency"`
	Mailbox routing.MailboxID `json:"mailbox"` // in which it lies
	Address routing.Address   `json:"address"` // of Mailbox

	Owner        routing.MailboxID `json:"owner,omitzero"` // whose it likely is
	OwnerAgency  routing.AgencyID  `json:"owner_agency,omitempty"`
	OwnerAddress routing.Address   `json:"owner_address,omitempty"`

	// Messages is how many messages of Mailbox stand on Owner's source side and not on its
	// own, lists and newsletters included; of the other kinds, how many they are about.
	Messages int `json:"messages"`
	// Sure is how many of them name Owner and not Mailbox, and are evidence by themselves.
	Sure int `json:"sure"`
	// Late is how many came after the watermark.
	Late int `json:"late,omitempty"`
	// Of is how many messages Mailbox holds on the target; of Missing, on the source.
	Of int `json:"of"`
	// Folders are where most of them lie.
	Folders []string `json:"folders,omitempty"`
}

// maxFolders is how many folders a finding names.
const maxFolders = 5

// identify sets the finding's ID.
func (f *Finding) identify() {
	sort := f.Kind
	if sort == Possible {
		sort = Crossed // one that becomes sure stays the same finding
	}
	sum := sha256.Sum256([]byte(string(sort) + " " + f.Mailbox.String() + " " + f.Owner.String()))
	f.ID = hex.EncodeToString(sum[:5])
}

// Message is one message that a finding is about, to find it on the target.
type Message struct {
	Finding string          `json:"finding"`
	Address routing.Address `json:"address"` // of the mailbox in which it lies
	Folder  string          `json:"folder"`
	UID     uint32          `json:"uid"`
	Key     string          `json:"key"`
}
