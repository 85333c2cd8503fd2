// Package alarm keeps what a human has to see: raised once, listed until done.
//
// It promises that an alarm which goes on is one entry and one line in the log, however
// often it is raised, and that it stays in the list until somebody, or the part that
// raised it, clears it. It refuses no alarm: beyond a bound on their number, the further
// ones are logged and counted together under one key.
//
// Alarms are in memory: after a restart, those whose reason is still there are raised
// anew. Any part raises them, from any goroutine; the admin API lists and clears them. A part
// that looks again and again keeps [Standing] alarms, which end by themselves.
package alarm
