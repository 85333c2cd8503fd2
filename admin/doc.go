// Package admin is the node's HTTP API, and the client that the operator's commands use.
//
// Server answers under /v1 as its OpenAPI document says, which it serves itself at
// /openapi.json and /openapi.yaml, and without authentication /healthz, /readyz and
// /metrics. It decides nothing: what it changes it computes with package routing from
// this node's copy of the table and stores as one change, which the table takes only if
// nothing it rests on changed meanwhile; cutovers and rollbacks it hands to the runner.
//
// It promises that a change is whole or absent; that whoever switches an agency has
// seen its newest record (expected_epoch); that a call repeated under one Idempotency-Key
// acts once, also over a restart of the node; and that an operation it has started is waited for when
// the node stops. Every change names a person and a reason.
//
// It refuses calls without a token (401), bodies that are too large (413), not JSON
// (415), or not exactly what the document says: unknown fields, keys that stand twice,
// depth (400). There are no cookies, so no other site's page can act for an operator.
// Answers to errors are problem documents (RFC 9457) with a hint. An error that was not
// foreseen is logged and answered 500 without its text; a table that can't be reached
// is answered 503, and then sending the call again is safe.
//
// Tokens are kept as SHA-256 and never logged. The daemon makes one Server, gives it a
// listener and calls Shutdown; all methods are safe for concurrent use.
package admin
