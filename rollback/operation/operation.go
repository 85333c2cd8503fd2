package operation

import (
	"time"

	"mailcutover/routing"
)

// Kind is what an operation does.
type Kind string

const (
	Cutover  Kind = "cutover"  // from the source to the target platform
	Rollback Kind = "rollback" // from the target to the source platform
)

// Step is how far an operation is. The journal has the step that was about to be taken.
type Step string

const (
	StepBegin   Step = "begin"   // close the agencies
	StepDrain   Step = "drain"   // wait until nothing old is under way on this node
	StepCommit  Step = "commit"  // set the other platform
	StepPublish Step = "publish" // confirm that this is durable, and open
	StepAbort   Step = "abort"   // back to where it was
	StepDone    Step = "done"    // ended as planned
	StepAborted Step = "aborted" // ended where it began
	StepRefused Step = "refused" // ended, and begin has not happened and never will
)

// Ended reports whether nothing is left to be done.
func (s Step) Ended() bool { return s == StepDone || s == StepAborted || s == StepRefused }

// Operation is one run, as the journal and the API show it.
type Operation struct {
	ID       routing.OperationID `json:"id"`
	Kind     Kind                `json:"kind"`
	Agency   routing.AgencyID    `json:"agency"`   // that it was started for
	Agencies []routing.AgencyID  `json:"agencies"` // that change together: the agency, and with a rollback its children on the target
	Nonce    routing.Nonce       `json:"nonce"`
	Who      string              `json:"who"`
	Reason   string              `json:"reason"`

	Step    Step      `json:"step"`
	Started time.Time `json:"started"`
	Closed  time.Time `json:"closed,omitzero"` // when the table had begin; Started, where a crash hid that
	Opened  time.Time `json:"opened,omitzero"` // when the table had publish or abort, or was seen to have it
	Waiting string    `json:"waiting,omitempty"`
	Error   string    `json:"error,omitempty"` // why it was aborted or refused
}

// ClosedFor returns how long the agencies were closed; 0 while they are, or never were.
func (o *Operation) ClosedFor() time.Duration {
	if o.Closed.IsZero() || o.Opened.IsZero() {
		return 0
	}
	return o.Opened.Sub(o.Closed)
}
