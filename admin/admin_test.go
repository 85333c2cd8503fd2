package admin_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"mailcutover/admin"
	"mailcutover/admin/admintest"
)

// call sends one call and returns the status, the header and the body.
func call(t *testing.T, n *admintest.Node, method, path, body string, header ...string) (int, http.Header, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, n.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+admintest.Anna)
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		if header[i+1] == "" {
			req.Header.Del(header[i])
		} else {
			req.Header.Set(header[i], header[i+1])
		}
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, res.Header, string(b)
}

// want sends a call that must be answered with a status, and decodes the body.
func want[T any](t *testing.T, n *admintest.Node, status int, method, path, body string, header ...string) T {
	t.Helper()
	got, h, text := call(t, n, method, path, body, header...)
	if got != status {
		t.Fatalf("%s %s: status %d, want %d: %s", method, path, got, status, text)
	}
	if ct := h.Get("Content-Type"); status >= 400 && ct != "application/problem+json" {
		t.Errorf("%s %s: content type %q of a problem", method, path, ct)
	}
	var v T
	if text != "" {
		if err := json.Unmarshal([]byte(text), &v); err != nil {
			t.Fatalf("%s %s: %v: %s", method, path, err, text)
		}
	}
	return v
}

func addHealth(t *testing.T, n *admintest.Node) admin.Agency {
	t.Helper()
	return want[admin.Agency](t, n, http.StatusCreated, "POST", "/v1/agencies",
		`{"id":"health","source":"exchange","target":"ox","domains":["health.example"],"reason":"first"}`)
}

func armed(t *testing.T, n *admintest.Node, id string) admin.Agency {
	t.Helper()
	a := want[admin.Agency](t, n, 200, "GET", "/v1/agencies/"+id, "")
	return want[admin.Agency](t, n, 200, "POST", "/v1/agencies/"+id+"/arm", fmt.Sprintf(`{"reason":"soon","expected_epoch":%q}`, a.Epoch))
}

// ended waits until an operation is no longer under way, by its events.
func ended(t *testing.T, n *admintest.Node, id string) admin.Operation {
	t.Helper()
	status, h, text := call(t, n, "GET", "/v1/operations/"+id+"/events", "")
	if status != 200 || h.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("events: %d %s %s", status, h.Get("Content-Type"), text)
	}
	var op admin.Operation
	for line := range strings.Lines(text) {
		if data, ok := strings.CutPrefix(line, "data: "); ok {
			if err := json.Unmarshal([]byte(data), &op); err != nil {
				t.Fatal(err)
			}
		}
	}
	return op
}

func TestCutoverAndBack(t *testing.T) {
	n := admintest.Start(t, nil)
	if a := addHealth(t, n); a.Phase != "source" || a.Epoch != "1.1" || !a.Open || a.Platform != "exchange" {
		t.Fatalf("new agency: %+v", a)
	}
	a := armed(t, n, "health")
	if a.Tightness != "armed" || a.Epoch != "1.1" {
		t.Fatalf("armed: %+v", a)
	}
	for _, step := range []struct{ kind, phase, epoch string }{{"cutover", "target", "1.4"}, {"rollback", "source", "1.7"}} {
		status, h, text := call(t, n, "POST", "/v1/agencies/health/"+step.kind, fmt.Sprintf(`{"reason":"test","expected_epoch":%q}`, a.Epoch))
		var op admin.Operation
		if err := json.Unmarshal([]byte(text), &op); err != nil || status != http.StatusAccepted {
			t.Fatalf("%s: %d %s", step.kind, status, text)
		}
		if h.Get("Location") != "/v1/operations/"+op.ID || h.Get("Mailcutover-Approval") != "none" {
			t.Errorf("header of %s: %v", step.kind, h)
		}
		op = ended(t, n, op.ID)
		if op.Step != "done" || op.Running || op.Person != "Anna Berg" || op.Reason != "test" || op.ClosedFor <= 0 {
			t.Errorf("%s ended as %+v", step.kind, op)
		}
		a = want[admin.Agency](t, n, 200, "GET", "/v1/agencies/health", "")
		if a.Phase != step.phase || a.Epoch != step.epoch || !a.Open {
			t.Errorf("after %s: %+v", step.kind, a)
		}
	}
	ops := want[admin.Operations](t, n, 200, "GET", "/v1/operations?agency=health", "")
	if len(ops.Operations) != 2 || ops.Operations[1].Kind != "rollback" || !ops.Operations[0].Ended {
		t.Errorf("operations: %+v", ops)
	}
}
