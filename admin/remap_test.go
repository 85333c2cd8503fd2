package admin_test

import (
	"fmt"
	"strings"
	"testing"

	"mailcutover/admin"
	"mailcutover/admin/admintest"
)

// remapList sends a list that is no pure addition, and wants a status.
func remapList[T any](t *testing.T, n *admintest.Node, status int, query, list string) T {
	t.Helper()
	return want[T](t, n, status, "POST", "/v1/mailboxes/remap?reason=wave+3"+query, list, "Content-Type", "text/csv")
}

// threePeople imports anna and ben of health, and carl of finance, and arms the agencies.
func threePeople(t *testing.T, n *admintest.Node) {
	t.Helper()
	twoAgencies(t, n)
	importList[admin.Imported](t, n, 200, "", listHeader+
		"anna@health.example,"+directoryID(1)+",health,user,desk@health.example,anna,,,,,\n"+
		"ben@health.example,"+directoryID(2)+",health,user,,ben,,,,,\n"+
		"carl@finance.example,"+directoryID(3)+",finance,user,,carl,,,,,\n")
	armed(t, n, "health")
	armed(t, n, "finance")
}

func holderOf(t *testing.T, n *admintest.Node, query string) (agency, id string) {
	t.Helper()
	r := want[admin.Route](t, n, 200, "GET", "/v1/route?"+query, "")
	if r.Mailbox == nil {
		return r.Agency, ""
	}
	if !r.Deliver {
		t.Errorf("%s is closed: %+v", query, r)
	}
	return r.Agency, r.Mailbox.ID
}

// The list gives an alias of anna's to ben.
func deskToBen() string {
	return listHeader +
		"anna@health.example," + directoryID(1) + ",health,user,,anna,,,,,\n" +
		"ben@health.example," + directoryID(2) + ",health,user,desk@health.example,ben,,,,,\n"
}

// An address goes from one mailbox of an agency to another: proposed, approved, started.
func TestRemapWithinAgency(t *testing.T) {
	n := admintest.Start(t, required)
	threePeople(t, n)
	before := n.Replica.State().Position().Revision

	refused := importList[admin.Problem](t, n, 400, "", deskToBen())
	if len(refused.Errors) != 1 || !strings.Contains(refused.Errors[0].Message, "desk@health.example belongs to another: mailbox "+directoryID(1)) ||
		!strings.Contains(refused.Hint, "mailcutover mailbox import --remap") {
		t.Errorf("without being asked: %+v", refused)
	}
	dry := remapList[admin.Remapping](t, n, 201, "&dry_run=true", deskToBen())
	wantChange := admin.NameChange{
		Agency: "health", What: "address", Name: "desk@health.example",
		From: "mailbox " + directoryID(1) + " (anna@health.example) of agency health", To: "mailbox " + directoryID(2) + " (ben@health.example) of agency health",
	}
	if len(dry.Changes) != 1 || dry.Changes[0] != wantChange || !dry.DryRun || dry.Proposal != nil || len(dry.Agencies) != 1 || dry.Agencies[0].Changed != 2 || dry.Agencies[0].Names != 1 {
		t.Errorf("%+v", dry)
	}
	if n.Replica.State().Position().Revision != before {
		t.Error("a refusal or a dry run changed the table")
	}

	r := remapList[admin.Remapping](t, n, 201, "", deskToBen())
	p := r.Proposal
	if p == nil || p.Kind != "remap" || p.State != "open" || p.Missing != 1 || p.Plan == "" || len(p.Epochs) != 1 ||
		!strings.Contains(p.Text, "address desk@health.example: "+wantChange.From+" -> "+wantChange.To) || !strings.Contains(p.Text, "plan: remap of agency health") {
		t.Fatalf("%+v", p)
	}
	if again := remapList[admin.Remapping](t, n, 201, "", deskToBen()); again.Proposal.ID != p.ID {
		t.Errorf("proposed twice: %+v", again.Proposal)
	}
	plan := want[admin.Plan](t, n, 200, "POST", "/v1/plans", fmt.Sprintf(`{"kind":"remap","proposal":%q}`, p.ID))
	if plan.Kind != "remap" || plan.Digest != p.Plan || !strings.Contains(plan.Text, "plan: remap of agency health") {
		t.Errorf("%+v", plan)
	}
	want[admin.Problem](t, n, 400, "POST", "/v1/plans", `{"kind":"remap","agency":"health"}`)
	want[admin.Problem](t, n, 400, "POST", "/v1/plans", fmt.Sprintf(`{"kind":"cutover","agency":"health","proposal":%q}`, p.ID))
	want[admin.Problem](t, n, 400, "POST", "/v1/plans", fmt.Sprintf(`{"kind":"remap","agency":"tax","proposal":%q}`, p.ID))
	path := "/v1/proposals/" + p.ID
	want[admin.Problem](t, n, 403, "POST", path+"/start", `{}`)
	want[admin.Problem](t, n, 403, "POST", path+"/approve", approved(*p), asAnna2...)
	if _, id := holderOf(t, n, "address=desk@health.example"); id != directoryID(1) {
		t.Errorf("desk is %s before anything was approved", id)
	}
	want[admin.Proposal](t, n, 200, "POST", path+"/approve", approved(*p), asCarla...)
	done := want[admin.Started](t, n, 202, "POST", path+"/start", `{}`)
	if op := ended(t, n, done.Operation.ID); op.Step != "done" || op.Kind != "remap" || len(op.Agencies) != 1 {
		t.Fatalf("%+v", op)
	}
	if _, id := holderOf(t, n, "address=desk@health.example"); id != directoryID(2) {
		t.Errorf("desk is %s, want ben's", id)
	}
	if a := want[admin.Agency](t, n, 200, "GET", "/v1/agencies/health", ""); a.Phase != "source" || !a.Open || a.Mapping != r.Agencies[0].Next || a.Epoch != "1.4" {
		t.Errorf("%+v", a)
	}
	remapList[admin.Problem](t, n, 400, "", deskToBen()) // nothing is left to do
}

// A mailbox goes to another agency: both change under one operation, at one revision.
func TestRemapBetweenAgencies(t *testing.T) {
	n := admintest.Start(t, nil)
	threePeople(t, n)
	r := remapList[admin.Remapping](t, n, 201, "", listHeader+"ben@health.example,"+directoryID(2)+",finance,user,,ben,,,,,\n")
	if len(r.Agencies) != 2 || r.Agencies[0].Agency != "finance" || r.Agencies[0].Added != 1 || r.Agencies[1].Gone != 1 || len(r.Changes) != 2 ||
		r.Changes[0].Agency != "health" || !strings.HasSuffix(r.Changes[0].To, "of agency finance") || r.Changes[1].What != "login" {
		t.Fatalf("%+v", r)
	}
	if r.Proposal.Missing != 0 || len(r.Proposal.Epochs) != 2 {
		t.Fatalf("%+v", r.Proposal)
	}
	done := want[admin.Started](t, n, 202, "POST", "/v1/proposals/"+r.Proposal.ID+"/start", `{}`)
	if op := ended(t, n, done.Operation.ID); op.Step != "done" || len(op.Agencies) != 2 {
		t.Fatalf("%+v", op)
	}
	for _, query := range []string{"address=ben@health.example", "login=ben"} {
		if agency, id := holderOf(t, n, query); agency != "finance" || id != directoryID(2) {
			t.Errorf("%s is %s of %s", query, id, agency)
		}
	}
	state := n.Replica.State()
	health, _ := state.Agency("health")
	finance, _ := state.Agency("finance")
	if health.Revision != finance.Revision || state.Mapping("health").Len() != 1 || state.Mapping("finance").Len() != 2 {
		t.Errorf("%+v\n%+v", health, finance)
	}
}

// What others did after the approval makes it void: another epoch of any of the agencies,
// or an import, which the new mapping would undo.
func TestRemapVoid(t *testing.T) {
	for name, meanwhile := range map[string]func(t *testing.T, n *admintest.Node){
		"epoch": func(t *testing.T, n *admintest.Node) {
			want[admin.Acted](t, n, 200, "POST", "/v1/agencies/health/lock", `{"reason":"r"}`)
		},
		"import": func(t *testing.T, n *admintest.Node) {
			importList[admin.Imported](t, n, 200, "", listHeader+"dora@health.example,"+directoryID(4)+",health,user,,,,,,,\n")
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := admintest.Start(t, required)
			threePeople(t, n)
			p := remapList[admin.Remapping](t, n, 201, "", listHeader+"ben@health.example,"+directoryID(2)+",finance,user,,ben,,,,,\n").Proposal
			path := "/v1/proposals/" + p.ID
			want[admin.Proposal](t, n, 200, "POST", path+"/approve", approved(*p), asCarla...)
			meanwhile(t, n)
			want[admin.Problem](t, n, 409, "POST", path+"/start", `{}`)
			if v := want[admin.Proposal](t, n, 200, "GET", path, ""); v.State != "void" {
				t.Errorf("%+v", v)
			}
			if m := n.Replica.State().Mapping("finance"); m.Len() != 1 {
				t.Errorf("finance has %d mailboxes", m.Len())
			}
		})
	}
}

// A list is refused as a whole, with the names that keep it back, and what else has to be
// done first.
func TestRemapRefused(t *testing.T) {
	n := admintest.Start(t, nil)
	threePeople(t, n)
	want[admin.Agency](t, n, 201, "POST", "/v1/agencies", `{"id":"tax","source":"exchange","target":"ox","domains":["tax.example"],"reason":"r"}`)
	before := n.Replica.State().Position().Revision
	for _, c := range []struct {
		name, rows string
		status     int
		says       string
	}{
		{"a name of a mailbox without a row", "ben@health.example," + directoryID(2) + ",health,user,desk@health.example,ben,,,,,\n", 400,
			"desk@health.example belongs to another: mailbox " + directoryID(1) + " of agency health, in the table; what the list doesn't name stays"},
		{"a name of an agency that isn't in the list", "ben@health.example," + directoryID(2) + ",health,user,carl@finance.example,ben,,,,,\n", 400, "carl@finance.example of mailbox " + directoryID(2)},
		{"one name, two rows", "anna@health.example," + directoryID(1) + ",health,user,x@health.example,,,,,,\nben@health.example," + directoryID(2) + ",finance,user,x@health.example,,,,,,\n", 400, "x@health.example belongs to another"},
		{"one mailbox, two rows", "anna@health.example," + directoryID(1) + ",health,user,,,,,,,\na@finance.example," + directoryID(1) + ",finance,user,,,,,,,\n", 400, "stands in line 2 too"},
		{"detail of a mailbox without a row", "carl@finance.example," + directoryID(3) + ",finance,user,ben+hr@health.example,,,,,,\n", 400, "not a pure addition: mail for it goes to mailbox " + directoryID(2)},
		{"fixed address", "all@health.example,,,group,,,,,,,ox\n", 400, "import it by itself"},
		{"no agency", "ben@health.example," + directoryID(2) + ",justice,user,,ben,,,,,\n", 400, `no agency "justice"`},
		{"domain not served", "ben@nowhere.example," + directoryID(2) + ",health,user,,ben,,,,,\n", 400, "no served domain"},
		{"only adds", "new@health.example," + directoryID(9) + ",health,user,,,,,,,\n", 400, "only adds"},
		{"not armed", "ben@health.example," + directoryID(2) + ",tax,user,,ben,,,,,\n", 409, "mailcutover agency arm tax"},
	} {
		_, _, text := call(t, n, "POST", "/v1/mailboxes/remap?reason=r", listHeader+c.rows, "Content-Type", "text/csv")
		remapList[admin.Problem](t, n, c.status, "", listHeader+c.rows)
		if !strings.Contains(text, strings.ReplaceAll(c.says, `"`, `\"`)) {
			t.Errorf("%s: %s", c.name, text)
		}
	}
	want[admin.Problem](t, n, 400, "POST", "/v1/proposals", `{"kind":"remap","reason":"r"}`)
	if n.Replica.State().Position().Revision != before {
		t.Error("a refused list changed the table")
	}
}

// Places and details: what is told to platforms, and who gets a name that had been
// somebody's by sub-addressing, is shown.
func TestRemapShowsPlacesAndDetails(t *testing.T) {
	n := admintest.Start(t, nil)
	threePeople(t, n)
	r := remapList[admin.Remapping](t, n, 201, "&dry_run=true", listHeader+
		"anna@health.example,"+directoryID(1)+",health,user,desk@health.example,anna,,,anna@ox.example,a.ox,\n"+
		"ben@health.example,"+directoryID(2)+",health,shared,anna+hr@health.example,,,,,,\n")
	var got []string
	for _, c := range r.Changes {
		got = append(got, c.What+" "+c.Name+": "+c.From+" -> "+c.To)
	}
	text := strings.Join(got, "\n")
	for _, says := range []string{
		"target address " + directoryID(1) + ": anna@health.example -> anna@ox.example",
		"target login " + directoryID(1) + ": anna -> a.ox",
		"kind " + directoryID(2) + ": user -> shared",
		"login ben: mailbox " + directoryID(2) + " (ben@health.example) of agency health -> nobody",
		"address anna+hr@health.example: mailbox " + directoryID(1) + " (anna@health.example) of agency health -> mailbox " + directoryID(2),
	} {
		if !strings.Contains(text, says) {
			t.Errorf("no %q in\n%s", says, text)
		}
	}
	if r.Agencies[0].Taken != 1 || !r.Agencies[0].Armed {
		t.Errorf("%+v", r.Agencies)
	}
}
