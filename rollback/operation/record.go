package operation

import (
	"encoding/json"
	"fmt"
	"slices"

	"mailcutover/routing"
)

// record returns the table's record of the operation, to follow was.
func (o *Operation) record(was routing.Operation) (routing.Operation, error) {
	detail := *o
	detail.Waiting, detail.Nodes = "", nil
	b, err := json.Marshal(&detail)
	if err != nil {
		return routing.Operation{}, fmt.Errorf("write operation %s for the table: %w", o.ID, err)
	}
	return routing.Operation{
		ID: o.ID, Kind: string(o.Kind), Agency: o.Agency, Agencies: slices.Clone(o.Agencies), Nonce: o.Nonce, Plan: o.Plan,
		Step: string(o.Step), Runner: o.Runner, Instance: o.Instance, Base: o.Base, Emergency: o.Emergency,
		Ended: o.Step.Ended(), Who: o.Who, Reason: o.Reason, Started: o.Started, Deadline: o.Deadline,
		Detail: string(b), Revision: was.Revision,
	}, nil
}

// FromRecord returns the operation of a table's record. Of one whose detail can't be read
// it returns what the other fields say, with the error: enough to end it.
func FromRecord(rec *routing.Operation) (Operation, error) {
	var o Operation
	err := json.Unmarshal([]byte(rec.Detail), &o)
	if err != nil {
		o, err = Operation{}, fmt.Errorf("read the detail of operation %s: %w", rec.ID, err)
	}
	o.ID, o.Kind, o.Agency, o.Agencies, o.Nonce, o.Plan = rec.ID, Kind(rec.Kind), rec.Agency, slices.Clone(rec.Agencies), rec.Nonce, rec.Plan
	o.Step, o.Runner, o.Instance, o.Base, o.Emergency = Step(rec.Step), rec.Runner, rec.Instance, rec.Base, rec.Emergency
	o.Who, o.Reason, o.Started, o.Deadline = rec.Who, rec.Reason, rec.Started, rec.Deadline
	return o, err
}
