package admin

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"mailcutover/identity/desk"
	"mailcutover/mailboxlist"
	"mailcutover/routing"
	"mailcutover/routing/table"
)

// Directory is the person in whose name the table and the audit log have what enters by
// itself.
const Directory = "directory"

// Enter stores what a directory has more of an agency than the table: one change, with an
// audit record in the name of [Directory]. Rows that would be more than an addition are left
// out, and returned in words. It implements the Enter of desk.Options.
func (s *Server) Enter(ctx context.Context, a *desk.Addition) (left []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	ctx = inNameOf(ctx, Directory, "enter-from-directory")
	list := &mailboxlist.List{}
	for i, row := range a.Rows {
		list.Mailboxes = append(list.Mailboxes, mailboxlist.Mailbox{Line: i + 1, Agency: a.Agency, Row: row})
	}
	for i, f := range a.Fixed {
		list.Fixed = append(list.Fixed, mailboxlist.Fixed{Line: len(a.Rows) + i + 1, Fixed: f})
	}
	_, err = s.change(ctx, func(state *routing.State) (c table.Change, mappings []*routing.Mapping, err error) {
		entered := list
		left = nil
		plan, err := list.Plan(state, s.platformIDs(), s.Separator)
		if wrong, ok := errors.AsType[*mailboxlist.Problems](err); ok {
			entered, left = without(list, wrong)
			plan, err = entered.Plan(state, s.platformIDs(), s.Separator)
		}
		if err != nil {
			return c, nil, err
		}
		c = table.Change{Fixed: plan.Fixed, Reason: a.Reason, What: fmt.Sprintf("enter %d mailboxes and %d fixed addresses of agency %s", len(entered.Mailboxes), len(plan.Fixed), a.Agency)}
		if plan.Changed() {
			c.Mapped = state.Position().Mapped
		}
		for _, one := range plan.Agencies {
			if one.Changed() {
				c.Agencies = append(c.Agencies, one.Record)
				mappings = append(mappings, one.Mapping)
			}
		}
		for _, d := range a.Members {
			was, _ := state.Document(d.Key)
			if desk.IsMemberChanges(d.Key) && was.Revision != d.Revision {
				continue // another node has noted them
			}
			if was.Text != d.Text || was.Key == "" {
				d.Revision = was.Revision
				c.Documents = append(c.Documents, d)
			}
		}
		return c, mappings, nil
	})
	if err != nil {
		s.recordFailure(ctx, err)
	}
	return left, err
}

// without returns a list without the rows that are wrong, and those in words.
func without(l *mailboxlist.List, wrong *mailboxlist.Problems) (rest *mailboxlist.List, left []string) {
	bad := make(map[int]bool)
	for _, p := range wrong.List {
		bad[p.Line] = true
		left = append(left, p.Text)
	}
	return &mailboxlist.List{
		Mailboxes: slices.DeleteFunc(slices.Clone(l.Mailboxes), func(m mailboxlist.Mailbox) bool { return bad[m.Line] }),
		Fixed:     slices.DeleteFunc(slices.Clone(l.Fixed), func(f mailboxlist.Fixed) bool { return bad[f.Line] }),
	}, left
}
