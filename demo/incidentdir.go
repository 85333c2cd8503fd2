package demo

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"mailcutover/identity/check"
	"mailcutover/identity/directory"
	"mailcutover/identity/model"
	"mailcutover/routing"
)

// memory is a directory that is held in memory, with an organizational unit for each agency.
type memory []directory.Object

// newMemory returns the directory of these mailboxes. Each has an account whose name says
// nothing of its agency, as accounts of a whole administration are.
func newMemory(all []mailbox) (memory, error) {
	numbers := rand.New(rand.NewPCG(790, 17)).Perm(len(all))
	d := make(memory, 0, len(all))
	for i := range all {
		a, err := routing.ParseAddress(all[i].address)
		if err != nil {
			return nil, err
		}
		local, _ := a.Split()
		first, last, _ := strings.Cut(local, ".")
		account := fmt.Sprintf("%s%s%03d", last, first[:1], numbers[i])
		d = append(d, directory.Object{
			ID: all[i].id, DN: fmt.Sprintf("CN=%s,OU=%s,%s", account, all[i].agency, suffix), Kind: directory.KindUser,
			Addresses: []routing.Address{a}, Account: account, Enabled: true,
		})
	}
	return d, nil
}

const suffix = "DC=admin,DC=example"

// Name implements directory.Directory.
func (memory) Name() string { return "ad" }

// Read implements directory.Directory.
func (d memory) Read(ctx context.Context, each func(*directory.Object) error) (directory.Snapshot, error) {
	s := directory.Snapshot{Directory: d.Name(), Began: time.Now()}
	for i := range d {
		if err := ctx.Err(); err != nil {
			return s, fmt.Errorf("read directory %s: %w: %w", d.Name(), directory.ErrIncomplete, err)
		}
		o := d[i]
		s.Objects++
		if err := each(&o); err != nil {
			return s, err
		}
	}
	s.Ended = time.Now()
	return s, nil
}

// Find implements directory.Directory, for addresses and ids.
func (d memory) Find(_ context.Context, q directory.Query) ([]directory.Object, error) {
	var found []directory.Object
	for i := range d {
		if o := &d[i]; !q.ID.IsZero() && o.ID == q.ID || q.Address != "" && o.Primary() == q.Address {
			found = append(found, *o)
		}
	}
	return found, nil
}

// reading is what was read of a directory.
type reading struct {
	facts   *check.Facts
	objects map[routing.AgencyID][]*directory.Object
	account map[string]*directory.Object
	id      map[routing.MailboxID]*directory.Object
}

// read reads a directory, and counts its objects to the agencies by their units.
func read(ctx context.Context, d directory.Directory) (*reading, error) {
	var o model.Options
	for _, a := range agencies {
		o.Rules = append(o.Rules, model.Rule{Agency: routing.AgencyID(a.id), Base: "OU=" + a.id + "," + suffix})
	}
	m, err := model.New(o)
	if err != nil {
		return nil, err
	}
	r := &reading{
		facts: check.NewFacts(d.Name(), time.Now()), objects: map[routing.AgencyID][]*directory.Object{},
		account: map[string]*directory.Object{}, id: map[routing.MailboxID]*directory.Object{},
	}
	_, err = d.Read(ctx, func(o *directory.Object) error {
		agency := m.Agency(o)
		r.facts.Add(o, agency)
		r.objects[agency] = append(r.objects[agency], o)
		r.account[o.Account], r.id[o.ID] = o, o
		return nil
	})
	return r, err
}
