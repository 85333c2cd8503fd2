//go:build unix

package dial

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"time"

	"mailcutover/internal/nonblock"
)

// direct connects to hosts that are named by their addresses.
type direct struct {
	host           string // as configured
	to             netip.AddrPort
	unacknowledged time.Duration
}

// dial connects, at the latest when timeout has passed. The connection is hardened.
//
// It connects before package net does, which then finds the connection there, if the platform
// is near, and needn't wait; the scheduler isn't told of the one call that takes long, since
// on this host it does the platform's part too. What comes of it package net learns by its own
// call.
func (d direct) dial(ctx context.Context, timeout time.Duration) (net.Conn, error) {
	n := net.Dialer{KeepAlive: -1, Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		used := raw.Control(func(fd uintptr) {
			if err = errors.Join(harden(fd, d.unacknowledged), keepAlive(fd)); err == nil {
				_ = nonblock.Connect(fd, d.to)
			}
		})
		return errors.Join(used, err)
	}}
	// Package net sets its timers by the deadline, where it has to wait. A context of its own
	// would have one in any case.
	return n.DialContext(until{ctx, time.Now().Add(timeout)}, "tcp", d.host)
}

// until is a context with a deadline that nobody but its reader watches.
type until struct {
	context.Context
	deadline time.Time
}

// Deadline implements context.Context.
func (u until) Deadline() (time.Time, bool) {
	if d, ok := u.Context.Deadline(); ok && d.Before(u.deadline) {
		return d, true
	}
	return u.deadline, true
}
