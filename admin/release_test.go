package admin

import (
	"errors"
	"slices"
	"testing"

	"mailcutover/identity/desk"
	"mailcutover/routing"
)

// A group's address that the directory has given to a mailbox keeps that mailbox's list from coming
// into force, until two people take it from the group. What is still the group's stays.
func TestAFixedAddressThatBecameAMailboxs(t *testing.T) {
	state, err := routing.NewState(routing.Position{}).Apply(routing.Update{
		Domains: []routing.Domain{{Name: "health.example"}},
		Fixed: []routing.Fixed{
			{Address: "info@health.example", Kind: "group", Platform: "exchange"}, {Address: "all@health.example", Kind: "group", Platform: "exchange"},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	anna, unread := routing.MailboxID{1}, errors.New("not read lately")
	of := func(a routing.Address) (routing.MailboxID, bool, error) {
		if a == "info@health.example" {
			return anna, true, nil
		}
		return routing.MailboxID{}, false, nil
	}
	without := &Server{Options: Options{Desk: func() *desk.Desk { return nil }}}
	for name, c := range map[string]struct {
		address string
		of      holder
		err     error
	}{
		"a mailbox's":     {address: "Info@health.example", of: of},
		"still a group's": {address: "all@health.example", of: of, err: routing.ErrNotReleased},
		"nobody's":        {address: "x@health.example", of: of, err: routing.ErrNotReleased},
		"not read":        {address: "info@health.example", of: func(routing.Address) (id routing.MailboxID, ok bool, err error) { return id, false, unread }, err: unread},
		"no directory":    {address: "info@health.example", of: without.holder, err: routing.ErrNotReleased},
	} {
		t.Run(name, func(t *testing.T) {
			_, with, err := releasing(state, ReleasedName{Name: c.address, Fixed: true}, c.of)
			if !errors.Is(err, c.err) {
				t.Fatalf("%v, want %v", err, c.err)
			}
			if err == nil && (with.Mailbox != anna || len(with.Claims) != 1) {
				t.Errorf("%+v", with)
			}
		})
	}
	r := ReleasedName{Name: "info@health.example", Fixed: true}
	c, _, err := r.change(state, of)
	if err != nil || len(c.Fixed) != 1 || !c.Fixed[0].Removed || c.Fixed[0].Address != "info@health.example" {
		t.Fatalf("%+v, %v", c.Fixed, err)
	}
	then, err := state.Apply(routing.Update{Fixed: c.Fixed})
	if err != nil || slices.ContainsFunc(slices.Collect(then.FixedAddresses()), func(f routing.Fixed) bool { return f.Address == "info@health.example" }) {
		t.Errorf("it is fixed still, or %v", err)
	}
}
