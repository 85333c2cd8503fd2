package metrics

import (
	"fmt"
	"strings"
)

// Reference returns docs/operations/metrics.md.
func Reference() string {
	var b strings.Builder
	b.WriteString(`# Metrics

<!-- Made from internal/metrics/list.go: go test ./internal/metrics -run Reference -update -->

Each node serves its metrics to Prometheus at ` + "`/metrics`" + ` of its admin address. Counters begin at 0 with the
node: look at their rates. Besides these there are the Go runtime's (` + "`go_`" + `) and the process' (` + "`process_`" + `).

Labels: ` + "`listener`, `platform` and `host`" + ` are as in the configuration; ` + "`origin`" + ` is inside or outside; ` + "`phase`" + ` is that
of the agency; ` + "`code`" + ` is an SMTP reply code and ` + "`class`" + ` its first digit.

`)
	for _, d := range All() {
		fmt.Fprintf(&b, "## %s\n\n%s", d.Name, strings.ToUpper(string(d.Kind[:1]))+string(d.Kind[1:]))
		if len(d.Labels) > 0 {
			fmt.Fprintf(&b, " by `%s`", strings.Join(d.Labels, "`, `"))
		}
		fmt.Fprintf(&b, ". %s", d.Help)
		if d.Watch != "" {
			fmt.Fprintf(&b, "\n\n%s", d.Watch)
		}
		b.WriteString("\n\n")
	}
	return strings.TrimSuffix(b.String(), "\n")
}
