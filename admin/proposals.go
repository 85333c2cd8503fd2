package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"mailcutover/approval"
	"mailcutover/audit"
	"mailcutover/rollback/operation"
	"mailcutover/routing"
	"mailcutover/routing/table"
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

// startedProposal is the answer to a call that uses a proposal.
type startedProposal struct {
	Location string `header:"Location" doc:"Of the operation, if there is one"`
	Body     Started
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

func voter(ctx context.Context, note string) approval.Vote {
	who := callerOf(ctx)
	return approval.Vote{Person: who.person, Token: who.token, Time: time.Now().UTC().Truncate(time.Microsecond), Note: note}
}

// mayUse refuses who may not propose a kind, or not for these agencies.
func (s *Server) mayUse(ctx context.Context, k *kind, p *approval.Proposal) error {
	return s.mayDo(ctx, k, k.right, p)
}

// mayDo refuses who lacks a right on a proposal's agencies.
func (s *Server) mayDo(ctx context.Context, k *kind, r right, p *approval.Proposal) error {
	if who := callerOf(ctx); !who.has(r) {
		return who.lacks(k.name, r)
	}
	return s.within(ctx, concerns(p))
}

func (s *Server) propose(ctx context.Context, in *NewProposal) (*reply[Proposal], error) {
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	reason, err := checkReason(in.Reason)
	if err != nil {
		return nil, err
	}
	in.Reason = reason
	k, err := kindOf(in.Kind)
	if err != nil {
		return nil, err
	}
	if err := k.check(in); err != nil {
		return nil, err
	}
	if who := callerOf(ctx); !who.has(k.right) {
		return nil, who.lacks(k.name, k.right)
	}
	if in.Agency != "" || in.Add != nil || in.Domain != "" || in.Release != nil {
		var ids []routing.AgencyID // a new agency, a domain, and a name, concern all
		if in.Agency != "" {
			ids = append(ids, routing.AgencyID(in.Agency))
		}
		if err := s.within(ctx, ids); err != nil {
			return nil, err
		}
	}
	content, text, err := k.content(s, ctx, s.Replica.State(), in)
	if err != nil {
		return nil, err
	}
	return s.proposeContent(ctx, k, content, text, reason, in.DryRun)
}

// proposeContent stores a proposal, or with dryRun only says what it would be.
func (s *Server) proposeContent(ctx context.Context, k *kind, content approval.Content, text []string, reason string, dryRun bool) (*reply[Proposal], error) {
	now := time.Now().UTC().Truncate(time.Microsecond)
	p, err := approval.New(approval.Proposal{
		ID: uuid.NewString(), Content: content, Text: text, Person: callerOf(ctx).person, Token: callerOf(ctx).token, Reason: reason,
		Created: now, Expires: now.Add(s.ApprovalLife()), Needed: s.needed(),
	})
	if err == nil {
		err = s.mayUse(ctx, k, &p)
	}
	if err != nil || dryRun {
		return &reply[Proposal]{Body: proposalView(&p, s.needed())}, err
	}
	err = s.store(ctx, "propose "+p.Kind, reason, func(state *routing.State) (approval.Proposal, []routing.Document, error) {
		return p, approval.Outdated(state, now), nil
	})
	return &reply[Proposal]{Body: proposalView(&p, s.needed())}, err
}

// store stores a proposal as next computes it, with other documents' removals.
func (s *Server) store(ctx context.Context, what, reason string, next func(*routing.State) (p approval.Proposal, gone []routing.Document, err error)) error {
	var entry audit.Entry
	_, err := s.changeAs(ctx, &entry, func(state *routing.State) (c table.Change, _ []*routing.Mapping, err error) {
		p, gone, err := next(state)
		if err != nil {
			return c, nil, err
		}
		entry = audit.Entry{
			Subject: "proposal " + p.ID, Before: string(beforeOf(state, &p, s.needed())),
			After:   fmt.Sprintf("%s: %s, %d of %d approvals", p.Kind, p.State(time.Now(), s.needed()), len(p.Approvals), p.Wants(s.needed())),
			Digests: []string{p.Digest().String()}, Proposal: p.ID, Operation: string(p.Operation),
		}
		if e, ok := p.Epochs[p.Agency]; ok {
			entry.Epoch = e.String()
		}
		d, err := p.Document()
		// Also while the table rejoins: what people decide to end that is proposed first.
		return table.Change{Documents: append([]routing.Document{d}, gone...), What: what, Reason: reason, Guard: table.Guard{Rejoining: true}}, nil, err
	})
	return err
}

func beforeOf(state *routing.State, p *approval.Proposal, needed int) approval.State {
	if was, ok, err := approval.Find(state, p.ID); ok && err == nil {
		return was.State(time.Now(), needed)
	}
	return ""
}

func (s *Server) approve(ctx context.Context, id, digest, typed, note string) (*reply[Proposal], error) {
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	seen, err := routing.ParseDigest(digest)
	if err != nil {
		return nil, err
	}
	if err := s.notAdmin(ctx); err != nil {
		return nil, err
	}
	var p approval.Proposal
	err = s.store(ctx, "approve proposal "+id, note, func(state *routing.State) (approval.Proposal, []routing.Document, error) {
		was, err := s.proposal(state, id)
		if err == nil {
			err = s.within(ctx, concerns(&was))
		}
		if err == nil {
			err = s.attentive(ctx, state, &was, typed)
		}
		if err == nil {
			p, err = was.Approve(voter(ctx, note), seen)
		}
		return p, nil, err
	})
	return &reply[Proposal]{Body: proposalView(&p, s.needed())}, err
}

// attentive refuses an approval of what has to be typed unless it was, and of what has
// changed since it was proposed.
func (s *Server) attentive(ctx context.Context, state *routing.State, p *approval.Proposal, typed string) error {
	k, err := kindOf(p.Kind)
	if err != nil {
		return err
	}
	if k.typed == nil {
		if typed != "" {
			return problem(http.StatusBadRequest, "", "a proposal of the kind %s is approved without typing anything", p.Kind)
		}
		return nil
	}
	if !slices.Contains(k.typed(p), strings.TrimSpace(typed)) || strings.TrimSpace(typed) == "" {
		return problem(http.StatusBadRequest, "read it: mailcutover operation show "+p.ID+"; then type the number of its mailboxes, or its agency: mailcutover list approve", "proposal %s: what was typed, %q, is neither the number of mailboxes nor the agency", p.ID, typed)
	}
	now, err := k.now(s, ctx, state, p)
	if err == nil && now.Digest() != p.Content.Digest() {
		err = fmt.Errorf("approve proposal %s: %w: directory, table or list are not as they were", p.ID, approval.ErrVoid)
	}
	return err
}

// notAdmin refuses an approval by a person who has the role admin, by whichever token:
// who hands out tokens could approve by anybody's.
func (s *Server) notAdmin(ctx context.Context) error {
	who := callerOf(ctx)
	if who.everything {
		return nil
	}
	for _, t := range s.Tokens() {
		if approval.Person(t.Person) == approval.Person(who.person) && slices.Contains(t.Roles, RoleAdmin) {
			return problem(http.StatusForbidden, "somebody without that role has to look at it", "%s has the role admin (token %s), and never approves", who.person, t.Name)
		}
	}
	return nil
}

func (s *Server) withdraw(ctx context.Context, id, why string) (*reply[Proposal], error) {
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	reason, err := checkReason(why)
	if err != nil {
		return nil, err
	}
	var p approval.Proposal
	err = s.store(ctx, "withdraw proposal "+id, reason, func(state *routing.State) (approval.Proposal, []routing.Document, error) {
		was, err := s.proposal(state, id)
		if err == nil {
			err = s.within(ctx, concerns(&was))
		}
		if err == nil {
			p, err = was.Withdraw(voter(ctx, reason))
		}
		return p, nil, err
	})
	return &reply[Proposal]{Body: proposalView(&p, s.needed())}, err
}

// startProposal uses a proposal. It is marked as used before anything happens, so that it
// is used once, whatever fails; what was refused before it changed anything gives it back.
// A caller who goes away changes nothing of that.
func (s *Server) startProposal(ctx context.Context, id string) (*startedProposal, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), startTimeout)
	defer cancel()
	p, err := s.proposal(s.Replica.State(), id)
	if err != nil {
		return nil, err
	}
	k, err := kindOf(p.Kind)
	if err == nil {
		err = s.mayDo(ctx, k, k.starter(), &p)
	}
	if err != nil {
		return nil, err
	}
	use := routing.OperationID("start/" + uuid.NewString())
	var void error
	err = s.store(ctx, "start proposal "+id, p.Reason, func(state *routing.State) (approval.Proposal, []routing.Document, error) {
		was, err := s.proposal(state, id)
		if err != nil {
			return was, nil, err
		}
		content := was.Content
		if now := was.State(time.Now(), s.needed()); now == approval.Open || now == approval.Approved { // else Use says what it is
			if content, err = k.now(s, ctx, state, &was); err != nil {
				return was, nil, err
			}
		}
		p, err = was.Use(voter(ctx, ""), &content, s.needed(), use)
		if void = nil; errors.Is(err, approval.ErrVoid) {
			void, err = err, nil
		}
		return p, nil, err
	})
	if err = errors.Join(err, void); err != nil {
		return nil, err
	}
	out, err := k.use(s, ctx, &p)
	switch {
	case err == nil && out.Operation != nil:
		s.amend(ctx, &p, "started", func(p approval.Proposal) (approval.Proposal, error) {
			if p.End == approval.Used { // it may have been given back already
				p.Operation = routing.OperationID(out.Operation.ID)
			}
			return p, nil
		})
	case errors.Is(err, operation.ErrPlan):
		s.amend(ctx, &p, "void", func(p approval.Proposal) (approval.Proposal, error) {
			p.End, p.Why, p.Operation = approval.Void, "the plan is another", ""
			return p, nil
		})
	case err != nil && k.refusal(err):
		s.amend(ctx, &p, "give back", func(p approval.Proposal) (approval.Proposal, error) { return p.Return(use) })
	}
	if err != nil {
		return nil, err
	}
	out.Proposal = proposalView(&p, s.needed())
	answer := &startedProposal{Body: *out}
	if out.Operation != nil {
		answer.Location = "/v1/operations/" + out.Operation.ID
	}
	return answer, nil
}

// startTimeout is for a call that starts something.
const startTimeout = 30 * time.Second

// amend notes what became of a proposal that was used. Where that fails it stays used,
// which is the safe side.
func (s *Server) amend(ctx context.Context, p *approval.Proposal, what string, next func(approval.Proposal) (approval.Proposal, error)) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), changeTimeout)
	defer cancel()
	recorded := requestOf(ctx).recorded
	err := s.store(ctx, what+" proposal "+p.ID, p.Reason, func(state *routing.State) (approval.Proposal, []routing.Document, error) {
		was, err := s.proposal(state, p.ID)
		if err == nil {
			*p, err = next(was)
		}
		return *p, nil, err
	})
	requestOf(ctx).recorded = recorded
	if err != nil {
		s.Logger.WarnContext(ctx, "what became of a proposal is not noted: it stays used", "request", requestOf(ctx).id, "proposal", p.ID, "error", err)
	}
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
