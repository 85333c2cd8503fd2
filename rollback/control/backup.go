package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"mailcutover/approval"
	canary "mailcutover/rollback/canary/desk"
	"mailcutover/routing"
	"mailcutover/routing/backup"
	"mailcutover/routing/table"
)

// ErrOlder is about a backup that is older than what this node has seen, where nobody said that
// this is known.
var ErrOlder = errors.New("backup is older than what this node has seen")

// ErrOther is about a backup of another table than the one that this node has a copy of.
var ErrOther = errors.New("backup is of another table")

// Backup writes this node's copy of the table, and returns its digest. h says who asks, when and
// on which node. ErrCopy if the copy isn't whole, or an agency's record went back and has not
// been reconciled: which of two records is right, a backup can't say.
func (c *Control) Backup(w io.Writer, h backup.Header) (routing.Digest, error) {
	state := c.Replica.State()
	switch missing, regressed := state.Missing(), state.Regressed(); {
	case state.Position().Incarnation == "" || state.Position().Revision == 0:
		return routing.Digest{}, fmt.Errorf("back up the table: %w: this node has none", ErrCopy)
	case len(missing) > 0:
		return routing.Digest{}, fmt.Errorf("back up the table: %w: the mappings of agency %s are missing: ask another node", ErrCopy, names(missing))
	case len(regressed) > 0:
		return routing.Digest{}, fmt.Errorf("back up the table: %w: the record of agency %s went back: reconcile it first", ErrCopy, names(regressed))
	}
	f := contents(state)
	for i := range f.Agencies {
		if m := state.Mapping(f.Agencies[i].ID); m != nil && m.Len() > 0 {
			f.Mappings = append(f.Mappings, m)
		}
	}
	h.Position, h.Lineage = f.Source, f.Lineage
	return backup.Write(w, h, &f)
}

// Restoration is what Restore would do.
type Restoration struct {
	Copy     *backup.Copy
	Agencies []routing.AgencyID    // all will be locked
	Members  []routing.NodeID      // that have to rejoin, or to be attested or evicted
	Open     []routing.OperationID // operations that had not ended, and are ended afterwards

	Here  routing.Position   // of this node's own copy
	Older bool               // the backup is older than that
	Newer []routing.AgencyID // of which this node has seen a newer record: they stay closed until they are reconciled
	Gone  []routing.AgencyID // that this node knows and the backup lacks: likewise
}

// Restoration says what Restore would do with a backup at this node. ErrOther if the node has a
// copy of another table, with something in it.
func (c *Control) Restoration(b *backup.Copy) (Restoration, error) {
	state := c.Replica.State()
	r := Restoration{Copy: b, Here: state.Position()}
	if other := r.Here.Incarnation; other != "" && other != b.Header.Position.Incarnation && (len(state.Agencies()) > 0 || state.Mailboxes() > 0) {
		return r, fmt.Errorf("%w: it is of table %s, this node's copy of %s with %d agencies", ErrOther, b.Header.Position.Incarnation, other, state.Len())
	}
	if r.Here.Incarnation == b.Header.Position.Incarnation {
		at := b.Header.Position
		r.Older = r.Here.Term > at.Term || r.Here.Revision > at.Revision
		for _, a := range state.Agencies() {
			i := slices.IndexFunc(b.Contents.Agencies, func(o routing.Agency) bool { return o.ID == a.ID })
			if seen, ok := state.Seen(a.ID); ok {
				a = seen
			}
			if i < 0 {
				r.Gone = append(r.Gone, a.ID)
			} else if a.Epoch.Compare(b.Contents.Agencies[i].Epoch) > 0 {
				r.Newer = append(r.Newer, a.ID)
			}
		}
	}
	for _, a := range b.Contents.Agencies {
		r.Agencies = append(r.Agencies, a.ID)
	}
	for _, m := range b.Contents.Members {
		if !m.Evicted && m.Attested != m.Instance {
			r.Members = append(r.Members, m.Node)
		}
	}
	for _, o := range b.Contents.Operations {
		r.Open = append(r.Open, o.ID)
	}
	return r, nil
}

// Restore fills an empty table from a backup, as Bootstrap does from this node's copy: every
// agency locked, one epoch above the backup's, in a new term above all that the backup and this
// node know; all members required. So a node that has seen more closes the agencies concerned
// everywhere, until they are reconciled, and none is opened by what the backup says alone. Two
// things are other than with a node's copy: names may have been added since, so nobody is told
// that a name is nobody's before people say that they are complete; and proposals are left out,
// since one that was carried out after the backup would stand there as approved. So is what canaries
// found, since it says which approved plan lets them bring an agency back: another switch may have
// been approved since, without that.
//
// ErrOlder if this node has seen more, unless older says that this is known. ErrFounded, if the
// table is not empty. That two people agreed the caller has checked.
func (c *Control) Restore(ctx context.Context, act Act, b *backup.Copy, older bool) (routing.Position, error) {
	founder, ok := c.Table.(table.Founder)
	if !ok {
		return routing.Position{}, fmt.Errorf("restore: a table of type %T can't be founded", c.Table)
	}
	if strings.TrimSpace(act.Reason) == "" {
		return routing.Position{}, ErrNoReason
	}
	r, err := c.Restoration(b)
	if err != nil {
		return routing.Position{}, fmt.Errorf("restore: %w", err)
	}
	if r.Older && !older {
		return routing.Position{}, fmt.Errorf("restore: %w: revision %d of term %d, the backup has %d of %d", ErrOlder, r.Here.Revision, r.Here.Term, b.Header.Position.Revision, b.Header.Position.Term)
	}
	f := b.Contents
	f.ID, f.Who, f.What, f.Reason, f.Longest = act.ID+"/restore", act.Who, "restore from a backup", act.Reason, c.Longest
	f.Term = max(newTerm(c.Replica.State()), termAbove(b.Header.Position.Term))
	f.Agencies = slices.Clone(f.Agencies)
	for i := range f.Agencies {
		// As in Bootstrap: not of the new term, so that who has seen more finds it not followed.
		f.Agencies[i].Epoch, f.Agencies[i].Locked = f.Agencies[i].Epoch.Next(), true
	}
	f.Documents = slices.DeleteFunc(slices.Clone(f.Documents), func(d routing.Document) bool {
		return strings.HasPrefix(d.Key, approval.Prefix) || strings.HasPrefix(d.Key, canary.Prefix) || d.Key == routing.NamesLost
	})
	f.Documents = append(f.Documents, routing.RestoredDocument(b.Header.Made))
	var pos routing.Position
	if err := table.Persist(ctx, func() (err error) { pos, err = founder.Found(ctx, f); return err }); err != nil {
		return pos, fmt.Errorf("restore: %w", err)
	}
	c.Logger.WarnContext(ctx, "table is founded from a backup", "person", act.Who, "reason", act.Reason, "revision", pos.Revision, "epoch", routing.Epoch{Term: pos.Term}.String(), "digest", b.Digest.String())
	return pos, c.confirm(ctx, "restore")
}
