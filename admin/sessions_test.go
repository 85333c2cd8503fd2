package admin_test

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"mailcutover/admin"
	"mailcutover/admin/admintest"
	"mailcutover/admin/peer"
	"mailcutover/routing"
	"mailcutover/spool"
)

// of returns n sessions whose ids begin with name.
func of(name string, n int) *admintest.Sessions {
	s := new(admintest.Sessions)
	for i := range n {
		s.Add(admin.Session{
			ID: fmt.Sprintf("%s-%02d", name, i), Protocol: []string{"imap", "pop3"}[i%2], State: "joined", Agency: "health", Mailbox: directoryID(1 + i%3),
			Login: fmt.Sprintf("user%d@health.example", i%3), Platform: "ox", Client: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 4711).String(), Since: time.Now(),
		})
	}
	return s
}

// cluster is nodes whose APIs call each other. Each has a table of its own: only who the others
// are matters here.
func cluster(t *testing.T, registries map[string]*admintest.Sessions, secret func(node string) string) map[string]*admintest.Node {
	t.Helper()
	var mu sync.Mutex
	members := make(map[string]string)
	nodes := make(map[string]*admintest.Node)
	for name, registry := range registries {
		group := peer.New(peer.Options{Settings: func() peer.Settings { return peer.Settings{Secret: secret(name)} }, Timeout: time.Minute})
		t.Cleanup(group.Close)
		nodes[name] = admintest.Start(t, func(o *admin.Options) {
			o.Node, o.Sessions, o.Peers, o.PeerSecret = name, registry, group, func() string { return secret(name) }
			o.Table = admintest.WithMembers(o.Table, func() (list []routing.Member) {
				mu.Lock()
				defer mu.Unlock()
				for name, address := range members {
					list = append(list, routing.Member{Node: routing.NodeID(name), Instance: "one", Address: address})
				}
				return list
			})
		})
		addHealth(t, nodes[name])
	}
	mu.Lock()
	defer mu.Unlock()
	for name, n := range nodes {
		members[name] = strings.TrimPrefix(n.URL, "http://")
	}
	members["gone"] = "127.0.0.1:1"
	return nodes
}

const nodesSecret = "what all nodes know"

func TestSessionsOfAllNodes(t *testing.T) {
	nodes := cluster(t, map[string]*admintest.Sessions{"mx1": of("a", 7), "mx2": of("b", 5), "mx3": of("c", 0)}, func(string) string { return nodesSecret })
	for name, n := range nodes {
		for _, size := range []int{1, 3, 5, 12, 100} {
			var got []string
			for after := ""; ; {
				page := want[admin.Sessions](t, n, 200, "GET", fmt.Sprintf("/v1/sessions?limit=%d&after=%s", size, after), "")
				if len(page.Sessions) > size || page.Total != 12 || len(page.Missing) != 1 || page.Missing[0].Node != "gone" || page.Missing[0].Error == "" {
					t.Fatalf("%s, pages of %d: %d sessions, total %d, missing %v", name, size, len(page.Sessions), page.Total, page.Missing)
				}
				for _, one := range page.Sessions {
					got = append(got, one.Node+"/"+one.ID)
				}
				if after = page.Next; after == "" {
					break
				}
			}
			if len(got) != 12 || !slices.IsSorted(got) || got[0] != "mx1/a-00" || got[11] != "mx2/b-04" {
				t.Errorf("%s, pages of %d: %v", name, size, got)
			}
		}
	}
	for query, count := range map[string]int{
		"protocol=imap": 7, "agency=health": 12, "mailbox=" + directoryID(2): 4, "login=User1@health.example": 4, "address=192.0.2.3": 2, "address=192.0.2.0/30": 8,
		"platform=ox": 12, "platform=exchange": 0, "id=b-03": 1, "id=nobody": 0, "protocol=pop3&login=user1@health.example": 2, "here=true": 7,
	} {
		if got := want[admin.Sessions](t, nodes["mx1"], 200, "GET", "/v1/sessions?"+query, ""); got.Total != count || len(got.Sessions) != count {
			t.Errorf("%s: %d of %d, want %d", query, len(got.Sessions), got.Total, count)
		}
	}
	for query, status := range map[string]int{"agency=none": 404, "mailbox=nobody": 404, "address=x": 400, "protocol=smtp": 400, "platform=none": 404, "limit=0": 400, "bogus=1": 400} {
		want[admin.Problem](t, nodes["mx1"], status, "GET", "/v1/sessions?"+query, "")
	}
	if one := want[admin.Session](t, nodes["mx3"], 200, "GET", "/v1/sessions/b-02", ""); one.Node != "mx2" || one.Login != "user2@health.example" {
		t.Errorf("session is %+v", one)
	}
	// It may be on the node that doesn't answer.
	want[admin.Problem](t, nodes["mx3"], 503, "GET", "/v1/sessions/z-02", "")
}

func TestCloseSessionsOnAllNodes(t *testing.T) {
	registries := map[string]*admintest.Sessions{"mx1": of("a", 6), "mx2": of("b", 6)}
	nodes := cluster(t, registries, func(string) string { return nodesSecret })
	const path = "/v1/sessions/close"
	for _, body := range []string{`{"reason":"r"}`, `{"reason":" ","all":true}`, `{"reason":"r","all":true,"agency":"health"}`, `{"all":true}`} {
		want[admin.Problem](t, nodes["mx1"], 400, "POST", path, body)
	}
	if status, _, _ := call(t, nodes["mx1"], "POST", path, `{"reason":"r","all":true}`, asCarla...); status != 403 {
		t.Errorf("an approver may close sessions: %d", status)
	}
	for _, step := range []struct {
		body      string
		closed    int
		remaining int
	}{
		{`{"reason":"r","id":"b-05"}`, 1, 11},
		{`{"reason":"r","mailbox":"` + directoryID(1) + `"}`, 4, 7},
		{`{"reason":"r","protocol":"imap","here":true}`, 2, 5},
		{`{"reason":"r","agency":"health"}`, 5, 0},
		{`{"reason":"r","all":true}`, 0, 0},
	} {
		done := want[admin.SessionsClosed](t, nodes["mx1"], 200, "POST", path, step.body)
		rest := len(registries["mx1"].List(admin.SessionQuery{})) + len(registries["mx2"].List(admin.SessionQuery{}))
		if done.Closed != step.closed || rest != step.remaining || strings.Contains(step.body, "here") != (len(done.Missing) == 0) {
			t.Errorf("%s: closed %+v, %d remain; want %d and %d", step.body, done, rest, step.closed, step.remaining)
		}
	}
	// Each node has it in its own audit log, with the person and not the node that called.
	for name, n := range nodes {
		var log strings.Builder
		if _, err := n.Audit.Export(&log); err != nil {
			t.Fatal(err)
		}
		if strings.Count(log.String(), `"close-sessions"`) < 4 || !strings.Contains(log.String(), "Anna Berg") {
			t.Errorf("audit log of %s: %s", name, log.String())
		}
	}
}

// A node without the others' secret neither learns from them nor acts on them.
func TestNodesWithAnotherSecret(t *testing.T) {
	registries := map[string]*admintest.Sessions{"mx1": of("a", 2), "mx2": of("b", 2)}
	nodes := cluster(t, registries, func(node string) string { return nodesSecret + node })
	done := want[admin.SessionsClosed](t, nodes["mx1"], 200, "POST", "/v1/sessions/close", `{"reason":"r","all":true}`)
	if done.Closed != 2 || len(done.Missing) != 2 || len(registries["mx2"].List(admin.SessionQuery{})) != 2 {
		t.Errorf("%+v", done)
	}
	nodes = cluster(t, map[string]*admintest.Sessions{"mx1": of("a", 2), "mx2": of("b", 2)}, func(string) string { return "" })
	page := want[admin.Sessions](t, nodes["mx1"], 200, "GET", "/v1/sessions", "")
	if page.Total != 2 || len(page.Missing) != 2 || !strings.Contains(page.Missing[0].Error, "admin.peer.secret_file") {
		t.Errorf("%+v", page)
	}
}

// With the nodes' secret only the few calls that nodes make can be made, and only with the
// rights of the person that is named.
func TestWhatNodesMayCall(t *testing.T) {
	n := cluster(t, map[string]*admintest.Sessions{"mx1": of("a", 2)}, func(string) string { return nodesSecret })["mx1"]
	address := strings.TrimPrefix(n.URL, "http://")
	group := peer.New(peer.Options{Settings: func() peer.Settings { return peer.Settings{Secret: nodesSecret} }, Timeout: time.Minute})
	defer group.Close()
	for _, c := range []struct {
		method, path string
		body         any
		role         string
		status       int
	}{
		{"GET", "/v1/sessions", nil, "viewer", 200},
		{"GET", "/v1/sessions", nil, "", 403},
		{"POST", "/v1/sessions/close", map[string]any{"all": true, "reason": "r"}, "viewer", 403},
		{"POST", "/v1/sessions/close", map[string]any{"all": true, "reason": "r"}, "operator", 200},
		{"GET", "/v1/agencies", nil, "viewer", 403},
		{"POST", "/v1/agencies/health/arm", map[string]any{"reason": "r"}, "operator", 403},
		{"POST", "/v1/config/reload", map[string]any{"reason": "r"}, "admin", 403},
	} {
		b := peer.Behalf{Node: "mx2", Request: "of mx2", Person: "Dora", Token: "dora", Roles: []string{c.role}, Everything: true} // this is no lab
		a := group.Call(t.Context(), []peer.Member{{Node: "mx1", Address: address}}, b, peer.Call{Method: c.method, Path: c.path, Body: c.body})[0]
		if a.Err != nil || a.Status != c.status {
			t.Errorf("%s %s as %q: %d %v %s, want %d", c.method, c.path, c.role, a.Status, a.Err, a.Body, c.status)
		}
	}
	if log := n.Log.String(); !strings.Contains(log, `"node":"mx2","of":"of mx2"`) || strings.Contains(log, nodesSecret) {
		t.Error("the log doesn't say which node called, or has the secret")
	}
}

// Each node tells what went through it; who didn't answer is named.
func TestTraceOfAllNodes(t *testing.T) {
	nodes := cluster(t, map[string]*admintest.Sessions{"mx1": of("a", 0), "mx2": of("b", 0)}, func(string) string { return nodesSecret })
	for name, n := range nodes {
		n.Put(t, "sender@out.example", to("dora@health.example", spool.StateQuarantined))
		n.Put(t, name+"@out.example", to("dora@health.example", spool.StateQuarantined))
	}
	got := want[admin.Traces](t, nodes["mx1"], 200, "GET", "/v1/trace?from=sender@out.example", "")
	if len(got.Messages) != 2 || got.Messages[0].Node == got.Messages[1].Node || got.More || got.Messages[0].Transaction < got.Messages[1].Transaction {
		t.Errorf("%+v", got)
	}
	if len(got.Notes) != 1 || !strings.Contains(got.Notes[0], "node gone did not answer") {
		t.Errorf("notes %v", got.Notes)
	}
	if got := want[admin.Traces](t, nodes["mx1"], 200, "GET", "/v1/trace?from=sender@out.example&limit=1", ""); len(got.Messages) != 1 || !got.More {
		t.Errorf("%+v", got)
	}
	if got := want[admin.Traces](t, nodes["mx1"], 200, "GET", "/v1/trace?from=mx2@out.example&here=true", ""); len(got.Messages) != 0 || len(got.Notes) != 0 {
		t.Errorf("%+v", got)
	}
	if got := want[admin.Traces](t, nodes["mx1"], 200, "GET", "/v1/trace?from=mx2@out.example", ""); len(got.Messages) != 1 || got.Messages[0].Node != "mx2" {
		t.Errorf("%+v", got)
	}
}

func TestRouteLogin(t *testing.T) {
	n := admintest.Start(t, nil)
	withDora(t, n)
	r := want[admin.LoginRoute](t, n, 200, "GET", "/v1/route/login/Dora@health.example", "", asCarla...)
	if !r.Open || r.Platform != "exchange" || r.Agency != "health" || r.Epoch == "" || r.Phase != "source" || r.Mailbox != directoryID(1) {
		t.Errorf("%+v", r)
	}
	want[admin.Problem](t, n, 404, "GET", "/v1/route/login/nobody@health.example", "")
	want[admin.Problem](t, n, 400, "GET", "/v1/route/login/%20x", "")
	if status, _, _ := call(t, n, "GET", "/v1/route/login/dora@health.example", "", "Authorization", "Bearer none"); status != http.StatusUnauthorized {
		t.Errorf("a stranger is told: %d", status)
	}
	want[admin.Agency](t, n, 200, "POST", "/v1/agencies/health/lock", `{"reason":"r","expected_epoch":"`+r.Epoch+`"}`)
	if r := want[admin.LoginRoute](t, n, 200, "GET", "/v1/route/login/dora@health.example", ""); r.Open || r.Platform != "exchange" {
		t.Errorf("%+v", r)
	}
}
