package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"mailcutover/approval"
	"mailcutover/audit"
	"mailcutover/rollback/control"
	"mailcutover/rollback/operation"
	"mailcutover/rollback/recall/desk"
	"mailcutover/routing"
	"mailcutover/routing/table"
)

// problemType is the content type of every error answer (RFC 9457 section 3).
const problemType = "application/problem+json"

// Problem is the answer to a call that failed (RFC 9457), and the error that [Client]
// returns for it.
type Problem struct {
	Title   string   `json:"title" doc:"The status in words"`
	Status  int      `json:"status" doc:"HTTP status"`
	Detail  string   `json:"detail,omitempty" doc:"What was attempted, on what, and why it failed"`
	Hint    string   `json:"hint,omitempty" doc:"What to do"`
	Errors  []Detail `json:"errors,omitempty" doc:"Each thing that is wrong, at most 1,000"`
	Request string   `json:"request,omitempty" doc:"Id of the call in the node's log"`
}

// Detail is one thing that is wrong with a call.
type Detail struct {
	Where   string `json:"where,omitempty" doc:"Field of the call, or line of the list"`
	Message string `json:"message"`
}

// Error implements error.
func (p *Problem) Error() string {
	if p.Detail != "" {
		return p.Detail
	}
	return p.Title
}

// GetStatus implements huma.StatusError.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType implements huma.ContentTypeFilter.
func (p *Problem) ContentType(string) string { return problemType }

func problem(status int, hint, format string, args ...any) *Problem {
	return &Problem{Title: http.StatusText(status), Status: status, Detail: fmt.Sprintf(format, args...), Hint: hint}
}

// asProblem maps an error to all that the caller may learn of it. What is not foreseen
// has no text; the caller of asProblem logs it.
func asProblem(err error) (p *Problem, foreseen bool) {
	for _, k := range knownErrors {
		if errors.Is(err, k.err) {
			return problem(k.status, k.hint, "%s", err.Error()), true
		}
	}
	if errors.As(err, &p) {
		return p, true
	}
	if p := planProblem(err); p != nil {
		return p, true
	}
	return problem(http.StatusInternalServerError, "the node's log has the reason, under the request's id", "internal error"), false
}

var knownErrors = []struct {
	err    error
	status int
	hint   string
}{
	{table.ErrUnavailable, http.StatusServiceUnavailable, "the table can't be reached; whether the change happened is known by looking, or by sending it again"},
	{context.DeadlineExceeded, http.StatusServiceUnavailable, "it took too long; look whether it happened, then send it again"},
	{errStopping, http.StatusServiceUnavailable, "start it again once the node runs"},
	{context.Canceled, http.StatusServiceUnavailable, "the node is stopping, or the caller went away"},
	{table.ErrEmpty, http.StatusServiceUnavailable, "the table has lost its data, or never had any: see mailcutover alarm list before anything is written to it"},
	{table.ErrIncarnation, http.StatusServiceUnavailable, "this node's copy is of another table; see mailcutover table show"},
	{audit.ErrUnwritten, http.StatusServiceUnavailable, "nothing was done; see to the disk of the node: without its audit log it changes nothing"},
	{table.ErrRejoining, http.StatusServiceUnavailable, "see mailcutover node list: the table waits for its nodes"},
	{table.ErrFounded, http.StatusConflict, "see mailcutover table show: nothing has to be filled"},
	{control.ErrCopy, http.StatusConflict, "ask another node: --api"},
	{table.ErrRegressed, http.StatusServiceUnavailable, "the table went back, so it isn't known what of this it still has: look again, and at mailcutover alarm list"},
	{table.ErrTerm, http.StatusServiceUnavailable, "the table has just come back; send it again"},
	{table.ErrGuard, http.StatusConflict, "see mailcutover node list"},
	{table.ErrStale, http.StatusConflict, "others change the same records; try again"},
	{errStaleEpoch, http.StatusPreconditionFailed, "look at the agency again, and say its epoch"},
	{operation.ErrRecovering, http.StatusServiceUnavailable, "the node has just started; try again in a moment, and see mailcutover alarm list if that lasts"},
	{operation.ErrJournal, http.StatusServiceUnavailable, "nothing was begun; see to the disk of the node, and mailcutover alarm list"},
	{operation.ErrInDoubt, http.StatusConflict, "nothing was begun: the platform may still store a message whose answer was lost; start again after that time"},
	{operation.ErrEpoch, http.StatusPreconditionFailed, "look at the agency again, and say its epoch"},
	{control.ErrNoAgency, http.StatusNotFound, "see mailcutover agency list"},
	{control.ErrNoNode, http.StatusNotFound, "see mailcutover node list"},
	{control.ErrEpoch, http.StatusPreconditionFailed, "look at the agency again, and say its epoch"},
	{control.ErrNoReason, http.StatusBadRequest, "say why; it is journaled"},
	{control.ErrNothing, http.StatusConflict, ""},
	{control.ErrLives, http.StatusConflict, "stop it first, or drain it: mailcutover node drain"},
	{operation.ErrFrozen, http.StatusConflict, "see mailcutover agency freezes; who has the role releaser lifts it"},
	{operation.ErrPlan, http.StatusConflict, "propose it again: mailcutover operation propose"},
	{operation.ErrPrecheck, http.StatusConflict, "see the plan: mailcutover operation plan"},
	{operation.ErrMembers, http.StatusConflict, "see mailcutover node list"},
	{operation.ErrTakenOver, http.StatusConflict, "see mailcutover operation show"},
	{operation.ErrCommitted, http.StatusConflict, "go back by an operation of its own"},
	{operation.ErrNotCommitted, http.StatusConflict, "abort it, or wait: mailcutover operation watch"},
	{operation.ErrNoOperation, http.StatusNotFound, "see mailcutover operation list"},
	{operation.ErrHook, http.StatusConflict, "see mailcutover operation show"},
	{approval.ErrOwn, http.StatusForbidden, "somebody else has to look at it"},
	{approval.ErrTwice, http.StatusConflict, "mailcutover operation show says whether another person has to look at it too"},
	{approval.ErrNotProposer, http.StatusForbidden, "ask who proposed it; nobody has to approve it"},
	{approval.ErrNotApproved, http.StatusForbidden, "another person says: mailcutover operation approve, or of a list: mailcutover list approve"},
	{approval.ErrDigest, http.StatusPreconditionFailed, "look at it again: mailcutover operation show"},
	{approval.ErrVoid, http.StatusConflict, "look at the agency, and propose it again"},
	{approval.ErrEnded, http.StatusConflict, "see mailcutover operation show; propose it again if it is still wanted"},
	{approval.ErrUnreadable, http.StatusConflict, "it was made by another version of the program: use that one, or propose it again"},
	{errReturning, http.StatusConflict, "see mailcutover recall list and mailcutover verify findings"},
	{desk.ErrNoRun, http.StatusNotFound, "see mailcutover recall list"},
	{desk.ErrNotYet, http.StatusConflict, "ask again: it follows the table"},
	{desk.ErrOpen, http.StatusConflict, "see mailcutover recall status"},
	{desk.ErrNotOpen, http.StatusConflict, "see mailcutover recall status"},
	{desk.ErrNotOver, http.StatusConflict, "see mailcutover recall status"},
	{desk.ErrNode, http.StatusConflict, "see mailcutover recall status"},
	{desk.ErrMailboxes, http.StatusConflict, "set platforms.mailboxes for both platforms: docs/operations/recall.md"},
	{routing.ErrUnconfirmed, http.StatusConflict, "a second person looks at it, and says: mailcutover emergency confirm"},
	{routing.ErrNotArmed, http.StatusConflict, "arm it first: mailcutover agency arm"},
	{routing.ErrOperationOpen, http.StatusConflict, "wait for it: mailcutover operation watch"},
	{routing.ErrTransition, http.StatusConflict, "see its phase: mailcutover agency show"},
	{routing.ErrFinalised, http.StatusConflict, "there is no way back any more"},
	{routing.ErrNotLocked, http.StatusConflict, "see mailcutover agency show"},
	{routing.ErrNotTarget, http.StatusConflict, "see its phase: mailcutover agency show"},
	{routing.ErrLocked, http.StatusConflict, "see mailcutover agency show"},
	{routing.ErrNotOwner, http.StatusConflict, "see mailcutover operation list"},
	{routing.ErrNotReleased, http.StatusConflict, "see who claims it, and what else they have: mailcutover route explain, mailcutover mailbox show"},
	{routing.ErrConflict, http.StatusConflict, "the name belongs to another; see mailcutover route explain"},
	{routing.ErrBadID, http.StatusBadRequest, ""},
	{table.ErrBadChange, http.StatusBadRequest, ""},
}

// writeProblem answers outside of huma.
func writeProblem(w http.ResponseWriter, p *Problem) {
	w.Header().Set("Content-Type", problemType)
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // the peer is gone: there is nobody to tell
}

// unify makes a Problem of huma's own errors: a call that the document doesn't allow is
// 400. The values that were wrong are left out; one of them might be a secret.
func unify(ctx huma.Context, _ string, v any) (any, error) {
	p, ok := v.(*Problem)
	if m, theirs := v.(*huma.ErrorModel); theirs {
		p, ok = problem(badRequest(m.Status), "see /openapi.yaml", "%s", m.Detail), true
		for _, e := range m.Errors {
			p.Errors = append(p.Errors, Detail{Where: e.Location, Message: e.Message})
		}
	}
	if !ok {
		return v, nil
	}
	out := *p
	out.Request = requestOf(ctx.Context()).id
	return &out, nil
}

// badRequest replaces 422, which huma answers where the request doesn't fit its schema.
func badRequest(status int) int {
	if status == http.StatusUnprocessableEntity {
		return http.StatusBadRequest
	}
	return status
}

// statusContext answers with badRequest.
type statusContext struct{ humaContext }

type humaContext = huma.Context // whose method Context would clash with an embedded field of that name

func (c statusContext) SetStatus(status int) { c.humaContext.SetStatus(badRequest(status)) }

// Unwrap lets the adapter find its own context.
func (c statusContext) Unwrap() huma.Context { return c.humaContext }
