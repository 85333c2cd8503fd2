package cluster

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"mailcutover/mail"
)

// Record is what was seen from outside in a run. All times are of one clock.
type Record struct {
	Agencies map[string]Agency
	Sent     []Sent
	Arrived  []Arrival
	Switches []Switch
	Faults   []Fault

	// Doubts are the deliveries that the nodes' ledgers can't say to have happened once, by
	// transaction, and how many recipients each has.
	Doubts map[mail.TransactionID]int

	// Relayed are the messages of which a relay logged that it may have sent them more than once,
	// and how often.
	Relayed map[int]int

	// Waited are the messages that went into a spool since a platform couldn't take them: others
	// may overtake them, unlike those that are held.
	Waited map[mail.TransactionID]bool

	// Routes are the platforms that the nodes' ledgers name for an agency at an epoch.
	Routes map[Route]bool

	// Visits are the logins that the platforms took, Sessions what the clients saw of theirs;
	// Handed and Submitted the same of messages by submission. Lifetime is after how long a
	// platform ends any login.
	Visits    []Visit
	Sessions  []Session
	Handed    []Handed
	Submitted []Submission
	Lifetime  time.Duration
}

// Agency is where an agency was at the beginning.
type Agency struct {
	Domain string // of its addresses
	Home   string // platform
	Armed  bool   // so the table is asked for each message, and may be too slow to answer
}

// Sent is one message for one recipient, with all attempts at it.
type Sent struct {
	ID    int
	Rcpt  string
	Node  int  // that it was sent to, each time
	Relay bool // a relay took it, and sent it on: to which node, and in which order, nobody has seen
	Tries []Try
}

// Try is one attempt. Answer is empty if none came.
type Try struct {
	Began, Ended time.Time
	Dotted       bool // the final dot was sent
	Answer       string
}

// taken returns the attempt that was answered 250.
func (s *Sent) taken() (Try, bool) {
	if len(s.Tries) > 0 {
		if last := s.Tries[len(s.Tries)-1]; last.Dotted && strings.HasPrefix(last.Answer, "250") {
			return last, true
		}
	}
	return Try{}, false
}

// open counts the dots that got no answer.
func (s *Sent) open() (n int) {
	for _, t := range s.Tries {
		if t.Dotted && t.Answer == "" {
			n++
		}
	}
	return n
}

// Arrival is a message that a platform took for one recipient.
type Arrival struct {
	Platform    string
	ID          int
	Rcpt        string
	Transaction mail.TransactionID // that of the node's Received line
	At          time.Time          // when the platform decided to take it
	Null        bool               // its sender was the null sender
}

// Switch is an operation as seen from outside.
type Switch struct {
	Agency   string
	Kind     string
	From, To string // platforms
	Asked    time.Time
	Closed   time.Time // as the operation says; zero: not known
	Told     time.Time // when its end was told
	Done     bool      // told as done; else as aborted or refused
	ID       string    // of the operation
	Copies   bool      // From was given up for dead: what it took was delivered to To from retained copies
}

// Fault is something that was done to nodes, and may keep them from serving.
type Fault struct {
	Name     string
	Node     int    // -1: all
	Agency   string // that they may put off mail of; empty: any
	From, To time.Time
}

// Route says where a node delivered mail of an agency at an epoch.
type Route struct {
	Agency, Epoch, Platform string
}

// Verdict is what [Check] found. The first five are faults of the product.
type Verdict struct {
	Lost      []string // answered 250, and on no platform
	Late      []string // taken by the losing platform after the success of a switch was told
	Misrouted []string // taken by a platform, or for a mailbox, where it never belonged
	Repeated  []string // more copies than are named as in doubt, or were sent
	Disorder  []string // of a mailbox, one node's mail in another order than it was taken
	Disturbed []string // other agencies' mail put off by a node that nothing was done to
	Refused   []string // answered 5yz

	Messages   int // sent
	Taken      int // answered 250
	Copies     int // more than one of a message
	Brought    int // retained copies that were delivered since a platform was dead
	Named      int // deliveries that ledgers name as in doubt
	Slow       int // times that other agencies were put off since the table, for armed ones, or a platform within its connection limit gave no answer in time
	Open       int // dots that no answer came to, as the senders saw it
	Done, Undo int // switches that were done, and that ended where they began
	Visits     int // logins that platforms took
	Submitted  int // messages by submission
}

// Bad returns everything that must not be.
func (v *Verdict) Bad() []string {
	var all []string
	for _, kind := range []struct {
		name  string
		found []string
	}{
		{"lost", v.Lost}, {"late", v.Late}, {"misrouted", v.Misrouted}, {"repeated", v.Repeated},
		{"out of order", v.Disorder}, {"disturbed", v.Disturbed}, {"refused", v.Refused},
	} {
		for i, text := range kind.found {
			if i == 10 {
				all = append(all, fmt.Sprintf("%s: and %d more", kind.name, len(kind.found)-i))
				break
			}
			all = append(all, kind.name+": "+text)
		}
	}
	return all
}

// String is one line of counts.
func (v *Verdict) String() string {
	return fmt.Sprintf("%d messages, %d taken, lost %d, late %d, misrouted %d, repeated %d, out of order %d, others disturbed %d (and %d times for slowness), refused %d; %d copies too many, %d deliveries named as in doubt, %d dots without answer; %d logins, %d submissions; switches: %d done, %d undone",
		v.Messages, v.Taken, len(v.Lost), len(v.Late), len(v.Misrouted), len(v.Repeated), len(v.Disorder), len(v.Disturbed), v.Slow, len(v.Refused), v.Copies, v.Named, v.Open, v.Visits, v.Submitted, v.Done, v.Undo)
}

// message is what is known of one id.
type message struct {
	sent   *Sent
	copies []Arrival
}

// Check judges a record.
func Check(r *Record) *Verdict {
	v := &Verdict{Messages: len(r.Sent), Named: total(r.Doubts)}
	all := make(map[int]*message, len(r.Sent))
	for i := range r.Sent {
		all[r.Sent[i].ID] = &message{sent: &r.Sent[i]}
	}
	arrived := slices.Clone(r.Arrived)
	slices.SortStableFunc(arrived, func(a, b Arrival) int { return a.At.Compare(b.At) })
	for _, a := range arrived {
		m := all[a.ID]
		if m == nil || m.sent.Rcpt != a.Rcpt {
			v.Misrouted = append(v.Misrouted, fmt.Sprintf("message %d is at %s for %s, for whom it was not", a.ID, a.Platform, a.Rcpt))
			continue
		}
		if r.brought(a, m.copies) {
			v.Brought++
			continue
		}
		m.copies = append(m.copies, a)
		r.checkPlace(v, event{fmt.Sprintf("message %d (%s)", a.ID, a.Transaction), a.Platform, a.Rcpt, a.At})
	}
	for _, id := range sortedIDs(all) {
		r.checkCopies(v, all[id])
	}
	r.checkOrder(v, arrived, all)
	r.checkOthers(v)
	r.checkRoutes(v)
	r.checkVisits(v)
	r.checkSessions(v)
	r.checkSubmissions(v)
	for _, s := range r.Switches {
		if s.Done {
			v.Done++
		} else {
			v.Undo++
		}
	}
	return v
}

// brought reports whether an arrival is a retained copy of what a dead platform had taken: from
// the null sender, under the same transaction, where the agency went back to.
func (r *Record) brought(a Arrival, before []Arrival) bool {
	id, _, _ := r.agencyOf(a.Rcpt)
	return a.Null && slices.ContainsFunc(r.Switches, func(s Switch) bool {
		return s.Copies && s.Agency == id && s.To == a.Platform && !a.At.Before(s.Asked) && slices.ContainsFunc(before, func(b Arrival) bool {
			return b.Platform == s.From && b.Transaction == a.Transaction && !b.Null
		})
	})
}

func total(m map[mail.TransactionID]int) (n int) {
	for _, k := range m {
		n += k
	}
	return n
}

func sortedIDs(all map[int]*message) []int {
	ids := make([]int, 0, len(all))
	for id := range all {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// agencyOf returns the agency of an address.
func (r *Record) agencyOf(rcpt string) (string, Agency, bool) {
	_, domain, _ := strings.Cut(rcpt, "@")
	for id, a := range r.Agencies {
		if a.Domain == domain {
			return id, a, true
		}
	}
	return "", Agency{}, false
}

// event is what happened on a platform for an address.
type event struct {
	what     string
	platform string
	address  string
	at       time.Time
}

// checkPlace holds what happened on a platform to the switches of its agency: after one was
// told as done only its winning side takes anything, until the next is asked for; and while one
// is under way, or was in vain, nobody but the two sides.
func (r *Record) checkPlace(v *Verdict, e event) {
	id, agency, ok := r.agencyOf(e.address)
	if !ok {
		v.Misrouted = append(v.Misrouted, fmt.Sprintf("%s for %s: no agency of ours", e.what, e.address))
		return
	}
	at, last := agency.Home, ""
	for i := range r.Switches {
		s := &r.Switches[i]
		switch {
		case s.Agency != id || e.at.Before(s.Asked):
			continue
		case e.at.Before(s.Told) && s.Done:
			if e.platform == s.From || e.platform == s.To && !e.at.Before(s.Closed) {
				return
			}
			v.Misrouted = append(v.Misrouted, fmt.Sprintf("%s for %s: at %s, %s, while %s was to be closed", e.what, e.address, e.platform, stamp(e.at), s.From))
			return
		}
		if s.Done {
			at, last = s.To, s.From
		}
	}
	switch {
	case e.platform == at:
	case e.platform == last:
		v.Late = append(v.Late, fmt.Sprintf("%s for %s: at %s, %s, when %s was the side in force", e.what, e.address, e.platform, stamp(e.at), at))
	default:
		v.Misrouted = append(v.Misrouted, fmt.Sprintf("%s for %s: at %s, %s, and its side was %s", e.what, e.address, e.platform, stamp(e.at), at))
	}
}

// checkCopies holds the copies of a message to what excuses them.
func (r *Record) checkCopies(v *Verdict, m *message) {
	if _, taken := m.sent.taken(); taken {
		v.Taken++
		if len(m.copies) == 0 {
			v.Lost = append(v.Lost, fmt.Sprintf("message %d for %s was answered 250 by node %d and is nowhere", m.sent.ID, m.sent.Rcpt, m.sent.Node))
		}
	}
	for _, t := range m.sent.Tries {
		if strings.HasPrefix(t.Answer, "5") {
			v.Refused = append(v.Refused, fmt.Sprintf("message %d for %s by node %d: %s", m.sent.ID, m.sent.Rcpt, m.sent.Node, t.Answer))
		}
	}
	v.Open += m.sent.open()
	if len(m.copies) < 2 {
		return
	}
	v.Copies += len(m.copies) - 1
	copies := make(map[mail.TransactionID]int)
	for _, a := range m.copies {
		copies[a.Transaction]++
	}
	excused := m.sent.open() + r.Relayed[m.sent.ID]
	for tx, n := range copies {
		if n > 1+r.Doubts[tx] {
			v.Repeated = append(v.Repeated, fmt.Sprintf("message %d for %s is there %d times as %s, which ledgers have in doubt %d times", m.sent.ID, m.sent.Rcpt, n, tx, r.Doubts[tx]))
		}
		if r.Doubts[tx] > 0 {
			excused++
		}
	}
	if len(copies) > 1+excused {
		v.Repeated = append(v.Repeated, fmt.Sprintf("message %d for %s is there as %v: %d of them are excused by a doubt or a dot without answer", m.sent.ID, m.sent.Rcpt, m.copies, excused))
	}
}

// checkOrder holds what one node took for one mailbox to the order in which it did. Where
// a dot got no answer its sender went on without knowing, so that message proves nothing; nor
// does one that waited for its platform. Nor does another copy of what has arrived already: whether
// there may be one is P7's.
func (r *Record) checkOrder(v *Verdict, arrived []Arrival, all map[int]*message) {
	type line struct {
		node int
		rcpt string
	}
	last := make(map[line]*Sent)
	there := make(map[int]bool)
	for _, a := range arrived {
		m := all[a.ID]
		again := there[a.ID]
		there[a.ID] = true
		if m == nil || again || a.Null || m.sent.Rcpt != a.Rcpt || m.sent.Relay || m.sent.open() > 0 || r.Waited[a.Transaction] {
			continue
		}
		taken, ok := m.sent.taken()
		if !ok {
			continue
		}
		l := line{m.sent.Node, a.Rcpt}
		if before := last[l]; before != nil && before.ID != a.ID {
			if t, _ := before.taken(); taken.Ended.Before(t.Began) {
				v.Disorder = append(v.Disorder, fmt.Sprintf("%s got %d (%s) at %s, after %d, which node %d took later", a.Rcpt, a.ID, a.Transaction, stamp(a.At), before.ID, m.sent.Node))
				continue
			}
		}
		last[l] = m.sent
	}
}

// checkOthers wants that a node which nothing was done to puts off no mail of agencies
// that never moved.
func (r *Record) checkOthers(v *Verdict) {
	moved := r.moved()
	for i := range r.Sent {
		s := &r.Sent[i]
		id, agency, ok := r.agencyOf(s.Rcpt)
		if !ok || moved[id] {
			continue
		}
		for _, t := range s.Tries {
			if strings.HasPrefix(t.Answer, "250") || r.faulty(s.Node, id, t) {
				continue
			}
			if agency.Armed && strings.HasPrefix(t.Answer, "451 4.4.3 ") {
				v.Slow++
				continue
			}
			if strings.HasPrefix(t.Answer, "451 4.4.2 ") && r.old(t.Began, t.Ended) {
				v.Slow++
				continue
			}
			v.Disturbed = append(v.Disturbed, fmt.Sprintf("message %d for %s at node %d: %s at %s after %s", s.ID, s.Rcpt, s.Node, cmp.Or(t.Answer, "no answer"), stamp(t.Ended), t.Ended.Sub(t.Began)))
		}
	}
}

// faulty reports whether something was being done to the node during the attempt.
func (r *Record) faulty(node int, agency string, t Try) bool {
	return slices.ContainsFunc(r.Faults, func(f Fault) bool {
		return (f.Node == node || f.Node < 0) && (f.Agency == agency || f.Agency == "") && !t.Ended.Before(f.From) && (f.To.IsZero() || !t.Began.After(f.To))
	})
}

// checkRoutes wants that at one epoch all nodes deliver to one platform.
func (r *Record) checkRoutes(v *Verdict) {
	at := make(map[Route]string)
	for route := range r.Routes {
		key := Route{Agency: route.Agency, Epoch: route.Epoch}
		if other, ok := at[key]; ok {
			v.Misrouted = append(v.Misrouted, fmt.Sprintf("agency %s went to %s and to %s at epoch %s", key.Agency, other, route.Platform, key.Epoch))
		}
		at[key] = route.Platform
	}
}

func stamp(t time.Time) string { return t.Format("15:04:05.000") }
