package splice

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"
)

// Errors to be tested for with errors.Is.
var (
	// ErrSuspended is for Owner.Flow to return, itself or wrapped: the chunk is kept, and
	// nothing is read or written until Joint.Resume.
	ErrSuspended = errors.New("suspended")
	// ErrClosed is for an engine that is closing.
	ErrClosed = errors.New("engine is closed")
	// ErrUnfit is for connections that can't be joined.
	ErrUnfit = errors.New("connection can't be joined")
)

// Options are an engine's limits. The zero value is usable.
type Options struct {
	// Workers is how many goroutines may move bytes at once. 0: two for each processor.
	Workers int
	// Idle is how long a pair may be silent in both directions. 0: for ever; TCP's keepalive
	// finds peers that are gone. Then the platform is cut and the client's side ended, with
	// last words if Owner.PlatformGone calls EndClient.
	Idle time.Duration
	// Write is how long a peer may take no byte while one waits for it. 0: 5 minutes.
	Write time.Duration
	// HalfOpen is how long a pair may be silent when one direction has ended, or when the
	// platform was cut and EndClient wasn't called. 0: one minute.
	HalfOpen time.Duration
	// Linger is how long a peer may take to take the last bytes and to end its side when
	// the other side is gone. 0: 5 seconds.
	Linger time.Duration
}

// Pair is what is joined.
type Pair struct {
	// Client and Platform are *net.TCPConn, what Under made of one, or *tls.Conn over what
	// Under made. The engine owns them from Join on.
	Client, Platform net.Conn
	// ToPlatform and ToClient are bytes that were read already; they go first. They must not be
	// altered after Join.
	ToPlatform, ToClient []byte
	Owner                Owner
}

// Owner is told of a pair and asked about it. Its methods must not wait. None is called
// before Joint.Start, and no two at once.
type Owner interface {
	// Flow is asked before each write, in either direction. nil: go on. ErrSuspended: keep
	// the chunk and stop. Any other error: as CutPlatform.
	Flow() error
	// ToClientSeen is given what the client is sent, in order, when it is handed to the kernel
	// or, with TLS, has been made a record. The bytes are valid during the call only.
	ToClientSeen(p []byte)
	// PlatformGone is called once for each pair that was started: the platform's socket is
	// closed and no byte from the client can reach it any more.
	PlatformGone()
	// Done is called once, at last: both sockets are closed.
	Done(Ended)
}

// Ended tells how a pair ended.
type Ended struct {
	By    By
	Err   error // what went wrong; nil: nothing did
	Words bool  // the last words, if there were any, were taken by the client's kernel or ours
	Stats Stats
}

// By is what ended a pair.
type By uint8

const (
	ByUnknown  By = iota
	ByClient      // the client ended or failed first
	ByPlatform    // the platform ended or failed first
	ByOwner       // CutPlatform, CutWhenSilent or EndClient
	ByFlow        // Owner.Flow refused
	ByLimit       // a limit of Options
	ByClose       // Engine.Close
)

// String returns the word used in logs and metrics.
func (b By) String() string {
	words := [...]string{"unknown", "client", "platform", "owner", "flow", "limit", "close"}
	if int(b) < len(words) {
		return words[b]
	}
	return words[0]
}

// Stats are a pair's counts.
type Stats struct {
	ToPlatform, ToClient int64     // bytes written, rests included, before encryption
	Last                 time.Time // when a byte was read or written last
}

// Counts are an engine's.
type Counts struct {
	Pairs  int // joined and not done
	Active int // of these: at work now, or waiting to be
}

// parts takes a connection apart.
func parts(nc net.Conn) (*net.TCPConn, *wire, *tls.Conn, error) {
	switch nc := nc.(type) {
	case *net.TCPConn:
		return nc, nil, nil, nil
	case *wire:
		return nc.TCPConn, nil, nil, nil
	case *tls.Conn:
		if !nc.ConnectionState().HandshakeComplete {
			return nil, nil, nil, fmt.Errorf("%w: TLS without a handshake", ErrUnfit)
		}
		if w, ok := nc.NetConn().(*wire); ok {
			return w.TCPConn, w, nc, nil
		}
		return nil, nil, nil, fmt.Errorf("%w: TLS over %T; use splice.Under beneath it", ErrUnfit, nc.NetConn())
	}
	return nil, nil, nil, fmt.Errorf("%w: %T", ErrUnfit, nc)
}
