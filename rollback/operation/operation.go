package operation

import (
	"encoding/json"
	"fmt"
	"io"
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
	StepRefused Step = "refused" // ended before anything was changed
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
	Closed  time.Time `json:"closed,omitzero"` // when the table had begin
	Opened  time.Time `json:"opened,omitzero"` // when the table had publish or abort
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

// journal keeps operations as files on this node's disk.
type journal struct {
	folder Folder
}

// Folder keeps small files that appear whole or not at all; durable.Folder is one.
type Folder interface {
	Write(name string, write func(io.Writer) error) error
	Open(name string) (io.ReadCloser, error)
	Names() ([]string, error)
}

const journalSuffix = ".json"

func (j journal) write(o *Operation) error {
	err := j.folder.Write(string(o.ID)+journalSuffix, func(w io.Writer) error {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(o)
	})
	if err != nil {
		return fmt.Errorf("journal operation %s: %w", o.ID, err)
	}
	return nil
}

func (j journal) read(name string) (Operation, error) {
	f, err := j.folder.Open(name)
	if err != nil {
		return Operation{}, fmt.Errorf("read journal %s: %w", name, err)
	}
	defer f.Close()
	var o Operation
	if err := json.NewDecoder(f).Decode(&o); err != nil {
		return Operation{}, fmt.Errorf("read journal %s: %w", name, err)
	}
	return o, nil
}
