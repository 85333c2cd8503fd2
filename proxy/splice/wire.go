package splice

import (
	"net"
	"syscall"
	"time"

	"mailcutover/internal/nonblock"
)

// Under returns what has to be put beneath a *tls.Conn, in nc's place, so that the TLS
// connection can be joined later: tls.Server(splice.Under(nc), config). Until then it is
// nc itself, for one goroutine that reads and one that writes. What is no *net.TCPConn is
// returned as it is.
func Under(nc net.Conn) net.Conn {
	if t, ok := nc.(*net.TCPConn); ok {
		return &wire{TCPConn: t, waits: nonblock.New(t)}
	}
	return nc
}

// wire is between a tls.Conn and its socket. After it was joined it never waits: a read
// that finds nothing is a timeout, after which crypto/tls can go on, and a write is kept until
// flush. It then belongs to whoever runs the pair.
type wire struct {
	*net.TCPConn
	waits *nonblock.Socket // reads and writes until it is joined; nil: it is
	pool  *pool            // nil: not joined
	fd    socket
	in    bool    // the socket may have something to read
	hup   bool    // and its end may be near: a short read doesn't mean that it has no more
	ahead bool    // the last read filled what it was given
	got   *buffer // read and not taken yet; nil: nothing
	out   *buffer // to be sent; nil: nothing
}

// wouldBlock is the error of a read that finds nothing. It has to be a net.Error that is
// temporary, or crypto/tls keeps it for good (crypto/tls, Conn.readRecordOrCCS).
type wouldBlock struct{}

func (wouldBlock) Error() string   { return "nothing to read yet" }
func (wouldBlock) Timeout() bool   { return true }
func (wouldBlock) Temporary() bool { return true }

// Read implements io.Reader.
func (w *wire) Read(p []byte) (int, error) {
	if w.pool == nil {
		return w.waits.Read(p)
	}
	if w.got != nil {
		return w.take(p), nil
	}
	if !w.in {
		return 0, wouldBlock{}
	}
	if w.ahead {
		// crypto/tls reads record by record; this reads several at once.
		w.got = w.pool.get(large)
		n, err := w.receive(w.got.room())
		if err != nil {
			w.pool.put(&w.got)
			return 0, err
		}
		w.got.to = n
		return w.take(p), nil
	}
	n, err := w.receive(p)
	w.ahead = err == nil && n == len(p)
	return n, err
}

// take hands out what was read ahead.
func (w *wire) take(p []byte) int {
	n := copy(p, w.got.bytes())
	if w.got.from += n; w.got.from == w.got.to {
		w.pool.put(&w.got)
	}
	return n
}

func (w *wire) receive(p []byte) (int, error) {
	n, err := w.fd.receive(&w.pool.calls, p)
	switch {
	case err == syscall.EAGAIN:
		w.in, w.ahead = false, false
		return 0, wouldBlock{}
	case err != nil:
		return 0, err
	case n < len(p) && !w.hup:
		w.in = false // what comes now is told anew
		w.ahead = false
	}
	return n, nil
}

// Write implements io.Writer. Joined, it only keeps p.
func (w *wire) Write(p []byte) (int, error) {
	if w.pool == nil {
		return w.waits.Write(p)
	}
	if w.out == nil {
		w.out = w.pool.get(small)
	}
	w.out.append(p)
	return len(p), nil
}

// WriteNow writes what the socket takes at once, whatever its deadline is, before it is joined.
func (w *wire) WriteNow(p []byte) (int, error) {
	if w.pool == nil {
		return w.waits.WriteNow(p)
	}
	return 0, nil
}

// flush sends what was written; blocked says that some of it remains.
func (w *wire) flush() (blocked bool, err error) {
	for w.out != nil {
		n, err := w.fd.send(&w.pool.calls, w.out.bytes())
		if w.out.from += n; w.out.from == w.out.to {
			w.pool.put(&w.out)
		}
		if err == syscall.EAGAIN {
			return w.out != nil, nil
		}
		if err != nil {
			return false, err
		}
	}
	return false, nil
}

// SetDeadline and the others are called by crypto/tls around its close_notify. Joined, nothing
// waits that a deadline could end.
func (w *wire) SetDeadline(t time.Time) error {
	if w.pool == nil {
		return w.TCPConn.SetDeadline(t)
	}
	return nil
}

// SetReadDeadline implements net.Conn.
func (w *wire) SetReadDeadline(t time.Time) error {
	if w.pool == nil {
		return w.TCPConn.SetReadDeadline(t)
	}
	return nil
}

// SetWriteDeadline implements net.Conn.
func (w *wire) SetWriteDeadline(t time.Time) error {
	if w.pool == nil {
		return w.TCPConn.SetWriteDeadline(t)
	}
	return nil
}

// drop forgets what was read ahead and what was not sent.
func (w *wire) drop() {
	w.pool.put(&w.got)
	w.pool.put(&w.out)
}
