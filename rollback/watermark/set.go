package watermark

import (
	"time"

	"mailcutover/routing"
)

// Folder is the state of one folder.
type Folder struct {
	Name          string `json:"folder"` // its name, with / between levels
	UIDValidity   uint32 `json:"uidvalidity"`
	UIDNext       uint32 `json:"uidnext"`                 // all that comes later has this UID or a higher one
	HighestModSeq uint64 `json:"highestmodseq,omitempty"` // 0: the server has none
	Messages      uint32 `json:"messages"`
}

// Mailbox is the state of one mailbox on one platform.
type Mailbox struct {
	Mailbox routing.MailboxID `json:"mailbox"`
	Folders []Folder          `json:"folders,omitempty"`

	// Error is why it couldn't be looked at; empty: it was. With an Error there are no
	// Folders, which says nothing about what the mailbox has.
	Error string `json:"error,omitempty"`
}

// Folder returns the state of a folder; false: it wasn't there, or couldn't be looked at.
// It is also false for a nil m.
func (m *Mailbox) Folder(name string) (Folder, bool) {
	if m == nil {
		return Folder{}, false
	}
	for i := range m.Folders {
		if m.Folders[i].Name == name {
			return m.Folders[i], true
		}
	}
	return Folder{}, false
}

// Side is the state of an agency's mailboxes on one platform.
type Side struct {
	Platform  routing.PlatformID
	Mailboxes map[routing.MailboxID]*Mailbox
}

// Failed returns how many mailboxes couldn't be looked at.
func (s *Side) Failed() int {
	n := 0
	for _, m := range s.Mailboxes {
		if m.Error != "" {
			n++
		}
	}
	return n
}

// Set is the state of an agency's mailboxes before an operation, on those platforms whose
// mailboxes can be read.
type Set struct {
	Agency    routing.AgencyID
	Operation routing.OperationID
	Taken     time.Time // when the first mailbox was looked at; what came later may be above the marks or not
	Sides     []Side
}

// On returns the state on a platform; nil: it wasn't taken, or there is no Set.
func (s *Set) On(p routing.PlatformID) *Side {
	if s == nil {
		return nil
	}
	for i := range s.Sides {
		if s.Sides[i].Platform == p {
			return &s.Sides[i]
		}
	}
	return nil
}

// Mailbox returns the state of a mailbox on a platform; nil: it isn't known.
func (s *Set) Mailbox(p routing.PlatformID, id routing.MailboxID) *Mailbox {
	side := s.On(p)
	if side == nil {
		return nil
	}
	m := side.Mailboxes[id]
	if m == nil || m.Error != "" {
		return nil
	}
	return m
}
