package operation

import (
	"errors"
	"fmt"
	"strings"

	"mailcutover/routing"
)

// errLost is an operation that can't go on: the table lost a record of its agencies that
// nodes have seen, and takes no change of them until people have reconciled it.
var errLost = errors.New("the table lost what nodes have seen of its agencies")

// losses returns those of the agencies whose records people have to reconcile, as far as
// this node's copy says.
func (r *Runner) losses(ids []routing.AgencyID) []string {
	s := r.Replica.State()
	var lost []string
	for _, id := range ids {
		if _, ok := s.Seen(id); ok {
			lost = append(lost, string(id))
		}
	}
	return lost
}

// holds says whether the table, as this node's copy has it, still knows what an operation
// began. Without it no member may ever report what the operation waits for. errLost:
// people have to reconcile; ErrTakenOver: it has ended, or is lost.
func (u *run) holds() error {
	if len(u.op.Begun) == 0 {
		return nil
	}
	if lost := u.losses(u.op.Agencies); len(lost) > 0 {
		return fmt.Errorf("%w: %s", errLost, strings.Join(lost, ", "))
	}
	if s := u.Replica.State(); u.recorded {
		if _, ok := s.Operation(u.op.ID); !ok {
			return u.own(s)
		}
	}
	return nil
}

// awaitsPeople reports whether the operation can't be settled before people have
// reconciled an agency of it. Then there is one alarm that says so, and Tend goes on when
// they have.
func (r *Runner) awaitsPeople(op Operation) bool {
	lost := r.losses(op.Agencies)
	if len(lost) == 0 {
		return false
	}
	r.mu.Lock()
	r.unsettled[op.ID] = struct{}{}
	r.mu.Unlock()
	r.Alarms.Raise(operationAlarm(op.ID), fmt.Sprintf("Operation %s (%s of agency %s) can't go on: the table lost what nodes have seen of %s. Reconcile that; until then it stays closed. Then the operation is settled.", op.ID, op.Kind, op.Agency, strings.Join(lost, ", ")))
	return true
}
