package desk

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"mailcutover/rollback/mailstore"
	"mailcutover/rollback/recall"
	"mailcutover/routing"
)

// Kind is what a run is for. The code is the same.
type Kind string

const (
	Sweep  Kind = "sweep"  // after a cutover: what reached the source since the watermarks
	Recall Kind = "recall" // after a rollback: what reached the target since the cutover
)

// ID names a run: its agency, and the beginning of the operation's id or of a random one.
type ID string

// Run is a run as all nodes know it. It doesn't change but for Without, Copies, Ended and
// Accepted.
type Run struct {
	ID     ID                 `json:"id"`
	Kind   Kind               `json:"kind"`
	Agency routing.AgencyID   `json:"agency"`
	From   routing.PlatformID `json:"from"` // the losing side
	To     routing.PlatformID `json:"to"`   // the winning side

	// Operation is the switch that it follows, also of a run that people began; empty: none
	// is known. Runs of one operation share their journals.
	Operation routing.OperationID `json:"operation,omitempty"`

	Mapping    routing.Digest `json:"mapping"`             // whose mailboxes are brought
	Watermarks routing.Digest `json:"watermarks,omitzero"` // zero: everything is compared
	Since      time.Time      `json:"since,omitzero"`      // deliveries to From from then on are accounted for; zero: all
	After      time.Time      `json:"after"`               // from then on nothing can reach From any more

	Nodes   []routing.NodeID `json:"nodes"`             // that share it
	Without []routing.NodeID `json:"without,omitempty"` // of them, those whose share the others took

	// Copies says that retained copies are delivered to To, since From can't be read now.
	Copies bool `json:"copies,omitempty"`

	Begun  time.Time `json:"begun"`
	Who    string    `json:"who"`
	Reason string    `json:"reason"`

	Ended    *Word `json:"ended,omitempty"`    // people, or the agency's next switch, ended it early
	Accepted *Word `json:"accepted,omitempty"` // people have seen what isn't back

	Revision routing.Revision `json:"-"` // of the document
}

// Word is what somebody said, and when.
type Word struct {
	Who    string    `json:"who"`
	Reason string    `json:"reason"`
	Time   time.Time `json:"time"`
}

// Part is what a node says when it has brought its share, or can't bring more of it.
type Part struct {
	Node   routing.NodeID `json:"node"`
	Round  int            `json:"round"` // len(Run.Without) for which it is
	Ended  time.Time      `json:"ended"`
	Totals Totals         `json:"totals"`
	Notes  []string       `json:"notes,omitempty"` // what people should know about it

	Revision routing.Revision `json:"-"`
}

// Totals are the sums over mailboxes.
type Totals struct {
	Mailboxes int `json:"mailboxes"`
	Done      int `json:"done"`
	Aside     int `json:"aside,omitempty"` // that couldn't be brought to the end

	Delivered     int            `json:"delivered"`      // by us to From, as the ledgers know
	DeliveredBack int            `json:"delivered_back"` // of them, found on To
	ByUsers       int            `json:"by_users"`       // brought, and not delivered by us
	Copied        int            `json:"copied"`         // were on To already, such as by the mover
	Moved         int            `json:"moved"`          // to the folder in which they were on From
	NotBack       int            `json:"not_back"`
	Gone          int            `json:"gone,omitempty"` // delivered by us, and deleted from From since: in neither place, and nobody's to bring
	Messages      int            `json:"messages"`       // brought
	Bytes         int64          `json:"bytes"`
	Rewritten     int            `json:"rewritten,omitempty"`
	FlagsNotTaken map[string]int `json:"flags_not_taken,omitempty"`
	Folders       int            `json:"folders,omitempty"` // made
	Copies        int            `json:"copies,omitempty"`  // retained copies that were delivered
	Ledgers       []string       `json:"ledgers,omitempty"` // that aren't counted in Delivered, and why
}

// add adds a mailbox.
func (t *Totals) add(r *recall.Result) {
	t.Delivered += r.Delivered
	t.DeliveredBack += r.DeliveredBack
	t.ByUsers += r.ByUsers
	t.Copied += r.Copied
	t.Moved += r.Moved
	for i := range r.NotBack {
		if r.NotBack[i].Class == recall.ClassGone {
			t.Gone++
		} else {
			t.NotBack++
		}
	}
	t.Messages += r.DeliveredBack + r.ByUsers
	t.Bytes += r.Bytes
	t.Rewritten += r.Rewritten
	t.Folders += len(r.Folders)
	t.flags(r.FlagsNotTaken)
}

func (t *Totals) flags(more map[string]int) {
	for flag, n := range more {
		if t.FlagsNotTaken == nil {
			t.FlagsNotTaken = make(map[string]int)
		}
		t.FlagsNotTaken[flag] += n
	}
}

// Add adds what another node says.
func (t *Totals) Add(o *Totals) {
	t.Mailboxes += o.Mailboxes
	t.Done += o.Done
	t.Aside += o.Aside
	t.Delivered += o.Delivered
	t.DeliveredBack += o.DeliveredBack
	t.ByUsers += o.ByUsers
	t.Copied += o.Copied
	t.Moved += o.Moved
	t.NotBack += o.NotBack
	t.Gone += o.Gone
	t.Messages += o.Messages
	t.Bytes += o.Bytes
	t.Rewritten += o.Rewritten
	t.Folders += o.Folders
	t.Copies += o.Copies
	t.Ledgers = slices.Compact(slices.Sorted(slices.Values(slices.Concat(t.Ledgers, o.Ledgers))))
	t.flags(o.FlagsNotTaken)
}

// What a part names of the flags that To doesn't keep: users make as many keywords as they like,
// and a document of the table has a bound.
const (
	maxFlags   = 50
	maxFlag    = 100 // bytes of one
	otherFlags = "other flags"
)

// cutFlags leaves the flags that most messages had, and the sum of the others.
func (t *Totals) cutFlags() {
	all := slices.SortedFunc(maps.Keys(t.FlagsNotTaken), func(a, b string) int {
		return cmp.Or(cmp.Compare(t.FlagsNotTaken[b], t.FlagsNotTaken[a]), cmp.Compare(a, b))
	})
	named := make(map[string]int)
	for i, flag := range all {
		name := flag
		if i >= maxFlags || len(flag) > maxFlag {
			name = otherFlags
		}
		named[name] += t.FlagsNotTaken[flag]
	}
	t.FlagsNotTaken = named
}

const (
	runPrefix  = "recall/"
	partPrefix = "recall-part/"
)

func runKey(id ID) string { return runPrefix + string(id) }

func partKey(id ID, node routing.NodeID) string { return partPrefix + string(id) + "/" + string(node) }

// document returns the run for the table, to follow the one that it was read from.
func (r *Run) document() (routing.Document, error) {
	return document(runKey(r.ID), r.Revision, r)
}

func document(key string, was routing.Revision, v any) (routing.Document, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return routing.Document{}, fmt.Errorf("write document %s: %w", key, err)
	}
	return routing.Document{Key: key, Text: string(text), Revision: was}, nil
}

// Runs returns the runs that a State has, the newest last. Those that this program can't read
// are in the error.
func Runs(s *routing.State) (runs []Run, err error) {
	var bad []string
	for _, d := range s.Documents(runPrefix) {
		var r Run
		if json.Unmarshal([]byte(d.Text), &r) != nil || runKey(r.ID) != d.Key {
			bad = append(bad, d.Key)
			continue
		}
		r.Revision = d.Revision
		runs = append(runs, r)
	}
	slices.SortStableFunc(runs, func(a, b Run) int { return a.Begun.Compare(b.Begun) })
	if bad != nil {
		err = fmt.Errorf("runs that can't be read: %s", strings.Join(bad, ", "))
	}
	return runs, err
}

// Find returns a run; false: there is none of this id.
func Find(s *routing.State, id ID) (r Run, ok bool) {
	d, ok := s.Document(runKey(id))
	if !ok || json.Unmarshal([]byte(d.Text), &r) != nil {
		return Run{}, false
	}
	r.Revision = d.Revision
	return r, true
}

// Parts returns what the nodes have said about a run, by node.
func (r *Run) Parts(s *routing.State) []Part {
	var all []Part
	for _, d := range s.Documents(partPrefix + string(r.ID) + "/") {
		var p Part
		if json.Unmarshal([]byte(d.Text), &p) == nil {
			p.Revision = d.Revision
			all = append(all, p)
		}
	}
	return all
}

// Version is what of a run nodes have to agree on before one tells the other what it knows: else
// it may be about to bring or send what the other one does not expect.
type Version struct {
	Round  int  `json:"round"` // len(Run.Without)
	Copies bool `json:"copies"`
}

// Version returns that of the run.
func (r *Run) Version() Version { return Version{len(r.Without), r.Copies} }

// skew is by how much the clocks of two nodes may differ.
const skew = 2 * time.Minute

// deliveredSince is from when on deliveries to From are accounted for. Each node's ledger has its own
// node's time: those that stood behind the clock of the one that noted Since must not be missed. Nothing
// else went to a target before its cutover.
func (r *Run) deliveredSince() time.Time {
	if r.Kind == Recall && !r.Since.IsZero() {
		return r.Since.Add(-skew)
	}
	return r.Since
}

// after is from when on nothing can reach From any more, by the clock of a node that reads it at now:
// After is another node's time.
func (r *Run) after(now time.Time) time.Time {
	if now.After(r.After.Add(skew)) {
		return r.After
	}
	if own := now.Add(max(0, r.After.Sub(r.Begun))); own.After(r.After) {
		return own
	}
	return r.After
}

// Direction returns the direction in which mail is brought.
func (r *Run) Direction() recall.Direction {
	d := recall.Direction{From: r.From, To: r.To, Side: mailstore.Source}
	if r.Kind == Recall {
		d.Side = mailstore.Target
	}
	return d
}

// active returns the nodes that share it now.
func (r *Run) active() []routing.NodeID {
	return slices.DeleteFunc(slices.Clone(r.Nodes), func(n routing.NodeID) bool { return slices.Contains(r.Without, n) })
}

// Part returns what a node has said about its share of now.
func (r *Run) Part(s *routing.State, n routing.NodeID) (Part, bool) {
	for _, p := range r.Parts(s) {
		if p.Node == n && p.Round == len(r.Without) {
			return p, true
		}
	}
	return Part{}, false
}

// shares reports whether a node has a share of it now.
func (r *Run) shares(n routing.NodeID) bool { return slices.Contains(r.active(), n) }

// brought reports whether a node has said that it brought its share of now.
func (r *Run) brought(s *routing.State, n routing.NodeID) bool {
	_, ok := r.Part(s, n)
	return ok
}

// Owner returns the node that brings a mailbox; empty: all are gone. While the nodes are the
// same it is the same in every run, so that each finds its journals.
func (r *Run) Owner(id routing.MailboxID) routing.NodeID {
	var best routing.NodeID
	var most [sha256.Size]byte
	for _, n := range r.active() {
		score := sha256.Sum256(append([]byte(n+"\x00"), id[:]...))
		if best == "" || bytes.Compare(score[:], most[:]) > 0 {
			best, most = n, score
		}
	}
	return best
}

// State is how a run stands.
type State string

const (
	Running   State = "running"   // mail is brought, or waited for
	Elsewhere State = "elsewhere" // it stands still: the agency is not on the winning side now
	Done      State = "done"      // all nodes have brought their share
	Ended     State = "ended"     // people, or the agency's next switch, ended it before
)

// Stands returns how the run stands.
func (r *Run) Stands(s *routing.State) State {
	if r.Ended != nil {
		return Ended
	}
	done := len(r.active()) > 0
	for _, n := range r.active() {
		done = done && r.brought(s, n)
	}
	if done {
		return Done
	}
	if a, ok := s.Agency(r.Agency); !ok || a.Platform() != r.To {
		return Elsewhere
	}
	return Running
}

// Totals returns the sums of what the nodes have said that share it now.
func (r *Run) Totals(s *routing.State) Totals {
	var t Totals
	for _, p := range r.Parts(s) {
		if !slices.Contains(r.Without, p.Node) {
			t.Add(&p.Totals)
		}
	}
	return t
}

// left says, in words, what an ended run has left for people; empty: nothing.
func (t *Totals) left() string {
	var all []string
	if t.NotBack > 0 {
		all = append(all, fmt.Sprintf("%d messages that are not back", t.NotBack))
	}
	if t.Aside > 0 {
		all = append(all, fmt.Sprintf("%d mailboxes that could not be brought to the end", t.Aside))
	}
	if len(t.Ledgers) > 0 {
		all = append(all, "an unknown number of deliveries ("+strings.Join(t.Ledgers, "; ")+")")
	}
	return strings.Join(all, ", and ")
}

// Open returns, in words, why an agency's way back can't be ended: runs that are under way,
// runs that ended with messages that aren't back, and the last run towards where the agency is, if it was ended
// before it was done. What people have accepted isn't open.
func Open(s *routing.State, id routing.AgencyID) []string {
	var all []string
	runs, err := Runs(s)
	if err != nil {
		all = append(all, err.Error())
	}
	for i := range runs {
		r := &runs[i]
		if r.Agency != id || r.Accepted != nil {
			continue
		}
		switch r.Stands(s) {
		case Running:
			all = append(all, fmt.Sprintf("%s %s from %s to %s is under way since %s", r.Kind, r.ID, r.From, r.To, r.Begun.UTC().Format(time.RFC3339)))
		case Done:
			if t := r.Totals(s); t.left() != "" {
				all = append(all, fmt.Sprintf("%s %s ended with %s: mailcutover recall status %[2]s, then mailcutover recall accept %[2]s --reason ...", r.Kind, r.ID, t.left()))
			}
		case Ended:
			if a, _ := s.Agency(id); a.Platform() != r.To || slices.ContainsFunc(runs[i+1:], func(later Run) bool { return later.Agency == id && later.To == r.To }) {
				continue // what it left is on the side where the agency is, or a later run's to bring
			}
			all = append(all, fmt.Sprintf("%s %s was ended before it was done, so mail may be on %s alone: mailcutover recall run --agency %s --reason ..., or mailcutover recall accept %[2]s --reason ...", r.Kind, r.ID, r.From, id))
		}
	}
	return all
}
