// Package daemon wires one node: table, replica, gate, relays, transfer, listeners,
// operations and the admin API, from one configuration. `serve`, the demo and the tests
// start it the same way.
//
// Start returns when the node serves, or with all that kept it from it; nothing is left
// running then. Shutdown ends it in two steps: no new work, then, after the grace
// period, what is left is cut. When a part fails, Failed says which, and the
// node is to be shut down.
//
// Reload takes a new configuration over as a whole or not at all; what can't change in
// a running node is refused by name.
package daemon
