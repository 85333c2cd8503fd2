package systemd

import (
	"fmt"
	"net"
	"strconv"
	"time"
)

// writeTimeout bounds one datagram: a manager that doesn't read holds nobody up.
const writeTimeout = time.Second

// Notifier talks to the service manager. The zero value, and nil, talk to nobody.
type Notifier struct {
	conn     net.Conn
	watchdog time.Duration
}

// New returns a Notifier as the environment says; lookup is os.LookupEnv. pid is this
// process's: a watchdog that is meant for another process is none.
func New(lookup func(string) (string, bool), pid int) (*Notifier, error) {
	n := &Notifier{}
	path, _ := lookup("NOTIFY_SOCKET")
	if path == "" {
		return n, nil
	}
	// A name that begins with @ is in the abstract namespace; package net knows that form.
	conn, err := net.DialTimeout("unixgram", path, writeTimeout)
	if err != nil {
		return n, fmt.Errorf("reach the service manager: %w", err)
	}
	n.conn = conn
	if who, ok := lookup("WATCHDOG_PID"); ok && who != strconv.Itoa(pid) {
		return n, nil
	}
	if text, ok := lookup("WATCHDOG_USEC"); ok {
		usec, err := strconv.ParseUint(text, 10, 53)
		if err != nil {
			return n, fmt.Errorf("WATCHDOG_USEC %q: want microseconds", text)
		}
		n.watchdog = time.Duration(usec) * time.Microsecond
	}
	return n, nil
}

// Interval is how often Alive is to be called: half of the time after which the manager takes
// the service for dead. 0: it doesn't watch.
func (n *Notifier) Interval() time.Duration {
	if n == nil {
		return 0
	}
	return n.watchdog / 2
}

// Ready tells that the service has started, or has taken over its new settings.
func (n *Notifier) Ready(status string) error { return n.tell("READY=1\nSTATUS=" + status) }

// Reloading tells that settings are being read again; Ready follows. now is a reading of
// CLOCK_MONOTONIC (see [Monotonic]).
func (n *Notifier) Reloading(now time.Duration) error {
	return n.tell("RELOADING=1\nMONOTONIC_USEC=" + strconv.FormatInt(now.Microseconds(), 10))
}

// Stopping tells that the service ends.
func (n *Notifier) Stopping(status string) error { return n.tell("STOPPING=1\nSTATUS=" + status) }

// Alive is what the watchdog waits for.
func (n *Notifier) Alive() error { return n.tell("WATCHDOG=1") }

func (n *Notifier) tell(state string) error {
	if n == nil || n.conn == nil {
		return nil
	}
	_ = n.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	if _, err := n.conn.Write([]byte(state + "\n")); err != nil {
		return fmt.Errorf("tell the service manager: %w", err)
	}
	return nil
}

// Close ends the connection.
func (n *Notifier) Close() error {
	if n == nil || n.conn == nil {
		return nil
	}
	return n.conn.Close()
}
