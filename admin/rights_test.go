package admin_test

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"mailcutover/admin"
	"mailcutover/admin/admintest"
	"mailcutover/routing"
)

// may says of each call which roles make it; the document has all calls.
var may = map[string]string{
	"generate-lists": "planner", "import-list": "planner", "withdraw-list": "planner", "complete-domain": "planner",
	"check-list": "planner operator approver admin", "check-directory": "planner operator approver admin", "sign-audit": "planner operator approver admin",
	"add-agency": "planner", "import-mailboxes": "planner", "release-name": "planner",
	"arm-agency": "operator", "settle-agency": "operator", "lock-agency": "operator", "lock-agency-locally": "operator", "freeze": "operator", "cutover": "operator", "rollback": "operator", "remap-mailboxes": "operator",
	"abort-operation": "operator", "tell-operation": "operator", "undo-hook": "operator", "clear-alarm": "operator", "attest-node": "operator",
	"hold-spooled": "operator", "release-spooled": "operator", "retry-spooled": "operator", "drop-spooled": "operator", "set-spool-rate": "operator", "store-rehearsal": "operator", "resume-spool": "operator", "close-sessions": "operator",
	"plan-operation": "planner operator admin", "propose": "planner operator admin", "withdraw-proposal": "planner operator admin", "start-proposal": "planner operator admin",
	"approve-proposal": "approver", "confirm-emergency": "approver",
	"plan-recall": "planner operator approver admin", "begin-recall": "operator", "end-recall": "operator", "accept-recall": "operator", "copy-recall": "operator", "take-over-recall": "operator",
	"begin-verify": "operator", "stop-verify": "operator", "mark-findings": "operator", "list-finding-messages": "operator",
	"locate-message": "viewer operator",
	"export-ledger":  "admin", "fetch-retained": "admin",
	"lift-freeze":  "releaser",
	"propose-wave": "planner", "answer-wave": "planner operator approver admin", "start-wave": "operator", "pause-wave": "operator", "resume-wave": "operator", "skip-wave": "operator", "end-wave": "operator",
	"stop-plan": "operator", "lift-plan": "releaser",
	"test-notice": "admin", "incident-records": "admin",
	"reload-config": "admin", "adopt-spool": "admin", "drain-node": "admin",
	"propose-bootstrap": "admin", "approve-bootstrap": "approver", "propose-restore": "admin", "show-goroutines": "admin", "approve-restore": "approver",
}

// documented is a call as the document has it.
type documented struct{ id, method, path string }

func calls(t *testing.T, n *admintest.Node, as ...string) []documented {
	t.Helper()
	doc := want[struct {
		Paths map[string]map[string]struct {
			OperationID string `json:"operationId"`
		} `json:"paths"`
	}](t, n, 200, "GET", "/openapi.json", "", as...)
	var all []documented
	for path, methods := range doc.Paths {
		for method, op := range methods {
			all = append(all, documented{op.OperationID, strings.ToUpper(method), path})
		}
	}
	slices.SortFunc(all, func(a, b documented) int { return strings.Compare(a.id, b.id) })
	return all
}

// withTokens gives each role a token of its name, and one without any.
func withTokens(o *admin.Options) {
	o.Tokens = func() []admin.Token {
		list := []admin.Token{{Name: "none", Person: "Nobody", SHA256: sha256.Sum256([]byte("none"))}}
		for _, r := range admin.Roles() {
			list = append(list, admin.Token{Name: string(r), Person: "Person " + string(r), SHA256: sha256.Sum256([]byte(r)), Roles: []admin.Role{r}})
		}
		return list
	}
}

// All pairs of call and role.
func TestRights(t *testing.T) {
	n := admintest.Start(t, withTokens)
	all := calls(t, n, "Authorization", "Bearer viewer")
	if len(all) < 40 {
		t.Fatalf("only %d calls in the document", len(all))
	}
	for _, c := range all {
		roles := strings.Fields(may[c.id])
		if c.method != http.MethodGet && len(roles) == 0 {
			t.Errorf("%s %s (%s): nobody is said to make it", c.method, c.path, c.id)
		}
		path := strings.NewReplacer("{id}", "nowhere", "{name}", "nowhere", "{node}", "nowhere", "{key}", "nowhere", "{hook}", "nowhere").Replace(c.path)
		switch c.id { // what is wrong in itself is refused before
		case "incident-records":
			path += "?agency=nowhere&from=2026-01-01T00:00:00Z&to=2026-01-02T00:00:00Z&reason=r"
		case "export-ledger":
			path += "?agency=nowhere&from=2026-01-01T00:00:00Z&to=2026-01-02T00:00:00Z&reason=test"
		case "fetch-retained", "backup-table":
			path += "?reason=test"
		case "list-retained":
			path += "?agency=nowhere"
		case "list-ledger":
			path += "?agency=nowhere&since=2026-01-01T00:00:00Z"
		case "list-mailboxes", "list-drift", "list-forwards", "list-comparisons":
			path += "?agency=nowhere"
		case "find-in-directory":
			path += "?name=nowhere"
		}
		for _, role := range append([]string{"none"}, texts(admin.Roles())...) {
			header := []string{"Authorization", "Bearer " + role}
			body := ""
			if c.method == http.MethodPost {
				body = bodies[c.id]
				if body == "" {
					body = `{"reason":"r"}`
				}
				if c.id == "import-mailboxes" || c.id == "remap-mailboxes" {
					header = append(header, "Content-Type", "text/csv")
					path = c.path + "?reason=r"
				}
				if c.id == "propose-restore" {
					header = append(header, "Content-Type", "application/x-ndjson")
					path = c.path + "?reason=r"
				}
				if c.id == "import-list" || c.id == "check-list" {
					header = append(header, "Content-Type", "application/octet-stream")
					path = c.path + "?agency=nowhere"
					if c.id == "import-list" {
						path += "&reason=r"
					}
				}
			}
			status, _, text := call(t, n, c.method, path, body, header...)
			allowed := role != "none" && (len(roles) == 0 || slices.Contains(roles, role))
			if refused := status == http.StatusForbidden && strings.Contains(text, "is for the role"); refused == allowed {
				t.Errorf("%s as %s: %d %s", c.id, role, status, text)
			}
		}
	}
}

// bodies are those of calls for which a reason is not enough; they name nothing that is there.
var bodies = map[string]string{
	"begin-verify": `{"agencies":["nowhere"],"reason":"r"}`, "stop-verify": `{"agency":"nowhere","reason":"r"}`, "mark-findings": `{"findings":["nowhere"],"state":"found","reason":"r"}`,
	"add-agency":        `{"id":"Not!","source":"exchange","target":"ox","reason":"r"}`,
	"release-name":      `{"name":"x@nowhere.example","agency":"nowhere","reason":"r"}`,
	"propose":           `{"kind":"nothing","reason":"r"}`,
	"plan-operation":    `{"kind":"cutover","agency":"nowhere"}`,
	"approve-proposal":  `{"digest":"` + strings.Repeat("0", 64) + `"}`,
	"propose-bootstrap": `{"digest":"0","reason":"r"}`, "approve-bootstrap": `{"digest":"0","reason":"r"}`, "approve-restore": `{"digest":"0","reason":"r"}`,
	"complete-domain": `{"complete":true,"reason":"r"}`,
	"start-proposal":  `{}`, "locate-message": `{"message_id":"nowhere","reason":"r"}`,
	"store-rehearsal": rehearsedNowhere(),
	"generate-lists":  `{"agency":"nowhere"}`, "check-directory": `{}`,
	"plan-recall": `{"agency":"nowhere","reason":"r"}`, "begin-recall": `{"agency":"nowhere","reason":"r"}`,
	"freeze":          `{"agency":"nowhere","reason":"r"}`,
	"lift-freeze":     `{"agency":"nowhere","reason":"r"}`,
	"drain-node":      `{"drain":true,"reason":"r"}`,
	"hold-spooled":    `{"agency":"nowhere","reason":"r"}`,
	"release-spooled": `{"agency":"nowhere","reason":"r"}`,
	"retry-spooled":   `{"agency":"nowhere","reason":"r"}`,
	"drop-spooled":    `{"agency":"nowhere","reason":"r"}`,
	"set-spool-rate":  `{"platform":"nowhere","per_second":1,"reason":"r"}`,
	"adopt-spool":     `{"directory":"relative","from":"nowhere","reason":"r"}`,
	"propose-wave":    `{"name":"nowhere","definition":{"agencies":["nowhere"],"owner":"o","zone":"Europe/Berlin","windows":[{"days":["mon"],"from":"20:00","to":"02:00"}]},"reason":"r"}`,
	"start-wave":      `{}`, "skip-wave": `{"agency":"nowhere","reason":"r"}`, "answer-wave": `{"item":"backup","ok":true}`,
}

func texts[S ~string](in []S) (out []string) {
	for _, s := range in {
		out = append(out, string(s))
	}
	return out
}

// What kind may be proposed by which role.
func TestRightsOfKinds(t *testing.T) {
	n := admintest.Start(t, func(o *admin.Options) { withTokens(o); o.Approval = "required" })
	kinds := want[admin.Proposals](t, n, 200, "GET", "/v1/proposals", "", "Authorization", "Bearer viewer").Kinds
	if len(kinds) < 9 {
		t.Fatalf("%+v", kinds)
	}
	for _, k := range kinds {
		for _, role := range []string{"planner", "operator", "admin"} {
			body := map[string]any{"kind": k.Kind, "reason": "r"}
			for _, f := range k.Needs {
				switch {
				case f == "spool":
					body[f] = map[string]any{"agency": "nowhere", "reason": "r"}
				case f == "release":
					body[f] = map[string]any{"name": "a@b.example", "agency": "nowhere"}
				case f == "add":
					body[f] = map[string]any{"id": "Not!", "source": "exchange", "target": "ox"}
				case !strings.HasPrefix(f, "["):
					body[f] = "nowhere"
				}
			}
			if _, ok := body["expected_epoch"]; ok {
				body["expected_epoch"] = "1.1"
			}
			b, err := json.Marshal(body)
			if err != nil {
				t.Fatal(err)
			}
			status, _, text := call(t, n, "POST", "/v1/proposals", string(b), "Authorization", "Bearer "+role)
			if refused := status == 403; refused == slices.Contains(k.Roles, role) {
				t.Errorf("%s as %s: %d %s", k.Kind, role, status, text)
			}
		}
	}
}

// A token for one agency acts on it and its pilot groups, reads all, and does nothing that
// concerns others.
func TestRightsPerAgency(t *testing.T) {
	secret := "one-agency"
	n := admintest.Start(t, func(o *admin.Options) {
		before := o.Tokens
		o.Tokens = func() []admin.Token {
			return append(before(), admin.Token{
				Name: "one", Person: "Olga Ek", SHA256: sha256.Sum256([]byte(secret)),
				Roles: []admin.Role{admin.RoleOperator, admin.RoleReleaser, admin.RolePlanner}, Agencies: []routing.AgencyID{"health"},
			})
		}
	})
	addHealth(t, n)
	want[admin.Agency](t, n, 201, "POST", "/v1/agencies", `{"id":"health-pilot","source":"exchange","target":"ox","parent":"health","reason":"r"}`)
	want[admin.Agency](t, n, 201, "POST", "/v1/agencies", `{"id":"tax","source":"exchange","target":"ox","reason":"r"}`)
	as := []string{"Authorization", "Bearer " + secret}
	for _, c := range []struct {
		path, body string
		status     int
	}{
		{"/v1/agencies/health/arm", `{"reason":"r","expected_epoch":"1.1"}`, 200},
		{"/v1/agencies/health-pilot/arm", `{"reason":"r","expected_epoch":"1.1"}`, 200},
		{"/v1/agencies/tax/arm", `{"reason":"r","expected_epoch":"1.1"}`, 403},
		{"/v1/agencies/tax/lock", `{"reason":"r"}`, 403},
		{"/v1/agencies/nowhere/lock", `{"reason":"r"}`, 403},
		{"/v1/freezes", `{"agency":"health","reason":"r"}`, 200},
		{"/v1/freezes", `{"agency":"tax","reason":"r"}`, 403},
		{"/v1/freezes", `{"reason":"r"}`, 403},
		{"/v1/freezes/lift", `{"agency":"health","reason":"r"}`, 200},
		{"/v1/spool/hold", `{"agency":"health","reason":"r"}`, 200},
		{"/v1/spool/hold", `{"agency":"tax","reason":"r"}`, 403},
		{"/v1/spool/hold", `{"all":true,"reason":"r"}`, 403},
		{"/v1/agencies", `{"id":"a","source":"exchange","target":"ox","reason":"r"}`, 403},
		{"/v1/proposals", `{"kind":"unlock","agency":"tax","expected_epoch":"1.1","reason":"r"}`, 403},
		{"/v1/agencies/health/lock", `{"reason":"r"}`, 200},
		{"/v1/proposals", `{"kind":"unlock","agency":"health","expected_epoch":"1.2","reason":"r"}`, 201},
	} {
		if status, _, text := call(t, n, "POST", c.path, c.body, as...); status != c.status {
			t.Errorf("%s %s: %d %s, want %d", c.path, c.body, status, text, c.status)
		}
	}
	want[admin.Agency](t, n, 200, "GET", "/v1/agencies/tax", "", as...)
	if me := want[admin.Me](t, n, 200, "GET", "/v1/token", "", as...); me.Person != "Olga Ek" || fmt.Sprint(me.Agencies) != "[health]" {
		t.Errorf("%+v", me)
	}
}

// Only in a lab a token without roles does everything.
func TestTokenWithoutRoles(t *testing.T) {
	for _, lab := range []bool{false, true} {
		n := admintest.Start(t, func(o *admin.Options) { withTokens(o); o.Lab = lab })
		status := 403
		if lab {
			status = 201
		}
		if got, _, text := call(t, n, "POST", "/v1/agencies", `{"id":"a","source":"exchange","target":"ox","reason":"r"}`, "Authorization", "Bearer none"); got != status {
			t.Errorf("lab %t: %d %s", lab, got, text)
		}
	}
}
