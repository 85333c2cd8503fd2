package desk

import (
	"encoding/json"
	"fmt"
	"time"

	"mailcutover/routing"
)

// Prefix begins the keys of the documents with what canaries found.
const Prefix = "canary/"

// Key is that of an agency's document.
func Key(agency routing.AgencyID) string { return Prefix + string(agency) }

// Record is what the table has of an agency's canary.
type Record struct {
	Agency    routing.AgencyID         `json:"agency"`
	Operation routing.OperationID      `json:"operation,omitempty"` // the last switch
	Runner    routing.NodeID           `json:"runner,omitempty"`    // of it, which tried the canary then
	Rollback  bool                     `json:"rollback,omitempty"`  // the approved plan of that cutover lets it be taken back
	Nodes     map[routing.NodeID]Tried `json:"nodes,omitempty"`
	Reaction  *Reaction                `json:"reaction,omitempty"` // to the failures that there are now

	Revision routing.Revision `json:"-"` // of the document
}

// Tried is what one node found last.
type Tried struct {
	Time      time.Time           `json:"time"`
	Platform  routing.PlatformID  `json:"platform"` // that had the agency
	Operation routing.OperationID `json:"operation,omitempty"`
	OK        bool                `json:"ok"`
	Failures  int                 `json:"failures,omitempty"` // in a row
	Text      string              `json:"text"`               // for people
}

// React is what follows.
type React string

const (
	Alarm    React = "alarm"
	Freeze   React = "freeze"
	Rollback React = "rollback"
)

// Reaction is what followed, or is to follow.
type Reaction struct {
	Kind   React          `json:"kind"`
	Node   routing.NodeID `json:"node"` // that carries it out
	Began  time.Time      `json:"began"`
	Ended  time.Time      `json:"ended,omitzero"` // zero: not yet
	Reason string         `json:"reason"`
}

// RecordOf returns what a State has of an agency's canary; an empty Record if it has nothing.
func RecordOf(s *routing.State, agency routing.AgencyID) (r Record, err error) {
	d, ok := s.Document(Key(agency))
	if ok {
		if err = json.Unmarshal([]byte(d.Text), &r); err != nil {
			err = fmt.Errorf("canary of agency %s can't be read by this program: %w", agency, err)
		}
	}
	r.Agency, r.Revision = agency, d.Revision
	return r, err
}

func (r *Record) document() (routing.Document, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return routing.Document{}, fmt.Errorf("write the canary of agency %s: %w", r.Agency, err)
	}
	return routing.Document{Key: Key(r.Agency), Text: string(text), Revision: r.Revision}, nil
}

// failing returns the node whose canary failed most often in a row; empty: none fails.
func (r *Record) failing() (node routing.NodeID, t Tried) {
	for id, one := range r.Nodes {
		if one.Failures > t.Failures || one.Failures == t.Failures && t.Failures > 0 && id < node {
			node, t = id, one
		}
	}
	return node, t
}

// Switched returns the document that begins an agency's record anew with a switch, to be set in the
// change that opens it. rollback says that its approved plan lets it be taken back.
func Switched(s *routing.State, agency routing.AgencyID, operation routing.OperationID, runner routing.NodeID, rollback bool) (routing.Document, error) {
	was, _ := RecordOf(s, agency) // one that can't be read is begun anew
	r := Record{Agency: agency, Operation: operation, Runner: runner, Rollback: rollback, Revision: was.Revision}
	return r.document()
}
