package admin_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"mailcutover/admin"
	"mailcutover/admin/admintest"
	"mailcutover/node"
	"mailcutover/routing"
	"mailcutover/routing/replica"
	"mailcutover/routing/table"
)

// deaf is a table whose answers get lost.
type deaf struct {
	table.Table
	mu   sync.Mutex
	lose int // the next answers of Change
	ids  []string
}

func (d *deaf) Change(ctx context.Context, c table.Change) (routing.Position, error) {
	pos, err := d.Table.Change(ctx, c)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ids = append(d.ids, c.ID)
	if d.lose > 0 {
		d.lose--
		return routing.Position{}, fmt.Errorf("%w: answer lost", table.ErrUnavailable)
	}
	return pos, err
}

// A change whose answer is lost is sent again as the same one, so it happens once.
func TestAnswerLost(t *testing.T) {
	var d *deaf
	n := admintest.Start(t, func(o *admin.Options) {
		d = &deaf{Table: o.Table, lose: 2}
		o.Table = d
	})
	before := n.Replica.State().Position()
	a := addHealth(t, n)
	if a.Revision != uint64(before.Revision)+1 {
		t.Errorf("revision %d after %d", a.Revision, before.Revision)
	}
	if len(d.ids) != 3 || d.ids[0] != d.ids[1] || d.ids[1] != d.ids[2] {
		t.Errorf("changes %v", d.ids)
	}
}

// forgetful is a table whose server is taken over by one that lacks the last change.
type forgetful struct{ table.Table }

func (forgetful) Confirm(context.Context) error { return table.ErrRegressed }

// Nobody is told of a change that another server lacks.
func TestChangeLost(t *testing.T) {
	n := admintest.Start(t, func(o *admin.Options) { o.Table = forgetful{o.Table} })
	status, _, text := call(t, n, "POST", "/v1/agencies", `{"id":"health","source":"exchange","target":"ox","domains":["health.example"],"reason":"r"}`)
	if status < 400 || !strings.Contains(text, "not known to be durable") {
		t.Errorf("%d %s", status, text)
	}
}

// A table that is gone doesn't keep the node from saying what it knows, and how old that is.
func TestTableGone(t *testing.T) {
	n := admintest.Start(t, nil)
	addHealth(t, n)
	if err := n.Table.Close(); err != nil {
		t.Fatal(err)
	}
	c, err := admin.NewClient(n.URL, admintest.Anna, nil)
	if err != nil {
		t.Fatal(err)
	}
	if list, err := c.Agencies(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("%v, %v", list, err)
	}
	if tab, err := c.Table(t.Context()); err != nil || tab.Age < 0 || tab.Agencies != 1 {
		t.Errorf("%+v, %v", tab, err)
	}
}

// A node without the right to decide says so, with what its copy would have said.
func TestNotDeciding(t *testing.T) {
	n := admintest.Start(t, func(o *admin.Options) {
		o.Gate = node.NewGate(o.Replica.(*replica.Replica), node.Lease{}, "+")
	})
	addHealth(t, n)
	importList[admin.Imported](t, n, 200, "", listHeader+"anna@health.example,"+directoryID(1)+",health,user,,,,,,,\n")
	r := want[admin.Route](t, n, 200, "GET", "/v1/route?address=anna@health.example", "")
	if r.Deliver || r.Reason != "table can't be used" || r.Agency != "health" || !strings.Contains(r.Explain, "may not decide now") {
		t.Errorf("%+v", r)
	}
	status, _, text := call(t, n, "GET", "/readyz", "", "Authorization", "")
	if status != 503 || !strings.Contains(text, `"ready":false`) || !strings.Contains(text, `"approval":"none"`) {
		t.Errorf("%d %s", status, text)
	}
}

// A table that has one name twice, from elsewhere: nobody gets its mail, and every view
// says so, with both who claim it.
func TestConflict(t *testing.T) {
	n := admintest.Start(t, nil)
	twoAgencies(t, n)
	importList[admin.Imported](t, n, 200, "", listHeader+"dora@health.example,"+directoryID(1)+",health,user,,,,,,,\n")
	if r := want[admin.Readiness](t, n, 200, "GET", "/readyz", ""); r.Degraded || r.Postmaster != "postmaster@health.example (routing.postmaster): no record of this name" {
		t.Errorf("before: %+v", r)
	}
	if r := want[admin.Route](t, n, 200, "GET", "/v1/route?address=dora@health.example", ""); !r.Deliver || r.Claims != nil {
		t.Errorf("before: %+v", r)
	}
	claimTwice(t, n, directoryID(2), "dora@health.example")

	for _, name := range []string{"dora@health.example", "dora%2Bnews@health.example"} {
		r := want[admin.Route](t, n, 200, "GET", "/v1/route?address="+name, "")
		said := strings.Join(r.Claims, " ")
		if r.Deliver || r.Reason != "two agencies claim the name" || len(r.Claims) != 2 || !strings.HasPrefix(r.Answer, "451 4.3.2 ") ||
			!strings.Contains(said, "mailbox "+directoryID(1)+" of agency health") || !strings.Contains(said, "mailbox "+directoryID(2)+" of agency finance") || !strings.Contains(r.Explain, r.Claims[0]) {
			t.Errorf("%s: %+v", name, r)
		}
	}
	if v := want[admin.Table](t, n, 200, "GET", "/v1/table", ""); len(v.Conflicts) != 1 || v.Conflicts[0] != "dora@health.example" {
		t.Errorf("%+v", v)
	}
	if r := want[admin.Readiness](t, n, 200, "GET", "/readyz", ""); !r.Ready || !r.Degraded {
		t.Errorf("%+v", r)
	}
}

// A name that two claim is taken from one of them, and the other gets its mail.
func TestRelease(t *testing.T) {
	n := admintest.Start(t, nil)
	twoAgencies(t, n)
	importList[admin.Imported](t, n, 200, "", listHeader+"dora@health.example,"+directoryID(1)+",health,user,,,,,,,\n")
	release := func(status int, body string) string {
		t.Helper()
		got, _, text := call(t, n, "POST", "/v1/names/release", body)
		if got != status {
			t.Errorf("%s: status %d, want %d: %s", body, got, status, text)
		}
		return text
	}
	release(409, `{"name":"dora@health.example","agency":"health","reason":"r"}`) // one has it alone
	claimTwice(t, n, directoryID(2), "dora@health.example")
	release(400, `{"name":"dora@health.example","reason":"r"}`)
	release(400, `{"name":"dora@health.example","agency":"finance","fixed":true,"reason":"r"}`)
	release(400, `{"name":"dora@health.example","agency":"finance","reason":" "}`)
	release(404, `{"name":"dora@health.example","agency":"nowhere","reason":"r"}`)
	release(409, `{"name":"dora@health.example","fixed":true,"reason":"r"}`)
	text := release(200, `{"name":"Dora@Health.example","agency":"finance","reason":"by mistake"}`)
	if !strings.Contains(text, `"claims":["mailbox `+directoryID(1)+` of agency health"]`) {
		t.Error(text)
	}
	if r := want[admin.Route](t, n, 200, "GET", "/v1/route?address=dora@health.example", ""); !r.Deliver || r.Agency != "health" {
		t.Errorf("%+v", r)
	}
	// The agency whose only mailbox went can be filled again.
	importList[admin.Imported](t, n, 200, "", listHeader+"f@finance.example,"+directoryID(3)+",finance,user,,,,,,,\n")
}

// Outside a lab a name is taken from one of two as two people say: proposed, approved by another, and
// done by whoever proposed it, as it was approved or not at all.
func TestReleaseTakesTwo(t *testing.T) {
	n := withDirectory(t, 1)
	for _, id := range []string{"health", "finance", "tax"} {
		p := want[admin.Proposal](t, n, 201, "POST", "/v1/proposals", addsAgency(id, "exchange", "ox", id+".example"))
		want[admin.Proposal](t, n, 200, "POST", "/v1/proposals/"+p.ID+"/approve", approved(p), asCarla...)
		want[admin.Started](t, n, 202, "POST", "/v1/proposals/"+p.ID+"/start", `{}`)
	}
	claimIn(t, n, "health", directoryID(1), "dora@health.example")
	claimIn(t, n, "finance", directoryID(2), "dora@health.example")
	if p := want[admin.Problem](t, n, 403, "POST", "/v1/names/release", `{"name":"dora@health.example","agency":"finance","reason":"alone"}`); !strings.Contains(p.Hint, "mailcutover mailbox release") {
		t.Errorf("%+v", p)
	}
	for status, bad := range map[int]string{
		400: `{"kind":"release-name","release":{"name":"dora@health.example"},"reason":"r"}`,
		404: `{"kind":"release-name","release":{"name":"dora@health.example","agency":"nowhere"},"reason":"r"}`,
		409: `{"kind":"release-name","release":{"name":"dora@health.example","fixed":true},"reason":"r"}`,
	} {
		want[admin.Problem](t, n, status, "POST", "/v1/proposals", bad)
	}
	propose := func(agency string) (admin.Proposal, string) {
		t.Helper()
		p := want[admin.Proposal](t, n, 201, "POST", "/v1/proposals", fmt.Sprintf(`{"kind":"release-name","release":{"name":"Dora@health.example","agency":%q},"reason":"imported twice"}`, agency))
		return p, "/v1/proposals/" + p.ID
	}
	p, path := propose("finance")
	if p.Missing != 1 || p.Release == nil || p.Release.Name != "dora@health.example" || p.Release.Agency != "finance" ||
		!strings.Contains(p.Text, "mailbox "+directoryID(1)+" of agency health") || !strings.Contains(p.Text, "it goes as a whole") {
		t.Fatalf("%+v", p)
	}
	want[admin.Problem](t, n, 403, "POST", path+"/start", `{}`)
	want[admin.Problem](t, n, 403, "POST", path+"/approve", approved(p)) // her own
	want[admin.Proposal](t, n, 200, "POST", path+"/approve", approved(p), asCarla...)

	// A third one claims it too: that is not what was approved.
	claimIn(t, n, "tax", directoryID(3), "other@tax.example", "dora@health.example")
	want[admin.Problem](t, n, 409, "POST", path+"/start", `{}`)
	if got := len(n.Replica.State().Claims("dora@health.example")); got != 3 {
		t.Fatalf("%d claim it", got)
	}
	for i, agency := range []string{"finance", "tax"} {
		q, path := propose(agency)
		want[admin.Proposal](t, n, 200, "POST", path+"/approve", approved(q), asCarla...)
		if s := want[admin.Started](t, n, 202, "POST", path+"/start", `{}`); !strings.Contains(s.Done, "dora@health.example belongs to") {
			t.Errorf("%+v", s)
		}
		if got := len(n.Replica.State().Claims("dora@health.example")); got != 2-i {
			t.Errorf("%d claim it after %s gave it up", got, agency)
		}
	}
	if r := want[admin.Route](t, n, 200, "GET", "/v1/route?address=dora@health.example", ""); !r.Deliver || r.Agency != "health" {
		t.Errorf("%+v", r)
	}
}

// claimTwice writes a mailbox of agency finance into the table without any check.
func claimTwice(t *testing.T, n *admintest.Node, id, address string) {
	t.Helper()
	claimIn(t, n, "finance", id, routing.Address(address))
}

// claimIn writes a mailbox of an agency into the table without any check.
func claimIn(t *testing.T, n *admintest.Node, agency routing.AgencyID, id string, addresses ...routing.Address) {
	t.Helper()
	s := n.Replica.State()
	mailbox, err := routing.ParseMailboxID(id)
	if err != nil {
		t.Fatal(err)
	}
	rows := []routing.Row{{Mailbox: mailbox, Kind: routing.KindUser, Addresses: addresses}}
	for r := range s.Mapping(agency).Rows() {
		rows = append(rows, r)
	}
	m, err := routing.NewMapping(agency, rows)
	if err != nil {
		t.Fatal(err)
	}
	a, _ := s.Agency(agency)
	a.Mapping = m.Digest()
	if err := n.Table.PutMapping(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	pos, err := n.Table.Change(t.Context(), table.Change{
		ID: "twice/" + string(agency) + id, Incarnation: s.Position().Incarnation, Term: s.Position().Term, Mapped: s.Position().Mapped, Agencies: []routing.Agency{a}, Who: "somebody", What: "elsewhere", Reason: "r",
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Replica.Wait(t.Context(), pos); err != nil {
		t.Fatal(err)
	}
}
