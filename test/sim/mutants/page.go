package main

import (
	"fmt"
	"strings"
)

const intro = `# Rules that cover each other

` + "`make mutants`" + ` leaves out one rule of [switch.md](switch.md) after the other, and the simulation has to notice
([testing.md](../testing.md#the-simulation)). Some rules it can't miss, since another one stands behind them, or since
they are about something that isn't simulated. That is no reason to drop them: the second rule is there for the fault that
passes the first. Each of them is listed here, with the test that shows that the rule does something by itself, and which
fails without it.

This page is written by ` + "`go run ./test/sim/mutants -page`" + ` from ` + "`test/sim/mutants/list.go`" + `.

| rule | left out | test that fails | why the simulation doesn't notice |
|---|---|---|---|
`

// text is docs/architecture/mutants.md.
func text() string {
	var b strings.Builder
	b.WriteString(intro)
	for i := range mutants {
		if m := &mutants[i]; m.why != "" {
			fmt.Fprintf(&b, "| %s | %s | `%s`: `%s` | %s |\n", m.rule, m.name, strings.TrimPrefix(m.test.pkg, "./"), strings.ReplaceAll(m.test.run, "|", "`, `"), m.why)
		}
	}
	return b.String()
}
