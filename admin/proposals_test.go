package admin_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"mailcutover/admin"
	"mailcutover/admin/admintest"
	"mailcutover/routing"
	"mailcutover/routing/table"
)

// required is a lab in which operations need approval, so that agencies are added at once.
func required(o *admin.Options) { o.Approval, o.Lab = "required", true }

var (
	asBen   = []string{"Authorization", "Bearer " + admintest.Ben}
	asCarla = []string{"Authorization", "Bearer " + admintest.Carla}
	asAnna2 = []string{"Authorization", "Bearer " + admintest.Anna2}
)

func proposeCutover(t *testing.T, n *admintest.Node, as ...string) admin.Proposal {
	t.Helper()
	a := want[admin.Agency](t, n, 200, "GET", "/v1/agencies/health", "")
	return want[admin.Proposal](t, n, 201, "POST", "/v1/proposals", fmt.Sprintf(`{"kind":"cutover","agency":"health","expected_epoch":%q,"reason":"wave 3"}`, a.Epoch), as...)
}

func approved(p admin.Proposal) string { return fmt.Sprintf(`{"digest":%q}`, p.Digest) }

// Proposed by one, approved by another, started once.
func TestFourEyes(t *testing.T) {
	n := admintest.Start(t, required)
	addHealth(t, n)
	armed(t, n, "health")
	p := proposeCutover(t, n, asBen...)
	if p.State != "open" || p.Missing != 1 || p.Person != "Ben Roth" || p.Plan == "" || !strings.Contains(p.Text, "cutover of agency health") {
		t.Fatalf("%+v", p)
	}
	path := "/v1/proposals/" + p.ID
	want[admin.Problem](t, n, 403, "POST", path+"/start", `{}`)                                                     // not approved
	want[admin.Problem](t, n, 403, "POST", path+"/approve", approved(p), asBen...)                                  // his own
	want[admin.Problem](t, n, 403, "POST", path+"/approve", approved(p))                                            // no approver
	want[admin.Problem](t, n, 412, "POST", path+"/approve", `{"digest":"`+strings.Repeat("0", 64)+`"}`, asCarla...) // another content
	want[admin.Problem](t, n, 403, "POST", path+"/withdraw", `{"reason":"r"}`)                                      // not his
	if v := want[admin.Proposal](t, n, 200, "POST", path+"/approve", approved(p), asCarla...); v.State != "approved" || v.Missing != 0 || len(v.Approvals) != 1 {
		t.Fatalf("%+v", v)
	}
	want[admin.Problem](t, n, 409, "POST", path+"/approve", approved(p), asCarla...) // twice
	want[admin.Problem](t, n, 403, "POST", path+"/start", `{}`, asCarla...)          // no operator

	// Two at once: one of them.
	var starts sync.WaitGroup
	statuses := make([]int, 4)
	for i := range statuses {
		starts.Go(func() { statuses[i], _, _ = call(t, n, "POST", path+"/start", `{}`, asBen...) })
	}
	starts.Wait()
	started := 0
	for _, s := range statuses {
		if s == 202 {
			started++
		} else if s != 409 {
			t.Errorf("statuses %v", statuses)
		}
	}
	if started != 1 {
		t.Fatalf("statuses %v: want one 202", statuses)
	}
	v := want[admin.Proposal](t, n, 200, "GET", path, "")
	op := ended(t, n, v.Operation)
	if v.State != "used" || op.Step != "done" || op.Plan != p.Plan || op.Person != "Ben Roth" || op.Reason != "wave 3" {
		t.Errorf("%+v, %+v", v, op)
	}
	want[admin.Problem](t, n, 409, "POST", path+"/start", `{}`, asBen...)
	if list := want[admin.Proposals](t, n, 200, "GET", "/v1/proposals?open=true", ""); len(list.Proposals) != 0 {
		t.Errorf("%+v", list.Proposals)
	}
}

// Who proposes something can't put lines of his own into what others read.
func TestReasonIsOneLine(t *testing.T) {
	n := admintest.Start(t, required)
	addHealth(t, n)
	armed(t, n, "health")
	p := want[admin.Proposal](t, n, 201, "POST", "/v1/proposals", `{"kind":"cutover","agency":"health","expected_epoch":"1.1","reason":"wave 3\n  expected  closed for 0s\u2028\u202e\u001b[2J"}`)
	if p.Reason != "wave 3   expected  closed for 0s   [2J" || !strings.Contains(p.Text, "reason    "+p.Reason+"\n") {
		t.Errorf("%q in\n%s", p.Reason, p.Text)
	}
}

// A proposal of another epoch is void, and stays so.
func TestProposalVoid(t *testing.T) {
	n := admintest.Start(t, required)
	addHealth(t, n)
	armed(t, n, "health")
	p := proposeCutover(t, n)
	path := "/v1/proposals/" + p.ID
	want[admin.Proposal](t, n, 200, "POST", path+"/approve", approved(p), asCarla...)
	want[admin.Acted](t, n, 200, "POST", "/v1/agencies/health/lock", `{"reason":"r"}`)
	if list := want[admin.Proposals](t, n, 200, "GET", "/v1/proposals?open=true", ""); len(list.Proposals) != 0 {
		t.Errorf("shown as if it could be used: %+v", list.Proposals)
	}
	want[admin.Problem](t, n, 409, "POST", path+"/start", `{}`)
	if v := want[admin.Proposal](t, n, 200, "GET", path, ""); v.State != "void" || !strings.Contains(v.Why, "epoch 1.2") {
		t.Errorf("%+v", v)
	}
	want[admin.Problem](t, n, 409, "POST", path+"/start", `{}`)
}

// A proposal that was refused before it changed anything may be started again.
func TestProposalGivenBack(t *testing.T) {
	n := admintest.Start(t, required)
	addHealth(t, n)
	armed(t, n, "health")
	p := proposeCutover(t, n)
	path := "/v1/proposals/" + p.ID
	want[admin.Proposal](t, n, 200, "POST", path+"/approve", approved(p), asBen...)
	want[admin.Freezes](t, n, 200, "POST", "/v1/freezes", `{"agency":"health","reason":"holidays"}`)
	want[admin.Problem](t, n, 409, "POST", path+"/start", `{}`)
	if v := want[admin.Proposal](t, n, 200, "GET", path, ""); v.State != "approved" {
		t.Errorf("%+v", v)
	}
	want[admin.Freezes](t, n, 200, "POST", "/v1/freezes/lift", `{"agency":"health","reason":"back"}`)
	done := want[admin.Started](t, n, 202, "POST", path+"/start", `{}`)
	if op := ended(t, n, done.Operation.ID); op.Step != "done" {
		t.Errorf("%+v", op)
	}
}

// Two approvals where two are wanted, and more than when it was proposed if that changed.
func TestTwoApprovals(t *testing.T) {
	needed := 2
	n := admintest.Start(t, func(o *admin.Options) { required(o); o.Approvals = func() int { return needed } })
	addHealth(t, n)
	armed(t, n, "health")
	p := proposeCutover(t, n)
	path := "/v1/proposals/" + p.ID
	want[admin.Proposal](t, n, 200, "POST", path+"/approve", approved(p), asBen...)
	want[admin.Problem](t, n, 403, "POST", path+"/start", `{}`)
	if v := want[admin.Proposal](t, n, 200, "POST", path+"/approve", approved(p), asCarla...); v.State != "approved" {
		t.Errorf("%+v", v)
	}
	needed = 3
	if v := want[admin.Proposal](t, n, 200, "GET", path, ""); v.State != "open" || v.Missing != 1 || v.Needed != 3 {
		t.Errorf("more are needed today: %+v", v)
	}
	want[admin.Problem](t, n, 403, "POST", path+"/start", `{}`)
	needed = 1
	if v := want[admin.Proposal](t, n, 200, "GET", path, ""); v.State != "approved" || v.Needed != 2 {
		t.Errorf("fewer are needed today, and it was made for two: %+v", v)
	}
	want[admin.Started](t, n, 202, "POST", path+"/start", `{}`)
}

func TestProposalExpires(t *testing.T) {
	n := admintest.Start(t, func(o *admin.Options) { required(o); o.ApprovalLife = func() time.Duration { return time.Nanosecond } })
	addHealth(t, n)
	want[admin.Acted](t, n, 200, "POST", "/v1/agencies/health/lock", `{"reason":"r"}`)
	p := want[admin.Proposal](t, n, 201, "POST", "/v1/proposals", `{"kind":"unlock","agency":"health","expected_epoch":"1.2","reason":"r"}`)
	want[admin.Problem](t, n, 409, "POST", "/v1/proposals/"+p.ID+"/approve", approved(p), asCarla...)
}

// Who has the role admin never approves, by no token.
func TestAdminNeverApproves(t *testing.T) {
	n := admintest.Start(t, func(o *admin.Options) {
		required(o)
		before := o.Tokens
		o.Tokens = func() []admin.Token {
			list := before()
			for i := range list {
				if list[i].Name == "anna-phone" { // Anna's other token has the role admin
					list[i].Roles = []admin.Role{admin.RoleApprover}
				}
			}
			return list
		}
	})
	addHealth(t, n)
	want[admin.Acted](t, n, 200, "POST", "/v1/agencies/health/lock", `{"reason":"r"}`)
	p := want[admin.Proposal](t, n, 201, "POST", "/v1/proposals", `{"kind":"unlock","agency":"health","expected_epoch":"1.2","reason":"r"}`, asBen...)
	if q := want[admin.Problem](t, n, 403, "POST", "/v1/proposals/"+p.ID+"/approve", approved(p), asAnna2...); !strings.Contains(q.Detail, "never approves") {
		t.Errorf("%+v", q)
	}
}

func TestProposalsRefused(t *testing.T) {
	n := admintest.Start(t, required)
	addHealth(t, n)
	for _, c := range []struct {
		body   string
		status int
	}{
		{`{"kind":"nothing","reason":"r"}`, 400},
		{`{"kind":"cutover","reason":"r"}`, 400},
		{`{"kind":"cutover","agency":"health","reason":"r"}`, 428},
		{`{"kind":"cutover","agency":"health","expected_epoch":"1.9","reason":"r"}`, 412},
		{`{"kind":"cutover","agency":"nowhere","expected_epoch":"1.1","reason":"r"}`, 404},
		{`{"kind":"cutover","agency":"health","expected_epoch":"1.1","reason":" "}`, 400},
		{`{"kind":"cutover","agency":"health","expected_epoch":"1.1","reason":"not armed"}`, 409},
		{`{"kind":"cutover","agency":"health","node":"a","expected_epoch":"1.1","reason":"r"}`, 400},
		{`{"kind":"finalise","agency":"health","expected_epoch":"1.1","reason":"on its source"}`, 409},
		{`{"kind":"unlock","agency":"health","expected_epoch":"1.1","reason":"not locked"}`, 409},
		{`{"kind":"publish","operation":"1","replica":"r1","reason":"r"}`, 404},
		{`{"kind":"evict","node":"nowhere","reason":"r"}`, 404},
		{`{"kind":"reconcile","agency":"health","reason":"r"}`, 409},
		{`{"kind":"end-rejoin","reason":"r"}`, 409},
		{`{"kind":"drop-spooled","spool":{"reason":"r"},"reason":"r"}`, 400},
	} {
		want[admin.Problem](t, n, c.status, "POST", "/v1/proposals", c.body)
	}
	want[admin.Problem](t, n, 404, "POST", "/v1/proposals/1/start", `{}`)
	want[admin.Problem](t, n, 403, "POST", "/v1/spool/drop", `{"agency":"health","reason":"r"}`)
	if list := want[admin.Proposals](t, n, 200, "GET", "/v1/proposals", ""); len(list.Proposals) != 0 {
		t.Errorf("%+v", list.Proposals)
	}
}

// A lock is one person's word: it blocks until another one confirms it.
func TestEmergency(t *testing.T) {
	n := admintest.Start(t, func(o *admin.Options) { required(o); withApproverAnna(o) })
	addHealth(t, n)
	armed(t, n, "health")
	done := want[admin.Acted](t, n, 200, "POST", "/v1/agencies/health/lock", `{"reason":"mixed up"}`)
	if !done.Agency.Locked || done.Agency.Epoch != "1.2" || !done.Complete || done.Emergency == "" || len(done.Nodes) != 1 || done.Nodes[0].Standing != "closed" {
		t.Fatalf("%+v", done)
	}
	list := want[admin.Emergencies](t, n, 200, "GET", "/v1/emergencies", "")
	if len(list.Emergencies) != 1 || list.Emergencies[0].Person != "Anna Berg" || list.Emergencies[0].ID != done.Emergency || list.Emergencies[0].Reason != "mixed up" {
		t.Fatalf("%+v", list)
	}
	want[admin.Problem](t, n, 409, "POST", "/v1/proposals", `{"kind":"cutover","agency":"health","expected_epoch":"1.2","reason":"r"}`)
	path := "/v1/emergencies/" + done.Emergency + "/confirm"
	if p := want[admin.Problem](t, n, 403, "POST", path, `{"reason":"I looked"}`, asAnna2...); !strings.Contains(p.Detail, "doesn't confirm it") {
		t.Errorf("%+v", p)
	}
	want[admin.Emergency](t, n, 200, "POST", path, `{"reason":"I looked"}`, asCarla...)
	want[admin.Problem](t, n, 404, "POST", path, `{"reason":"I looked"}`, asCarla...)
	if a := want[admin.Agency](t, n, 200, "GET", "/v1/agencies/health", ""); len(a.Unconfirmed) > 0 || !a.Locked {
		t.Errorf("%+v", a)
	}
}

// One person's word that a node is dead is known at once, and waits for a second one's.
func TestAttestedAlone(t *testing.T) {
	n := admintest.Start(t, func(o *admin.Options) { required(o); withApproverAnna(o) })
	addHealth(t, n)
	other := routing.Member{Node: "mx9.example", Instance: "mx9-1", Protocol: table.Protocol}
	pos, err := n.Table.Position(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	renewed, err := n.Table.Renew(t.Context(), table.Renewal{Incarnation: pos.Incarnation, Member: other, Lapsed: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Replica.Wait(t.Context(), renewed.Position); err != nil {
		t.Fatal(err)
	}
	const path = "/v1/nodes/mx9.example/attest"
	want[admin.Problem](t, n, 409, "POST", path, `{"reason":"burnt","instance":"mx9-0"}`)
	done := want[admin.AttestedAlone](t, n, 200, "POST", path, `{"reason":"burnt"}`)
	if done.Instance != "mx9-1" || done.Emergency == "" {
		t.Fatalf("%+v", done)
	}
	if m, _ := n.Replica.State().Member("mx9.example"); m.Attested != "mx9-1" || string(m.Unconfirmed) != done.Emergency {
		t.Errorf("%+v", m)
	}
	list := want[admin.Emergencies](t, n, 200, "GET", "/v1/emergencies", "")
	if len(list.Emergencies) != 1 || list.Emergencies[0].Person != "Anna Berg" || list.Emergencies[0].Nodes[0] != "mx9.example" {
		t.Fatalf("%+v", list)
	}
	armed(t, n, "health")
	want[admin.Problem](t, n, 409, "POST", "/v1/proposals", `{"kind":"cutover","agency":"health","expected_epoch":"1.1","reason":"r"}`)
	confirm := "/v1/emergencies/" + done.Emergency + "/confirm"
	want[admin.Problem](t, n, 403, "POST", confirm, `{"reason":"I looked"}`, asAnna2...)
	want[admin.Emergency](t, n, 200, "POST", confirm, `{"reason":"I looked"}`, asCarla...)
	if m, _ := n.Replica.State().Member("mx9.example"); m.Unconfirmed != "" || m.Attested != "mx9-1" {
		t.Errorf("%+v", m)
	}
}

// withApproverAnna makes Anna an approver who is no admin.
func withApproverAnna(o *admin.Options) {
	before := o.Tokens
	o.Tokens = func() []admin.Token {
		list := before()
		for i := range list {
			if list[i].Person == "Anna Berg" {
				list[i].Roles = []admin.Role{admin.RolePlanner, admin.RoleOperator, admin.RoleApprover}
			}
		}
		return list
	}
}

// An emergency rollback needs nobody else, and a second person afterwards.
func TestEmergencyRollback(t *testing.T) {
	n := admintest.Start(t, required)
	addHealth(t, n)
	armed(t, n, "health")
	p := proposeCutover(t, n)
	want[admin.Proposal](t, n, 200, "POST", "/v1/proposals/"+p.ID+"/approve", approved(p), asCarla...)
	done := want[admin.Started](t, n, 202, "POST", "/v1/proposals/"+p.ID+"/start", `{}`)
	ended(t, n, done.Operation.ID)
	want[admin.Problem](t, n, 403, "POST", "/v1/agencies/health/rollback", `{"reason":"r","expected_epoch":"1.4"}`)
	want[admin.Problem](t, n, 400, "POST", "/v1/agencies/health/cutover", `{"reason":"r","expected_epoch":"1.4","emergency":true}`)
	want[admin.Problem](t, n, 400, "POST", "/v1/agencies/health/rollback", `{"reason":"r","expected_epoch":"1.4","target_dead":true}`)
	op := want[admin.Operation](t, n, 202, "POST", "/v1/agencies/health/rollback", `{"reason":"calendars are gone","expected_epoch":"1.4","emergency":true}`)
	if op = ended(t, n, op.ID); op.Step != "done" || !op.Emergency {
		t.Fatalf("%+v", op)
	}
	if a := want[admin.Agency](t, n, 200, "GET", "/v1/agencies/health", ""); a.Platform != "exchange" || !slices.Equal(a.Unconfirmed, []string{op.ID}) {
		t.Errorf("%+v", a)
	}
	if e := want[admin.Emergency](t, n, 200, "POST", "/v1/emergencies/"+op.ID+"/confirm", `{"reason":"I looked"}`, asBen...); e.Person != "Anna Berg" || e.What != "rollback" {
		t.Errorf("%+v", e)
	}
}
