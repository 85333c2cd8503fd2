package verify_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"mailcutover/rollback/mailstore"
	"mailcutover/rollback/verify"
	"mailcutover/routing"
)

func TestCleanDataHasNoFindings(t *testing.T) {
	w := newWorld(t, 45)
	w.fill(25)
	w.copy(itself)
	report := w.run(w.options())
	if len(report.Findings) != 0 {
		t.Errorf("findings %+v", report.Findings)
	}
	if c := report.Counts; !c.Same() || c.Matched == 0 || c.Source != c.Target || report.Compared != 45 || report.Differ != 0 {
		t.Errorf("counts %+v of %d mailboxes, %d differ", c, report.Compared, report.Differ)
	}
}

// TestALifeOnBothSidesHasNoFindings: between the mover's copy and the comparison users tidied
// up on the source, so that much on the target isn't there any more but stands with
// colleagues; mail came in; and somebody copied a shared mailbox's mail into his own.
func TestALifeOnBothSidesHasNoFindings(t *testing.T) {
	w := newWorld(t, 45)
	w.fill(25)
	w.copy(itself)
	w.mark()
	for i := range w.rows {
		share := w.random.IntN(60)
		w.source.keep(w.address(i), func(string) bool { return w.random.IntN(100) >= share })
	}
	for i := range w.rows {
		for range 10 {
			at := cutover.Add(time.Duration(w.random.IntN(600)) * time.Minute)
			other := w.address(w.random.IntN(len(w.rows)))
			raw := w.writeAt(at, other, w.address(i), "Cc: x@out.example")
			w.target.put(w.there(i), "INBOX", raw, at)
			w.source.put(other, "Sent", raw, at) // whose agency is still there
		}
	}
	for n := range 3 { // three, from colleague 5's mailbox, by drag and drop
		raw := w.source.boxes[w.address(5)]["INBOX"].letters[n].raw
		w.target.put(w.there(8), "INBOX", raw, cutover.Add(-time.Hour*999))
	}
	report := w.run(w.options())
	for _, f := range report.Findings {
		if f.Kind.Alarms() {
			t.Errorf("finding %+v", f)
		}
	}
}

func TestCrossings(t *testing.T) {
	const n = 30
	tests := map[string]struct {
		to    func(i int) []int // to whose target mailbox i goes
		pairs map[int][]int     // who holds whose
	}{
		"swap": {
			to:    func(i int) []int { return []int{map[int]int{3: 9, 9: 3}[i] + map[bool]int{true: i}[i != 3 && i != 9]} },
			pairs: map[int][]int{3: {9}, 9: {3}},
		},
		"rotation of three": {
			to: func(i int) []int {
				if next, ok := map[int]int{1: 2, 2: 4, 4: 1}[i]; ok {
					return []int{next}
				}
				return itself(i)
			},
			pairs: map[int][]int{2: {1}, 4: {2}, 1: {4}},
		},
		"one to many, besides its own": {
			to: func(i int) []int {
				if i == 7 {
					return []int{7, 11, 12, 13}
				}
				return itself(i)
			},
			pairs: map[int][]int{11: {7}, 12: {7}, 13: {7}},
		},
		"many to one": {
			to: func(i int) []int {
				if i == 20 || i == 21 || i == 22 {
					return []int{i, 29}
				}
				return itself(i)
			},
			pairs: map[int][]int{29: {20, 21, 22}},
		},
		"a column sorted without the others": {
			to: func(i int) []int { return []int{(i*7 + 5) % n} },
			pairs: func() map[int][]int {
				all := make(map[int][]int)
				for i := range n {
					if j := (i*7 + 5) % n; j != i {
						all[j] = append(all[j], i)
					}
				}
				return all
			}(),
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, n)
			w.fill(20)
			w.copy(test.to)
			report := w.run(w.options())
			want(t, w.found(report, verify.Crossed), test.pairs)
			for _, f := range report.Findings {
				if f.Kind == verify.Crossed && (f.Messages < 15 || f.Sure < 5 || len(f.Folders) == 0) {
					t.Errorf("finding %+v", f)
				}
			}
		})
	}
}

// TestTenMessages: a mover went wrong in the middle, and ten messages of one mailbox lie in
// another, besides its own.
func TestTenMessages(t *testing.T) {
	w := newWorld(t, 30)
	w.fill(20)
	w.copy(itself)
	letters := slices.DeleteFunc(slices.Clone(w.source.boxes[w.address(6)]["INBOX"].letters), func(l letter) bool { return strings.Contains(l.raw, "amt3") })
	for _, l := range letters[:10] {
		w.target.put(w.there(17), "Archiv", rewritten(l.raw), l.internal)
	}
	want(t, w.found(w.run(w.options()), verify.Crossed), map[int][]int{17: {6}})
}

// TestEmptyMailboxes: of two that are swapped one is empty; and a mailbox of four messages.
func TestEmptyMailboxes(t *testing.T) {
	w := newWorld(t, 20)
	w.fill(20)
	w.source.boxes[w.address(2)] = nil
	w.source.boxes[w.address(4)] = nil
	for range 4 {
		raw, at := w.write("x@out.example", w.address(4))
		w.source.put(w.address(4), "INBOX", raw, at)
		raw, at = w.write(w.address(4), w.address(9)) // hers, and his who has it too
		w.source.put(w.address(4), "Sent", raw, at)
		w.source.put(w.address(9), "INBOX", raw, at)
	}
	swap := map[int]int{2: 3, 3: 2, 4: 5, 5: 4}
	w.copy(func(i int) []int {
		if j, ok := swap[i]; ok {
			return []int{j}
		}
		return itself(i)
	})
	report := w.run(w.options())
	want(t, w.found(report, verify.Crossed), map[int][]int{2: {3}, 5: {4}, 4: {5}})
	if missing := w.found(report, verify.Missing); !slices.Equal(missing, nil) { // it lies in the others
		t.Errorf("missing of %v", missing)
	}
}

// TestAfterTheWatermark: what comes later may be its user's doing, and isn't alarmed; but it
// is listed.
func TestAfterTheWatermark(t *testing.T) {
	w := newWorld(t, 30)
	w.fill(20)
	w.copy(itself)
	w.mark()
	for _, l := range w.source.boxes[w.address(6)]["INBOX"].letters[:20] {
		w.target.put(w.there(17), "INBOX", l.raw, l.internal)
	}
	report := w.run(w.options())
	want(t, w.found(report, verify.Possible), map[int][]int{17: {6}})
	want(t, w.found(report, verify.Crossed), nil)
}

// TestASampleNamesTheOwner: the owners aren't in the sample, and are found by whom the
// messages name; those of another agency, too.
func TestASampleNamesTheOwner(t *testing.T) {
	w := newWorld(t, 60)
	w.fill(15)
	w.copy(func(i int) []int { return []int{(i + 1) % 60} })
	o := w.options()
	o.Sample = 4
	o.Agencies[1].Others = true
	report := w.run(o)
	if report.Compared != 4 || report.Owners == 0 || report.Mailboxes != 40 {
		t.Errorf("%d of %d mailboxes compared, %d owners read", report.Compared, report.Mailboxes, report.Owners)
	}
	found := w.found(report, verify.Crossed)
	if len(found) != 4 {
		t.Fatalf("found %v, want one for each of 4", found)
	}
	for _, pair := range found {
		var holder, owner int
		if _, err := fmt.Sscanf(pair, "%d<-%d", &holder, &owner); err != nil || holder != (owner+1)%60 {
			t.Errorf("found %s", pair)
		}
	}
	o.Draw++
	if again := w.found(w.run(o), verify.Crossed); strings.Join(again, " ") == strings.Join(found, " ") {
		t.Error("another draw has the same sample")
	}
}

func TestLookingAgain(t *testing.T) {
	w := newWorld(t, 30)
	w.fill(20)
	w.copy(func(i int) []int {
		if i == 6 {
			return []int{6, 9}
		}
		return itself(i)
	})
	o := w.options()
	o.Only, o.Owners = []routing.MailboxID{w.rows[9].Mailbox}, []routing.MailboxID{w.rows[6].Mailbox}
	var messages []verify.Message
	o.Messages = func(m verify.Message) { messages = append(messages, m) }
	report := w.run(o)
	want(t, w.found(report, verify.Crossed), map[int][]int{9: {6}})
	if len(messages) == 0 || len(messages) != report.Findings[0].Messages || messages[0].Finding != report.Findings[0].ID {
		t.Errorf("%d messages told, finding %+v", len(messages), report.Findings)
	}
	own := make(map[string]bool) // as far as they can be told from its own
	for _, f := range w.source.boxes[w.address(9)] {
		for _, l := range f.letters {
			own[rewritten(l.raw)] = true
		}
	}
	w.target.keep(w.there(9), func(raw string) bool { return own[raw] })
	if again := w.run(o); len(again.Findings) != 0 || again.Compared != 1 {
		t.Errorf("after the removal: %+v", again.Findings)
	}
}

func TestWhatCantBeReadIsSaid(t *testing.T) {
	w := newWorld(t, 10)
	w.fill(10)
	w.copy(func(i int) []int { return []int{(i + 1) % 10} })
	w.target.fail[w.there(3)] = mailstore.ErrNoMailbox
	o := w.options()
	var failed []string
	o.Each = func(c *verify.Comparison) {
		if c.Error != "" {
			failed = append(failed, string(c.Address))
		}
	}
	report := w.run(o)
	if report.Failed != 1 || report.Compared != 9 || len(failed) != 1 || failed[0] != w.address(3) {
		t.Errorf("failed %v, report %+v", failed, report)
	}
	for _, f := range report.Findings {
		if f.Mailbox == w.rows[3].Mailbox {
			t.Errorf("a finding about a mailbox that wasn't read: %+v", f)
		}
	}

	w.source.fail[w.address(5)] = mailstore.ErrUnavailable
	if _, err := verify.Run(context.Background(), o); !errors.Is(err, verify.ErrPlatform) || !errors.Is(err, mailstore.ErrUnavailable) {
		t.Errorf("a platform that is gone gives %v", err)
	}
	entries, err := os.ReadDir(o.Folder)
	if err != nil || len(entries) != 0 {
		t.Errorf("scratch files are left: %v, %v", entries, err)
	}
}

// TestTwiceInOneFolder: a message came by a list and directly, so that two with one key lie
// there, of different times.
func TestTwiceInOneFolder(t *testing.T) {
	w := newWorld(t, 1)
	raw, at := w.write("x@out.example", w.address(0))
	for _, apart := range []time.Duration{0, time.Minute, time.Hour} {
		w.source.put(w.address(0), "INBOX", raw, at.Add(apart))
		w.target.put(w.there(0), "INBOX", raw, at.Add(map[time.Duration]time.Duration{0: time.Hour, time.Minute: 0, time.Hour: time.Minute}[apart]))
	}
	if c := w.run(w.options()).Counts; !c.Same() || c.Matched != 3 {
		t.Errorf("counts %+v", c)
	}
}

func TestDifferences(t *testing.T) {
	w := newWorld(t, 1)
	me := w.address(0)
	var raws []string
	for range 6 {
		raw, at := w.write("x@out.example", me)
		raws = append(raws, raw)
		w.source.put(me, "INBOX", raw, at)
	}
	at := cutover.Add(-900 * 24 * time.Hour)
	internal := func(n int) time.Time { return w.source.boxes[me]["INBOX"].letters[n].internal }
	w.target.put(w.there(0), "INBOX", raws[1], internal(1))                                 // UID 1 is UID 2's there: a clash
	w.target.put(w.there(0), "INBOX", raws[2]+strings.Repeat("x", 20000), internal(2))      // size, clash
	w.target.put(w.there(0), "INBOX", raws[3], at)                                          // date, clash
	w.target.put(w.there(0), "INBOX", raws[3], at)                                          // a copy more, and UID 4's
	w.target.put(w.there(0), "Archiv", raws[4], internal(4))                                // in another folder
	w.target.put(w.there(0), "Archiv", w.writeAt(cutover, "x@out.example", me), cutover)    // new
	w.target.put(w.there(0), "Archiv", w.writeAt(at, "x@out.example", "y@out.example"), at) // too much
	w.target.boxes[w.there(0)]["INBOX"].validity = w.source.boxes[me]["INBOX"].validity
	o := w.options()
	var out verify.Comparison
	o.Each = func(c *verify.Comparison) { out = *c }
	report := w.run(o)
	wantCounts := verify.Counts{Source: 6, Target: 7, Matched: 3, Elsewhere: 1, Missing: 2, New: 1, Copies: 1, Extra: 1, Dates: 1, Sizes: 1, Clashes: 3}
	if out.Counts != wantCounts || report.Counts != wantCounts {
		t.Errorf("counts %+v\nwant   %+v", out.Counts, wantCounts)
	}
	if found := w.found(report, verify.Clash); len(found) != 1 {
		t.Errorf("findings %+v", report.Findings)
	}
	if len(out.Folders) != 2 {
		t.Errorf("folders %+v", out.Folders)
	}
}
