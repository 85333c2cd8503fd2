package routing

import "testing"

func mailbox(t testing.TB, n int, addresses ...Address) Row {
	t.Helper()
	id := MailboxID{0: 1, 14: byte(n >> 8), 15: byte(n)}
	return Row{Mailbox: id, Kind: KindUser, Addresses: addresses}
}

func TestDecideFollowsTheAgencysRecord(t *testing.T) {
	s := NewState(Position{Incarnation: "test"})
	health, err := NewAgency("health", "exchange", "ox")
	if err != nil {
		t.Fatal(err)
	}
	row := mailbox(t, 1, "anna@health.example", "a.berg@health.example")
	row.Logins = []Login{`amt\anna`}
	row.Target = Place{Address: "u1@ox.internal"}
	m, err := NewMapping("health", []Row{row, mailbox(t, 2, "bert@health.example")})
	if err != nil {
		t.Fatal(err)
	}
	health.Mapping = m.Digest()
	s, err = s.Apply(Update{Agencies: []Agency{health}, Mappings: []*Mapping{m}, Domains: []Domain{{Name: "health.example"}}})
	if err != nil {
		t.Fatal(err)
	}
	if d := s.DecideAddress("anna@health.example", "+"); d.Reason != ReasonOpen || d.Platform != "exchange" || d.Address != "anna@health.example" || d.Mailbox != row.Mailbox {
		t.Errorf("on the source: %+v", d)
	}
	health = health.Arm()
	health, err = health.Begin("op", 7, EventBegin)
	if err != nil {
		t.Fatal(err)
	}
	s, _ = s.Apply(Update{Agencies: []Agency{health}})
	if d := s.DecideAddress("a.berg+x@health.example", "+"); d.Reason != ReasonInPhase || d.Deliver() || !d.Closed() {
		t.Errorf("closed: %+v", d)
	}
	health, _ = health.Commit("op", 7)
	health, _ = health.Publish("op")
	s, _ = s.Apply(Update{Agencies: []Agency{health}})
	if d := s.DecideLogin(`amt\anna`); d.Reason != ReasonOpen || d.Platform != "ox" || d.Address != "u1@ox.internal" || d.Login != `amt\anna` {
		t.Errorf("on the target: %+v", d)
	}
	if d := s.DecideAddress("nobody@health.example", ""); d.Reason != ReasonNoSuchName {
		t.Errorf("unknown: %+v", d)
	}
	if d := s.DecideAddress("nobody@elsewhere.example", ""); d.Reason != ReasonForeign {
		t.Errorf("foreign: %+v", d)
	}
}
