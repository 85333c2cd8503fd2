package admin_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"mailcutover/admin"
	"mailcutover/admin/admintest"
	"mailcutover/ledger"
	"mailcutover/mail"
	"mailcutover/routing"
)

// An export has the rows of all nodes once, in the order of time, also where more of them fall
// into a moment than are held at once; it names the node that is gone, and isn't complete then.
func TestExportOfAllNodes(t *testing.T) {
	nodes := cluster(t, map[string]*admintest.Sessions{"mx1": of("a", 0), "mx2": of("b", 0)}, func(string) string { return nodesSecret })
	began := time.Now().Add(-10 * time.Minute).Truncate(time.Millisecond)
	delivered := []ledger.Answer{{Result: ledger.ResultDelivered, Code: 250, Text: "2.0.0 ok"}}
	mapping := routing.Digest{1, 2, 3}
	rcpt := ledger.Recipient{Address: "dora@health.example", Agency: "health", Epoch: routing.Epoch{Term: 1, Number: 7}, Mapping: mapping}
	other := ledger.Recipient{Address: "fred@finance.example", Agency: "finance"}
	count := map[string]int{"mx1": 12_000, "mx2": 3_000}
	for name, n := range count {
		for i := range n { // those of mx1 within 1.2 s, those of mx2 over the same time
			handOver(t, nodes[name], mail.NewTransactionID(), "s@out.example", "m@out.example", began.Add(time.Duration(i)*1200*time.Millisecond/time.Duration(n)), delivered, rcpt, other)
		}
		handOver(t, nodes[name], mail.NewTransactionID(), "s@out.example", "m@out.example", began.Add(-time.Second), delivered, rcpt)
		handOver(t, nodes[name], mail.NewTransactionID(), "s@out.example", "m@out.example", began.Add(time.Minute), []ledger.Answer{{Result: ledger.ResultRefused, Code: 550}}, rcpt)
	}
	client, err := admin.NewClient(nodes["mx1"].URL, admintest.Anna, nil)
	if err != nil {
		t.Fatal(err)
	}
	export := func(e admin.LedgerExport) (admin.Manifest, int) {
		t.Helper()
		e.From, e.To, e.Reason = began, began.Add(5*time.Minute), "case 17"
		var last time.Time
		seen := map[string]bool{}
		m, err := client.ExportLedger(t.Context(), e, func(d *admin.Delivery) error {
			if d.Time.Before(last) || d.Time.Before(began) {
				return fmt.Errorf("row of %s behind one of %s", d.Time, last)
			}
			if key := d.Transaction + d.Recipient; seen[key] {
				return fmt.Errorf("row %s is there twice", key)
			} else {
				seen[key] = true
			}
			if d.Agency == "health" && (d.Mapping != mapping.String() || d.Epoch != "1.7") {
				return fmt.Errorf("row is %+v", d)
			}
			last = d.Time
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if len(m.Missing) != 1 || m.Missing[0].Node != "gone" || m.Complete || m.Reason != "case 17" || m.By == "" {
			t.Errorf("manifest is %+v", m)
		}
		return m, len(seen)
	}
	if m, n := export(admin.LedgerExport{Agency: "health"}); n != 15_002 || m.Rows != n || m.Nodes["mx1"] != 12_001 || m.Nodes["mx2"] != 3_001 || len(m.Notes) != 0 {
		t.Errorf("%d rows, %+v", n, m)
	}
	if m, n := export(admin.LedgerExport{All: true, Result: "refused"}); n != 2 {
		t.Errorf("%d refused rows, %+v", n, m)
	}
}

// What is not whole is not taken for an export.
func TestExportThatWasCut(t *testing.T) {
	const row = `{"time":"2026-03-01T08:30:00Z","node":"mx1","transaction":"t","from":"","recipient":"a@b.example","size":1,"platform":"ox","result":"delivered"}` + "\n"
	const sum = "0a0c0d" // not that of the row
	for name, body := range map[string]string{
		"no manifest": row, "nothing": "", "half a line": row[:40], "another sum": row + `{"manifest":{"rows":1,"sha256":"` + sum + `"}}` + "\n", "no JSON": "<html>\n",
	} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(body)) }))
		client, err := admin.NewClient(s.URL, "token", nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = client.ExportLedger(t.Context(), admin.LedgerExport{All: true, Reason: "r"}, func(*admin.Delivery) error { return nil })
		if !errors.Is(err, admin.ErrCut) {
			t.Errorf("%s: %v, want ErrCut", name, err)
		}
		s.Close()
	}
}

// Rows are listed by platform and result, of all nodes, the newest first.
func TestLedgerOfAllNodes(t *testing.T) {
	nodes := cluster(t, map[string]*admintest.Sessions{"mx1": of("a", 0), "mx2": of("b", 0)}, func(string) string { return nodesSecret })
	now := time.Now().Truncate(time.Millisecond)
	rcpt := ledger.Recipient{Address: "dora@health.example", Agency: "health"}
	for name, n := range nodes {
		for i, result := range []ledger.Result{ledger.ResultDelivered, ledger.ResultRefused, ledger.ResultInDoubt} {
			handOver(t, n, mail.NewTransactionID(), "s@out.example", name, now.Add(time.Duration(i)*time.Second), []ledger.Answer{{Result: result}}, rcpt)
		}
	}
	list := func(query string) string {
		t.Helper()
		got := want[admin.Deliveries](t, nodes["mx2"], 200, "GET", "/v1/ledger?since="+now.Add(-time.Hour).UTC().Format(time.RFC3339)+query, "")
		if (len(got.Missing) == 1) == strings.Contains(query, "here") {
			t.Errorf("%s: missing %v", query, got.Missing)
		}
		var words []string
		for _, d := range got.Deliveries {
			words = append(words, d.Node+" "+d.Result)
		}
		return strings.Join(words, ", ")
	}
	for query, want := range map[string]string{
		"&agency=health&result=refused":             "mx2 refused, mx1 refused",
		"&all=true&result=refused&here=true":        "mx2 refused",
		"&agency=health&platform=ox":                "",
		"&agency=health&platform=exchange&limit=2":  "mx2 in doubt, mx1 in doubt",
		"&agency=health&result=delivered&here=true": "mx2 delivered",
	} {
		got := list(query)
		if want != got {
			if a, b, ok := strings.Cut(want, ", "); !ok || got != b+", "+a { // of one moment, in either order
				t.Errorf("%s: %q, want %q", query, got, want)
			}
		}
	}
}
