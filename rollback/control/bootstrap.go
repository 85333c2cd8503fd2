package control

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

// ErrCopy is a copy of the table from which none can be founded.
var ErrCopy = errors.New("copy of the table is not whole")

// Foundation is what Bootstrap would do.
type Foundation struct {
	Source    routing.Position   // of this node's copy
	Digest    routing.Digest     // of the copy's records: what people agree to
	Agencies  []routing.AgencyID // all will be locked
	Mailboxes int
	Members   []routing.NodeID      // that have to rejoin, or to be attested or evicted
	Open      []routing.OperationID // operations that have not ended, and are ended afterwards
}

// Foundation says what Bootstrap would do with this node's copy.
func (c *Control) Foundation() (Foundation, error) {
	state := c.Replica.State()
	f := Foundation{Source: state.Position(), Mailboxes: state.Mailboxes()}
	if f.Source.Incarnation == "" || f.Source.Revision == 0 {
		return f, fmt.Errorf("%w: this node has none", ErrCopy)
	}
	if missing := state.Missing(); len(missing) > 0 {
		return f, fmt.Errorf("%w: the mappings of agency %s are missing: take another node's", ErrCopy, names(missing))
	}
	for _, a := range state.Agencies() {
		f.Agencies = append(f.Agencies, a.ID)
	}
	for _, m := range state.Members() {
		if !m.Evicted && m.Attested != m.Instance {
			f.Members = append(f.Members, m.Node)
		}
	}
	for _, o := range state.Operations() {
		f.Open = append(f.Open, o.ID)
	}
	text, err := json.Marshal(contents(state))
	if err != nil {
		return f, fmt.Errorf("digest of the copy: %w", err)
	}
	f.Digest = sha256.Sum256(text)
	return f, nil
}

// contents is all that a copy has.
func contents(state *routing.State) table.Foundation {
	f := table.Foundation{
		Source: state.Position(), Lineage: state.Lineage(), Agencies: state.Agencies(), Domains: state.Domains(),
		Fixed: slices.SortedFunc(state.FixedAddresses(), func(a, b routing.Fixed) int {
			return strings.Compare(string(a.Address), string(b.Address))
		}),
		Members: state.Members(), Operations: state.Operations(), Freezes: state.Freezes(), Documents: state.Documents(""),
	}
	if state.LostNames() { // which the lost table didn't say yet
		f.Documents = append(f.Documents, routing.UnheardDocument())
	}
	for i := range f.Agencies {
		// What this node has seen, and the table had lost already, counts.
		if seen, ok := state.Seen(f.Agencies[i].ID); ok && seen.Epoch.Compare(f.Agencies[i].Epoch) > 0 {
			seen.Mapping = f.Agencies[i].Mapping // the one that is there
			f.Agencies[i] = seen
		}
	}
	return f
}

// Bootstrap fills an empty table from this node's copy, if that is still the one of the
// digest: every agency locked, one epoch above the copy's, in a new term, all members
// required. The nodes then rejoin; one that has seen more than this copy closes the
// agencies concerned everywhere, until they are reconciled. That two people agreed, and
// that no node at hand has seen more, the caller has checked. ErrFounded, if the table is
// not empty.
func (c *Control) Bootstrap(ctx context.Context, act Act, digest routing.Digest) (routing.Position, error) {
	founder, ok := c.Table.(table.Founder)
	if !ok {
		return routing.Position{}, fmt.Errorf("bootstrap: a table of type %T can't be founded", c.Table)
	}
	if act.Reason == "" {
		return routing.Position{}, ErrNoReason
	}
	state := c.Replica.State()
	now, err := c.Foundation()
	if err != nil {
		return routing.Position{}, fmt.Errorf("bootstrap: %w", err)
	}
	if now.Digest != digest {
		return routing.Position{}, fmt.Errorf("bootstrap: %w: the copy is another now: look again", table.ErrStale)
	}
	f := contents(state)
	f.ID, f.Who, f.What, f.Reason, f.Longest = act.ID+"/bootstrap", act.Who, "bootstrap from the copy of a node", act.Reason, c.Longest
	f.Term = newTerm(state)
	for i := range f.Agencies {
		// One above the copy's, and not of the new term: so a node that has seen more of the
		// agency finds its own record not followed.
		a := f.Agencies[i]
		a.Epoch, a.Locked = a.Epoch.Next(), true
		f.Agencies[i] = a
		if m := state.Mapping(a.ID); !a.Mapping.IsZero() && m != nil {
			f.Mappings = append(f.Mappings, m)
		}
	}
	var pos routing.Position
	if err := table.Persist(ctx, func() (err error) { pos, err = founder.Found(ctx, f); return err }); err != nil {
		return pos, fmt.Errorf("bootstrap: %w", err)
	}
	c.Logger.WarnContext(ctx, "table is founded from this node's copy", "person", act.Who, "reason", act.Reason, "revision", pos.Revision, "epoch", routing.Epoch{Term: pos.Term}.String())
	return pos, c.confirm(ctx, "bootstrap")
}

// spread is from how many terms one is picked: two foundations that know nothing of each
// other should not be in the same.
const spread = 64

// newTerm returns a term above all that the copy knows.
func newTerm(state *routing.State) uint32 {
	term := state.Position().Term
	for _, a := range state.Agencies() {
		term = max(term, a.Epoch.Term)
		if seen, ok := state.Seen(a.ID); ok {
			term = max(term, seen.Epoch.Term)
		}
	}
	return termAbove(term)
}

// termAbove picks a term above one.
func termAbove(term uint32) uint32 { return term + 1 + rand.Uint32N(spread) }
