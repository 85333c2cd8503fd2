package campaign

import (
	"slices"
	"strings"
	"testing"
	"time"

	"mailcutover/admin"
	"mailcutover/mail"
	"mailcutover/test/cluster"
)

// The mailboxes of the history.
const (
	annas = "box1@health.example"
	bens  = "box2@health.example"
)

// message returns a copy of message id, as it was delivered once.
func message(id int, folder string, flags ...string) Copy {
	return Copy{Key: keyOf(id), Folder: folder, UID: uint32(id), Flags: flags}
}

// keyOf is the key of message id; those from 100 on are made by users.
func keyOf(id int) Key {
	if id >= 100 {
		return Key{ID: id}
	}
	return Key{ID: id, Transaction: mail.TransactionID(rune('a' + id))}
}

// goodWay is a history without a fault: a turn of health, from second 10 to the rollback at 20, with
// two runs until 30 and 40. Of Anna's messages 1 was there before; 2 to 5 and 7 to 8 came to the
// target, where she moved 3, flagged 4, deleted 5 and made 100; 7 she deleted on the source between
// the runs, 8 amid the first, 9 before the cutover; 10 came to the source at last. 11 is named as not
// back by the first run. 12 is Ben's.
func goodWay() *RecallHistory {
	began := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(s float64) time.Time { return began.Add(time.Duration(s * float64(time.Second))) }
	act := func(what, platform string, id int, s float64) Act {
		return Act{What: what, Platform: platform, Mailbox: annas, Key: keyOf(id), Before: at(s - 0.1), At: at(s), Sure: true}
	}
	moved, flagged := act(actMove, cluster.OX, 3, 15), act(actFlag, cluster.OX, 4, 15)
	moved.Into, flagged.Flag = projects, `\Flagged`
	target := func() Boxes {
		return Boxes{
			annas: {message(2, "INBOX"), message(3, projects), message(4, "INBOX", `\Flagged`), message(7, "INBOX"), message(8, "INBOX"), message(11, "INBOX"), message(100, sentMail)},
			bens:  {message(12, "INBOX")},
		}
	}
	source := func(ids ...int) Boxes {
		all := Boxes{annas: {message(1, "INBOX"), message(2, "INBOX"), message(3, projects), message(4, "INBOX", `\Flagged`), message(100, sentMail)}, bens: {message(12, "INBOX")}}
		for _, id := range ids {
			all[annas] = append(all[annas], message(id, "INBOX"))
		}
		return all
	}
	first := admin.Recall{Totals: admin.RecallTotals{Delivered: 8, DeliveredBack: 5, Gone: 2, NotBack: 1}, Nodes: []admin.RecallNode{{
		Node: "mx1", State: "brought", Boxes: []admin.RecallBox{{Address: annas, Done: true, NotBack: []admin.RecallNotBack{{Folder: "INBOX", UID: 11, Class: "dropped"}}}},
	}}}
	second := admin.Recall{Totals: admin.RecallTotals{Delivered: 8, DeliveredBack: 7, Gone: 1}, Nodes: []admin.RecallNode{{Node: "mx1", State: "brought"}}}
	h := &RecallHistory{
		Turns: []*Turn{{
			Agency: "health", Left: at(10), There: at(11), Back: at(20),
			Acts: []Act{
				act(actDelete, cluster.Exchange, 9, 9), moved, flagged, act(actDelete, cluster.OX, 5, 15), act(actMake, cluster.OX, 100, 15),
				act(actDelete, cluster.Exchange, 8, 28), act(actDelete, cluster.Exchange, 7, 35),
			},
			Source: Boxes{annas: {message(1, "INBOX")}},
			Target: target(),
			Runs: []*RunSeen{
				{ID: "r1", From: at(21), To: at(30), State: "done", Last: first, Source: source(7), Target: target()},
				{ID: "r2", From: at(36), To: at(40), State: "done", Last: second, Source: source(10, 11), Target: target()},
			},
		}},
		End: map[string]Boxes{cluster.Exchange: source(10, 11), cluster.OX: target()},
		Record: &cluster.Record{
			Doubts: make(map[mail.TransactionID]int),
			Faults: []cluster.Fault{{Name: "killed", From: at(12), To: at(13)}},
		},
	}
	for _, id := range []int{1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12} {
		rcpt := annas
		if id == 12 {
			rcpt = bens
		}
		h.Record.Sent = append(h.Record.Sent, cluster.Sent{ID: id, Rcpt: rcpt, Tries: []cluster.Try{{Began: at(float64(id)), Ended: at(float64(id) + 0.1), Dotted: true, Answer: "250 2.0.0 Ok"}}})
	}
	return h
}

// without takes a message out of mailboxes.
func without(b Boxes, id int) {
	for mailbox := range b {
		b[mailbox] = slices.DeleteFunc(b[mailbox], func(c Copy) bool { return c.ID == id })
	}
}

// Each fault that can be put into a good history of a recall is found, and named as what it is; what
// is named as in doubt is none.
func TestJudgeRecalls(t *testing.T) {
	t.Parallel()
	if f := JudgeRecalls(goodWay()); len(f.Bad) > 0 || f.Brought != 7 || f.Deleted != 7 || f.Named != 1 || f.Messages != 11 {
		t.Fatalf("a good history: %s: %q", f, f.Bad)
	}
	first := func(h *RecallHistory) *RunSeen { return h.Turns[0].Runs[0] }
	second := func(h *RecallHistory) *RunSeen { return h.Turns[0].Runs[1] }
	add := func(b Boxes, mailbox string, c Copy) { b[mailbox] = append(b[mailbox], c) }
	for _, c := range []struct {
		name  string
		plant func(h *RecallHistory)
		want  string // empty: nothing is to be found
	}{
		{"a message isn't brought", func(h *RecallHistory) { without(first(h).Source, 2) }, "P8: message 2 "},
		{"what a user made isn't brought", func(h *RecallHistory) { without(first(h).Source, 100) }, "P8: message 100 "},
		{"what is named isn't what is missing", func(h *RecallHistory) { first(h).Last.Nodes[0].Boxes[0].NotBack[0].UID = 3 }, "P8: message 11 "},
		{"a message comes twice", func(h *RecallHistory) { add(second(h).Source, annas, message(2, "INBOX")) }, "P8: box1@health.example has message 2 (c) 2 times"},
		{"twice, into another folder", func(h *RecallHistory) { add(second(h).Source, annas, message(2, "Archive")) }, "2 times"},
		{"a new one comes twice", func(h *RecallHistory) { add(h.End[cluster.Exchange], annas, message(10, "INBOX")) }, "2 times, in the end"},
		{"twice, and named as in doubt", func(h *RecallHistory) {
			add(second(h).Source, annas, message(2, "INBOX"))
			h.Record.Doubts[keyOf(2).Transaction] = 1
		}, ""},
		{"twice, where a mail program lost its connection", func(h *RecallHistory) {
			add(second(h).Source, annas, message(2, "INBOX"))
			h.Turns[0].Acts = append(h.Turns[0].Acts, Act{What: actMove, Platform: cluster.OX, Mailbox: annas, Key: keyOf(2)})
		}, ""},
		{"deleted on the target, and on the source", func(h *RecallHistory) { add(first(h).Source, annas, message(5, "INBOX")) }, "P8: message 5 (f) of box1@health.example was deleted on the target"},
		{"deleted on the target, and its copy on the source", func(h *RecallHistory) {
			h.Turns[0].Dead = true
			add(first(h).Source, annas, message(5, "INBOX"))
		}, ""},
		{"deleted before the cutover, and back", func(h *RecallHistory) { add(first(h).Source, annas, message(9, "INBOX")) }, "before the cutover"},
		{"deleted amid a run, and back", func(h *RecallHistory) { add(first(h).Source, annas, message(8, "INBOX")) }, "while nothing failed"},
		{"deleted amid a run that still looks for what it brought, and back once", func(h *RecallHistory) {
			add(first(h).Source, annas, message(8, "INBOX"))
			for i := range h.Turns[0].Acts {
				if a := &h.Turns[0].Acts[i]; a.Key == keyOf(8) {
					a.At = a.At.Add(-2 * time.Second)
				}
			}
		}, ""},
		{"deleted amid a run, near a fault, and back once", func(h *RecallHistory) {
			add(first(h).Source, annas, message(8, "INBOX"))
			h.Record.Faults[0].To = h.Turns[0].Back.Add(2 * time.Second)
		}, ""},
		{"deleted between two runs, and back", func(h *RecallHistory) { add(second(h).Source, annas, message(7, "INBOX")) }, "there again after run r2"},
		{"the same, near a fault", func(h *RecallHistory) {
			add(second(h).Source, annas, message(7, "INBOX"))
			h.Record.Faults[0].To = second(h).To
		}, "there again after run r2"},
		{"the same, of one that was a retained copy, near a fault", func(h *RecallHistory) {
			add(second(h).Source, annas, message(7, "INBOX"))
			h.Turns[0].Dead, h.Record.Faults[0].To = true, second(h).To
		}, ""},
		{"the same, when the run before had been ended", func(h *RecallHistory) {
			add(second(h).Source, annas, message(7, "INBOX"))
			first(h).State = "ended"
		}, ""},
		{"the same, of a message that the target has since an earlier turn", func(h *RecallHistory) {
			add(second(h).Source, annas, message(7, "INBOX"))
			h.Turns = append([]*Turn{{Agency: "health", Target: Boxes{annas: {message(7, "INBOX")}}}}, h.Turns...)
			h.Turns[0].Runs = h.Turns[1].Runs[:0]
		}, ""},
		{"the same, and another agency's earlier turn", func(h *RecallHistory) {
			add(second(h).Source, annas, message(7, "INBOX"))
			h.Turns = append(h.Turns, h.Turns[0])
			h.Turns[0] = &Turn{Agency: "police", Target: Boxes{annas: {message(7, "INBOX")}}}
		}, "there again after run r2"},
		{"the same, and said", func(h *RecallHistory) {
			add(second(h).Source, annas, message(7, "INBOX"))
			second(h).Last.Nodes[0].Notes = []string{"what users have deleted since may come back once"}
		}, ""},
		{"back, and twice", func(h *RecallHistory) {
			add(second(h).Source, annas, message(7, "INBOX"))
			add(second(h).Source, annas, message(7, "INBOX"))
			second(h).Last.Nodes[0].Notes = []string{"what users have deleted since may come back once"}
		}, "2 times"},
		{"its folder is another", func(h *RecallHistory) { first(h).Source.find(annas, keyOf(3)).Folder = "INBOX" }, "its user had moved it"},
		{"its flag is lost", func(h *RecallHistory) { first(h).Source.find(annas, keyOf(4)).Flags = nil }, "which its user had given it"},
		{"something is taken from the source", func(h *RecallHistory) { without(first(h).Source, 1) }, "was on the source before"},
		{"something is taken from the target", func(h *RecallHistory) { without(second(h).Target, 2) }, "was on the target before"},
		{"a message is in another's mailbox", func(h *RecallHistory) { add(second(h).Source, bens, message(2, "INBOX")) }, "P3: box2@health.example has message 2"},
		{"on the target, too", func(h *RecallHistory) { add(h.End[cluster.OX], bens, message(2, "INBOX")) }, "P3: box2@health.example has message 2"},
		{"one that nobody sent", func(h *RecallHistory) { add(second(h).Source, bens, message(77, "INBOX")) }, "P3: box2@health.example has message 77"},
		{"a message is nowhere", func(h *RecallHistory) { without(h.End[cluster.Exchange], 10) }, "P1: message 10 "},
		{"what came to the target is not there in the end", func(h *RecallHistory) { without(h.End[cluster.Exchange], 2) }, "P1: message 2 "},
		{"what a user made is not there in the end", func(h *RecallHistory) { without(h.End[cluster.Exchange], 100) }, "P8: message 100, which"},
		{"the run counts too little", func(h *RecallHistory) {
			second(h).Last.Totals.Delivered, second(h).Last.Totals.DeliveredBack, second(h).Last.Totals.Gone = 7, 7, 0
		}, "counts 7 messages delivered to the target, and 8 were there"},
		{"too little, when a disk had lost what wasn't synced", func(h *RecallHistory) {
			second(h).Last.Totals.Delivered, second(h).Last.Totals.DeliveredBack, second(h).Last.Totals.Gone = 7, 7, 0
			h.Record.Faults[0].Name = powerLost
		}, ""},
		{"the run says nothing of a message", func(h *RecallHistory) { second(h).Last.Totals.Gone = 0 }, "says nothing of 1 messages"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := goodWay()
			c.plant(h)
			f := JudgeRecalls(h)
			if c.want == "" && len(f.Bad) > 0 || c.want != "" && !slices.ContainsFunc(f.Bad, func(bad string) bool { return strings.Contains(bad, c.want) }) {
				t.Errorf("found %q; want %q", f.Bad, c.want)
			}
		})
	}
}

// A retained copy that is in doubt is one of the message that it is of.
func TestRetainedCopyInDoubt(t *testing.T) {
	first := [16]byte{1, 2, 3, 4, 5, 6, 0x70, 8, 0x80}
	again, other := first, first
	again[6], again[9], other[5] = 0x80, 1, 7
	h := goodWay()
	h.Record.Doubts = map[mail.TransactionID]int{mail.TransactionIDOf(again): 1}
	for _, c := range []struct {
		id   [16]byte
		good bool
	}{{first, true}, {other, false}} {
		h := *h
		h.End = map[string]Boxes{cluster.Exchange: {annas: append(slices.Clone(h.End[cluster.Exchange][annas]), slices.Repeat([]Copy{{Key: Key{ID: 1, Transaction: mail.TransactionIDOf(c.id)}, Folder: "INBOX"}}, 2)...)}}
		bad := slices.ContainsFunc(JudgeRecalls(&h).Bad, func(b string) bool { return strings.Contains(b, "2 times") })
		if bad == c.good {
			t.Errorf("%x twice: found %t", c.id, bad)
		}
	}
}
