package verify_test

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"mailcutover/rollback/verify"
	"mailcutover/rollback/watermark"
	"mailcutover/routing"
)

const installation = "a1b2"

// cutover is when the agencies of a world were cut over.
var cutover = time.Date(2026, 3, 1, 6, 0, 0, 0, time.UTC)

// world is agencies of which all mailboxes are on both platforms.
type world struct {
	t              *testing.T
	random         *rand.Rand
	source, target *platform
	rows           []routing.Row
	agencyOf       []routing.AgencyID
	marks          map[routing.MailboxID]*watermark.Mailbox
	serial         int
	since          time.Time
}

// newWorld makes n mailboxes, empty, spread over two agencies.
func newWorld(t *testing.T, n int) *world {
	w := &world{t: t, random: rand.New(rand.NewPCG(1, uint64(n))), source: newPlatform(), target: newPlatform(), since: cutover}
	for i := range n {
		id := routing.MailboxID{byte(i), byte(i >> 8), 1}
		address := routing.Address(fmt.Sprintf("user%d@health.example", i))
		w.rows = append(w.rows, routing.Row{Mailbox: id, Kind: routing.KindUser, Addresses: []routing.Address{address}, Target: routing.Place{Login: "t" + string(address)}})
		agency := routing.AgencyID("health")
		if i%3 == 2 {
			agency = "tax"
		}
		w.agencyOf = append(w.agencyOf, agency)
	}
	return w
}

func (w *world) address(i int) string { return string(w.rows[i].Addresses[0]) }
func (w *world) there(i int) string   { return w.rows[i].At(true).Login }

// Whose implements verify.Names.
func (w *world) Whose(address string) (routing.MailboxID, routing.AgencyID, bool) {
	var i int
	if _, err := fmt.Sscanf(address, "user%d@health.example", &i); err == nil {
		return w.rows[i].Mailbox, w.agencyOf[i], false
	}
	return routing.MailboxID{}, "", strings.HasSuffix(address, "@health.example")
}

// Primary implements verify.Names.
func (w *world) Primary(_ routing.AgencyID, id routing.MailboxID) routing.Address {
	for i := range w.rows {
		if w.rows[i].Mailbox == id {
			return w.rows[i].Addresses[0]
		}
	}
	return ""
}

// write makes a message; head are further header lines.
func (w *world) write(from, to string, head ...string) (raw string, at time.Time) {
	w.serial++
	at = cutover.Add(-time.Duration(24+w.random.IntN(24*700)) * time.Hour)
	return w.writeAt(at, from, to, head...), at
}

func (w *world) writeAt(at time.Time, from, to string, head ...string) string {
	w.serial++
	lines := append([]string{
		"From: " + from, "To: " + to, "Date: " + at.Format(time.RFC1123Z), fmt.Sprintf("Message-ID: <%d@mail.example>", w.serial),
		fmt.Sprintf("Subject: number %d", w.serial),
	}, head...)
	return strings.Join(lines, "\r\n") + fmt.Sprintf("\r\n\r\nText %d.\r\n", w.serial)
}

// fill gives each mailbox on the source a life: about n messages of its own, and what all of
// them have.
func (w *world) fill(n int) {
	for i := range w.rows {
		me := w.address(i)
		for range n {
			other := w.address(w.random.IntN(len(w.rows)))
			switch kind := w.random.IntN(100); {
			case kind < 40: // from outside
				raw, at := w.write(fmt.Sprintf("someone%d@out.example", w.random.IntN(50)), me)
				w.source.put(me, "INBOX", raw, at)
			case kind < 55: // to outside
				raw, at := w.write(me, "someone@out.example")
				w.source.put(me, "Sent", raw, at)
			case kind < 80: // to a colleague, with another in copy
				copied := w.address(w.random.IntN(len(w.rows)))
				raw, at := w.write(me, other, "Cc: "+copied)
				w.source.put(me, "Sent", raw, at)
				w.source.put(other, "INBOX", raw, at)
				if copied != other {
					w.source.put(copied, "Projekte/Größe", raw, at)
				}
			case kind < 90: // to a group, of which some are members
				raw, at := w.write(me, "amt3@health.example")
				for j := range w.rows {
					if j%3 == i%3 {
						w.source.put(w.address(j), "INBOX", raw, at)
					}
				}
			case kind < 95: // nothing but content names it
				w.source.put(me, "Drafts", fmt.Sprintf("From: %s\r\nSubject: draft %d\r\n\r\nDear %d,\r\n", me, w.serial, w.serial), cutover.Add(-time.Hour))
				w.serial++
			default: // the same words to many, each hidden
				raw, at := w.write("news@out.example", "undisclosed-recipients:;")
				for range 4 {
					w.source.put(w.address(w.random.IntN(len(w.rows))), "INBOX", raw, at)
				}
			}
		}
	}
	for range 15 {
		letter, at := w.write("news@out.example", "all@health.example", "List-Id: <news.out.example>")
		team, teamAt := w.write("list@lists.example", "team@lists.example", "List-Id: Team <team.lists.example>")
		for i := range w.rows {
			w.source.put(w.address(i), "INBOX", letter, at)
			if i%10 == 0 {
				w.source.put(w.address(i), "INBOX", team, teamAt)
			}
		}
	}
}

// fillSmall gives each mailbox some messages of its own, some to and from colleagues, and
// all of them a newsletter and a list's mail.
func (w *world) fillSmall(n int) {
	newsletter, at := w.write("news@out.example", "all@health.example", "List-Id: <news.out.example>")
	team, teamAt := w.write("list@lists.example", "team@lists.example")
	for i := range w.rows {
		me, other := w.address(i), w.address(w.random.IntN(len(w.rows)))
		w.source.put(me, "INBOX", newsletter, at)
		w.source.put(me, "INBOX", team, teamAt)
		for range n {
			raw, at := w.write("someone@out.example", me)
			w.source.put(me, "INBOX", raw, at)
			raw, at = w.write(me, "someone@out.example")
			w.source.put(me, "Sent", raw, at)
			raw, at = w.write(me, other)
			w.source.put(me, "Sent", raw, at)
			w.source.put(other, "INBOX", raw, at)
		}
	}
}

// copy does the mover's work: what mailbox i has on the source goes to the target of to(i).
// As a platform that writes messages anew it changes what doesn't matter.
func (w *world) copy(to func(i int) []int) {
	for i := range w.rows {
		box := w.source.boxes[w.address(i)]
		for _, name := range slices.Sorted(maps.Keys(box)) {
			f := box[name]
			if name == "Sent" {
				name = "Gesendete Elemente"
			}
			for _, l := range f.letters {
				for _, j := range to(i) {
					w.target.put(w.there(j), name, rewritten(l.raw), l.internal)
				}
			}
		}
	}
}

// rewritten returns a message as Exchange might give it back.
func rewritten(raw string) string {
	raw = strings.Replace(raw, "From: ", "From: \"Somebody (Amt 3)\" <", 1)
	head, rest, _ := strings.Cut(raw, "\r\n")
	raw = head + ">\r\n" + rest
	raw = strings.Replace(raw, "Message-ID: ", "Message-ID:\r\n\t", 1)
	raw = strings.Replace(raw, "mail.example>", "MAIL.example>", 1)
	return strings.Replace(raw, "+0000", "-0000 (UTC)", 1)
}

func itself(i int) []int { return []int{i} }

// mark takes the target's watermarks.
func (w *world) mark() {
	w.marks = make(map[routing.MailboxID]*watermark.Mailbox)
	for i := range w.rows {
		m := &watermark.Mailbox{Mailbox: w.rows[i].Mailbox}
		for name, f := range w.target.boxes[w.there(i)] {
			m.Folders = append(m.Folders, watermark.Folder{Name: name, UIDValidity: f.validity, UIDNext: uint32(len(f.letters) + 1), Messages: uint32(len(f.letters))})
		}
		w.marks[m.Mailbox] = m
	}
}

func (w *world) options() verify.Options {
	o := verify.Options{Names: w, Folder: w.t.TempDir(), Workers: 4, Draw: 7}
	for _, id := range []routing.AgencyID{"health", "tax"} {
		a := verify.Agency{ID: id, Source: w.source, Target: w.target, Since: w.since, Rows: w.of(id)}
		if w.marks != nil {
			a.Mark = func(id routing.MailboxID) *watermark.Mailbox { return w.marks[id] }
		}
		o.Agencies = append(o.Agencies, a)
	}
	return o
}

func (w *world) of(id routing.AgencyID) func() iter.Seq[routing.Row] {
	return func() iter.Seq[routing.Row] {
		return func(yield func(routing.Row) bool) {
			for i := range w.rows {
				if w.agencyOf[i] == id && !yield(w.rows[i]) {
					return
				}
			}
		}
	}
}

func (w *world) run(o verify.Options) *verify.Report {
	w.t.Helper()
	report, err := verify.Run(context.Background(), o)
	if err != nil {
		w.t.Fatal(err)
	}
	return report
}

// found returns the findings of a kind as "holder<-owner", sorted, by the mailboxes' numbers.
func (w *world) found(r *verify.Report, kinds ...verify.Kind) []string {
	number := func(a routing.Address) string {
		name, _, _ := strings.Cut(string(a), "@")
		return strings.TrimPrefix(name, "user")
	}
	var all []string
	for _, f := range r.Findings {
		if slices.Contains(kinds, f.Kind) {
			all = append(all, number(f.Address)+"<-"+number(f.OwnerAddress))
		}
	}
	slices.Sort(all)
	return all
}

// want compares findings with what was done.
func want(t *testing.T, got []string, pairs map[int][]int) {
	t.Helper()
	var all []string
	for holder, owners := range pairs {
		for _, owner := range owners {
			all = append(all, fmt.Sprintf("%d<-%d", holder, owner))
		}
	}
	slices.Sort(all)
	missing := slices.DeleteFunc(slices.Clone(all), func(one string) bool { return slices.Contains(got, one) })
	extra := slices.DeleteFunc(slices.Clone(got), func(one string) bool { return slices.Contains(all, one) })
	if len(missing)+len(extra) > 0 || len(got) != len(all) {
		t.Errorf("%d found, want %d; not found %v; found too much %v", len(got), len(all), missing, extra)
	}
}
