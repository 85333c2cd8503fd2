package campaign

import (
	"slices"
	"strings"
	"testing"
	"time"

	"mailcutover/audit"
	"mailcutover/mail"
	"mailcutover/test/cluster"
)

// history is what a judge goes by.
type history struct {
	record *cluster.Record
	locks  []Lock
	sample []Traced
	audits []audit.Record
	roster Roster
	said   []Said
}

// good is a history without a fault: a cutover of health by two people from second 10 to 12, a
// rollback as an emergency from 20 to 22, a lock from 30 to 32. At 40 somebody is entered, whom a list
// names at 42; info is another's from 45 to 47, by another list. A platform refuses message 9 before
// the cutover, 10 when it had been acknowledged, and 11's content while the agency is armed.
func good() *history {
	began := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(s float64) time.Time { return began.Add(time.Duration(s * float64(time.Second))) }
	const box, added, info = "box1@health.example", "box5@health.example", "info@health.example"
	r := &cluster.Record{
		Agencies: map[string]cluster.Agency{"health": {Domain: "health.example", Home: cluster.Exchange}},
		Switches: []cluster.Switch{
			{Agency: "health", Kind: "cutover", From: cluster.Exchange, To: cluster.OX, Asked: at(10), Closed: at(11), Told: at(12), Done: true},
			{Agency: "health", Kind: "rollback", From: cluster.OX, To: cluster.Exchange, Asked: at(20), Closed: at(21), Told: at(22), Done: true},
		},
		Visits:   []cluster.Visit{{Platform: cluster.Exchange, Login: box, At: at(25), Last: at(29)}},
		Lifetime: time.Minute, Doubts: map[mail.TransactionID]int{}, Relayed: map[int]int{},
	}
	for i, m := range []struct {
		at       float64
		platform string
	}{{5, cluster.Exchange}, {15, cluster.OX}, {25, cluster.Exchange}, {33, cluster.Exchange}} {
		r.Sent = append(r.Sent, cluster.Sent{ID: i + 1, Rcpt: box, Tries: []cluster.Try{{Began: at(m.at - 0.1), Ended: at(m.at + 0.1), Dotted: true, Answer: "250 2.0.0 Ok"}}})
		r.Arrived = append(r.Arrived, cluster.Arrival{Platform: m.platform, ID: i + 1, Rcpt: box, Transaction: mail.TransactionID(rune('a' + i)), At: at(m.at)})
	}
	r.Sent = append(r.Sent,
		cluster.Sent{ID: 5, Rcpt: added, Tries: []cluster.Try{{Began: at(39), Ended: at(39.1), Answer: "550 5.1.1 No such recipient here"}}},
		cluster.Sent{ID: 6, Rcpt: added, Tries: []cluster.Try{{Began: at(40.5), Ended: at(40.6), Answer: "451 4.1.1 later"}, {Began: at(42.9), Ended: at(43.1), Dotted: true, Answer: "250 2.0.0 Ok"}}},
		cluster.Sent{ID: 7, Rcpt: info, Tries: []cluster.Try{{Began: at(44.1), Ended: at(44.3), Dotted: true, Answer: "250 2.0.0 Ok"}}},
		cluster.Sent{ID: 8, Rcpt: info, Tries: []cluster.Try{{Began: at(47.9), Ended: at(48.1), Dotted: true, Answer: "250 2.0.0 Ok"}}})
	r.Sent = append(r.Sent,
		cluster.Sent{ID: 9, Rcpt: box, Tries: []cluster.Try{{Began: at(6), Ended: at(6.2), Answer: "550 5.2.1 Disabled"}}},
		cluster.Sent{ID: 10, Rcpt: box, Tries: []cluster.Try{{Began: at(7), Ended: at(7.2), Dotted: true, Answer: "250 2.0.0 Ok"}}},
		cluster.Sent{ID: 11, Rcpt: box, Tries: []cluster.Try{{Began: at(26), Ended: at(26.2), Dotted: true, Answer: "554 5.6.0 Content"}}})
	r.Arrived = append(r.Arrived, cluster.Arrival{Platform: cluster.Exchange, ID: 10, Rcpt: cluster.SenderOf(10), Transaction: "n", At: at(8), Null: true})
	for _, a := range []struct {
		id   int
		at   float64
		rcpt string
	}{{6, 43, added}, {7, 44.2, box}, {8, 48, "box2@health.example"}} {
		r.Arrived = append(r.Arrived, cluster.Arrival{Platform: cluster.Exchange, ID: a.id, Rcpt: a.rcpt, Transaction: mail.TransactionID(rune('a' + a.id)), At: at(a.at)})
	}
	entry := func(s float64, e audit.Entry) audit.Record { return audit.Record{Time: at(s), Entry: e} }
	return &history{
		record: r,
		locks:  []Lock{{Agency: "health", Told: at(30), Ended: at(32)}},
		sample: []Traced{{ID: 2, Rcpt: box, Events: []Event{{What: "delivered", Platform: cluster.OX, Transaction: "b"}}}},
		audits: []audit.Record{
			entry(10.1, audit.Entry{What: "approve-proposal", Person: "Ben", Proposal: "p1", Subject: "proposal p1"}),
			entry(10.2, audit.Entry{What: "cutover", Person: "Anna", Proposal: "p1", Subject: "agency health"}),
			entry(20.1, audit.Entry{What: "rollback", Person: "Anna", Emergency: true, Subject: "agency health"}),
			entry(23, audit.Entry{What: "confirm-emergency", Person: "Ben", Subject: "emergency e1 of agency health"}),
			entry(41, audit.Entry{What: "approve-proposal", Person: "Ben", Proposal: "p2", Subject: "proposal p2"}),
			entry(41.5, audit.Entry{What: "start-proposal", Person: "Anna", Proposal: "p2", Subject: "list health-1"}),
		},
		roster: Roster{
			Entries: []Entry{{Address: added, Began: at(40), Ended: at(40.2), Listed: at(42)}},
			Holdings: []Holding{
				{Address: info, Mailbox: box, Asked: at(1), Told: at(2)},
				{Address: info, Mailbox: "box2@health.example", Asked: at(45), Told: at(47)},
			},
			Lists:    []Activated{{List: "health-1", Proposal: "p2", Asked: at(40.9), Told: at(42)}},
			Complete: map[string]time.Time{"health.example": at(3)},
		},
		said: []Said{
			{Platform: cluster.Exchange, ID: 9, Rcpt: box, At: at(6.1), Reply: "550 5.2.1 Disabled", About: aboutMailbox},
			{Platform: cluster.Exchange, ID: 10, Rcpt: box, At: at(7.9), Reply: "550 5.2.1 Disabled", About: aboutMailbox},
			{Platform: cluster.Exchange, ID: 11, Rcpt: box, At: at(26.1), Reply: "554 5.6.0 Content", About: aboutContent},
		},
	}
}

func (h *history) judge() []string {
	bad, _, _ := settleRefused(h.record, &h.roster, h.said)
	bad = append(bad, checkEntries(h.record, &h.roster)...)
	bad = append(bad, settleHoldings(h.record, &h.roster)...)
	denied, _ := settleDenied(h.record, &h.roster)
	bad = append(append(bad, denied...), cluster.Check(h.record).Bad()...)
	bad = append(bad, checkLists(&h.roster, h.audits)...)
	bad = append(bad, checkLocks(h.record, h.locks)...)
	bad = append(bad, checkTraces(h.record, h.sample, nil)...)
	return append(bad, checkAudit(h.record.Switches, h.audits)...)
}

// Each fault that can be put into a good history is found, and named as what it is.
func TestJudge(t *testing.T) {
	t.Parallel()
	if bad := good().judge(); len(bad) > 0 {
		t.Fatalf("a good history: %q", bad)
	}
	for _, c := range []struct {
		name  string
		plant func(h *history)
		want  string
	}{
		{"P1: a message is nowhere", func(h *history) { h.record.Arrived = h.record.Arrived[1:] }, "lost"},
		{"P2: mail on the losing side after the success", func(h *history) { h.record.Arrived[1].Platform = cluster.Exchange }, "late"},
		{"P2: mail of a locked agency", func(h *history) { h.record.Arrived[3].At = h.locks[0].Told.Add(time.Second) }, "P2"},
		{"P2: a session of a locked agency", func(h *history) { h.record.Visits[0].Last = h.locks[0].Told.Add(time.Second) }, "P2"},
		{"P3: another's mailbox", func(h *history) { h.record.Arrived[2].Rcpt = "box2@health.example" }, "misrouted"},
		{"P4: two platforms at one epoch", func(h *history) {
			h.record.Routes = map[cluster.Route]bool{{Agency: "health", Epoch: "1.1", Platform: cluster.OX}: true, {Agency: "health", Epoch: "1.1", Platform: cluster.Exchange}: true}
		}, "misrouted"},
		{"P5: a permanent answer", func(h *history) { h.record.Sent[0].Tries[0].Answer = "550 5.1.1 no" }, "refused"},
		{"P6: another order", func(h *history) {
			a := h.record.Arrived
			a[2].At, a[3].At = a[3].At, a[2].At
		}, "out of order"},
		{"P6: another order of mail for an address that has been another mailbox's", func(h *history) {
			last := h.record.Sent[7]
			last.ID, last.Tries = 12, slices.Clone(last.Tries)
			last.Tries[0].Began, last.Tries[0].Ended = last.Tries[0].Began.Add(time.Second), last.Tries[0].Ended.Add(time.Second)
			h.record.Sent = append(h.record.Sent, last)
			a := h.record.Arrived[7]
			a.ID, a.Transaction, a.At = 12, "y", a.At.Add(-time.Millisecond)
			h.record.Arrived = append(h.record.Arrived, a)
		}, "out of order"},
		{"P6: newer mail for an address before what was held when it was another mailbox's", func(h *history) {
			held, newer := h.record.Sent[6], h.record.Sent[6]
			newer.ID, newer.Tries = 12, slices.Clone(held.Tries)
			newer.Tries[0].Began, newer.Tries[0].Ended = held.Tries[0].Ended.Add(time.Second), held.Tries[0].Ended.Add(2*time.Second)
			h.record.Sent = append(h.record.Sent, newer)
			a := h.record.Arrived[7] // of whom has it now
			a.ID, a.Transaction = 12, "y"
			h.record.Arrived[6].Rcpt, h.record.Arrived[6].At = a.Rcpt, a.At.Add(time.Second)
			h.record.Arrived = append(h.record.Arrived, a)
		}, "out of order"},
		{"P7: a copy that nobody names", func(h *history) { h.record.Arrived = append(h.record.Arrived, h.record.Arrived[0]) }, "repeated"},
		{"P7: a copy that only the relay could have made, and didn't", func(h *history) {
			again := h.record.Arrived[0]
			again.Transaction = "z"
			h.record.Sent[0].Relay, h.record.Arrived = true, append(h.record.Arrived, again)
		}, "repeated"},
		{"P9: one person alone", func(h *history) { h.audits[0].Person = "Anna" }, "P9"},
		{"P9: approved afterwards", func(h *history) { h.audits[0].Time = h.audits[1].Time.Add(time.Second) }, "P9"},
		{"P9: an emergency that nobody confirmed", func(h *history) { h.audits = h.audits[:3] }, "P9"},
		{"P9: no record", func(h *history) { h.audits = h.audits[:1] }, "P9"},
		{"P1: somebody whom a list names gets nothing", func(h *history) {
			h.record.Arrived = slices.DeleteFunc(h.record.Arrived, func(a cluster.Arrival) bool { return a.ID == 6 })
		}, "P1"},
		{"P3: mail for somebody before he is entered", func(h *history) {
			h.record.Arrived[5].At = h.roster.Entries[0].Began.Add(-time.Second)
		}, "P3"},
		{"P3: mail for somebody who is retired", func(h *history) {
			h.roster.Entries[0].Left, h.roster.Entries[0].Retired = h.roster.Entries[0].Listed, h.roster.Entries[0].Listed
		}, "P3"},
		{"P5: denied before he had left", func(h *history) {
			h.record.Sent[5].Tries[0].Answer = "550 5.1.1 No such recipient here"
			h.roster.Entries[0].Left = h.record.Sent[5].Tries[0].Ended.Add(time.Second)
		}, "P5"},
		{"P3: mail for an address comes to who has it no more", func(h *history) {
			h.record.Arrived[7].Rcpt = "box1@health.example"
		}, "P3"},
		{"P3: mail for an address comes to who hasn't got it yet", func(h *history) {
			h.record.Arrived[6].Rcpt = "box2@health.example"
		}, "P3"},
		{"P5: denied, and the directory knows him", func(h *history) { h.record.Sent[5].Tries[0].Answer = "550 5.1.1 No such recipient here" }, "P5"},
		{"P5: denied, and the domain isn't complete", func(h *history) { h.roster.Complete = nil }, "refused"},
		{"P5: denied before the domain was complete", func(h *history) {
			h.roster.Complete["health.example"] = h.roster.Entries[0].Ended
		}, "refused"},
		{"P5: denied, and has been there from the beginning", func(h *history) {
			h.record.Sent[3].Tries[0].Answer = "550 5.1.1 No such recipient here"
		}, "refused"},
		{"P1: acknowledged, refused, and nobody is told", func(h *history) {
			h.record.Arrived = slices.DeleteFunc(h.record.Arrived, func(a cluster.Arrival) bool { return a.Null })
		}, "lost"},
		{"P5: a refusal that no platform has said", func(h *history) { h.said = h.said[1:] }, "refused"},
		{"P5: a refusal of another message", func(h *history) { h.said[0].ID = 8 }, "refused"},
		{"P5: a refusal of an earlier attempt", func(h *history) { h.said[0].At = h.record.Sent[8].Tries[0].Began.Add(-time.Second) }, "refused"},
		{"P5: another refusal than the platform's", func(h *history) { h.said[0].Reply = "550 5.2.1 Full" }, "refused"},
		{"P5: a refusal for another mailbox", func(h *history) { h.said[0].Rcpt = "box2@health.example" }, "P5"},
		{"P5: a refusal of the platform that doesn't hold the mailbox", func(h *history) { h.said[0].Platform = cluster.OX }, "P5"},
		{"P5: a refusal that is about us", func(h *history) { h.said[0].About = aboutUs }, "P5"},
		{"P5: a refusal of a mailbox of an armed agency", func(h *history) { h.said[2].About = aboutMailbox }, "P5"},
		{"P5: the same of an agency that was armed from the beginning", func(h *history) {
			h.roster.Armed = map[string]time.Time{"health": h.said[0].At.Add(-time.Second)}
		}, "P5"},
		{"P5: a notice, and no platform had refused it", func(h *history) { h.said = slices.Delete(h.said, 1, 2) }, "P5"},
		{"P5: a notice before the refusal", func(h *history) { h.said[1].At = h.said[1].At.Add(time.Second) }, "P5"},
		{"P5: a notice of a refusal that is about us", func(h *history) { h.said[1].About = aboutUs }, "P5"},
		{"P5: a notice about what nobody sent", func(h *history) { h.record.Arrived[4].Rcpt = cluster.SenderOf(99) }, "P5"},
		{"P9: a list by one person alone", func(h *history) { h.audits[4].Person = "Anna" }, "P9"},
		{"P9: a list that nobody approved", func(h *history) { h.audits = slices.Delete(h.audits, 4, 5) }, "P9"},
		{"P9: a list without a record", func(h *history) { h.audits = h.audits[:5] }, "P9"},
		{"P10: a trace with another platform", func(h *history) { h.sample[0].Events[0].Platform = cluster.Exchange }, "P10"},
		{"P10: a trace without the delivery", func(h *history) { h.sample[0].Events = nil }, "P10"},
		{"P10: no answer", func(h *history) { h.sample[0].Error = "no answer" }, "P10"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := good()
			c.plant(h)
			if bad := h.judge(); !slices.ContainsFunc(bad, func(b string) bool { return strings.HasPrefix(b, c.want) }) {
				t.Errorf("it says %q, want %s", bad, c.want)
			}
		})
	}
}

// What a disk has lost is forgiven to its node and for its time alone.
func TestForgiveUnsynced(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		node  int
		after time.Duration // from the taking of a message to the loss
		what  string
		found bool
	}{
		{"lost with the power", 0, 2 * time.Second, powerLost, false},
		{"lost with the disk", 0, 2 * time.Second, diskFailed, false},
		{"synced before", 0, 4 * time.Second, powerLost, true},
		{"another node's", 1, 2 * time.Second, powerLost, true},
		{"killed", 0, 2 * time.Second, "killed", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := good()
			h.record.Waited = make(map[mail.TransactionID]bool)
			a := h.record.Arrived
			a[2].At, a[3].At = a[3].At, a[2].At
			from := h.record.Sent[2].Tries[0].Ended.Add(c.after)
			h.record.Faults = []cluster.Fault{{Name: c.what, Node: c.node, From: from, To: from.Add(time.Second)}}
			forgiveUnsynced(h.record)
			if bad := h.judge(); c.found != slices.ContainsFunc(bad, func(b string) bool { return strings.HasPrefix(b, "out of order") }) {
				t.Errorf("it says %q", bad)
			}
		})
	}
}

// Postfix says of which messages it may send a second copy.
func TestRelayedTwice(t *testing.T) {
	t.Parallel()
	const log = `Nov 22 11:00:00 mx postfix/cleanup[12]: 4D1AB2: message-id=<17@out.example>
Nov 22 11:00:00 mx postfix/cleanup[12]: 4D1AB3: message-id=<18@out.example>
Nov 22 11:00:01 mx postfix/smtp[13]: 4D1AB2: to=<a@health.example>, relay=10.77.2.1[10.77.2.1]:2525, status=deferred (lost connection with 10.77.2.1[10.77.2.1] while sending end of data -- message may be sent more than once)
Nov 22 11:00:02 mx postfix/smtp[13]: 4D1AB2: conversation with 10.77.2.1[10.77.2.1] timed out while sending end of data -- message may be sent more than once
Nov 22 11:00:02 mx postfix/smtp[13]: 4D1AB3: to=<a@health.example>, relay=10.77.2.1[10.77.2.1]:2525, status=deferred (connect to 10.77.2.1[10.77.2.1]:2525: Connection refused)
`
	if got := relayedTwice(log); !slices.Equal(got, []int{17, 17}) {
		t.Errorf("got %v, want 17 twice", got)
	}
}

// Counts of one campaign are there in the next one.
func TestTally(t *testing.T) {
	t.Parallel()
	file := t.TempDir() + "/state/campaign.json"
	for i := range 2 {
		all, err := ReadTally(file)
		if err != nil {
			t.Fatal(err)
		}
		if all.Seed() != uint64(i+1) {
			t.Errorf("seed %d, want %d", all.Seed(), i+1)
		}
		round, err := ReadTally("")
		if err != nil {
			t.Fatal(err)
		}
		round.Add("node", "killed", 3)
		if err := all.Judged(round, time.Minute); err != nil {
			t.Fatal(err)
		}
		if got := all.Count("node", "killed"); got != 3*(i+1) {
			t.Errorf("%d kills after %d campaigns", got, i+1)
		}
	}
}
