package admin_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"mailcutover/admin"
	"mailcutover/admin/admintest"
	"mailcutover/audit"
	"mailcutover/plan"
	"mailcutover/routing"
	"mailcutover/routing/table"
)

// withPlan is a lab in which operations need approval, and a node with a part in the plan.
func withPlan(t *testing.T, o *admin.Options) {
	required(o)
	admintest.Plan(t, o)
}

func newWave(agencies, more string) string {
	return fmt.Sprintf(`{"name":"one","reason":"first","definition":{"agencies":[%s],"owner":"team","retries":2,"zone":"Europe/Berlin","windows":[{"days":["mon","tue","wed","thu","fri","sat","sun"],"from":"00:00","to":"24:00"}]%s}}`, agencies, more)
}

// Who proposes a wave can't put lines of his own into what others approve.
func TestWaveTextKeepsItsLines(t *testing.T) {
	n := admintest.Start(t, func(o *admin.Options) { withPlan(t, o) })
	addHealth(t, n)
	body := strings.Replace(newWave(`"health"`, `,"checks":[{"id":"people","text":"the desk is staffed\n  backup: good"}]`), `"team"`, `"team\nAPPROVED by the board\u2028"`, 1)
	p := want[admin.Proposal](t, n, 201, "POST", "/v1/waves", body, asBen...)
	if !strings.Contains(p.Text, "owner team APPROVED by the board\n") || !strings.Contains(p.Text, "the desk is staffed   backup: good (") {
		t.Errorf("%s", p.Text)
	}
	v := want[admin.Proposal](t, n, 200, "POST", "/v1/proposals/"+p.ID+"/approve", fmt.Sprintf(`{"digest":%q,"note":"seen\nby all"}`, p.Digest), asCarla...)
	if len(v.Approvals) != 1 || v.Approvals[0].Note != "seen by all" {
		t.Errorf("%+v", v.Approvals)
	}
}

// A wave is proposed by a planner, approved by another person, started by an operator; what
// changes in between makes it void, and each word about it is in the audit log.
func TestWaveByTwoPeople(t *testing.T) {
	n := admintest.Start(t, func(o *admin.Options) { withPlan(t, o) })
	addHealth(t, n)
	const path = "/v1/waves"
	bad := want[admin.Problem](t, n, 400, "POST", path, newWave(`"health"`, `,"bake":"soon","never":["tomorrow"]`), asBen...)
	if len(bad.Errors) != 2 {
		t.Errorf("%+v", bad)
	}
	want[admin.Problem](t, n, 409, "POST", path, newWave(`"nowhere"`, ""), asBen...)
	want[admin.Problem](t, n, 409, "POST", path, newWave(`"health"`, `,"after":["two"]`), asBen...)
	want[admin.Problem](t, n, 403, "POST", path, newWave(`"health"`, ""), asCarla...) // no planner
	want[admin.Problem](t, n, 400, "POST", "/v1/proposals", `{"kind":"wave","reason":"r"}`, asBen...)
	p := want[admin.Proposal](t, n, 201, "POST", path, newWave(`"health"`, ""), asBen...)
	if p.Kind != "wave" || p.Missing != 1 || !strings.Contains(p.Text, "WAVE one: 1 agencies") || !strings.Contains(p.Text, "covers no rollback") || !strings.Contains(p.Text, "not tried again by itself") || !strings.Contains(p.Text, "each at most so many times: 2.") || !strings.Contains(p.Text, "health, epoch 1.1") {
		t.Fatalf("%+v", p)
	}
	if all := want[admin.Waves](t, n, 200, "GET", path, ""); len(all.Waves) != 1 || all.Waves[0].Approval != "open" {
		t.Errorf("%+v", all)
	}
	approve := "/v1/proposals/" + p.ID + "/approve"
	want[admin.Problem](t, n, 403, "POST", path+"/one/start", `{}`, asBen...) // nobody has approved it
	want[admin.Problem](t, n, 403, "POST", approve, approved(p), asBen...)    // his own
	want[admin.Problem](t, n, 403, "POST", approve, approved(p))              // no approver
	want[admin.Problem](t, n, 412, "POST", approve, `{"digest":"`+strings.Repeat("0", 64)+`"}`, asCarla...)

	// Proposed anew: the first proposal is void, also if it was approved.
	want[admin.Proposal](t, n, 200, "POST", approve, approved(p), asCarla...)
	second := want[admin.Proposal](t, n, 201, "POST", path, newWave(`"health"`, `,"at_once":5`), asBen...)
	want[admin.Problem](t, n, 409, "POST", "/v1/proposals/"+p.ID+"/start", `{}`, asBen...)
	want[admin.Problem](t, n, 403, "POST", path+"/one/start", `{}`, asBen...)
	want[admin.Proposal](t, n, 200, "POST", "/v1/proposals/"+second.ID+"/approve", approved(second), asCarla...)
	want[admin.Problem](t, n, 403, "POST", path+"/one/start", `{}`, asCarla...) // no operator

	// Something happens to an agency: void.
	want[admin.Acted](t, n, 200, "POST", "/v1/agencies/health/lock", `{"reason":"r"}`)
	want[admin.Problem](t, n, 409, "POST", path+"/one/start", `{}`, asBen...)
	if w := want[admin.Wave](t, n, 200, "GET", path+"/one", ""); w.State != "proposed" || w.Approval != "void" {
		t.Errorf("%+v", w)
	}
	third := want[admin.Proposal](t, n, 201, "POST", path, newWave(`"health"`, ""), asBen...)
	want[admin.Proposal](t, n, 200, "POST", "/v1/proposals/"+third.ID+"/approve", approved(third), asCarla...)
	started := want[admin.Started](t, n, 202, "POST", path+"/one/start", `{}`, asBen...)
	if started.Undo != "mailcutover wave pause one" || started.Proposal.State != "used" {
		t.Errorf("%+v", started)
	}
	want[admin.Problem](t, n, 409, "POST", path+"/one/start", `{}`, asBen...)       // once
	want[admin.Problem](t, n, 409, "POST", path, newWave(`"health"`, ""), asBen...) // it runs

	// The checklist.
	w := want[admin.Wave](t, n, 200, "GET", path+"/one", "")
	if w.State != "running" || w.Next != "health" || w.Person != "Ben Roth" || strings.Join(w.Approvers, ",") != "Carla Diaz" || w.Started.Person != "Ben Roth" {
		t.Errorf("%+v", w)
	}
	names := map[string]bool{}
	for _, o := range w.Obstacles {
		names[o.Name] = true
	}
	if !names["backup"] || !names["record"] || !names["emergency"] {
		t.Errorf("in its way: %+v", w.Obstacles)
	}
	want[admin.Problem](t, n, 404, "POST", path+"/one/answers", `{"item":"weather","ok":true}`, asBen...)
	w = want[admin.Wave](t, n, 200, "POST", path+"/one/answers", `{"item":"backup","ok":true,"note":"seen"}`, asCarla...)
	for _, c := range w.Checks {
		if c.Name == "backup" && (!c.OK || c.Person != "Carla Diaz" || c.Until == nil) {
			t.Errorf("%+v", c)
		}
	}
	table := want[admin.Timetable](t, n, 200, "GET", "/v1/timetable", "")
	if len(table.Rows) != 1 || table.Rows[0].Start == nil || !strings.Contains(table.Rows[0].Rests, "no cutover was measured") || len(table.Rows[0].Refuses) != 2 {
		t.Errorf("%+v", table)
	}
	// A pause that wasn't looked at isn't lifted.
	first := want[admin.Wave](t, n, 200, "POST", path+"/one/pause", `{"reason":"first"}`, asBen...).Said.Time.Format(time.RFC3339Nano)
	if p := want[admin.Problem](t, n, 409, "POST", path+"/one/resume", `{"reason":"r","said":"2020-01-01T00:00:00Z"}`, asBen...); !strings.Contains(p.Detail, "first") {
		t.Errorf("%+v", p)
	}
	want[admin.Wave](t, n, 200, "POST", path+"/one/resume", `{"reason":"r","said":"`+first+`"}`, asBen...)
	// What is said about it.
	for _, act := range []struct{ act, state string }{{"pause", "paused"}, {"resume", "running"}} {
		if w := want[admin.Wave](t, n, 200, "POST", path+"/one/"+act.act, `{"reason":"r"}`, asBen...); w.State != act.state || w.Said.Person != "Ben Roth" {
			t.Errorf("%s: %+v", act.act, w)
		}
		want[admin.Problem](t, n, 409, "POST", path+"/one/"+act.act, `{"reason":"r"}`, asBen...)
	}
	want[admin.Problem](t, n, 409, "POST", path+"/one/skip", `{"agency":"nowhere","reason":"r"}`, asBen...)
	if w := want[admin.Wave](t, n, 200, "POST", path+"/one/skip", `{"agency":"health","reason":"r"}`, asBen...); w.State != "done" {
		t.Errorf("%+v", w)
	}
	want[admin.Problem](t, n, 404, "GET", path+"/two", "")
	_, _, log := call(t, n, "GET", "/v1/audit/export", "")
	for _, entry := range []string{"propose-wave", "start-wave", "pause-wave", "resume-wave", "skip-wave", "answer-wave"} {
		if !strings.Contains(log, entry) {
			t.Errorf("%s is not in the audit log", entry)
		}
	}
}

// The stop: an operator's, and a node's; a releaser's word lifts it, and nobody else's.
func TestStopOfThePlan(t *testing.T) {
	n := admintest.Start(t, func(o *admin.Options) { withPlan(t, o) })
	addHealth(t, n)
	const path = "/v1/plan-stop"
	want[admin.Problem](t, n, 409, "POST", path+"/lift", `{"reason":"r"}`) // there is none
	want[admin.Problem](t, n, 403, "POST", path, `{"reason":"r"}`, asCarla...)
	if v := want[admin.Waves](t, n, 200, "POST", path, `{"reason":"too loud"}`, asBen...); v.Stop == nil || v.Stop.Person != "Ben Roth" || v.Stop.Findings[0].Cause != "person" {
		t.Errorf("%+v", v)
	}
	want[admin.Problem](t, n, 403, "POST", path+"/lift", `{"reason":"r"}`, asBen...) // no releaser
	if v := want[admin.Waves](t, n, 200, "POST", path+"/lift", `{"reason":"looked"}`); v.Stop != nil {
		t.Errorf("%+v", v)
	}
	// As a node does it.
	err := n.Server.ChangePlan(t.Context(), "node mx", func(s *routing.State) (c table.Change, err error) {
		c.What, c.Reason = "stop the plan", "3 rows"
		c.Documents, err = plan.Trip(s, plan.Finding{Cause: plan.ByDrift, Text: "3 rows", Time: time.Now()}, "")
		return c, err
	})
	if err != nil {
		t.Fatal(err)
	}
	if v := want[admin.Waves](t, n, 200, "GET", "/v1/waves", ""); v.Stop == nil || v.Stop.Person != "" {
		t.Errorf("%+v", v)
	}
	// A finding that comes while the releaser writes why is none that he has looked at.
	seen := want[admin.Waves](t, n, 200, "GET", "/v1/waves", "").Stop.Revision
	want[admin.Waves](t, n, 200, "POST", path, `{"reason":"another thing"}`, asBen...)
	lift := func() string { return fmt.Sprintf(`{"reason":"looked","revision":%d}`, seen) }
	if p := want[admin.Problem](t, n, 409, "POST", path+"/lift", lift()); !strings.Contains(p.Detail, "2 findings now") {
		t.Errorf("%+v", p)
	}
	seen = want[admin.Waves](t, n, 200, "GET", "/v1/waves", "").Stop.Revision
	if v := want[admin.Waves](t, n, 200, "POST", path+"/lift", lift()); v.Stop != nil {
		t.Errorf("%+v", v)
	}
	if _, _, log := call(t, n, "GET", "/v1/audit/export", ""); !strings.Contains(log, `"node mx"`) || !strings.Contains(log, "stop the plan") {
		t.Errorf("the audit log:\n%s", log)
	}
	if err := n.Server.ChangePlan(t.Context(), "node mx", func(*routing.State) (table.Change, error) { return table.Change{}, context.Canceled }); err == nil {
		t.Error("what isn't computed is stored")
	}
	if status, _, _ := call(t, n, http.MethodGet, "/v1/timetable", ""); status != 200 {
		t.Errorf("the timetable while the plan is stopped: %d", status)
	}
}

// Every call about waves writes a record first: without one it changes nothing.
func TestNoWaveWithoutRecord(t *testing.T) {
	var broken atomic.Bool
	n := admintest.Start(t, func(o *admin.Options) {
		admintest.Plan(t, o)
		o.Audit = brokenAudit{o.Audit.(*audit.Log), &broken}
	})
	for _, id := range []string{"a", "b", "c"} {
		want[admin.Agency](t, n, 201, "POST", "/v1/agencies", fmt.Sprintf(`{"id":%q,"source":"exchange","target":"ox","reason":"r"}`, id))
		wave := strings.Replace(newWave(`"`+id+`"`, ""), `"name":"one"`, fmt.Sprintf(`"name":%q`, id), 1)
		want[admin.Proposal](t, n, 201, "POST", "/v1/waves", wave)
	}
	for _, id := range []string{"b", "c"} {
		want[admin.Started](t, n, 202, "POST", "/v1/waves/"+id+"/start", `{}`)
	}
	want[admin.Wave](t, n, 200, "POST", "/v1/waves/c/pause", `{"reason":"r"}`)
	before := n.Replica.State().Position().Revision
	refused := func(path, body string) {
		t.Helper()
		if p := want[admin.Problem](t, n, http.StatusServiceUnavailable, "POST", path, body); !strings.Contains(p.Detail, "audit record can't be written") {
			t.Errorf("%s: %+v", path, p)
		}
	}
	broken.Store(true)
	refused("/v1/waves", strings.Replace(newWave(`"a"`, ""), `"name":"one"`, `"name":"a"`, 1))
	refused("/v1/waves/a/start", `{}`)
	refused("/v1/waves/b/pause", `{"reason":"r"}`)
	refused("/v1/waves/b/skip", `{"agency":"b","reason":"r"}`)
	refused("/v1/waves/b/end", `{"reason":"r"}`)
	refused("/v1/waves/b/answers", `{"item":"backup","ok":true}`)
	refused("/v1/waves/c/resume", `{"reason":"r"}`)
	refused("/v1/plan-stop", `{"reason":"r"}`)
	broken.Store(false)
	if now := n.Replica.State().Position().Revision; now != before {
		t.Errorf("something happened: revision %d, was %d", now, before)
	}
	want[admin.Waves](t, n, 200, "POST", "/v1/plan-stop", `{"reason":"r"}`)
	broken.Store(true)
	refused("/v1/plan-stop/lift", `{"reason":"r"}`)
}
