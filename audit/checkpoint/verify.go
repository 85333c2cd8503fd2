package checkpoint

import (
	"cmp"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"time"

	"mailcutover/audit"
)

// Evidence is what a log is held against.
type Evidence struct {
	Keys        []ed25519.PublicKey // that are trusted
	Checkpoints []Checkpoint        // of any nodes, in any order

	// Replaced says that it is known that the node's log was begun anew, such as after its
	// disk was lost: checkpoints of earlier chains are listed, and held against nothing.
	Replaced bool
}

// Result is what a log is that holds against its checkpoints.
type Result struct {
	audit.Report

	Checkpoints int       // of this log, all of which hold
	First, Last time.Time // of the oldest and the newest of them
	Record      uint64    // of the newest: later ones nobody has signed yet
	Others      int       // of other nodes, whose signatures hold
	Keys        []KeyID   // that signed, in their order
	Earlier     []string  // chains that the node had before
}

// Mismatch says where a log isn't the one that was signed.
type Mismatch struct {
	Node string

	// From and To are the records between which it differs: those behind the last checkpoint
	// that holds, up to the first that doesn't. To is 0 if no later checkpoint bounds it.
	From, To uint64
	Record   uint64 // the first that shows it; 0: none by itself

	After, Until time.Time // of those two checkpoints; zero: there is none
	Why          string
}

// Error implements error.
func (m *Mismatch) Error() string {
	to := "the last one"
	if m.To != 0 {
		to = fmt.Sprint(m.To)
	}
	span := "since its first record"
	switch {
	case !m.After.IsZero() && !m.Until.IsZero():
		span = fmt.Sprintf("signed between %s and %s", stamp(m.After), stamp(m.Until))
	case !m.After.IsZero():
		span = "written after " + stamp(m.After)
	case !m.Until.IsZero():
		span = "signed until " + stamp(m.Until)
	}
	return fmt.Sprintf("audit log of node %s: records %d to %s (%s) are not those that were signed: %s", m.Node, m.From, to, span, m.Why)
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05Z") }

// ErrNoCheckpoint is wrapped where no checkpoint is about the log.
var ErrNoCheckpoint = errors.New("no checkpoint of this log")

// Verify holds a log against what was signed of it. log reads it from its first record on,
// against some heads, as [audit.Verify] and [audit.VerifyDir] do; it is called twice.
//
// Its error is a [*Mismatch] if the log isn't the one that was signed, wraps [ErrBadCheckpoint] if
// the checkpoints can't be believed, [ErrNoCheckpoint] if none is about this log, or is of the
// reading. The Result says how far all was well.
func Verify(e Evidence, log func(heads ...audit.Head) (audit.Report, error)) (Result, error) {
	all, err := e.believe()
	if err != nil {
		return Result{}, err
	}
	report, err := log()
	if _, bad := errors.AsType[*audit.BadRecord](err); err != nil && !bad {
		return Result{Report: report}, err
	}
	node := report.Head.Node
	if node == "" { // not one good record: it can only be somebody's whose checkpoints these are
		if node = onlyNode(all); node == "" {
			return Result{Report: report}, fmt.Errorf("%w: it has no record that says of which node it is, and the checkpoints are of several", ErrNoCheckpoint)
		}
	}
	chain := report.Head.Chain
	for _, c := range all {
		if report.Head.Chain == "" && c.Head.Node == node {
			chain = c.Head.Chain // nothing good is left of the log that should be the newest one
		}
	}
	var own, earlier []Checkpoint
	out := Result{Report: report}
	for _, c := range all {
		switch {
		case c.Head.Node != node:
			out.Others++
		case c.Head.Chain == chain:
			own = append(own, c)
		default:
			earlier = append(earlier, c)
		}
	}
	if err := out.replaced(&e, node, chain, earlier); err != nil {
		return out, err
	}
	if len(own) == 0 {
		return out, fmt.Errorf("%w: there are %d, none of node %s and chain %s", ErrNoCheckpoint, len(all), node, chain)
	}
	slices.SortStableFunc(own, func(a, b Checkpoint) int { return cmp.Compare(a.Head.Number, b.Head.Number) })
	heads := make([]audit.Head, len(own))
	for i := range own {
		heads[i] = own[i].Head
	}
	out.Report, err = log(heads...)
	if bad, ok := errors.AsType[*audit.BadRecord](err); ok {
		return out, mismatch(node, own, out.Report, bad)
	}
	if err != nil {
		return out, err
	}
	last := own[len(own)-1]
	out.Checkpoints, out.First, out.Last, out.Record = len(own), own[0].Time, last.Time, last.Head.Number
	for _, c := range own {
		if !slices.Contains(out.Keys, c.Key) {
			out.Keys = append(out.Keys, c.Key)
		}
	}
	return out, nil
}

// believe returns the checkpoints by node and count, once each, if their signatures hold and
// each follows the one before.
func (e *Evidence) believe() ([]Checkpoint, error) {
	all := slices.Clone(e.Checkpoints)
	slices.SortStableFunc(all, func(a, b Checkpoint) int {
		return cmp.Or(cmp.Compare(a.Head.Node, b.Head.Node), cmp.Compare(a.Count, b.Count))
	})
	all = slices.CompactFunc(all, func(a, b Checkpoint) bool { return a.line == b.line })
	trusted := make(map[KeyID]ed25519.PublicKey)
	for _, k := range e.Keys {
		trusted[IDOf(k)] = k
	}
	var retired map[KeyID]bool // on this node
	for i := range all {
		c := &all[i]
		first := i == 0 || all[i-1].Head.Node != c.Head.Node
		if first {
			retired = make(map[KeyID]bool)
		}
		if next, by, ok := handed(c.Handover, trusted, retired); ok {
			trusted[IDOf(next)] = next
			if by != c.Key {
				retired[by] = true
			}
		}
		public, known := trusted[c.Key]
		switch {
		case !known:
			return nil, fmt.Errorf("%w: %d of node %s, of %s, is by the key %s, which isn't among those that are trusted", ErrBadCheckpoint, c.Count, c.Head.Node, stamp(c.Time), c.Key)
		case !c.valid(public):
			return nil, fmt.Errorf("%w: %d of node %s, of %s: the signature of key %s doesn't hold", ErrBadCheckpoint, c.Count, c.Head.Node, stamp(c.Time), c.Key)
		case retired[c.Key]:
			return nil, fmt.Errorf("%w: %d of node %s, of %s, is by the key %s, behind one that had followed it", ErrBadCheckpoint, c.Count, c.Head.Node, stamp(c.Time), c.Key)
		case first:
			continue
		}
		switch before := &all[i-1]; {
		case before.Count == c.Count:
			return nil, fmt.Errorf("%w: node %s has signed two different ones with the count %d, of %s and of %s: its data was set back, or the key is used elsewhere", ErrBadCheckpoint, c.Head.Node, c.Count, stamp(before.Time), stamp(c.Time))
		case before.Count+1 == c.Count && c.Previous != before.Hash():
			return nil, fmt.Errorf("%w: %d of node %s, of %s, doesn't follow the one before", ErrBadCheckpoint, c.Count, c.Head.Node, stamp(c.Time))
		}
	}
	return all, nil
}

// onlyNode returns the node that all checkpoints are of; empty: there is none, or several.
func onlyNode(all []Checkpoint) string {
	if len(all) == 0 || all[0].Head.Node != all[len(all)-1].Head.Node {
		return ""
	}
	return all[0].Head.Node
}

// replaced tells of chains that the node has signed for, and that the log isn't.
func (r *Result) replaced(e *Evidence, node, chain string, earlier []Checkpoint) error {
	if len(earlier) == 0 {
		return nil
	}
	m := &Mismatch{Node: node, From: 1}
	for _, c := range earlier {
		m.To, m.Until = max(m.To, c.Head.Number), c.Time
		if !slices.Contains(r.Earlier, c.Head.Chain) {
			r.Earlier = append(r.Earlier, c.Head.Chain)
		}
	}
	if e.Replaced {
		return nil
	}
	m.Why = fmt.Sprintf("they were of chain %s, and the log is of chain %s: it was begun anew, or is another node's under this name", earlier[len(earlier)-1].Head.Chain, chain)
	return m
}

// mismatch says between which checkpoints the log differs. own are by record.
func mismatch(node string, own []Checkpoint, report audit.Report, bad *audit.BadRecord) *Mismatch {
	m := &Mismatch{Node: node, From: 1, Record: bad.Number, Why: bad.Error()}
	if report.Heads > 0 {
		holds := own[report.Heads-1]
		m.From, m.After = holds.Head.Number+1, holds.Time
	}
	if report.Heads < len(own) {
		fails := own[report.Heads]
		m.To, m.Until = fails.Head.Number, fails.Time
	}
	if bad.Where == "" && bad.Number == report.Head.Number+1 { // the end was cut
		last := own[len(own)-1]
		m.To, m.Until = last.Head.Number, last.Time
		m.Why = fmt.Sprintf("the log ends at record %d: %d to %d are missing", report.Head.Number, bad.Number, m.To)
	}
	return m
}
