package login

import (
	"errors"
	"fmt"
	"syscall"
	"time"
)

// errLeft is for a client that ended its side while its login waited.
var errLeft = errors.New("the client has left")

// leaving watches for the end of a client while nobody reads from it. left is closed when it
// has ended its side, or its connection broke. stop ends the watch, and waits for it; who reads
// next sets a deadline of his own.
func (h *client) leaving() (left <-chan struct{}, stop func()) {
	nc := h.conn.NetConn()
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return nil, func() {}
	}
	raw, err := sc.SyscallConn()
	if err != nil || nc.SetReadDeadline(time.Time{}) != nil || h.ended() != nil {
		return nil, func() {} // its end is near, and noticed otherwise
	}
	gone, over := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(over)
		if raw.Read(hungUp) == nil {
			close(gone)
		}
	}()
	return gone, func() {
		_ = nc.SetReadDeadline(time.Unix(1, 0))
		<-over
	}
}

// hasLeft makes an error of sleep of the one for which the login waited: the same cause, since
// who has only ended its side still reads the answer.
func hasLeft(err error) error {
	cause := CauseUnknown
	if refused := (*Refusal)(nil); errors.As(err, &refused) {
		cause = refused.Cause
	}
	return refuse(cause, fmt.Errorf("%w: %w", errLeft, err))
}
