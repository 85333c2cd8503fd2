package desk

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mailcutover/identity/directory"
	"mailcutover/identity/list"
	"mailcutover/identity/model"
	"mailcutover/internal/alarm"
	"mailcutover/routing"
)

// forwarding is a directory whose content the test changes, and that notes what it is asked.
type forwarding struct {
	objects
	shows bool
	asked []int // how many mailboxes at a time
	err   error
	then  func() // after a question
}

func (f *forwarding) ShowsForwards() bool { return f.shows }

func (f *forwarding) FindIDs(_ context.Context, ids []routing.MailboxID) (out []directory.Object, _ error) {
	f.asked = append(f.asked, len(ids))
	for _, id := range ids {
		for _, o := range f.objects {
			if o.ID == id {
				out = append(out, o)
			}
		}
	}
	err := f.err
	if f.then != nil {
		f.then()
	}
	return out, err
}

func (f *forwarding) Find(_ context.Context, q directory.Query) (out []directory.Object, _ error) {
	for _, o := range f.objects {
		if strings.EqualFold(o.DN, q.DN) {
			out = append(out, o)
		}
	}
	return out, nil
}

// moved is the coexistence address of a mailbox.
func moved(n int) routing.Address {
	return routing.Address(fmt.Sprintf("p%d.tmp@health.example", n))
}

// forwarded returns a desk over an agency of n mailboxes with coexistence addresses, but for those
// of without.
func forwarded(t *testing.T, n int, without ...int) (*Desk, *forwarding) {
	t.Helper()
	var rows []routing.Row
	f := &forwarding{shows: true}
	for i := range n {
		row := routing.Row{Mailbox: id(i + 1), Kind: routing.KindUser, Addresses: []routing.Address{address(i + 1), moved(i + 1)}}
		for _, one := range without {
			if one == i+1 {
				row.Addresses = row.Addresses[:1]
			}
		}
		rows, f.objects = append(rows, row), append(f.objects, object(i+1))
	}
	m, err := routing.NewMapping("health", rows)
	if err != nil {
		t.Fatal(err)
	}
	s, err := routing.NewState(routing.Position{Incarnation: "i", Revision: 1}).Apply(routing.Update{
		Agencies: []routing.Agency{{ID: "health", Source: "exchange", Target: "ox", Phase: routing.PhaseSource, Published: true, Mapping: m.Digest()}},
		Mappings: []*routing.Mapping{m}, Domains: []routing.Domain{{Name: "health.example"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	model, err := model.New(model.Options{
		Rules:       []model.Rule{{Agency: "health", Base: "ou=health,dc=x"}},
		Coexistence: []model.Coexistence{{Agency: "health", Pattern: "{local}.tmp@{domain}"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	key, err := list.NewKey([]byte("sixteen characters"))
	if err != nil {
		t.Fatal(err)
	}
	d, err := New(Options{Source: f, Model: model, Key: key, State: func() *routing.State { return s }, Alarms: alarm.NewSet(nil), CheckAge: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	return d, f
}

func TestForwardFaults(t *testing.T) {
	for name, c := range map[string]struct {
		change  func(*directory.Object)
		on, off ForwardFault
	}{
		"none":                    {func(*directory.Object) {}, ForwardMissing, ""},
		"by address":              {func(o *directory.Object) { o.Forwards = []string{"P1.tmp@HEALTH.example"} }, "", ForwardLeft},
		"by targetAddress":        {func(o *directory.Object) { o.Target, o.Redirect = "p1.tmp@health.example", true }, "", ForwardLeft},
		"by recipient":            {func(o *directory.Object) { o.Forward = "CN=contact,dc=x" }, "", ForwardLeft},
		"by address in its place": {func(o *directory.Object) { o.Forward = "p1.tmp@health.example" }, "", ForwardLeft},
		"twice to the same":       {func(o *directory.Object) { o.Forward, o.Target = "cn=contact,dc=x", "p1.tmp@health.example" }, "", ForwardLeft},
		"and here":                {func(o *directory.Object) { o.Forwards, o.Redirect = []string{"p1.tmp@health.example"}, true }, ForwardCopies, ForwardLeft},
		"and here, by address":    {func(o *directory.Object) { o.Forwards = []string{"p1@health.example", "p1.tmp@health.example"} }, ForwardCopies, ForwardLeft},
		"here alone":              {func(o *directory.Object) { o.Forwards = []string{"p1@health.example"} }, ForwardMissing, ""},
		"another's":               {func(o *directory.Object) { o.Forwards = []string{"p2.tmp@health.example"} }, ForwardElsewhere, ""},
		"elsewhere":               {func(o *directory.Object) { o.Forwards = []string{"a@private.example"} }, ForwardElsewhere, ""},
		"elsewhere as well":       {func(o *directory.Object) { o.Forwards = []string{"p1.tmp@health.example", "a@private.example"} }, ForwardElsewhere, ForwardLeft},
		"recipient goes before": {func(o *directory.Object) {
			o.Forward, o.Forwards = "cn=2,ou=health,dc=x", []string{"p1.tmp@health.example"}
		}, ForwardElsewhere, ForwardLeft},
		"nobody":         {func(o *directory.Object) { o.Forward = "cn=gone,dc=x" }, ForwardElsewhere, ""},
		"not an address": {func(o *directory.Object) { o.Forwards = []string{"p1.tmp"} }, ForwardElsewhere, ""},
		"not there":      {func(o *directory.Object) { o.ID = routing.MailboxID{99} }, ForwardUnknown, ""},
		"there twice":    {func(o *directory.Object) { o.ID = id(2) }, ForwardUnknown, ""},
	} {
		t.Run(name, func(t *testing.T) {
			d, f := forwarded(t, 2)
			f.objects = append(f.objects, directory.Object{DN: "cn=contact,dc=x", Kind: directory.KindContact, Addresses: []routing.Address{"contact@health.example"}, Target: "p1.tmp@health.example"})
			f.objects[1].Forwards = []string{string(moved(2))}
			c.change(&f.objects[0])
			for on, want := range map[bool]ForwardFault{true: c.on, false: c.off} {
				got, err := d.Forwards(t.Context(), ForwardQuery{Agency: "health", Platform: "exchange", On: on})
				if err != nil || got.Mailboxes != 2 || got.Directory != "ad" {
					t.Fatalf("on %t: %+v, %v", on, got, err)
				}
				fault := ForwardFault("")
				for i := range got.Wrong {
					if got.Wrong[i].Mailbox == id(1) {
						fault = got.Wrong[i].Fault
						if text := SayForward(&got.Wrong[i]); !strings.Contains(text, string(address(1))) {
							t.Errorf("on %t: %q", on, text)
						}
					}
				}
				if fault != want {
					t.Errorf("on %t: fault %q, want %q", on, fault, want)
				}
				if err := got.Err(); (err == nil) != (len(got.Wrong) == 0) || err != nil && (!errors.Is(err, ErrForwards) || strings.Contains(err.Error(), "@")) {
					t.Errorf("on %t: %v", on, err)
				}
			}
		})
	}
}

// What nobody can read back, or where nobody knows the goal, is said so, and nothing is asked.
func TestForwardsThatNobodyReads(t *testing.T) {
	d, f := forwarded(t, 1, 1)
	got, err := d.Forwards(t.Context(), ForwardQuery{Agency: "health", Platform: "exchange", On: true})
	if err != nil || len(got.Wrong) != 1 || got.Wrong[0].Fault != ForwardNowhere {
		t.Errorf("without a coexistence address: %+v, %v", got, err)
	}
	if goals := d.ForwardGoals("health"); len(goals) != 0 {
		t.Errorf("goals %v", goals)
	}
	if d, _ := forwarded(t, 2, 1); d.ForwardGoals("health")[id(2)] != moved(2) {
		t.Error("the second mailbox has no goal")
	}
	f.asked = nil
	for _, q := range []ForwardQuery{{Agency: "health", Platform: "ox"}, {Agency: "health", Platform: "other"}, {Agency: "police", Platform: "exchange"}} {
		if _, err := d.AwaitForwards(t.Context(), q, time.Hour); !errors.Is(err, ErrUnread) {
			t.Errorf("%+v: %v", q, err)
		}
	}
	f.shows = false
	if _, err := d.AwaitForwards(t.Context(), ForwardQuery{Agency: "health", Platform: "exchange"}, time.Hour); !errors.Is(err, ErrUnread) || len(f.asked) > 0 {
		t.Errorf("%v, asked %v", err, f.asked)
	}
}

// A server of the directory that hears later is waited for, asking only for what isn't right yet, and
// not for longer than was said; one that can't be asked for a while as well.
func TestForwardsThatAreSeenLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, f := forwarded(t, 3)
		f.err = errors.New("connection lost")
		f.then = func() {
			switch len(f.asked) {
			case 1:
				f.err = nil
				f.objects[0].Forwards = []string{string(moved(1))}
			case 2:
				f.objects[1].Forwards = []string{string(moved(2))}
			case 3:
				f.objects[2].Forwards = []string{string(moved(3))}
			}
		}
		q := ForwardQuery{Agency: "health", Platform: "exchange", On: true}
		got, err := d.AwaitForwards(t.Context(), q, 30*time.Second)
		if err != nil || got.Mailboxes != 3 || fmt.Sprint(f.asked) != "[3 3 2 1]" {
			t.Errorf("%+v, %v, asked %v", got, err, f.asked)
		}
		f.then, f.objects[2].Forwards = nil, nil
		began := time.Now()
		got, err = d.AwaitForwards(t.Context(), q, 30*time.Second)
		if took := time.Since(began); !errors.Is(err, ErrForwards) || len(got.Wrong) != 1 || got.Wrong[0].Mailbox != id(3) || got.Mailboxes != 3 || took < 20*time.Second || took > 30*time.Second {
			t.Errorf("%+v, %v, after %s", got, err, took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := d.AwaitForwards(ctx, q, time.Hour); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
	})
}
