// Package webhook sends events to a program's URL, signed.
//
// A call is a POST of one event as JSON (package notice), with the headers of Standard
// Webhooks (https://github.com/standard-webhooks/standard-webhooks, version 1.0.0):
// webhook-id is the event's ID and the same in each attempt, webhook-timestamp the moment
// of this attempt in seconds since 1970, and webhook-signature an HMAC-SHA256 over
// "id.timestamp.body" under each secret, so that a receiver may know the old or the new one.
//
// It promises that an answer of 2xx, and nothing else, counts as taken. It follows no
// redirects, asks no proxy of the environment, reads a bounded part of an answer and never
// shows it. Unless that is allowed it refuses plain HTTP, and addresses of this host, also where a name
// leads to one. A refusal of the content (400, 413, 415, 422) wraps [notice.ErrRejected], every other
// failure is for now.
//
// A Sender is safe for concurrent use. Package notice/desk calls it, one event at a time
// for each channel; every call ends with its context or its timeout.
package webhook
