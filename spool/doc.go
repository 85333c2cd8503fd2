// Package spool keeps held and waiting mail on this node's disk.
//
// It promises that a message whose Commit returned nil is found after any crash or power
// cut, complete and unaltered, with the states of its recipients; that nothing is
// deliverable which was not committed; and that a body which isn't what was written is
// never taken for it (P1). It knows neither network nor routes.
package spool
