package desk

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"mailcutover/identity/directory"
	"mailcutover/identity/list"
	"mailcutover/identity/model"
	"mailcutover/internal/alarm"
	"mailcutover/routing"
)

// objects is a directory in memory.
type objects []directory.Object

func (o objects) Name() string { return "ad" }

func (o objects) Read(_ context.Context, each func(*directory.Object) error) (directory.Snapshot, error) {
	for i := range o {
		if err := each(&o[i]); err != nil {
			return directory.Snapshot{}, err
		}
	}
	return directory.Snapshot{Directory: "ad", Objects: len(o), Began: time.Now(), Ended: time.Now()}, nil
}

func (o objects) Find(context.Context, directory.Query) ([]directory.Object, error) { return nil, nil }

func object(n int, more ...routing.Address) directory.Object {
	return directory.Object{
		ID: id(n), DN: fmt.Sprintf("cn=%d,ou=health,dc=x", n), Kind: directory.KindUser, Enabled: true, Addresses: append([]routing.Address{address(n)}, more...),
		X500: []string{fmt.Sprintf("/o=Org/cn=%d", n)},
	}
}

func id(n int) routing.MailboxID { return routing.MailboxID{byte(n), 1} }

func address(n int) routing.Address { return routing.Address(fmt.Sprintf("p%d@health.example", n)) }

// table is a State with an agency that has the mailboxes 1 to n.
func table(t *testing.T, n int, complete bool) *routing.State {
	t.Helper()
	var rows []routing.Row
	for i := range n {
		rows = append(rows, routing.Row{Mailbox: id(i + 1), Kind: routing.KindUser, Addresses: []routing.Address{address(i + 1)}})
	}
	m, err := routing.NewMapping("health", rows)
	if err != nil {
		t.Fatal(err)
	}
	s, err := routing.NewState(routing.Position{Incarnation: "i", Revision: 1}).Apply(routing.Update{
		Agencies: []routing.Agency{{ID: "health", Source: "exchange", Target: "ox", Phase: routing.PhaseSource, Published: true, Mapping: m.Digest()}},
		Mappings: []*routing.Mapping{m}, Domains: []routing.Domain{{Name: "health.example", Complete: complete}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// read returns a desk that has read a directory, and what it let in.
func read(t *testing.T, s *routing.State, dir objects) (*Desk, *alarm.Set, map[routing.MailboxID][]routing.Address) {
	t.Helper()
	m, err := model.New(model.Options{Rules: []model.Rule{{Agency: "health", Base: "ou=health,dc=x"}}})
	if err != nil {
		t.Fatal(err)
	}
	key, err := list.NewKey([]byte("sixteen characters"))
	if err != nil {
		t.Fatal(err)
	}
	entered := make(map[routing.MailboxID][]routing.Address) // Run reads at once, and again on demand
	alarms := alarm.NewSet(nil)
	d, err := New(Options{
		Source: dir, Model: m, Key: key, State: func() *routing.State { return s }, Alarms: alarms, CheckAge: time.Hour, MostRows: 20, MostPercent: 10, Separator: "+",
		Enter: func(_ context.Context, a *Addition) ([]string, error) {
			for _, r := range a.Rows {
				entered[r.Mailbox] = r.Addresses
				for _, a := range r.Addresses {
					if a == "x@health.example" {
						t.Errorf("%s entered, which two have", a)
					}
				}
			}
			return nil, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = d.Run(ctx) }()
	if err := d.Refresh(ctx); err != nil {
		t.Fatal(err)
	}
	cancel()
	<-ended
	return d, alarms, entered
}

func persons(n int) (dir objects) {
	for i := range n {
		dir = append(dir, object(i+1))
	}
	return dir
}

// What enters by itself, and what waits for people.
func TestAdditions(t *testing.T) {
	for name, c := range map[string]struct {
		table int
		dir   objects
		want  int // rows that enter
		alarm bool
	}{
		"nothing new":                          {10, persons(10), 0, false},
		"five, however small the agency":       {1, persons(6), 5, false},
		"six of ten":                           {10, persons(16), 0, true},
		"ten percent":                          {100, persons(110), 10, false},
		"more than ten percent":                {100, persons(111), 0, true},
		"more than most_rows":                  {210, persons(231), 0, true},
		"an agency without mailboxes":          {0, persons(3), 0, false},
		"an alias":                             {10, append(persons(9), object(10, "alias@health.example")), 1, false},
		"an alias that another has":            {10, append(persons(9), object(10, address(3))), 0, false},
		"two that are new with one address":    {10, append(persons(10), object(11, "x@health.example"), object(12, "x@health.example")), 2, false}, // each with its own alone
		"the address of one that isn't there":  {10, append(persons(9), func() directory.Object { o := object(11); o.Addresses[0] = address(10); return o }()), 0, false},
		"an object of no agency the table has": {10, append(persons(10), func() directory.Object { o := object(11); o.DN = "cn=11,ou=other,dc=x"; return o }()), 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			_, alarms, entered := read(t, table(t, c.table, false), c.dir)
			raised := false
			for _, a := range alarms.List() {
				raised = raised || a.Key == enterAlarm+"health"
			}
			if len(entered) != c.want || raised != c.alarm {
				t.Errorf("%d mailboxes entered, alarms %+v", len(entered), alarms.List())
			}
		})
	}
}

func TestAbsentAndEncapsulated(t *testing.T) {
	open, _, _ := read(t, table(t, 3, false), persons(4))
	whole, _, _ := read(t, table(t, 3, true), persons(4))
	for _, c := range []struct {
		d      *Desk
		a      routing.Address
		absent bool
	}{
		{whole, "nobody@health.example", true},
		{whole, "nobody+detail@health.example", true},
		{whole, "p1@health.example", false},        // the table has it
		{whole, "p1+detail@health.example", false}, // without its detail
		{whole, "p4@health.example", false},        // the directory has it
		{whole, "p4+detail@health.example", false},
		{whole, "imceaex-_o=org_cn=9@health.example", false},
		{whole, "nobody@elsewhere.example", false},
		{open, "nobody@health.example", false}, // the domain isn't complete
	} {
		if err := c.d.Absent(t.Context(), c.a); (err == nil) != c.absent || err != nil && !errors.Is(err, ErrUnproven) {
			t.Errorf("%s: %v", c.a, err)
		}
	}
	for a, want := range map[routing.Address]routing.Address{
		"imceaex-_o=org_cn=2@health.example": address(2),
		"imceaex-_o=org_cn=4@health.example": "", // not in the table
		"imceaex-_o=org_cn=9@health.example": "",
		"p1@health.example":                  "",
	} {
		if got, ok := whole.Encapsulated(a); got != want || ok != (want != "") {
			t.Errorf("%s: %q, %v", a, got, ok)
		}
	}
}
