package page

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"mailcutover/admin"
	"mailcutover/rollback/operation"
)

// newKey returns a key under which a form that is sent twice acts once.
func newKey() string { return rand.Text() }

// actLink is something that can be done with an agency.
type actLink struct {
	Name, Text string
	Danger     bool
}

// act is something that somebody does with an agency: a form with a reason, the typed name of
// the agency, and one call of the API.
type act struct {
	text   string // of the button
	about  string // what it does, before somebody does it
	danger bool   // the button is red
	done   string // word of notices
	// offered reports whether it makes sense for the agency as it is, and who looks may do it.
	offered func(id *admin.Identity, a *admin.Agency, v *visit) bool
	// plan returns a plan to show before it is proposed or done; nil: there is none.
	plan func(id string) *admin.PlanRequest
	// do does it, and returns where to go on; empty: to the agency.
	do func(ctx context.Context, v *visit, a *admin.Agency, reason string) (next string, err error)
}

func has(id *admin.Identity, r admin.Role, lab bool) bool {
	return slices.Contains(id.Roles, r) || lab && len(id.Roles) == 0
}

func operator(id *admin.Identity, v *visit) bool { return has(id, admin.RoleOperator, v.page.Lab) }

// propose returns an act that others have to approve.
func propose(kind string) func(ctx context.Context, v *visit, a *admin.Agency, reason string) (string, error) {
	return func(ctx context.Context, v *visit, a *admin.Agency, reason string) (string, error) {
		p, err := v.api.Propose(ctx, admin.NewProposal{Kind: kind, Agency: a.ID, ExpectedEpoch: a.Epoch, Reason: reason})
		return "/proposals/" + p.ID, err
	}
}

// switched returns an act that proposes a switch; in a lab without approvals it begins it.
func switched(kind operation.Kind) func(ctx context.Context, v *visit, a *admin.Agency, reason string) (string, error) {
	return func(ctx context.Context, v *visit, a *admin.Agency, reason string) (string, error) {
		if approval, _ := v.api.Approval(); approval == "none" {
			op, err := v.api.Start(ctx, kind, a.ID, a.Epoch, reason)
			return "/operations/" + op.ID, err
		}
		return propose(string(kind))(ctx, v, a, reason)
	}
}

func planOf(kind operation.Kind) func(id string) *admin.PlanRequest {
	return func(id string) *admin.PlanRequest { return &admin.PlanRequest{Kind: string(kind), Agency: id} }
}

// acts are what can be done with an agency, by name, in the order in which they are offered.
var acts = []struct {
	name string
	act
}{
	{"arm", act{
		text: "Arm", about: "Arming makes the agency ready to be switched: from then on each message is checked against the table right before it goes out.", done: "armed",
		offered: func(id *admin.Identity, a *admin.Agency, v *visit) bool {
			return operator(id, v) && a.Open && (a.Tightness == "settled" || a.Tightness == "settling")
		},
		do: func(ctx context.Context, v *visit, a *admin.Agency, reason string) (string, error) {
			_, err := v.api.Arm(ctx, a.ID, a.Epoch, reason)
			return "", err
		},
	}},
	{"cutover", act{
		text: "Cut over", about: "The agency moves to its target platform. Nothing happens before somebody else has approved it.", done: "proposed",
		offered: func(id *admin.Identity, a *admin.Agency, v *visit) bool {
			return operator(id, v) && a.Phase == "source" && a.Operation == "" && a.Tightness == "armed"
		},
		plan: planOf(operation.Cutover), do: switched(operation.Cutover),
	}},
	{"rollback", act{
		text: "Roll back", about: "The agency goes back to its source platform. Nothing happens before somebody else has approved it.", done: "proposed",
		offered: func(id *admin.Identity, a *admin.Agency, v *visit) bool {
			return operator(id, v) && a.Phase == "target" && a.Operation == "" && !a.Finalised && a.Tightness == "armed"
		},
		plan: planOf(operation.Rollback), do: switched(operation.Rollback),
	}},
	{"lock", act{
		text: "Lock", about: "All mail of the agency is held and all its logins end, at once, on all nodes. One person is enough; a second one has to confirm it, and two have to unlock it.", danger: true, done: "locked",
		offered: func(id *admin.Identity, a *admin.Agency, v *visit) bool { return operator(id, v) && !a.Locked },
		do: func(ctx context.Context, v *visit, a *admin.Agency, reason string) (string, error) {
			_, err := v.api.Lock(ctx, a.ID, a.Epoch, reason)
			return "", err
		},
	}},
	{"unlock", act{
		text: "Unlock", about: "The agency is opened again where it stands. Somebody else has to approve it.", done: "proposed",
		offered: func(id *admin.Identity, a *admin.Agency, v *visit) bool { return operator(id, v) && a.Locked },
		do:      propose("unlock"),
	}},
	{"freeze", act{
		text: "Freeze", about: "No operation of the agency may begin until a releaser lifts it. Mail and logins go on.", done: "frozen",
		offered: func(id *admin.Identity, a *admin.Agency, v *visit) bool { return operator(id, v) && a.Frozen == "" },
		do: func(ctx context.Context, v *visit, a *admin.Agency, reason string) (string, error) {
			_, err := v.api.Freeze(ctx, a.ID, reason)
			return "", err
		},
	}},
	{"lift", act{
		text: "Lift the freeze", about: "Operations of the agency may begin again.", done: "lifted",
		offered: func(id *admin.Identity, a *admin.Agency, v *visit) bool {
			return has(id, admin.RoleReleaser, v.page.Lab) && a.Frozen != ""
		},
		do: func(ctx context.Context, v *visit, a *admin.Agency, reason string) (string, error) {
			_, err := v.api.Lift(ctx, a.ID, reason)
			return "", err
		},
	}},
	{"settle", act{
		text: "Settle", about: "The agency is no longer checked for each message, and lives through an outage of the table. The way back stays open.", done: "settled",
		offered: func(id *admin.Identity, a *admin.Agency, v *visit) bool {
			return operator(id, v) && a.Tightness == "armed" && a.Operation == "" && a.Open
		},
		do: func(ctx context.Context, v *visit, a *admin.Agency, reason string) (string, error) {
			_, err := v.api.Settle(ctx, a.ID, a.Epoch, reason)
			return "", err
		},
	}},
	{"finalise", act{
		text: "Finalise", about: "The way back ends: retained copies are deleted, and nothing is brought back any more. Somebody else has to approve it.", danger: true, done: "proposed",
		offered: func(id *admin.Identity, a *admin.Agency, v *visit) bool {
			return operator(id, v) && a.Phase == "target" && a.Operation == "" && !a.Finalised
		},
		do: propose("finalise"),
	}},
	{"emergency-rollback", act{
		text: "Emergency rollback", about: "The agency goes back to its source platform now, on your word alone. Approvals, freezes and checks don't keep it back. It is marked, raises an alarm, and a second person has to confirm it.", danger: true, done: "started",
		offered: func(id *admin.Identity, a *admin.Agency, v *visit) bool {
			return operator(id, v) && (a.Phase == "target" || a.Phase == "to-target") && !a.Finalised
		},
		plan: func(id string) *admin.PlanRequest {
			return &admin.PlanRequest{Kind: string(operation.Rollback), Agency: id, Emergency: true}
		},
		do: func(ctx context.Context, v *visit, a *admin.Agency, reason string) (string, error) {
			op, err := v.api.RollbackEmergency(ctx, a.ID, a.Epoch, reason, v.r.PostFormValue("target_dead") == "yes")
			return "/operations/" + op.ID, err
		},
	}},
}

// actsFor returns what who looks may do with the agency as it is.
func actsFor(v *visit, a *admin.Agency) []actLink {
	var out []actLink
	for _, one := range acts {
		if one.offered(&v.id, a, v) {
			out = append(out, actLink{Name: one.name, Text: one.text, Danger: one.danger})
		}
	}
	return out
}

func actByName(name string) (act, bool) {
	for _, one := range acts {
		if one.name == name {
			return one.act, true
		}
	}
	return act{}, false
}

type actView struct {
	admin.Agency
	Act        string
	Text       string
	About      string
	Danger     bool
	Emergency  bool
	Plan       *admin.Plan
	PlanError  string
	Key        string
	Wrong      string // what was wrong with the form
	Reason     string
	TargetDead bool
}

var (
	errNoAct = errors.New("there is no such act")
)

func (p *Page) registerActs() {
	p.mux.HandleFunc("GET /agencies/{id}/{act}", p.signedIn(func(w http.ResponseWriter, r *http.Request, v *visit) {
		p.actForm(w, r, v, http.StatusOK, "")
	}))
	p.mux.HandleFunc("POST /agencies/{id}/{act}", p.signedIn(p.act))
	p.mux.HandleFunc("POST /proposals/{id}/{act}", p.signedIn(p.actOnProposal))
	p.mux.HandleFunc("POST /operations/{id}/abort", p.signedIn(p.abort))
	p.mux.HandleFunc("POST /operations/{id}/tell", p.signedIn(p.tell))
	p.view("/alarms", alarms)
	p.mux.HandleFunc("POST /alarms/clear", p.signedIn(p.clearAlarm))
	p.view("/emergencies/{id}", emergency)
	p.mux.HandleFunc("POST /emergencies/{id}", p.signedIn(p.confirmEmergency))
}

// actForm shows what an act would do, and asks for what it needs.
func (p *Page) actForm(w http.ResponseWriter, r *http.Request, v *visit, code int, wrong string) {
	what, ok := actByName(r.PathValue("act"))
	if !ok {
		p.refuse(w, r, v, http.StatusNotFound, errNoAct)
		return
	}
	a, err := v.api.Agency(v.ctx(), r.PathValue("id"))
	if err != nil {
		p.refuse(w, r, v, 0, err)
		return
	}
	out := actView{
		Agency: a, Act: r.PathValue("act"), Text: what.text, About: what.about, Danger: what.danger, Emergency: r.PathValue("act") == "emergency-rollback",
		Key: newKey(), Wrong: wrong, Reason: r.PostFormValue("reason"), TargetDead: r.PostFormValue("target_dead") == "yes",
	}
	if what.plan != nil {
		req := what.plan(a.ID)
		req.TargetDead = out.TargetDead
		if plan, err := v.api.Plan(v.ctx(), *req); err != nil {
			out.PlanError = err.Error()
		} else {
			out.Plan = &plan
		}
	}
	p.render(w, code, &shown{
		Page: p, Language: v.lang, Title: v.lang.T(what.text) + " " + a.ID, Template: "act", Path: "/agencies/" + url.PathEscape(a.ID) + "/" + out.Act, Me: &v.id, Data: &out,
	})
}

// act does it, if the agency is as it was when the form was shown: the form has its epoch.
func (p *Page) act(w http.ResponseWriter, r *http.Request, v *visit) {
	id, name := r.PathValue("id"), r.PathValue("act")
	what, ok := actByName(name)
	if !ok {
		p.refuse(w, r, v, http.StatusNotFound, errNoAct)
		return
	}
	reason := strings.TrimSpace(r.PostFormValue("reason"))
	switch {
	case r.PostFormValue("typed") != id:
		p.actForm(w, r, v, http.StatusUnprocessableEntity, v.lang.T("Nothing was done: type the agency's name exactly as it stands there."))
		return
	case reason == "":
		p.actForm(w, r, v, http.StatusUnprocessableEntity, v.lang.T("Nothing was done: say why."))
		return
	}
	ctx, ok := once(v)
	if !ok {
		p.actForm(w, r, v, http.StatusUnprocessableEntity, v.lang.T("Nothing was done: the form was not whole."))
		return
	}
	next, err := what.do(ctx, v, &admin.Agency{ID: id, Epoch: r.PostFormValue("epoch")}, reason)
	if err != nil {
		p.refuse(w, r, v, 0, err)
		return
	}
	if next == "" {
		next = "/agencies/" + url.PathEscape(id)
	}
	http.Redirect(w, r, next+"?done="+what.done, http.StatusSeeOther)
}

// once returns the context under which the form acts once.
func once(v *visit) (context.Context, bool) {
	key := v.r.PostFormValue("key")
	if len(key) < 20 || len(key) > 100 {
		return nil, false
	}
	return admin.Once(v.ctx(), key), true
}

var errForm = errors.New("the form was not whole: nothing was done")

// actOnProposal approves, withdraws or starts one.
func (p *Page) actOnProposal(w http.ResponseWriter, r *http.Request, v *visit) {
	id, next, done := r.PathValue("id"), "", ""
	ctx, ok := once(v)
	if !ok {
		p.refuse(w, r, v, http.StatusUnprocessableEntity, errForm)
		return
	}
	var err error
	switch r.PathValue("act") {
	case "approve":
		done = "approved"
		_, err = v.api.ApproveTyped(ctx, id, r.PostFormValue("digest"), strings.TrimSpace(r.PostFormValue("typed")), strings.TrimSpace(r.PostFormValue("note")))
	case "withdraw":
		done = "withdrawn"
		_, err = v.api.Withdraw(ctx, id, strings.TrimSpace(r.PostFormValue("reason")))
	case "start":
		var s admin.Started
		done = "started"
		if s, err = v.api.StartProposal(ctx, id); err == nil && s.Operation != nil {
			next = "/operations/" + s.Operation.ID
		}
	default:
		p.refuse(w, r, v, http.StatusNotFound, errNoAct)
		return
	}
	if err != nil {
		p.refuse(w, r, v, 0, err)
		return
	}
	if next == "" {
		next = "/proposals/" + url.PathEscape(id)
	}
	http.Redirect(w, r, next+"?done="+done, http.StatusSeeOther)
}

func (p *Page) abort(w http.ResponseWriter, r *http.Request, v *visit) {
	p.onOperation(w, r, v, "aborting", func(ctx context.Context, id, reason string) error {
		_, err := v.api.Abort(ctx, id, reason)
		return err
	})
}

func (p *Page) tell(w http.ResponseWriter, r *http.Request, v *visit) {
	p.onOperation(w, r, v, "told", func(ctx context.Context, id, reason string) error {
		_, err := v.api.Tell(ctx, id, r.PostFormValue("hook"), reason)
		return err
	})
}

func (p *Page) onOperation(w http.ResponseWriter, r *http.Request, v *visit, done string, do func(ctx context.Context, id, reason string) error) {
	id, reason := r.PathValue("id"), strings.TrimSpace(r.PostFormValue("reason"))
	ctx, ok := once(v)
	if !ok || reason == "" {
		p.refuse(w, r, v, http.StatusUnprocessableEntity, fmt.Errorf("%w; it needs a reason", errForm))
		return
	}
	if err := do(ctx, id, reason); err != nil {
		p.refuse(w, r, v, 0, err)
		return
	}
	http.Redirect(w, r, "/operations/"+url.PathEscape(id)+"?done="+done, http.StatusSeeOther)
}
