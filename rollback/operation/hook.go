package operation

import (
	"context"
	"time"

	"mailcutover/routing"
)

// Point is when a hook is called. All points lie between drained and commit, while the
// agency is closed everywhere; they come in the order below.
type Point string

const (
	PointClose   Point = "close"   // the losing side takes no logins and no mail of the agency any more
	PointMover   Point = "mover"   // an external step: wait until somebody says that it is done
	PointForward Point = "forward" // forwards on the platforms go on or off
	PointOpen    Point = "open"    // the winning side takes them
)

// points is their order.
var points = []Point{PointClose, PointMover, PointForward, PointOpen}

// Hook is something that has to be done on a platform. Do and Undo may be called more than
// once for one operation, also by two nodes at once, and have to end in the same way then.
// Package rollback/hook has commands and URLs.
type Hook interface {
	Name() string // unique among the hooks of an operation; in the form of an agency's id
	Point() Point
	// Platform is where it acts; empty for an external step. An emergency leaves out what
	// would act on a dead target.
	Platform() routing.PlatformID

	Digest() routing.Digest // of all that it would do: an approval is bound to it
	Describe() string       // for the plan: one line, without secrets

	// Expected is how long it takes; for an external step, after which time people are
	// alarmed. Patience is for how long it is tried again before the operation is aborted.
	Expected() time.Duration
	Patience() time.Duration

	// External says that nothing is to be called: somebody says when it is done (see
	// [Runner.Tell]).
	External() bool

	// Undoes says that Undo takes back what Do did.
	Undoes() bool

	// Do and Undo return what the platform said, for people, when it is done. They bound
	// themselves, and end soon after ctx.
	Do(ctx context.Context, c Call) (receipt string, err error)
	Undo(ctx context.Context, c Call) (receipt string, err error)
}

// Callable is a hook that can say, without being called, why it couldn't be: a program that
// isn't there, a server that doesn't answer. Plans ask it; nil: nothing is known against it.
// It ends with ctx.
type Callable interface {
	Callable(ctx context.Context) error
}

// Call is what a hook is told.
type Call struct {
	Operation routing.OperationID
	Kind      Kind
	Agency    routing.AgencyID   // that the operation was started for
	Agencies  []routing.AgencyID // all that change together
	Losing    routing.PlatformID // platform that has the mailboxes until commit
	Winning   routing.PlatformID // platform that has them after it; with a remap the same
	Attempt   int                // from 1

	// Token grows with each step of the operation, whichever node takes it: a platform that
	// remembers the highest can refuse a call that was stopped on its way.
	Token routing.Revision
}

// Hooks says which hooks an operation calls.
type Hooks interface {
	// Of returns the hooks for an operation of this kind on this agency, in any order.
	Of(kind Kind, agency routing.Agency) []Hook
}

// HookStatus is how far a hook is.
type HookStatus string

const (
	HookPlanned    HookStatus = "planned"
	HookStarted    HookStatus = "started" // it may have done something
	HookDone       HookStatus = "done"
	HookTold       HookStatus = "told"    // an external step that somebody said is done
	HookSkipped    HookStatus = "without" // people had it left out
	HookUndone     HookStatus = "undone"
	HookUndoFailed HookStatus = "undo-failed" // people have to see to it
)

// HookState is a hook of an operation, with its receipts.
type HookState struct {
	Name     string         `json:"name"`
	Point    Point          `json:"point"`
	Digest   routing.Digest `json:"digest"`
	External bool           `json:"external,omitempty"`
	Status   HookStatus     `json:"status"`
	Attempts int            `json:"attempts,omitempty"`
	Started  time.Time      `json:"started,omitzero"` // of the first attempt
	Ended    time.Time      `json:"ended,omitzero"`   // of the last one
	Receipt  string         `json:"receipt,omitempty"`
	Error    string         `json:"error,omitempty"` // of the last attempt that failed
	Who      string         `json:"who,omitempty"`   // who said done, or without
}

// passed reports whether the operation goes on behind it.
func (s HookStatus) passed() bool { return s == HookDone || s == HookTold || s == HookSkipped }

// maxReceipt bounds what is kept of a receipt or an error, in bytes.
const maxReceipt = 1000
