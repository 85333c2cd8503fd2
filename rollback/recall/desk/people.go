package desk

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"mailcutover/routing"
)

// Errors of what people ask for.
var (
	// ErrNoRun is about a run that the table doesn't have.
	ErrNoRun = errors.New("no such recall")
	// ErrOpen is about an agency that has a run under way.
	ErrOpen = errors.New("a recall of the agency is under way")
	// ErrNotOpen is about a run that isn't under way any more.
	ErrNotOpen = errors.New("the recall is over")
	// ErrNotOver is about a run that is under way still.
	ErrNotOver = errors.New("the recall is under way")
	// ErrNode is about a node that has no share.
	ErrNode = errors.New("the node has no share of the recall")
)

// Order is a run that people want.
type Order struct {
	Agency     routing.AgencyID
	Everything bool // watermarks are left aside: everything is compared
	Copies     bool // retained copies are delivered, since the losing side can't be read now
	Who        string
	Reason     string
}

// cutover is what the table keeps of an agency's last one: the state of both sides before
// it. It outlives the operation's record.
type cutover struct {
	Operation  routing.OperationID `json:"operation"`
	Watermarks routing.Digest      `json:"watermarks,omitzero"`
	Since      time.Time           `json:"since"` // nothing was delivered to the target before, in this turn
}

const knownPrefix = "watermarks/"

func knownOf(s *routing.State, id routing.AgencyID) (k cutover, was routing.Revision) {
	d, ok := s.Document(knownPrefix + string(id))
	if !ok || json.Unmarshal([]byte(d.Text), &k) != nil {
		return cutover{}, d.Revision
	}
	return k, d.Revision
}

// New makes a run that people want: towards the side on which the agency is. It returns the
// documents to be stored.
func (d *Desk) New(s *routing.State, o Order) (Run, []routing.Document, error) {
	fail := func(err error) (Run, []routing.Document, error) {
		return Run{}, nil, fmt.Errorf("recall of agency %s: %w", o.Agency, err)
	}
	a, ok := s.Agency(o.Agency)
	if !ok || !a.Phase.Open() {
		return fail(fmt.Errorf("%w: it is in phase %s", routing.ErrTransition, a.Phase))
	}
	runs, _ := Runs(s)
	k, _ := knownOf(s, a.ID)
	r := Run{
		Kind: Sweep, Agency: a.ID, From: a.Source, To: a.Target, Mapping: a.Mapping,
		Operation: k.Operation, Watermarks: k.Watermarks, Since: k.Since, Copies: o.Copies,
		Who: o.Who, Reason: o.Reason, Begun: d.now().UTC(),
	}
	if !a.Phase.OnTarget() {
		r.Kind, r.From, r.To = Recall, a.Target, a.Source
	}
	// The switch may be a moment ago, and have begun none: its platforms could not be read then.
	r.After = r.Begun.Add(d.limit(r.From))
	for i := range runs {
		old := &runs[i]
		if old.Agency != a.ID {
			continue
		}
		if old.Stands(s) == Running {
			return fail(fmt.Errorf("%w: %s", ErrOpen, old.ID))
		}
		if old.Kind == r.Kind && old.Begun.After(k.Since) {
			// Of the same switch: one set of journals.
			r.Operation, r.After = old.Operation, old.After
		}
	}
	if o.Everything {
		r.Watermarks = routing.Digest{}
	}
	if err := d.readable(&r); err != nil {
		return fail(err)
	}
	r.Nodes = d.nodes(s)
	r.ID = freeID(s, r.Agency, routing.OperationID(random()))
	doc, err := r.document()
	return r, []routing.Document{doc}, err
}

// readable refuses a run that could do nothing.
func (d *Desk) readable(r *Run) error {
	if r.Copies && d.o.Copies != nil && r.Kind == Recall {
		return nil
	}
	set := d.settings()
	for _, p := range []routing.PlatformID{r.From, r.To} {
		if set.Mailboxes(p) == nil {
			return fmt.Errorf("%w: of %s", ErrMailboxes, p)
		}
	}
	return nil
}

// nodes are those that share a run which begins now; this one is always among them.
func (d *Desk) nodes(s *routing.State) []routing.NodeID {
	all := []routing.NodeID{d.o.Node}
	for _, m := range s.Members() {
		if !m.Evicted && m.Attested != m.Instance && m.Node != d.o.Node {
			all = append(all, m.Node)
		}
	}
	slices.Sort(all)
	return all
}

// freeID makes the id of a run.
func freeID(s *routing.State, agency routing.AgencyID, of routing.OperationID) ID {
	for n := min(8, len(of)); ; n++ {
		id := ID(string(agency) + "-" + string(of[:min(n, len(of))]))
		if _, taken := s.Document(runKey(id)); !taken || n >= len(of) {
			return id
		}
	}
}

func random() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails, since Go 1.24
	return hex.EncodeToString(b[:])
}

// alter returns the document of a run that was changed.
func alter(s *routing.State, id ID, want []State, otherwise error, set func(*Run) error) (Run, []routing.Document, error) {
	r, ok := Find(s, id)
	if !ok {
		return Run{}, nil, fmt.Errorf("recall %s: %w", id, ErrNoRun)
	}
	if state := r.Stands(s); !slices.Contains(want, state) {
		return r, nil, fmt.Errorf("recall %s: %w: it is %s", id, otherwise, state)
	}
	if err := set(&r); err != nil {
		return r, nil, fmt.Errorf("recall %s: %w", id, err)
	}
	doc, err := r.document()
	return r, []routing.Document{doc}, err
}

var underWay = []State{Running, Elsewhere}

// TakeOver lets the other nodes take the share of one that is gone. ErrNode if it has none,
// or is the last.
func TakeOver(s *routing.State, id ID, node routing.NodeID) (Run, []routing.Document, error) {
	return alter(s, id, underWay, ErrNotOpen, func(r *Run) error {
		if !r.shares(node) || len(r.active()) == 1 {
			return fmt.Errorf("%w: %s; those with one are %v", ErrNode, node, r.active())
		}
		r.Without = append(slices.Clone(r.Without), node)
		return nil
	})
}

// DeliverCopies has retained copies delivered, since the losing side can't be read now.
func DeliverCopies(s *routing.State, id ID) (Run, []routing.Document, error) {
	return alter(s, id, underWay, ErrNotOpen, func(r *Run) error {
		if r.Kind != Recall {
			return fmt.Errorf("%w: copies are kept of what went to a target", routing.ErrTransition)
		}
		r.Copies = true
		return nil
	})
}

// End ends a run that isn't done. What isn't back stays where it is.
func End(s *routing.State, id ID, w Word) (Run, []routing.Document, error) {
	return alter(s, id, underWay, ErrNotOpen, func(r *Run) error {
		r.Ended = &w
		return nil
	})
}

// Accept notes that somebody has seen to what an ended run could not bring.
func Accept(s *routing.State, id ID, w Word) (Run, []routing.Document, error) {
	return alter(s, id, []State{Done, Ended}, ErrNotOver, func(r *Run) error {
		r.Accepted = cmp.Or(r.Accepted, &w)
		return nil
	})
}
