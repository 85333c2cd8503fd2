package routing

import (
	"slices"
	"testing"
)

func TestLoginsWithDetail(t *testing.T) {
	s := town(t, "health")
	own := townRow("health", 3)
	own.Addresses = []Address{"p0.health+own@town.example", "q@town.example"}
	own.Logins = []Login{"p0.health+login@town.example", "a+b"}
	own.Source.Address = "p0.health+place@town.example"
	m := mustMapping(t, "health", append(slices.Collect(s.Mapping("health").Rows()), own)...)
	a, _ := s.Agency("health")
	a.Mapping = m.Digest()
	s = mustApply(t, s, Update{Agencies: []Agency{a}, Mappings: []*Mapping{m}, Fixed: []Fixed{{Address: "p0.health+fixed@town.example", Kind: "group", Platform: "ox"}}})
	base := townRow("health", 0).Mailbox
	for _, test := range []struct {
		login     Login
		separator string
		reason    Reason
		mailbox   MailboxID
	}{
		{"p0.health@town.example", "+", ReasonOpen, base},
		{"p0.health+news@town.example", "+", ReasonOpen, base},
		{"p0.health+news@town.example", "", ReasonNoSuchName, MailboxID{}},
		{"p0.health+own@town.example", "+", ReasonOpen, own.Mailbox},
		{"p0.health+own+x@town.example", "+", ReasonOpen, base},
		{"p0.health+login@town.example", "+", ReasonOpen, own.Mailbox},
		{"p0.health+place@town.example", "+", ReasonNoSuchName, MailboxID{}}, // a platform takes it for another
		{"p0.health+fixed@town.example", "+", ReasonNoSuchName, MailboxID{}},
		{"+news@town.example", "+", ReasonNoSuchName, MailboxID{}},
		{"a+b", "+", ReasonOpen, own.Mailbox},
		{"a+c", "+", ReasonNoSuchName, MailboxID{}},
		{`town\p0.health+x`, "+", ReasonNoSuchName, MailboxID{}}, // not an address
	} {
		if d := s.DecideLoginDetail(test.login, test.separator); d.Reason != test.reason || d.Mailbox != test.mailbox {
			t.Errorf("%s: %+v, want %s, %s", test.login, d, test.reason, test.mailbox)
		}
	}
}

func TestDecidePlatformLogin(t *testing.T) {
	s := town(t, "health")
	own, other := townRow("health", 4), townRow("health", 5)
	own.Source.Login, own.Target.Login, own.Target.Address = `AMT\Own`, "own@ox.internal", "in@ox.internal"
	other.Source.Login = "twice"
	m := mustMapping(t, "health", append(slices.Collect(s.Mapping("health").Rows()), own, other)...)
	a, _ := s.Agency("health")
	a.Mapping = m.Digest()
	s = mustApply(t, s, Update{Agencies: []Agency{a}, Mappings: []*Mapping{m}})
	for _, test := range []struct {
		login   Login
		reason  Reason
		mailbox MailboxID
	}{
		{`amt\own`, ReasonOpen, own.Mailbox},
		{"own@ox.internal", ReasonOpen, own.Mailbox},
		{"twice", ReasonOpen, other.Mailbox},
		{"in@ox.internal", ReasonNoSuchName, MailboxID{}},                    // an address there, and no login
		{"p0.health@town.example", ReasonOpen, townRow("health", 0).Mailbox}, // its own meaning
		{"nobody", ReasonNoSuchName, MailboxID{}},
	} {
		if d := s.DecidePlatformLogin(test.login); d.Reason != test.reason || d.Mailbox != test.mailbox {
			t.Errorf("%s: %+v, want %s, %s", test.login, d, test.reason, test.mailbox)
		}
		if got, want := s.Taken(test.login), test.login != "nobody"; got != want {
			t.Errorf("%s is taken: %t, want %t", test.login, got, want)
		}
		if d := s.DecideLogin(test.login); d.Reason == ReasonOpen && test.login != "p0.health@town.example" {
			t.Errorf("%s is a login by itself: %+v", test.login, d)
		}
	}
}

func TestLoginAt(t *testing.T) {
	s := town(t, "health")
	m := s.Mapping("health")
	own := townRow("health", 4)
	own.Source.Login, own.Target.Login = `AMT\own`, "own@ox.internal"
	m = mustMapping(t, "health", append(slices.Collect(m.Rows()), own)...)
	a, _ := s.Agency("health")
	a.Mapping = m.Digest()
	s = mustApply(t, s, Update{Agencies: []Agency{a}, Mappings: []*Mapping{m}})
	for _, test := range []struct {
		agency   AgencyID
		mailbox  MailboxID
		platform PlatformID
		want     string
	}{
		{"health", own.Mailbox, "exchange", `AMT\own`},
		{"health", own.Mailbox, "ox", "own@ox.internal"},
		{"health", own.Mailbox, "third", ""},
		{"health", own.Mailbox, "", ""},
		{"health", townRow("health", 0).Mailbox, "ox", `town\p0.health`},
		{"health", MailboxID{9}, "ox", ""},
		{"works", own.Mailbox, "ox", ""},
	} {
		if got, ok := s.LoginAt(test.agency, test.mailbox, test.platform); got != test.want || ok != (test.want != "") {
			t.Errorf("%s of %s at %q: %q, %v, want %q", test.mailbox, test.agency, test.platform, got, ok, test.want)
		}
	}
}
