package admintest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"mailcutover/admin"
	"mailcutover/identity/desk"
	"mailcutover/identity/directory"
	"mailcutover/identity/list"
	"mailcutover/identity/model"
	"mailcutover/internal/alarm"
	"mailcutover/routing"
)

// people is a directory with a few persons of agency health, pNN@health.example with the
// directory ids NN01....
type people int

// Name implements directory.Directory.
func (people) Name() string { return "ad" }

func (people) object(n int) *directory.Object {
	return &directory.Object{
		ID: routing.MailboxID{byte(n), 1}, DN: fmt.Sprintf("cn=p%02d,ou=health,dc=example", n), Kind: directory.KindUser, Enabled: true,
		Addresses: []routing.Address{routing.Address(fmt.Sprintf("p%02d@health.example", n))},
	}
}

// Read implements directory.Directory.
func (p people) Read(_ context.Context, each func(*directory.Object) error) (directory.Snapshot, error) {
	s := directory.Snapshot{Directory: "ad", Server: "memory", Began: time.Now(), Ended: time.Now(), Objects: int(p)}
	for n := range int(p) {
		if err := each(p.object(n + 1)); err != nil {
			return s, err
		}
	}
	return s, nil
}

// Find implements directory.Directory.
func (p people) Find(_ context.Context, q directory.Query) (found []directory.Object, _ error) {
	for n := range int(p) {
		if o := p.object(n + 1); o.Primary() == q.Address || !q.ID.IsZero() && o.ID == q.ID {
			found = append(found, *o)
		}
	}
	return found, nil
}

// Directory gives a node a directory with n persons of agency health, until the test's end.
// state returns the node's copy of the table.
func Directory(t testing.TB, n int, state func() *routing.State, o *admin.Options) {
	t.Helper()
	m, err := model.New(model.Options{Rules: []model.Rule{{Agency: "health", Base: "ou=health,dc=example"}}})
	if err != nil {
		t.Fatal(err)
	}
	key, err := list.NewKey([]byte("a key for lists, for tests"))
	if err != nil {
		t.Fatal(err)
	}
	d, err := desk.New(desk.Options{
		Source: people(n), Model: m, Key: key, State: state, Alarms: o.Alarms.(*alarm.Set), CheckAge: time.Hour, Logger: o.Logger,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = d.Run(ctx) // until ctx ends
	}()
	t.Cleanup(func() { cancel(); <-ended })
	o.Desk = func() *desk.Desk { return d }
}
