package monitoring

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"mailcutover/internal/metrics"
	"mailcutover/test/peers"
)

func file(t *testing.T, name string) string {
	t.Helper()
	root, err := peers.Root()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(root, name)
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(file(t, name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// rule is an alert of configs/prometheus/alerts.yaml.
type rule struct {
	Alert, Expr, For    string
	Labels, Annotations map[string]string
}

func rules(t *testing.T) []rule {
	t.Helper()
	var f struct{ Groups []struct{ Rules []rule } }
	if err := yaml.Unmarshal(read(t, "configs/prometheus/alerts.yaml"), &f); err != nil {
		t.Fatal(err)
	}
	var all []rule
	for _, g := range f.Groups {
		all = append(all, g.Rules...)
	}
	if len(all) < 30 {
		t.Fatalf("%d rules", len(all))
	}
	return all
}

// expressions returns those of the dashboard's panels.
func expressions(t *testing.T) []string {
	t.Helper()
	var all []string
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			for key, v := range v {
				if text, ok := v.(string); ok && key == "expr" {
					all = append(all, text)
				}
				walk(v)
			}
		case []any:
			for _, v := range v {
				walk(v)
			}
		}
	}
	var dashboard any
	if err := json.Unmarshal(read(t, "configs/grafana/mailcutover.json"), &dashboard); err != nil {
		t.Fatal(err)
	}
	walk(dashboard)
	if len(all) < 10 {
		t.Fatalf("%d expressions in the dashboard", len(all))
	}
	return all
}

func TestPromtool(t *testing.T) {
	peers.Need(t, "promtool")
	for _, args := range [][]string{{"check", "rules", "alerts.yaml"}, {"test", "rules", "alerts_test.yaml"}} {
		cmd := exec.CommandContext(t.Context(), "promtool", args...)
		cmd.Dir = file(t, "configs/prometheus")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
}

var (
	quoted   = regexp.MustCompile(`"(\\.|[^"\\])*"`)
	named    = regexp.MustCompile(`\b(mailcutover_\w+)(\{[^}]*\})?`)
	grouping = regexp.MustCompile(`\b(?:by|on|without|ignoring|group_left|group_right) *\(([^)]*)\)`)
	template = regexp.MustCompile(`\$labels\.(\w+)`)
	matcher  = regexp.MustCompile(`(\w+) *(?:=~|!~|!=|=)`)
)

// ofPrometheus are the labels that no metric of ours has to have.
var ofPrometheus = []string{"instance", "job", "le", ""}

// unknown says what an expression names that the program doesn't have.
func unknown(expr string) []string {
	known := make(map[string][]string)
	for _, d := range metrics.All() {
		known[d.Name] = d.Labels
		if d.Kind == metrics.Histogram {
			for _, part := range []string{"_bucket", "_sum", "_count"} {
				known[d.Name+part] = d.Labels
			}
		}
	}
	var wrong, here []string
	bare := quoted.ReplaceAllString(expr, `""`)
	for _, m := range named.FindAllStringSubmatch(bare, -1) {
		labels, ok := known[m[1]]
		if !ok {
			wrong = append(wrong, "metric "+m[1])
			continue
		}
		here = append(here, labels...)
		for _, l := range matcher.FindAllStringSubmatch(m[2], -1) {
			if !slices.Contains(labels, l[1]) && !slices.Contains(ofPrometheus, l[1]) {
				wrong = append(wrong, "label "+l[1]+" of "+m[1])
			}
		}
	}
	for _, m := range grouping.FindAllStringSubmatch(bare, -1) {
		for l := range strings.SplitSeq(m[1], ",") {
			if l = strings.TrimSpace(l); !slices.Contains(here, l) && !slices.Contains(ofPrometheus, l) {
				wrong = append(wrong, "label "+l)
			}
		}
	}
	for _, m := range template.FindAllStringSubmatch(expr, -1) {
		if !slices.Contains(here, m[1]) && !slices.Contains(ofPrometheus, m[1]) {
			wrong = append(wrong, "label "+m[1])
		}
	}
	return wrong
}

func TestMetricsExist(t *testing.T) {
	used := make(map[string]bool)
	note := func(text string) {
		for _, m := range named.FindAllStringSubmatch(text, -1) {
			used[m[1]] = true
		}
	}
	for _, r := range rules(t) {
		texts := r.Expr
		for _, a := range r.Annotations {
			texts += "\n" + a
		}
		if wrong := unknown(texts); len(wrong) > 0 {
			t.Errorf("%s names what the program doesn't have: %v", r.Alert, wrong)
		}
		note(r.Expr)
	}
	for _, e := range expressions(t) {
		if wrong := unknown(e); len(wrong) > 0 {
			t.Errorf("the dashboard's %q names what the program doesn't have: %v", e, wrong)
		}
		note(e)
	}
	if len(used) < 25 {
		t.Errorf("only %d metrics are used: %v", len(used), used)
	}
}

// The check itself finds what is wrong.
func TestUnknown(t *testing.T) {
	for expr, want := range map[string]string{
		`mailcutover_alarms > 0`:                                     "",
		`rate(mailcutover_platform_dial_seconds_bucket{le="1"}[5m])`: "",
		`mailcutover_alarm > 0`:                                      "metric mailcutover_alarm",
		`mailcutover_alarms{kind="x"}`:                               "label kind of mailcutover_alarms",
		`sum by (platfrom) (mailcutover_deliveries_total)`:           "label platfrom",
		`mailcutover_deliveries_total{class=~"4|5", host="a=b"}`:     "label host of mailcutover_deliveries_total",
		"mailcutover_alarms\n{{ $labels.agency }}":                   "label agency",
	} {
		if got := strings.Join(unknown(expr), "; "); got != want {
			t.Errorf("%s: %q, want %q", expr, got, want)
		}
	}
}

// Who is woken finds the entry: each alert names one that is there, and says what to do.
func TestAlertsNameTheRunbook(t *testing.T) {
	headings := strings.ToLower(string(read(t, "docs/operations/runbook.md")))
	for _, r := range rules(t) {
		name := strings.ToLower(r.Alert)
		if want := "docs/operations/runbook.md#alert-" + name; r.Annotations["runbook"] != want {
			t.Errorf("%s: runbook %q, want %q", r.Alert, r.Annotations["runbook"], want)
		}
		if !strings.Contains(headings, "\n### alert "+name+"\n") {
			t.Errorf("%s has no entry in the runbook", r.Alert)
		}
		if s := r.Labels["severity"]; s != "page" && s != "ticket" || r.Annotations["summary"] == "" || r.Annotations["action"] == "" || r.For == "" {
			t.Errorf("%s: %+v", r.Alert, r)
		}
	}
}

// Every kind of alarm that a rule waits for is one that the program raises.
func TestKindsOfAlarmsExist(t *testing.T) {
	runbook := string(read(t, "docs/operations/runbook.md"))
	var kinds []string
	for _, m := range regexp.MustCompile(`(?m)^### Alarm ([a-z-]+)`).FindAllStringSubmatch(runbook, -1) {
		kinds = append(kinds, m[1])
	}
	for _, r := range rules(t) {
		for _, m := range regexp.MustCompile(`mailcutover_alarms_by_kind\{kind(=~|=)"([^"]+)"\}`).FindAllStringSubmatch(r.Expr, -1) {
			for part := range strings.SplitSeq(m[2], "|") {
				// node-(a|b) is split at its bars too: what is left has to be within a kind.
				part = strings.Trim(strings.NewReplacer("node-(", "node-", ".*", "", ")", "").Replace(part), "-")
				if !slices.ContainsFunc(kinds, func(k string) bool { return strings.Contains(k, part) }) {
					t.Errorf("%s waits for alarms of kind %s, which the runbook doesn't know", r.Alert, part)
				}
			}
		}
	}
}
