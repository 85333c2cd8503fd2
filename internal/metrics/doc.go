// Package metrics counts what a node does, for Prometheus.
//
// It promises that every metric of ours stands in one list ([All]) with its unit, its
// labels and what it means to an operator; docs/operations/metrics.md is made from that
// list. Names begin with mailcutover_ and end in their unit; label values are words of
// the product, names from the configuration and SMTP codes, never addresses or other
// things that peers choose.
//
// A message is counted by adding to counters that were looked up before: the observers
// that [Metrics.Listener], [Metrics.Endpoint] and [Metrics.Transfer] return keep them.
// What has a state of its own (table, agencies, alarms) is asked when somebody scrapes.
// Counting never fails and never blocks.
//
// The daemon makes one Metrics for a node and hands its observers to the parts; all
// methods are safe for concurrent use.
package metrics
