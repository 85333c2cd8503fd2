package verify

import (
	"encoding/binary"

	"mailcutover/rollback/msgkey"
)

// none is the index of no mailbox.
const none = ^uint32(0)

// standing is a key on the source side of a mailbox.
type standing struct {
	key     msgkey.Key
	mailbox uint32 // index in the run's book
}

const standingSize = 20

func (s *standing) put(b []byte) []byte {
	b = append(b, s.key[:]...)
	return binary.LittleEndian.AppendUint32(b, s.mailbox)
}

func (s *standing) read(b []byte) {
	copy(s.key[:], b)
	s.mailbox = binary.LittleEndian.Uint32(b[16:])
}

// suspect is a message on the target side that its mailbox's source side doesn't explain.
type suspect struct {
	key    msgkey.Key
	holder uint32 // the mailbox that it lies in
	folder uint32 // index in the run's names of folders
	uid    uint32
	named  [maxNamed]uint32 // mailboxes that it names: none for unused ones
	marks  marks
}

// maxNamed is how many mailboxes that a message names are noted. One that names more is mail
// to many, and says little about whose it is.
const maxNamed = 4

const suspectSize = 16 + 3*4 + maxNamed*4 + 1

// marks say what weighs for or against a suspect.
type marks uint8

const (
	markLate   marks = 1 << iota // came after the watermark was taken: perhaps by its user
	markMany                     // from a list, to a group, or to more people than are noted
	markInside                   // a recipient is one of our mailboxes
)

func (s *suspect) put(b []byte) []byte {
	b = append(b, s.key[:]...)
	b = binary.LittleEndian.AppendUint32(b, s.holder)
	b = binary.LittleEndian.AppendUint32(b, s.folder)
	b = binary.LittleEndian.AppendUint32(b, s.uid)
	for _, n := range s.named {
		b = binary.LittleEndian.AppendUint32(b, n)
	}
	return append(b, byte(s.marks))
}

func (s *suspect) read(b []byte) {
	copy(s.key[:], b)
	s.holder = binary.LittleEndian.Uint32(b[16:])
	s.folder = binary.LittleEndian.Uint32(b[20:])
	s.uid = binary.LittleEndian.Uint32(b[24:])
	for i := range s.named {
		s.named[i] = binary.LittleEndian.Uint32(b[28+4*i:])
	}
	s.marks = marks(b[28+4*maxNamed])
}

// names reports whether the suspect names a mailbox.
func (s *suspect) names(mailbox uint32) bool {
	for _, n := range s.named {
		if n == mailbox && n != none {
			return true
		}
	}
	return false
}

// evidence is a suspect together with one mailbox on whose source side it stands, or that it
// only names.
type evidence struct {
	key    msgkey.Key
	holder uint32
	owner  uint32 // none: it stands nowhere
	folder uint32
	uid    uint32
	stands uint16 // on how many mailboxes' source side; 0: on none, owner is only named
	named  bool   // it names the owner
	marks  marks
}

const evidenceSize = 16 + 4*4 + 2 + 2

func (e *evidence) put(b []byte) []byte {
	b = append(b, e.key[:]...)
	b = binary.LittleEndian.AppendUint32(b, e.holder)
	b = binary.LittleEndian.AppendUint32(b, e.owner)
	b = binary.LittleEndian.AppendUint32(b, e.folder)
	b = binary.LittleEndian.AppendUint32(b, e.uid)
	b = binary.LittleEndian.AppendUint16(b, e.stands)
	named := byte(0)
	if e.named {
		named = 1
	}
	return append(b, named, byte(e.marks))
}

func (e *evidence) read(b []byte) {
	copy(e.key[:], b)
	e.holder = binary.LittleEndian.Uint32(b[16:])
	e.owner = binary.LittleEndian.Uint32(b[20:])
	e.folder = binary.LittleEndian.Uint32(b[24:])
	e.uid = binary.LittleEndian.Uint32(b[28:])
	e.stands = binary.LittleEndian.Uint16(b[32:])
	e.named = b[34] == 1
	e.marks = marks(b[35])
}
