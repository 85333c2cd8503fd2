package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"

	"mailcutover/approval"
	"mailcutover/identity/desk"
	"mailcutover/identity/directory"
	"mailcutover/identity/watch"
	"mailcutover/rollback/operation"
	"mailcutover/routing"
	"mailcutover/routing/table"
)

// retireKindName is the kind of proposals about mailboxes that are no more.
const retireKindName = "retire"

// mostRetired is how many mailboxes one proposal takes out, so that a person can read them.
const mostRetired = 200

// retireParameters are what a retirement is proposed with.
type retireParameters struct {
	Was, Next routing.Digest      // mappings
	Mailboxes []routing.MailboxID // in the order of their addresses
}

// retireKind takes the mailboxes out of an agency's mapping that the directory doesn't know
// any more, or only as an object without an address, as an account is whose mailbox was taken away:
// no list does, since a list removes nothing that it doesn't name.
func retireKind() *kind {
	return &kind{
		name: retireKindName, right: mayOperate, needs: []string{"agency", "expected_epoch"},
		about: "take the mailboxes out of an agency that the directory doesn't know any more; an operation of the kind remap",
		content: func(s *Server, ctx context.Context, state *routing.State, in *NewProposal) (c approval.Content, text []string, err error) {
			a, err := s.expected(state, in.Agency, in.ExpectedEpoch)
			if err != nil {
				return c, nil, err
			}
			c, next, gone, err := s.retirement(ctx, state, a.ID)
			if err != nil {
				return c, nil, err
			}
			text = []string{fmt.Sprintf("retire %d mailboxes of agency %s, which has %d then: the directory, read lately and asked now, doesn't know them, or knows an object without an address", len(gone), a.ID, next.Len()),
				"their addresses and logins go to nobody; mail that is held for them stays in the spool"}
			for _, row := range gone {
				text = append(text, fmt.Sprintf("  %s, mailbox %s", row.Addresses[0], row.Mailbox))
			}
			return c, text, nil
		},
		now: func(s *Server, ctx context.Context, state *routing.State, p *approval.Proposal) (approval.Content, error) {
			c, _, _, err := s.retirement(ctx, state, p.Agency)
			return c, err
		},
		use: func(s *Server, ctx context.Context, p *approval.Proposal) (*Started, error) {
			var with retireParameters
			if err := json.Unmarshal(p.Parameters, &with); err != nil {
				return nil, fmt.Errorf("proposal %s: %w: %w", p.ID, approval.ErrUnreadable, err)
			}
			state := s.Replica.State()
			_, next, _, err := s.retirement(ctx, state, p.Agency)
			if err == nil && next.Digest() != with.Next {
				err = fmt.Errorf("retire mailboxes of agency %s: %w", p.Agency, approval.ErrVoid)
			}
			if err == nil {
				err = table.Persist(ctx, func() error { return s.Table.PutMapping(ctx, next) })
			}
			if err != nil {
				return nil, err
			}
			return s.beginOf(ctx, p, operation.Request{
				Kind: operation.Remap, Mappings: map[routing.AgencyID]routing.Digest{p.Agency: with.Next}, Made: state.Position().Revision,
			})
		},
		refusal: unlessLate,
	}
}

// retirement is what retiring the mailboxes of an agency would be now: the mapping without
// them, and their rows.
func (s *Server) retirement(ctx context.Context, state *routing.State, id routing.AgencyID) (c approval.Content, next *routing.Mapping, gone []routing.Row, err error) {
	a, ok := state.Agency(id)
	m := state.Mapping(id)
	if !ok || m == nil {
		return c, nil, nil, noAgency(string(id))
	}
	d, err := s.desk(ctx, false)
	if err != nil {
		return c, nil, nil, err
	}
	drift, err := d.Drift(id)
	if err != nil {
		return c, nil, nil, deskProblem(err)
	}
	source := d.Status().Source
	if source == nil || !slices.ContainsFunc(source.Objects(id), func(o *directory.Object) bool { return o.Kind.Mailbox() }) {
		return c, nil, nil, problem(http.StatusConflict, "see that the account by which the directory is read has its rights, and identity.agencies: mailcutover directory show", "agency %s: the directory shows none of its mailboxes, so it proves nothing of any", id)
	}
	with := retireParameters{Was: m.Digest()}
	without := make(map[routing.MailboxID]bool)
	for _, one := range drift {
		if len(gone) == mostRetired {
			break
		}
		if one.Kind != watch.Gone {
			continue
		}
		found, err := d.Find(ctx, one.Mailbox.String())
		if err != nil {
			return c, nil, nil, problem(http.StatusConflict, "try again when the directories answer", "agency %s: %s", id, err)
		}
		found = slices.DeleteFunc(found, func(f desk.Found) bool { return f.Directory != source.Snapshot.Directory || !f.HasMailbox() })
		if row, ok := m.Mailbox(one.Mailbox); ok && len(found) == 0 {
			without[one.Mailbox] = true
			gone = append(gone, row)
			with.Mailboxes = append(with.Mailboxes, one.Mailbox)
		}
	}
	if len(gone) == 0 {
		return c, nil, nil, problem(http.StatusConflict, "see mailcutover list drift --agency "+string(id), "agency %s: the directory knows all of its mailboxes", id)
	}
	var rows []routing.Row
	for row := range m.Rows() {
		if !without[row.Mailbox] {
			rows = append(rows, row)
		}
	}
	if next, err = routing.NewMapping(id, rows); err != nil {
		return c, nil, nil, err
	}
	with.Next = next.Digest()
	c = approval.Content{Kind: retireKindName, Agency: id, Epochs: map[routing.AgencyID]routing.Epoch{id: a.Epoch}, List: a.Mapping}
	c.Parameters, err = parameters(c.Kind, with)
	return c, next, gone, err
}
