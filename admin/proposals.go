package admin

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"mailcutover/approval"
	"mailcutover/routing"
)

// NewProposal says what is to be done. Which fields a kind needs, its description says;
// others are refused.
type NewProposal struct {
	Kind          string   `json:"kind" doc:"What is to be done: one of those that GET /v1/proposals names" maxLength:"63"`
	Agency        string   `json:"agency,omitempty" maxLength:"63"`
	ExpectedEpoch string   `json:"expected_epoch,omitempty" doc:"Of the agency's record that you have seen; without it 428, if it is another 412"`
	Node          string   `json:"node,omitempty" maxLength:"63"`
	Operation     string   `json:"operation,omitempty" maxLength:"64"`
	Replica       string   `json:"replica,omitempty" maxLength:"200" doc:"Server that is known to be dead"`
	Hook          string   `json:"hook,omitempty" maxLength:"63"`
	Without       []string `json:"without,omitempty" maxItems:"50" doc:"Hooks that are left out"`

	Spool *SpoolAct `json:"spool,omitempty" doc:"Which mail is dropped"`

	Add    *AddedAgency `json:"add,omitempty" doc:"Agency that is added"`
	Domain string       `json:"domain,omitempty" maxLength:"255" doc:"That is called complete"`

	Release *ReleasedName `json:"release,omitempty" doc:"Name that is taken from one of two"`

	Reason string `json:"reason" minLength:"1" maxLength:"1000"`
	DryRun bool   `json:"dry_run,omitempty" doc:"Only say what it would be"`
}

// Proposal is something that others have to approve before it is done.
type Proposal struct {
	ID        string     `json:"id"`
	Kind      string     `json:"kind"`
	Agency    string     `json:"agency,omitempty"`
	Node      string     `json:"node,omitempty"`
	Epochs    []string   `json:"epochs,omitempty" doc:"AGENCY EPOCH of the records that it is for"`
	Digest    string     `json:"digest" doc:"Of all that is approved: say it to approve"`
	About     string     `json:"about,omitempty" doc:"Operation that it is for, if it is for one that is under way"`
	Replica   string     `json:"replica,omitempty" doc:"Without which it is opened"`
	Hook      string     `json:"hook,omitempty" doc:"Without which the operation goes on"`
	Without   []string   `json:"without,omitempty" doc:"Hooks that are left out from the beginning"`
	Plan      string     `json:"plan,omitempty" doc:"Digest of the plan"`
	List      string     `json:"list,omitempty" doc:"Digest of the mapping"`
	Text      string     `json:"text" doc:"What is to be done, for people"`
	Person    string     `json:"person" doc:"Who proposed it"`
	Reason    string     `json:"reason"`
	Created   time.Time  `json:"created"`
	Expires   time.Time  `json:"expires"`
	Needed    int        `json:"needed" doc:"Approvals by others"`
	Missing   int        `json:"missing" doc:"Approvals that it lacks"`
	Approvals []Approval `json:"approvals"`
	State     string     `json:"state" enum:"open,approved,used,withdrawn,expired,void"`
	Why       string     `json:"why,omitempty" doc:"It is void"`
	Ended     *Approval  `json:"ended,omitempty" doc:"By whom it was used, withdrawn or found void"`
	Operation string     `json:"operation,omitempty" doc:"That it was used for"`

	Add    *AddedAgency `json:"add,omitempty" doc:"Agency that it adds"`
	Domain string       `json:"domain,omitempty" doc:"That it calls complete"`
	Wave   string       `json:"wave,omitempty" doc:"That it lets run"`

	Release *ReleasedName `json:"release,omitempty" doc:"Name that it takes from one of two"`
}

// Approval is what one person said, and when.
type Approval struct {
	Person string    `json:"person"`
	Time   time.Time `json:"time"`
	Note   string    `json:"note,omitempty"`
}

// Proposals is a list of them.
type Proposals struct {
	Proposals  []Proposal `json:"proposals"`
	Unreadable []string   `json:"unreadable,omitempty" doc:"Made by another version of the program"`
	Kinds      []Kind     `json:"kinds" doc:"What can be proposed"`
}

// Kind is something that can be proposed.
type Kind struct {
	Kind   string   `json:"kind"`
	About  string   `json:"about"`
	Roles  []string `json:"roles" doc:"That propose it"`
	Starts []string `json:"starts" doc:"Roles that start it"`
	Needs  []string `json:"needs" doc:"Fields besides kind and reason"`
}

// Started is what was done by using a proposal.
type Started struct {
	Proposal  Proposal   `json:"proposal"`
	Operation *Operation `json:"operation,omitempty" doc:"That it began; it goes on"`
	Done      string     `json:"done,omitempty" doc:"What was done, in words"`
	Undo      string     `json:"undo,omitempty" doc:"Command that takes it back; absent if there is none"`
	Nodes     []Receipt  `json:"nodes,omitempty" doc:"What each node has made of it"`
}

const proposalsPath = "/v1/proposals"

// ProposalID names a proposal.
type ProposalID struct {
	ID string `path:"id" maxLength:"64"`
}

// looked marks an input whose agencies the call's own code looks at.
type looked interface{ looksItself() }

func (ProposalID) looksItself()   {}
func (*proposeCall) looksItself() {}

func (s *Server) registerProposals(api huma.API) {
	tags := []string{"proposals"}
	handle(s, api, huma.Operation{
		OperationID: "list-proposals", Method: http.MethodGet, Path: proposalsPath, Tags: tags,
		Summary: "What was proposed, the newest last, and what can be",
	}, func(_ context.Context, in *struct {
		Open bool `query:"open" doc:"Only those that can still be approved or used"`
	}) (*reply[Proposals], error) {
		return &reply[Proposals]{Body: s.proposals(in.Open)}, nil
	})
	handle(s, api, huma.Operation{
		OperationID: "propose", Method: http.MethodPost, Path: proposalsPath, Tags: tags, DefaultStatus: http.StatusCreated,
		Summary:     "Propose something that others have to approve",
		Description: "The proposal is bound to what it would do: to the epochs, the plan and the list that its text names. It becomes void when one of them changes, and after its time.",
	}, func(ctx context.Context, in *proposeCall) (*reply[Proposal], error) {
		return s.propose(ctx, &in.Body)
	})
	handle(s, api, huma.Operation{
		OperationID: "show-proposal", Method: http.MethodGet, Path: proposalsPath + "/{id}", Summary: "One proposal, with what is to be done", Tags: tags,
	}, func(_ context.Context, in *ProposalID) (*reply[Proposal], error) {
		state := s.Replica.State()
		p, err := s.proposal(state, in.ID)
		return &reply[Proposal]{Body: standing(state, &p, s.needed())}, err
	})
	handle(s, api, huma.Operation{
		OperationID: "approve-proposal", Method: http.MethodPost, Path: proposalsPath + "/{id}/approve", Tags: tags,
		Summary: "Approve what somebody else has proposed", Description: "Say the digest that you have read. Nobody approves his own, nor with the role admin.",
	}, func(ctx context.Context, in *struct {
		Mutation
		ProposalID
		Body struct {
			Digest string `json:"digest" minLength:"64" maxLength:"64"`
			Typed  string `json:"typed,omitempty" maxLength:"100" doc:"Of a list: the number of mailboxes, or the agency, as a person has typed it"`
			Note   string `json:"note,omitempty" maxLength:"1000"`
		}
	}) (*reply[Proposal], error) {
		return s.approve(ctx, in.ID, in.Body.Digest, in.Body.Typed, in.Body.Note)
	})
	handle(s, api, huma.Operation{
		OperationID: "withdraw-proposal", Method: http.MethodPost, Path: proposalsPath + "/{id}/withdraw", Summary: "Take one's own proposal back", Tags: tags,
	}, func(ctx context.Context, in *struct {
		Mutation
		ProposalID
		Body struct {
			Reason string `json:"reason" minLength:"1" maxLength:"1000"`
		}
	}) (*reply[Proposal], error) {
		return s.withdraw(ctx, in.ID, in.Body.Reason)
	})
	handle(s, api, huma.Operation{
		OperationID: "start-proposal", Method: http.MethodPost, Path: proposalsPath + "/{id}/start", Tags: tags, DefaultStatus: http.StatusAccepted,
		Summary:     "Do what was proposed and approved",
		Description: "Once. A cutover or a rollback goes on after the answer: watch its operation. If what it was for has changed, the proposal is void (409).",
	}, func(ctx context.Context, in *struct {
		Mutation
		ProposalID
	}) (*startedProposal, error) {
		return s.startProposal(ctx, in.ID)
	})
}

// proposeCall, and the other calls about proposals, concern whatever the proposal is for:
// mayUse and within look at that.
type proposeCall struct {
	Mutation
	Body NewProposal
}

// concerns returns the agencies of a proposal; none: it concerns all.
func concerns(p *approval.Proposal) []routing.AgencyID {
	var ids []routing.AgencyID
	for id := range p.Epochs {
		ids = append(ids, id)
	}
	if p.Agency != "" && !slices.Contains(ids, p.Agency) {
		ids = append(ids, p.Agency)
	}
	slices.Sort(ids)
	return ids
}

// proposalView shows a proposal where today so many approvals are needed.
func proposalView(p *approval.Proposal, needed int) Proposal {
	v := Proposal{
		ID: p.ID, Kind: p.Kind, Agency: string(p.Agency), Node: string(p.Node), Digest: p.Digest().String(), Text: strings.Join(p.Text, "\n"),
		Person: p.Person, Reason: p.Reason, Created: p.Created, Expires: p.Expires, Needed: p.Wants(needed), Missing: p.Missing(needed),
		Approvals: []Approval{}, State: string(p.State(time.Now(), needed)), Why: p.Why, Operation: string(p.Operation),
	}
	for _, id := range concerns(p) {
		if e, ok := p.Epochs[id]; ok {
			v.Epochs = append(v.Epochs, string(id)+" "+e.String())
		}
	}
	if !p.Plan.IsZero() {
		v.Plan = p.Plan.String()
	}
	if !p.List.IsZero() {
		v.List = p.List.String()
	}
	v.About, v.Replica, v.Hook, v.Without = with(p)
	v.Add, v.Domain = added(p)
	v.Release, v.Wave = released(p), waveOf(p)
	for _, a := range p.Approvals {
		v.Approvals = append(v.Approvals, Approval{a.Person, a.Time, a.Note})
	}
	if p.End != "" {
		v.Ended = &Approval{p.Ended.Person, p.Ended.Time, p.Ended.Note}
	}
	return v
}

// standing is proposalView as things are now: a proposal for other epochs than the agencies
// have can't be used any more, though nobody has tried.
func standing(state *routing.State, p *approval.Proposal, needed int) Proposal {
	v := proposalView(p, needed)
	if v.State != string(approval.Open) && v.State != string(approval.Approved) {
		return v
	}
	now := epochsNow(state, p.Epochs)
	for _, id := range concerns(p) {
		if seen, ok := p.Epochs[id]; ok && now[id] != seen {
			v.State, v.Why = string(approval.Void), fmt.Sprintf("agency %s is in epoch %s", id, now[id])
		}
	}
	return v
}

func (s *Server) proposals(open bool) Proposals {
	state := s.Replica.State()
	all, unreadable := approval.List(state)
	out := Proposals{Proposals: []Proposal{}}
	for i := range all {
		v := standing(state, &all[i], s.needed())
		if !open || v.State == string(approval.Open) || v.State == string(approval.Approved) {
			out.Proposals = append(out.Proposals, v)
		}
	}
	for _, err := range unreadable {
		out.Unreadable = append(out.Unreadable, err.Error())
	}
	for _, k := range kinds() {
		out.Kinds = append(out.Kinds, Kind{Kind: k.name, About: k.about, Roles: texts(rolesOf[k.right]), Starts: texts(rolesOf[k.starter()]), Needs: k.needs})
	}
	return out
}

func (s *Server) proposal(state *routing.State, id string) (approval.Proposal, error) {
	p, ok, err := approval.Find(state, id)
	if err == nil && !ok {
		err = notFound("see mailcutover operation list", "no proposal %q in the table", id)
	}
	return p, err
}

// needed returns how many others have to approve.
func (s *Server) needed() int {
	if s.Approval == "none" {
		return 0
	}
	return s.Approvals()
}

// Proposals returns what was proposed, and what can be; open: only what can still be
// approved or used.
func (c *Client) Proposals(ctx context.Context, open bool) (Proposals, error) {
	return get[Proposals](ctx, c, proposalsPath, map[string][]string{"open": {fmt.Sprint(open)}})
}

// Proposal returns one.
func (c *Client) Proposal(ctx context.Context, id string) (Proposal, error) {
	return get[Proposal](ctx, c, proposalPath(id, ""), nil)
}

// Propose proposes something.
func (c *Client) Propose(ctx context.Context, p NewProposal) (Proposal, error) {
	return post[Proposal](ctx, c, proposalsPath, p)
}

// Approve approves a proposal of somebody else, of which the caller has read the digest.
func (c *Client) Approve(ctx context.Context, id, digest, note string) (Proposal, error) {
	return c.ApproveTyped(ctx, id, digest, "", note)
}

// ApproveTyped is Approve for what has to be typed besides: of a list, the number of its
// mailboxes or its agency.
func (c *Client) ApproveTyped(ctx context.Context, id, digest, typed, note string) (Proposal, error) {
	body := map[string]string{"digest": digest}
	if typed != "" {
		body["typed"] = typed
	}
	if note != "" {
		body["note"] = note
	}
	return post[Proposal](ctx, c, proposalPath(id, "/approve"), body)
}

// Withdraw takes one's own proposal back.
func (c *Client) Withdraw(ctx context.Context, id, reason string) (Proposal, error) {
	return post[Proposal](ctx, c, proposalPath(id, "/withdraw"), map[string]string{"reason": reason})
}

// StartProposal does what was proposed and approved.
func (c *Client) StartProposal(ctx context.Context, id string) (Started, error) {
	return post[Started](ctx, c, proposalPath(id, "/start"), struct{}{})
}

func proposalPath(id, act string) string { return proposalsPath + "/" + url.PathEscape(id) + act }
