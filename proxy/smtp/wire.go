package smtp

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"mailcutover/internal/nonblock"
)

const (
	// bufferBytes is the size of the pooled input buffers: a TLS record and more.
	bufferBytes = 32 << 10
	// outputBytes is how many bytes of answers are collected at most before a write.
	outputBytes = 8 << 10
)

// errNoData is what a TLS connection's transport returns instead of waiting. crypto/tls
// goes on after it, as after every temporary net.Error.
var errNoData net.Error = noDataError{}

type noDataError struct{}

func (noDataError) Error() string   { return "no data yet" }
func (noDataError) Timeout() bool   { return true }
func (noDataError) Temporary() bool { return true }

// bufferPool has the buffers that connections borrow while they have something to read
// or to say.
type bufferPool struct {
	in  sync.Pool // *[bufferBytes]byte
	out sync.Pool // *[]byte, of capacity outputBytes or more
}

func newBufferPool() *bufferPool {
	return &bufferPool{
		in:  sync.Pool{New: func() any { return new([bufferBytes]byte) }},
		out: sync.Pool{New: func() any { b := make([]byte, 0, outputBytes+1024); return &b }},
	}
}

// wire reads and writes a connection's bytes. It waits for the peer without holding a
// buffer, and writes what was collected just before it waits: one read and one write
// for a burst of commands. It belongs to the connection's goroutine.
type wire struct {
	nc   net.Conn
	raw  syscall.RawConn // nil if nc has no descriptor to wait on
	tls  *tls.Conn       // nil while plain
	pool *bufferPool

	in   *[bufferBytes]byte // nil while nothing is unread, or parked
	r, w int                // what of in is unread
	kept []byte             // the unread bytes while parked

	out          *[]byte // answers not yet written; nil if none
	writeTimeout time.Duration
	writeErr     error

	attempt, peek, push func(fd uintptr) bool // made once: a closure for each wait would be garbage
	received            int64                 // bytes, in all
	got                 int
	gotErr              error
	sent                int // bytes of out
	sentErr             error
	peeked              bool
	polling             bool // the attempt is not to wait
}

func (w *wire) init(nc net.Conn, pool *bufferPool, writeTimeout time.Duration) error {
	w.nc, w.pool, w.writeTimeout = nc, pool, writeTimeout
	if sc, ok := nc.(syscall.Conn); ok {
		raw, err := sc.SyscallConn()
		if err != nil {
			return err
		}
		w.raw = raw
		w.attempt, w.peek, w.push = w.tryRead, w.tryPeek, w.tryWrite
	}
	return nil
}

// unread returns what was read and not yet taken; it is valid until the next fill.
func (w *wire) unread() []byte {
	if w.in == nil {
		return w.kept
	}
	return w.in[w.r:w.w]
}

// take marks the first n unread bytes as taken.
func (w *wire) take(n int) {
	if w.in == nil && n > 0 {
		w.grab()
	}
	w.r += n
}

// grab makes sure that there is a buffer, with room behind what is unread.
func (w *wire) grab() {
	if w.in == nil {
		w.in = w.pool.in.Get().(*[bufferBytes]byte)
		w.r, w.w = 0, copy(w.in[:], w.kept)
		w.kept = nil
		return
	}
	if w.r == w.w {
		w.r, w.w = 0, 0
	} else if w.r > 0 && w.w == len(w.in) {
		w.w = copy(w.in[:], w.in[w.r:w.w])
		w.r = 0
	}
}

// park gives the buffer back. The start of a line that a slow peer has sent is kept in
// as many bytes as it has.
func (w *wire) park() {
	if w.in == nil {
		return
	}
	if w.r < w.w {
		w.kept = append([]byte(nil), w.in[w.r:w.w]...)
	}
	w.pool.in.Put(w.in)
	w.in, w.r, w.w = nil, 0, 0
}

// fill reads what has arrived, at least one byte, and waits for it until the read
// deadline. Answers are written before it waits. The buffer must not be full.
func (w *wire) fill() error {
	switch {
	case w.tls != nil:
		return w.fillTLS()
	case w.raw == nil:
		if err := w.flush(); err != nil {
			return err
		}
		w.grab()
		n, err := w.nc.Read(w.in[w.w:])
		return w.filled(n, err)
	}
	err := w.raw.Read(w.attempt)
	if err != nil {
		return err
	}
	return w.filled(w.got, w.gotErr)
}

func (w *wire) filled(n int, err error) error {
	if n > 0 {
		w.w += n
		w.received += int64(n)
		return nil
	}
	if err == nil {
		err = io.EOF
	}
	return err
}

// tryRead reads from the descriptor without waiting. On false the runtime's poller
// waits, and calls it again.
func (w *wire) tryRead(fd uintptr) bool {
	w.grab()
	w.got, w.gotErr = nonblock.Read(fd, w.in[w.w:])
	if w.gotErr != syscall.EAGAIN {
		return true
	}
	w.park()
	if w.polling {
		return true
	}
	if err := w.flush(); err != nil {
		w.got, w.gotErr = 0, err
		return true
	}
	return false
}

func (w *wire) fillTLS() error {
	for {
		if w.raw == nil { // the read will wait
			if err := w.flush(); err != nil {
				return err
			}
		}
		w.grab()
		n, err := w.tls.Read(w.in[w.w:])
		if n > 0 || !errors.Is(err, errNoData) {
			return w.filled(n, err)
		}
		w.park()
		if err := w.flush(); err != nil {
			return err
		}
		w.peeked = false
		if err := w.raw.Read(w.peek); err != nil {
			return err
		}
	}
}

// tryPeek looks whether there is something to read. Only its first call asks: when the
// poller has woken us, the read that follows will.
func (w *wire) tryPeek(fd uintptr) bool {
	if w.peeked {
		return true
	}
	w.peeked = true
	var b [1]byte
	_, err := nonblock.Peek(fd, b[:])
	return err != syscall.EAGAIN
}

// poll reads what has arrived without waiting, and reports whether anything is unread.
func (w *wire) poll() bool {
	if len(w.unread()) > 0 || w.raw == nil {
		return len(w.unread()) > 0
	}
	// An error is left for the next fill, where it comes again.
	if w.tls != nil {
		w.grab()
		n, _ := w.tls.Read(w.in[:])
		_ = w.filled(n, nil)
	} else {
		w.polling = true
		if w.raw.Read(w.attempt) == nil {
			_ = w.filled(w.got, nil)
		}
		w.polling = false
	}
	if len(w.unread()) > 0 {
		return true
	}
	w.park()
	return false
}

// gone reports, without waiting, whether the peer has ended its side and nothing of it is
// unread. Under TLS its farewell may be unread; then this is false.
func (w *wire) gone() (over bool) {
	if w.raw == nil || len(w.unread()) > 0 {
		return false
	}
	err := w.raw.Control(func(fd uintptr) { // which asks for no deadline
		var b [1]byte
		n, err := nonblock.Peek(fd, b[:])
		over = n == 0 && err != syscall.EAGAIN
	})
	return over || err != nil
}

// output returns the collected bytes of answers, to be appended to.
func (w *wire) output() []byte {
	if w.out == nil {
		w.out = w.pool.out.Get().(*[]byte)
	}
	return *w.out
}

// setOutput takes back what output returned, with more appended, and writes it if it
// is much: a peer that pipelines without reading must not fill our memory.
func (w *wire) setOutput(b []byte) error {
	*w.out = b
	if len(b) < outputBytes {
		return nil
	}
	return w.flush()
}

// flush writes the collected answers.
func (w *wire) flush() error {
	if w.out == nil {
		return w.writeErr
	}
	if w.writeErr == nil && len(*w.out) > 0 {
		if err := w.nc.SetWriteDeadline(time.Now().Add(w.writeTimeout)); err != nil {
			w.writeErr = err
		} else {
			w.writeErr = w.write()
		}
	}
	*w.out = (*w.out)[:0]
	w.pool.out.Put(w.out)
	w.out = nil
	return w.writeErr
}

func (w *wire) write() (err error) {
	switch {
	case w.tls != nil:
		_, err = w.tls.Write(*w.out)
	case w.raw == nil:
		_, err = w.nc.Write(*w.out)
	default:
		w.sent, w.sentErr = 0, nil
		if err = w.raw.Write(w.push); err == nil {
			err = w.sentErr
		}
	}
	return err
}

// tryWrite writes to the descriptor without waiting. On false the runtime's poller
// waits, and calls it again.
func (w *wire) tryWrite(fd uintptr) bool {
	for w.sent < len(*w.out) {
		n, err := nonblock.Write(fd, (*w.out)[w.sent:])
		w.sent += n
		if err != nil {
			if err == syscall.EAGAIN {
				return false
			}
			w.sentErr = os.NewSyscallError("send", err)
			return true
		}
	}
	return true
}

// startTLS shakes hands; nothing may be unread. The handshake runs in a goroutine of its
// own, whose stack it leaves deep. Who ends ctx must end the connection's reads by a
// deadline after that: if the handshake had ctx, a connection's context would carry for
// its life what that left in it, some 400 bytes.
func (w *wire) startTLS(ctx context.Context, config *tls.Config, timeout time.Duration) error {
	if err := w.nc.SetDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	w.park()
	transport := &tlsTransport{Conn: w.nc, raw: w.raw}
	conn := tls.Server(transport, config)
	done := make(chan error)
	go func() { done <- conn.Handshake() }()
	if err := <-done; err != nil {
		return err
	}
	transport.impatient = w.raw != nil
	transport.attempt = transport.tryRead
	w.tls = conn
	return nil
}

// close ends the connection. With linger, what the peer still sends is read for a
// moment, since a reset would take our last answer from him.
func (w *wire) close(linger bool) {
	_ = w.flush()
	if linger && w.writeErr == nil {
		w.linger()
	}
	w.take(len(w.unread()))
	w.park()
	if w.tls != nil && w.writeErr == nil {
		_ = w.nc.SetWriteDeadline(time.Now().Add(lingerTime))
		_ = w.tls.Close()
		return
	}
	_ = w.nc.Close()
}

// What a peer that we cut off may still send until it learns of it.
const (
	lingerTime  = 500 * time.Millisecond
	lingerBytes = 1 << 20
)

func (w *wire) linger() {
	half, ok := w.nc.(interface{ CloseWrite() error })
	if w.tls != nil {
		_ = w.nc.SetWriteDeadline(time.Now().Add(lingerTime))
		_ = w.tls.CloseWrite()
	}
	if !ok || half.CloseWrite() != nil {
		return
	}
	if w.nc.SetReadDeadline(time.Now().Add(lingerTime)) != nil {
		return
	}
	w.take(len(w.unread()))
	w.park()
	b := make([]byte, 4096) // not a pooled one: many may linger at once
	for total := 0; total < lingerBytes; {
		n, err := w.nc.Read(b)
		total += n
		if err != nil {
			break
		}
	}
}

// tlsTransport is what crypto/tls reads from: it can say that there is nothing yet, so
// that the wait takes place outside, without a buffer.
type tlsTransport struct {
	net.Conn
	raw       syscall.RawConn
	impatient bool // return errNoData instead of waiting

	attempt func(fd uintptr) bool
	p       []byte
	n       int
	err     error
}

// Read implements net.Conn.
func (t *tlsTransport) Read(p []byte) (int, error) {
	if !t.impatient {
		return t.Conn.Read(p)
	}
	t.p = p
	err := t.raw.Read(t.attempt)
	t.p = nil
	switch {
	case err != nil:
		return 0, err
	case t.err == syscall.EAGAIN:
		return 0, errNoData
	case t.err != nil:
		return 0, os.NewSyscallError("read", t.err)
	case t.n == 0 && len(p) > 0:
		return 0, io.EOF
	}
	return t.n, nil
}

func (t *tlsTransport) tryRead(fd uintptr) bool {
	t.n, t.err = nonblock.Read(fd, t.p)
	return true
}
