package mailstore

import (
	"context"
	"io"
	"time"

	"mailcutover/rollback/msgkey"
	"mailcutover/routing"
)

// Side says which of its two places a mailbox is opened at.
type Side uint8

const (
	SideUnknown Side = iota // refused
	Source                  // as Row.Source knows it
	Target                  // as Row.Target knows it
)

// String returns the word that logs and errors have.
func (s Side) String() string {
	switch s {
	case Source:
		return "source"
	case Target:
		return "target"
	default:
		return "unknown"
	}
}

// Store is the mailboxes of one platform.
type Store interface {
	// Open logs in at a mailbox. It waits until the platform's bound on connections lets it,
	// or ctx ends. The caller closes the session.
	Open(ctx context.Context, row routing.Row, side Side) (Session, error)
}

// Session is a connection to one mailbox. It isn't safe for concurrent use. After an error
// that wraps ErrTimeout or ErrUnavailable, or ctx's end during a call, the connection is
// closed and every further call fails.
type Session interface {
	// Folders lists the folders of the mailbox itself, with what STATUS says of each (RFC 9051
	// section 6.3.11), sorted by name. Those that hold no mail by the settings are left out.
	Folders(ctx context.Context) ([]Folder, error)

	// Select opens a folder, for reading only unless write is set. List, Bodies, Move and
	// Find are about the folder that was selected last. The folder's HighestModSeq is 0
	// where the platform has none.
	Select(ctx context.Context, folder string, write bool) (Folder, error)

	// List calls each for the messages with UIDs from..to, ascending; to 0: all from there on.
	// An error of each ends it and is returned.
	List(ctx context.Context, from, to uint32, each func(Message) error) error

	// ListSince is List for those that arrived on the day of since, or later, as the
	// platform's clock and zone have it (SEARCH SINCE, RFC 9051 section 6.4.4).
	ListSince(ctx context.Context, since time.Time, each func(Message) error) error

	// Bodies calls each for the messages with these UIDs, with one command, in the order in
	// which the platform gives them. Those that aren't there are left out. What each doesn't read is skipped.
	// io.EOF before size bytes doesn't happen: it is an error. An error of each closes the connection, and is
	// returned.
	Bodies(ctx context.Context, uids []uint32, each func(uid uint32, size int64, body io.Reader) error) error

	// AppendMany puts messages into a folder, the next sent before the last is answered. The
	// caller calls Close on it before the session's next method.
	AppendMany(ctx context.Context, folder string) Appender

	// Move moves messages of the selected folder by MOVE (RFC 6851). Without that the error
	// wraps ErrNoMove, and nothing is done. UIDs that aren't there are no error.
	Move(ctx context.Context, uids []uint32, to string) error

	// Find returns the UIDs in the selected folder of messages with a Message-ID, ascending
	// (SEARCH HEADER). Some platforms search an index that is behind, so that finding
	// nothing proves nothing.
	Find(ctx context.Context, messageID string) ([]uint32, error)

	// Create makes a folder and what is above it, and subscribes to it. One that exists is no
	// error. Role is told to platforms that take it (RFC 6154 section 3).
	Create(ctx context.Context, folder string, role Role) error

	// Close logs out, within a second or two, and closes the connection.
	Close() error
}

// Folder is a folder at one moment.
type Folder struct {
	Name       string // UTF-8, levels separated by "/" whatever the platform has; INBOX in capitals
	Role       Role
	NoSelect   bool // holds no messages, only folders
	Subscribed bool

	UIDValidity   uint32
	UIDNext       uint32
	HighestModSeq uint64 // RFC 7162; 0: the platform has none
	Messages      uint32

	// Flags are those that can be kept in the folder (PERMANENTFLAGS), and AnyKeyword says
	// that new keywords can be made there. Only Select tells them.
	Flags      []string
	AnyKeyword bool
}

// Keeps reports whether a flag can be kept in the folder.
func (f *Folder) Keeps(flag string) bool {
	for _, kept := range f.Flags {
		if equalFlags(kept, flag) {
			return true
		}
	}
	return f.AnyKeyword && flag != "" && flag[0] != '\\'
}

// Message is a message as it is listed.
type Message struct {
	UID      uint32
	Flags    []string  // system flags and keywords, without \Recent, sorted
	Internal time.Time // when it arrived, as the platform has it
	Size     int64     // as the platform says; some are wrong by a few bytes
	Facts    msgkey.Facts
	Receipt  bool // its sender asked to be told when it is read (RFC 8098)
}

// Append is a message that is put into a folder.
type Append struct {
	Flags    []string
	Internal time.Time // zero: now, by the platform's clock
	Size     int64     // of Body, in bytes
	Body     io.Reader
}

// Appended is where a message is now. All is zero where the platform doesn't say (without
// UIDPLUS, RFC 4315).
type Appended struct {
	UIDValidity uint32
	UID         uint32
}

// Appender appends messages to one folder, one after the other, and doesn't wait for each
// answer. It isn't safe for concurrent use.
type Appender interface {
	// Add sends a message. The answer goes to done, during this or a later Add, or Close, in
	// order: an error there is about this message, if it wraps ErrTooLarge or ErrRefused.
	// Add's own error says that the session is over; done is called for this message all the
	// same. A body that ends early or fails closes the connection, since half a message must
	// not be stored.
	Add(m Append, done func(Appended, error)) error

	// Close waits for all answers.
	Close() error
}
