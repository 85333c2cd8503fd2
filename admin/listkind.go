package admin

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"mailcutover/approval"
	"mailcutover/audit"
	"mailcutover/identity/desk"
	"mailcutover/identity/list"
	"mailcutover/identity/register"
	"mailcutover/mailboxlist"
	"mailcutover/rollback/operation"
	"mailcutover/routing"
	"mailcutover/routing/table"
)

// listKindName is the kind of proposals about lists.
const listKindName = "list"

// listParameters are what a list is proposed with, besides its digest and the check's.
type listParameters struct {
	List string `json:"list"` // its id
	Rows int    `json:"rows"`

	// Changes is the digest of the answers that activating it changes; zero: it only adds.
	Changes routing.Digest `json:"changes"`

	// Told is the digest of what the platforms are told of its mailboxes.
	Told routing.Digest `json:"told"`
}

// importBatch proposes a list.
func (s *Server) importBatch(ctx context.Context, in *ListUpload, why string) (*reply[Proposal], error) {
	reason, err := checkReason(why)
	if err != nil {
		return nil, err
	}
	c, err := s.check(ctx, in)
	if err != nil {
		return nil, deskProblem(err)
	}
	if !c.Clean() {
		return nil, refusedList(c)
	}
	d, err := s.desk(ctx, false)
	if err != nil {
		return nil, err
	}
	l := c.List
	l.Made, l.By, l.Number = time.Now().UTC().Truncate(time.Second), callerOf(ctx).person, numberOf(l)
	if l.Number == 0 {
		l.Number = s.nextNumber(l.Agency)
	}
	// What is compared later has no file any more, so neither has this.
	again, err := d.Recheck(l)
	if err != nil {
		return nil, deskProblem(err)
	}
	result := again.Result
	if !result.Clean() { // a reading ended meanwhile
		return nil, refusedList(&desk.Checked{List: l, Result: result})
	}
	content, remap, err := s.listContent(ctx, l, &again)
	if err != nil {
		return nil, err
	}
	if p, ok := s.proposedAlready(&content); ok {
		return &reply[Proposal]{Body: p}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	p, err := s.newProposal(ctx, content, listText(s.Replica.State(), l, result, remap), reason)
	if err != nil {
		return nil, err
	}
	entry := register.Entry{List: l, Standing: register.Proposed, Check: content.Plan, Checked: result.At, Proposal: p.ID, Since: p.Created, Disabled: result.Disabled()}
	err = s.store(ctx, "propose list "+l.ID, reason, func(state *routing.State) (approval.Proposal, []routing.Document, error) {
		if was, ok, err := register.Find(state, l.ID); err != nil || ok && s.listView(state, &was).Standing != "void" {
			return p, nil, errors.Join(err, problem(http.StatusConflict, "see mailcutover list show "+l.ID, "list %s is in the table already", l.ID))
		}
		docs, err := entry.Documents(state)
		return p, append(docs, s.forgotten(state, l)...), err
	})
	return &reply[Proposal]{Body: proposalView(&p, s.needed())}, err
}

// forgotten removes lists of an agency whose proposals came to nothing.
func (s *Server) forgotten(state *routing.State, l *list.List) (gone []routing.Document) {
	entries, _ := register.Lists(state, l.Agency)
	for i := range entries {
		if e := &entries[i]; e.List.ID != l.ID && s.listView(state, e).Standing == "void" {
			gone = append(gone, e.Removals(state)...)
		}
	}
	return gone
}

// numberOf is the number in the id of a generated list; 0 of others.
func numberOf(l *list.List) int {
	parts := strings.Split(strings.TrimPrefix(l.ID, string(l.Agency)+"-"), "-")
	n, err := strconv.Atoi(parts[0])
	if l.Foreign || err != nil || len(parts) != 2 {
		return 0
	}
	return n
}

// listContent makes what an approval of a clean list is bound to. remap is what activating it
// changes. Who asks has to be somebody for all agencies whose mappings it changes: a mailbox that comes
// from another agency is that one's too.
func (s *Server) listContent(ctx context.Context, l *list.List, r *desk.Rechecked) (c approval.Content, remap *mailboxlist.Remap, err error) {
	remap, err = r.Mailboxes.Remap(s.Replica.State(), s.platformIDs(), s.Separator)
	if err != nil {
		return c, nil, refused(err, false)
	}
	for _, a := range remap.Agencies {
		if err := s.within(ctx, []routing.AgencyID{a.Record.ID}); err != nil {
			return c, nil, err
		}
	}
	with := listParameters{List: l.ID, Rows: len(l.Rows), Changes: changesDigest(remap), Told: toldDigest(r.Mailboxes)}
	c = approval.Content{Kind: listKindName, Agency: l.Agency, List: l.Digest(), Plan: r.Result.Sum()}
	c.Parameters, err = parameters(c.Kind, with)
	return c, remap, err
}

// toldDigest names how the platforms will know each mailbox, by address and login: what a directory
// says of that after the approval is not what was approved.
func toldDigest(l *mailboxlist.List) routing.Digest {
	h := sha256.New()
	for i := range l.Mailboxes {
		row := &l.Mailboxes[i].Row
		source, target := row.At(false), row.At(true)
		fmt.Fprintf(h, "%s %q %q %q %q\n", row.Mailbox, source.Address, source.Login, target.Address, target.Login)
	}
	return routing.Digest(h.Sum(nil))
}

// changesDigest names the answers that a remap changes; zero: it only adds.
func changesDigest(remap *mailboxlist.Remap) routing.Digest {
	if remap.OnlyAdds() {
		return routing.Digest{}
	}
	h := sha256.New()
	for _, one := range remap.Changes {
		if !one.Adds() {
			fmt.Fprintf(h, "%s\n%s\n", one.Agency, one)
		}
	}
	return routing.Digest(h.Sum(nil))
}

// listKind brings a list into force. It is proposed with its file, by import-list.
func listKind() *kind {
	return &kind{
		name: listKindName, right: mayList, starts: mayOperate, needs: []string{},
		about: "bring a list of mailboxes into force; proposed with the list: mailcutover list import",
		content: func(*Server, context.Context, *routing.State, *NewProposal) (c approval.Content, text []string, err error) {
			return c, nil, problem(http.StatusBadRequest, "mailcutover list import FILE --agency AGENCY", "a list is proposed with its file")
		},
		now: func(s *Server, ctx context.Context, state *routing.State, p *approval.Proposal) (approval.Content, error) {
			e, d, err := s.listOf(ctx, state, p)
			if err != nil {
				return p.Content, err
			}
			r, err := d.Recheck(e.List)
			if err != nil {
				return p.Content, deskProblem(err)
			}
			if !r.Result.Clean() {
				c := p.Content
				c.Plan = r.Result.Sum()
				return c, nil
			}
			c, _, err := s.listContent(ctx, e.List, &r)
			return c, err
		},
		typed: func(p *approval.Proposal) []string {
			with, _ := listParametersOf(p) // one that can't be read has no number, and the agency is left
			return []string{strconv.Itoa(with.Rows), string(p.Agency)}
		},
		use:     useList,
		refusal: unlessLate,
	}
}

func listParametersOf(p *approval.Proposal) (with listParameters, err error) {
	if err = json.Unmarshal(p.Parameters, &with); err != nil {
		err = fmt.Errorf("proposal %s: %w: %w", p.ID, approval.ErrUnreadable, err)
	}
	return with, err
}

// listOf returns the list that a proposal is about.
func (s *Server) listOf(ctx context.Context, state *routing.State, p *approval.Proposal) (e register.Entry, d *desk.Desk, err error) {
	with, err := listParametersOf(p)
	if err != nil {
		return e, nil, err
	}
	if d, err = s.desk(ctx, false); err != nil {
		return e, nil, err
	}
	e, ok, err := register.Find(state, with.List)
	if err == nil && !ok {
		err = notFound("import it again", "no list %q in the table", with.List)
	}
	return e, d, err
}

// useList activates a list: by one change of the table if it only adds, and by a remap if
// it changes answers. Directory and table are looked at once more: what is stored is made of
// the same reading as what is compared with the approval.
func useList(s *Server, ctx context.Context, p *approval.Proposal) (*Started, error) {
	e, d, err := s.listOf(ctx, s.Replica.State(), p)
	if err != nil {
		return nil, err
	}
	r, err := d.Recheck(e.List)
	if err != nil {
		return nil, deskProblem(err)
	}
	if !r.Result.Clean() {
		return nil, fmt.Errorf("activate list %s: %w: %d of its rows are wrong now", e.List.ID, approval.ErrVoid, r.Result.Wrong)
	}
	content, remap, err := s.listContent(ctx, e.List, &r)
	if err != nil {
		return nil, err
	}
	if content.Digest() != p.Content.Digest() {
		return nil, fmt.Errorf("activate list %s: %w: directory or table are not as they were", e.List.ID, approval.ErrVoid)
	}
	if !remap.OnlyAdds() {
		return s.remapList(ctx, p, e.List.ID, remap)
	}
	e.Standing, e.Since, e.Approved = register.Active, time.Now().UTC().Truncate(time.Second), approvers(p)
	added := 0
	entry := audit.Entry{Subject: "list " + e.List.ID, Digests: []string{e.List.Digest().String(), e.Check.String()}, Proposal: p.ID}
	_, err = s.changeAs(ctx, &entry, func(state *routing.State) (c table.Change, mappings []*routing.Mapping, err error) {
		if now, ok, err := register.Find(state, e.List.ID); err != nil || !ok || now.Standing != register.Proposed {
			return c, nil, errors.Join(err, problem(http.StatusConflict, "see mailcutover list show "+e.List.ID, "list %s is not as it was proposed any more", e.List.ID))
		}
		plan, err := r.Mailboxes.Plan(state, s.platformIDs(), s.Separator)
		if err != nil {
			return c, nil, refused(err, false)
		}
		c = table.Change{What: "activate list " + e.List.ID, Reason: p.Reason}
		for _, a := range plan.Agencies {
			if a.Changed() {
				c.Mapped = state.Position().Mapped
				c.Agencies = append(c.Agencies, a.Record)
				mappings = append(mappings, a.Mapping)
				added = a.Added
			}
		}
		c.Documents, err = e.Documents(state)
		return c, mappings, err
	})
	if err != nil {
		return nil, err
	}
	return &Started{
		Done: fmt.Sprintf("list %s is in force: %d mailboxes, %d of them new to the table", e.List.ID, len(e.List.Rows), added),
		Undo: "mailcutover list withdraw " + e.List.ID,
	}, nil
}

// approvers are the persons who have approved a proposal.
func approvers(p *approval.Proposal) (out []string) {
	for _, v := range p.Approvals {
		out = append(out, v.Person)
	}
	return out
}

// ListDocuments returns how a list, and the proposal that it came by, follow the operation that
// brings it into force: pending from its begin, active once it is open, and approved as before
// if it is aborted. It is for operation.Options.Documents, and needs no server.
func ListDocuments(state *routing.State, op *operation.Operation) ([]routing.Document, error) {
	if op.List == "" {
		return nil, nil
	}
	now := time.Now().UTC().Truncate(time.Second)
	inForce := op.Step == operation.StepSpread || op.Step == operation.StepDone
	if inForce || op.Step.Ended() {
		e, _, err := register.Find(state, op.List)
		if err != nil {
			return nil, err
		}
		docs, err := register.Ended(state, op.List, op.ID, inForce, now)
		if err != nil || inForce || len(docs) == 0 {
			return docs, err
		}
		return giveBack(state, e.Proposal, op.ID, docs), nil
	}
	e, _, err := register.Find(state, op.List) // that there is one, register.Begun sees
	if err != nil {
		return nil, err
	}
	p, ok, err := approval.Find(state, e.Proposal)
	if err == nil && (!ok || p.End != approval.Used) {
		err = fmt.Errorf("begin to bring list %s into force: its proposal %s isn't in use", op.List, e.Proposal)
	}
	if err != nil {
		return nil, err
	}
	docs, err := register.Begun(state, op.List, op.ID, approvers(&p), now)
	if err != nil {
		return nil, err
	}
	p.Operation = op.ID
	d, err := p.Document()
	return append(docs, d), err
}

// giveBack adds that a proposal can be used again. One that isn't as the operation used it stays
// as it is: then the list is void, and imported again.
func giveBack(state *routing.State, id string, op routing.OperationID, docs []routing.Document) []routing.Document {
	p, ok, err := approval.Find(state, id)
	if err != nil || !ok {
		return docs
	}
	if p, err = p.Return(op); err != nil {
		return docs
	}
	d, err := p.Document()
	if err != nil {
		return docs
	}
	return append(docs, d)
}

// remapList begins the operation that brings a list's changes into force.
func (s *Server) remapList(ctx context.Context, p *approval.Proposal, list string, remap *mailboxlist.Remap) (*Started, error) {
	if err := unarmed(remap); err != nil {
		return nil, err
	}
	next := make(map[routing.AgencyID]routing.Digest)
	var made routing.Revision // what enters these agencies from here on has a later one
	for _, a := range remap.Agencies {
		made = max(made, a.Record.Revision)
		if err := table.Persist(ctx, func() error { return s.Table.PutMapping(ctx, a.Mapping) }); err != nil {
			return nil, err
		}
		next[a.Record.ID] = a.Mapping.Digest()
	}
	first := remap.Agencies[0].Record
	return s.beginOf(ctx, p, operation.Request{
		Kind: operation.Remap, Agency: first.ID, Expected: first.Epoch, Mappings: next, Made: made, List: list,
	})
}

// withdrawList takes a list back.
func (s *Server) withdrawList(ctx context.Context, id, why string) (*reply[BatchList], error) {
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	reason, err := checkReason(why)
	if err != nil {
		return nil, err
	}
	e, err := s.list(id)
	if err == nil {
		err = s.within(ctx, []routing.AgencyID{e.List.Agency})
	}
	if err != nil {
		return nil, err
	}
	switch {
	case e.Standing == register.Withdrawn:
		return nil, problem(http.StatusConflict, "", "list %s is withdrawn already", id)
	case e.Standing == register.Pending:
		return nil, problem(http.StatusConflict, "mailcutover operation abort "+string(e.Operation)+" ends it", "operation %s is bringing list %s into force", e.Operation, id)
	case e.Standing == register.Proposed:
		if _, err := s.withdraw(ctx, e.Proposal, reason); err != nil {
			return nil, err
		}
		v := s.listView(s.Replica.State(), &e)
		return &reply[BatchList]{Body: v}, nil
	}
	entry := audit.Entry{Subject: "list " + id, Before: string(e.Standing), After: string(register.Withdrawn), Digests: []string{e.List.Digest().String()}}
	state, err := s.changeAs(ctx, &entry, func(state *routing.State) (c table.Change, _ []*routing.Mapping, err error) {
		now, ok, err := register.Find(state, id)
		if err == nil && !ok {
			err = notFound("", "no list %q in the table", id)
		}
		if err != nil {
			return c, nil, err
		}
		now.Standing, now.Since = register.Withdrawn, time.Now().UTC().Truncate(time.Second)
		e = now
		c = table.Change{What: "withdraw list " + id, Reason: reason}
		c.Documents, err = now.Documents(state)
		return c, nil, err
	})
	if err != nil {
		return nil, err
	}
	return &reply[BatchList]{Body: s.listView(state, &e)}, nil
}
