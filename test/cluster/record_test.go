package cluster

import (
	"testing"
	"time"

	"mailcutover/mail"
)

// Each fault that a run can have, put into a record that has none, is found, and named as
// what it is.
func TestCheck(t *testing.T) {
	began := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(s float64) time.Time { return began.Add(time.Duration(s * float64(time.Second))) }
	const health, roads = "a@health.example", "b@roads.example"
	sent := func(id int, rcpt string, second float64) Sent {
		return Sent{ID: id, Rcpt: rcpt, Tries: []Try{{Began: at(second), Ended: at(second + 0.1), Dotted: true, Answer: "250 2.0.0 Ok"}}}
	}
	arrived := func(id int, rcpt, platform string, second float64) Arrival {
		return Arrival{Platform: platform, ID: id, Rcpt: rcpt, Transaction: mail.TransactionID(rune('a' + id)), At: at(second)}
	}
	visit := func(login, platform string, from, to float64) Visit {
		return Visit{Platform: platform, Login: login, At: at(from), Last: at(to)}
	}
	session := func(login, platform string, from, to float64, by string) Session {
		return Session{Login: login, Began: at(from), Opened: at(from), Ended: at(to), Answer: "OK in", Platform: platform, Markers: []string{platform + " " + login, platform + " " + login}, By: by}
	}
	submitted := func(id int, login string, second float64) Submission {
		return Submission{ID: id, Login: login, Tries: sent(id, "x", second).Tries}
	}
	// A cutover from second 10 to 12, a rollback from 20 to 22.
	good := func() *Record {
		return &Record{
			Agencies: map[string]Agency{"health": {Domain: "health.example", Home: Exchange}, "roads": {Domain: "roads.example", Home: Exchange}},
			Switches: []Switch{
				{Agency: "health", From: Exchange, To: OX, Asked: at(10), Closed: at(11), Told: at(12), Done: true},
				{Agency: "health", From: OX, To: Exchange, Asked: at(20), Closed: at(21), Told: at(22), Done: true},
			},
			Sent: []Sent{sent(1, health, 1), sent(2, health, 10), sent(3, health, 11.5), sent(4, health, 15), sent(5, health, 25), sent(6, roads, 11), sent(7, roads, 15)},
			Arrived: []Arrival{
				arrived(1, health, Exchange, 1), arrived(2, health, Exchange, 10.1), arrived(3, health, OX, 11.6), arrived(4, health, OX, 15), arrived(5, health, Exchange, 25),
				arrived(6, roads, Exchange, 11), arrived(7, roads, Exchange, 15),
			},
			Visits: []Visit{visit(health, Exchange, 5, 9), visit(health, OX, 15, 16), visit(roads, Exchange, 15, 16)},
			Sessions: []Session{
				session(health, Exchange, 5, 10.5, "node"), session(health, OX, 15, 16, "client"), session(roads, Exchange, 15, 16, "client"),
				{Login: health, Began: at(11), Ended: at(11.2), Answer: "NO [UNAVAILABLE] moving"},
			},
			Submitted: []Submission{submitted(100, health, 15), submitted(101, roads, 15)},
			Handed:    []Handed{{OX, 100, health, at(15)}, {Exchange, 101, roads, at(15)}},
			Lifetime:  4 * time.Second,
			Doubts:    map[mail.TransactionID]int{}, Routes: map[Route]bool{{"health", "1.1", Exchange}: true, {"health", "1.4", OX}: true},
		}
	}
	if v := Check(good()); len(v.Bad()) != 0 || v.Taken != 7 || v.Done != 2 {
		t.Fatalf("a good record: %s\n%q", v, v.Bad())
	}
	pending := Try{Began: at(11), Ended: at(11), Answer: "451 4.3.0 Later"}
	for _, c := range []struct {
		name  string
		spoil func(*Record)
		found func(*Verdict) []string
	}{
		{"a message that arrived nowhere", func(r *Record) { r.Arrived = r.Arrived[1:] }, func(v *Verdict) []string { return v.Lost }},
		{"on the losing side after success was told", func(r *Record) { r.Arrived[3] = arrived(4, health, Exchange, 12.001) }, func(v *Verdict) []string { return v.Late }},
		{"the same, by a second copy that is excused as such", func(r *Record) {
			r.Arrived = append(r.Arrived, arrived(4, health, Exchange, 16))
			r.Doubts[r.Arrived[3].Transaction] = 1
		}, func(v *Verdict) []string { return v.Late }},
		{"on the losing side after the rollback", func(r *Record) { r.Arrived[4].Platform = OX }, func(v *Verdict) []string { return v.Late }},
		{"on the new side before the agency was closed", func(r *Record) { r.Arrived[1].Platform = OX }, func(v *Verdict) []string { return v.Misrouted }},
		{"on the new side though the switch was undone", func(r *Record) { r.Switches[1].Done = false; r.Arrived[4].At = at(21) }, func(v *Verdict) []string { return v.Late }},
		{"another agency's on the wrong side", func(r *Record) { r.Arrived[5].Platform = OX }, func(v *Verdict) []string { return v.Misrouted }},
		{"at another mailbox", func(r *Record) { r.Arrived[5].Rcpt = health }, func(v *Verdict) []string { return v.Misrouted }},
		{"that nobody sent", func(r *Record) { r.Arrived = append(r.Arrived, arrived(99, roads, Exchange, 3)) }, func(v *Verdict) []string { return v.Misrouted }},
		{"two platforms at one epoch", func(r *Record) { r.Routes[Route{"health", "1.4", Exchange}] = true }, func(v *Verdict) []string { return v.Misrouted }},
		{"twice, which no ledger names", func(r *Record) { r.Arrived = append(r.Arrived, arrived(6, roads, Exchange, 30)) }, func(v *Verdict) []string { return v.Repeated }},
		{"twice from the null sender, where no platform was dead", func(r *Record) {
			again := arrived(4, health, Exchange, 23)
			again.Null = true
			r.Arrived = append(r.Arrived, again)
		}, func(v *Verdict) []string { return v.Repeated }},
		{"twice after a rollback from a dead platform, from a sender", func(r *Record) {
			r.Switches[1].Copies = true
			r.Arrived = append(r.Arrived, arrived(4, health, Exchange, 23))
		}, func(v *Verdict) []string { return v.Repeated }},
		{"twice by two transactions, which nobody sent twice", func(r *Record) {
			again := arrived(6, roads, Exchange, 30)
			again.Transaction = "z"
			r.Arrived = append(r.Arrived, again)
		}, func(v *Verdict) []string { return v.Repeated }},
		{"out of order", func(r *Record) { r.Arrived[5].At, r.Arrived[6].At = at(16), at(15) }, func(v *Verdict) []string { return v.Disorder }},
		{"another agency's put off", func(r *Record) { r.Sent[5].Tries = append([]Try{pending}, r.Sent[5].Tries...) }, func(v *Verdict) []string { return v.Disturbed }},
		{"a login on the losing side after success was told", func(r *Record) { r.Visits[1] = visit(health, Exchange, 12.001, 12.1) }, func(v *Verdict) []string { return v.Late }},
		{"a session there that goes on", func(r *Record) { r.Visits[0].Last = at(12.001) }, func(v *Verdict) []string { return v.Late }},
		{"a submission there", func(r *Record) { r.Handed[0] = Handed{Exchange, 100, health, at(15)} }, func(v *Verdict) []string { return v.Late }},
		{"a login on the new side before the agency was closed", func(r *Record) { r.Visits[0] = visit(health, OX, 5, 6) }, func(v *Verdict) []string { return v.Misrouted }},
		{"a login in another mailbox", func(r *Record) { r.Sessions[1].Markers[0] = OX + " " + roads }, func(v *Verdict) []string { return v.Misrouted }},
		{"another mailbox in the middle of a session", func(r *Record) { r.Sessions[1].Markers[1] = OX + " b@health.example" }, func(v *Verdict) []string { return v.Misrouted }},
		{"a submission in another's name", func(r *Record) { r.Handed[0].Login = "b@health.example" }, func(v *Verdict) []string { return v.Misrouted }},
		{"another agency's session that ends", func(r *Record) { r.Sessions[2].By = "node" }, func(v *Verdict) []string { return v.Disturbed }},
		{"another agency's login that is put off", func(r *Record) { r.Sessions[2] = r.Sessions[3]; r.Sessions[2].Login = roads }, func(v *Verdict) []string { return v.Disturbed }},
		{"another agency's submission that is put off", func(r *Record) { r.Submitted[1].Tries = append([]Try{pending}, r.Submitted[1].Tries...) }, func(v *Verdict) []string { return v.Disturbed }},
		{"a password that is called wrong", func(r *Record) { r.Sessions[3].Answer = "NO [AUTHENTICATIONFAILED] no" }, func(v *Verdict) []string { return v.Refused }},
		{"a submission that is refused", func(r *Record) { r.Submitted[0].Tries[0].Answer = "535 5.7.8 no" }, func(v *Verdict) []string { return v.Refused }},
		{"a submission that is nowhere", func(r *Record) { r.Handed = r.Handed[1:] }, func(v *Verdict) []string { return v.Lost }},
		{"a submission that is there twice", func(r *Record) { r.Handed = append(r.Handed, r.Handed[1]) }, func(v *Verdict) []string { return v.Repeated }},
		{"refused for good", func(r *Record) {
			r.Sent[1].Tries = []Try{{Began: at(10), Ended: at(10), Answer: "550 5.1.1 No"}}
		}, func(v *Verdict) []string { return v.Refused }},
	} {
		r := good()
		c.spoil(r)
		if v := Check(r); len(c.found(v)) == 0 {
			t.Errorf("%s: not found: %s\n%q", c.name, v, v.Bad())
		}
	}
	for _, c := range []struct {
		name   string
		change func(*Record)
	}{
		{"a copy that a ledger names", func(r *Record) {
			r.Arrived = append(r.Arrived, arrived(6, roads, Exchange, 12))
			r.Doubts[r.Arrived[5].Transaction] = 1
		}},
		{"a copy that a ledger names, and that comes after a later message", func(r *Record) {
			r.Arrived = append(r.Arrived, arrived(6, roads, Exchange, 31))
			r.Doubts[r.Arrived[5].Transaction] = 1
		}},
		{"a retained copy of what a dead platform took", func(r *Record) {
			back := arrived(4, health, Exchange, 23)
			back.Null, r.Switches[1].Copies = true, true
			r.Arrived = append(r.Arrived, back)
		}},
		{"a copy that its sender sent again, since no answer came", func(r *Record) {
			again := arrived(6, roads, Exchange, 30)
			again.Transaction = "z"
			r.Arrived = append(r.Arrived, again)
			r.Sent[5].Tries = append([]Try{{Began: at(11), Ended: at(11), Dotted: true}}, r.Sent[5].Tries...)
			r.Faults = []Fault{{Node: 0, From: at(10.5), To: at(11.5)}}
		}},
		{"another agency's armed mail put off, since the table was too slow", func(r *Record) {
			r.Agencies["roads"] = Agency{Domain: "roads.example", Home: Exchange, Armed: true}
			slow := Try{Began: at(11), Ended: at(11), Answer: "451 4.4.3 Routing table unavailable"}
			r.Sent[5].Tries = append([]Try{slow}, r.Sent[5].Tries...)
		}},
		{"out of order, and the first one had to wait for its platform", func(r *Record) {
			r.Arrived[5].At, r.Arrived[6].At = at(16), at(15)
			r.Waited = map[mail.TransactionID]bool{r.Arrived[5].Transaction: true}
		}},
		{"another agency's session that the platform ends, since it is old", func(r *Record) {
			r.Sessions[2].Began, r.Sessions[2].By = at(12.5), ""
		}},
		{"another agency's session that ends with its node", func(r *Record) {
			r.Sessions[2].By, r.Faults = "", []Fault{{Node: 0, From: at(15.5), To: at(17)}}
		}},
		{"a submission that its client sent again, since no answer came", func(r *Record) {
			r.Handed = append(r.Handed, r.Handed[0])
			r.Submitted[0].Tries = append([]Try{{Began: at(14), Ended: at(14), Dotted: true}}, r.Submitted[0].Tries...)
		}},
		{"another agency's put off, since the platform ended a connection that got old within it", func(r *Record) {
			old := Try{Began: at(7), Ended: at(10.5), Answer: "451 4.4.2 The connection to the mailbox's platform failed"}
			r.Sent[5].Tries = append([]Try{old}, r.Sent[5].Tries...)
		}},
		{"the moving agency's put off", func(r *Record) { r.Sent[2].Tries = append([]Try{pending}, r.Sent[2].Tries...) }},
	} {
		r := good()
		c.change(r)
		if v := Check(r); len(v.Bad()) != 0 {
			t.Errorf("%s: %q", c.name, v.Bad())
		}
	}
}
