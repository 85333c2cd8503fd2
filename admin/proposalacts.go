package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"mailcutover/approval"
	"mailcutover/audit"
	"mailcutover/rollback/operation"
	"mailcutover/routing"
	"mailcutover/routing/table"
)

// startedProposal is the answer to a call that uses a proposal.
type startedProposal struct {
	Location string `header:"Location" doc:"Of the operation, if there is one"`
	Body     Started
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

// newProposal makes a proposal in the caller's name. What was typed into its text stays within
// its line.
func (s *Server) newProposal(ctx context.Context, content approval.Content, text []string, reason string) (approval.Proposal, error) {
	lines := make([]string, len(text))
	for i, line := range text {
		lines[i] = oneLine(line)
	}
	now := time.Now().UTC().Truncate(time.Microsecond)
	return approval.New(approval.Proposal{
		ID: uuid.NewString(), Content: content, Text: lines, Person: callerOf(ctx).person, Token: callerOf(ctx).token, Reason: reason,
		Created: now, Expires: now.Add(s.ApprovalLife()), Needed: s.needed(),
	})
}

// proposeContent stores a proposal, or with dryRun only says what it would be.
func (s *Server) proposeContent(ctx context.Context, k *kind, content approval.Content, text []string, reason string, dryRun bool) (*reply[Proposal], error) {
	p, err := s.newProposal(ctx, content, text, reason)
	if err == nil {
		err = s.mayUse(ctx, k, &p)
	}
	if err != nil || dryRun {
		return &reply[Proposal]{Body: proposalView(&p, s.needed())}, err
	}
	err = s.store(ctx, "propose "+p.Kind, reason, func(state *routing.State) (approval.Proposal, []routing.Document, error) {
		return p, approval.Outdated(state, p.Created), nil
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
	note = strings.TrimSpace(oneLine(note))
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
