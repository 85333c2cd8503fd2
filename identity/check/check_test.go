package check

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"mailcutover/identity/directory"
	"mailcutover/identity/list"
	"mailcutover/routing"
)

// office makes n mailboxes of an agency, by address; their ids are in no order.
func office(rng *rand.Rand, agency routing.AgencyID, n int) []*directory.Object {
	names := []string{"anna", "bert", "carla", "dirk", "elif", "frank", "gül", "hans-peter", "ines", "jörg", "kai", "lena"}
	objects := make([]*directory.Object, 0, n)
	for i := range n {
		o := &directory.Object{Kind: directory.KindUser, Enabled: true, Account: fmt.Sprintf("%03d%s%d", rng.IntN(1000), names[rng.IntN(len(names))], i)}
		for j := range o.ID {
			o.ID[j] = byte(rng.UintN(256))
		}
		local := strings.NewReplacer("ü", "ue", "ö", "oe").Replace(names[rng.IntN(len(names))])
		a, err := routing.ParseAddress(fmt.Sprintf("%s.%04d@%s.example", local, i, agency))
		if err != nil {
			panic(err)
		}
		alias, err := routing.ParseAddress(fmt.Sprintf("m%04d@%s.example", i, agency))
		if err != nil {
			panic(err)
		}
		o.Addresses = []routing.Address{a, alias}
		objects = append(objects, o)
	}
	slices.SortFunc(objects, func(a, b *directory.Object) int { return strings.Compare(string(a.Primary()), string(b.Primary())) })
	return objects
}

// world is a directory of agencies, and the list that is right for one of them.
type world struct {
	source  *Facts
	objects map[routing.AgencyID][]*directory.Object
}

func newWorld(rng *rand.Rand, agencies map[routing.AgencyID]int) *world {
	w := &world{source: NewFacts("ad", time.Unix(1e9, 0)), objects: make(map[routing.AgencyID][]*directory.Object)}
	for _, id := range []routing.AgencyID{"health", "labour", "police"} {
		n := agencies[id]
		w.objects[id] = office(rng, id, n)
		for _, o := range w.objects[id] {
			w.source.Add(o, id)
		}
	}
	return w
}

// list returns the right list of agencies, as a file with a header has it.
func (w *world) list(accounts bool, agencies ...routing.AgencyID) *list.List {
	l := &list.List{ID: "health-0001", Agency: agencies[0]}
	for _, a := range agencies {
		for _, o := range w.objects[a] {
			r := list.Row{Line: len(l.Rows) + 2, Address: o.Primary(), ID: o.ID, Agency: a}
			if accounts {
				r.Account = o.Account
			}
			l.Rows = append(l.Rows, r)
		}
	}
	return l
}

func rng(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 1)) }

// The incident: 790 mailboxes of three agencies, lists pasted together, one column sorted.
func TestTheIncident(t *testing.T) {
	w := newWorld(rng(1), map[routing.AgencyID]int{"health": 310, "labour": 280, "police": 200})
	l := w.list(true, "health", "labour", "police")
	ids := make([]string, 0, len(l.Rows))
	for _, r := range l.Rows {
		ids = append(ids, r.Account)
	}
	slices.SortFunc(ids, func(a, b string) int { return strings.Compare(strings.ToLower(a), strings.ToLower(b)) })
	for i := range l.Rows {
		l.Rows[i].Account = ids[i]
	}
	r := Check(Input{List: l, Source: w.source})
	if r.Clean() {
		t.Fatal("the list of the incident is clean")
	}
	if len(r.Permutations) != 1 {
		t.Fatalf("%d permutations, want one: %+v", len(r.Permutations), r.Permutations)
	}
	p := r.Permutations[0]
	if p.Column != ColumnAccount || p.How != Sorted || p.First < 2 || p.Last > 791 || len(p.Pairs) < 780 {
		t.Errorf("found %v %v in rows %d to %d, %d pairs; want the account column sorted in all 790 rows", p.Column, p.How, p.First, p.Last, len(p.Pairs))
	}
}

// mix is what may happen to one column of a list.
func mix(rows []list.Row, column Column, perm func(i int) int) {
	was := slices.Clone(rows)
	for i := range rows {
		from := &was[perm(i)]
		switch column {
		case ColumnAddress:
			rows[i].Address = from.Address
		case ColumnAccount:
			rows[i].Account = from.Account
		case ColumnID:
			rows[i].ID = from.ID
		}
	}
}

// sorting returns the permutation that sorts a column.
func sorting(rows []list.Row, column Column, down bool) func(int) int {
	order := make([]int, len(rows))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		c := strings.Compare(sortKey(&rows[a], column), sortKey(&rows[b], column))
		if down {
			return -c
		}
		return c
	})
	return func(i int) int { return order[i] }
}

func TestWhatWasDoneIsNamed(t *testing.T) {
	w := newWorld(rng(2), map[routing.AgencyID]int{"health": 200})
	for _, c := range []struct {
		name     string
		accounts bool
		column   Column
		from, to int // of the rows
		perm     func(rows []list.Row) func(int) int
		want     Column
		how      How
		by       int
	}{
		{"ids sorted", false, ColumnID, 0, 200, func(r []list.Row) func(int) int { return sorting(r, ColumnID, false) }, ColumnID, Sorted, 0},
		{"ids sorted downwards", false, ColumnID, 0, 200, func(r []list.Row) func(int) int { return sorting(r, ColumnID, true) }, ColumnID, SortedDown, 0},
		{"ids sorted in a part", false, ColumnID, 40, 90, func(r []list.Row) func(int) int { return sorting(r, ColumnID, false) }, ColumnID, Sorted, 0},
		{"addresses sorted downwards", false, ColumnAddress, 0, 200, func(r []list.Row) func(int) int { return sorting(r, ColumnAddress, true) }, ColumnAddress, SortedDown, 0},
		{"accounts sorted", true, ColumnAccount, 0, 200, func(r []list.Row) func(int) int { return sorting(r, ColumnAccount, false) }, ColumnAccount, Sorted, 0},
		{"ids sorted beside accounts", true, ColumnID, 0, 200, func(r []list.Row) func(int) int { return sorting(r, ColumnID, false) }, ColumnID, Sorted, 0},
		{"addresses sorted downwards beside accounts", true, ColumnAddress, 0, 200, func(r []list.Row) func(int) int { return sorting(r, ColumnAddress, true) }, ColumnAddress, SortedDown, 0},
		{"one row inserted above the ids", false, ColumnID, 0, 200, func(r []list.Row) func(int) int {
			return func(i int) int { return (i + len(r) - 1) % len(r) }
		}, ColumnID, Rotated, 1},
		{"ids moved up by three", false, ColumnID, 10, 60, func(r []list.Row) func(int) int { return func(i int) int { return (i + 3) % len(r) } }, ColumnID, Rotated, -3},
		{"two rows exchanged", false, ColumnID, 17, 19, func([]list.Row) func(int) int { return func(i int) int { return 1 - i } }, ColumnID, Swapped, 0},
		{"two rows far apart", true, ColumnAccount, 3, 180, func(r []list.Row) func(int) int {
			return func(i int) int {
				if i == 0 || i == len(r)-1 {
					return len(r) - 1 - i
				}
				return i
			}
		}, ColumnAccount, Swapped, 0},
		{"shuffled", true, ColumnID, 0, 200, func(r []list.Row) func(int) int { p := rng(7).Perm(len(r)); return func(i int) int { return p[i] } }, ColumnID, Shuffled, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := w.list(c.accounts, "health")
			part := l.Rows[c.from:c.to]
			mix(part, c.column, c.perm(part))
			right := w.list(c.accounts, "health")
			wrong, first, last := 0, 0, 0
			for i := range l.Rows {
				if l.Rows[i] != right.Rows[i] {
					wrong++
					if first == 0 {
						first = l.Rows[i].Line
					}
					last = l.Rows[i].Line
				}
			}
			r := Check(Input{List: l, Source: w.source})
			if r.Clean() || r.Wrong != wrong {
				t.Errorf("%d rows are wrong, found %d", wrong, r.Wrong)
			}
			if len(r.Permutations) != 1 {
				t.Fatalf("%d permutations: %+v", len(r.Permutations), r.Permutations)
			}
			p := r.Permutations[0]
			if p.Column != c.want || p.How != c.how || p.By != c.by || p.First != first || p.Last != last || len(p.Pairs) != wrong {
				t.Errorf("found %v %v by %d in lines %d to %d, %d rows; want %v %v by %d in %d to %d, %d", p.Column, p.How, p.By, p.First, p.Last, len(p.Pairs),
					c.want, c.how, c.by, first, last, wrong)
			}
			for _, pair := range p.Pairs {
				if pair.Owner == pair.Given {
					t.Errorf("line %d: %s stays with its owner", pair.Line, pair.Name)
				}
				f, n := w.source.address(routing.Address(pair.Name))
				if c.want == ColumnAccount {
					f, n = w.source.account(pair.Name)
				}
				if n != foundOne || f.id != pair.Owner {
					t.Errorf("line %d: %s is not of the mailbox %s", pair.Line, pair.Name, pair.Owner)
				}
				if f, n := w.source.id(pair.Given); n != foundOne || f.primary != pair.To {
					t.Errorf("line %d: %s doesn't have the primary address %s", pair.Line, pair.Given, pair.To)
				}
			}
		})
	}
}

// Whatever is done to the pairs of a list in memory, it isn't clean, from two exchanged cells
// on. TestNoCorruptedFileIsClean does it 100,000 times to files.
func TestNoCorruptionIsClean(t *testing.T) {
	r := rng(3)
	w := newWorld(r, map[routing.AgencyID]int{"health": 12, "labour": 6})
	n := 10_000
	if testing.Short() {
		n = 1000
	}
	for i := range n {
		l := w.list(i%2 == 0, "health")
		at := r.IntN(len(l.Rows))
		other := (at + 1 + r.IntN(len(l.Rows)-1)) % len(l.Rows)
		foreign := w.objects["labour"][r.IntN(6)]
		a, b := &l.Rows[at], &l.Rows[other]
		what := r.IntN(9)
		switch what {
		case 0:
			a.ID, b.ID = b.ID, a.ID
		case 1:
			a.Address, b.Address = b.Address, a.Address
		case 2:
			a.ID = foreign.ID
		case 3:
			a.Address = foreign.Primary()
		case 4:
			a.Agency = "labour"
		case 5:
			a.ID[r.IntN(16)] ^= byte(1 + r.IntN(255))
		case 6:
			k := 2 + r.IntN(len(l.Rows)-2)
			mix(l.Rows[:k], ColumnID, func(i int) int { return (i + 1) % k })
		case 7:
			from := r.IntN(len(l.Rows) - 2)
			p := r.Perm(len(l.Rows) - from)
			if slices.IsSorted(p) {
				continue
			}
			mix(l.Rows[from:], Column(1+2*r.IntN(2)), func(i int) int { return p[i] })
		case 8:
			*a = list.Row{Line: a.Line, Address: foreign.Primary(), ID: foreign.ID, Agency: "health"}
		}
		if res := Check(Input{List: l, Source: w.source}); res.Clean() {
			t.Fatalf("corruption %d of kind %d is clean", i, what)
		}
	}
}

func TestWhatIsHarmlessIsClean(t *testing.T) {
	r := rng(4)
	w := newWorld(r, map[routing.AgencyID]int{"health": 60})
	earlier := w.list(false, "health")
	earlier.Rows = earlier.Rows[:40]
	for range 1000 {
		l := w.list(r.IntN(2) == 0, "health")
		r.Shuffle(len(l.Rows), func(i, j int) { l.Rows[i], l.Rows[j] = l.Rows[j], l.Rows[i] })
		l.Rows = l.Rows[:1+r.IntN(len(l.Rows))]
		for i := range l.Rows {
			l.Rows[i].Account = strings.ToUpper(l.Rows[i].Account)
		}
		res := Check(Input{List: l, Source: w.source, Earlier: []*list.List{earlier}})
		if !res.Clean() || res.Warnings > 0 || res.Right != len(l.Rows) {
			t.Fatalf("%d right, %d warnings, %d wrong of %d; permutations %+v", res.Right, res.Warnings, res.Wrong, len(l.Rows), res.Permutations)
		}
	}
}

func TestNothingIsCleanWithoutADirectory(t *testing.T) {
	w := newWorld(rng(5), map[routing.AgencyID]int{"health": 10})
	l := w.list(false, "health")
	if r := Check(Input{List: l}); r.Clean() || r.Wrong != 10 {
		t.Errorf("%d of 10 rows are wrong without a directory", r.Wrong)
	}
	mix(l.Rows, ColumnID, func(i int) int { return 9 - i })
	if r := Check(Input{List: l, Earlier: []*list.List{w.list(false, "health")}}); len(r.Permutations) != 1 {
		t.Errorf("the earlier list shows no permutation: %+v", r.Permutations)
	}
	if r := Check(Input{List: &list.List{}, Source: w.source}); r.Clean() {
		t.Error("an empty list is clean")
	}
}

func TestVerdicts(t *testing.T) {
	r := rng(6)
	w := newWorld(r, map[routing.AgencyID]int{"health": 6, "labour": 2})
	h := w.objects["health"]
	group := &directory.Object{ID: routing.MailboxID{1}, Kind: directory.KindGroup, Enabled: true, Addresses: []routing.Address{"group@health.example"}}
	gone := &directory.Object{ID: routing.MailboxID{2}, Kind: directory.KindUser, Addresses: []routing.Address{"gone@health.example"}}
	room := &directory.Object{ID: routing.MailboxID{3}, Kind: directory.KindRoom, Addresses: []routing.Address{"room@health.example"}}
	one := &directory.Object{ID: routing.MailboxID{4}, Kind: directory.KindUser, Enabled: true, Addresses: []routing.Address{"one@health.example", "both@health.example"}}
	two := &directory.Object{ID: routing.MailboxID{5}, Kind: directory.KindUser, Enabled: true, Addresses: []routing.Address{"two@health.example", "both@health.example"}}
	for _, o := range []*directory.Object{group, gone, room, one, two} {
		w.source.Add(o, "health")
	}
	target := NewFacts("ucs", time.Unix(1e9, 0))
	for _, o := range h[:4] {
		target.Add(o, "health")
	}
	crossed := *h[4]
	crossed.Addresses = h[5].Addresses
	target.Add(&crossed, "health")
	key, err := list.NewKey([]byte("a key for tests, not secret"))
	if err != nil {
		t.Fatal(err)
	}
	right := list.Row{Address: h[0].Primary(), ID: h[0].ID, Agency: "health"}
	with := func(change func(*list.Row)) list.Row { r := right; change(&r); return r }
	signed := with(func(r *list.Row) { r.MAC = key.Row("l", r) })
	for _, c := range []struct {
		name   string
		row    list.Row
		key    *list.Key
		target *Facts
		want   Code
	}{
		{"right", right, nil, target, CodeRight},
		{"right, signed", signed, &key, target, CodeRight},
		{"not signed", right, &key, target, CodeDigest},
		{"signed for another list", with(func(r *list.Row) { r.MAC = key.Row("m", r) }), &key, target, CodeDigest},
		{"alias", with(func(r *list.Row) { r.Address = h[0].Addresses[1] }), nil, target, CodeAlias},
		{"another's address", with(func(r *list.Row) { r.Address = h[1].Primary() }), nil, nil, CodeOtherMailbox},
		{"another's account", with(func(r *list.Row) { r.Account = h[1].Account }), nil, nil, CodeOtherAccount},
		{"account with domain", with(func(r *list.Row) { r.Account = `MAIL\` + h[0].Account }), nil, nil, CodeRight},
		{"unknown account", with(func(r *list.Row) { r.Account = "nobody" }), nil, nil, CodeNoAccount},
		{"unknown address", with(func(r *list.Row) { r.Address = "nobody@health.example" }), nil, nil, CodeNoAddress},
		{"unknown id", with(func(r *list.Row) { r.ID = routing.MailboxID{9} }), nil, nil, CodeOtherMailbox},
		{"another agency's mailbox", list.Row{Address: w.objects["labour"][0].Primary(), ID: w.objects["labour"][0].ID, Agency: "health"}, nil, nil, CodeOtherAgency},
		{"a group", list.Row{Address: "group@health.example", ID: group.ID, Agency: "health"}, nil, nil, CodeNotMailbox},
		{"a disabled account", list.Row{Address: "gone@health.example", ID: gone.ID, Agency: "health"}, nil, nil, CodeDisabled},
		{"a room", list.Row{Address: "room@health.example", ID: room.ID, Agency: "health"}, nil, nil, CodeRight},
		{"an address of two", list.Row{Address: "both@health.example", ID: one.ID, Agency: "health"}, nil, nil, CodeTwice},
		{"not on the target", list.Row{Address: "room@health.example", ID: room.ID, Agency: "health"}, nil, target, CodeNotOnTarget},
		{"crossed on the target", list.Row{Address: h[4].Primary(), ID: h[4].ID, Agency: "health"}, nil, target, CodeTarget},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := &list.List{ID: "l", Agency: "health", Rows: []list.Row{c.row}}
			r := Check(Input{List: l, Key: c.key, Source: w.source, Target: c.target})
			if got := r.Rows[0].Code(); got != c.want {
				t.Errorf("verdict %v, want %v: %+v", got, c.want, r.Rows[0].Findings)
			}
			if got, want := r.Clean(), c.want.Severity() != Wrong; got != want {
				t.Errorf("clean: %v, want %v", got, want)
			}
		})
	}
}
