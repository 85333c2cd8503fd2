package admin_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"mailcutover/admin"
	"mailcutover/admin/admintest"
	"mailcutover/identity/desk"
	"mailcutover/routing"
	"mailcutover/routing/table"
)

const listHeader = "address,directory_id,agency,kind,aliases,logins,source_address,source_login,target_address,target_login,platform\n"

func directoryID(n int) string { return fmt.Sprintf("6b1f2ad0-3c4e-4f5a-8b6c-%012x", n) }

// importList sends a list and wants a status.
func importList[T any](t *testing.T, n *admintest.Node, status int, query, list string) T {
	t.Helper()
	return want[T](t, n, status, "POST", "/v1/mailboxes/import?reason=wave+3"+query, list, "Content-Type", "text/csv")
}

func twoAgencies(t *testing.T, n *admintest.Node) {
	t.Helper()
	addHealth(t, n)
	want[admin.Agency](t, n, 201, "POST", "/v1/agencies", `{"id":"finance","source":"exchange","target":"ox","domains":["finance.example"],"reason":"r"}`)
}

// What enters from a directory is told by what was entered, not by how much was wrong with the rest.
func TestEnterSaysHowMany(t *testing.T) {
	n := admintest.Start(t, nil)
	addHealth(t, n)
	importList[admin.Imported](t, n, 200, "", listHeader+"anna@health.example,"+directoryID(1)+",health,user,,,,,,,\n")
	before := n.Replica.State().Position()
	id, err := routing.ParseMailboxID(directoryID(2))
	if err != nil {
		t.Fatal(err)
	}
	left, err := n.Server.Enter(t.Context(), &desk.Addition{
		Agency: "health", Reason: "read", Rows: []routing.Row{{Mailbox: id, Kind: routing.KindUser, Addresses: []routing.Address{"ben@health.example"}}},
		Fixed: []routing.Fixed{{Address: "anna@health.example", Kind: "group", Platform: "exchange"}, {Address: "all@health.example", Kind: "group", Platform: "exchange"}},
	})
	if err != nil || len(left) != 1 || !strings.Contains(left[0], "anna@health.example") {
		t.Fatalf("left %q, %v", left, err)
	}
	seen := errors.New("seen")
	err = n.Table.Follow(t.Context(), before, time.Second, func(e table.Entry) error {
		if e.What != "enter 1 mailboxes and 1 fixed addresses of agency health" || e.Who != admin.Directory {
			t.Errorf("%s: %q", e.Who, e.What)
		}
		return seen
	}, func(time.Time, routing.Position) {})
	if !errors.Is(err, seen) {
		t.Error(err)
	}
}

func TestImport(t *testing.T) {
	n := admintest.Start(t, nil)
	twoAgencies(t, n)
	list := listHeader +
		"anna@health.example," + directoryID(1) + ",health,user,a.berg@health.example,anna.berg,,,anna@ox.example,,\n" +
		"ben@finance.example," + directoryID(2) + ",finance,user,,ben,,,,,\n" +
		"scan@health.example,,,scanner,,,,,,,exchange\n"
	before := n.Replica.State().Position()
	if dry := importList[admin.Imported](t, n, 200, "&dry_run=true", list); !dry.DryRun || len(dry.Agencies) != 2 || dry.Agencies[1].Added != 1 {
		t.Errorf("dry run: %+v", dry)
	}
	if n.Replica.State().Position() != before {
		t.Error("the dry run changed the table")
	}
	done := importList[admin.Imported](t, n, 200, "", list)
	if done.Revision != uint64(before.Revision)+1 || done.Fixed.Added != 1 {
		t.Errorf("import: %+v, want it as one change after %d", done, before.Revision)
	}
	if again := importList[admin.Imported](t, n, 200, "", list); again.Revision != done.Revision || again.Agencies[0].Unchanged != 1 {
		t.Errorf("the same list again: %+v", again)
	}
	a := want[admin.Agency](t, n, 200, "GET", "/v1/agencies/health", "")
	if a.Mailboxes != 1 || a.Epoch != "1.1" {
		t.Errorf("%+v", a)
	}
	for query, check := range map[string]func(admin.Route) bool{
		"address=A.Berg%2Btag@Health.example": func(r admin.Route) bool {
			return r.Deliver && r.Platform == "exchange" && r.Address == "anna@health.example" && r.Agency == "health" && r.Epoch == "1.1" && r.Mailbox != nil && r.Mailbox.ID == directoryID(1)
		},
		"login=Anna.Berg":               func(r admin.Route) bool { return r.Deliver && r.As == "login" && r.Login == "anna.berg" },
		"address=scan@health.example":   func(r admin.Route) bool { return r.Deliver && r.Reason == "fixed address" && r.Agency == "" },
		"address=nobody@health.example": func(r admin.Route) bool { return !r.Deliver && r.Reason == "no record of this name" },
		"address=a@elsewhere.example":   func(r admin.Route) bool { return !r.Deliver && r.Reason == "domain is not served" },
	} {
		if r := want[admin.Route](t, n, 200, "GET", "/v1/route?"+query, ""); !check(r) {
			t.Errorf("%s: %+v", query, r)
		}
	}
	want[admin.Problem](t, n, 400, "GET", "/v1/route", "")
	want[admin.Problem](t, n, 400, "GET", "/v1/route?address=a@b.example&login=a", "")
	want[admin.Problem](t, n, 400, "GET", "/v1/route?address=nonsense", "")

	for _, name := range []string{directoryID(1), "{" + strings.ToUpper(directoryID(1)) + "}", "anna@health.example", "a.berg@health.example", "ANNA.BERG"} {
		if m := want[admin.Mailbox](t, n, 200, "GET", "/v1/mailboxes/"+url.PathEscape(name), ""); m.ID != directoryID(1) || m.Target.Address != "anna@ox.example" || m.Source.Platform != "exchange" {
			t.Errorf("%s: %+v", name, m)
		}
	}
	for _, name := range []string{directoryID(9), "nobody@health.example", "nobody", "scan@health.example"} {
		want[admin.Problem](t, n, 404, "GET", "/v1/mailboxes/"+url.PathEscape(name), "")
	}
}

// A list that is wrong in one row changes nothing, and says which row.
func TestImportRefused(t *testing.T) {
	n := admintest.Start(t, nil)
	twoAgencies(t, n)
	before := n.Replica.State().Position()
	p := importList[admin.Problem](t, n, http.StatusBadRequest, "", listHeader+
		"anna@health.example,"+directoryID(1)+",health,user,,,,,,,\n"+
		"ben@finance.example,"+directoryID(2)+",finance,user,anna@health.example,,,,,,\n")
	if len(p.Errors) != 1 || !strings.HasPrefix(p.Errors[0].Where, "line ") || !strings.Contains(p.Errors[0].Message, "anna@health.example belongs to another") || p.Hint == "" {
		t.Errorf("%+v", p)
	}
	if p := importList[admin.Problem](t, n, http.StatusBadRequest, "", "address,note\n"); !strings.Contains(p.Hint, "the first line must name these columns") {
		t.Errorf("%+v", p)
	}
	want[admin.Problem](t, n, http.StatusBadRequest, "POST", "/v1/mailboxes/import", listHeader, "Content-Type", "text/csv") // no reason
	if n.Replica.State().Position() != before {
		t.Error("a refused list changed the table")
	}

	// The node's separator counts: anna+hr is anna's.
	importList[admin.Imported](t, n, 200, "", listHeader+"anna@health.example,"+directoryID(1)+",health,user,,,,,,,\n")
	p = importList[admin.Problem](t, n, http.StatusBadRequest, "", listHeader+"anna+hr@health.example,"+directoryID(2)+",finance,user,,,,,,,\n")
	if len(p.Errors) != 1 || !strings.Contains(p.Errors[0].Message, "mail for it goes to mailbox "+directoryID(1)+" of agency health now") {
		t.Errorf("%+v", p)
	}
}

// Lists that are imported at the same time are planned again on what the others stored:
// none is lost, and a name that two of them claim gets one owner.
func TestImportsAtOnce(t *testing.T) {
	n := admintest.Start(t, nil)
	twoAgencies(t, n)
	const lists = 6
	var calls sync.WaitGroup
	refused := make([]bool, lists)
	for i := range lists {
		calls.Go(func() {
			agency := []string{"health", "finance"}[i%2]
			list := listHeader + fmt.Sprintf("person%d@%s.example,%s,%s,user,,,,,,,\n", i, agency, directoryID(100+i), agency)
			if i >= lists-2 {
				list += fmt.Sprintf("shared@health.example,%s,%s,shared,,,,,,,\n", directoryID(200+i), agency)
			}
			status, _, text := call(t, n, "POST", "/v1/mailboxes/import?reason=r", list, "Content-Type", "text/csv")
			refused[i] = status == 400
			if status != 200 && status != 400 {
				t.Errorf("%d: %s", status, text)
			}
		})
	}
	calls.Wait()
	if refused[lists-2] == refused[lists-1] || refused[0] || refused[1] || refused[2] || refused[3] {
		t.Errorf("refused: %v, want one of the last two", refused)
	}
	if got := n.Replica.State().Mailboxes(); got != lists {
		t.Errorf("%d mailboxes, want %d", got, lists)
	}
}

func TestMailboxPages(t *testing.T) {
	n := admintest.Start(t, nil)
	addHealth(t, n)
	var list strings.Builder
	list.WriteString(listHeader)
	for i := range 5 {
		fmt.Fprintf(&list, "p%d@health.example,%s,health,user,,,,,,,\n", i, directoryID(i+1))
	}
	importList[admin.Imported](t, n, 200, "", list.String())
	var got []string
	for after := ""; ; {
		page := want[admin.Mailboxes](t, n, 200, "GET", "/v1/mailboxes?agency=health&limit=2&after="+after, "")
		for _, m := range page.Mailboxes {
			got = append(got, m.Addresses[0])
		}
		if after = page.Next; after == "" {
			break
		}
	}
	if len(got) != 5 || got[4] != "p4@health.example" {
		t.Errorf("%v", got)
	}
	want[admin.Problem](t, n, 404, "GET", "/v1/mailboxes?agency=nowhere", "")
	want[admin.Problem](t, n, 400, "GET", "/v1/mailboxes", "")
	want[admin.Problem](t, n, 400, "GET", "/v1/mailboxes?agency=health&after=x", "")
}
