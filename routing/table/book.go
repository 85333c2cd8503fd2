package table

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"mailcutover/routing"
)

// RejoinGrace is added to the longest lease before a majority of the members may end a
// rejoin after a promotion.
const RejoinGrace = 30 * time.Second

// Server is the identity of what keeps the table: a process of Redis, and the history of
// writes that it is part of. The zero value is a table that only one process can open.
type Server struct {
	Run         string // run id, another one after each start
	Replication string // id of the present history (master_replid)
	Former      string // of the one before the server was promoted (master_replid2); empty: none
}

// Book is what a table knows of its nodes, with the rules that hold for them
// (docs/architecture/switch.md, node rule 9): who is a member, which leases run, whether
// the table is rejoining. It is pure: a driver that is embedded keeps it as a record, and
// tests hold drivers that are written in another language to it. Fields are exported to be
// stored; callers use the methods. It is not safe for concurrent use.
type Book struct {
	Position    routing.Position `json:"-"` // where the table stands; the driver's
	Server      string           `json:"server"`
	Replication string           `json:"replication"`
	Prior       string           `json:"prior"` // the replication id accepted before

	Previous  uint32           `json:"previous"` // the term before this one
	Base      routing.Revision `json:"base"`     // where the table stood when this term began
	Began     time.Time        `json:"began"`    // when it began, by the table's clock
	Lineage   routing.Lineage  `json:"lineage"`  // its last is this term
	Longest   time.Duration    `json:"longest"`  // of all leases ever asked for
	Rejoining bool             `json:"rejoining"`
	NamesLost bool             `json:"names_lost,omitempty"` // there is the document

	Members map[routing.NodeID]routing.Member   `json:"members"`
	Leases  map[routing.NodeID]LeaseRecord      `json:"leases"`
	Above   map[routing.AgencyID]routing.Agency `json:"above"`
}

// LeaseRecord is a lease with what only the table looks at.
type LeaseRecord struct {
	Lease
	Sequence uint64 `json:"sequence"` // of the last renewal
	Taken    uint32 `json:"taken"`    // the table's term when it was taken
	Proof    bool   `json:"proof"`    // the node came from the history that this server was promoted from
	Anew     bool   `json:"anew"`     // in this term's rejoin the node came on another disk; what it knew isn't known
}

// Note is what a renewal alters for others: an entry of the log.
type Note struct {
	What      string
	Members   []routing.Member
	Above     []routing.Agency
	Documents []routing.Document
}

// NewBook returns the book of a table that was just made.
func NewBook(pos routing.Position, server Server, now time.Time) *Book {
	return &Book{
		Position: pos, Server: server.Run, Replication: server.Replication, Base: pos.Revision, Began: now,
		Lineage: routing.Lineage{{Number: pos.Term, Began: now}},
		Members: map[routing.NodeID]routing.Member{}, Leases: map[routing.NodeID]LeaseRecord{}, Above: map[routing.AgencyID]routing.Agency{},
	}
}

// Clone returns a copy that shares nothing that methods alter.
func (b *Book) Clone() *Book {
	n := *b
	n.Members, n.Leases, n.Above = maps.Clone(b.Members), maps.Clone(b.Leases), maps.Clone(b.Above)
	return &n
}

// Moved reports whether another server answers than the one that was accepted. The
// history of the same process may get another id when its first replica comes; only one
// with a former history was somebody else's replica meanwhile.
func (b *Book) Moved(s Server) bool {
	return b.Server != s.Run || b.Replication != s.Replication && s.Former != ""
}

// Renew takes a renewal at the moment now, or refuses it. agency returns the table's record.
// A note means the next revision, which Position then has. A renewal that is refused alters
// nothing, unless there is a note: of a node whose name belongs to another instance, while
// another server answers, which begins a rejoin.
func (b *Book) Renew(now time.Time, server Server, r *Renewal, agency func(routing.AgencyID) (routing.Agency, bool)) (Renewed, *Note, error) {
	if r.Incarnation != b.Position.Incarnation {
		return Renewed{}, nil, fmt.Errorf("%w: %s, the renewal is for %q", ErrIncarnation, b.Position.Incarnation, r.Incarnation)
	}
	node := r.Member.Node
	was, known := b.Members[node]
	if err := b.mayRenew(now, r, &was, known); err != nil {
		if !errors.Is(err, ErrInstance) || !b.Moved(server) {
			return Renewed{}, nil, err
		}
		// That another server answers is so, whoever asks. Without a rejoin people could not even
		// attest that the instance is gone, where no node has its name.
		note := new(Note)
		b.rejoin(now, server, r, note)
		b.Position.Revision++
		return Renewed{}, note, err
	}
	forked := b.forked(server, r)
	begins := forked || b.Moved(server) || b.above(r)
	if !known && (begins || b.Rejoining) && r.Applied == 0 && len(b.Members) > 0 {
		return Renewed{}, nil, fmt.Errorf("%w: node %s is new and has seen nothing", ErrRejoining, node)
	}
	var note Note
	if begins {
		b.rejoin(now, server, r, &note)
		if forked {
			b.Previous = 0
		}
	}
	unheard := b.Rejoining && known && was.Instance != r.Member.Instance && was.Instance != r.After && !b.spoke(node)
	b.accept(server)
	b.enter(now, r, &was, known, &note)
	for _, a := range r.Above {
		if b.lost(&a, agency) {
			b.Above[a.ID] = a
			note.Above = append(note.Above, a)
			note.add("above")
		}
	}
	behind := b.behind(r)
	b.lease(now, server, r, behind, unheard)
	b.Longest = max(b.Longest, r.Long)
	waits := ""
	if b.Rejoining {
		if waits = b.waits(now); waits == "" {
			b.Rejoining = false
			note.add("rejoined")
			unheard = unheard || b.unheard()
		}
	}
	if (r.NamesLost || unheard) && !b.NamesLost {
		b.NamesLost = true
		d := routing.UnheardDocument()
		if r.NamesLost {
			d = routing.NamesLostDocument(node)
		}
		note.Documents = append(note.Documents, d)
		note.add("names-lost")
	}
	answer := Renewed{Server: server.Run, Replication: server.Replication}
	switch {
	case r.Long == 0:
		answer.Why = "the lease was given up"
	case behind:
		answer.Why = "the node has seen changes that the table lost: its replica has to follow first"
	case b.Rejoining:
		answer.Settled = !r.Lapsed
		answer.Why = waits
	default:
		answer.Settled, answer.Armed = true, true
	}
	if note.What == "" {
		answer.Position = b.Position
		return answer, nil, nil
	}
	b.Position.Revision++
	for i := range note.Members {
		note.Members[i].Revision = b.Position.Revision
		b.Members[node] = note.Members[i]
	}
	for i := range note.Documents {
		note.Documents[i].Revision = b.Position.Revision
	}
	answer.Position = b.Position
	return answer, &note, nil
}

// mayRenew refuses who is not, or no longer, the node.
func (b *Book) mayRenew(now time.Time, r *Renewal, was *routing.Member, known bool) error {
	lease, leased := b.Leases[r.Member.Node]
	if leased && lease.Instance == r.Member.Instance && r.Sequence != 0 && r.Sequence <= lease.Sequence {
		return fmt.Errorf("%w: renewal %d of node %s comes after renewal %d", ErrStale, r.Sequence, r.Member.Node, lease.Sequence)
	}
	switch {
	case !known:
		return nil
	case was.Instance == r.Member.Instance:
		if was.Evicted || was.Attested == was.Instance {
			return fmt.Errorf("%w: %s", ErrEvicted, was)
		}
		return nil
	case r.After == was.Instance, was.Evicted, was.Attested == was.Instance:
		return nil
	}
	end := b.longEnd(&lease)
	if now.After(end) && (b.gaveUp(&lease) || was.ClockRuns && r.Gone.Instance == was.Instance && r.Gone.Counter == lease.Counter) {
		return nil
	}
	return fmt.Errorf("%w: %s has it until %s, and is not fenced", ErrInstance, was, end.UTC().Format(time.RFC3339))
}

// HighestTerm is the highest term that r shows to have been seen.
func (r *Renewal) HighestTerm() uint32 {
	t := r.Term
	for i := range r.Above {
		t = max(t, r.Above[i].Epoch.Term)
	}
	return t
}

// above reports whether r tells of more than this table has had: it went back.
func (b *Book) above(r *Renewal) bool {
	return r.HighestTerm() > b.Position.Term || r.Term == b.Position.Term && r.Applied > b.Position.Revision
}

// forked reports whether r comes from another server that was in this term too: two
// failovers at once, of which the second one's server didn't know the first one's. Nobody
// can go on from what he has then.
func (b *Book) forked(s Server, r *Renewal) bool {
	if r.Term != b.Position.Term {
		return false
	}
	return !r.Began.IsZero() && !r.Began.Equal(b.Began) ||
		r.Replication != "" && r.Replication != s.Replication && r.Replication != b.Replication && r.Replication != b.Prior
}

// behind reports whether marks are of a history that isn't this table's.
func (b *Book) behind(r *Renewal) bool {
	switch {
	case r.Applied == 0:
		return false
	case r.Term == b.Position.Term:
		return r.Applied > b.Position.Revision
	case r.Term != b.Previous || r.Applied > b.Base:
		return true
	}
	// A term of that number may have begun elsewhere, too.
	return !r.Began.IsZero() && !slices.ContainsFunc(b.Lineage, func(t routing.Term) bool { return t.Number == r.Term && t.Began.Equal(r.Began) })
}

// spoke reports whether it is known what a node, as it was before, has seen: it has renewed in
// this term, not behind any more, or gave its lease up in the one before.
func (b *Book) spoke(node routing.NodeID) bool {
	l, ok := b.Leases[node]
	return ok && !l.Behind && (l.Taken == b.Position.Term || l.Taken == b.Previous && l.GivenUp())
}

// unheard reports whether a member that wasn't out of it before this term has not renewed in
// it: what it has seen and the table lost, nobody knows. The first revision of a term may have
// every member that a foundation took over.
func (b *Book) unheard() bool {
	for node, m := range b.Members {
		l := b.Leases[node]
		heard := l.Taken == b.Position.Term && l.Instance == m.Instance && !l.Behind
		if !heard && !((m.Evicted || m.Dead()) && m.Revision <= b.Base+1) {
			return true
		}
	}
	return false
}

// MayFollow returns an ErrRegressed unless the table's log goes on where from is: in this
// term, or in the one before, as far as this server had it.
func (b *Book) MayFollow(from routing.Position) error {
	switch {
	case from.Revision == 0, from.Term == b.Position.Term && from.Revision <= b.Position.Revision,
		from.Term == b.Previous && from.Revision <= b.Base:
		return nil
	}
	return fmt.Errorf("%w: it is at revision %d of term %d, followed was %d of term %d", ErrRegressed, b.Position.Revision, b.Position.Term, from.Revision, from.Term)
}

// rejoin begins a rejoin, in a new term.
func (b *Book) rejoin(now time.Time, server Server, r *Renewal, note *Note) {
	b.begin(now, max(b.Position.Term, r.HighestTerm())+1, b.Position.Revision)
	b.Rejoining = true
	b.accept(server)
	note.add("rejoin")
}

// accept takes a server for the one that keeps the table.
func (b *Book) accept(server Server) {
	if b.Replication != server.Replication {
		b.Prior = b.Replication
	}
	b.Server, b.Replication = server.Run, server.Replication
}

// begin begins a term, at a revision of the one before.
func (b *Book) begin(now time.Time, term uint32, base routing.Revision) {
	b.Previous, b.Base, b.Began = b.Position.Term, base, now
	b.Lineage = b.Lineage.With(routing.Term{Number: term, Base: base, Began: now})
	b.Position.Term = term
}

// enter makes the member's record, if it isn't as it was.
func (b *Book) enter(now time.Time, r *Renewal, was *routing.Member, known bool, note *Note) {
	m := r.Member
	m.Evicted, m.Attested, m.Unconfirmed = false, "", ""
	if known {
		m.Joined, m.Draining, m.Unconfirmed, m.Revision = was.Joined, was.Draining, was.Unconfirmed, was.Revision
		if was.Instance == m.Instance {
			m.Attested = was.Attested
		}
		if m == *was {
			return
		}
	}
	if !known || was.Instance != m.Instance {
		m.Joined = now.UTC()
		note.add("join")
	} else {
		note.add("member")
	}
	b.Members[m.Node] = m
	note.Members = append(note.Members, m)
}

// lost reports whether a record that a node has seen isn't followed by the table's, and
// nobody has said so yet.
func (b *Book) lost(a *routing.Agency, agency func(routing.AgencyID) (routing.Agency, bool)) bool {
	if have, ok := agency(a.ID); ok {
		c := have.Epoch.Compare(a.Epoch)
		if c > 0 || c == 0 && have.Answer() == a.Answer() {
			return false
		}
	}
	said, ok := b.Above[a.ID]
	return !ok || said.Epoch.Compare(a.Epoch) < 0
}

// lease writes the node's lease.
func (b *Book) lease(now time.Time, server Server, r *Renewal, behind, unheard bool) {
	was := b.Leases[r.Member.Node]
	l := LeaseRecord{
		Lease: Lease{
			Node: r.Member.Node, Instance: r.Member.Instance, Counter: was.Counter + 1,
			Server: server.Run, Term: r.Term, Applied: r.Applied, Behind: behind,
			Drained: map[routing.AgencyID]routing.Epoch{}, Doubts: r.Doubts, Counts: r.Counts,
		},
		Sequence: r.Sequence, Taken: b.Position.Term,
		Proof: r.Replication != "" && r.Replication == server.Former || was.Proof && was.Taken == b.Position.Term,
		Anew:  unheard || was.Anew && was.Taken == b.Position.Term,
	}
	if r.Long > 0 {
		l.ShortEnd, l.LongEnd = now.Add(r.Short), now.Add(r.Long)
	}
	if was.Taken == l.Taken && was.Instance == l.Instance {
		maps.Copy(l.Drained, was.Drained)
	}
	for _, d := range r.Drained {
		l.Drained[d.Agency] = d.Epoch
	}
	b.Leases[r.Member.Node] = l
}

// shortEnd and longEnd are when a lease is over for sure. The renewals of a server that is
// gone may be missing here: what they granted lasted no longer than the longest lease
// after the takeover.
func (b *Book) shortEnd(l *LeaseRecord) time.Time { return b.end(l, l.ShortEnd) }
func (b *Book) longEnd(l *LeaseRecord) time.Time  { return b.end(l, l.LongEnd) }

func (b *Book) end(l *LeaseRecord, end time.Time) time.Time {
	if l.Taken == b.Position.Term {
		return end
	}
	if after := b.Began.Add(b.Longest); after.After(end) {
		return after
	}
	return end
}

// waits says what keeps the rejoin from ending; empty: nothing.
func (b *Book) waits(now time.Time) string {
	total, renewed, behind, proven, anew := 0, 0, 0, 0, 0
	for node, m := range b.Members {
		if m.Evicted || m.Dead() {
			continue
		}
		total++
		l, ok := b.Leases[node]
		if !ok || l.Taken != b.Position.Term || l.Instance != m.Instance {
			continue
		}
		renewed++
		if l.Behind {
			behind++
		}
		if l.Proof {
			proven++
		}
		if l.Anew {
			anew++
		}
	}
	switch {
	case anew > 0:
	case renewed == total && behind == 0:
		return ""
	case behind == 0 && 2*renewed > total && proven == renewed && now.After(b.Began.Add(b.Longest+RejoinGrace)):
		return ""
	}
	return rejoinWaits(renewed, total, behind, anew)
}

// OnAnotherDisk is in what a rejoin waits for while only people can end it: what nodes had seen
// that lost their disks.
const OnAnotherDisk = "came on another disk: people have to end it"

func rejoinWaits(renewed, total, behind, anew int) string {
	s := fmt.Sprintf("rejoining: %d of %d nodes have renewed, %d of them have yet to follow", renewed, total, behind)
	if anew > 0 {
		s += fmt.Sprintf(", %d "+OnAnotherDisk, anew)
	}
	return s
}

func (n *Note) add(what string) {
	switch n.What {
	case "":
		n.What = what
	default:
		if n.What != what && (len(n.What) < len(what) || n.What[len(n.What)-len(what):] != what) {
			n.What += ", " + what
		}
	}
}

// Check answers a check.
func (b *Book) Check(now time.Time, server Server, c *Check, agency func(routing.AgencyID) (routing.Agency, bool)) error {
	if c.Incarnation != b.Position.Incarnation {
		return fmt.Errorf("%w: %s, the check is for %q", ErrIncarnation, b.Position.Incarnation, c.Incarnation)
	}
	if b.Moved(server) || b.Rejoining {
		return ErrRejoining
	}
	m, ok := b.Members[c.Node]
	switch {
	case !ok:
		return fmt.Errorf("%w: node %s is unknown", ErrNotMember, c.Node)
	case m.Evicted, m.Attested == c.Instance:
		return fmt.Errorf("%w: %s", ErrEvicted, &m)
	case m.Instance != c.Instance:
		return fmt.Errorf("%w: %s has it", ErrInstance, &m)
	}
	l, ok := b.Leases[c.Node]
	if !ok || l.Taken != b.Position.Term || l.Instance != c.Instance || l.Behind || now.After(l.ShortEnd) {
		return fmt.Errorf("%w: node %s: its lease is over", ErrNotMember, c.Node)
	}
	if c.Mapped != 0 && (c.Mapped != b.Position.Mapped || c.Term != b.Position.Term || b.NamesLost) {
		return fmt.Errorf("%w: names were changed or lost since revision %d of term %d", ErrStale, c.Mapped, c.Term)
	}
	for _, want := range c.Agencies {
		a, ok := agency(want.Agency)
		_, above := b.Above[want.Agency]
		if !ok || a.Epoch != want.Epoch || !a.Open() || above {
			return fmt.Errorf("%w: agency %s is not open at epoch %s", ErrStale, want.Agency, want.Epoch)
		}
	}
	return nil
}

// Nodes returns what is known at the moment now.
func (b *Book) Nodes(now time.Time, server Server) Nodes {
	n := Nodes{Position: b.Position, Time: now.UTC(), Server: server.Run, Leases: make(map[routing.NodeID]Lease, len(b.Leases))}
	switch {
	case b.Moved(server):
		n.Rejoining = "rejoining: no node has renewed with this server"
	case b.Rejoining:
		if n.Rejoining = b.waits(now); n.Rejoining == "" {
			n.Rejoining = "rejoining: ends with the next renewal"
		}
	}
	for _, m := range b.Members {
		n.Members = append(n.Members, m)
	}
	SortMembers(n.Members)
	for node, l := range b.Leases {
		l.ShortEnd, l.LongEnd = l.ShortEnd.UTC(), l.LongEnd.UTC()
		if l.Taken != b.Position.Term {
			l.Drained = nil
		}
		n.Leases[node] = l.Lease
	}
	return n
}
