package table

import (
	"context"
	"errors"
	"fmt"
	"time"

	"mailcutover/routing"
)

// Protocol is the version of what nodes expect of each other: the table's records, the
// node rules and the steps of operations. Members of another one may serve; no operation
// begins while there is one.
const Protocol = 1

// Errors about nodes. They are answers of a table that was reached: none of them wraps
// ErrUnavailable.
var (
	// ErrRejoining is a table that another server serves now than before, or that came
	// back: until the members have shown what they know, only what closes is taken
	// (docs/architecture/switch.md, node rule 9).
	ErrRejoining = errors.New("table waits for its nodes to rejoin")

	// ErrTerm is a change computed in another term than the table's. The replica has the
	// new one with its next revisions.
	ErrTerm = errors.New("table is in another term")

	// ErrGuard is a change of which a condition about nodes or freezes doesn't hold (yet).
	// Nothing was changed and its id is unused.
	ErrGuard = errors.New("a condition of the change doesn't hold")

	// ErrEvicted is a node that was evicted, or of which people said that it is dead: it
	// must decide nothing, and may come back as another instance.
	ErrEvicted = errors.New("node is evicted")

	// ErrInstance is a node whose name belongs to another instance that isn't proven gone.
	ErrInstance = errors.New("node's name belongs to another instance")

	// ErrNotMember is a check or a guard that names a node without a lease.
	ErrNotMember = errors.New("node has no lease")
)

// Coordination is the part of a table that lets several nodes act as one.
type Coordination interface {
	// Renew prolongs a node's lease and takes note of what it reports, in one write that
	// only the server takes which may also take changes. It makes a revision only where
	// it alters something for the others: a new member or instance, a rejoin that begins
	// or ends, records that the table lost (they are in the log as Above). A renewal that
	// got no answer may have happened; the next one settles that. ErrEvicted, ErrInstance,
	// ErrIncarnation, ErrStale (of [Renewal].Sequence) and ErrRejoining (of a new node that
	// has seen nothing) give no right to decide and don't change that of anybody. With
	// ErrInstance a rejoin may begin, as with any renewal after another server took over.
	Renew(ctx context.Context, r Renewal) (Renewed, error)

	// Check returns nil if every version is the agency's newest, open one, and what it says of
	// names is so, and the member has a lease, asked in a way that a server which lost its replicas refuses. ErrStale
	// names the first that isn't; ErrRejoining, ErrEvicted, ErrInstance and ErrNotMember
	// say what else is wrong. It changes nothing.
	Check(ctx context.Context, c Check) error

	// Nodes reads all members and their leases at one moment.
	Nodes(ctx context.Context) (Nodes, error)

	// Operations returns the operations that the table still has, the newest first: all
	// that are open, and at least the last 1,000 that ended.
	Operations(ctx context.Context) ([]routing.Operation, error)
}

// AgencyEpoch names one version of an agency's record.
type AgencyEpoch struct {
	Agency routing.AgencyID
	Epoch  routing.Epoch
}

// Renewal is what a node says to keep its right to decide. All of it is true at the
// moment of sending, and stays true but for what a later renewal says.
type Renewal struct {
	Incarnation routing.Incarnation

	// Member is who renews. Joined and Revision are the table's; Draining, Evicted, Attested
	// and Unconfirmed are not set by a renewal.
	Member routing.Member

	// After is the instance that this one follows on the same data directory, which it
	// holds under an exclusive lock: that instance's process is gone. Empty: there was
	// none, or its name is not known.
	After routing.InstanceID

	// Gone is the fence of another instance of this node that it can't name in After, as
	// this process has seen it: of the kind long. The zero Fence: none.
	Gone Fence

	// Short and Long are for how long the node will decide for armed and for settled
	// agencies after the moment of sending; Long is longer. Both equal: the node decides
	// nothing from now on until it renews again (it stops, or is being drained), and they
	// are for how long something that it sent may still arrive, or 0. The table adds them
	// to its own clock.
	Short, Long time.Duration

	// Sequence grows with each renewal of the instance, so that one that was on its way for
	// long doesn't undo a later one: ErrStale. 0: the order isn't looked at.
	Sequence uint64

	// Lapsed says that the node's long lease was over, or that this is its first renewal:
	// it decides nothing at the moment of sending.
	Lapsed bool

	// Term and Applied are what the fsynced marks of the node say (node rule 1): every
	// change up to that revision of that term was seen, and is acted on. Marks compare
	// by term first.
	Term    uint32
	Applied routing.Revision

	// Began is when Term began, by the lineage of the node's copy: two servers may have begun
	// a term of that number. Zero: it isn't known.
	Began time.Time

	// Above are records in the node's marks that the table's don't follow: of a higher
	// epoch, or of the same with another answer (State.Regressed).
	Above []routing.Agency

	// NamesLost says that the node has seen names (mailboxes, fixed addresses, domains) in a
	// change that the table lost, so that nobody knows any more which ones there are. The
	// table keeps that as the document [routing.NamesLost], until people remove it.
	NamesLost bool

	// Replication is the replication id of the server that the node last renewed with;
	// empty: none, or no Redis. After a failover it proves a promotion.
	Replication string

	// Drained are the agencies in whose present epoch nothing older is under way on this
	// node: at least all of them that are closed. An agency that isn't named is as it was
	// in the renewal before.
	Drained []AgencyEpoch

	// Doubts are the agencies with messages in doubt, all of them.
	Doubts []Doubt

	// Counts are the agencies with held or waiting mail on this node, all of them.
	Counts []Count
}

// Doubt says until when messages of an agency may still arrive at a platform.
type Doubt struct {
	Agency   routing.AgencyID `json:"agency"`
	Messages int              `json:"messages"`
	Until    time.Time        `json:"until"` // by the node's clock; for people
}

// Count is how much of an agency's mail is in a node's spool.
type Count struct {
	Agency  routing.AgencyID `json:"agency"`
	Held    int              `json:"held"`
	Waiting int              `json:"waiting"`
}

// Renewed is the table's answer to a renewal.
type Renewed struct {
	// Position is where the table stands. A node whose lease had lapsed decides nothing
	// before its replica is there.
	Position routing.Position

	// Settled and Armed say for what the node may decide until its lease ends. Both false:
	// for nothing; then Why says what has to happen first.
	Settled, Armed bool
	Why            string

	// Server is the run id of the server that answered, Replication its replication id;
	// both are empty where there is no Redis.
	Server, Replication string
}

// Check asks whether these versions are still the agencies' newest ones, on behalf of a
// member with a lease; or whether nobody else can have a name; or both.
type Check struct {
	Incarnation routing.Incarnation
	Node        routing.NodeID
	Instance    routing.InstanceID
	Agencies    []AgencyEpoch // at most MaxChecked; none only if Mapped is set

	// Mapped, unless 0, is that of a copy in this Term that lacks a name. ErrStale if any name
	// was changed since, or names were lost.
	Mapped routing.Revision
	Term   uint32
}

// MaxChecked is the number of agencies in one check.
const MaxChecked = 1000

// Lease is a node's lease as the table has it. Ends that are equal say that the node gave
// it up: at once, or as soon as nothing that it sent can arrive any more.
type Lease struct {
	Node     routing.NodeID
	Instance routing.InstanceID
	Counter  uint64 // grows with each renewal of any instance of the node; what a fence looks at

	// ShortEnd and LongEnd are the ends by the table's clock; zero: given up.
	ShortEnd, LongEnd time.Time

	Server  string // run id of the server that took the last renewal
	Term    uint32
	Applied routing.Revision
	Behind  bool // its marks are above what this server had when it took over

	Drained map[routing.AgencyID]routing.Epoch // reported to Server
	Doubts  []Doubt
	Counts  []Count
}

// GivenUp reports whether the node itself ended the lease.
func (l *Lease) GivenUp() bool { return l.ShortEnd.Equal(l.LongEnd) }

// Nodes is what the table knows of its nodes at one moment.
type Nodes struct {
	Position  routing.Position
	Time      time.Time // the table's clock
	Server    string
	Rejoining string // empty, or what the rejoin waits for
	Members   []routing.Member
	Leases    map[routing.NodeID]Lease
}

// Guard is what must hold for a change besides the records that it was computed from. The
// zero Guard asks for nothing but that the table isn't rejoining.
type Guard struct {
	// Unfrozen are agencies that must not be frozen, alone or with all others.
	Unfrozen []routing.AgencyID

	// Applied, unless 0: each member has marks at or above this revision.
	Applied routing.Revision

	// Drained: each member has reported these agencies drained, at these epochs or later,
	// to the server that takes the change.
	Drained []AgencyEpoch

	// Base, unless 0, is the revision that a member had to have applied for its short fence
	// to count: who had it knew that the agencies are armed. 0: it is Applied.
	Base routing.Revision

	// Fenced are members that need not have applied or drained. A lease from before a
	// takeover is over only as long after that as the longest lease ever granted lasts: the
	// new server may not know its last renewal.
	Fenced []Fence

	// Protocol, unless 0, is that of every member.
	Protocol int

	// Rejoining lets the change happen while the table is rejoining. It is for what only
	// closes, and for what people decide in order to end it.
	Rejoining bool

	// EndRejoin ends the rejoin with this change: people accept that the table is as it is.
	// A rejoin has to have begun: until a node has renewed with a new server, nothing is
	// taken by it.
	EndRejoin bool
}

// Fence is the proof that a silent member can deliver no more
// (docs/architecture/switch.md, "The fence"). The table looks at the part of it that it
// knows; that the counter stood still for long enough, the caller has seen on his own
// monotonic clock.
type Fence struct {
	Node     routing.NodeID
	Instance routing.InstanceID
	Counter  uint64 // that the lease had all the time
	Kind     FenceKind
}

// FenceKind is what a fence rests on.
type FenceKind string

const (
	// FenceShort rests on the end of the short lease. It counts for members that had
	// applied Guard.Base, so that they knew that the agencies are armed.
	FenceShort FenceKind = "short"
	// FenceLong rests on the end of the long lease. It counts for members whose clocks go on
	// while their machines are stopped, and for those that gave their leases up.
	FenceLong FenceKind = "long"
	// FenceAttested rests on people's word about this instance (Member.Attested).
	FenceAttested FenceKind = "attested"
)

// Check reports what is wrong with r itself, whatever the table holds, by an error that
// wraps [ErrBadChange]. Drivers call it first.
func (r *Renewal) Check() error {
	if _, err := routing.ParseNodeID(string(r.Member.Node)); err != nil {
		return fmt.Errorf("%w: renewal: %w", ErrBadChange, err)
	}
	node := r.Member.Node
	switch {
	case !word(string(r.Member.Instance)), r.After != "" && !word(string(r.After)):
		return fmt.Errorf("%w: renewal of node %s: instance %q after %q: want words of at most 100 characters", ErrBadChange, node, r.Member.Instance, r.After)
	case r.Gone != (Fence{}) && (r.Gone.Node != node || r.Gone.Kind != FenceLong || !word(string(r.Gone.Instance)) || r.Gone.Counter >= maxWhole):
		return fmt.Errorf("%w: renewal of node %s: fence of instance %q of node %q: want a long one of the node itself", ErrBadChange, node, r.Gone.Instance, r.Gone.Node)
	case r.Replication != "" && !word(r.Replication):
		return fmt.Errorf("%w: renewal of node %s: replication %q: want a word", ErrBadChange, node, r.Replication)
	case (r.Term == 0) != (r.Applied == 0):
		return fmt.Errorf("%w: renewal of node %s: applied revision %d of term %d: want both or none", ErrBadChange, node, r.Applied, r.Term)
	case r.Applied >= maxWhole, r.Sequence >= maxWhole:
		return fmt.Errorf("%w: renewal %d of node %s: applied revision %d: want less than 2^53", ErrBadChange, r.Sequence, node, r.Applied)
	case len(r.Above)+len(r.Drained) > MaxRecords:
		return fmt.Errorf("%w: renewal of node %s: %d records: want at most %d", ErrBadChange, node, len(r.Above)+len(r.Drained), MaxRecords)
	case (r.Short == 0) != (r.Long == 0), r.Short < 0, r.Long < r.Short:
		return fmt.Errorf("%w: renewal of node %s: leases of %s and %s: want 0 and 0, or a short and a longer one", ErrBadChange, r.Member.Node, r.Short, r.Long)
	}
	for i := range r.Above {
		if _, err := routing.ParseAgencyID(string(r.Above[i].ID)); err != nil {
			return fmt.Errorf("%w: renewal of node %s: %w", ErrBadChange, node, err)
		}
	}
	for _, d := range r.Drained {
		if _, err := routing.ParseAgencyID(string(d.Agency)); err != nil {
			return fmt.Errorf("%w: renewal of node %s: %w", ErrBadChange, node, err)
		}
	}
	return nil
}

// maxWhole is above what drivers can count to that know only floating-point numbers.
const maxWhole = 1 << 53

// word reports whether s can stand as a word in a record.
func word(s string) bool {
	if len(s) < 1 || len(s) > 100 || s == "-" {
		return false
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// Check reports what is wrong with c itself, by an error that wraps [ErrBadChange].
// Drivers call it first.
func (c *Check) Check() error {
	if n := len(c.Agencies); n < 1 && c.Mapped == 0 || n > MaxChecked || c.Node == "" || c.Instance == "" {
		return fmt.Errorf("%w: check of %d agencies by node %q, instance %q: want 1 to %d, or names, and who asks", ErrBadChange, n, c.Node, c.Instance, MaxChecked)
	}
	return nil
}
