package approval

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/text/unicode/norm"

	"mailcutover/routing"
)

// Errors that callers test for with errors.Is.
var (
	ErrOwn         = errors.New("nobody approves what he has proposed himself")
	ErrTwice       = errors.New("this person has approved already")
	ErrDigest      = errors.New("the digest is not the proposal's")
	ErrEnded       = errors.New("the proposal has ended")
	ErrNotApproved = errors.New("not enough other persons have approved it")
	ErrVoid        = errors.New("the proposal is void: what it was for has changed")
	ErrNotProposer = errors.New("only who proposed it withdraws it")
	ErrUnreadable  = errors.New("the proposal can't be read")
)

// Content is what a proposal is for. Two contents are the same if their digests are.
type Content struct {
	Kind   string           `json:"kind"`             // what is done, such as cutover
	Agency routing.AgencyID `json:"agency,omitempty"` // that it is done to
	Node   routing.NodeID   `json:"node,omitempty"`

	// Epochs are those of the agencies' records that the proposer has seen.
	Epochs map[routing.AgencyID]routing.Epoch `json:"epochs,omitempty"`

	Parameters json.RawMessage `json:"parameters,omitempty"` // of the kind; the caller's, compared byte by byte
	Plan       routing.Digest  `json:"plan"`                 // zero: there is none
	List       routing.Digest  `json:"list"`                 // zero: there is none
}

// Digest returns the digest of c.
func (c *Content) Digest() routing.Digest {
	return digest("content", c)
}

// digest is that of v's JSON; kind keeps the digests of different things apart.
func digest(kind string, v any) routing.Digest {
	b, err := json.Marshal(v)
	if err != nil {
		// The types have no value that JSON lacks but a RawMessage, which New has checked.
		panic("digest of a " + kind + ": " + err.Error())
	}
	h := sha256.New()
	fmt.Fprintf(h, "mailcutover %s 1\n", kind)
	h.Write(b)
	return routing.Digest(h.Sum(nil))
}

// Vote is what one person said.
type Vote struct {
	Person string    `json:"person"`
	Token  string    `json:"token"`
	Time   time.Time `json:"time"`
	Note   string    `json:"note,omitempty"`
}

// State says how far a proposal is.
type State string

const (
	Open      State = "open"      // approvals are missing
	Approved  State = "approved"  // may be used
	Used      State = "used"      // was done, or is under way
	Withdrawn State = "withdrawn" // by the proposer
	Expired   State = "expired"   // nobody used it in time
	Void      State = "void"      // what it was for has changed
)

// Proposal is one proposal with all that became of it. Use [New]; the fields are exported
// to be stored.
type Proposal struct {
	ID string `json:"id"`
	Content
	Text    []string  `json:"text"` // what people read before they approve; part of the digest
	Person  string    `json:"person"`
	Token   string    `json:"token"`
	Reason  string    `json:"reason"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
	Needed  int       `json:"needed"` // approvals by others

	Approvals []Vote `json:"approvals,omitempty"`

	// End says how it ended before its time: Used, Withdrawn or Void; by whom and when.
	End       State               `json:"end,omitempty"`
	Ended     Vote                `json:"ended,omitzero"`
	Operation routing.OperationID `json:"operation,omitempty"` // that it was used for
	Why       string              `json:"why,omitempty"`       // it is void

	Revision routing.Revision `json:"-"` // of the document it was read from
}

// New returns a proposal; every field that New's caller doesn't set is empty.
func New(p Proposal) (Proposal, error) {
	switch {
	case p.ID == "" || p.Kind == "":
		return p, errors.New("proposal: an id and a kind are required")
	case Person(p.Person) == "":
		return p, fmt.Errorf("proposal %s: a person is required", p.ID)
	case strings.TrimSpace(p.Reason) == "":
		return p, fmt.Errorf("proposal %s: a reason is required", p.ID)
	case p.Needed < 0 || !p.Expires.After(p.Created):
		return p, fmt.Errorf("proposal %s: %d approvals between %s and %s: want 0 or more, in a span of time", p.ID, p.Needed, p.Created, p.Expires)
	case len(p.Parameters) > 0 && !json.Valid(p.Parameters):
		return p, fmt.Errorf("proposal %s: its parameters are not JSON", p.ID)
	case len(p.Approvals) > 0 || p.End != "" || p.Ended != (Vote{}) || p.Operation != "" || p.Why != "":
		return p, fmt.Errorf("proposal %s: it has been approved or has ended", p.ID)
	}
	p.Revision = 0
	return p, nil
}

// Digest names all that an approval is bound to: the content, the text that says it to
// people, who proposed it, why, until when, and how many approvals it needs.
func (p *Proposal) Digest() routing.Digest {
	bound := *p
	bound.Approvals, bound.End, bound.Ended, bound.Operation, bound.Why = nil, "", Vote{}, "", ""
	bound.Created, bound.Expires = p.Created.UTC(), p.Expires.UTC()
	return digest("proposal", bound)
}

// State returns how far it is at a moment. needed is how many approvals are wanted today, if
// that is more than when it was proposed.
func (p *Proposal) State(now time.Time, needed int) State {
	switch {
	case p.End != "":
		return p.End
	case now.After(p.Expires):
		return Expired
	case p.Missing(needed) > 0:
		return Open
	default:
		return Approved
	}
}

// Wants returns how many approvals it needs, where today so many are wanted of a new one.
func (p *Proposal) Wants(needed int) int { return max(p.Needed, needed) }

// Missing returns how many approvals it lacks.
func (p *Proposal) Missing(needed int) int { return max(0, p.Wants(needed)-len(p.Approvals)) }

// Person returns a person's name in the form in which two names are compared: who is
// "Anna Berg" in one token and "anna  berg" in another is one person, and so is who has an
// umlaut as one character in one and as two (Unicode normalisation form KC).
func Person(name string) string {
	return strings.ToLower(strings.Join(strings.Fields(norm.NFKC.String(name)), " "))
}

// Approve adds a person's approval. seen is the digest of the proposal as the person has
// read it.
func (p Proposal) Approve(by Vote, seen routing.Digest) (Proposal, error) {
	who := Person(by.Person)
	switch s := p.State(by.Time, 0); {
	case who == "":
		return p, fmt.Errorf("approve proposal %s: a person is required", p.ID)
	case s != Open && s != Approved:
		return p, fmt.Errorf("approve proposal %s: %w: it is %s", p.ID, ErrEnded, s)
	case who == Person(p.Person):
		return p, fmt.Errorf("approve proposal %s: %w: %s", p.ID, ErrOwn, by.Person)
	case slices.ContainsFunc(p.Approvals, func(v Vote) bool { return Person(v.Person) == who }):
		return p, fmt.Errorf("approve proposal %s: %w: %s", p.ID, ErrTwice, by.Person)
	case seen != p.Digest():
		return p, fmt.Errorf("approve proposal %s: %w", p.ID, ErrDigest) // who has to read it isn't told it here
	}
	p.Approvals = append(slices.Clone(p.Approvals), by)
	return p, nil
}

// Withdraw ends a proposal that was not used.
func (p Proposal) Withdraw(by Vote) (Proposal, error) {
	switch s := p.State(by.Time, 0); {
	case s == Used || s == Withdrawn:
		return p, fmt.Errorf("withdraw proposal %s: %w: it is %s", p.ID, ErrEnded, s)
	case Person(by.Person) != Person(p.Person):
		return p, fmt.Errorf("withdraw proposal %s: %w: %s", p.ID, ErrNotProposer, p.Person)
	}
	p.End, p.Ended = Withdrawn, by
	return p, nil
}

// Use ends a proposal by doing what it is for, as operation. now is the content as it is
// at this moment; needed is how many approvals are wanted today, if that is more than when
// it was proposed. With an ErrVoid, the proposal that is returned is void, and is worth
// storing; with every other error it is as it was.
func (p Proposal) Use(by Vote, now *Content, needed int, operation routing.OperationID) (Proposal, error) {
	if s := p.State(by.Time, needed); s != Open && s != Approved {
		return p, fmt.Errorf("use proposal %s: %w: it is %s", p.ID, ErrEnded, s)
	}
	if why := p.differs(now); why != "" {
		p.End, p.Ended, p.Why = Void, by, why
		return p, fmt.Errorf("use proposal %s: %w: %s", p.ID, ErrVoid, why)
	}
	if need := p.Wants(needed); len(p.Approvals) < need {
		return p, fmt.Errorf("use proposal %s: %w: %d of %d", p.ID, ErrNotApproved, len(p.Approvals), need)
	}
	p.End, p.Ended, p.Operation = Used, by, operation
	return p, nil
}

// Return takes a use back, of an operation that was refused before it changed anything.
func (p Proposal) Return(operation routing.OperationID) (Proposal, error) {
	if p.End != Used || p.Operation != operation {
		return p, fmt.Errorf("return proposal %s: %w: it is not used by %s", p.ID, ErrEnded, operation)
	}
	p.End, p.Ended, p.Operation = "", Vote{}, ""
	return p, nil
}

// differs says in what the content is another now; empty: in nothing.
func (p *Proposal) differs(now *Content) string {
	switch {
	case p.Kind != now.Kind || p.Agency != now.Agency || p.Node != now.Node:
		return "it is for another act"
	case p.Content.Digest() == now.Digest():
		return ""
	}
	for id, seen := range p.Epochs {
		if is, ok := now.Epochs[id]; !ok || is != seen {
			return fmt.Sprintf("agency %s is in epoch %s, the proposal was made in %s", id, is, seen)
		}
	}
	switch {
	case len(now.Epochs) != len(p.Epochs):
		return "other agencies are concerned"
	case p.Plan != now.Plan:
		return "the plan is another"
	case p.List != now.List:
		return "the list is another"
	default:
		return "its parameters are others"
	}
}
