package directory

import (
	"context"
	"errors"
	"time"

	"mailcutover/routing"
)

// ErrIncomplete is wrapped by an error of [Directory.Read] when objects were read and others
// are missing: nothing that was read may be taken for the directory.
var ErrIncomplete = errors.New("the directory was not read to its end")

// Directory is one directory. Its methods are safe for concurrent use.
type Directory interface {
	// Name is the directory's name in configuration and logs.
	Name() string

	// Read calls each for every object, in no order, from one goroutine; an object is valid
	// after the call. An error of each ends it and is returned. Without an error all objects
	// were read. It holds no more than a page of them.
	Read(ctx context.Context, each func(*Object) error) (Snapshot, error)

	// Find asks the directory now. No object and no error means that there is none; more
	// than one, that the directory is in disorder. An error means that nothing is known.
	Find(ctx context.Context, q Query) ([]Object, error)
}

// Query asks for objects by exactly one of its fields.
type Query struct {
	Address routing.Address // primary or not
	ID      routing.MailboxID
	Login   string // UPN or account
	DN      string
	X500    string
}

// Snapshot says what was read.
type Snapshot struct {
	Directory string         `json:"directory"` // its name
	Server    string         `json:"server"`    // that answered
	Began     time.Time      `json:"began"`
	Ended     time.Time      `json:"ended"`
	Objects   int            `json:"objects"`
	Digest    routing.Digest `json:"digest"` // of all objects, in whatever order they came
}
