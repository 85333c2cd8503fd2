package approval

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"mailcutover/routing"
)

// Prefix is that of the keys of proposals among the table's documents.
const Prefix = "proposal/"

// Kept is for how long a proposal stays in the table after its time.
const Kept = 30 * 24 * time.Hour

// Document returns p as the table keeps it, to be stored in the place of what it was read
// from.
func (p *Proposal) Document() (routing.Document, error) {
	b, err := json.Marshal(p)
	if err != nil {
		return routing.Document{}, fmt.Errorf("store proposal %s: %w", p.ID, err)
	}
	return routing.Document{Key: Prefix + p.ID, Text: string(b), Revision: p.Revision}, nil
}

// read parses a document. What a newer version of the program has added is refused: this
// one can't say what an approval of it would mean.
func read(d routing.Document) (Proposal, error) {
	in := json.NewDecoder(bytes.NewReader([]byte(d.Text)))
	in.DisallowUnknownFields()
	var p Proposal
	if err := in.Decode(&p); err != nil {
		return p, fmt.Errorf("%w: %s: %w", ErrUnreadable, d.Key, err)
	}
	if Prefix+p.ID != d.Key {
		return p, fmt.Errorf("%w: %s: it says that it is %s", ErrUnreadable, d.Key, p.ID)
	}
	p.Revision = d.Revision
	return p, nil
}

// Find returns the proposal of an id; ok is false if there is none.
func Find(state *routing.State, id string) (p Proposal, ok bool, err error) {
	d, ok := state.Document(Prefix + id)
	if !ok {
		return p, false, nil
	}
	p, err = read(d)
	return p, err == nil, err
}

// List returns all proposals, the oldest first, and those that can't be read as errors.
func List(state *routing.State) (all []Proposal, unreadable []error) {
	for _, d := range state.Documents(Prefix) {
		p, err := read(d)
		if err != nil {
			unreadable = append(unreadable, err)
			continue
		}
		all = append(all, p)
	}
	slices.SortStableFunc(all, func(a, b Proposal) int { return a.Created.Compare(b.Created) })
	return all, unreadable
}

// Outdated returns the removals of proposals whose time was over for longer than Kept, at
// most as many as fit beside another change.
func Outdated(state *routing.State, now time.Time) []routing.Document {
	const most = 100
	var gone []routing.Document
	for _, d := range state.Documents(Prefix) {
		if p, err := read(d); err == nil && now.Sub(p.Expires) > Kept && len(gone) < most {
			gone = append(gone, routing.Document{Key: d.Key, Removed: true, Revision: d.Revision})
		}
	}
	return gone
}
