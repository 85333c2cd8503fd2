package operation

import (
	"fmt"
	"strings"
	"time"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

// Waits is what an operation waits for at one member.
type Waits struct {
	Node  routing.NodeID `json:"node"`
	State MemberState    `json:"state"`
	Text  string         `json:"text,omitempty"`  // in words
	Until time.Time      `json:"until,omitzero"`  // when it ends by itself: a doubt, a fence; by this node's clock
	Fence string         `json:"fence,omitempty"` // kind of the fence that it stands behind, or that is awaited
}

// MemberState is how a member stands to what an operation wants of it.
type MemberState string

const (
	MemberReady   MemberState = "ready"   // drained, or has applied what it should
	MemberWaits   MemberState = "waits"   // it answers, and waits for something itself
	MemberDoubts  MemberState = "doubts"  // it has messages in doubt
	MemberSilent  MemberState = "silent"  // it doesn't answer
	MemberFenced  MemberState = "fenced"  // it doesn't answer, and can deliver no more
	MemberStopped MemberState = "stopped" // it gave up its lease
)

// silence is after how long without a renewal a member counts as silent. It says so to
// people; nothing rests on it.
const silence = 3 * time.Second

// wish is what an operation wants of every member, and what it takes for a fence.
type wish struct {
	drained []table.AgencyEpoch
	applied routing.Revision // looked at only if drained is empty

	base  routing.Revision // who had it knew of the arming, so that the short fence counts
	limit time.Duration    // for how long something may be on its way after the lease
	alone bool             // one person's word that a node is dead is enough
}

func (w wish) granted(n *table.Nodes, m *routing.Member, l *table.Lease) bool {
	if l.Server != n.Server || l.Instance != m.Instance {
		return false
	}
	if len(w.drained) == 0 {
		return knows(n, l, w.applied)
	}
	for _, d := range w.drained {
		if at, ok := l.Drained[d.Agency]; !ok || at.Compare(d.Epoch) < 0 {
			return false
		}
	}
	return true
}

// knows reports whether the marks of a member have the revision.
func knows(n *table.Nodes, l *table.Lease, rev routing.Revision) bool {
	return l.Term >= n.Position.Term && l.Applied >= rev
}

// stands is how long each member's renewal counter has stood still before this runner's
// eyes, on its monotonic clock. It belongs to one operation.
type stands struct {
	leases  Leases
	members map[routing.NodeID]*standing
}

type standing struct {
	instance routing.InstanceID
	counter  uint64
	server   string // of the table, not of the lease: another one counts anew
	since    time.Time
	short    time.Duration // that the short lease had still to go when first seen
	long     time.Duration
}

func newStands(l Leases) *stands {
	return &stands{leases: l, members: make(map[routing.NodeID]*standing)}
}

// look takes note of the members at this moment.
func (s *stands) look(now time.Time, n *table.Nodes) {
	for i := range n.Members {
		m := &n.Members[i]
		l := n.Leases[m.Node]
		was := s.members[m.Node]
		if was == nil || was.instance != l.Instance || was.counter != l.Counter || was.server != n.Server {
			s.members[m.Node] = &standing{
				instance: l.Instance, counter: l.Counter, server: n.Server, since: now,
				short: max(s.leases.Short, l.ShortEnd.Sub(n.Time)), long: max(s.leases.Long, l.LongEnd.Sub(n.Time)),
			}
		}
	}
}

// fence returns the fence of a silent member, or when there will be one: for how long its
// counter has to stand still yet. ok is false if time alone proves nothing.
func (s *stands) fence(now time.Time, n *table.Nodes, m *routing.Member, w wish) (f table.Fence, left time.Duration, ok bool) {
	l, known := n.Leases[m.Node]
	f = table.Fence{Node: m.Node, Instance: m.Instance, Counter: l.Counter}
	switch {
	case m.Attested != "" && m.Attested == m.Instance && (w.alone || m.Unconfirmed == ""):
		f.Kind = table.FenceAttested
		return f, 0, true
	case !known || l.Instance != m.Instance:
		return f, 0, false // it has not renewed, or a table without its lease came back
	case l.GivenUp() && l.Server == n.Server:
		f.Kind = table.FenceLong
		if more := l.LongEnd.Sub(n.Time); !l.LongEnd.IsZero() && more >= 0 {
			left = more + time.Millisecond
		}
		return f, left, true
	}
	at := s.members[m.Node]
	if at == nil {
		return f, 0, false
	}
	end, lease := l.ShortEnd, at.short
	f.Kind = table.FenceShort
	if !knows(n, &l, w.base) {
		if !m.ClockRuns {
			return f, 0, false
		}
		end, lease, f.Kind = l.LongEnd, at.long, table.FenceLong
	}
	left = at.since.Add(lease + w.limit + s.leases.Margin).Sub(now)
	if more := end.Sub(n.Time); more >= 0 {
		left = max(left, more+time.Millisecond)
	}
	return f, max(0, left), true
}

// judge says of each member that isn't evicted how it stands to w, and with which fences
// a change may go on. ready: with all of them.
func (s *stands) judge(now time.Time, n *table.Nodes, w wish, agencies []routing.AgencyID) (all []Waits, fences []table.Fence, ready bool) {
	ready = true
	for i := range n.Members {
		m := &n.Members[i]
		if m.Evicted {
			continue
		}
		one := s.member(now, n, m, w, agencies)
		if one.fence != nil {
			fences = append(fences, *one.fence)
		}
		all = append(all, one.Waits)
		ready = ready && one.ready
	}
	return all, fences, ready
}

type judged struct {
	Waits
	fence *table.Fence
	ready bool
}

func (s *stands) member(now time.Time, n *table.Nodes, m *routing.Member, w wish, agencies []routing.AgencyID) judged {
	l := n.Leases[m.Node]
	one := judged{Waits: Waits{Node: m.Node}}
	if w.granted(n, m, &l) {
		one.State, one.ready = MemberReady, true
		return one
	}
	fence, left, possible := s.fence(now, n, m, w)
	if possible && left == 0 {
		one.State, one.Fence, one.fence, one.ready = MemberFenced, string(fence.Kind), &fence, true
		one.Text = "can deliver no more: " + fenceText(fence.Kind, w.limit)
		if l.GivenUp() && fence.Kind == table.FenceLong {
			one.State, one.Text = MemberStopped, "has given up its lease"
		}
		return one
	}
	still := time.Duration(0)
	if at := s.members[m.Node]; at != nil {
		still = now.Sub(at.since)
	}
	if alive := n.Time.Before(l.ShortEnd) && still < silence; alive {
		one.State = MemberWaits
		one.Text = "has not yet seen the change"
		if len(w.drained) > 0 {
			one.Text = "waits for answers to final dots, or for sessions"
		}
		var doubts []string
		for _, d := range l.Doubts {
			for _, id := range agencies {
				if d.Agency == id {
					doubts = append(doubts, fmt.Sprintf("%d of %s in doubt until %s", d.Messages, id, d.Until.UTC().Format(time.RFC3339)))
					if d.Until.After(one.Until) {
						one.Until = d.Until
					}
				}
			}
		}
		if len(doubts) > 0 {
			one.State, one.Text = MemberDoubts, strings.Join(doubts, ", ")
		}
		return one
	}
	one.State = MemberSilent
	one.Text = fmt.Sprintf("silent for %s", still.Round(time.Second))
	if possible {
		one.Fence, one.Until = string(fence.Kind), now.Add(left)
		one.Text += fmt.Sprintf(", fenced in %s (%s)", left.Round(time.Second), fenceText(fence.Kind, w.limit))
	} else {
		one.Text += "; " + noFence(m)
	}
	return one
}

// noFence says why time alone doesn't fence a silent member, and what does.
func noFence(m *routing.Member) string {
	if m.Unconfirmed != "" && m.Attested == m.Instance {
		return fmt.Sprintf("one person alone attested that it is dead: a second one has to confirm %s", m.Unconfirmed)
	}
	return "no time proves that it can deliver no more: attest that it is off, or evict it"
}

// fenceText says what a fence rests on; limit is what was waited for after the lease.
func fenceText(k table.FenceKind, limit time.Duration) string {
	over := " lease and the platform's limit are over"
	if limit == 0 {
		over = " lease is over"
	}
	switch k {
	case table.FenceShort:
		return "its short" + over
	case table.FenceLong:
		return "its long" + over
	default:
		return "people said so; what it had under way is not known"
	}
}

// waiting puts what is still awaited into one line; empty: nothing.
func waiting(all []Waits) string {
	var parts []string
	for i := range all {
		switch all[i].State {
		case MemberReady, MemberFenced, MemberStopped:
		default:
			parts = append(parts, fmt.Sprintf("%s: %s", all[i].Node, all[i].Text))
		}
	}
	return strings.Join(parts, "; ")
}
