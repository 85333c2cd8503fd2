package admin_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"mailcutover/admin"
	"mailcutover/admin/admintest"
	"mailcutover/routing"
)

// withDirectory is no lab, and has a directory with so many persons of agency health.
func withDirectory(t *testing.T, n int) *admintest.Node {
	t.Helper()
	return admintest.Start(t, func(o *admin.Options) {
		o.Approval = "required"
		admintest.Directory(t, n, o.Replica.State, o)
	})
}

func addsAgency(id, source, target string, domains ...string) string {
	b, err := json.Marshal(map[string]any{"kind": "add-agency", "reason": "wave 3", "add": map[string]any{"id": id, "source": source, "target": target, "domains": domains}})
	if err != nil {
		panic(err)
	}
	return string(b)
}

// Nobody adds an agency, or calls a domain complete, alone: on which platform its mailboxes
// are is believed of all its lists, and who isn't in a complete domain is denied for good.
func TestAgenciesTakeTwo(t *testing.T) {
	n := withDirectory(t, 2)
	refused := want[admin.Problem](t, n, 403, "POST", "/v1/agencies", `{"id":"health","source":"exchange","target":"ox","reason":"r"}`)
	if !strings.Contains(refused.Hint, "mailcutover agency add health") {
		t.Errorf("%+v", refused)
	}
	p := want[admin.Proposal](t, n, 201, "POST", "/v1/proposals", addsAgency("health", "exchange", "ox", "Health.example"))
	if p.Kind != "add-agency" || p.Agency != "health" || p.Missing != 1 || p.Add == nil || p.Add.Target != "ox" || p.Add.Domains[0] != "health.example" ||
		!strings.Contains(p.Text, "its mailboxes are on exchange now, and move to ox") || !strings.Contains(p.Text, "served from then on: health.example") {
		t.Fatalf("%+v", p)
	}
	path := "/v1/proposals/" + p.ID
	want[admin.Problem](t, n, 403, "POST", path+"/start", `{}`)
	want[admin.Problem](t, n, 403, "POST", path+"/approve", approved(p)) // her own
	want[admin.Problem](t, n, 404, "GET", "/v1/agencies/health", "")
	want[admin.Proposal](t, n, 200, "POST", path+"/approve", approved(p), asCarla...)
	if s := want[admin.Started](t, n, 202, "POST", path+"/start", `{}`); !strings.Contains(s.Done, "agency health is added: open on exchange") {
		t.Errorf("%+v", s)
	}
	if a := want[admin.Agency](t, n, 200, "GET", "/v1/agencies/health", ""); a.Source != "exchange" || a.Target != "ox" {
		t.Errorf("%+v", a)
	}
	want[admin.Problem](t, n, 409, "POST", path+"/start", `{}`) // used

	// What was approved is done as it was approved, or not at all.
	q := want[admin.Proposal](t, n, 201, "POST", "/v1/proposals", addsAgency("police", "ox", "exchange"))
	want[admin.Proposal](t, n, 200, "POST", "/v1/proposals/"+q.ID+"/approve", approved(q), asCarla...)
	other := want[admin.Proposal](t, n, 201, "POST", "/v1/proposals", addsAgency("police", "exchange", "ox"))
	want[admin.Proposal](t, n, 200, "POST", "/v1/proposals/"+other.ID+"/approve", approved(other), asCarla...)
	want[admin.Started](t, n, 202, "POST", "/v1/proposals/"+other.ID+"/start", `{}`)
	want[admin.Problem](t, n, 409, "POST", "/v1/proposals/"+q.ID+"/start", `{}`)
	if a := want[admin.Agency](t, n, 200, "GET", "/v1/agencies/police", ""); a.Source != "exchange" {
		t.Errorf("%+v", a)
	}

	want[admin.Problem](t, n, 403, "POST", "/v1/domains/health.example/complete", `{"complete":true,"reason":"r"}`)
	d := want[admin.Proposal](t, n, 201, "POST", "/v1/proposals", `{"kind":"complete-domain","domain":"Health.Example","reason":"all are in"}`)
	if d.Domain != "health.example" || !strings.Contains(d.Text, "has 2 addresses of it that the table lacks") || !strings.Contains(d.Text, "p01@health.example") {
		t.Fatalf("%+v", d)
	}
	want[admin.Problem](t, n, 403, "POST", "/v1/proposals/"+d.ID+"/start", `{}`)
	want[admin.Proposal](t, n, 200, "POST", "/v1/proposals/"+d.ID+"/approve", approved(d), asCarla...)
	want[admin.Started](t, n, 202, "POST", "/v1/proposals/"+d.ID+"/start", `{}`)
	if state, _ := n.Replica.State().Domain("health.example"); !state.Complete {
		t.Error("the domain isn't complete")
	}
	want[admin.Domain](t, n, 200, "POST", "/v1/domains/health.example/complete", `{"complete":false,"reason":"not yet"}`) // the safe way takes one
	if state, _ := n.Replica.State().Domain("health.example"); state.Complete {
		t.Error("the domain is still complete")
	}
}

func TestAgencyProposalsRefused(t *testing.T) {
	n := withDirectory(t, 1)
	for name, c := range map[string]struct {
		body   string
		status int
		want   string
	}{
		"nothing to add":      {`{"kind":"add-agency","reason":"r"}`, 400, "names its add"},
		"an agency beside it": {`{"kind":"add-agency","agency":"health","reason":"r","add":{"id":"health","source":"exchange","target":"ox"}}`, 400, "has no agency"},
		"unknown platform":    {addsAgency("health", "gmail", "ox"), 400, "not configured"},
		"one platform":        {addsAgency("health", "ox", "ox"), 400, ""},
		"bad domain":          {addsAgency("health", "exchange", "ox", "a b"), 400, "is not a domain name"},
		"unserved domain":     {`{"kind":"complete-domain","domain":"nowhere.example","reason":"r"}`, 404, "no domain"},
		"no domain":           {`{"kind":"complete-domain","reason":"r"}`, 400, "names its domain"},
		"a domain beside":     {`{"kind":"unlock","agency":"health","domain":"x.example","expected_epoch":"1.1","reason":"r"}`, 400, "has no domain"},
	} {
		if p := want[admin.Problem](t, n, c.status, "POST", "/v1/proposals", c.body); !strings.Contains(p.Detail, c.want) {
			t.Errorf("%s: %+v", name, p)
		}
	}
}

// Lists and agencies concern whom they name: a token for one agency adds no other one.
func TestAgenciesOfOthers(t *testing.T) {
	n := admintest.Start(t, func(o *admin.Options) {
		withTokens(o)
		o.Approval = "required"
		all := o.Tokens
		o.Tokens = func() []admin.Token {
			tokens := all()
			for i := range tokens {
				tokens[i].Agencies = []routing.AgencyID{"health"}
			}
			return tokens
		}
	})
	as := []string{"Authorization", "Bearer planner"}
	for _, body := range []string{addsAgency("police", "exchange", "ox"), addsAgency("health", "exchange", "ox"), `{"kind":"complete-domain","domain":"x.example","reason":"r"}`} {
		if p := want[admin.Problem](t, n, 403, "POST", "/v1/proposals", body, as...); !strings.Contains(fmt.Sprint(p.Detail), "this concerns all agencies") {
			t.Errorf("%s: %+v", body, p)
		}
	}
}
