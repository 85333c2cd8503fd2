// Package peer is how nodes call each other's API, so that any of them can answer for all.
//
// A node that was called by a person calls the other members at once ([Group.Call]), at the
// addresses that they have written into the table. Each call has the nodes' common
// secret and says on whose behalf it is made: who the person is, by which token, with which
// roles. The called node takes that from a caller who knows the secret ([Open]), answers for
// itself only, and calls nobody.
//
// It promises that the answer says which nodes did not answer and why; that no
// node is waited for longer than the timeout; and that the secret goes only to a node
// whose certificate was checked, or to this host's own loopback.
//
// It refuses to call a node at an address of the network without TLS, and anything at all
// without a secret; such nodes are among those that did not answer.
//
// Its caller is package admin, from the goroutine of a call. For each call of another node
// there is one goroutine more, which Call waits for.
package peer
