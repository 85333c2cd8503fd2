package daemon

import (
	"strings"
	"testing"

	"mailcutover/internal/alarm"
	"mailcutover/internal/config"
	"mailcutover/routing"
)

// What goes nowhere because of the table stands in one alarm as long as it is so.
func TestAlarmsAboutNames(t *testing.T) {
	d := &Daemon{alarms: alarm.NewSet(nil)}
	d.config.Store(&config.Config{Routing: config.Routing{Separator: "+", Postmaster: "postmaster@health.example"}})
	s := routing.NewState(routing.Position{})
	apply := func(u routing.Update) {
		t.Helper()
		var err error
		if s, err = s.Apply(u); err != nil {
			t.Fatal(err)
		}
		d.watchNames(s)
	}
	agency := func(name routing.AgencyID, rows ...routing.Row) routing.Update {
		t.Helper()
		m, err := routing.NewMapping(name, rows)
		if err != nil {
			t.Fatal(err)
		}
		a, err := routing.NewAgency(name, "exchange", "ox")
		if err != nil {
			t.Fatal(err)
		}
		a.Mapping = m.Digest()
		return routing.Update{Agencies: []routing.Agency{a}, Mappings: []*routing.Mapping{m}}
	}
	row := func(n byte, addresses ...routing.Address) routing.Row {
		return routing.Row{Mailbox: routing.MailboxID{n}, Kind: routing.KindUser, Addresses: addresses}
	}
	want := func(what string, keys ...string) {
		t.Helper()
		var got []string
		for _, a := range d.alarms.List() {
			got = append(got, a.Key)
			if a.Count != 1 {
				t.Errorf("%s: %s was raised %d times", what, a.Key, a.Count)
			}
		}
		if strings.Join(got, " ") != strings.Join(keys, " ") {
			t.Errorf("%s: alarms %v, want %v", what, got, keys)
		}
	}
	apply(routing.Update{Position: routing.Position{Incarnation: "i", Revision: 1}, Domains: []routing.Domain{{Name: "health.example"}}})
	want("an empty table: nobody expects mail")
	apply(agency("health", row(1, "dora@health.example")))
	want("mailboxes, and no postmaster", postmasterAlarm)
	apply(agency("police", row(2, "dora@health.example", "new@health.example")))
	want("one name, two mailboxes", postmasterAlarm, conflictAlarm)
	apply(routing.Update{})
	want("nothing new", postmasterAlarm, conflictAlarm)
	text := d.alarms.List()[1].Text
	for _, part := range []string{"Claimed by two", "dora@health.example: ", "of agency health", "of agency police"} {
		if !strings.Contains(text, part) {
			t.Errorf("%q: want %q in it", text, part)
		}
	}
	apply(routing.Update{Fixed: []routing.Fixed{{Address: "postmaster@health.example", Kind: "group", Platform: "ox"}}})
	want("there is a postmaster", conflictAlarm)
	apply(agency("police", row(2, "new@health.example")))
	want("the name was given up")

	// A reload that names another one.
	d.config.Store(&config.Config{Routing: config.Routing{Postmaster: "hostmaster@health.example"}})
	d.watchNames(s)
	want("another postmaster", postmasterAlarm)
}
