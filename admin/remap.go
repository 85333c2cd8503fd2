package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"mailcutover/approval"
	"mailcutover/mailboxlist"
	"mailcutover/rollback/operation"
	"mailcutover/routing"
	"mailcutover/routing/table"
)

// Remapping says what bringing a list into force would change.
type Remapping struct {
	DryRun   bool             `json:"dry_run" doc:"Nothing was proposed"`
	Agencies []RemappedAgency `json:"agencies" doc:"That are closed together"`
	Changes  []NameChange     `json:"changes" doc:"All that is answered otherwise, by agency"`
	Proposal *Proposal        `json:"proposal,omitempty" doc:"Absent with dry_run"`
}

// RemappedAgency says what a list would change for one agency.
type RemappedAgency struct {
	Agency  string `json:"agency"`
	Epoch   string `json:"epoch"`
	Armed   bool   `json:"armed" doc:"Only then it can be switched"`
	Before  int    `json:"before" doc:"Mailboxes that it has"`
	After   int    `json:"after" doc:"Mailboxes that it would have"`
	Added   int    `json:"added" doc:"Mailboxes that are new to it"`
	Gone    int    `json:"gone" doc:"Mailboxes that go to other agencies"`
	Changed int    `json:"changed" doc:"Known mailboxes of which the list says something else"`
	Names   int    `json:"names" doc:"Changes of this agency, and names that it gets from nobody"`
	Taken   int    `json:"taken" doc:"Names that nobody would have any more"`
	Mapping string `json:"mapping" doc:"Digest of the mapping in force"`
	Next    string `json:"next" doc:"Digest of the mapping that would be"`
}

// NameChange is one answer that would be another one.
type NameChange struct {
	Agency string `json:"agency" doc:"That has the name now, or gets it from nobody"`
	What   string `json:"what" doc:"address or login; or, of a mailbox, its kind, its platform or a place"`
	Name   string `json:"name" doc:"Address or login; else the mailbox's directory id"`
	From   string `json:"from" doc:"Who has it, or what it is; nobody: no one has it"`
	To     string `json:"to"`
}

const remapPath = "/v1/mailboxes/remap"

const (
	shownChanges    = 20  // of an agency, in the text of a proposal
	mostShown       = 200 // of all agencies
	mostRemapped    = 50  // agencies in one proposal, whose text has to fit a document
	longestInChange = 300 // bytes of one change in the text
)

// remapCall concerns the agencies of its list, and those that have its mailboxes.
type remapCall struct {
	Mutation
	Reason  string `query:"reason" required:"true" maxLength:"1000"`
	DryRun  bool   `query:"dry_run" doc:"Only say what would change"`
	RawBody []byte `contentType:"text/csv"`
}

func (*remapCall) looksItself() {}

func (s *Server) registerRemap(api huma.API) {
	handle(s, api, huma.Operation{
		OperationID: "remap-mailboxes", Method: http.MethodPost, Path: remapPath, Tags: []string{"mailboxes"}, DefaultStatus: http.StatusCreated,
		Summary: "Propose to bring a list into force that is no pure addition",
		Description: "The list is that of import-mailboxes. A row says all that its mailbox has: a name that it doesn't say, the mailbox loses; a mailbox of another agency goes to the row's. " +
			"Mailboxes without a row stay as they are. The agencies concerned must be armed; they are closed together while the mappings change, which is an operation of the kind remap. " +
			"If the same is proposed already, that proposal is returned. It is void as soon as one of the agencies has another epoch or another mapping.",
	}, func(ctx context.Context, in *remapCall) (*reply[Remapping], error) {
		reason, err := checkReason(in.Reason)
		if err != nil {
			return nil, err
		}
		return s.remap(ctx, in.RawBody, reason, in.DryRun)
	})
}

func (s *Server) remap(ctx context.Context, text []byte, reason string, dryRun bool) (*reply[Remapping], error) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	if err := s.mayImport(); err != nil {
		return nil, err
	}
	list, err := mailboxlist.Read(text)
	if err != nil {
		return nil, refused(err, false)
	}
	plan, err := list.Remap(s.Replica.State(), s.platformIDs(), s.Separator)
	if err != nil {
		return nil, refused(err, false)
	}
	out := &reply[Remapping]{Body: remappingView(plan)}
	out.Body.DryRun = dryRun
	var ids []routing.AgencyID
	for _, a := range plan.Agencies {
		ids = append(ids, a.Record.ID)
	}
	switch {
	case len(ids) == 0:
		return nil, problem(http.StatusBadRequest, "", "remap: the table has all of the list already")
	case plan.OnlyAdds():
		return nil, problem(http.StatusBadRequest, "import it without --remap", "remap: the list only adds: no agency has to be closed for it")
	case len(ids) > mostRemapped:
		return nil, problem(http.StatusBadRequest, "split the list", "remap: it concerns %d agencies, want at most %d", len(ids), mostRemapped)
	}
	if err := s.within(ctx, ids); err != nil || dryRun {
		return out, err
	}
	if err := unarmed(plan); err != nil {
		return nil, err
	}
	for _, a := range plan.Agencies {
		// Content-addressed, and nobody's until the commit names it.
		if err := table.Persist(ctx, func() error { return s.Table.PutMapping(ctx, a.Mapping) }); err != nil {
			return nil, err
		}
	}
	content, lines, err := s.remapContent(ctx, plan, reason)
	if err != nil {
		return nil, err
	}
	if p, ok := s.proposedAlready(&content); ok {
		out.Body.Proposal = &p
		return out, nil
	}
	p, err := s.proposeContent(ctx, remapKind(), content, lines, reason, false)
	if err == nil {
		out.Body.Proposal = &p.Body
	}
	return out, err
}

// unarmed refuses a remap of agencies that aren't armed.
func unarmed(plan *mailboxlist.Remap) error {
	var ids []routing.AgencyID
	for _, a := range plan.Agencies {
		if a.Record.Tightness != routing.Armed {
			ids = append(ids, a.Record.ID)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	p := problem(http.StatusConflict, "arm each of them first: mailcutover agency arm AGENCY --reason ...", "remap: %s: not armed", strings.Join(texts(ids), ", "))
	for _, id := range ids {
		p.Errors = append(p.Errors, Detail{Where: "agency " + string(id), Message: "mailcutover agency arm " + string(id)})
	}
	return p
}

// remapParameters are what a remap is proposed with. Mappings that others import meanwhile
// make it void: they would be lost.
type remapParameters struct {
	Was  map[routing.AgencyID]routing.Digest `json:"was"`
	Next map[routing.AgencyID]routing.Digest `json:"next"`
}

// remapContent makes what an approval of a remap is bound to. Its mappings are stored.
func (s *Server) remapContent(ctx context.Context, plan *mailboxlist.Remap, reason string) (c approval.Content, text []string, err error) {
	with := remapParameters{make(map[routing.AgencyID]routing.Digest), make(map[routing.AgencyID]routing.Digest)}
	epochs := make(map[routing.AgencyID]routing.Epoch)
	for _, a := range plan.Agencies {
		id := a.Record.ID
		with.Was[id], with.Next[id], epochs[id] = a.Record.Mapping, a.Mapping.Digest(), a.Record.Epoch
	}
	first := plan.Agencies[0].Record
	run, err := s.Runner.Plan(ctx, operation.Request{Kind: operation.Remap, Agency: first.ID, Who: callerOf(ctx).person, Reason: reason, Expected: first.Epoch, Mappings: with.Next})
	if err != nil {
		return c, nil, err
	}
	if run.Refused() {
		return c, nil, refusedPlan(&run)
	}
	c = approval.Content{Kind: string(operation.Remap), Agency: first.ID, Epochs: epochs, Plan: run.Digest(), List: first.Mapping}
	if c.Parameters, err = parameters(c.Kind, with); err != nil {
		return c, nil, err
	}
	text = append(remapText(plan), "")
	return c, append(text, strings.Split(strings.TrimSuffix(run.Text(), "\n"), "\n")...), nil
}

// remapText says which names go from whom to whom.
func remapText(plan *mailboxlist.Remap) (text []string) {
	left := mostShown
	for _, a := range remappingView(plan).Agencies {
		text = append(text, fmt.Sprintf("agency %s: %d mailboxes -> %d: %d new to it, %d to others, %d changed; %d names or places change, of which %d go to nobody",
			a.Agency, a.Before, a.After, a.Added, a.Gone, a.Changed, a.Names, a.Taken))
		if n := toOtherPlatforms(plan, routing.AgencyID(a.Agency)); n > 0 {
			text = append(text, fmt.Sprintf("  %d of its mailboxes go to another platform: the mover has to have moved what they have; what came meanwhile is brought by mailcutover recall run, for the agency that gets them", n))
		}
		shown := 0
		for _, c := range plan.Changes {
			if string(c.Agency) != a.Agency || shown == shownChanges || left == 0 {
				continue
			}
			line := c.String()
			if len(line) > longestInChange {
				line = strings.ToValidUTF8(line[:longestInChange], "") + "..."
			}
			text = append(text, "  "+line)
			shown, left = shown+1, left-1
		}
		if more := a.Names - shown; more > 0 {
			text = append(text, fmt.Sprintf("  and %d more: the same list with --remap --dry-run --json names them all", more))
		}
	}
	return text
}

// toOtherPlatforms returns how many of an agency's mailboxes go to agencies that are on another platform.
func toOtherPlatforms(plan *mailboxlist.Remap, agency routing.AgencyID) (n int) {
	for _, c := range plan.Changes {
		if c.Agency == agency && c.What == mailboxlist.ChangePlatform {
			n++
		}
	}
	return n
}

// proposedAlready returns a proposal for exactly this that can still be approved or used.
func (s *Server) proposedAlready(content *approval.Content) (Proposal, bool) {
	state := s.Replica.State()
	all, _ := approval.List(state) // those that can't be read are listed elsewhere
	for i := range all {
		v := standing(state, &all[i], s.needed())
		if (v.State == string(approval.Open) || v.State == string(approval.Approved)) && all[i].Content.Digest() == content.Digest() {
			return v, true
		}
	}
	return Proposal{}, false
}

// remapKind is the change of mappings. It is proposed with its list, by remap-mailboxes.
func remapKind() *kind {
	const name = string(operation.Remap)
	return &kind{
		name: name, right: mayOperate, needs: []string{},
		about: "bring a list into force that is no pure addition, for all its agencies at once; proposed with the list: mailcutover mailbox import --remap",
		content: func(*Server, context.Context, *routing.State, *NewProposal) (c approval.Content, text []string, err error) {
			return c, nil, problem(http.StatusBadRequest, "mailcutover mailbox import FILE.csv --remap", "a remap is proposed with its list")
		},
		now: func(_ *Server, _ context.Context, state *routing.State, p *approval.Proposal) (approval.Content, error) {
			c := p.Content // the runner looks at the plan
			c.Epochs = epochsNow(state, p.Epochs)
			with, err := remapOf(p)
			if err != nil {
				return c, err
			}
			for id := range with.Was {
				a, _ := state.Agency(id)
				with.Was[id] = a.Mapping
			}
			c.List = with.Was[p.Agency]
			c.Parameters, err = parameters(name, with)
			return c, err
		},
		use: func(s *Server, ctx context.Context, p *approval.Proposal) (*Started, error) {
			with, err := remapOf(p)
			if err != nil {
				return nil, err
			}
			return s.beginOf(ctx, p, operation.Request{Kind: operation.Remap, Plan: p.Plan, Mappings: with.Next})
		},
		refusal: unlessLate,
	}
}

func remapOf(p *approval.Proposal) (with remapParameters, err error) {
	if err = json.Unmarshal(p.Parameters, &with); err != nil {
		err = fmt.Errorf("proposal %s: %w: %w", p.ID, approval.ErrUnreadable, err)
	}
	return with, err
}

func remappingView(plan *mailboxlist.Remap) Remapping {
	v := Remapping{Agencies: []RemappedAgency{}, Changes: []NameChange{}}
	names, taken := make(map[routing.AgencyID]int), make(map[routing.AgencyID]int)
	for _, c := range plan.Changes {
		v.Changes = append(v.Changes, NameChange{string(c.Agency), c.What, c.Name, c.From, c.To})
		names[c.Agency]++
		if c.Takes() {
			taken[c.Agency]++
		}
	}
	for _, a := range plan.Agencies {
		id := a.Record.ID
		v.Agencies = append(v.Agencies, RemappedAgency{
			Agency: string(id), Epoch: a.Record.Epoch.String(), Armed: a.Record.Tightness == routing.Armed, Before: a.Before, After: a.Mapping.Len(),
			Added: a.Added, Gone: a.Gone, Changed: a.Changed, Names: names[id], Taken: taken[id],
			Mapping: a.Record.Mapping.String(), Next: a.Mapping.Digest().String(),
		})
	}
	return v
}
