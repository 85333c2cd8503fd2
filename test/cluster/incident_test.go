package cluster

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"net/smtp"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// An export asked of one node has what went through the other one; where that one doesn't answer, or
// people said that it is off, it says so by name and that it isn't complete.
func TestIncidentOverNodes(t *testing.T) {
	t.Parallel()
	c := start(t, Options{Nodes: 2, Direct: true, Peers: true})
	began := time.Now().Add(-time.Minute)
	for i, n := range c.Nodes {
		for j := range 3 {
			letter := fmt.Sprintf("Message-ID: <%d.%d@out.example>\r\nFrom: s%d@out.example\r\nSubject: x\r\n\r\nhello\r\n", i, j, i)
			Until(t, "node "+n.Name+" to take mail", func() bool {
				return smtp.SendMail(n.SMTP, nil, fmt.Sprintf("s%d@out.example", i), []string{Mailbox("health", j+1)}, []byte(letter)) == nil
			})
		}
	}
	asked, other := c.Nodes[0], c.Nodes[1]
	// export returns how many deliveries of each node an export has, and what it says is missing of the other node.
	export := func(name string) (rows map[string]int, missing []string) {
		t.Helper()
		dir := filepath.Join(t.TempDir(), name)
		out, code := asked.Command(t.Context(), c.Program(), "incident", "export", "--agency", "health", "--since", began.Format(time.RFC3339), "--out", dir, "--reason", "DPO, case 17")
		if code != 0 {
			t.Fatalf("%s: %d %s", name, code, out)
		}
		var m struct {
			Complete bool     `json:"complete"`
			Missing  []string `json:"missing"`
		}
		read := func(name string) string {
			text, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			return string(text)
		}
		if err := json.Unmarshal([]byte(read("manifest.json")), &m); err != nil {
			t.Fatal(err)
		}
		table, err := csv.NewReader(strings.NewReader(strings.TrimPrefix(read("deliveries.csv"), "\ufeff"))).ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		column := slices.Index(table[0], "node")
		rows = map[string]int{}
		for _, row := range table[1:] {
			rows[row[column]]++
		}
		for _, text := range m.Missing {
			if strings.Contains(text, other.Name) {
				missing = append(missing, text)
			}
		}
		if len(missing) > 0 && (m.Complete || !strings.Contains(out, "NOT COMPLETE") || !strings.Contains(read("summary.en.html"), other.Name) || !strings.Contains(read("summary.de.html"), other.Name)) {
			t.Errorf("%s: the export doesn't say that it isn't complete: %s", name, out)
		}
		return rows, missing
	}
	var rows map[string]int
	var missing []string
	Until(t, "an export for which both nodes answered in time", func() bool {
		rows, missing = export("both")
		return len(missing) == 0
	})
	if rows[asked.Name] < 3 || rows[other.Name] < 3 {
		t.Errorf("both nodes answer: rows %v", rows)
	}
	c.Crash(t, other)
	if rows, missing = export("alone"); rows[asked.Name] < 3 || rows[other.Name] > 0 || len(missing) != 2 {
		t.Errorf("one node is gone: rows %v, missing %q", rows, missing)
	}
	if out, code := asked.Command(t.Context(), c.Program(), "node", "fence", other.Name, "--attested", "--reason", "its disk is lost"); code != 0 {
		t.Fatalf("fence: %d %s", code, out)
	}
	if rows, missing = export("off"); rows[asked.Name] < 3 || len(missing) != 2 || !strings.Contains(missing[0], "people said that it is off") {
		t.Errorf("one node is said to be off: rows %v, missing %q", rows, missing)
	}
}
