package login

import (
	"strings"
	"testing"

	"mailcutover/routing"
)

// nameState is health, on the source, and works, whose mailboxes log in with other forms.
func nameState(t testing.TB) *routing.State {
	t.Helper()
	state, _ := newState(t)
	works, err := routing.NewAgency("works", "exchange", "third")
	if err != nil {
		t.Fatal(err)
	}
	m, err := routing.NewMapping("works", []routing.Row{
		{
			Mailbox: routing.MailboxID{4}, Kind: routing.KindUser, Addresses: []routing.Address{"dora@works.example"},
			Logins: []routing.Login{"dora@works.example", "odd/name", `w\x\listed`}, Source: routing.Place{Login: `AMT\dora`},
		},
		{Mailbox: routing.MailboxID{5}, Kind: routing.KindShared, Addresses: []routing.Address{"desk@works.example"}, Logins: []routing.Login{`amt\desk`}},
		{Mailbox: routing.MailboxID{6}, Kind: routing.KindUser, Addresses: []routing.Address{"müller@works.example"}, Logins: []routing.Login{"müller"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	works.Mapping = m.Digest()
	state, err = state.Apply(routing.Update{Agencies: []routing.Agency{works}, Mappings: []*routing.Mapping{m}, Domains: []routing.Domain{{Name: "works.example"}}})
	if err != nil {
		t.Fatal(err)
	}
	return state
}

func newTestNames(t testing.TB) *names {
	t.Helper()
	n, err := newNames(&Options{Separator: "+", MasterSeparators: "*%", Domains: []Domain{{Name: "HEALTH", Suffix: "health.example"}, {Name: "Bare"}}})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestNames(t *testing.T) {
	const refused, unknown = "refused", "unknown"
	s, n := nameState(t), newTestNames(t)
	for _, test := range []struct {
		name, authorize string
		want            string // the platform's login, and behind a comma the shared mailbox's; or a word
	}{
		// Forms.
		{"anna@health.example", "", `AMT\anna`},
		{"ANNA@Health.Example", "", `AMT\anna`},
		{"a.berg@health.example", "", `AMT\anna`}, // alias
		{"anna", "", `AMT\anna`},
		{`AMT\Anna`, "", `AMT\anna`}, // as listed
		{`amt\anna`, "", `AMT\anna`},
		{`HEALTH\bert`, "", "bert"},
		{`health\BERT`, "", "bert"},
		{`BARE\bert`, "", "bert"},
		{`BARE\anna@health.example`, "", unknown}, // one domain is enough
		{`OTHER\bert`, "", unknown},
		{`\bert`, "", unknown},
		{`BARE\`, "", unknown},
		{"anna+news@health.example", "", `AMT\anna`},
		{"anna+news", "", unknown},
		{"+news@health.example", "", unknown},
		{"müller", "", "müller"},
		{"mu\u0308ller", "", "müller"}, // NFD
		{"MÜLLER@works.example", "", "müller"},
		{"info@health.example", "", `AMT\info`}, // a shared mailbox by itself: its platform decides
		{"nobody@health.example", "", unknown},
		{"anna@elsewhere.example", "", unknown},
		{"odd/name", "", `AMT\dora`},     // listed: not taken apart
		{`w\x\listed`, "", `AMT\dora`},   // listed: not taken apart
		{"anna@ox.example", "", unknown}, // a platform's own name for it is no login

		// Delegates.
		{"anna/info@health.example", "", `AMT\anna,AMT\info`},
		{"anna@health.example/info@health.example", "", `AMT\anna,AMT\info`},
		{`AMT\anna/info@health.example`, "", `AMT\anna,AMT\info`},
		{`AMT\anna\info@health.example`, "", `AMT\anna,AMT\info`},
		{`AMT\anna\desk`, "", `AMT\anna,amt\desk`}, // the other one in the user's DOMAIN
		{`HEALTH\bert\info`, "", "bert,AMT\\info"},
		{`AMT\anna\anna`, "", `AMT\anna`},                 // one's own
		{`AMT\anna\info`, "", `AMT\anna,AMT\info`},        // only the platform calls it AMT\info
		{"anna/info@ox.example", "", `AMT\anna,AMT\info`}, // as the other platform calls it
		{`AMT\info`, "", unknown},                         // by itself it is no login
		{"anna/in@ox.example", "", unknown},
		{"anna/anna@health.example", "", `AMT\anna`},
		{"nobody/info@health.example", "", unknown},
		{"anna/nobody", "", unknown},
		{"anna/", "", unknown},
		{"/info@health.example", "", unknown},
		{"anna/info@health.example/x", "", unknown},
		{`a\b\c\d`, "", unknown},
		{`\\\`, "", unknown},
		{"dora@works.example/info@health.example", "", `AMT\dora,AMT\info`},

		// Two names (RFC 4616).
		{"anna", "anna", `AMT\anna`},
		{"anna", "ANNA@health.example", `AMT\anna`},
		{"anna", "info@health.example", `AMT\anna,AMT\info`},
		{"anna", "nobody", unknown},
		{"nobody", "anna", unknown},
		{"anna/info@health.example", "anna", unknown},
		{"anna/info@health.example", "bert", unknown},

		// A master user's (L10).
		{"anna*master", "", refused},
		{"anna%x", "", refused},
		{"anna", "bert*master", refused},
		{"*", "", refused},

		// Nothing special (L9, L10, L11), or no name at all.
		{"", "", refused},
		{"anna ", "", refused},
		{" anna", "", refused},
		{"anna\t", "", refused},
		{"anna\x00", "", refused},
		{"an\x00na", "", refused},
		{"anna\r\nb LOGIN bert x", "", refused},
		{"anna\u200d", "", refused}, // invisible
		{"anna\xff", "", refused},   // no UTF-8
		{"\xe9", "", refused},
		{strings.Repeat("a", 256), "", refused},
		{"anna", "bert\x00", refused},
		{"anna", " ", refused},
		{"*)(uid=*))(|(uid=*", "", refused},
		{")(uid=anna", "", unknown},
		{`\00`, "", unknown},
		{`anna\2a`, "", unknown},
		{"anna)", "", unknown},
		{"anna nachname", "", unknown},
		{`"anna"`, "", unknown},
		{"anna@health.example@evil.example", "", unknown},
		{"${jndi:x}", "", unknown},
		{"../anna", "", unknown},
		{"\u0131nfo@health.example", "", unknown}, // dotless i
		{"ａnna", "", unknown},                     // full width
	} {
		claim, err := n.parse(&Attempt{Name: test.name, Authorize: test.authorize})
		got := refused
		if err == nil {
			who := n.find(s, claim)
			switch {
			case who.d.Reason == routing.ReasonNoSuchName:
				got = unknown
			case who.shared != "":
				got = who.login + "," + who.shared
			default:
				got = who.login
			}
			if got != unknown && (!who.known || !who.d.Deliver()) {
				t.Errorf("%q: %+v", test.name, who)
			}
		}
		if got != test.want {
			t.Errorf("%q, authorize %q: got %q (%v), want %q", test.name, test.authorize, got, err, test.want)
		}
	}
}

// A delegate is routed by the mailbox; of the user only the name there is asked for.
func TestDelegatesAreRoutedByTheMailbox(t *testing.T) {
	s, n := nameState(t), newTestNames(t)
	health, _ := s.Agency("health")
	health.Phase, health.Epoch = routing.PhaseTarget, routing.Epoch{Term: 1, Number: 9}
	s, err := s.Apply(routing.Update{Agencies: []routing.Agency{health}})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"anna/info@health.example":                "anna@ox.example,info@ox.example",
		"anna/desk@works.example":                 `AMT\anna,amt\desk`, // still on exchange, where anna has a name
		"dora@works.example/info@health.example":  "",                  // dora has none on ox
		"dora@works.example/dora@works.example":   `AMT\dora`,
		"anna@health.example/anna@health.example": "anna@ox.example",
	} {
		claim, err := n.parse(&Attempt{Name: name})
		if err != nil {
			t.Fatal(err)
		}
		who := n.find(s, claim)
		got := who.login
		if who.shared != "" {
			got += "," + who.shared
		}
		if got != want || (want == "") == who.d.Deliver() {
			t.Errorf("%s: got %q, %+v, want %q", name, got, who, want)
		}
	}
}

func TestUnknownNamesAreNotLogged(t *testing.T) {
	n := newTestNames(t)
	a, b := n.unknown("hunter2"), n.unknown("hunter2")
	if a != b || strings.Contains(a, "hunter2") || a == n.unknown("hunter3") || a == newTestNames(t).unknown("hunter2") {
		t.Errorf("%s, %s", a, b)
	}
}

func TestBadDomains(t *testing.T) {
	for _, d := range [][]Domain{{{Name: "A"}, {Name: "a"}}, {{Name: "a "}}} {
		if _, err := newNames(&Options{Domains: d}); err == nil {
			t.Errorf("%v: no error", d)
		}
	}
}

func FuzzNames(f *testing.F) {
	s, n := nameState(f), newTestNames(f)
	for _, name := range []string{"anna", `AMT\anna\info`, "anna/info@health.example", "anna+x@health.example", "\u0130"} {
		f.Add(name, "")
	}
	f.Fuzz(func(t *testing.T, name, authorize string) {
		claim, err := n.parse(&Attempt{Name: name, Authorize: authorize})
		if err != nil {
			return
		}
		who := n.find(s, claim)
		if who.d.Deliver() && (who.login == "" || who.d.Mailbox == routing.MailboxID{} || !who.known) {
			t.Errorf("%q: %+v", name, who)
		}
		if strings.ContainsAny(who.login+who.shared, "\r\n\x00*%") {
			t.Errorf("%q: the platform would be told %q", name, who.login)
		}
	})
}
