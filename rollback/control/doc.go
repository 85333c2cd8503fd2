// Package control is what people do to agencies and nodes besides operations: lock and
// unlock, freeze and lift, arm and settle, finalise, confirm an emergency; take a node out
// for maintenance, say that it is dead, evict it; and bring a table back that lost writes.
//
// It promises that an act is one change of the table, for all its agencies or none, and
// that it is told as done only when it is on disk and on all configured replicas. A
// [Result] says of each node what it has made of it: a lock is only worth something where
// it is known to have arrived (docs/architecture/switch.md, "The fence").
//
// It refuses an act without a reason, on another epoch than the one that was seen, and
// what the state machine refuses. It doesn't ask who may do what: that, approval and the
// audit record come before the call. A table that can't be reached is asked again until
// the caller's context ends; then the act may have happened, and the same call, with the
// same id, makes that certain.
//
// The admin API calls it, from any goroutine; Tend ends settlings that were interrupted,
// and settles agencies that have been armed for long.
package control
