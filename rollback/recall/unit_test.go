package recall

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"mailcutover/internal/durable/memdisk"
	"mailcutover/mail"
	"mailcutover/rollback/mailstore"
	"mailcutover/rollback/msgkey"
	"mailcutover/routing"
)

// How copies on To are shared out. Folders are numbers, the same on both sides; a negative one
// has no counterpart.
func TestSettle(t *testing.T) {
	for name, c := range map[string]struct {
		candidates, others, there []int
		ours, brought             int // of others; ever
		want                      string
	}{
		"missing":                                  {candidates: []int{1}, want: "bring"},
		"there":                                    {candidates: []int{1}, there: []int{1}, want: "present"},
		"elsewhere":                                {candidates: []int{1}, there: []int{2}, want: "elsewhere"},
		"by a list, and directly":                  {candidates: []int{1, 1}, want: "bring bring"},
		"two here, one there":                      {candidates: []int{1, 1}, there: []int{1}, want: "present bring"},
		"two here, two there":                      {candidates: []int{1, 1}, there: []int{1, 1}, want: "present present"},
		"a copy of an old one":                     {candidates: []int{2}, others: []int{1}, there: []int{1}, want: "bring"},
		"a copy, copied by the mover":              {candidates: []int{2}, others: []int{1}, there: []int{1, 2}, want: "present"},
		"moved, and its copy stays":                {candidates: []int{2}, others: []int{1}, there: []int{1, 3}, want: "elsewhere"},
		"an old one whose copy its user moved":     {candidates: []int{2}, others: []int{1}, there: []int{3}, want: "bring"},
		"brought from a place that it left":        {candidates: []int{2}, there: []int{1}, brought: 1, want: "before"},
		"brought, left, and deleted there":         {candidates: []int{2}, brought: 1, want: "before"},
		"brought, and still here: another copy":    {candidates: []int{2}, others: []int{1}, ours: 1, brought: 1, there: []int{1}, want: "bring"},
		"a retained copy, and a second message":    {candidates: []int{1, 1}, brought: 1, there: []int{1}, want: "before bring"},
		"a retained copy, and a mover's":           {candidates: []int{1, 1}, brought: 1, there: []int{1, 1}, want: "before present"},
		"a retained copy that its user moved away": {candidates: []int{1, 1}, brought: 1, there: []int{2}, want: "before bring"},
		"no such folder there":                     {candidates: []int{-1}, there: []int{2}, want: "elsewhere"},
	} {
		t.Run(name, func(t *testing.T) {
			g := group{others: c.others, brought: c.ours}
			for i := range c.candidates {
				g.candidates = append(g.candidates, i)
			}
			for i, f := range c.there {
				g.there = append(g.there, instance{f, uint32(i + 1)})
			}
			var got []string
			for _, d := range g.settle(func(i int) int { return c.candidates[i] }, func(f int) int { return f }, c.brought) {
				got = append(got, []string{"bring", "before", "present", "elsewhere"}[d.verdict])
			}
			if s := strings.Join(got, " "); s != c.want {
				t.Errorf("%s, want %s", s, c.want)
			}
		})
	}
}

// Whatever there is: no copy on To stands for two messages of From, nothing that is nowhere
// goes unbrought, and what To has already for everything isn't brought.
func TestSettleProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		folder := rapid.IntRange(0, 3)
		from, others := rapid.SliceOfN(folder, 1, 5).Draw(t, "candidates"), rapid.SliceOfN(folder, 0, 4).Draw(t, "others")
		there := rapid.SliceOfN(folder, 0, 8).Draw(t, "there")
		ours := rapid.IntRange(0, len(others)).Draw(t, "ours")
		before := rapid.IntRange(0, 3).Draw(t, "before")
		g := group{others: others, brought: ours}
		for i := range from {
			g.candidates = append(g.candidates, i)
		}
		for i, f := range there {
			g.there = append(g.there, instance{f, uint32(i + 1)})
		}
		used := make(map[instance]bool)
		count := make(map[verdict]int)
		for i, d := range g.settle(func(i int) int { return from[i] }, func(f int) int { return f }, ours+before) {
			count[d.verdict]++
			if d.verdict == present || d.verdict == elsewhere {
				if used[d.at] || !slices.Contains(g.there, d.at) {
					t.Fatalf("%v stands for two, or isn't there", d.at)
				}
				used[d.at] = true
			}
			if d.verdict == present && d.at.folder != from[i] {
				t.Fatalf("present in %d, wanted in %d", d.at.folder, from[i])
			}
		}
		if n := count[present] + count[elsewhere]; n > max(0, len(there)-len(others)) {
			t.Fatalf("%d accounted for by what To has, of %d there and %d others", n, len(there), len(others))
		}
		if count[verdict(1)] != min(before, len(from)) {
			t.Fatalf("%d brought before, want %d", count[verdict(1)], min(before, len(from)))
		}
		if len(there) >= len(others)+len(from)+before && count[bring] > 0 {
			t.Fatalf("%d brought, and everything is there", count[bring])
		}
	})
}

// Folders match by role, by name, by what the platform made of a name, and below each other.
func TestMatcher(t *testing.T) {
	to := []mailstore.Folder{{Name: "INBOX", Role: mailstore.Inbox}, {Name: "Gesendete Elemente", Role: mailstore.Sent}, {Name: "Co. KG"}, {Name: "A"}, {Name: "x.y"}, {Name: "x_y"}}
	from := []mailstore.Folder{{Name: "INBOX", Role: mailstore.Inbox}, {Name: "Sent", Role: mailstore.Sent}, {Name: "Sent/2026"}, {Name: "co_ kg/alt"}, {Name: "a"}, {Name: "Neu/Größe"}, {Name: "x~y"}, {Name: "Junk", Role: mailstore.Junk}}
	m := newMatcher(from, to)
	want := []string{"INBOX", "Gesendete Elemente", "Gesendete Elemente/2026", "Co. KG/alt", "A", "Neu/Größe", "x~y", "Junk"}
	if !slices.Equal(m.want, want) {
		t.Errorf("%q, want %q", m.want, want)
	}
	if i := m.back("Gesendete Elemente"); i != 1 {
		t.Errorf("back from Gesendete Elemente: %d", i)
	}
}

// A set of UIDs is one, whatever the order, and is read as it was written.
func TestUIDRanges(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 200 {
		var u uidRanges
		all := make(map[uint32]bool)
		for range r.IntN(300) {
			uid := uint32(1 + r.IntN(200))
			if u.add(uid) == all[uid] {
				t.Fatalf("%d was new: %v", uid, !all[uid])
			}
			all[uid] = true
		}
		var again uidRanges
		n := 0
		for _, s := range u.sets() {
			n += again.parse(s)
		}
		if n != len(all) || !slices.Equal(again.r, u.r) {
			t.Fatalf("%v read as %v", u.r, again.r)
		}
		for uid := range uint32(202) {
			if u.has(uid) != all[uid] {
				t.Fatalf("%d in %v: %v", uid, u.r, u.has(uid))
			}
		}
		for i := 1; i < len(u.r); i++ {
			if u.r[i][0] <= u.r[i-1][1]+1 {
				t.Fatalf("ranges that are one: %v", u.r)
			}
		}
	}
}

func testID(t *testing.T) routing.MailboxID {
	t.Helper()
	id, err := routing.ParseMailboxID("00000000-0000-4000-8000-000000000001")
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// Whatever is damaged or cut off in a journal, the other lines count, and what is written
// next isn't drawn in.
func TestDamagedJournal(t *testing.T) {
	id := testID(t)
	key := func(i int) (k msgkey.Key) { k[0] = byte(i); return k }
	fill := func(disk *memdisk.Disk) *Journals {
		j, err := OpenJournalsOn(disk, "/recall")
		if err != nil {
			t.Fatal(err)
		}
		w, err := j.take(id)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 5 {
			if err := w.write(record{Kind: kindBack, origin: origin{"INBOX", 1, uint32(i + 1)}, Key: key(i)}); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.close(); err != nil {
			t.Fatal(err)
		}
		return j
	}
	path := fmt.Sprintf("/recall/%s-000000.recall", id)
	whole := memdisk.New()
	fill(whole)
	size := len(whole.Files()[path])
	if size == 0 {
		t.Fatalf("no journal among %v", whole.Files())
	}
	for at := 0; at < size; at += 7 {
		disk := memdisk.New()
		j := fill(disk)
		if err := disk.Flip(path, at); err != nil {
			t.Fatal(err)
		}
		a, next, err := j.load(id)
		if err != nil || next != 1 || len(a.brought) < 3 || len(a.brought) > 4 || a.damaged == 0 {
			t.Fatalf("bit at %d: %d of 5 known, next %d, %v", at, len(a.brought), next, err)
		}
	}
	for cut := 1; cut < size; cut += 11 {
		disk := memdisk.New()
		j := fill(disk)
		disk.Change(path, disk.Files()[path][:cut])
		if err := j.Sent(id, mail.NewTransactionID()); err != nil {
			t.Fatal(err)
		}
		a, _, err := j.load(id)
		if err != nil || len(a.sent) != 1 || len(a.brought) > 4 {
			t.Fatalf("cut at %d: %+v, %v", cut, a, err)
		}
	}
}

// One mailbox has one writer, and a copy that was noted twice counts once.
func TestSent(t *testing.T) {
	id := testID(t)
	j, err := OpenJournalsOn(memdisk.New(), "/recall")
	if err != nil {
		t.Fatal(err)
	}
	m := mail.NewTransactionID()
	for range 2 {
		if err := j.Sent(id, m, m); err != nil {
			t.Fatal(err)
		}
	}
	w, err := j.take(id)
	if err != nil || w.byKey[msgkey.TransactionKey(m)] != 1 {
		t.Fatalf("%v, %v", w.byKey, err)
	}
	if _, err := j.take(id); err == nil {
		t.Error("two writers")
	}
	if err := w.close(); err != nil {
		t.Fatal(err)
	}
	if _, err := j.take(id); err != nil {
		t.Error(err)
	}
}
