package mailboxlist

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"mailcutover/routing"
)

const header = "address,directory_id,agency,kind,aliases,logins,source_address,source_login,target_address,target_login,platform\n"

func id(n int) string { return fmt.Sprintf("6b1f2ad0-3c4e-4f5a-8b6c-%012x", n) }

// table returns a State with two agencies, one mailbox each, and a group.
func state(t *testing.T) *routing.State {
	t.Helper()
	s := routing.NewState(routing.Position{Incarnation: "i", Revision: 1, Mapped: 1})
	u := routing.Update{Position: routing.Position{Incarnation: "i", Revision: 2, Mapped: 2}, Whole: true}
	for i, name := range []string{"health", "finance"} {
		a, err := routing.NewAgency(routing.AgencyID(name), "exchange", "ox")
		if err != nil {
			t.Fatal(err)
		}
		mailbox, err := routing.ParseMailboxID(id(i + 1))
		if err != nil {
			t.Fatal(err)
		}
		address := routing.Address("first@" + name + ".example")
		m, err := routing.NewMapping(a.ID, []routing.Row{{Mailbox: mailbox, Kind: routing.KindUser, Addresses: []routing.Address{address}, Logins: []routing.Login{routing.Login(name + "1")}}})
		if err != nil {
			t.Fatal(err)
		}
		a.Mapping = m.Digest()
		u.Agencies = append(u.Agencies, a)
		u.Mappings = append(u.Mappings, m)
		u.Domains = append(u.Domains, routing.Domain{Name: name + ".example"})
	}
	u.Fixed = []routing.Fixed{{Address: "all@health.example", Kind: "group", Platform: "exchange"}}
	s, err := s.Apply(u)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var platforms = []routing.PlatformID{"exchange", "ox"}

func plan(t *testing.T, text string) (*Plan, error) {
	t.Helper()
	l, err := Read([]byte(text))
	if err != nil {
		return nil, err
	}
	return l.Plan(state(t), platforms, "+")
}

func TestPlan(t *testing.T) {
	rows := "Anna.Berg@Health.example," + id(11) + ",health,user,a.berg@health.example berg@health.example,anna.berg AMT\\berg,berg@exchange.example,AMT\\Anna,anna@ox.health.example,Anna11,\n" +
		"first@health.example," + id(1) + ",health,user,new@health.example,health9,,,,,\n" +
		"room1@finance.example,{" + strings.ToUpper(id(12)) + "},finance,room,,,,,,,\n" +
		"first@finance.example," + id(2) + ",finance,user,,finance1,,,,,\n" +
		"list@health.example,,,group,,,,,,,ox\n" +
		"all@health.example,,,group,,,,,,,exchange\n"
	for name, text := range map[string]string{
		"comma":       header + rows,
		"semicolon":   strings.ReplaceAll(header+rows, ",", ";"),
		"BOM, CRLF":   "\ufeff" + strings.ReplaceAll(header+rows, "\n", "\r\n"),
		"other order": strings.NewReplacer("address,directory_id,agency", "address,directory_id,agency").Replace(header) + rows,
	} {
		t.Run(name, func(t *testing.T) {
			p, err := plan(t, text)
			if err != nil {
				t.Fatal(err)
			}
			if len(p.Agencies) != 2 || len(p.Fixed) != 1 || p.FixedUnchanged != 1 || !p.Changed() {
				t.Fatalf("%+v", p)
			}
			finance, health := p.Agencies[0], p.Agencies[1]
			if finance.Added != 1 || finance.Unchanged != 1 || finance.Mapping.Len() != 2 || finance.Record.Mapping != finance.Mapping.Digest() {
				t.Errorf("finance: %+v", finance)
			}
			if health.Added != 1 || health.Extended != 1 || health.Mapping.Len() != 2 {
				t.Errorf("health: %+v", health)
			}
			mailbox, _ := routing.ParseMailboxID(id(11))
			row, ok := health.Mapping.Mailbox(mailbox)
			if !ok || row.Addresses[0] != "anna.berg@health.example" || len(row.Addresses) != 3 || !slices.Equal(row.Logins, []routing.Login{"anna.berg", `amt\berg`}) {
				t.Errorf("%+v", row)
			}
			if at, want := row.At(false), (routing.Place{Address: "berg@exchange.example", Login: `AMT\Anna`}); at != want {
				t.Errorf("source %+v, want %+v", at, want)
			}
			if at, want := row.At(true), (routing.Place{Address: "anna@ox.health.example", Login: "Anna11"}); at != want {
				t.Errorf("target %+v, want %+v", at, want)
			}
			first, _ := routing.ParseMailboxID(id(1))
			if row, _ := health.Mapping.Mailbox(first); !slices.Equal(row.Logins, []routing.Login{"health1", "health9"}) || len(row.Addresses) != 2 {
				t.Errorf("%+v", row)
			}
		})
	}
}

// A name with a detail may be given to whoever has it without, and to anybody if nobody
// has it without: no answer changes.
func TestDetail(t *testing.T) {
	p, err := plan(t, header+
		"first@health.example,"+id(1)+",health,user,first+hr@health.example,,,,,,\n"+
		"new+hr@health.example,"+id(21)+",finance,user,,,,,,,\n")
	if err != nil || p.Agencies[0].Added != 1 || p.Agencies[1].Extended != 1 {
		t.Errorf("%+v, %v", p, err)
	}
}

func TestNothingNew(t *testing.T) {
	p, err := plan(t, header+"first@health.example,"+id(1)+",health,user,,health1,,,,,\n")
	if err != nil || p.Changed() || len(p.Agencies) != 1 || p.Agencies[0].Unchanged != 1 {
		t.Errorf("%+v, %v", p, err)
	}
}

// Each list is refused as a whole; want are the lines with a part of their reasons.
func TestRefused(t *testing.T) {
	good := "ok@health.example," + id(20) + ",health,user,,,,,,,\n"
	for _, c := range []struct {
		name, text string
		want       []string
	}{
		{"empty", "", []string{"line 1: no header"}},
		{"no rows", header, []string{"the list has no rows"}},
		{"unknown column", strings.Replace(header, "platform", "platform,note", 1), []string{`line 1: unknown column "note"`}},
		{"missing column", strings.Replace(header, ",logins", "", 1), []string{`line 1: column "logins" is missing`}},
		{"column twice", strings.Replace(header, "platform", "platform,kind", 1), []string{`line 1: column "kind" stands twice`}},
		{"too few cells", header + good + "a@health.example," + id(21) + "\n", []string{"line 3: 2 cells"}},
		{"formula", header + "=cmd|' /C calc'!A0," + id(21) + ",health,user,,,,,,,\n" + good, []string{"line 2: cell \"=cmd|' /C calc'!A0\": looks like a formula"}},
		{"quoted newline", header + good + "\"a@health.example\nb@health.example\"," + id(21) + ",health,user,,,,,,,\n" + "x@health.example," + id(22) + ",health,=1,,,,,,,\n", []string{"line 3: cell", "line 5: "}},
		{"open quote", header + good + "\"a@health.example," + id(21) + "\n", []string{"line 3: not CSV"}},
		{"latin-1", header + good + "m\xfcller@health.example," + id(21) + ",health,user,,,,,,,\n", []string{"line 3: not UTF-8"}},
		{"everything in one row", header + "nobody,77,Health,king,x y,,,,,,ox\n", []string{"line 2: kind", "line 2: address", "line 2: directory_id", "line 2: agency", "line 2: aliases", "line 2: aliases", "line 2: platform"}},
		{"id twice", header + good + "b@health.example," + id(20) + ",health,user,,,,,,,\n", []string{"line 3: directory_id " + id(20) + " stands in line 2 too"}},
		{"address twice", header + good + "ok@health.example," + id(21) + ",health,user,,,,,,,\n", []string{"line 3: ok@health.example belongs to another: mailbox " + id(20) + " of agency health, line 2"}},
		{"address twice, two agencies", header + good + "b@finance.example," + id(21) + ",finance,user,ok@health.example,,,,,,\n", []string{"line 2: ok@health.example belongs to another: mailbox " + id(21) + " of agency finance, line 3"}},
		{"login twice", header + "a@health.example," + id(21) + ",health,user,,same,,,,,\n" + "b@health.example," + id(22) + ",health,user,,SAME,,,,,\n", []string{"line 3: same belongs to another"}},
		{"place is another's address", header + good + "b@health.example," + id(21) + ",health,user,,,ok@health.example,,,,\n", []string{"line 3: ok@health.example belongs to another"}},
		{"folds together", header + "straße@health.example," + id(21) + ",health,user,,,,,,,\n" + "b@finance.example," + id(22) + ",finance,user,strasse@health.example,,,,,,\n", []string{"line 2: straße@health.example folds together with a name of another: mailbox " + id(22)}},
		{"another agency's address", header + good + "first@finance.example," + id(21) + ",health,user,,,,,,,\n", []string{"line 3: first@finance.example of mailbox"}},
		{"another agency's mailbox", header + good + "b@health.example," + id(2) + ",health,user,,,,,,,\n", []string{"line 3: mailbox " + id(2)}},
		{"column sorted on its own", header + "first@finance.example," + id(1) + ",health,user,,,,,,,\n" + "first@health.example," + id(2) + ",finance,user,,,,,,,\n", []string{"line 2: first@finance.example belongs to another", "line 2: address: mailbox " + id(1) + " has the primary address", "line 3: first@health.example belongs to another", "line 3: address"}},
		{"one mailbox in two agencies", header + "dora@health.example," + id(21) + ",health,user,,,,,,,\n" + "dora@health.example," + id(21) + ",finance,user,,,,,,,\n", []string{"line 2: directory_id " + id(21) + " stands in line 3 too, for agency finance"}},
		{"one id in two agencies", header + "dora@health.example," + id(21) + ",health,user,,,,,,,\n" + "d@finance.example," + id(21) + ",finance,user,,,,,,,\n", []string{"line 2: directory_id " + id(21) + " stands in line 3 too, for agency finance"}},
		{"one login in two agencies", header + "a@health.example," + id(21) + ",health,user,,same,,,,,\n" + "b@finance.example," + id(22) + ",finance,user,,SAME,,,,,\n", []string{"line 2: same belongs to another: mailbox " + id(22) + " of agency finance, line 3"}},
		{"one place in two agencies", header + "a@health.example," + id(21) + ",health,user,,,,,x@ox.example,,\n" + "b@finance.example," + id(22) + ",finance,user,,,X@ox.example,,,,\n", []string{"line 2: x@ox.example belongs to another: mailbox " + id(22)}},
		{"places fold together", header + "a@health.example," + id(21) + ",health,user,,,,,straße@ox.example,,\n" + "b@finance.example," + id(22) + ",finance,user,,,strasse@ox.example,,,,\n", []string{"line 2: straße@ox.example folds together with a name of another: mailbox " + id(22)}},
		{"another's by its detail", header + good + "first+hr@health.example," + id(21) + ",finance,user,,,,,,,\n", []string{"line 3: first+hr@health.example: not a pure addition: mail for it goes to mailbox " + id(1) + " of agency health now, which has first@health.example"}},
		{"a login that is another's by its detail", header + good + "b@health.example," + id(21) + ",health,user,,first+hr@health.example,,,,,\n", []string{"line 3: first+hr@health.example: not a pure addition"}},
		{"a login that is one's own by its detail", header + good + "first@health.example," + id(1) + ",health,user,,first+hr@health.example,,,,,\n", []string{"line 3: first+hr@health.example: not a pure addition: mail for it goes to mailbox " + id(1) + " now, which has first@health.example; make it an alias too"}},
		{"a group that is another's by its detail", header + good + "first+hr@health.example,,,group,,,,,,,ox\n", []string{"line 3: first+hr@health.example: not a pure addition"}},
		{"two alphabets", header + good + "аnna@health.example," + id(21) + ",health,user,,,,,,,\n", []string{"line 3: аnna@health.example has letters of Latin and Cyrillic side by side"}},
		{"group's address", header + good + "b@health.example," + id(21) + ",health,user,all@health.example,,,,,,\n", []string{"line 3: all@health.example of mailbox"}},
		{"domain not served", header + good + "b@other.example," + id(21) + ",health,user,,,,,,,\n", []string{"line 3:"}},
		{"agency unknown", header + good + "b@health.example," + id(21) + ",justice,user,,,,,,,\n", []string{`line 3: agency: no agency "justice"`}},
		{"kind changes", header + "first@health.example," + id(1) + ",health,shared,,,,,,,\n", []string{"line 2: kind: mailbox " + id(1) + " is a user"}},
		{"no header", good, []string{"line 1: it names no column: want a header, address,"}},
		{"kind unknown", header + "b@health.example," + id(21) + ",health,king,,,,,,,\n", []string{`line 2: kind: "king": want user, shared or room, or a fixed address: `}},
		{"folds together, the other way round", header + "strasse@health.example," + id(21) + ",health,user,,,,,,,\n" + "straße@health.example," + id(22) + ",health,user,,,,,,,\n", []string{"line 3: straße@health.example folds together with a name of another: mailbox " + id(21)}},
		{"folds together with one before", header + "straße@health.example," + id(21) + ",health,user,,,,,,,\n" + "strasse@health.example," + id(22) + ",health,user,,,,,,,\n", []string{"line 3: strasse@health.example folds together with a name of another: mailbox " + id(21)}},
		{"login on the source changes", header + "first@health.example," + id(1) + ",health,user,,,,EXCH\\first,,,\n", []string{"line 2: source_login: mailbox " + id(1) + " logs in there as health1; a list only adds"}},
		{"login on the target changes", header + "first@health.example," + id(1) + ",health,user,,,,,,first,\n", []string{"line 2: target_login: mailbox " + id(1) + " logs in there as health1"}},
		{"place changes", header + "first@health.example," + id(1) + ",health,user,,,,,other@ox.example,,\n", []string{"line 2: target_address"}},
		{"group without platform", header + "b@health.example,,,group,,,,,,,\n", []string{"line 2: platform: missing"}},
		{"group on unknown platform", header + "b@health.example,,,group,,,,,,,gmail\n", []string{"line 2: platform"}},
		{"group with id", header + "b@health.example," + id(21) + ",,group,,,,,,,ox\n", []string{"line 2: directory_id"}},
		{"group moves", header + "all@health.example,,,group,,,,,,,ox\n", []string{"line 2: all@health.example is a group on exchange"}},
		{"group twice", header + "b@health.example,,,group,,,,,,,ox\nb@health.example,,,scanner,,,,,,,ox\n", []string{"line 3: b@health.example belongs to another: fixed address, line 2"}},
		{"group has a mailbox's address", header + good + "first@health.example,,,group,,,,,,,ox\n", []string{"line 3: first@health.example"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := plan(t, c.text)
			wrong, ok := errors.AsType[*Problems](err)
			if !ok {
				t.Fatalf("plan %+v, error %v", p, err)
			}
			if len(wrong.List) != len(c.want) || wrong.Total != len(c.want) {
				t.Errorf("%d wrong, want %d", wrong.Total, len(c.want))
			}
			for i, w := range c.want {
				if i < len(wrong.List) && !strings.Contains(wrong.List[i].String(), w) {
					t.Errorf("problem %d is %q, want %q", i, wrong.List[i], w)
				}
			}
		})
	}
}

// What keeps an agency from getting rows at all.
func TestAgencyBusy(t *testing.T) {
	s := state(t)
	a, _ := s.Agency("health")
	a, err := a.Arm().Begin("op", 1, routing.EventBegin)
	if err != nil {
		t.Fatal(err)
	}
	s, err = s.Apply(routing.Update{Position: routing.Position{Incarnation: "i", Revision: 3, Mapped: 2}, Agencies: []routing.Agency{a}})
	if err != nil {
		t.Fatal(err)
	}
	l, err := Read([]byte(header + "b@health.example," + id(21) + ",health,user,,,,,,,\n"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err = l.Plan(s, platforms, "+"); err == nil || !strings.Contains(err.Error(), "operation op is under way") {
		t.Errorf("%v", err)
	}
}

func TestProblemsAreBounded(t *testing.T) {
	var b strings.Builder
	b.WriteString(header)
	for range 3 * MaxProblems {
		b.WriteString("x,,,,,,,,,,\n")
	}
	_, err := Read([]byte(b.String()))
	wrong, ok := errors.AsType[*Problems](err)
	if !ok || len(wrong.List) != MaxProblems || wrong.Total < 3*MaxProblems {
		t.Errorf("%d of %d, %v", len(wrong.List), wrong.Total, ok)
	}
}

// large returns a list of n mailboxes of the two agencies.
func large(n int) []byte {
	var b strings.Builder
	b.WriteString(header)
	for i := range n {
		agency := []string{"health", "finance"}[i%2]
		fmt.Fprintf(&b, "person%d@%s.example,%s,%s,user,p%d@%s.example,login%d,,,,,\n", i, agency, id(1000+i), agency, i, agency, i)
	}
	return []byte(b.String())
}

func TestLarge(t *testing.T) {
	text := large(20_000)
	began := time.Now()
	l, err := Read(text)
	if err != nil {
		t.Fatal(err)
	}
	p, err := l.Plan(state(t), platforms, "+")
	if err != nil || p.Agencies[0].Added != 10_000 {
		t.Fatalf("%v", err)
	}
	t.Logf("20,000 rows planned in %s", time.Since(began))
}

func BenchmarkPlan100k(b *testing.B) {
	text := large(100_000)
	b.ReportAllocs()
	for b.Loop() {
		l, err := Read(text)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := l.Plan(state(&testing.T{}), platforms, "+"); err != nil {
			b.Fatal(err)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(header + "a@b.example," + id(1) + ",health,user,,,,,,,\n"))
	f.Add([]byte(strings.ReplaceAll(header, ",", ";") + "=1;;;;;;;;;;\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		l, err := Read(text)
		if (err == nil) == (l == nil) {
			t.Fatalf("list %v with error %v", l, err)
		}
	})
}
