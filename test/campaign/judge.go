package campaign

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"mailcutover/mail"
	"mailcutover/test/cluster"
	"mailcutover/test/peers"
)

// Findings are what a judge has to say of a round.
type Findings struct {
	Verdict *cluster.Verdict
	Bad     []string // what must not be, the promise first
	Denied  int      // times that it was said for good that nobody has an address, rightly
	Passed  int      // refusals of platforms that their senders were told, rightly
	Told    int      // messages that were refused when they had been acknowledged, and whose senders were told
	Early   int      // times that mail for somebody new was put off before a list named him
	Amid    int      // switches that were done while something was wrong somewhere
}

// Judge goes by the record of a cluster that has ended.
func Judge(t peers.TB, c *cluster.Cluster, r *cluster.Record, locks []Lock, roster *Roster, said []Said, sample []Traced) *Findings {
	t.Helper()
	f := &Findings{}
	var refused []string
	refused, f.Passed, f.Told = settleRefused(r, roster, said)
	f.Bad = append(f.Bad, refused...)
	unsynced := forgiveUnsynced(r)
	f.Bad, f.Early = append(f.Bad, checkEntries(r, roster)...), early(r, roster)
	f.Bad = append(f.Bad, settleHoldings(r, roster)...)
	denied, right := settleDenied(r, roster)
	f.Bad, f.Denied = append(f.Bad, denied...), right
	v := cluster.Check(r)
	f.Verdict = v
	for _, bad := range v.Bad() {
		if !strings.HasPrefix(bad, "disturbed: ") { // counted: with so many faults one is always near
			f.Bad = append(f.Bad, bad)
		}
	}
	f.Amid = amid(r)
	f.Bad = append(f.Bad, checkLocks(r, locks)...)
	f.Bad = append(f.Bad, checkTraces(r, sample, unsynced)...)
	audits, err := readAudits(c)
	if err != nil {
		f.Bad = append(f.Bad, "P9: "+err.Error())
	}
	f.Bad = append(f.Bad, checkAudit(r.Switches, audits)...)
	f.Bad = append(f.Bad, checkLists(roster, audits)...)
	return f
}

// forgiveUnsynced returns what was delivered shortly before a disk lost what wasn't synced, and lets
// it be in doubt: the ledger is synced once a second, and P7 names nothing beyond what it has then. What
// the node took then may have been waiting for its platform, which the ledger doesn't know any more either.
func forgiveUnsynced(r *cluster.Record) map[mail.TransactionID]bool {
	unsynced := make(map[mail.TransactionID]bool)
	for _, f := range r.Faults {
		if f.Name != powerLost && f.Name != diskFailed {
			continue
		}
		for _, a := range r.Arrived {
			if a.At.After(f.From.Add(-3*time.Second)) && (f.To.IsZero() || a.At.Before(f.To)) {
				unsynced[a.Transaction] = true
			}
		}
		waiting := make(map[int]bool)
		for _, s := range r.Sent {
			if s.Node == f.Node && len(s.Tries) > 0 {
				end := s.Tries[len(s.Tries)-1].Ended
				waiting[s.ID] = end.After(f.From.Add(-3*time.Second)) && (f.To.IsZero() || end.Before(f.To))
			}
		}
		for _, a := range r.Arrived {
			if waiting[a.ID] {
				r.Waited[a.Transaction] = true
			}
		}
	}
	for tx := range unsynced {
		r.Doubts[tx]++
	}
	return unsynced
}

// amid counts the switches that were done, and between whose beginning and end a fault was.
func amid(r *cluster.Record) (n int) {
	for _, s := range r.Switches {
		if s.Done && slices.ContainsFunc(r.Faults, func(f cluster.Fault) bool {
			return f.Agency == "" && f.From.Before(s.Told) && (f.To.IsZero() || f.To.After(s.Asked))
		}) {
			n++
		}
	}
	return n
}

// checkLocks wants that no platform takes anything of an agency between the word that all nodes
// have closed it and the word that opens it.
func checkLocks(r *cluster.Record, locks []Lock) (bad []string) {
	for _, l := range locks {
		domain := "@" + r.Agencies[l.Agency].Domain
		for _, a := range r.Arrived {
			if strings.HasSuffix(a.Rcpt, domain) && a.At.After(l.Told) && a.At.Before(l.Ended) {
				bad = append(bad, fmt.Sprintf("P2: message %d for %s at %s, %s, while %s was locked since %s", a.ID, a.Rcpt, a.Platform, a.At.Format(clock), l.Agency, l.Told.Format(clock)))
			}
		}
		for _, v := range r.Visits {
			if strings.HasSuffix(v.Login, domain) && (v.At.After(l.Told) && v.At.Before(l.Ended) || v.At.Before(l.Told) && v.Last.After(l.Told)) {
				bad = append(bad, fmt.Sprintf("P2: %s was heard at %s, %s to %s, while %s was locked since %s", v.Login, v.Platform, v.At.Format(clock), v.Last.Format(clock), l.Agency, l.Told.Format(clock)))
			}
		}
	}
	return bad
}

const clock = "15:04:05.000"

// Traced is what "trace" said of a message that was answered 250.
type Traced struct {
	ID     int
	Rcpt   string
	Events []Event
	Notes  []string
	Error  string
}

// Event is one thing that happened to it.
type Event struct {
	Node, What, Platform, Transaction string
	Rcpts                             []string
}

// checkTraces wants that trace names each delivery of a message: the platform that has it, under the
// transaction that it has it as (P10).
func checkTraces(r *cluster.Record, sample []Traced, unsynced map[mail.TransactionID]bool) (bad []string) {
	at := make(map[int][]cluster.Arrival)
	for _, a := range r.Arrived {
		at[a.ID] = append(at[a.ID], a)
	}
	for _, s := range sample {
		if s.Error != "" {
			bad = append(bad, fmt.Sprintf("P10: trace of message %d: %s", s.ID, s.Error))
			continue
		}
		if len(s.Notes) > 0 {
			continue // it says that it may not know all
		}
		for _, a := range at[s.ID] {
			if !unsynced[a.Transaction] && !slices.ContainsFunc(s.Events, func(e Event) bool {
				return e.Transaction == string(a.Transaction) && (e.Platform == a.Platform || e.What == "unknown" || e.What == "pending")
			}) {
				bad = append(bad, fmt.Sprintf("P10: trace of message %d for %s doesn't know that %s has it as %s: %+v", s.ID, s.Rcpt, a.Platform, a.Transaction, s.Events))
			}
		}
	}
	return bad
}

// count adds what a round had.
func (f *Findings) count(t *Tally) {
	v := f.Verdict
	for what, n := range map[string]int{
		"messages sent": v.Messages, "messages answered 250": v.Taken, "logins on platforms": v.Visits, "submissions": v.Submitted,
		"copies, each named or excused": v.Copies, "deliveries named as in doubt": v.Named, "dots without answer": v.Open,
		"addresses that nobody had, denied": f.Denied, "mail for somebody new put off": f.Early,
		"refusals of platforms passed on": f.Passed, "notices of what a platform refused": f.Told,
		"others put off with no fault at their node": len(v.Disturbed),
	} {
		t.Add("judged", what, n)
	}
	t.Add("switch", "done", v.Done)
	t.Add("switch", "done amid a fault", f.Amid)
	t.Add("switch", "undone", v.Undo)
}
