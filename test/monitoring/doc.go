// Package monitoring has no code, only the test that the alert rules and the dashboard below
// configs/ fit the program: Prometheus' own promtool takes the rules and sees them fire, each
// metric and label that a rule or a panel names is one that the program has, and each alert names
// its entry of the runbook.
package monitoring
