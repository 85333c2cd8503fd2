package admin_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"mailcutover/admin"
	"mailcutover/admin/admintest"
)

// Whoever has no valid token learns nothing and changes nothing.
func TestWithoutToken(t *testing.T) {
	n := admintest.Start(t, nil)
	for name, header := range map[string]string{
		"none":             "",
		"another":          "Bearer nobody-secret",
		"prefix":           "Bearer " + admintest.Anna[:5],
		"longer":           "Bearer " + admintest.Anna + "x",
		"basic":            "Basic " + admintest.Anna,
		"no scheme":        admintest.Anna,
		"empty":            "Bearer ",
		"blank before":     "Bearer  " + admintest.Anna,
		"digest as secret": "Bearer " + strings.Repeat("0", 64),
	} {
		t.Run(name, func(t *testing.T) {
			for _, path := range []string{"/v1/agencies", "/v1/config", "/openapi.json", "/nothing", "/v1/route?address=a@b.example&token=" + admintest.Anna} {
				status, h, text := call(t, n, "GET", path, "", "Authorization", header, "Cookie", "token="+admintest.Anna)
				if status != http.StatusUnauthorized || h.Get("WWW-Authenticate") == "" {
					t.Errorf("%s: %d %s", path, status, text)
				}
			}
		})
	}
	for _, path := range []string{"/healthz", "/readyz", "/metrics"} {
		if status, _, text := call(t, n, "GET", path, "", "Authorization", ""); status != 200 {
			t.Errorf("%s: %d %s", path, status, text)
		}
	}
	for _, c := range []struct{ method, path, key string }{{"POST", "/healthz", "k"}, {"POST", "/metrics", ""}, {"DELETE", "/readyz", ""}, {"GET", "/debug/pprof/", ""}} {
		if status, _, text := call(t, n, c.method, c.path, "body", "Authorization", "", "Idempotency-Key", c.key); status != 404 && status != 401 {
			t.Errorf("%s %s: %d %s", c.method, c.path, status, text)
		}
	}
	// Also what was sent in the URL.
	for _, secret := range []string{admintest.Anna, "nobody-secret"} {
		if strings.Contains(n.Log.String(), secret) {
			t.Errorf("the log has the secret %s", secret)
		}
	}
}

func TestBodiesRefused(t *testing.T) {
	n := admintest.Start(t, nil)
	const good = `{"id":"a","source":"exchange","target":"ox","reason":"r"}`
	form := "application/x-www-form-urlencoded"
	for _, c := range []struct {
		name, path, body, contentType string
		status                        int
	}{
		{"form", "/v1/agencies", "id=a&reason=r", form, 415},
		{"text", "/v1/agencies", good, "text/plain", 415},
		{"no type", "/v1/agencies", good, "", 415},
		{"latin", "/v1/agencies", good, "application/json; charset=iso-8859-1", 415},
		{"json as list", "/v1/mailboxes/import?reason=r", good, "application/json", 415},
		{"empty", "/v1/agencies", "", "application/json", 400},
		{"unknown field", "/v1/agencies", `{"id":"a","source":"exchange","target":"ox","reason":"r","force":true}`, "application/json", 400},
		{"key twice", "/v1/agencies", `{"id":"a","id":"b","source":"exchange","target":"ox","reason":"r"}`, "application/json", 400},
		{"key twice, escaped", "/v1/agencies", `{"id":"a","\u0069d":"b","source":"exchange","target":"ox","reason":"r"}`, "application/json", 400},
		{"two values", "/v1/agencies", good + good, "application/json", 400},
		{"wrong type", "/v1/agencies", `{"id":1,"source":"exchange","target":"ox","reason":"r"}`, "application/json", 400},
		{"NaN", "/v1/agencies", `{"id":NaN}`, "application/json", 400},
		{"huge number", "/v1/agencies/health/cutover", `{"reason":"r","expected_epoch":1e400}`, "application/json", 400},
		{"not UTF-8", "/v1/agencies", "{\"id\":\"a\xff\"}", "application/json", 400},
		{"depth", "/v1/agencies", strings.Repeat("[", 30000), "application/json", 400},
		{"100,000 deep", "/v1/agencies", strings.Repeat(`{"a":`, 100000), "application/json", 413},
		{"large", "/v1/agencies", `{"id":"` + strings.Repeat("a", 1<<20) + `"}`, "application/json", 413},
		{"array", "/v1/agencies", `[]`, "application/json", 400},
		{"null", "/v1/agencies", `null`, "application/json", 400},
		{"no reason", "/v1/agencies", `{"id":"a","source":"exchange","target":"ox"}`, "application/json", 400},
		{"blank reason", "/v1/agencies", `{"id":"a","source":"exchange","target":"ox","reason":"  "}`, "application/json", 400},
		{"bad id", "/v1/agencies", `{"id":"Health!","source":"exchange","target":"ox","reason":"r"}`, "application/json", 400},
		{"same platform", "/v1/agencies", `{"id":"a","source":"ox","target":"ox","reason":"r"}`, "application/json", 400},
		{"unknown platform", "/v1/agencies", `{"id":"a","source":"exchange","target":"gmail","reason":"r"}`, "application/json", 400},
		{"bad domain", "/v1/agencies", `{"id":"a","source":"exchange","target":"ox","domains":["[127.0.0.1]"],"reason":"r"}`, "application/json", 400},
		{"unknown parent", "/v1/agencies", `{"id":"a","source":"exchange","target":"ox","parent":"b","reason":"r"}`, "application/json", 400},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := want[admin.Problem](t, n, c.status, "POST", c.path, c.body, "Content-Type", c.contentType)
			if p.Status != c.status || p.Detail == "" || p.Request == "" {
				t.Errorf("problem: %+v", p)
			}
		})
	}
	if list := want[admin.Agencies](t, n, 200, "GET", "/v1/agencies", ""); len(list.Agencies) != 0 {
		t.Errorf("something was stored: %+v", list)
	}
}

// Another site's page can send nothing that counts: without the token 401, and with it,
// which it can't know, its origin is refused.
func TestForeignOrigin(t *testing.T) {
	n := admintest.Start(t, nil)
	body := `{"id":"a","source":"exchange","target":"ox","reason":"r"}`
	status, _, _ := call(t, n, "POST", "/v1/agencies", body, "Authorization", "", "Cookie", "session=1", "Origin", "https://evil.example", "Content-Type", "text/plain")
	if status != 401 {
		t.Errorf("form post of another site: %d", status)
	}
	want[admin.Problem](t, n, 403, "POST", "/v1/agencies", body, "Origin", "https://evil.example")
	want[admin.Problem](t, n, 403, "POST", "/v1/agencies", body, "Sec-Fetch-Site", "cross-site")
}

// A peer that announces a body and doesn't send it is cut, token or not.
func TestSlowBody(t *testing.T) {
	n := admintest.Start(t, nil)
	for _, c := range []struct{ name, head string }{
		{"without token", "POST /v1/agencies HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"},
		{"health", "POST /healthz HTTP/1.1\r\nHost: x\r\nIdempotency-Key: k\r\nContent-Length: 100\r\n\r\n{"},
		{"get", "GET /v1/agencies HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + admintest.Anna + "\r\nContent-Length: 100\r\n\r\n{"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			conn, err := net.Dial("tcp", strings.TrimPrefix(n.URL, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(time.Minute))
			if _, err := conn.Write([]byte(c.head)); err != nil {
				t.Fatal(err)
			}
			line, err := bufio.NewReader(conn).ReadString('\n')
			if err != nil || !strings.HasPrefix(line, "HTTP/1.1 4") {
				t.Errorf("%q, %v", line, err)
			}
		})
	}
}

func TestExpectedEpoch(t *testing.T) {
	n := admintest.Start(t, nil)
	addHealth(t, n)
	for _, verb := range []string{"arm", "cutover", "rollback"} {
		path := "/v1/agencies/health/" + verb
		p := want[admin.Problem](t, n, 428, "POST", path, `{"reason":"r"}`)
		if !strings.Contains(p.Hint, "1.1") {
			t.Errorf("%s: the hint lacks the epoch: %q", verb, p.Hint)
		}
		want[admin.Problem](t, n, 412, "POST", path, `{"reason":"r","expected_epoch":"1.0"}`)
		want[admin.Problem](t, n, 412, "POST", path, `{"reason":"r","expected_epoch":"2.1"}`)
		want[admin.Problem](t, n, 400, "POST", path, `{"reason":"r","expected_epoch":"seven"}`)
		want[admin.Problem](t, n, 404, "POST", "/v1/agencies/nowhere/"+verb, `{"reason":"r","expected_epoch":"1.1"}`)
	}
	want[admin.Problem](t, n, 409, "POST", "/v1/agencies/health/cutover", `{"reason":"r","expected_epoch":"1.1"}`) // not armed
	armed(t, n, "health")
	want[admin.Problem](t, n, 409, "POST", "/v1/agencies/health/rollback", `{"reason":"r","expected_epoch":"1.1"}`) // wrong phase
}

// Two switches of one agency at once: one is carried out, the other refused. Of two
// agencies: both.
func TestTwoAtOnce(t *testing.T) {
	n := admintest.Start(t, nil)
	addHealth(t, n)
	want[admin.Agency](t, n, 201, "POST", "/v1/agencies", `{"id":"finance","source":"exchange","target":"ox","domains":["finance.example"],"reason":"r"}`)
	armed(t, n, "health")
	armed(t, n, "finance")
	statuses := make([]int, 3)
	var ids [3]string
	var calls sync.WaitGroup
	for i, id := range []string{"health", "health", "finance"} {
		calls.Go(func() {
			status, _, text := call(t, n, "POST", "/v1/agencies/"+id+"/cutover", `{"reason":"r","expected_epoch":"1.1"}`)
			var op admin.Operation
			if err := json.Unmarshal([]byte(text), &op); err != nil {
				t.Errorf("%s: %v", text, err)
			}
			statuses[i], ids[i] = status, op.ID
		})
	}
	calls.Wait()
	if statuses[2] != 202 {
		t.Errorf("the other agency: %d", statuses[2])
	}
	// 412 if the first had ended before the second was looked at.
	done, refused := statuses[0], statuses[1]
	if done != 202 {
		done, refused = refused, done
	}
	if done != 202 || refused != 409 && refused != 412 {
		t.Errorf("statuses %v, want one 202 and one 409", statuses[:2])
	}
	for i, id := range ids {
		if statuses[i] == 202 {
			if op := ended(t, n, id); op.Step != "done" {
				t.Errorf("operation %d: %+v", i, op)
			}
		}
	}
	for _, id := range []string{"health", "finance"} {
		if a := want[admin.Agency](t, n, 200, "GET", "/v1/agencies/"+id, ""); a.Epoch != "1.4" || a.Phase != "target" {
			t.Errorf("%+v", a)
		}
	}
}

func TestIdempotencyKey(t *testing.T) {
	n := admintest.Start(t, nil)
	const body = `{"id":"a","source":"exchange","target":"ox","reason":"r"}`
	first := want[admin.Agency](t, n, 201, "POST", "/v1/agencies", body, "Idempotency-Key", "k1")
	again := want[admin.Agency](t, n, 201, "POST", "/v1/agencies", body, "Idempotency-Key", "k1")
	if first.Revision != again.Revision {
		t.Errorf("revisions %d and %d", first.Revision, again.Revision)
	}
	// A person has one set of keys, whichever token.
	if status, h, _ := call(t, n, "POST", "/v1/agencies", body, "Idempotency-Key", "k1", "Authorization", "Bearer "+admintest.Anna2); status != 201 || h.Get("Idempotency-Replayed") != "true" {
		t.Errorf("by the second token: %d %v", status, h)
	}
	want[admin.Problem](t, n, 409, "POST", "/v1/agencies", body, "Idempotency-Key", "k1", "Authorization", "Bearer "+admintest.Ben)
	want[admin.Problem](t, n, 422, "POST", "/v1/agencies", strings.Replace(body, `"a"`, `"b"`, 1), "Idempotency-Key", "k1")
	want[admin.Problem](t, n, 400, "POST", "/v1/agencies", body, "Idempotency-Key", strings.Repeat("k", 201))
	// What failed may be repeated.
	want[admin.Problem](t, n, 409, "POST", "/v1/agencies", body, "Idempotency-Key", "k2")
	want[admin.Agency](t, n, 201, "POST", "/v1/agencies", strings.Replace(body, `"a"`, `"b"`, 1), "Idempotency-Key", "k2")

	// A cutover that is sent twice, because the answer was lost, happens once.
	armed(t, n, "a")
	const start = `{"reason":"r","expected_epoch":"1.1"}`
	op := want[admin.Operation](t, n, 202, "POST", "/v1/agencies/a/cutover", start, "Idempotency-Key", "k3")
	ended(t, n, op.ID)
	if again := want[admin.Operation](t, n, 202, "POST", "/v1/agencies/a/cutover", start, "Idempotency-Key", "k3"); again.ID != op.ID {
		t.Errorf("operations %s and %s", op.ID, again.ID)
	}
	if ops := want[admin.Operations](t, n, 200, "GET", "/v1/operations", ""); len(ops.Operations) != 1 {
		t.Errorf("operations: %+v", ops)
	}
}

// What nobody foresaw is answered without its text, and logged.
func TestPanic(t *testing.T) {
	n := admintest.Start(t, func(o *admin.Options) { o.Config = func(bool) string { panic("secret detail") } })
	p := want[admin.Problem](t, n, 500, "GET", "/v1/config", "")
	if b, _ := json.Marshal(p); bytes.Contains(b, []byte("secret")) || p.Request == "" {
		t.Errorf("problem: %s", b)
	}
	if log := n.Log.String(); !strings.Contains(log, "secret detail") || !strings.Contains(log, p.Request) {
		t.Errorf("log: %s", log)
	}
	want[admin.Version](t, n, 200, "GET", "/v1/version", "")
}

func TestApprovalRequired(t *testing.T) {
	n := admintest.Start(t, required)
	addHealth(t, n)
	armed(t, n, "health")
	for _, verb := range []string{"cutover", "rollback"} {
		want[admin.Problem](t, n, 403, "POST", "/v1/agencies/health/"+verb, `{"reason":"r","expected_epoch":"1.1"}`)
	}
	if r := want[admin.Readiness](t, n, 200, "GET", "/readyz", ""); r.Approval != "required" {
		t.Errorf("%+v", r)
	}
}

func TestReady(t *testing.T) {
	up := map[string]bool{"exchange": true, "ox": true}
	var mu sync.Mutex
	n := admintest.Start(t, func(o *admin.Options) {
		o.Lab = true
		o.Platforms = func() []admin.Platform {
			mu.Lock()
			defer mu.Unlock()
			return []admin.Platform{{ID: "exchange", Ready: up["exchange"]}, {ID: "ox", Ready: up["ox"]}}
		}
	})
	if r := want[admin.Readiness](t, n, 200, "GET", "/readyz", ""); !r.Ready || r.Degraded || r.Approval != "none" || !r.Lab || !r.Table.Decides {
		t.Errorf("%+v", r)
	}
	set := func(exchange, ox bool) {
		mu.Lock()
		defer mu.Unlock()
		up["exchange"], up["ox"] = exchange, ox
	}
	set(true, false)
	if r := want[admin.Readiness](t, n, 200, "GET", "/readyz", ""); !r.Ready || !r.Degraded || r.Platforms["ox"] {
		t.Errorf("one platform down: %+v", r)
	}
	set(false, false)
	status, _, text := call(t, n, "GET", "/readyz", "")
	if status != 503 || !strings.Contains(text, "no platform") {
		t.Errorf("all platforms down: %d %s", status, text)
	}
}

func TestPilotGroup(t *testing.T) {
	n := admintest.Start(t, nil)
	addHealth(t, n)
	pilot := want[admin.Agency](t, n, 201, "POST", "/v1/agencies", `{"id":"health-pilot","source":"exchange","target":"ox","parent":"health","reason":"r"}`)
	if pilot.Parent != "health" {
		t.Errorf("%+v", pilot)
	}
	for name, body := range map[string]string{
		"other way":      `{"id":"b","source":"ox","target":"exchange","parent":"health","reason":"r"}`,
		"pilot's pilot":  `{"id":"b","source":"exchange","target":"ox","parent":"health-pilot","reason":"r"}`,
		"its own parent": `{"id":"b","source":"exchange","target":"ox","parent":"b","reason":"r"}`,
	} {
		t.Run(name, func(t *testing.T) { want[admin.Problem](t, n, 400, "POST", "/v1/agencies", body) })
	}
	if a := want[admin.Agency](t, n, 200, "GET", "/v1/agencies/health", ""); fmt.Sprint(a.Children) != "[health-pilot]" {
		t.Errorf("%+v", a)
	}
}

func TestAlarmsAndSettings(t *testing.T) {
	n := admintest.Start(t, nil)
	n.Alarms.Raise("operation/1", "stuck")
	if list := want[admin.AlarmList](t, n, 200, "GET", "/v1/alarms", ""); len(list.Alarms) != 1 || list.Alarms[0].Key != "operation/1" {
		t.Errorf("%+v", list)
	}
	want[admin.Problem](t, n, 404, "POST", "/v1/alarms/other/clear", `{"reason":"r"}`)
	if status, _, text := call(t, n, "POST", "/v1/alarms/operation%2F1/clear", `{"reason":"seen to"}`); status != 204 {
		t.Errorf("%d %s", status, text)
	}
	if n.Alarms.Len() != 0 || !strings.Contains(n.Log.String(), "seen to") {
		t.Errorf("not cleared, or not logged: %s", n.Log)
	}
	status, h, text := call(t, n, "GET", "/v1/config?changed=true", "")
	if status != 200 || h.Get("Content-Type") != "application/yaml" || text != "node: mx.example.org\n" {
		t.Errorf("%d %v %q", status, h, text)
	}
	if r := want[admin.Reloaded](t, n, 200, "POST", "/v1/config/reload", `{"reason":"r"}`); fmt.Sprint(r.Changed) != "[log.level]" {
		t.Errorf("%+v", r)
	}
	if tab := want[admin.Table](t, n, 200, "GET", "/v1/table", ""); !tab.Open || !tab.Decides || tab.Revision == 0 || tab.Age < 0 {
		t.Errorf("%+v", tab)
	}
	want[admin.Problem](t, n, 404, "GET", "/v1/nothing", "")
	want[admin.Problem](t, n, 400, "GET", "/v1/agencies?unknown=1", "")
}
