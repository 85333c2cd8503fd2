package watch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"mailcutover/identity/directory"
	"mailcutover/identity/list"
	"mailcutover/identity/model"
	"mailcutover/identity/register"
	"mailcutover/routing"
)

// fake is a directory in memory.
type fake struct {
	mu      sync.Mutex
	objects []directory.Object
	broken  error
	asked   int
}

func (f *fake) Name() string { return "ad" }

func (f *fake) Read(_ context.Context, each func(*directory.Object) error) (directory.Snapshot, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := directory.Snapshot{Directory: "ad", Began: time.Now(), Ended: time.Now()}
	for i := range f.objects {
		if f.broken != nil && i == 1 {
			return s, fmt.Errorf("%w: %w", directory.ErrIncomplete, f.broken)
		}
		o := f.objects[i]
		if err := each(&o); err != nil {
			return s, err
		}
		s.Objects++
	}
	return s, nil
}

func (f *fake) Find(_ context.Context, q directory.Query) ([]directory.Object, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	if f.broken != nil {
		return nil, f.broken
	}
	var out []directory.Object
	for _, o := range f.objects {
		if slices.Contains(o.Addresses, q.Address) {
			out = append(out, o)
		}
	}
	return out, nil
}

func (f *fake) change(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
}

func mailbox(n byte, addresses ...routing.Address) directory.Object {
	return directory.Object{
		ID: routing.MailboxID{n}, DN: fmt.Sprintf("cn=%d,ou=health,dc=x", n), Kind: directory.KindUser, Enabled: true, Addresses: addresses,
		X500: []string{fmt.Sprintf("/o=Org/cn=%d", n)},
	}
}

func testModel(t *testing.T) *model.Model {
	t.Helper()
	m, err := model.New(model.Options{Rules: []model.Rule{{Agency: "health", Base: "ou=health,dc=x"}, {Agency: "labour", Base: "ou=labour,dc=x"}}})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestOnlyAWholeReadingCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{objects: []directory.Object{mailbox(1, "a@health.example"), mailbox(2, "b@health.example")}}
		var failed []error
		w, err := New(Options{Source: f, Model: testModel(t), Every: time.Hour, Failed: func(err error) { failed = append(failed, err) }})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- w.Run(ctx) }()
		synctest.Wait()
		first, _ := w.Views()
		if first == nil || first.Snapshot.Objects != 2 || len(first.Objects("health")) != 2 {
			t.Fatalf("%+v", first)
		}
		f.change(func() { f.broken, f.objects = errors.New("cut"), append(f.objects, mailbox(3, "c@health.example")) })
		if err := w.Refresh(ctx); !errors.Is(err, directory.ErrIncomplete) || len(failed) != 1 {
			t.Errorf("%v, told %v", err, failed)
		}
		if now, _ := w.Views(); now != first {
			t.Error("a part of the directory was taken for the whole")
		}
		f.change(func() { f.broken = nil })
		time.Sleep(time.Hour + time.Second)
		synctest.Wait()
		if now, _ := w.Views(); now.Snapshot.Objects != 3 {
			t.Error("it wasn't read again on schedule")
		}
		if id, ok := w.X500("/O=org/CN=3"); !ok || id != (routing.MailboxID{3}) {
			t.Errorf("X.500 name: %v, %v", id, ok)
		}
		cancel()
		<-done
	})
}

func TestProofThatNobodyHasAnAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{objects: []directory.Object{mailbox(1, "a@health.example")}}
		w, err := New(Options{Source: f, Model: testModel(t), Rate: 2})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		if err := w.Absent(ctx, "x@health.example"); !errors.Is(err, ErrUnproven) {
			t.Errorf("before it was read: %v", err)
		}
		go func() { done <- w.Run(ctx) }()
		synctest.Wait()
		if err := w.Absent(ctx, "x@health.example"); err != nil {
			t.Errorf("an address that nobody has: %v", err)
		}
		if err := w.Absent(ctx, "w@health.example"); err != nil {
			t.Errorf("another one that nobody has: %v", err)
		}
		if err := w.Absent(ctx, "a@health.example"); !errors.Is(err, ErrUnproven) {
			t.Errorf("an address that it has: %v", err)
		}
		for _, a := range []routing.Address{"x@xn--mller-kva.example", "mülle@health.example"} {
			if err := w.Absent(ctx, a); !errors.Is(err, ErrUnproven) {
				t.Errorf("%s, which has more than one spelling: %v", a, err)
			}
		}
		time.Sleep(time.Second)
		f.change(func() { f.objects = append(f.objects, mailbox(2, "new@health.example")) })
		if err := w.Absent(ctx, "new@health.example"); !errors.Is(err, ErrUnproven) {
			t.Errorf("somebody hired this morning: %v", err)
		}
		time.Sleep(time.Second)
		f.change(func() { f.objects = append(f.objects, mailbox(3, "w@health.example")) })
		if err := w.Absent(ctx, "w@health.example"); !errors.Is(err, ErrUnproven) {
			t.Errorf("somebody hired just after mail for him was denied: %v", err)
		}
		_ = w.Absent(ctx, "y@health.example")
		if err := w.Absent(ctx, "z@health.example"); !errors.Is(err, ErrUnproven) {
			t.Errorf("more than the rate: %v", err)
		}
		time.Sleep(time.Minute)
		f.change(func() { f.broken = errors.New("away") })
		if err := w.Absent(ctx, "x@health.example"); !errors.Is(err, ErrUnproven) {
			t.Errorf("the directory is away: %v", err)
		}
		f.change(func() { f.broken = nil })
		time.Sleep(time.Hour)
		if err := w.Absent(ctx, "x@health.example"); !errors.Is(err, ErrUnproven) {
			t.Errorf("the reading is old: %v", err)
		}
		cancel()
		<-done
	})
}

// viewOf reads objects at once.
func viewOf(t *testing.T, m *model.Model, objects ...directory.Object) *View {
	t.Helper()
	b := newBuilder("ad", m, time.Unix(1e9, 0))
	for i := range objects {
		if err := b.add(&objects[i]); err != nil {
			t.Fatal(err)
		}
	}
	return b.view
}

// tableOf is a table with the agency health, which has these rows.
func tableOf(t *testing.T, rows ...routing.Row) *routing.State {
	t.Helper()
	agency, err := routing.NewAgency("health", "exchange", "ox")
	if err != nil {
		t.Fatal(err)
	}
	mapping, err := routing.NewMapping("health", rows)
	if err != nil {
		t.Fatal(err)
	}
	agency.Mapping = mapping.Digest()
	other, err := routing.NewAgency("labour", "exchange", "ox")
	if err != nil {
		t.Fatal(err)
	}
	taken, err := routing.NewMapping("labour", []routing.Row{{Mailbox: routing.MailboxID{99}, Kind: routing.KindUser, Addresses: []routing.Address{"taken@health.example"}}})
	if err != nil {
		t.Fatal(err)
	}
	other.Mapping = taken.Digest()
	s, err := routing.NewState(routing.Position{}).Apply(routing.Update{Agencies: []routing.Agency{agency, other}, Mappings: []*routing.Mapping{mapping, taken}})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func row(n byte, addresses ...routing.Address) routing.Row {
	return routing.Row{Mailbox: routing.MailboxID{n}, Kind: routing.KindUser, Addresses: addresses}
}

func TestDrift(t *testing.T) {
	m := testModel(t)
	s := tableOf(t, row(1, "a@health.example"), row(2, "b@health.example"), row(3, "c@health.example"), row(4, "d@health.example", "old@health.example"),
		row(5, "e@health.example"), row(6, "f@health.example"), row(7, "g@health.example"), row(8, "h@health.example"))
	moved := mailbox(2, "b@health.example")
	moved.DN = "cn=2,ou=labour,dc=x"
	disabled := mailbox(3, "c@health.example")
	disabled.Enabled = false
	v := viewOf(t, m, moved, disabled, mailbox(4, "d@health.example", "d.new@health.example"), mailbox(5, "e.new@health.example"),
		mailbox(6, "f.new@health.example"), mailbox(9, "f@health.example"), mailbox(7, "g@health.example"), mailbox(8, "h@health.example"))
	l := &list.List{ID: "health-0001", Agency: "health"}
	for n, a := range map[byte]routing.Address{1: "a@health.example", 2: "b@health.example", 3: "c@health.example", 4: "d@health.example", 5: "e@health.example", 6: "f@health.example", 7: "g@health.example"} {
		l.Rows = append(l.Rows, list.Row{ID: routing.MailboxID{n}, Address: a, Agency: "health"})
	}
	var got []string
	blocks := 0
	for _, d := range Compare(v, nil, m, s, "health", []register.Entry{{List: l, Standing: register.Active}}) {
		got = append(got, fmt.Sprint(d.Kind, " ", d.Address))
		if d.Kind.Blocks() {
			blocks++
		}
	}
	want := []string{
		"gone a@health.example", "moved b@health.example", "disabled c@health.example", "new-name d.new@health.example",
		"new-name e.new@health.example", "readdressed e@health.example", "renamed e@health.example", "new-name f.new@health.example", "renamed f@health.example", "repaired f@health.example", "unlisted f@health.example",
		"unlisted h@health.example", "lost-name old@health.example",
	}
	if !slices.Equal(got, want) {
		t.Errorf("drift\n%q, want\n%q", got, want)
	}
	if blocks != 9 {
		t.Errorf("%d of them keep the agency from being cut over, want 9", blocks)
	}
}

func TestAdditionsTakeNothing(t *testing.T) {
	m := testModel(t)
	s := tableOf(t, row(1, "a@health.example"), row(2, "b@health.example"))
	v := viewOf(t, m, mailbox(1, "a@health.example", "a.new@health.example", "b@health.example", "taken@health.example"), mailbox(3, "c@health.example"),
		mailbox(4, "taken@health.example"), mailbox(5))
	rows, refused := Additions(v, m, s, "health")
	if len(rows) != 2 || len(refused) != 1 {
		t.Fatalf("%+v, %v", rows, refused)
	}
	if want := []routing.Address{"a@health.example", "a.new@health.example"}; !slices.Equal(rows[0].Addresses, want) {
		t.Errorf("known mailbox: %v, want %v", rows[0].Addresses, want)
	}
	if rows[1].Mailbox != (routing.MailboxID{3}) || rows[1].Addresses[0] != "c@health.example" {
		t.Errorf("new mailbox: %+v", rows[1])
	}
	if rows, _ := Additions(v, m, s, "police"); rows != nil {
		t.Errorf("an unknown agency: %+v", rows)
	}
}

func TestCrossings(t *testing.T) {
	m := testModel(t)
	s := tableOf(t, row(1, "a@health.example"))
	record, _ := s.Agency("labour")
	record.Phase = routing.PhaseTarget
	s, err := s.Apply(routing.Update{Agencies: []routing.Agency{record}})
	if err != nil {
		t.Fatal(err)
	}
	shared := mailbox(1, "office@health.example")
	shared.Kind, shared.Members = directory.KindShared, []string{"CN=2,OU=labour,DC=x", "cn=3,ou=health,dc=x"}
	member := mailbox(2, "b@labour.example")
	member.DN, member.Forward = "cn=2,ou=labour,dc=x", "cn=3,ou=health,dc=x"
	got := viewOf(t, m, shared, member, mailbox(3, "c@health.example")).Crossings(s)
	if len(got) != 2 || got[0].What != "member" || got[1].What != "forward" {
		t.Errorf("%+v", got)
	}
}

// A server that has just been installed, and rights that were taken away, look like an empty
// directory: the reading before stays, and nothing is proven by that one.
func TestAnEmptyDirectoryIsNoReading(t *testing.T) {
	f := &fake{objects: []directory.Object{mailbox(1, "a@health.example")}}
	w, err := New(Options{Source: f, Model: testModel(t)})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.read(t.Context()); err != nil {
		t.Fatal(err)
	}
	before, _ := w.Views()
	f.change(func() { f.objects = nil })
	if err := w.read(t.Context()); !errors.Is(err, directory.ErrIncomplete) {
		t.Errorf("%v, want that it isn't whole", err)
	}
	if now, _ := w.Views(); now != before {
		t.Error("nothing was taken for the directory")
	}
	if n := w.Failures("ad"); n != 1 {
		t.Errorf("%d failures, want 1", n)
	}
}

// An object of an agency that nobody can tell is a mailbox or not is in no list: somebody has to
// be told.
func TestAnObjectOfNoKnownKindIsAProblem(t *testing.T) {
	m := testModel(t)
	odd, said, group, elsewhere := mailbox(1, "a@health.example"), mailbox(2, "b@health.example"), mailbox(3, "c@health.example"), mailbox(4, "d@x.example")
	odd.Kind, said.Kind, group.Kind, elsewhere.Kind = directory.KindUnknown, directory.KindUnknown, directory.KindGroup, directory.KindUnknown
	said.Problems = []string{"msExchRecipientTypeDetails 3 isn't known"}
	group.Problems = []string{"it has no objectGUID"}
	elsewhere.DN = "cn=4,dc=x"
	var got []string
	for _, p := range viewOf(t, m, odd, said, group, elsewhere, mailbox(5, "e@health.example")).Problems {
		got = append(got, p.DN+": "+p.Text)
	}
	const unknown = "the directory doesn't say what it is, so it is in no list and doesn't move"
	want := []string{"cn=1,ou=health,dc=x: " + unknown, "cn=2,ou=health,dc=x: msExchRecipientTypeDetails 3 isn't known", "cn=2,ou=health,dc=x: " + unknown}
	if !slices.Equal(got, want) {
		t.Errorf("problems %q, want %q", got, want)
	}
}
