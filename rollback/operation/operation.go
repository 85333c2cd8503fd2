package operation

import (
	"time"

	"mailcutover/rollback/canary"
	"mailcutover/routing"
)

// Kind is what an operation does.
type Kind string

const (
	Cutover  Kind = "cutover"  // from the source to the target platform
	Rollback Kind = "rollback" // from the target to the source platform
	Remap    Kind = "remap"    // to other mappings, on the same platforms
)

// Step is how far an operation is: the step that is being taken, or is about to be.
type Step string

const (
	// StepWatermarks notes the state of the mailboxes on both platforms, while the agencies
	// are open.
	StepWatermarks Step = "watermarks"

	StepBegin   Step = "begin"   // close the agencies
	StepDrain   Step = "drain"   // wait until nothing old is under way on any node
	StepHooks   Step = "hooks"   // what has to be done on the platforms while they are closed
	StepCommit  Step = "commit"  // set the other platform, or mapping
	StepPublish Step = "publish" // confirm that this is durable, and open
	StepSpread  Step = "spread"  // open; wait until each node with a lease has seen it
	StepAbort   Step = "abort"   // back to where it was
	StepCanary  Step = "canary"  // open; try mail and logins. To the table it is spread
	StepDone    Step = "done"    // ended as planned
	StepAborted Step = "aborted" // ended where it began
	StepRefused Step = "refused" // ended, and begin has not happened and never will
)

// Ended reports whether nothing is left to be done.
func (s Step) Ended() bool { return s == StepDone || s == StepAborted || s == StepRefused }

// Operation is one run, as the journal, the table and the API show it.
type Operation struct {
	ID       routing.OperationID `json:"id"`
	Kind     Kind                `json:"kind"`
	Agency   routing.AgencyID    `json:"agency"`   // that it was started for
	Agencies []routing.AgencyID  `json:"agencies"` // that change together: the agency, with a rollback its children on the target, with a remap all whose mapping changes
	Nonce    routing.Nonce       `json:"nonce"`
	Who      string              `json:"who"`
	Reason   string              `json:"reason"`

	// Plan is what was approved; zero: nothing was.
	Plan routing.Digest `json:"plan"`

	// Emergency is an operation on one person's word. TargetDead says besides that what is
	// under way at the losing side is listed and not awaited.
	Emergency  bool `json:"emergency,omitempty"`
	TargetDead bool `json:"target_dead,omitempty"`

	// TakesBack says of a cutover that the agency is rolled back by itself, as an emergency, if
	// its canary fails: where Plan was approved with it.
	TakesBack bool `json:"takes_back,omitempty"`

	// Mappings are the mappings that a remap brings into force.
	Mappings map[routing.AgencyID]routing.Digest `json:"mappings,omitempty"`

	// List is the id of the list of mailboxes that a remap brings into force; empty: of none.
	List string `json:"list,omitempty"`

	// Wave is the wave of the plan whose approval a cutover rests on; empty: on none's.
	Wave string `json:"wave,omitempty"`

	// Runner is the node that carries it out, Instance the life of that node.
	Runner   routing.NodeID     `json:"runner,omitempty"`
	Instance routing.InstanceID `json:"instance,omitempty"`

	// Watermarks is the digest under which the state of both platforms before a cutover is
	// kept; zero: it isn't.
	Watermarks routing.Digest `json:"watermarks,omitzero"`

	Step     Step      `json:"step"`
	Started  time.Time `json:"started"`
	Deadline time.Time `json:"deadline,omitzero"` // until drained
	Closed   time.Time `json:"closed,omitzero"`   // when the table had begin; Started, where a crash hid that
	Opened   time.Time `json:"opened,omitzero"`   // when the table had publish or abort, or was seen to have it
	Waiting  string    `json:"waiting,omitempty"` // what for, in words
	Error    string    `json:"error,omitempty"`   // why it was aborted or refused

	// Base is the highest revision of the agencies' records before begin, Begun the epochs
	// that begin made, BegunAt the revision.
	Base    routing.Revision                   `json:"base,omitempty"`
	Begun   map[routing.AgencyID]routing.Epoch `json:"begun,omitempty"`
	BegunAt routing.Revision                   `json:"begun_at,omitempty"`

	Hooks []HookState `json:"hooks,omitempty"` // in the order in which they are called

	// Ends is the operation that this emergency ended by its begin.
	Ends []routing.OperationID `json:"ends,omitempty"`

	// WithoutReplica is the server without whose word people had it published.
	WithoutReplica string `json:"without_replica,omitempty"`

	// Nodes is what each member was last seen to do for it; Fenced has those that it went
	// on without, Listed the messages that it didn't wait for, Late the nodes that had not
	// seen the opening when it was told as done.
	Nodes  []Waits  `json:"nodes,omitempty"`
	Fenced []string `json:"fenced,omitempty"`
	Listed []string `json:"listed,omitempty"`
	Late   []string `json:"late,omitempty"`

	// Canaries is what was tried once the agencies were open, and what came of it.
	Canaries []canary.Result `json:"canaries,omitempty"`
}

// ClosedFor returns how long the agencies were closed; 0 while they are, or never were.
func (o *Operation) ClosedFor() time.Duration {
	if o.Closed.IsZero() || o.Opened.IsZero() {
		return 0
	}
	return o.Opened.Sub(o.Closed)
}

// moves reports whether the mailboxes are on the other platform after it.
func (k Kind) moves() bool { return k == Cutover || k == Rollback }

// from is the phase from which it moves.
func (k Kind) from() routing.Phase {
	if k == Rollback {
		return routing.PhaseTarget
	}
	return routing.PhaseSource
}

// event is the event that begins it.
func (k Kind) event() routing.Event {
	if k == Remap {
		return routing.EventBeginRemap
	}
	return routing.EventBegin
}

// verb is the kind as one says it of an agency.
func (k Kind) verb() string {
	if k == Remap {
		return "change the mapping of"
	}
	return string(k)
}
