package admin

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"mailcutover/routing"
)

// Role is what a token is handed out for.
type Role string

// The roles. Nobody gets one by another: an operator's token doesn't approve.
const (
	RoleViewer   Role = "viewer"   // reads
	RolePlanner  Role = "planner"  // adds agencies, makes and proposes lists
	RoleOperator Role = "operator" // proposes and starts operations, locks, freezes, arms, settles, moves spooled mail
	RoleApprover Role = "approver" // approves what others have proposed, and confirms their emergencies
	RoleReleaser Role = "releaser" // lifts freezes
	RoleAdmin    Role = "admin"    // sees to nodes, tokens, settings and the table; never approves
)

// Roles lists them all.
func Roles() []Role {
	return []Role{RoleViewer, RolePlanner, RoleOperator, RoleApprover, RoleReleaser, RoleAdmin}
}

// right is what a call needs.
type right string

const (
	mayRead       right = "read"
	mayList       right = "list"       // add agencies and mailboxes
	mayCheck      right = "check"      // lists, and let the directories be read
	mayOperate    right = "operate"    // on agencies and on spooled mail
	mayPropose    right = "propose"    // something; its kind says what right it needs besides
	mayApprove    right = "approve"    // what others have done or want to do
	mayLift       right = "lift"       // freezes
	mayAdminister right = "administer" // nodes, settings, the table
	mayLocate     right = "locate"     // look where in a mailbox a message lies
	mayDisclose   right = "disclose"   // hand out what mail was about: an export of the ledgers, a retained message
)

// rolesOf says which roles have a right.
var rolesOf = map[right][]Role{
	mayRead:       Roles(),
	mayList:       {RolePlanner},
	mayCheck:      {RolePlanner, RoleOperator, RoleApprover, RoleAdmin},
	mayOperate:    {RoleOperator},
	mayPropose:    {RolePlanner, RoleOperator, RoleAdmin},
	mayApprove:    {RoleApprover},
	mayLift:       {RoleReleaser},
	mayAdminister: {RoleAdmin},
	mayLocate:     {RoleViewer, RoleOperator}, // the help desk reads, and nothing else
	// Not the operator: who moves mail has no part in reading it.
	mayDisclose: {RoleAdmin},
}

// rights says which right each call needs, by its operation id in the document. A call
// that isn't here can't be registered.
var rights = map[string]right{
	"list-agencies": mayRead, "show-agency": mayRead, "list-mailboxes": mayRead, "show-mailbox": mayRead,
	"list-operations": mayRead, "show-operation": mayRead, "watch-operation": mayRead, "plan-operation": mayPropose,
	"list-proposals": mayRead, "show-proposal": mayRead, "list-nodes": mayRead, "list-freezes": mayRead, "list-local-locks": mayRead, "show-foundation": mayRead, "list-emergencies": mayRead,
	"explain-route": mayRead, "list-domains": mayRead, "show-table": mayRead, "list-platforms": mayRead,
	"list-alarms": mayRead, "show-version": mayRead, "show-config": mayRead,
	"spool-status": mayRead, "list-spool": mayRead, "show-spooled": mayRead, "list-ledger": mayRead, "trace": mayRead, "locate-message": mayLocate,
	"list-sessions": mayRead, "show-session": mayRead, "route-login": mayRead,
	"retained-status": mayRead, "list-retained": mayRead, "export-ledger": mayDisclose, "fetch-retained": mayDisclose,
	"audit-head": mayRead, "audit-heads": mayRead, "list-checkpoints": mayRead, "sign-audit": mayCheck,
	"list-rehearsals": mayRead, "list-canaries": mayRead, "store-rehearsal": mayOperate, "export-audit": mayRead, "who-am-i": mayRead,

	"list-lists": mayRead, "show-list": mayRead, "show-directory": mayRead, "find-in-directory": mayRead, "list-crossings": mayRead, "list-drift": mayRead, "list-members": mayRead, "list-forwards": mayRead,
	"check-list": mayCheck, "check-directory": mayCheck,

	"generate-lists": mayList, "import-list": mayList, "withdraw-list": mayList, "complete-domain": mayList,
	"add-agency": mayList, "import-mailboxes": mayList, "release-name": mayList,

	"arm-agency": mayOperate, "settle-agency": mayOperate, "lock-agency": mayOperate, "lock-agency-locally": mayOperate, "freeze": mayOperate,
	"cutover": mayOperate, "rollback": mayOperate, "remap-mailboxes": mayOperate, "abort-operation": mayOperate, "tell-operation": mayOperate, "undo-hook": mayOperate,
	"hold-spooled": mayOperate, "release-spooled": mayOperate, "retry-spooled": mayOperate, "drop-spooled": mayOperate,
	"attest-node": mayOperate, "close-sessions": mayOperate, "set-spool-rate": mayOperate, "resume-spool": mayOperate, "clear-alarm": mayOperate,

	"propose": mayPropose, "withdraw-proposal": mayPropose, "start-proposal": mayPropose,
	"approve-proposal": mayApprove, "confirm-emergency": mayApprove,

	"list-recalls": mayRead, "show-recall": mayRead, "show-share": mayRead, "list-deliveries": mayRead, "list-back": mayRead, "list-known": mayRead, "fetch-watermarks": mayRead,
	"plan-recall": mayCheck, "begin-recall": mayOperate, "end-recall": mayOperate, "accept-recall": mayOperate, "copy-recall": mayOperate, "take-over-recall": mayOperate,

	"list-verifications": mayRead, "list-findings": mayRead, "list-comparisons": mayRead,
	"begin-verify": mayOperate, "stop-verify": mayOperate, "mark-findings": mayOperate, "list-finding-messages": mayOperate,

	"lift-freeze": mayLift,

	"list-notices": mayRead, "test-notice": mayAdminister, "incident-records": mayDisclose,

	"list-waves": mayRead, "show-wave": mayRead, "show-timetable": mayRead, "propose-wave": mayList, "answer-wave": mayCheck,
	"start-wave": mayOperate, "pause-wave": mayOperate, "resume-wave": mayOperate, "skip-wave": mayOperate, "end-wave": mayOperate,
	"stop-plan": mayOperate, "lift-plan": mayLift,

	"reload-config": mayAdminister, "adopt-spool": mayAdminister, "drain-node": mayAdminister,
	"propose-bootstrap": mayAdminister, "approve-bootstrap": mayApprove,
	"backup-table": mayRead, "show-restore": mayRead, "propose-restore": mayAdminister, "show-goroutines": mayAdminister, "approve-restore": mayApprove,
}

// has reports whether a caller has a right, on whatever agency.
func (c *caller) has(r right) bool {
	return c.everything || slices.ContainsFunc(c.roles, func(role Role) bool { return slices.Contains(rolesOf[r], role) })
}

// lacks is the answer to a call that the caller may not make.
func (c *caller) lacks(what string, r right) *Problem {
	have := "no role"
	if len(c.roles) > 0 {
		have = "the roles " + strings.Join(texts(c.roles), ", ")
	}
	return problem(http.StatusForbidden, "see who may: docs/operations/api.md, or mailcutover token show",
		"%s is for the role %s; the token %s has %s", what, strings.Join(texts(rolesOf[r]), " or "), c.token, have)
}

// scoped is an input that says which agencies it concerns. Calls whose input doesn't say
// so concern all.
type scoped interface{ scope() []routing.AgencyID }

// authorize refuses a call that the token isn't for. Reading is for all agencies: what
// one of them does shows in mail, routes and nodes of the others.
func (s *Server) authorize(ctx context.Context, operation string, in any) error {
	if err := refusePeer(ctx, operation); err != nil {
		return err
	}
	who, r := callerOf(ctx), rights[operation]
	if !who.has(r) {
		return who.lacks(operation, r)
	}
	if r == mayRead || len(who.agencies) == 0 {
		return nil
	}
	if _, ok := in.(looked); ok {
		return nil
	}
	one, ok := in.(scoped)
	if !ok {
		return problem(http.StatusForbidden, "take a token for all agencies", "%s concerns more than the agencies that the token %s is for: %s", operation, who.token, strings.Join(texts(who.agencies), ", "))
	}
	return s.within(ctx, one.scope())
}

// within refuses what concerns agencies that the token isn't for; none stands for all. A
// pilot group belongs to its parent.
func (s *Server) within(ctx context.Context, ids []routing.AgencyID) error {
	who := callerOf(ctx)
	if len(who.agencies) == 0 {
		return nil
	}
	state := s.Replica.State()
	for _, id := range ids {
		a, _ := state.Agency(id)
		if !slices.Contains(who.agencies, id) && (a.Parent == "" || !slices.Contains(who.agencies, a.Parent)) {
			return problem(http.StatusForbidden, "take a token for this agency", "the token %s is not for agency %q, only for %s", who.token, id, strings.Join(texts(who.agencies), ", "))
		}
	}
	if len(ids) == 0 {
		return problem(http.StatusForbidden, "take a token for all agencies", "this concerns all agencies, and the token %s is only for %s", who.token, strings.Join(texts(who.agencies), ", "))
	}
	return nil
}

// mustHaveRight is for register: a call without a right would be everybody's.
func mustHaveRight(operation string) {
	if rights[operation] == "" {
		panic(fmt.Sprintf("admin: the call %s has no right", operation))
	}
}
