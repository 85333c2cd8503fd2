package model

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"mailcutover/identity/directory"
	"mailcutover/routing"
)

func person() *directory.Object {
	return &directory.Object{
		ID: routing.MailboxID{1}, DN: "cn=anna,ou=it,ou=health,dc=x", Kind: directory.KindUser, Enabled: true,
		Addresses: []routing.Address{"anna.berg@health.example", "anna@old.example"}, UPN: "anna.berg@corp.example", Account: "aberg", Domain: "CORP",
		Groups: []string{"CN=Pilot, OU=groups,DC=x"}, Attributes: map[string][]string{"department": {"4711"}},
	}
}

func TestAgencies(t *testing.T) {
	m, err := New(Options{Rules: []Rule{
		{Agency: "pilot", Group: "cn=pilot,ou=groups,dc=x"},
		{Agency: "health", Base: "ou=health,dc=x"},
		{Agency: "police", Attribute: "Department", Value: "4711"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	o := person()
	for _, step := range []struct {
		want   routing.AgencyID
		change func()
	}{
		{"pilot", func() {}},
		{"health", func() { o.Groups = nil }},
		{"police", func() { o.DN = "cn=anna,dc=x" }},
		{"", func() { o.Attributes = nil }},
	} {
		step.change()
		if got := m.Agency(o); got != step.want {
			t.Errorf("agency %q, want %q", got, step.want)
		}
	}
	if got := m.Agencies(); !slices.Equal(got, []routing.AgencyID{"pilot", "health", "police"}) {
		t.Errorf("agencies %v", got)
	}
	if got := m.Attributes(); !slices.Equal(got, []string{"Department"}) {
		t.Errorf("attributes %v", got)
	}
}

func TestRow(t *testing.T) {
	m, err := New(Options{
		Places:      []Place{{Platform: "exchange", Login: "{netbios}\\{account}"}, {Platform: "ox", Address: "{account}@ox.internal", Login: "{primary}"}},
		Coexistence: []Coexistence{{Pattern: "{local}.tmp@{domain}"}, {Agency: "labour", Pattern: "{local}.old@{domain}"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	agency, err := routing.NewAgency("health", "exchange", "ox")
	if err != nil {
		t.Fatal(err)
	}
	row, err := m.Row(person(), &agency)
	if err != nil {
		t.Fatal(err)
	}
	if want := []routing.Address{"anna.berg@health.example", "anna@old.example", "anna.berg.tmp@health.example"}; !slices.Equal(row.Addresses, want) {
		t.Errorf("addresses %v", row.Addresses)
	}
	if want := []routing.Login{"anna.berg@corp.example", "aberg", `corp\aberg`}; !slices.Equal(row.Logins, want) {
		t.Errorf("logins %v", row.Logins)
	}
	if row.Kind != routing.KindUser || row.Source.Login != `CORP\aberg` || row.Source.Address != "" || row.Target.Address != "aberg@ox.internal" || row.Target.Login != "anna.berg@health.example" {
		t.Errorf("row %+v", row)
	}
	if _, err := routing.NewMapping("health", []routing.Row{row}); err != nil {
		t.Errorf("the row is in no mapping: %v", err)
	}
	for want, change := range map[string]func(*directory.Object){
		"not a mailbox":           func(o *directory.Object) { o.Kind = directory.KindGroup },
		"no directory id":         func(o *directory.Object) { o.ID = routing.MailboxID{} },
		"no address":              func(o *directory.Object) { o.Addresses = nil },
		"it has no account":       func(o *directory.Object) { o.Account = "" },
		"it has no netbios":       func(o *directory.Object) { o.Domain = "" },
		"cn=anna,ou=it,ou=health": func(o *directory.Object) { o.UPN = "an\x01na" },
	} {
		o := person()
		change(o)
		if _, err := m.Row(o, &agency); !errors.Is(err, ErrNoRow) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// What one object says never becomes a pattern.
func TestAPatternIsFilledInOnce(t *testing.T) {
	o := person()
	o.Account = "{primary}"
	if got, err := fill("{account}-{local}", o); err != nil || got != "{primary}-anna.berg" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestFixed(t *testing.T) {
	m, err := New(Options{Homes: []Home{{Kind: directory.KindGroup, Platform: "exchange"}}})
	if err != nil {
		t.Fatal(err)
	}
	group := &directory.Object{Kind: directory.KindGroup, Addresses: []routing.Address{"all@health.example", "alle@health.example"}}
	got := m.Fixed(group)
	if len(got) != 2 || got[1].Address != "alle@health.example" || got[1].At != "all@health.example" || got[1].Kind != "group" || got[1].Platform != "exchange" {
		t.Errorf("%+v", got)
	}
	if got := m.Fixed(person()); got != nil {
		t.Errorf("a mailbox is a fixed address: %+v", got)
	}
}

func TestOptions(t *testing.T) {
	for name, o := range map[string]Options{
		"no agency":          {Rules: []Rule{{Base: "dc=x"}}},
		"nothing to go by":   {Rules: []Rule{{Agency: "a"}}},
		"two ways":           {Rules: []Rule{{Agency: "a", Base: "dc=x", Group: "cn=g"}}},
		"no value":           {Rules: []Rule{{Agency: "a", Attribute: "department"}}},
		"unknown name":       {Places: []Place{{Platform: "ox", Login: "{user}"}}},
		"open brace":         {Places: []Place{{Platform: "ox", Address: "{local@x.example"}}},
		"one for everybody":  {Coexistence: []Coexistence{{Pattern: "tmp@{domain}"}}},
		"home of a mailbox":  {Homes: []Home{{Kind: directory.KindUser, Platform: "ox"}}},
		"home without where": {Homes: []Home{{Kind: directory.KindGroup}}},
	} {
		if _, err := New(o); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}
